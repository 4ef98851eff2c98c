package roster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// A Book has where the nodes are. A node says in each handshake where it listens, and in
// its views what it knows of the others, so that two which both moved find each other
// through one that knows both. Of two addresses of a node the one that it told later
// holds, by the time at which that process began; a process that meets a later one of
// itself, for its clock went back, tells its own anew.
type Book struct {
	cfg BookConfig

	mu        sync.Mutex
	addresses map[int32]string // where the others are
	told      map[int32]Entry  // and who said so
	epoch     uint64           // of this node's own
	unsaved   bool             // the addresses are, see saveLocked
}

// A BookConfig says whose Book it is. Every field must be set.
type BookConfig struct {
	Self    transport.Peer
	Address string        // where this node listens
	Folder  folder.Folder // keeps the addresses from one start to the next
	Cluster Cluster
	Network Network
	Views   Views
	Logger  *slog.Logger
	Timers  BookTimers
}

// BookTimers are how patient a Book is.
type BookTimers struct {
	Call                time.Duration // for an answer to where the others are
	SeekFirst, SeekMost time.Duration // between two questions, at first and at last
}

// An Entry is where a node listens, in views and calls.
type Entry struct {
	Node        int32  `json:"node"`
	Incarnation string `json:"incarnation,omitempty"` // "": known from a file that does not say
	Address     string `json:"address"`
	Epoch       uint64 `json:"epoch"` // later ones replace earlier ones; 0: from a file
}

// OpenBook returns what the folder says of where the others were.
func OpenBook(cfg BookConfig) *Book {
	return &Book{
		cfg: cfg, addresses: cfg.Folder.Peers(), told: make(map[int32]Entry),
		epoch: uint64(time.Now().UnixMilli()),
	}
}

// Entries returns all addresses known here, this node's too, by node.
func (b *Book) Entries() []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	self := b.cfg.Self
	all := []Entry{{Node: self.Node, Incarnation: self.Incarnation, Address: b.cfg.Address, Epoch: b.epoch}}
	for node, addr := range b.addresses {
		e := b.told[node]
		e.Node, e.Address = node, addr
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return int(a.Node) - int(b.Node) })
	return all
}

// Hints are the entries for whoever asks: without incarnations, which are what a node
// shows who it is by.
func (b *Book) Hints() []Entry {
	all := b.Entries()
	for i := range all {
		all[i].Incarnation = ""
	}
	return all
}

// Take takes in what another node knows, and tells whether that is news: then the others
// are to be told.
func (b *Book) Take(list []Entry) (news bool) {
	self := b.cfg.Self
	b.mu.Lock()
	for _, e := range list {
		switch {
		case e.Node < 1 || !validAddress(e.Address):
		case e.Node == self.Node:
			if e.Incarnation == self.Incarnation && e.Epoch >= b.epoch && e.Address != b.cfg.Address {
				b.epoch = e.Epoch + 1
				news = true
			}
		case e.Epoch > b.told[e.Node].Epoch && b.registeredAs(e.Node, e.Incarnation):
			b.told[e.Node] = e
			if b.addresses[e.Node] != e.Address {
				b.addresses[e.Node] = e.Address
				news = true
			}
		}
	}
	if news {
		b.saveLocked()
	}
	b.mu.Unlock()
	if news {
		b.SetPeers()
	}
	return news
}

func validAddress(addr string) bool {
	_, _, err := SplitAddress(addr)
	return err == nil
}

// registeredAs tells whether a node is registered under an incarnation, or not known.
func (b *Book) registeredAs(node int32, incarnation string) bool {
	known, ok := b.cfg.Cluster.Image().Broker(node)
	return !ok || known.Incarnation == incarnation
}

// Resolve finds a node's address: what it said itself last, unless another incarnation
// of it was registered since, else the image. It implements part of transport.Membership.
func (b *Book) Resolve(node int32) (addr string, ok bool) {
	b.mu.Lock()
	addr, ok = b.addresses[node]
	by := b.told[node].Incarnation
	b.mu.Unlock()
	known, registered := b.cfg.Cluster.Image().Broker(node)
	if ok && (by == "" || !registered || known.Incarnation == by) {
		return addr, true
	}
	if registered {
		return Address(known), true
	}
	return "", false
}

// Learned keeps the address a peer introduced itself with. It implements part of
// transport.Observer.
func (b *Book) Learned(peer transport.Peer, addr string) {
	b.mu.Lock()
	before := b.told[peer.Node]
	if addr == "" || b.addresses[peer.Node] == addr && before.Incarnation == peer.Incarnation ||
		before.Incarnation != peer.Incarnation && before.Incarnation != "" && !b.registeredAs(peer.Node, peer.Incarnation) {
		b.mu.Unlock()
		return
	}
	b.addresses[peer.Node] = addr
	b.told[peer.Node] = Entry{Node: peer.Node, Incarnation: peer.Incarnation, Address: addr, Epoch: before.Epoch}
	b.saveLocked()
	b.mu.Unlock()
	b.cfg.Views.ShowViews()
}

// saveLocked keeps the addresses for the next start, with mu held.
func (b *Book) saveLocked() {
	err := b.cfg.Folder.SavePeers(b.addresses)
	failed := b.unsaved
	if b.unsaved = err != nil; err == nil || failed {
		return
	}
	b.cfg.Logger.Warn("peers' addresses were not saved, trying again", "error", err)
}

// SaveAgain saves what could not be saved when it was learned. It is called now and then.
func (b *Book) SaveAgain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unsaved {
		b.saveLocked()
	}
}

// Seek asks at addresses, those that the node was given to join through, at each
// start, where the others are, until all that are known are heard or ctx ends: all of
// them may have moved since this node heard of them. kind is the call that asks.
func (b *Book) Seek(ctx context.Context, kind uint8, through []string) {
	timers := b.cfg.Timers
	for wait := timers.SeekFirst; ; wait = min(2*wait, timers.SeekMost) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait): // those who have not moved are there by then
		}
		if b.hearsAll() {
			return
		}
		for _, addr := range through {
			if addr == b.cfg.Address {
				continue
			}
			if err := b.seek(ctx, kind, addr); err != nil {
				b.cfg.Logger.Debug("nobody told where the others are", "asked", addr, "error", err)
			}
		}
	}
}

// hearsAll tells whether this node hears every other node that it knows of.
func (b *Book) hearsAll() bool {
	for _, e := range b.Entries() {
		if !b.cfg.Cluster.Live(e.Node) {
			return false
		}
	}
	for _, known := range b.cfg.Cluster.Image().Brokers() {
		if !b.cfg.Cluster.Live(known.ID) {
			return false
		}
	}
	return true
}

// seek asks whoever is at an address where the others are, and takes that for where
// those are whom this node knows. If it is, they are told in the handshake where this
// one is.
func (b *Book) seek(ctx context.Context, kind uint8, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timers.Call)
	defer cancel()
	p, err := b.cfg.Network.CallAddr(ctx, addr, kind, nil)
	if err != nil {
		return err
	}
	var list []Entry
	if err := json.Unmarshal(p, &list); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	for i := range list {
		if known, ok := b.cfg.Cluster.Image().Broker(list[i].Node); ok {
			list[i].Incarnation = known.Incarnation
		}
	}
	if b.Take(list) {
		b.cfg.Views.ShowViews()
	}
	return nil
}

// SetPeers tells the network whom to stay connected to: the registered, and all that an
// address is known of.
func (b *Book) SetPeers() {
	nodes := make(map[int32]bool)
	b.mu.Lock()
	for node := range b.addresses {
		nodes[node] = true
	}
	b.mu.Unlock()
	for _, known := range b.cfg.Cluster.Image().Brokers() {
		nodes[known.ID] = true
	}
	delete(nodes, b.cfg.Self.Node)
	list := make([]int32, 0, len(nodes))
	for node := range nodes {
		list = append(list, node)
	}
	slices.Sort(list)
	b.cfg.Network.SetPeers(list)
}

// Address is where a broker was registered, HOST:PORT.
func Address(b *metadata.Broker) string {
	return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
}

// SplitAddress takes HOST:PORT apart.
func SplitAddress(addr string) (host string, port int32, err error) {
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
