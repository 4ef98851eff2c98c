package server

import (
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"millrace/replication/metadata"
)

// An endpoint is where clients reach a broker.
type endpoint struct {
	id   int32
	host string
	port int32
	rack *string // nil: none
}

// endpoints is a set of brokers to be named in an answer.
type endpoints map[int32]struct{}

// addresses returns where a client reaches each of the brokers, by id.
func (h *broker) addresses(o *origin, brokers endpoints) []endpoint {
	if len(brokers) == 0 {
		return nil
	}
	var list []endpoint
	image := h.node.Image()
	for id := range brokers {
		if b, ok := image.Broker(id); ok {
			list = append(list, h.address(o, b))
		}
	}
	slices.SortFunc(list, func(a, b endpoint) int { return int(a.id) - int(b.id) })
	return list
}

// address returns where a client reaches a broker: at what that registered for the
// listener the client came in by. For this node, unless an address is advertised,
// that is where its connection came in: right behind port forwarding of the same
// port, and from every network this node is in.
func (h *broker) address(o *origin, b *metadata.Broker) endpoint {
	e := endpoint{id: b.ID, host: b.Host, port: b.Port}
	if b.Rack != "" {
		e.rack = &b.Rack
	}
	advertised := h.advertised
	if o.listener != nil {
		advertised = o.listener.Advertised
		e.host, e.port = b.At(o.listener.Name)
	}
	if b.ID != h.node.ID() {
		return e
	}
	if advertised != "" {
		// Not what is registered: below feature level 3 that is one address for all.
		if host, port, err := net.SplitHostPort(advertised); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				e.host, e.port = host, int32(n)
			}
		}
		return e
	}
	if host, port, ok := splitAddr(o.local); ok {
		e.host, e.port = host, port
	}
	return e
}

// splitAddr takes a TCP address apart; IPv4 in IPv6 becomes IPv4.
func splitAddr(a net.Addr) (host string, port int32, ok bool) {
	h, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n > math.MaxUint16 {
		return "", 0, false
	}
	if ip, err := netip.ParseAddr(h); err == nil {
		h = ip.Unmap().WithZone("").String()
	}
	return h, int32(n), true
}
