package server

import "millrace/server/mux"

// bounds are a Server's settings as far as its Quotas ask for them (mux.Broker).
type bounds struct{ s *Server }

// Limits implements mux.Broker.
func (b bounds) Limits() mux.Limits {
	return mux.Limits{Connections: b.s.maxConnections(), PerIP: b.s.maxConnectionsPerIP(), MaxRequest: b.s.maxRequestBytes()}
}

// Warn implements mux.Broker.
func (b bounds) Warn(message string, args ...any) { b.s.warn(message, args...) }
