package server

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/security/sasl"
	"millrace/server/protocol"
)

// SaslHandshake, versions 0–1 (KIP-43).
//
//   - UNSUPPORTED_SASL_MECHANISM, and those there are. Of a cluster without users, and
//     without an issuer of tokens, there are none: clients take that for a failed
//     authentication and say so; where nothing answers them they connect for ever.
//     Kafka says ILLEGAL_SASL_STATE at a listener without SASL, which says less.
//   - A client that may go on without a log-in stays connected, others do not.
//
// v1 says how the messages that follow are framed.
func (h *security) saslHandshake(c *call, req *kmsg.SASLHandshakeRequest) *kmsg.SASLHandshakeResponse {
	l := &c.conn.login
	resp := kmsg.NewPtrSASLHandshakeResponse()
	resp.SupportedMechanisms = []string{}
	offered, found := c.conn.mechanisms(), false
	for _, m := range offered {
		resp.SupportedMechanisms = append(resp.SupportedMechanisms, string(m))
		found = found || string(m) == req.Mechanism
	}
	var exchange sasl.Exchange
	if found {
		var err error
		exchange, err = h.logins().Begin(sasl.Mechanism(req.Mechanism))
		found = err == nil
	}
	if !found {
		resp.ErrorCode = int16(protocol.UnsupportedSASLMechanism)
		// Names of mechanisms are in capitals (RFC 4422): who asks for another wants to hear
		// which there are.
		if strings.ToUpper(req.Mechanism) == req.Mechanism {
			h.warn("a client would log in by a mechanism that is not offered to it", "remote", c.conn.origin.remote, "mechanism", bounded(req.Mechanism), "offered", resp.SupportedMechanisms,
				"why", h.whyNot(c.conn, req.Mechanism))
		}
		if c.conn.outside() {
			l.refused, l.told = errBye, true
		}
		return resp
	}
	l.again = l.done && l.mechanism != "" // who came by a certificate logs in for the first time
	l.mismatch = l.again && l.mechanism != sasl.Mechanism(req.Mechanism)
	l.mechanism, l.exchange, l.bare = sasl.Mechanism(req.Mechanism), exchange, c.Version == 0
	return resp
}

// whyNot says why a mechanism is not offered.
func (h *broker) whyNot(c *connection, name string) string {
	m, known := sasl.Parse(name)
	switch {
	case !known:
		return "this release does not have it"
	case m == sasl.OAuthBearer:
		return "no issuer of tokens is configured (sasl.oauthbearer.jwks.endpoint.url), or it is not enabled"
	case len(h.node.Image().Users()) == 0:
		return "the cluster has no users; `millrace user create` makes the first"
	case m == sasl.Plain && !c.private():
		return "PLAIN sends the password as it is: it is taken over TLS, or from this machine"
	}
	return "it is not enabled (sasl.enabled.mechanisms)"
}

// bounded is what a log shows of a text that a client chose.
func bounded(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// SaslAuthenticate, versions 0–2 (KIP-152, KIP-368).
//
//   - ILLEGAL_SASL_STATE without a handshake before it.
//   - SASL_AUTHENTICATION_FAILED, and in words why, but for what would tell whether there
//     is such a user.
//   - After either the connection is closed.
//
// v1 says for how long the log-in holds.
func (h *security) saslAuthenticate(c *call, req *kmsg.SASLAuthenticateRequest) *kmsg.SASLAuthenticateResponse {
	l := &c.conn.login
	resp := kmsg.NewPtrSASLAuthenticateResponse()
	resp.SASLAuthBytes = []byte{}
	fail := func(code protocol.Code, text string) *kmsg.SASLAuthenticateResponse {
		l.told = true
		resp.ErrorCode, resp.ErrorMessage = int16(code), &text
		return resp
	}
	if l.exchange == nil {
		l.refused = protocol.Malformed("SaslAuthenticate without a handshake before it")
		return fail(protocol.IllegalSASLState, "SaslAuthenticate request received without a SaslHandshake before it")
	}
	answer, err := c.conn.loginStep(req.SASLAuthBytes)
	if err != nil {
		return fail(protocol.SASLAuthenticationFailed, l.refusal(err))
	}
	resp.SASLAuthBytes = append(resp.SASLAuthBytes, answer...)
	resp.SessionLifetimeMillis = l.lifetimeMillis()
	return resp
}
