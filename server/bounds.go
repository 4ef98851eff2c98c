package server

import (
	"math"
	"net/netip"

	"millrace/replication/metadata"
	"millrace/server/mux"
)

// bounds are a broker's settings and quotas as far as its mux.Quotas ask for them
// (mux.Broker).
type bounds struct{ *broker }

// Limits implements mux.Broker. A limit of 0, which Kafka takes, would let nobody in to
// change it back, and is 1.
func (b bounds) Limits(remote netip.Addr) mux.Limits {
	remote = remote.WithZone("")
	connections := &b.settings().broker.Connections
	limits := mux.Limits{Connections: b.maxConnections(), PerIP: max(int(connections.MaxPerIP), 1)}
	if most, ok := connections.PerIPOverrides[remote]; ok {
		limits.PerIP = max(int(most), 1)
	}
	if connections.MaxRate < math.MaxInt32 {
		limits.Rate = max(float64(connections.MaxRate), 1)
	}
	image := b.node.Image()
	name := remote.String()
	for _, ip := range []string{name, ""} { // its own, or the default
		if q, ok := image.Quota(metadata.QuotaEntity{IP: &ip}); ok {
			limits.RatePerIP = q.Values[metadata.ConnectionCreationRate]
			break
		}
	}
	return limits
}

// MaxRequest implements mux.Broker.
func (b bounds) MaxRequest() int { return b.maxRequestBytes() }

// Warn implements mux.Broker.
func (b bounds) Warn(message string, args ...any) { b.warn(message, args...) }
