package transport

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// activeFor is how long after its last entries a group's empty appends skip the
// gathering. Raft's replication goroutine waits for their answer, so new entries
// would wait with it.
const activeFor = time.Second

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

	consumer    chan raft.RPC
	done        chan struct{} // closed by Close
	stalled     atomic.Bool
	leads       atomic.Pointer[func() bool] // see OnElect
	reuses      atomic.Bool                 // see ReuseBuffers
	lastEntries atomic.Int64                // when entries were last sent or acknowledged, since Transport.start

	terms  atomic.Pointer[func() uint64] // see BoundTerms
	jumped atomic.Int64                  // when the group was last told of a term far above its own, since Transport.start

	gathering atomic.Int32 // appends without entries that wait for company, or for their answer

	quiesceMu    sync.Mutex  // see quiesce
	quiesced     []*quiesced // those that hurry
	affirmations map[raft.ServerID]affirmation
	underWay     map[raft.ServerID]int // appends, heartbeats excepted, sent and not answered

	mu         sync.Mutex
	closed     bool
	queue      []*delivery
	pumping    bool // pump runs
	pumps      sync.WaitGroup
	slots      int // requests reserved and not yet answered
	bytes      int // and what they carry
	install    func(rpc raft.RPC, req *raft.InstallSnapshotRequest, data []byte)
	installing bool
}

// A delivery is one request on its way to Raft.
type delivery struct {
	command  any
	deadline time.Time
	size     int
	reply    func(resp any, err error) // called once; must not block
}

// Group opens the port of a group; local is this node's server id. A port still
// open for the same group is closed.
//
// Before shutting a Raft instance down, close its port: that ends the requests
// its goroutines wait for.
func (t *Transport) Group(id uint64, local raft.ServerID) *Port {
	p := &Port{
		t: t, group: id, local: local,
		consumer: make(chan raft.RPC),
		done:     make(chan struct{}),
	}
	p.lastEntries.Store(int64(-2 * activeFor))
	t.portsMu.Lock()
	old := t.ports[id]
	if t.ports != nil {
		t.ports[id] = p
	} else {
		p.closed = true
		close(p.done)
	}
	t.portsMu.Unlock()
	if old != nil {
		old.Close()
	}
	return p
}

// Close ends the port: queued requests are refused, waiting ones fail. It touches
// no other group. Raft calls it at the end of its own shutdown; further calls do
// nothing.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.pumps.Wait()
		return nil
	}
	p.closed = true
	close(p.done)
	p.mu.Unlock()

	p.t.portsMu.Lock()
	if p.t.ports[p.group] == p {
		delete(p.t.ports, p.group)
	}
	p.t.portsMu.Unlock()
	p.pumps.Wait()
	return nil
}

// Closed returns a channel that is closed when Close has been called.
func (p *Port) Closed() <-chan struct{} { return p.done }

// Wait returns after d, or when the port is closed.
func (p *Port) Wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.done:
	}
}

// OnInstallSnapshot sets who is given InstallSnapshot requests, which never reach
// Raft; without a callback they are refused. It runs in a goroutine of its own,
// one at a time, and answers through rpc.RespChan, at any time and even after the
// port was closed. data, at most 16 MiB, is the callback's.
func (p *Port) OnInstallSnapshot(f func(rpc raft.RPC, req *raft.InstallSnapshotRequest, data []byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.install = f
}

func (p *Port) beginInstall() (func(raft.RPC, *raft.InstallSnapshotRequest, []byte), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, ErrClosed
	case p.install == nil:
		return nil, ErrUnsupported
	case p.installing:
		return nil, ErrBusy
	}
	p.installing = true
	return p.install, nil
}

func (p *Port) endInstall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.installing = false
}

// Stall makes the group silent while on is true: its appends, with entries or
// without, and its requests for votes fail with ErrStalled, so that others elect a
// leader while this node's disk hangs. It tells whether that is a change.
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
	if err := p.reserve(0); err != nil {
		return err
	}
	p.push(&delivery{
		command:  command,
		deadline: time.Now().Add(electWithin),
		reply:    func(any, error) {},
	})
	return nil
}

// reserve takes a place in the group's queue for a request with n bytes of
// entries, before they are read: ErrBusy when there is none. push or unreserve
// must follow.
func (p *Port) reserve(n int) error {
	if err := p.t.admit(n); err != nil {
		return err
	}
	err := p.tryReserve(n)
	if err == ErrBusy && p.expire() {
		err = p.tryReserve(n)
	}
	if err != nil {
		p.t.release(n)
	}
	return err
}

func (p *Port) tryReserve(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case p.slots >= p.t.cfg.Limits.QueueLength, p.bytes > 0 && p.bytes+n > p.t.cfg.Limits.QueueBytes:
		return ErrBusy
	}
	p.slots++
	p.bytes += n
	return nil
}

func (p *Port) unreserve(n int) {
	p.mu.Lock()
	p.slots--
	p.bytes -= n
	p.mu.Unlock()
	p.t.release(n)
}

// expire answers what waited in the queue for longer than its sender, so that it
// does not keep others out, and tells whether there was any.
func (p *Port) expire() bool {
	var expired []*delivery
	now := time.Now()
	p.mu.Lock()
	p.queue = slices.DeleteFunc(p.queue, func(d *delivery) bool {
		late := now.After(d.deadline)
		if late {
			expired = append(expired, d)
		}
		return late
	})
	p.mu.Unlock()
	for _, d := range expired {
		p.answer(d, nil, ErrTimeout)
	}
	return len(expired) > 0
}

// push queues a request with a reservation.
func (p *Port) push(d *delivery) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.answer(d, nil, ErrClosed)
		return
	}
	p.queue = append(p.queue, d)
	if !p.pumping {
		p.pumping = true
		p.pumps.Add(1)
		go p.pump()
	}
	p.mu.Unlock()
}

// answer ends a request.
func (p *Port) answer(d *delivery, resp any, err error) {
	p.unreserve(d.size)
	d.reply(resp, err)
}

// pump hands queued requests to Raft, one after the other answered. It is started
// by push and ends when the queue is empty, so that an idle group has no goroutine
// here.
func (p *Port) pump() {
	defer p.pumps.Done()
	for d := p.pop(); d != nil; d = p.pop() {
		resp, err := p.offer(d)
		p.answer(d, resp, err)
	}
}

func (p *Port) pop() *delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.pumping = false
		p.queue = nil
		return nil
	}
	d := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	return d
}

// offer waits for Raft to take a request, until its deadline, and then, for as
// long as it takes, for the answer.
func (p *Port) offer(d *delivery) (any, error) {
	select {
	case <-p.done:
		return nil, ErrClosed
	default:
	}
	wait := time.Until(d.deadline)
	if wait <= 0 {
		return nil, ErrTimeout
	}
	resp := make(chan raft.RPCResponse, 1) // Raft answers from its main loop and must not wait for us
	rpc := raft.RPC{Command: d.command, RespChan: resp}
	if _, stands := d.command.(*raft.TimeoutNowRequest); stands {
		if leads, err := p.offerElection(rpc, d.deadline); leads || err != nil {
			return &raft.TimeoutNowResponse{}, err
		}
	} else {
		select {
		case p.consumer <- rpc:
		default:
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case p.consumer <- rpc:
			case <-timer.C:
				return nil, ErrTimeout
			case <-p.done:
				return nil, ErrClosed
			}
		}
	}
	select {
	case r := <-resp:
		return r.Response, r.Error
	case <-p.done:
		return nil, ErrClosed
	}
}

// offerElection has Raft stand for election, unless it leads by then. Raft does as it
// is told, even a leader that has won while the request waited for it, and deposes
// itself. It looks after its queue again when it has stored the entry with which it
// begins to lead, some milliseconds later; so this asks before each offer, and does
// not wait in line.
func (p *Port) offerElection(rpc raft.RPC, deadline time.Time) (leads bool, err error) {
	const again = time.Millisecond
	for {
		if leads := p.leads.Load(); leads != nil && (*leads)() {
			return true, nil
		}
		select {
		case p.consumer <- rpc:
			return false, nil
		default:
		}
		if !time.Now().Before(deadline) {
			return false, ErrTimeout
		}
		select {
		case <-time.After(again):
		case <-p.done:
			return false, ErrClosed
		}
	}
}

// OnElect sets what tells that the group leads, and that an election would only depose
// its leader: such a request is answered then, and Raft is not told.
func (p *Port) OnElect(leads func() bool) { p.leads.Store(&leads) }

// Pass hands Raft a request beside the queue, and waits until it has taken it.
func (p *Port) Pass(rpc raft.RPC) {
	select {
	case p.consumer <- rpc:
	case <-p.done:
		rpc.Respond(nil, ErrClosed)
	}
}

// Consumer returns the channel Raft takes requests from.
func (p *Port) Consumer() <-chan raft.RPC { return p.consumer }

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
	case <-p.done:
		return nil, ErrClosed
	default:
	}
	return p.t.peer(to.Node).connect(kind, to.Incarnation, p.done)
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
		p.quiesce(id, args, heartbeat)
	}
	if p.stalled.Load() {
		return ErrStalled
	}
	if !heartbeat {
		if err := p.reach(id, args); err != nil {
			return err
		}
	}
	ends := p.begin(id, heartbeat)
	var err error
	if heartbeat {
		err = p.heartbeat(id, args, resp, false)
	} else {
		err = p.append(id, args, resp)
	}
	p.finish(id, heartbeat, args, resp, err, ends)
	return err
}

// reach waits for a server that is away, and drops args.Entries if it did.
func (p *Port) reach(id raft.ServerID, args *raft.AppendEntriesRequest) error {
	to, err := ParseServerID(id)
	if err != nil {
		return err
	}
	peer := p.t.peer(to.Node)
	there := func(kind uint8) error {
		if peer.current(kind, to.Incarnation) != nil {
			return nil
		}
		return peer.reach(kind, to.Incarnation, p.done, func() { args.Entries = nil })
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
		return p.heartbeat(id, args, resp, p.Active())
	}
	c, err := p.connect(id, kindData)
	if err != nil {
		return err
	}
	limit := &p.t.peer(c.remote.Node).limit
	if args.Entries, err = shorten(args.Entries, int(limit.Load())); err != nil {
		return err
	}
	b := beatOf(p.group, args)
	b.commit = min(args.LeaderCommitIndex, args.PrevLogEntry+uint64(len(args.Entries)))
	frame, payload := putAppend(b, args.Entries, p.t.cfg.Entries)
	began := time.Now()
	p.lastEntries.Store(int64(began.Sub(p.t.start)))
	p.t.stats.Appends.Add(1)
	head, _, err := c.do(frame, payload, p.t.cfg.Timers.Timeout, p.done)
	switch took := time.Since(began); {
	case err == ErrTimeout:
		limit.Store(max(limit.Load()/2, leastBytes))
	case err == nil && took < p.t.cfg.Timers.Timeout/4 && limit.Load() < int64(p.t.cfg.Limits.MaxRequestBytes):
		limit.Store(min(limit.Load()*2, int64(p.t.cfg.Limits.MaxRequestBytes)))
	}
	if err != nil {
		return err
	}
	p.lastEntries.Store(int64(time.Since(p.t.start)))
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
	case <-p.done:
		return ErrClosed
	}
	if b.err != nil {
		return b.err
	}
	*resp = b.resp
	return p.plausible(resp.Term)
}

// ReuseBuffers says that nobody keeps anything of what an append's entries have in Data
// and Extensions once Raft has answered it: the memory is used again.
func (p *Port) ReuseBuffers() { p.reuses.Store(true) }

// Expedite says that the group's leader has new entries. Raft sends them to a follower
// only when the append before has come back: if that is held or gathers for company
// it goes now, and those of the next second do not wait at all.
func (p *Port) Expedite() {
	p.lastEntries.Store(int64(time.Since(p.t.start)))
	p.wakeHurried()
	if p.gathering.Load() == 0 {
		return
	}
	for _, c := range p.t.controls() {
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
	head, _, err := c.do(v.frame(typ), nil, p.t.cfg.Timers.Timeout, p.done)
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
	if _, _, err := c.do(frame, nil, p.t.cfg.Timers.Timeout, p.done); err != nil {
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
	head, _, err := c.do(frame, payload, p.t.cfg.Timers.SnapshotTimeout, p.done)
	if err != nil {
		return err
	}
	if err := getSnapshotAnswer(c.remote, head, resp); err != nil {
		return err
	}
	return p.plausible(resp.Term)
}
