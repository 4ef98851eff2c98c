package transport

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// electWithin bounds how long Elect's request may wait in the queue. A group whose
// Raft is stuck for longer, in a disk write most likely, had better not lead.
const electWithin = time.Second

var (
	_ raft.Transport   = (*Port)(nil)
	_ raft.WithPreVote = (*Port)(nil)
	_ raft.WithClose   = (*Port)(nil)
)

// A Port is the raft.Transport of one group. Raft owns the receiving end of
// Consumer; everything else may be called by anyone at any time.
//
// Requests for the group reach Raft one at a time, in the order in which they
// arrived, votes, appends and heartbeats alike: handed to Raft beside its queue,
// a deposed leader's heartbeat could bring back a term that a vote has just ended.
type Port struct {
	t     *Transport
	group uint64
	local raft.ServerID

	inbox    inbox
	quiet    quiescing
	jumps    jumps
	attached attachment

	stalled    atomic.Bool  // see Stall
	reuses     atomic.Bool  // see ReuseBuffers
	installing atomic.Bool  // a snapshot is
	gathering  atomic.Int32 // appends without entries that wait for company, or for their answer
}

// Group opens the port of a group; local is this node's server id. A port still
// open for the same group is closed.
//
// Before shutting a Raft instance down, close its port: that ends the requests
// its goroutines wait for.
func (t *Transport) Group(id uint64, local raft.ServerID) *Port {
	p := &Port{t: t, group: id, local: local}
	p.inbox.room, p.inbox.limits, p.inbox.member = &t.room, &t.cfg.Limits, &p.attached
	p.inbox.consumer, p.inbox.done = make(chan raft.RPC), make(chan struct{})
	p.quiet.t, p.quiet.done = t, p.inbox.done
	p.quiet.lastEntries.Store(int64(-2 * activeFor))
	old, open := t.ports.put(p)
	if !open {
		p.inbox.close()
	}
	if old != nil {
		old.Close()
	}
	return p
}

// Close ends the port: queued requests are refused, waiting ones fail. It touches
// no other group. Raft calls it at the end of its own shutdown; further calls do
// nothing.
func (p *Port) Close() error {
	if p.inbox.close() {
		p.t.ports.remove(p)
	}
	p.inbox.pumps.Wait()
	return nil
}

// Closed returns a channel that is closed when Close has been called.
func (p *Port) Closed() <-chan struct{} { return p.inbox.done }

// Wait returns after d, or when the port is closed.
func (p *Port) Wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.inbox.done:
	}
}

// StartAt says in which term the group's member starts, before Attach says who it is: see
// Member.CurrentTerm. Without either, messages and answers of any term are taken, and else
// none that are absurdly far from the member's: see jumps.
func (p *Port) StartAt(term uint64) { p.attached.start.Store(&term) }

// Attach says who the group's member is. Until then, snapshots are refused.
func (p *Port) Attach(m Member) { p.attached.member.Store(&m) }

// beginInstall returns who is to be given a snapshot; endInstall must follow.
func (p *Port) beginInstall() (Member, error) {
	m := p.attached.get()
	select {
	case <-p.inbox.done:
		return nil, ErrClosed
	default:
	}
	switch {
	case m == nil:
		return nil, ErrUnsupported
	case !p.installing.CompareAndSwap(false, true):
		return nil, ErrBusy
	}
	return m, nil
}

func (p *Port) endInstall() { p.installing.Store(false) }

// Stall makes the group silent while on is true: its appends, with entries or
// without, and its requests for votes fail with ErrStalled, so that others elect a
// leader while this node's disk hangs. It reports whether that is a change.
func (p *Port) Stall(on bool) (changed bool) { return p.stalled.Swap(on) != on }

// Elect makes the group stand for election now, as if a leader had handed over to
// it. The request takes its place at the end of the group's queue and is dropped if
// Raft does not take it within a second. A candidate stays what it is. ErrStalled,
// ErrBusy, ErrClosed.
func (p *Port) Elect() error {
	return p.tellSelf(&raft.TimeoutNowRequest{RPCHeader: p.header()})
}

// AbandonCandidacy ends a candidacy in a term before the one given, which nobody gets a
// vote for: the group follows then, and Elect has it campaign anew. Raft alone would
// wait for its election timeout. Errors as of Elect.
//
// It may wait in the queue while the candidate wins. The vote is asked for in nobody's
// name, so Raft refuses it then, and keeps its term: it knows a leader, and that is
// another. In its own name, a leader would step down.
func (p *Port) AbandonCandidacy(term uint64) error {
	h := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	return p.tellSelf(&raft.RequestVoteRequest{RPCHeader: h, Candidate: []byte("nobody"), Term: term})
}

// StepDown ends a leadership in a term before the one given. Errors as of Elect.
func (p *Port) StepDown(term uint64) error {
	h := p.header() // a leader listens to a candidate that it takes for the leader
	return p.tellSelf(&raft.RequestVoteRequest{RPCHeader: h, Candidate: h.Addr, Term: term})
}

func (p *Port) header() raft.RPCHeader {
	name := []byte(p.local)
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: name, Addr: name}
}

// tellSelf puts a command into the group's own queue.
func (p *Port) tellSelf(command any) error {
	if p.stalled.Load() {
		return ErrStalled
	}
	if err := p.inbox.reserve(0); err != nil {
		return err
	}
	p.inbox.push(&delivery{command: command, deadline: time.Now().Add(electWithin), replier: nobody{}})
	return nil
}

// Pass hands Raft a request beside the queue, and waits until it has taken it.
func (p *Port) Pass(rpc raft.RPC) {
	select {
	case p.inbox.consumer <- rpc:
	case <-p.inbox.done:
		rpc.Respond(nil, ErrClosed)
	}
}

// Consumer returns the channel Raft takes requests from.
func (p *Port) Consumer() <-chan raft.RPC { return p.inbox.consumer }

// LocalAddr returns this node's server id, which is its address too.
func (p *Port) LocalAddr() raft.ServerAddress { return raft.ServerAddress(p.local) }

// EncodePeer returns addr, the server id, as bytes.
func (p *Port) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer is EncodePeer's inverse.
func (p *Port) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler does nothing: heartbeats take the queue (see Port).
func (p *Port) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline returns raft.ErrPipelineReplicationNotSupported: the
// library's pipelining wedges a follower for good after one failed append.
func (p *Port) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// connect returns the connection to a server, known by id; its address is not
// looked at.
func (p *Port) connect(id raft.ServerID, kind uint8) (*client, error) {
	to, err := ParseServerID(id)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.inbox.done:
		return nil, ErrClosed
	default:
	}
	return p.t.peers.of(to.Node).connect(kind, to.Incarnation, p.inbox.done)
}

// AppendEntries sends an append. One without entries is held until it is due (see
// quiesce) and is gathered with those of other groups. args.Entries is shortened, in
// place, to what one request may carry; Raft takes up what follows next time.
//
// An append that is no heartbeat waits for a server that is away, for up to reachFor:
// Raft counts what fails, and tries again only after up to 10 s when that was often, so
// that a follower was without its leader for as long after its return. Meanwhile it lets
// go of its entries. What the follower is asked then is whether it has those before.
func (p *Port) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	// Only replication, never the heartbeat goroutine, names a previous entry.
	heartbeat := args.PrevLogEntry == 0 && len(args.Entries) == 0
	if len(args.Entries) == 0 {
		p.quiet.wait(id, args, heartbeat)
	}
	if p.stalled.Load() {
		return ErrStalled
	}
	if !heartbeat {
		if err := p.reach(id, args); err != nil {
			return err
		}
	}
	ends := p.quiet.begin(id, heartbeat)
	var err error
	if heartbeat {
		err = p.heartbeat(id, args, resp, false)
	} else {
		err = p.append(id, args, resp)
	}
	p.quiet.finish(id, heartbeat, args, resp, err, ends)
	return err
}

// reach waits for a server that is away, and drops args.Entries if it did.
func (p *Port) reach(id raft.ServerID, args *raft.AppendEntriesRequest) error {
	to, err := ParseServerID(id)
	if err != nil {
		return err
	}
	peer := p.t.peers.of(to.Node)
	there := func(kind uint8) error {
		if peer.current(kind, to.Incarnation) != nil {
			return nil
		}
		return peer.reach(kind, to.Incarnation, p.inbox.done, func() { args.Entries = nil })
	}
	if len(args.Entries) > 0 {
		if err := there(kindData); err != nil {
			return err
		}
	}
	if len(args.Entries) == 0 { // goes with the heartbeats
		if err := there(kindControl); err != nil {
			return err
		}
	}
	if p.stalled.Load() {
		return ErrStalled
	}
	return nil
}

// append sends an append that is no mere heartbeat.
func (p *Port) append(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(args.Entries) == 0 {
		return p.heartbeat(id, args, resp, p.quiet.active())
	}
	c, err := p.connect(id, kindData)
	if err != nil {
		return err
	}
	limit := &p.t.peers.of(c.remote.Node).limit
	if args.Entries, err = shorten(args.Entries, int(limit.Load())); err != nil {
		return err
	}
	b := beatOf(p.group, args)
	b.commit = min(args.LeaderCommitIndex, args.PrevLogEntry+uint64(len(args.Entries)))
	frame, payload := putAppend(b, args.Entries, p.t.cfg.Entries)
	began := time.Now()
	p.quiet.noteEntries(began)
	p.t.stats.Appends.Add(1)
	head, _, err := c.do(frame, payload, p.t.cfg.Timers.Timeout, p.inbox.done)
	switch took := time.Since(began); {
	case err == ErrTimeout:
		limit.Store(max(limit.Load()/2, leastBytes))
	case err == nil && took < p.t.cfg.Timers.Timeout/4 && limit.Load() < int64(p.t.cfg.Limits.MaxRequestBytes):
		limit.Store(min(limit.Load()*2, int64(p.t.cfg.Limits.MaxRequestBytes)))
	}
	if err != nil {
		return err
	}
	p.quiet.noteEntries(time.Now())
	if err := getAppendAnswer(c.remote, head, resp); err != nil {
		return err
	}
	return p.plausible(resp.Term)
}

// shorten keeps as many entries as one request may carry, and always the first.
func shorten(entries []*raft.Log, limit int) ([]*raft.Log, error) {
	size := 0
	for i, e := range entries {
		if len(e.Extensions) > 0xffff || len(e.Data) > maxPayload-0xffff {
			if i > 0 {
				return entries[:i], nil
			}
			return nil, fmt.Errorf("%w: entry %d of %d bytes", ErrTooLarge, e.Index, len(e.Data)+len(e.Extensions))
		}
		size += len(e.Data) + len(e.Extensions)
		if i > 0 && size > limit || i == maxEntries {
			return entries[:i], nil
		}
	}
	return entries, nil
}

// Heartbeat sends an append without entries at once, not gathered with those
// of other groups: somebody waits for the answer.
func (p *Port) Heartbeat(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if p.stalled.Load() {
		return ErrStalled
	}
	return p.heartbeat(id, args, resp, true)
}

func (p *Port) heartbeat(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, hurry bool) error {
	c, err := p.connect(id, kindControl)
	if err != nil {
		return err
	}
	b := &waitingBeat{beat: beatOf(p.group, args), done: make(chan struct{})}
	if !hurry {
		p.gathering.Add(1)
		defer p.gathering.Add(-1)
	}
	c.heartbeat(b, hurry)
	select {
	case <-b.done:
	case <-p.inbox.done:
		return ErrClosed
	}
	if b.err != nil {
		return b.err
	}
	*resp = b.resp
	return p.plausible(resp.Term)
}

// Active reports whether the group had new entries a moment ago.
func (p *Port) Active() bool { return p.quiet.active() }

// ReuseBuffers says that nobody keeps anything of what an append's entries have in Data
// and Extensions once Raft has answered it: the memory is used again.
func (p *Port) ReuseBuffers() { p.reuses.Store(true) }

// Expedite says that the group's leader has new entries. Raft sends them to a follower
// only when the append before has come back: if that is held or gathers for company
// it goes now, and those of the next second do not wait at all.
func (p *Port) Expedite() {
	p.quiet.noteEntries(time.Now())
	p.quiet.wakeHurried()
	if p.gathering.Load() == 0 {
		return
	}
	for _, c := range p.t.peers.controls() {
		c.flush()
	}
}

// RequestVote asks for a vote.
func (p *Port) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	v := vote{p.group, args.Term, args.LastLogIndex, args.LastLogTerm, args.LeadershipTransfer}
	from, term, granted, err := p.vote(id, typeVote, v)
	if err != nil {
		return err
	}
	h, _ := rpcHeader(from)
	*resp = raft.RequestVoteResponse{RPCHeader: h, Term: term, Granted: granted}
	return nil
}

// RequestPreVote asks whether a vote would be given.
func (p *Port) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	v := vote{group: p.group, term: args.Term, lastIndex: args.LastLogIndex, lastTerm: args.LastLogTerm}
	from, term, granted, err := p.vote(id, typePreVote, v)
	if err != nil && strings.Contains(err.Error(), "unexpected command") {
		// Raft takes an error with these words for a yes, from a server too old
		// to know the question. No server of ours is, and no peer may choose
		// the words.
		err = ErrUnsupported
	}
	if err != nil {
		return err
	}
	h, _ := rpcHeader(from)
	*resp = raft.RequestPreVoteResponse{RPCHeader: h, Term: term, Granted: granted}
	return nil
}

func (p *Port) vote(id raft.ServerID, typ uint8, v vote) (from Peer, term uint64, granted bool, err error) {
	if p.stalled.Load() {
		return from, 0, false, ErrStalled
	}
	c, err := p.connect(id, kindControl)
	if err != nil {
		return from, 0, false, err
	}
	head, _, err := c.do(v.frame(typ), nil, p.t.cfg.Timers.Timeout, p.inbox.done)
	if err != nil {
		return from, 0, false, err
	}
	if term, granted, err = getVoteAnswer(head); err == nil {
		err = p.plausible(term)
	}
	return c.remote, term, granted, err
}

// TimeoutNow tells a server to stand for election.
func (p *Port) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, _ *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	c, err := p.connect(id, kindControl)
	if err != nil {
		return err
	}
	frame, head := newFrame(typeTimeoutNow, timeoutNowHead)
	binary.BigEndian.PutUint64(head, p.group)
	if _, _, err := c.do(frame, nil, p.t.cfg.Timers.Timeout, p.inbox.done); err != nil {
		return err
	}
	h, _ := rpcHeader(c.remote)
	*resp = raft.TimeoutNowResponse{RPCHeader: h}
	return nil
}

// InstallSnapshot sends a snapshot, at most 16 MiB of data, which is read whole
// into memory: a snapshot here is metadata, segments travel by calls.
func (p *Port) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if p.stalled.Load() {
		return ErrStalled
	}
	b, err := io.ReadAll(io.LimitReader(data, maxSnapshot+1))
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if len(b) > maxSnapshot || len(args.Configuration) > maxConfig {
		return fmt.Errorf("%w: snapshot above %d bytes", ErrTooLarge, maxSnapshot)
	}
	c, err := p.connect(id, kindBulk)
	if err != nil {
		return err
	}
	frame, payload := putSnapshot(p.group, args, b)
	head, _, err := c.do(frame, payload, p.t.cfg.Timers.SnapshotTimeout, p.inbox.done)
	if err != nil {
		return err
	}
	if err := getSnapshotAnswer(c.remote, head, resp); err != nil {
		return err
	}
	return p.plausible(resp.Term)
}
