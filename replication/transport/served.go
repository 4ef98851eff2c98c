package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/bufpool"
)

const (
	maxCalls     = 64                   // running at once, a control connection
	maxBulkCalls = 8                    // running at once, a bulk connection
	answerGather = 5 * time.Millisecond // a heartbeat answer waits this long for slower groups
)

// A served connection is one a peer dialled. Requests come in on it, answers go
// out. Reading never waits for a group: what cannot be queued is answered busy.
type served struct {
	t      *Transport
	from   Peer
	conn   *tracked
	w      *writer
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	calls  atomic.Int32
}

// run serves until the connection ends.
func (s *served) run() {
	defer func() {
		s.cancel()
		s.w.fail(ErrClosed)
		s.t.leave(s.conn)
	}()
	defer s.t.contain("requests", s.from)
	if !s.t.running.spawn(s.w.run) {
		return
	}
	if s.conn.kind != kindOnce {
		s.t.peers.heard(s.from.Node)
	}
	in := &intake{r: newReader(s.conn), kind: s.conn.kind}
	for {
		err := s.readOne(in)
		if err == nil && s.conn.kind == kindOnce { // it ends with the answer, unless the caller ends it first
			if _, _, err = in.next(); err == nil {
				err = malformed("a second call on a connection for one")
			}
		}
		if err != nil {
			s.t.noteEnd(s.from, err)
			return
		}
	}
}

// noteEnd says why a connection ended, if it was not the peer's own wish.
func (t *Transport) noteEnd(peer Peer, err error) {
	var bad malformed
	switch {
	case t.running.ctx.Err() != nil:
	case errors.As(err, &bad):
		t.stats.Malformed.Add(1)
		t.warn("malformed "+peer.String(), "closed a connection", "peer", peer.String(), "error", err)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
	default:
		t.warn("lost "+peer.String(), "lost a connection", "peer", peer.String(), "error", err)
	}
}

func (s *served) send(frame []byte, request uint64, payload ...[]byte) {
	seal(frame, request, 0)
	s.w.send(newOutgoing(frame, payload...)) // failing, it closed the connection
}

// fail answers a request with an error.
func (s *served) fail(request uint64, err error) {
	code, text := codeOf(err)
	s.t.stats.refused(code)
	s.send(putFailure(code, text), request)
}

func (s *served) readOne(in *intake) error {
	h, head, err := in.next()
	if err != nil {
		return err
	}
	switch h.typ {
	case typePing:
		frame, _ := newFrame(typePong, pingHead)
		s.send(frame, h.request)
		return nil
	case typeHeartbeats:
		return s.heartbeats(h, head)
	case typeVote, typePreVote:
		s.vote(h, head)
		return nil
	case typeTimeoutNow:
		s.timeoutNow(h, head)
		return nil
	case typeAppend:
		return s.append(in, h, head)
	case typeSnapshot:
		return s.snapshot(in, h, head)
	default: // typeCall: next lets nothing else through
		return s.call(in, h, head)
	}
}

// deadline is when the sender of h stops waiting.
func (s *served) deadline(h header) time.Time {
	wait := h.timeout
	if wait == 0 {
		wait = s.t.cfg.Timers.Timeout
	}
	return time.Now().Add(wait)
}

// deliver puts a request without payload into its group's queue.
func (s *served) deliver(h header, group, term uint64, command any, replier replier) {
	port, err := s.t.ports.get(group)
	if err == nil && h.typ == typePreVote {
		_, err = port.reachable(term)
	} else if err == nil {
		err = port.plausible(term)
	}
	if err == nil {
		err = port.inbox.reserve(0)
	}
	if err != nil {
		s.fail(h.request, err)
		return
	}
	port.inbox.push(&delivery{command: command, deadline: s.deadline(h), replier: replier})
}

func (s *served) vote(h header, head []byte) {
	v, err := getVote(head)
	if err != nil {
		s.fail(h.request, err)
		return
	}
	rh, name := rpcHeader(s.from)
	var command any
	if h.typ == typeVote {
		command = &raft.RequestVoteRequest{
			RPCHeader: rh, Term: v.term, Candidate: name,
			LastLogIndex: v.lastIndex, LastLogTerm: v.lastTerm, LeadershipTransfer: v.transfer,
		}
	} else {
		command = &raft.RequestPreVoteRequest{RPCHeader: rh, Term: v.term, LastLogIndex: v.lastIndex, LastLogTerm: v.lastTerm}
	}
	s.deliver(h, v.group, v.term, command, voteReplier{s, h.request})
}

// A voteReplier answers a vote or a pre-vote.
type voteReplier struct {
	s       *served
	request uint64
}

func (v voteReplier) reply(resp any, err error) {
	switch r := resp.(type) {
	case *raft.RequestVoteResponse:
		if err == nil {
			v.s.send(putVoteAnswer(typeVoteAnswer, r.Term, r.Granted), v.request)
			return
		}
	case *raft.RequestPreVoteResponse:
		if err == nil {
			v.s.send(putVoteAnswer(typePreVoteAnswer, r.Term, r.Granted), v.request)
			return
		}
	}
	v.s.fail(v.request, orUnexpected(resp, err))
}

// orUnexpected is the error to answer with when a response is not the one asked for.
func orUnexpected(resp any, err error) error {
	if err == nil {
		err = fmt.Errorf("answer of type %T", resp)
	}
	return err
}

func (s *served) timeoutNow(h header, head []byte) {
	rh, _ := rpcHeader(s.from)
	s.deliver(h, binary.BigEndian.Uint64(head), 0, &raft.TimeoutNowRequest{RPCHeader: rh}, timeoutNowReplier{s, h.request})
}

// A timeoutNowReplier answers what has the group stand for election.
type timeoutNowReplier struct {
	s       *served
	request uint64
}

func (n timeoutNowReplier) reply(_ any, err error) {
	if err != nil {
		n.s.fail(n.request, err)
		return
	}
	frame, _ := newFrame(typeTimeoutNowAnswer, 0)
	n.s.send(frame, n.request)
}

// refuse answers a request whose payload is still to come, and skips that.
func (s *served) refuse(in *intake, h header, err error) error {
	if s.conn.kind == kindOnce { // closing it with bytes unread would take the answer back
		if err := in.discard(h); err != nil {
			return err
		}
		s.fail(h.request, err)
		return nil
	}
	s.fail(h.request, err)
	defer s.conn.patience(h.payloadLen)()
	return in.discard(h)
}

func (s *served) append(in *intake, h header, head []byte) error {
	r, err := getAppend(head, h.payloadLen)
	if err != nil {
		return s.refuse(in, h, err)
	}
	port, err := s.t.ports.get(r.group)
	if err == nil {
		err = port.plausible(r.term)
	}
	if err == nil {
		err = port.inbox.reserve(h.payloadLen)
	}
	if err != nil {
		return s.refuse(in, h, err)
	}
	deadline := s.deadline(h)
	if port.reuses.Load() {
		in.pool = &s.t.buffers
	}
	if err := s.entries(in, h, &r); err != nil {
		port.inbox.unreserve(h.payloadLen)
		return err
	}
	if err := checkEntries(s.t.cfg.Entries, &r, h.payloadCRC); err != nil {
		port.inbox.unreserve(h.payloadLen)
		s.fail(h.request, err)
		s.t.warn("entries "+s.from.String(), "refused the entries that a peer sent", "peer", s.from.String(), "group", r.group, "error", err)
		return nil
	}
	req := r.request(s.from)
	req.Entries = r.entries
	port.inbox.push(&delivery{
		command: req, deadline: deadline, size: h.payloadLen,
		replier: &appendReplier{s, h.request, in.pool, in.pooled},
	})
	return nil
}

// An appendReplier answers an append, and frees the memory of its entries.
type appendReplier struct {
	s       *served
	request uint64
	pool    *bufpool.Pool // nil: the group keeps what it is given
	pooled  [][]byte
}

func (a *appendReplier) reply(resp any, err error) {
	r, ok := resp.(*raft.AppendEntriesResponse)
	if err != nil || !ok {
		a.s.fail(a.request, orUnexpected(resp, err)) // Raft may still be at it
		return
	}
	if a.pool != nil {
		for _, b := range a.pooled {
			a.pool.Put(b)
		}
	}
	a.s.send(putAppendAnswer(r), a.request)
}

// entries reads an append's payload.
func (s *served) entries(in *intake, h header, r *appendRequest) error {
	defer s.conn.patience(h.payloadLen)()
	parts := make([][]byte, len(r.sizes))
	if err := in.spread(r.sizes, parts); err != nil {
		return err
	}
	r.fill(parts)
	return in.finish(h)
}

// heartbeats hands each group its own and gathers the answers.
func (s *served) heartbeats(h header, head []byte) error {
	n, err := countBeats(head, heartbeatSize)
	if err != nil {
		return err
	}
	g := &answers{s: s, request: h.request, left: n}
	g.arm()
	deadline := s.deadline(h)
	for i := range n {
		b := getBeat(head[heartbeatsHead+i*heartbeatSize:])
		err := b.check(b.prevIndex)
		var port *Port
		if err == nil {
			port, err = s.t.ports.get(b.group)
		}
		if err == nil {
			err = port.plausible(b.term)
		}
		if err == nil {
			err = port.inbox.reserve(0)
		}
		if err != nil {
			g.add(beatAnswer{index: uint32(i)}, err)
			continue
		}
		port.inbox.push(&delivery{command: b.request(s.from), deadline: deadline, replier: beatReplier{g, uint32(i)}})
	}
	return nil
}

// A beatReplier answers one of the heartbeats of a frame.
type beatReplier struct {
	to    *answers
	index uint32 // in the frame
}

func (b beatReplier) reply(resp any, err error) {
	r, ok := resp.(*raft.AppendEntriesResponse)
	if err != nil || !ok {
		b.to.add(beatAnswer{index: b.index}, orUnexpected(resp, err))
		return
	}
	b.to.add(beatAnswer{index: b.index, flags: appendFlags(r), term: r.Term, lastLog: r.LastLog}, nil)
}

// answers gathers what groups say to one heartbeat frame. It is sent when all
// have spoken; those who had not within answerGather follow in frames of their own.
type answers struct {
	s       *served
	request uint64

	mu    sync.Mutex
	left  int // groups still to answer
	ready []beatAnswer
	timer *time.Timer
	armed bool
}

func (g *answers) arm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armLocked()
}

func (g *answers) armLocked() {
	if g.armed || g.left < 2 {
		return // the last one goes at once anyway
	}
	g.armed = true
	if g.timer == nil {
		g.timer = time.AfterFunc(answerGather, g.flush)
	} else {
		g.timer.Reset(answerGather)
	}
}

func (g *answers) add(a beatAnswer, err error) {
	if err != nil {
		a.code, _ = codeOf(err)
		g.s.t.stats.refused(a.code)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ready = append(g.ready, a)
	if g.left--; g.left == 0 {
		if g.timer != nil {
			g.timer.Stop()
		}
		g.sendLocked()
		return
	}
	g.armLocked()
}

// flush is called by the timer.
func (g *answers) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	g.sendLocked()
}

func (g *answers) sendLocked() {
	if len(g.ready) == 0 {
		return
	}
	g.s.send(putBeatAnswers(g.ready), g.request)
	g.ready = nil
}

// snapshot hands an InstallSnapshot to the group's member. It passes Raft and
// its queue by: the member may take the group down and up again.
func (s *served) snapshot(in *intake, h header, head []byte) error {
	group, req, configLen, err := getSnapshot(s.from, head, h.payloadLen)
	if err != nil {
		return s.refuse(in, h, err)
	}
	port, err := s.t.ports.get(group)
	var member Member
	if err == nil {
		err = port.plausible(req.Term)
	}
	if err == nil {
		member, err = port.beginInstall()
	}
	if err != nil {
		return s.refuse(in, h, err)
	}
	if err := s.t.room.take(h.payloadLen); err != nil {
		port.endInstall()
		return s.refuse(in, h, err)
	}
	end := func() {
		s.t.room.give(h.payloadLen)
		port.endInstall()
	}
	deadline := s.deadline(h)
	parts := make([][]byte, 2)
	done := s.conn.patience(h.payloadLen)
	err = in.spread([]int{configLen, h.payloadLen - configLen}, parts)
	if err == nil {
		err = in.finish(h)
	}
	done()
	if err != nil {
		end()
		return err
	}
	if err := checkConfiguration(parts[0]); err != nil {
		end()
		s.fail(h.request, malformedf("snapshot: configuration: %v", err))
		return nil
	}
	req.Configuration = parts[0]
	if !s.t.running.spawn(func() {
		defer end()
		s.install(h.request, member, req, parts[1], deadline)
	}) {
		end()
	}
	return nil
}

// install asks the member and waits for what it answers.
func (s *served) install(request uint64, member Member, req *raft.InstallSnapshotRequest, data []byte, deadline time.Time) {
	defer s.t.contain("snapshot", s.from)
	resp := make(chan raft.RPCResponse, 1)
	member.InstallSnapshot(raft.RPC{Command: req, Reader: bytes.NewReader(data), RespChan: resp}, req, data)
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case r := <-resp:
		a, ok := r.Response.(*raft.InstallSnapshotResponse)
		if r.Error != nil || !ok {
			s.fail(request, orUnexpected(r.Response, r.Error))
			return
		}
		s.send(putSnapshotAnswer(a), request)
	case <-timer.C:
		s.fail(request, ErrTimeout)
	case <-s.ctx.Done():
	}
}

// call runs the Handler in a goroutine of its own.
func (s *served) call(in *intake, h header, head []byte) error {
	if s.t.cfg.Handler == nil {
		return s.refuse(in, h, ErrUnsupported)
	}
	if head[1]|head[2]|head[3]|head[4]|head[5]|head[6]|head[7] != 0 {
		return s.refuse(in, h, malformed("call: reserved bytes are not zero"))
	}
	limit := int32(maxCalls)
	if s.conn.kind == kindBulk {
		limit = maxBulkCalls
	}
	if s.calls.Add(1) > limit {
		s.calls.Add(-1)
		return s.refuse(in, h, ErrBusy)
	}
	if err := s.t.room.take(h.payloadLen); err != nil {
		s.calls.Add(-1)
		return s.refuse(in, h, err)
	}
	end := func() {
		s.t.room.give(h.payloadLen)
		s.calls.Add(-1)
	}
	kind, deadline := head[0], s.deadline(h)
	done := s.conn.patience(h.payloadLen)
	req, err := in.payload(h.payloadLen)
	if err == nil {
		err = in.finish(h)
	}
	done()
	if err != nil {
		end()
		return err
	}
	if !s.t.running.spawn(func() {
		defer end()
		s.handle(h.request, kind, req, deadline)
	}) {
		end()
	}
	return nil
}

func (s *served) handle(request uint64, kind uint8, req []byte, deadline time.Time) {
	ctx, cancel := context.WithDeadline(s.ctx, deadline)
	defer cancel()
	resp, err := func() (resp []byte, err error) {
		err = errors.New("the handler panicked")
		defer s.t.contain("call", s.from)
		resp, err = s.t.cfg.Handler.Handle(ctx, s.from, kind, req)
		return resp, err
	}()
	limit := maxControlCall
	if s.conn.kind == kindBulk {
		limit = maxBulkCall
	}
	if err == nil && len(resp) > limit {
		err = fmt.Errorf("an answer of %d bytes is above the limit of %d", len(resp), limit)
	}
	if err != nil {
		s.send(putFailure(codeHandler, err.Error()), request)
		return
	}
	frame, _ := newFrame(typeCallAnswer, 0)
	setPayload(frame, resp)
	seal(frame, request, 0)
	s.w.sendPatiently(newOutgoing(frame, resp)) // failing, there is nobody to answer
}
