package server

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// A security answers what Kafka answers where no quota is set and no user has a password. Tools ask by default, MirrorMaker among them, and take
// these for an answer where a closed connection would end them. What would set a
// quota or a password is not served, since nothing could keep to it.
type security struct{ *broker }

// SaslHandshake, versions 0–1 (KIP-43).
//
//   - UNSUPPORTED_SASL_MECHANISM, and that there are none. Clients take it for a failed
//     authentication and say so; where nothing answers them they connect for ever.
//     Kafka says ILLEGAL_SASL_STATE at a listener without SASL, which says less.
//   - The connection stays, and may go on without.
//
// v1 says how the tokens that follow are framed.
func (h *security) saslHandshake(c *call, req *kmsg.SASLHandshakeRequest) *kmsg.SASLHandshakeResponse {
	resp := kmsg.NewPtrSASLHandshakeResponse()
	resp.ErrorCode, resp.SupportedMechanisms = int16(protocol.UnsupportedSASLMechanism), []string{}
	h.warn("a client that would authenticate was refused: this release has neither authentication nor access control", "remote", c.conn.origin.remote, "mechanism", req.Mechanism)
	return resp
}

// DescribeClientQuotas, versions 0–1 (KIP-546).
//
//   - There are none, whoever is asked about.
//
// v1 adds tagged fields.
func (h *security) describeClientQuotas(c *call, req *kmsg.DescribeClientQuotasRequest) *kmsg.DescribeClientQuotasResponse {
	resp := kmsg.NewPtrDescribeClientQuotasResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(errClusterDenied)
		return resp
	}
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // null is a null pointer in Java's client
	return resp
}

// DescribeUserScramCredentials, version 0 (KIP-554).
//
//   - No user has any: all of them are none, and who is asked for by name is
//     RESOURCE_NOT_FOUND, named twice DUPLICATE_RESOURCE.
func (h *security) describeUserSCRAM(c *call, req *kmsg.DescribeUserSCRAMCredentialsRequest) *kmsg.DescribeUserSCRAMCredentialsResponse {
	resp := kmsg.NewPtrDescribeUserSCRAMCredentialsResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(errClusterDenied)
		return resp
	}
	named := map[string]int{}
	for _, u := range req.Users {
		c.step()
		named[u.Name]++
	}
	resp.Results = make([]kmsg.DescribeUserSCRAMCredentialsResponseResult, 0, len(named))
	for _, u := range req.Users {
		c.step()
		n := named[u.Name]
		if n == 0 {
			continue // answered with the first of the name
		}
		named[u.Name] = 0
		r := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		r.User = u.Name
		code, err := protocol.ResourceNotFound, sentencef("Attempt to describe a user credential that does not exist: %s", u.Name)
		if n > 1 {
			code, err = protocol.DuplicateResource, sentencef("Cannot describe SCRAM credentials for the same user twice in a single request: %s", u.Name)
		}
		r.ErrorCode, r.ErrorMessage = int16(code), message(err)
		resp.Results = append(resp.Results, r)
	}
	return resp
}
