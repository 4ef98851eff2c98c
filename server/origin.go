package server

import (
	"net"

	"millrace/security/acl"
)

// An origin is where a connection comes from: what handlers may know of a client apart
// from what it sends. It does not change as long as the connection lasts.
type origin struct {
	listener      *Listener // that the client came in by; nil: one that says nothing
	local, remote net.Addr
	host          string // the client's address without its port; IPv4 in IPv6 becomes IPv4
}

func originOf(conn net.Conn) origin {
	return origin{local: conn.LocalAddr(), remote: conn.RemoteAddr(), host: hostOf(conn.RemoteAddr())}
}

// hostOf is an origin's host.
func hostOf(a net.Addr) string {
	host := a.String()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return acl.CanonicalHost(host)
}
