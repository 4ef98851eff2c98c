package replication

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// Where the nodes are. A node says in each handshake where it listens, and in its views
// what it knows of the others, so that two which both moved find each other through
// one that knows both. Of two addresses of a node the one that it told later holds,
// by the time at which that process began; a process that meets a later one of itself,
// for its clock went back, tells its own anew.

// An addressed is where a node listens, in views and calls.
type addressed struct {
	Node        int32  `json:"node"`
	Incarnation string `json:"incarnation,omitempty"` // "": known from a file that does not say
	Address     string `json:"address"`
	Epoch       uint64 `json:"epoch"` // later ones replace earlier ones; 0: from a file
}

// addressesLocked returns all addresses known here, this node's too, with addressMu
// held.
func (n *Node) addressesLocked() []addressed {
	all := []addressed{{Node: n.identity.Node, Incarnation: n.identity.Incarnation, Address: n.cfg.Advertise, Epoch: n.epoch}}
	for node, addr := range n.addresses {
		a := n.told[node]
		a.Node, a.Address = node, addr
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b addressed) int { return int(a.Node) - int(b.Node) })
	return all
}

// knownAddresses is addressesLocked, for who does not hold the lock.
func (n *Node) knownAddresses() []addressed {
	n.addressMu.Lock()
	defer n.addressMu.Unlock()
	return n.addressesLocked()
}

// takeAddresses takes in what another node knows, and tells whether that is news.
func (n *Node) takeAddresses(list []addressed) (news bool) {
	n.addressMu.Lock()
	for _, a := range list {
		switch {
		case a.Node < 1 || !validAddress(a.Address):
		case a.Node == n.identity.Node:
			if a.Incarnation == n.identity.Incarnation && a.Epoch >= n.epoch && a.Address != n.cfg.Advertise {
				n.epoch = a.Epoch + 1
				news = true
			}
		case a.Epoch > n.told[a.Node].Epoch && n.registeredAs(a.Node, a.Incarnation):
			n.told[a.Node] = a
			if n.addresses[a.Node] != a.Address {
				n.addresses[a.Node] = a.Address
				news = true
			}
		}
	}
	if news {
		n.saveAddressesLocked()
	}
	n.addressMu.Unlock()
	if news {
		n.setPeers()
	}
	return news
}

func validAddress(addr string) bool {
	_, _, err := splitAddress(addr)
	return err == nil
}

// registeredAs tells whether a node is registered under an incarnation, or not known.
func (n *Node) registeredAs(node int32, incarnation string) bool {
	b, ok := n.Image().Broker(node)
	return !ok || b.Incarnation == incarnation
}

// resolve finds a node's address: what it said itself last, unless another incarnation
// of it was registered since, else the image.
func (n *Node) resolve(node int32) (addr string, ok bool) {
	n.addressMu.Lock()
	addr, ok = n.addresses[node]
	by := n.told[node].Incarnation
	n.addressMu.Unlock()
	b, registered := n.Image().Broker(node)
	if ok && (by == "" || !registered || b.Incarnation == by) {
		return addr, true
	}
	if registered {
		return address(b), true
	}
	return "", false
}

// learned keeps the address a peer introduced itself with.
func (n *Node) learned(peer transport.Peer, addr string) {
	n.addressMu.Lock()
	before := n.told[peer.Node]
	if addr == "" || n.addresses[peer.Node] == addr && before.Incarnation == peer.Incarnation ||
		before.Incarnation != peer.Incarnation && before.Incarnation != "" && !n.registeredAs(peer.Node, peer.Incarnation) {
		n.addressMu.Unlock()
		return
	}
	n.addresses[peer.Node] = addr
	n.told[peer.Node] = addressed{Node: peer.Node, Incarnation: peer.Incarnation, Address: addr, Epoch: before.Epoch}
	n.saveAddressesLocked()
	n.addressMu.Unlock()
	n.failover.evidence.sendViews()
}

// saveAddressesLocked keeps the addresses for the next start, with addressMu held. What
// was not saved is tried again by upkeep.
func (n *Node) saveAddressesLocked() {
	err := n.folder.SavePeers(n.addresses)
	if n.unsaved.Swap(err != nil) || err == nil {
		return
	}
	n.logger.Warn("peers' addresses were not saved, trying again", "error", err)
}

// seekLoop asks at the addresses that the node was given to join through, at each
// start, where the others are, until all that are known are heard: all of them may
// have moved since this node heard of them.
func (n *Node) seekLoop() {
	for rest := seekEvery; ; rest = min(2*rest, seekMost) {
		select {
		case <-n.closing:
			return
		case <-time.After(rest): // those who have not moved are there by then
		}
		if n.hearsAll() {
			return
		}
		for _, addr := range n.cfg.Join {
			if addr == n.cfg.Advertise {
				continue
			}
			if err := n.seek(addr); err != nil {
				n.logger.Debug("nobody told where the others are", "asked", addr, "error", err)
			}
		}
	}
}

// hearsAll tells whether this node hears every other node that it knows of.
func (n *Node) hearsAll() bool {
	for _, a := range n.knownAddresses() {
		if !n.Live(a.Node) {
			return false
		}
	}
	for _, b := range n.Image().Brokers() {
		if !n.Live(b.ID) {
			return false
		}
	}
	return true
}

// hintedAddresses are those known here, for whoever asks: without incarnations, which
// are what a node shows who it is by.
func (n *Node) hintedAddresses() []addressed {
	all := n.knownAddresses()
	for i := range all {
		all[i].Incarnation = ""
	}
	return all
}

// seek asks whoever is at an address where the others are, and takes that for where
// those are whom this node knows. If it is, they are told in the handshake where this
// one is.
func (n *Node) seek(addr string) error {
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	p, err := n.transport.CallAddr(ctx, addr, callSeek, nil)
	if err != nil {
		return err
	}
	var list []addressed
	if err := json.Unmarshal(p, &list); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	for i := range list {
		if b, ok := n.Image().Broker(list[i].Node); ok {
			list[i].Incarnation = b.Incarnation
		}
	}
	if n.takeAddresses(list) {
		n.failover.evidence.sendViews()
	}
	return nil
}

// setPeers tells the transport whom to stay connected to.
func (n *Node) setPeers() {
	nodes := make(map[int32]bool)
	n.addressMu.Lock()
	for node := range n.addresses {
		nodes[node] = true
	}
	n.addressMu.Unlock()
	for _, b := range n.Image().Brokers() {
		nodes[b.ID] = true
	}
	delete(nodes, n.identity.Node)
	list := make([]int32, 0, len(nodes))
	for node := range nodes {
		list = append(list, node)
	}
	slices.Sort(list)
	n.transport.SetPeers(list)
}

func address(b *metadata.Broker) string {
	return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
}

func splitAddress(addr string) (host string, port int32, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	p, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number below 65536", text)
	}
	return host, int32(p), nil
}
