package transport

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A client is one connection we dialled. Requests go out on it, answers come in,
// many at a time and in any order, told apart by request id.
type client struct {
	t      *Transport
	remote Peer // whom the handshake said it leads to
	conn   *tracked
	w      *writer

	mu       sync.Mutex
	err      error // set once the connection is gone
	next     uint64
	waiting  map[uint64]waiter
	gathered []*waitingBeat // heartbeats waiting for company; control connections only
	gather   *time.Timer    // fires flush; nil until first used
}

// A waiter waits for the answer to one request. Both methods are called with the
// client's mu held.
type waiter interface {
	// answerLocked takes one answer; head is valid during the call only, payload
	// is the waiter's. It reports whether more are to come.
	answerLocked(h header, head, payload []byte) (more bool, err error)
	failLocked(err error)
}

func newClient(t *Transport, conn *tracked, remote Peer) *client {
	return &client{
		t: t, remote: remote, conn: conn,
		w:       newWriter(conn.Conn, 0),
		waiting: make(map[uint64]waiter),
	}
}

// read delivers answers until the connection ends, then fails what still waits.
func (c *client) read() (err error) {
	defer func() {
		c.close(err)
		c.t.leave(c.conn)
	}()
	defer c.t.contain("answers", c.remote)
	err = ErrUnreachable // should anything below panic
	in := &intake{r: newReader(c.conn), kind: c.conn.kind, answers: true}
	for {
		if err := c.readOne(in); err != nil {
			c.t.noteEnd(c.remote, err)
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
}

func (c *client) readOne(in *intake) error {
	h, head, err := in.next()
	if err != nil || h.typ == typePong {
		return err
	}
	c.mu.Lock()
	_, ok := c.waiting[h.request]
	c.mu.Unlock()
	if !ok {
		return in.discard(h) // given up, or answered twice
	}
	done := c.conn.patience(h.payloadLen)
	payload, err := in.payload(h.payloadLen)
	done()
	if err == nil {
		err = in.finish(h)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[h.request]
	if w == nil {
		return nil
	}
	more, err := w.answerLocked(h, head, payload)
	if err == nil && !more {
		delete(c.waiting, h.request)
	}
	return err
}

// close ends the connection. What waits fails with err.
func (c *client) close(err error) {
	if err == nil {
		err = ErrUnreachable
	}
	c.w.fail(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for id, w := range c.waiting {
		delete(c.waiting, id)
		w.failLocked(err)
	}
	for _, b := range c.gathered {
		b.finish(err)
	}
	c.gathered = nil
	if c.gather != nil {
		c.gather.Stop()
	}
}

// register gives w an id to wait under.
func (c *client) register(w waiter) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.next++
	c.waiting[c.next] = w
	return c.next, nil
}

// A request is a waiter for one answer of its own.
type request struct {
	want    uint8 // type of answer
	from    Peer
	done    chan struct{} // closed when what follows is set
	head    []byte
	payload []byte
	err     error
}

func (r *request) answerLocked(h header, head, payload []byte) (bool, error) {
	switch h.typ {
	case r.want:
		r.head, r.payload = append([]byte(nil), head...), payload
	case typeFailure:
		r.err = failureOf(r.from, head[0], string(head[failureHead:]))
	default:
		return false, malformedf("answer: type %d, want %d", h.typ, r.want)
	}
	close(r.done)
	return false, nil
}

func (r *request) failLocked(err error) {
	r.err = err
	close(r.done)
}

// do sends a request and waits for its answer, for no longer than timeout or
// until stop is closed. The payload must not change, not even afterwards.
func (c *client) do(frame []byte, payload [][]byte, timeout time.Duration, stop <-chan struct{}) (head, answer []byte, err error) {
	r := &request{want: frame[8] + 1, from: c.remote, done: make(chan struct{})}
	id, err := c.register(r)
	if err != nil {
		return nil, nil, err
	}
	seal(frame, id, timeout)
	o := newOutgoing(frame, payload...)
	if err := c.w.send(o); err != nil {
		c.forget(id)
		return nil, nil, err
	}
	sent := time.Since(c.t.start)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.head, r.payload, r.err
	case <-timer.C:
		err = ErrTimeout
		c.suspect(sent)
	case <-stop:
		err = ErrClosed
	}
	c.forget(id)
	c.w.withdraw(o)
	return nil, nil, err
}

// suspect is called when a request sent at a time since Transport.start was not
// answered. A connection on which nothing came since is asked for a sign of life
// and closed without one: one connection may be dead, to a firewall that forgot it
// say, while another carries the pings. One that was opened for one call ends with it,
// and knows no ping.
func (c *client) suspect(since time.Duration) {
	if c.conn.kind == kindOnce {
		return
	}
	silent := func() bool { return c.conn.last.Load() <= int64(since) }
	if !silent() {
		return
	}
	c.ping()
	time.AfterFunc(c.t.cfg.Timers.PeerTimeout, func() {
		if silent() {
			c.close(fmt.Errorf("%w: silent connection", ErrUnreachable))
		}
	})
}

func (c *client) ping() {
	frame, _ := newFrame(typePing, pingHead)
	seal(frame, 0, 0)
	c.w.send(newOutgoing(frame)) // a writer that failed has closed the connection
}

// forget gives a request up. Its answer, should it come, is skipped.
func (c *client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// A waitingBeat is one group's heartbeat, waiting to be sent and then for its
// answer.
type waitingBeat struct {
	beat
	done chan struct{} // closed when what follows is set
	resp raft.AppendEntriesResponse
	err  error
}

func (b *waitingBeat) finish(err error) {
	b.err = err
	close(b.done)
}

// heartbeat sends b in one frame with what other groups send within
// GatherInterval, or, with hurry, alone and now.
func (c *client) heartbeat(b *waitingBeat, hurry bool) {
	if hurry {
		c.sendBeats([]*waitingBeat{b})
		return
	}
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		b.finish(err)
		return
	}
	c.gathered = append(c.gathered, b)
	n := len(c.gathered)
	if n == 1 {
		if c.gather == nil {
			c.gather = time.AfterFunc(c.t.cfg.Timers.GatherInterval, c.flush)
		} else {
			c.gather.Reset(c.t.cfg.Timers.GatherInterval)
		}
	}
	c.mu.Unlock()
	if n == maxHeartbeats {
		c.flush()
	}
}

// flush sends the gathered heartbeats. The gather timer calls it.
func (c *client) flush() {
	c.mu.Lock()
	beats := c.gathered
	c.gathered = nil
	c.mu.Unlock()
	for len(beats) > 0 {
		n := min(len(beats), maxHeartbeats)
		c.sendBeats(beats[:n])
		beats = beats[n:]
	}
}

func (c *client) sendBeats(beats []*waitingBeat) {
	frame := putBeats(beats) // once f is registered, its beats may end at any moment
	f := &beatFrame{from: c.remote, beats: beats, left: len(beats)}
	id, err := c.register(f)
	if err != nil {
		for _, b := range beats {
			b.finish(err)
		}
		return
	}
	seal(frame, id, c.t.cfg.Timers.Timeout)
	c.mu.Lock()
	if c.waiting[id] == waiter(f) {
		f.timer = time.AfterFunc(c.t.cfg.Timers.Timeout, func() { c.expire(id) })
	}
	c.mu.Unlock()
	c.t.stats.HeartbeatFrames.Add(1)
	c.t.stats.Heartbeats.Add(uint64(len(beats)))
	if c.w.send(newOutgoing(frame)) != nil {
		c.expire(id)
	}
}

// expire fails what is still unanswered of a heartbeat frame.
func (c *client) expire(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.waiting[id]; w != nil {
		delete(c.waiting, id)
		w.failLocked(ErrTimeout)
	}
}

// A beatFrame waits for the answers to one heartbeat frame, which may come in
// several.
type beatFrame struct {
	from  Peer
	beats []*waitingBeat // nil once answered
	left  int
	timer *time.Timer
}

func (f *beatFrame) answerLocked(h header, head, _ []byte) (bool, error) {
	if h.typ == typeFailure {
		f.failLocked(failureOf(f.from, head[0], string(head[failureHead:])))
		return false, nil
	}
	if h.typ != typeHeartbeatAnswers {
		return false, malformedf("answer: type %d to heartbeats", h.typ)
	}
	n, err := countBeats(head, heartbeatAnswerSize)
	if err != nil {
		return false, err
	}
	for i := range n {
		a := getBeatAnswer(head[heartbeatsHead+i*heartbeatAnswerSize:])
		if int64(a.index) >= int64(len(f.beats)) {
			return false, malformedf("heartbeat answer: index %d of %d", a.index, len(f.beats))
		}
		b := f.beats[a.index]
		if b == nil {
			continue // told twice
		}
		f.beats[a.index] = nil
		f.left--
		if a.code != codeAnswered {
			b.finish(failureOf(f.from, a.code, ""))
			continue
		}
		b.finish(appendResponse(f.from, a.flags, a.term, a.lastLog, &b.resp))
	}
	if f.left > 0 {
		return true, nil
	}
	f.stop()
	return false, nil
}

func (f *beatFrame) failLocked(err error) {
	f.stop()
	for i, b := range f.beats {
		if b != nil {
			f.beats[i] = nil
			b.finish(err)
		}
	}
}

func (f *beatFrame) stop() {
	if f.timer != nil {
		f.timer.Stop()
	}
}

// callFrame encodes a node-to-node call.
func callFrame(kind uint8, req []byte) []byte {
	frame, head := newFrame(typeCall, callHead)
	head[0] = kind
	setPayload(frame, req)
	return frame
}
