package server

import (
	"regexp"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// features are what is served beyond single requests (KIP-584), at the levels
// that Kafka 4.1 finalizes.
var features = []struct {
	name       string
	min, level int16
}{
	{"metadata.version", 7, 27}, // 4.1-IV1
	{"group.version", 0, 1},     // KIP-848
}

// ApiVersions, versions 0–4.
//
//   - The answer is the table of apis.go, whoever asks; nobody needs to ask.
//   - A version we do not know gets UNSUPPORTED_VERSION in version 0, and the
//     connection stays (KIP-511); the response header never has tagged fields.
//   - The client's software name and version must match Kafka's pattern (KIP-511).
//
// v1 adds the throttle time, v3 tagged fields with features (KIP-584), v4 only
// says that a feature may begin at version 0.
func (h *handlers) apiVersions(c *call, req *kmsg.ApiVersionsRequest) *kmsg.ApiVersionsResponse {
	resp := kmsg.NewPtrApiVersionsResponse()
	if c.Version >= 3 && !(software.MatchString(req.ClientSoftwareName) && software.MatchString(req.ClientSoftwareVersion)) {
		resp.ErrorCode = int16(protocol.InvalidRequest)
		return resp
	}
	resp.ApiKeys = h.apiKeys()
	if c.Version >= 3 {
		for _, feature := range features {
			if feature.min > 0 || c.Version >= 4 {
				f := kmsg.NewApiVersionsResponseSupportedFeature()
				f.Name, f.MinVersion, f.MaxVersion = feature.name, feature.min, feature.level
				resp.SupportedFeatures = append(resp.SupportedFeatures, f)
			}
			l := kmsg.NewApiVersionsResponseFinalizedFeature()
			l.Name, l.MinVersionLevel, l.MaxVersionLevel = feature.name, feature.level, feature.level
			resp.FinalizedFeatures = append(resp.FinalizedFeatures, l)
		}
		resp.FinalizedFeaturesEpoch = int64(h.cluster.node.Image().Index)
	}
	return resp
}

// software is ApiVersionsRequest's SOFTWARE_NAME_VERSION_PATTERN.
var software = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

// unsupportedVersion is the answer to an ApiVersions in a version we do not know.
func (h *handlers) unsupportedVersion(asked protocol.Header) []byte {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = int16(protocol.UnsupportedVersion)
	resp.ApiKeys = h.apiKeys()
	asked.Version = 0
	p := resp.AppendTo(protocol.AppendHeader(nil, asked))
	protocol.Finish(p, 0)
	return p
}

func (h *handlers) apiKeys() []kmsg.ApiVersionsResponseApiKey {
	keys := make([]kmsg.ApiVersionsResponseApiKey, len(h.apis))
	for i, a := range h.apis {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = a.key.Int16(), a.min, a.max
		keys[i] = k
	}
	return keys
}
