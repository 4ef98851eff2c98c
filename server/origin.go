package server

import (
	"net"
	"net/netip"
)

// An origin is where a connection comes from: what handlers may know of a client apart
// from what it sends. It does not change as long as the connection lasts.
type origin struct {
	listener      *Listener // that the client came in by; nil: one that says nothing
	local, remote net.Addr
}

// host is the client's address without its port; IPv4 in IPv6 becomes IPv4.
func (o *origin) host() string {
	host := o.remote.String()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().WithZone("").String()
	}
	return host
}
