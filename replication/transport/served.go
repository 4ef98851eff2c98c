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
)

const (
	maxCalls     = 64                   // running at once, a control connection
	maxBulkCalls = 8                    // running at once, a bulk connection
	answerGather = 5 * time.Millisecond // a heartbeat answer waits this long for slower groups
	onceTime     = 30 * time.Second     // from the handshake to the answer, where a connection is for one call
)

// Serve takes over an inbound connection, from its magic bytes on, and returns
// when it is closed. The caller runs it in a goroutine of its own. After Close it
// closes conn and returns at once.
//
// When there is no room, the oldest of those whose handshake is not done makes it: a peer
// says hello at once, and must not be kept out by who came before it and says nothing.
// Connections for one call are among those until they end: anybody may open one, so that
// its handshake shows nothing.
func (t *Transport) Serve(conn net.Conn) {
	t.mu.Lock()
	full := len(t.conns) >= t.cfg.Limits.MaxConnections
	var expelled net.Conn // its goroutine counts it
	if oldest := t.strangers.Front(); !t.closed && oldest != nil && (full || t.strangers.Len() >= max(1, t.cfg.Limits.MaxConnections/4)) {
		full = false
		expelled = t.strangers.Remove(oldest).(net.Conn)
	}
	if t.closed || full {
		t.mu.Unlock()
		conn.Close()
		if full {
			t.stats.Refused.Add(1)
			t.warn("full", "too many connections, closing one", "limit", t.cfg.Limits.MaxConnections)
		}
		return
	}
	t.conns[conn] = struct{}{}
	place := t.strangers.PushBack(conn)
	t.wg.Add(1)
	t.mu.Unlock()
	if expelled != nil {
		expelled.Close()
	}
	defer t.wg.Done()
	defer func() {
		conn.Close()
		t.mu.Lock()
		t.strangers.Remove(place) // if it still is one
		delete(t.conns, conn)
		t.mu.Unlock()
	}()
	s, err := t.welcome(conn)
	if err == nil {
		if s.conn.kind != kindOnce {
			t.mu.Lock()
			t.strangers.Remove(place)
			t.mu.Unlock()
			if counted, ok := conn.(interface{ Known() }); ok { // the listener's books take it for a stranger
				counted.Known()
			}
		}
		s.run()
		return
	}
	t.stats.Refused.Add(1)
	switch {
	case errors.Is(err, errNoPeer), err == io.EOF: // a client that came before this node serves any, say
	case t.ctx.Err() != nil, errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe): // closed here
	default:
		t.warn("refused "+hostOf(conn), "refused a connection", "remote", hostOf(conn), "error", err)
	}
}

func hostOf(conn net.Conn) string {
	a := conn.RemoteAddr()
	if a == nil {
		return "unknown"
	}
	if host, _, err := net.SplitHostPort(a.String()); err == nil {
		return host
	}
	return a.String()
}

// welcome reads the hello and answers it.
func (t *Transport) welcome(conn net.Conn) (s *served, err error) {
	defer t.contain("handshake", Peer{})
	err = errors.New("transport: handshake failed") // should anything below panic
	conn.SetDeadline(time.Now().Add(t.cfg.Timers.DialTimeout))
	v, kind, body, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	self := t.cfg.Local
	// Who has not shown that it knows a member is not told what members know each
	// other by.
	a := ack{low: t.low, high: t.high, from: Peer{Node: self.Node}, cluster: t.cfg.Cluster}
	refuse := func(status uint8, reason string) (*served, error) {
		a.status, a.reason = status, reason
		conn.Write(a.encode())
		return nil, errors.New(reason)
	}
	h, err := decodeHello(v, kind, body)
	version := meet(t.low, t.high, v, h.high)
	switch {
	case version == 0 && v > 0 && h.high >= v:
		return refuse(statusVersion, fmt.Sprintf("versions %d to %d are not spoken here, %d to %d are", v, h.high, t.low, t.high))
	case err != nil:
		return refuse(statusMalformed, err.Error())
	}
	if status, reason := t.judge(h, self, a.cluster); status != statusWelcome {
		if status == statusCluster && h.cluster != "" && h.kind != kindOnce && h.session != t.session {
			t.cfg.Observer.Foreign(h.cluster)
		}
		return refuse(status, reason)
	}
	if h.kind != kindOnce {
		status, at, reason := t.admits(h.from, h.about)
		if status != statusWelcome {
			a.at = at
			return refuse(status, reason)
		}
		if !t.replaces(h.from, h.session) {
			return refuse(statusNode, fmt.Sprintf("another process of %s is alive, and spoke just now", h.from))
		}
		t.cfg.Membership.Admitted(h.from, h.about)
		a.session, a.from, a.about = t.session, self, t.cfg.Membership.About()
	} else {
		h.from.Node = 0
	}
	tc, err := t.join(conn, h.from, h.session, h.kind, true)
	if err != nil {
		return refuse(statusClosed, "closing")
	}
	tc.version = version
	if h.kind != kindOnce && h.address != "" {
		t.evidence.put(event{peer: Process{h.from, h.session}, what: eventLearned, address: h.address})
	}
	if _, err := conn.Write(a.encode()); err != nil {
		t.leave(tc)
		return nil, err
	}
	end := time.Time{}
	if h.kind == kindOnce {
		end = time.Now().Add(onceTime)
	}
	conn.SetDeadline(end)
	w := newWriter(conn, maxQueuedBytes)
	w.once = h.kind == kindOnce
	ctx, cancel := context.WithCancel(t.ctx)
	return &served{
		t: t, from: h.from, conn: tc, ctx: ctx, cancel: cancel,
		w: w,
	}, nil
}

// admits asks Config.Membership about the other side of a connection. at is a ReplacedError's.
func (t *Transport) admits(p Peer, about string) (status uint8, at uint64, reason string) {
	err := t.cfg.Membership.Judge(p, about)
	var replaced *ReplacedError
	switch {
	case err == nil:
		return statusWelcome, 0, ""
	case errors.Is(err, ErrOldDisk):
		return statusOldDisk, 0, err.Error()
	case errors.As(err, &replaced):
		return statusReplaced, replaced.At, err.Error()
	default:
		return statusStranger, 0, err.Error()
	}
}

// judge decides whether a caller is let in.
func (t *Transport) judge(h hello, self Peer, cluster string) (status uint8, reason string) {
	once := h.kind == kindOnce
	switch {
	case h.session == t.session:
		return statusSelf, "this is yourself"
	case cluster == "" && !once:
		return statusCluster, "not a member of a cluster yet"
	case h.cluster != cluster && !(once && (h.cluster == "" || cluster == "")):
		return statusCluster, fmt.Sprintf("this is cluster %q, not %q", cluster, h.cluster)
	case h.target.Node != 0 && h.target.Node != self.Node:
		return statusNode, fmt.Sprintf("this is node %d, not %d", self.Node, h.target.Node)
	case h.target.Incarnation != "" && h.target.Incarnation != self.Incarnation:
		return statusIncarnation, fmt.Sprintf("this is another incarnation of node %d than %s", self.Node, h.target.Incarnation)
	case h.from.Node == self.Node && !once:
		return statusNode, fmt.Sprintf("node %d is me", self.Node)
	}
	return statusWelcome, ""
}

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
	if !s.t.spawn(s.w.run) {
		return
	}
	if s.conn.kind != kindOnce {
		s.t.heard(s.from.Node)
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
	case t.ctx.Err() != nil:
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
	s.t.count(code)
	s.send(putFailure(code, text), request)
}

func (t *Transport) count(code uint8) {
	switch code {
	case codeBusy:
		t.stats.Busy.Add(1)
	case codeInvalid:
		t.stats.Invalid.Add(1)
	case codeExpired:
		t.stats.Expired.Add(1)
	}
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
func (s *served) deliver(h header, group, term uint64, command any, reply func(any, error)) {
	port, err := s.t.port(group)
	if err == nil && h.typ == typePreVote {
		_, err = port.reachable(term)
	} else if err == nil {
		err = port.plausible(term)
	}
	if err == nil {
		err = port.reserve(0)
	}
	if err != nil {
		s.fail(h.request, err)
		return
	}
	port.push(&delivery{command: command, deadline: s.deadline(h), reply: reply})
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
	s.deliver(h, v.group, v.term, command, func(resp any, err error) {
		switch r := resp.(type) {
		case *raft.RequestVoteResponse:
			if err == nil {
				s.send(putVoteAnswer(typeVoteAnswer, r.Term, r.Granted), h.request)
				return
			}
		case *raft.RequestPreVoteResponse:
			if err == nil {
				s.send(putVoteAnswer(typePreVoteAnswer, r.Term, r.Granted), h.request)
				return
			}
		}
		s.fail(h.request, orUnexpected(resp, err))
	})
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
	s.deliver(h, binary.BigEndian.Uint64(head), 0, &raft.TimeoutNowRequest{RPCHeader: rh}, func(_ any, err error) {
		if err != nil {
			s.fail(h.request, err)
			return
		}
		frame, _ := newFrame(typeTimeoutNowAnswer, 0)
		s.send(frame, h.request)
	})
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
	port, err := s.t.port(r.group)
	if err == nil {
		err = port.plausible(r.term)
	}
	if err == nil {
		err = port.reserve(h.payloadLen)
	}
	if err != nil {
		return s.refuse(in, h, err)
	}
	deadline := s.deadline(h)
	if port.reuses.Load() {
		in.pool = &s.t.buffers
	}
	if err := s.entries(in, h, &r); err != nil {
		port.unreserve(h.payloadLen)
		return err
	}
	if err := s.t.checkEntries(&r, h.payloadCRC); err != nil {
		port.unreserve(h.payloadLen)
		s.fail(h.request, err)
		s.t.warn("entries "+s.from.String(), "refused the entries that a peer sent", "peer", s.from.String(), "group", r.group, "error", err)
		return nil
	}
	req := r.request(s.from)
	req.Entries = r.entries
	pool, pooled := in.pool, in.pooled
	port.push(&delivery{command: req, deadline: deadline, size: h.payloadLen, reply: func(resp any, err error) {
		a, ok := resp.(*raft.AppendEntriesResponse)
		if err != nil || !ok {
			s.fail(h.request, orUnexpected(resp, err)) // Raft may still be at it
			return
		}
		if pool != nil {
			for _, b := range pooled {
				pool.Put(b)
			}
		}
		s.send(putAppendAnswer(a), h.request)
	}})
	return nil
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
			port, err = s.t.port(b.group)
		}
		if err == nil {
			err = port.plausible(b.term)
		}
		if err == nil {
			err = port.reserve(0)
		}
		if err != nil {
			g.add(beatAnswer{index: uint32(i)}, err)
			continue
		}
		port.push(&delivery{command: b.request(s.from), deadline: deadline, reply: func(resp any, err error) {
			a, ok := resp.(*raft.AppendEntriesResponse)
			if err != nil || !ok {
				g.add(beatAnswer{index: uint32(i)}, orUnexpected(resp, err))
				return
			}
			g.add(beatAnswer{index: uint32(i), flags: appendFlags(a), term: a.Term, lastLog: a.LastLog}, nil)
		}})
	}
	return nil
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
		g.s.t.count(a.code)
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

// snapshot hands an InstallSnapshot to the group's callback. It passes Raft and
// its queue by: the callback may take the group down and up again.
func (s *served) snapshot(in *intake, h header, head []byte) error {
	group, req, configLen, err := getSnapshot(s.from, head, h.payloadLen)
	if err != nil {
		return s.refuse(in, h, err)
	}
	port, err := s.t.port(group)
	var install func(raft.RPC, *raft.InstallSnapshotRequest, []byte)
	if err == nil {
		err = port.plausible(req.Term)
	}
	if err == nil {
		install, err = port.beginInstall()
	}
	if err != nil {
		return s.refuse(in, h, err)
	}
	if err := s.t.admit(h.payloadLen); err != nil {
		port.endInstall()
		return s.refuse(in, h, err)
	}
	end := func() {
		s.t.release(h.payloadLen)
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
	if !s.t.spawn(func() {
		defer end()
		s.install(h.request, install, req, parts[1], deadline)
	}) {
		end()
	}
	return nil
}

// install runs the callback and waits for what it answers.
func (s *served) install(request uint64, install func(raft.RPC, *raft.InstallSnapshotRequest, []byte), req *raft.InstallSnapshotRequest, data []byte, deadline time.Time) {
	defer s.t.contain("snapshot", s.from)
	resp := make(chan raft.RPCResponse, 1)
	install(raft.RPC{Command: req, Reader: bytes.NewReader(data), RespChan: resp}, req, data)
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
	if err := s.t.admit(h.payloadLen); err != nil {
		s.calls.Add(-1)
		return s.refuse(in, h, err)
	}
	end := func() {
		s.t.release(h.payloadLen)
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
	if !s.t.spawn(func() {
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
