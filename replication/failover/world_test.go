package failover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// A world is some nodes, each with a Failover, in virtual time. Their network and their
// Raft groups are models; what the Failovers tell each other travels as they encode it.
//
// The network has a connection for each two nodes. It ends at once where a node dies or a
// link is broken, and 3 s after what one sends does not reach the other any more. It is back
// when the link is.
//
// A Raft group is its elections: terms, votes, the length of logs, a leader that steps down
// when it has heard no majority for 14 s, a follower that asks for pre-votes when it has
// heard no leader for 36 s, or for 14 s when it has its timeouts shortened. See testMember.
type world struct {
	t     *testing.T
	nodes map[int32]*testNode

	mu     sync.Mutex        // guards all that follows, and what nodes and members have but Failovers
	lost   map[[2]int32]bool // what the first sends to the second
	image  *metadata.Image
	groups map[uint64][]int32 // the voters of each
	mark   time.Time
	told   []line
}

// A line is what happened at a time.
type line struct {
	at   time.Duration // since mark
	text string
}

const (
	silence   = 3 * time.Second // after which a connection ends
	lease     = 14 * time.Second
	patience  = 36 * time.Second
	beatEvery = 3600 * time.Millisecond
)

// A testNode is one node, which may be dead.
type testNode struct {
	w       *world
	id      int32
	session uint64
	alive   bool
	f       *Failover
	end     context.CancelFunc
	tell    chan func(*Failover) // what it is told, in order
	hears   map[int32]process
	last    map[int32]time.Time // when others were heard last
	members map[uint64]*testMember
}

func newWorld(t *testing.T, nodes int32) *world {
	w := &world{t: t, nodes: make(map[int32]*testNode), lost: make(map[[2]int32]bool), groups: make(map[uint64][]int32), image: new(metadata.Image)}
	for id := int32(1); id <= nodes; id++ {
		w.nodes[id] = &testNode{w: w, id: id, members: make(map[uint64]*testMember), f: w.newFailover(id)}
		next, err := w.image.Apply(w.image.Index+1, metadata.RegisterBroker{
			Broker:    metadata.Broker{ID: id, Incarnation: peer(id).Incarnation, Host: "host", Port: 9092, MinLevel: metadata.MinLevel, MaxLevel: metadata.MaxLevel},
			ClusterID: "MkU3OEVBNTcwNTJENDM2Qg",
		})
		if err != nil {
			t.Fatal(err)
		}
		w.image = next
	}
	return w
}

func (w *world) newFailover(id int32) *Failover {
	h := host{w, id}
	return New(Config{Node: h, Observer: h, Jitter: rand.NewPCG(1, uint64(id))})
}

// note notes that something happened at a node, with mu held.
func (w *world) note(node int32, format string, args ...any) {
	w.told = append(w.told, line{time.Since(w.mark), fmt.Sprintf("n%d ", node) + fmt.Sprintf(format, args...)})
}

// take returns what has happened since the last call.
func (w *world) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.told, func(a, b line) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return strings.Compare(a.text, b.text)
	})
	var lines []string
	for _, l := range w.told {
		lines = append(lines, fmt.Sprintf("%7.3f s  %s", l.at.Seconds(), l.text))
	}
	w.told = nil
	return strings.Join(lines, "\n")
}

// latency is from one node to another: no two are the same, so that nothing depends on
// which of two goroutines is faster.
func latency(from, to int32) time.Duration {
	return time.Millisecond + time.Duration(10*from+to)*time.Microsecond
}

// send delivers something at another node, with mu held there and here, if there is a
// connection to it. It tells whether there is.
func (w *world) send(from, to int32, deliver func()) bool {
	p, ok := w.nodes[from].hears[to]
	if !ok {
		return false
	}
	time.AfterFunc(latency(from, to), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := w.nodes[to]; n.alive && n.session == p.Session && !w.lost[[2]int32{from, to}] {
			deliver()
		}
	})
	return true
}

// connect gives two nodes a connection if they can have one, with mu held.
func (w *world) connect(a, b int32) {
	m, n := w.nodes[a], w.nodes[b]
	if !m.alive || !n.alive || w.lost[[2]int32{a, b}] || w.lost[[2]int32{b, a}] {
		return
	}
	if _, ok := m.hears[b]; ok {
		return
	}
	m.heard(n)
	n.heard(m)
}

// heard has a node hear another from now on.
func (n *testNode) heard(other *testNode) {
	p := other.process()
	n.hears[other.id] = p
	n.last[other.id] = time.Now()
	n.later(latency(other.id, n.id), func(f *Failover) { f.PeerUp(p) })
	for _, m := range n.members {
		if m.state == raft.Leader {
			m.send(other.id)
		}
	}
}

// part ends the connection of two nodes, if they have one, with mu held.
func (w *world) part(a, b int32) {
	for _, of := range [][2]*testNode{{w.nodes[a], w.nodes[b]}, {w.nodes[b], w.nodes[a]}} {
		n, other := of[0], of[1]
		p, ok := n.hears[other.id]
		if !ok {
			continue
		}
		delete(n.hears, other.id)
		n.last[other.id] = time.Now()
		if n.alive {
			n.later(latency(other.id, n.id), func(f *Failover) { f.PeerDown(p) })
		}
	}
}

// lose has what one node sends to another not reach it from now on.
func (w *world) lose(from, to int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost[[2]int32{from, to}] = true
	time.AfterFunc(silence, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.lost[[2]int32{from, to}] {
			w.part(from, to)
		}
	})
}

// cut breaks the link between two nodes.
func (w *world) cut(a, b int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost[[2]int32{a, b}], w.lost[[2]int32{b, a}] = true, true
	w.part(a, b)
}

// heal has all links as they should be.
func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.lost)
	for a := range w.nodes {
		for b := range w.nodes {
			if a < b {
				w.connect(a, b)
			}
		}
	}
}

// later tells the node's Failover something after a while, if the node lives on.
func (n *testNode) later(d time.Duration, what func(*Failover)) {
	tell, session := n.tell, n.session
	time.AfterFunc(d, func() {
		n.w.mu.Lock()
		lives := n.alive && n.session == session
		n.w.mu.Unlock()
		if lives {
			tell <- what
		}
	})
}

func peer(node int32) transport.Peer {
	return transport.Peer{Node: node, Incarnation: fmt.Sprint("i", node)}
}

func (n *testNode) process() process {
	return process{Peer: peer(n.id), Session: n.session}
}

// start has a node live: it has what it has on its disk, and nothing open.
func (n *testNode) start() {
	w := n.w
	w.mu.Lock()
	n.alive = true
	n.session++
	n.f = w.newFailover(n.id)
	n.hears, n.last = make(map[int32]process), make(map[int32]time.Time)
	n.tell = make(chan func(*Failover), 100)
	ctx, end := context.WithCancel(context.Background())
	n.end = end
	f, tell := n.f, n.tell
	w.mu.Unlock()
	h := host{w, n.id}
	f.Start(ctx, h, slog.New(slog.NewTextHandler(h, &slog.HandlerOptions{ReplaceAttr: dropTime})))
	go func() {
		for {
			select {
			case what := <-tell:
				what(f)
			case <-ctx.Done():
				return
			}
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	for other := range w.nodes {
		if other != n.id {
			w.connect(n.id, other)
		}
	}
}

// kill ends a node without a word.
func (n *testNode) kill() {
	n.w.mu.Lock()
	n.alive = false
	for other := range n.w.nodes {
		n.w.part(n.id, other)
	}
	for _, m := range n.members {
		m.open, m.state, m.leader = false, raft.Follower, ""
	}
	n.w.mu.Unlock()
	n.end()
	n.f.Wait()
}

// end ends everything that runs.
func (w *world) end() {
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		if n := w.nodes[id]; n.alive {
			n.kill()
		}
	}
	time.Sleep(time.Minute)
}

// A host is a node as its Failover sees it, and the others.
type host struct {
	w  *world
	id int32
}

func (h host) node() *testNode        { return h.w.nodes[h.id] }
func (h host) Image() *metadata.Image { h.w.mu.Lock(); defer h.w.mu.Unlock(); return h.w.image }
func (h host) About() string          { return "" }

func (h host) Member(group uint64) (Member, bool) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	m := h.node().members[group]
	if m == nil || !m.open {
		return nil, false
	}
	return m, true
}

func (h host) EachMember(f func(Member)) {
	for _, group := range slices.Sorted(maps.Keys(h.w.groups)) {
		if m, ok := h.Member(group); ok {
			f(m)
		}
	}
}

func (h host) Addresses() json.RawMessage { return nil }
func (h host) Addressed(json.RawMessage) (bool, error) {
	return false, errors.New("nobody has said any")
}
func (h host) Said(transport.Peer, string) {}
func (h host) PeerUp(int32)                {}
func (h host) PeerDown(int32)              {}
func (h host) Led(uint64)                  {}
func (h host) Ended(uint64)                {}
func (h host) Changed()                    {}
func dropTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// Write takes a line of the log: warnings are part of the story.
func (h host) Write(p []byte) (int, error) {
	if text, ok := strings.CutPrefix(strings.TrimSpace(string(p)), "level=WARN msg="); ok {
		h.w.mu.Lock()
		defer h.w.mu.Unlock()
		h.w.note(h.id, "warns: %s", text)
	}
	return len(p), nil
}

var _ io.Writer = host{}

func (h host) Self() process {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.node().process()
}

func (h host) Hears(p transport.Peer) (process, bool) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	heard, ok := h.node().hears[p.Node]
	return heard, ok && heard.Peer == p
}

func (h host) LastHeard(p transport.Peer) time.Time {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.node().last[p.Node]
}

func (h host) Heard() (all []process) {
	for _, node := range h.Connected() {
		if p, ok := h.Hears(peer(node)); ok {
			all = append(all, p)
		}
	}
	return all
}

func (h host) Connected() []int32 {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return slices.Sorted(maps.Keys(h.node().hears))
}

// Call has another node's Failover take something in. What is lost is not answered before
// the connection ends.
func (h host) Call(ctx context.Context, to int32, kind uint8, data []byte) ([]byte, error) {
	from := h.Self().Peer
	answer := make(chan error, 1)
	h.w.mu.Lock()
	other := h.w.nodes[to]
	sent := h.w.send(h.id, to, func() {
		f := other.f
		go func() {
			var err error
			switch kind {
			case CallGossip:
				err = f.ReceiveGossip(from, data)
			case CallView:
				err = f.ReceiveView(from, data)
			}
			h.w.mu.Lock()
			defer h.w.mu.Unlock()
			h.w.send(to, h.id, func() { answer <- err })
		}()
	})
	h.w.mu.Unlock()
	if !sent {
		return nil, transport.ErrUnreachable
	}
	for {
		select {
		case err := <-answer:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
			if _, ok := h.Hears(peer(to)); !ok {
				return nil, transport.ErrUnreachable
			}
		}
	}
}

// A testMember is a node's part in a model of a Raft group.
type testMember struct {
	n     *testNode
	group uint64

	// What is on its disk.
	term uint64
	vote raft.ServerID // in term
	log  int           // its length: who has less is not voted for

	open    bool
	stalled bool
	state   raft.RaftState
	leader  raft.ServerID
	contact time.Time     // with a leader, or with somebody it voted for
	wait    time.Duration // Raft's own timeout
	tried   time.Time     // when that ran out last
	round   int           // of its questions for votes
	votes   int
	pre     bool                // they are pre-votes
	served  bool                // others have been told that it leads in this term
	won     time.Time           // its latest election
	acks    map[int32]time.Time // when followers answered last in this term
}

func (m *testMember) lock() func() { m.n.w.mu.Lock(); return m.n.w.mu.Unlock }

func (m *testMember) id() raft.ServerID { return serverID(m.n.id) }
func serverID(node int32) raft.ServerID {
	return peer(node).ServerID()
}

func (m *testMember) Group() uint64 { return m.group }
func (m *testMember) Name() string  { return groupName(m.group) }
func groupName(group uint64) string {
	if group == controllerGroup {
		return "controller"
	}
	return fmt.Sprintf("g%d", group)
}

func (m *testMember) Leader() raft.ServerID { defer m.lock()(); return m.leader }
func (m *testMember) Term() uint64          { defer m.lock()(); return m.term }
func (m *testMember) State() raft.RaftState { defer m.lock()(); return m.state }
func (m *testMember) Stalls() bool          { defer m.lock()(); return m.stalled }

func (m *testMember) Voters() (ids []raft.ServerID) {
	defer m.lock()()
	for _, node := range m.n.w.groups[m.group] {
		ids = append(ids, serverID(node))
	}
	return ids
}

func (m *testMember) LeadsNow() (uint64, bool) {
	defer m.lock()()
	return m.term, m.served && m.state == raft.Leader
}

func (m *testMember) StillLeads(term uint64) bool {
	defer m.lock()()
	return m.term == term && m.state == raft.Leader
}

// Campaign implements Member.
func (m *testMember) Campaign() error {
	defer m.lock()()
	if m.state != raft.Leader {
		m.campaign(true)
	}
	return nil
}

// AskPreVotes implements Member. Raft looks whether its heartbeat timeout has run out.
func (m *testMember) AskPreVotes() error {
	defer m.lock()()
	m.askPreVotes()
	return nil
}

func (m *testMember) askPreVotes() {
	if m.state != raft.Follower || !m.contact.IsZero() && time.Since(m.contact) < m.wait {
		return
	}
	m.n.w.note(m.n.id, "asks for pre-votes in %s", m.Name())
	m.state, m.leader = raft.Candidate, ""
	m.ask(true, false)
}

// AbandonCandidacy implements Member.
func (m *testMember) AbandonCandidacy(term uint64) error {
	defer m.lock()()
	if m.state == raft.Candidate && term > m.term {
		m.follow(term)
	}
	return nil
}

// ShortenTimeouts implements Member.
func (m *testMember) ShortenTimeouts(on bool) {
	defer m.lock()()
	m.wait = patience
	if on {
		m.wait = lease
	}
}

// follow makes it a follower in a later term.
func (m *testMember) follow(term uint64) {
	led := m.state == raft.Leader
	if term > m.term {
		m.term, m.vote = term, ""
	}
	m.state, m.leader, m.served = raft.Follower, "", false
	if led {
		m.n.w.note(m.n.id, "leads %s no more", m.Name())
		m.n.later(0, func(f *Failover) { f.StoodDown(m.group) })
	}
}

// campaign has it ask for votes. forced: of those too that hear a leader.
func (m *testMember) campaign(forced bool) {
	m.term++
	m.vote, m.state, m.leader = m.id(), raft.Candidate, ""
	m.n.w.note(m.n.id, "campaigns for %s in term %d", m.Name(), m.term)
	m.ask(false, forced)
}

// ask begins a round of questions for votes.
func (m *testMember) ask(pre, forced bool) {
	m.round++
	m.pre, m.votes = pre, 1
	for _, node := range m.n.w.groups[m.group] {
		if node != m.n.id {
			m.askOne(node, m.round, forced)
		}
	}
}

// askOne asks a voter, until it answers or there is no use.
func (m *testMember) askOne(node int32, round int, forced bool) {
	if m.state != raft.Candidate || m.round != round || !m.open {
		return
	}
	w, term, pre, log := m.n.w, m.term, m.pre, m.log
	if pre {
		term++
	}
	again := func() {
		time.AfterFunc(20*time.Millisecond, func() {
			defer m.lock()()
			m.askOne(node, round, forced)
		})
	}
	sent := w.send(m.n.id, node, func() {
		v := w.nodes[node].members[m.group]
		if v == nil || !v.open {
			w.send(node, m.n.id, again)
			return
		}
		granted := v.asked(m.id(), term, log, pre, forced)
		now := v.term
		w.send(node, m.n.id, func() { m.answered(round, granted, now) })
	})
	if !sent {
		again()
	}
}

// asked answers a question for a vote.
func (m *testMember) asked(by raft.ServerID, term uint64, log int, pre, forced bool) (granted bool) {
	if m.leader != "" && m.leader != by && !forced || term < m.term {
		return false
	}
	if pre {
		return log >= m.log
	}
	if term > m.term {
		m.follow(term)
	}
	if m.vote != "" && m.vote != by || log < m.log || m.state == raft.Leader {
		return false
	}
	m.vote, m.contact = by, time.Now()
	return true
}

// answered counts a vote.
func (m *testMember) answered(round int, granted bool, term uint64) {
	if m.state != raft.Candidate || m.round != round || !m.open {
		return
	}
	switch {
	case term > m.term:
		m.follow(term)
	case granted:
		m.votes++
		switch {
		case m.votes != len(m.n.w.groups[m.group])/2+1:
		case m.pre:
			m.campaign(false)
		default:
			m.state, m.leader = raft.Leader, m.id()
			m.log++ // the entry that begins the term
			m.won, m.acks = time.Now(), make(map[int32]time.Time)
			for _, node := range m.n.w.groups[m.group] {
				m.send(node)
			}
			m.beat(m.term)
		}
	}
}

// beat sends heartbeats for as long as it leads in a term.
func (m *testMember) beat(term uint64) {
	session := m.n.session
	time.AfterFunc(beatEvery, func() {
		defer m.lock()()
		if m.state != raft.Leader || m.term != term || m.n.session != session || !m.n.alive {
			return
		}
		heard, voters := 1, m.n.w.groups[m.group]
		for _, node := range voters {
			m.send(node)
			if node != m.n.id && (time.Since(m.acks[node]) < lease || time.Since(m.won) < lease) {
				heard++
			}
		}
		if heard <= len(voters)/2 {
			m.follow(m.term)
			return
		}
		m.beat(term)
	})
}

// send sends a follower all that it lacks.
func (m *testMember) send(node int32) {
	if node == m.n.id {
		return
	}
	w, term, log, leader := m.n.w, m.term, m.log, m.id()
	w.send(m.n.id, node, func() {
		f := w.nodes[node].members[m.group]
		if f == nil || !f.open {
			return
		}
		if term >= f.term {
			if term > f.term || f.state != raft.Follower {
				f.follow(term)
			}
			f.leader, f.contact, f.log = leader, time.Now(), max(f.log, log)
		}
		now := f.term
		w.send(node, m.n.id, func() {
			switch {
			case m.state != raft.Leader || m.term != term:
			case now > term:
				m.follow(now)
			default:
				m.acks[node] = time.Now()
				if !m.served && len(m.acks)+1 > len(w.groups[m.group])/2 {
					m.served = true // a majority has the entry that begins the term
					w.note(m.n.id, "leads %s in term %d", m.Name(), term)
					m.n.later(0, func(f *Failover) { f.Leads(m.group, term) })
				}
			}
		})
	})
}

// follows looks once a second whether Raft's own timeout has run out.
func (m *testMember) watch(session uint64) {
	time.AfterFunc(time.Second+time.Duration(m.n.id)*time.Millisecond, func() {
		defer m.lock()()
		if m.n.session != session || !m.open {
			return
		}
		m.watch(session)
		if m.state != raft.Leader && time.Since(m.tried) >= m.wait && time.Since(m.contact) >= m.wait {
			m.tried = time.Now()
			if m.state == raft.Candidate && !m.pre {
				m.campaign(false)
				return
			}
			m.state = raft.Follower
			m.askPreVotes()
		}
	})
}

// member returns a node's part in a group, which is its own for good.
func (n *testNode) member(group uint64) *testMember {
	m := n.members[group]
	if m == nil {
		m = &testMember{n: n, group: group}
		n.members[group] = m
	}
	return m
}

// opens opens a group at a node, as it is on its disk.
func (n *testNode) opens(group uint64) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	m := n.member(group)
	m.open, m.state, m.leader, m.served, m.wait, m.contact, m.tried = true, raft.Follower, "", false, patience, time.Time{}, time.Now()
	m.watch(n.session)
	n.later(0, func(f *Failover) { f.Opened(group) })
}

// shuts closes a group at a node for good.
func (n *testNode) shuts(group uint64) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	m := n.members[group]
	m.open, m.state, m.leader, m.served = false, raft.Follower, "", false
	n.later(0, func(f *Failover) {
		f.Closed(group)
		f.NotOpen()
	})
}
