package server

import "millrace/server/mux"

// bounds are a broker's settings as far as its Quotas ask for them (mux.Broker).
type bounds struct{ *broker }

// Limits implements mux.Broker.
func (b bounds) Limits() mux.Limits {
	return mux.Limits{Connections: b.maxConnections(), PerIP: b.maxConnectionsPerIP(), MaxRequest: b.maxRequestBytes()}
}

// Warn implements mux.Broker.
func (b bounds) Warn(message string, args ...any) { b.warn(message, args...) }
