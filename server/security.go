package server

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// A security answers about who may log in, and what is set for them. Of quotas it says what
// Kafka does where none is set: tools ask by default, MirrorMaker among them, and take that
// for an answer where a closed connection would end them. What would set one is not served,
// since nothing could keep to it.
type security struct{ *broker }

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
