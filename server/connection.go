package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/bufpool"
	"millrace/security/acl"
	"millrace/segment"
	"millrace/server/protocol"
)

const (
	// firstRead is how much memory a connection that has sent nothing yet gets
	// for a frame, whatever length it declares.
	firstRead = 4 << 10
	// maxTrust is the most memory a frame gets before its bytes are there.
	// Beyond it memory doubles, and the bytes are copied once more.
	maxTrust = 4 << 20
	// maxKept is the largest buffer that a connection keeps between requests, for
	// a Fetch's frame, for what it answers around the records, and for other
	// answers. There may be tens of thousands of connections.
	maxKept = 8 << 10
	// maxFlight bounds the Produce requests of one connection that are being
	// appended at once. Clients keep five (idempotent) or as many as they
	// like; entries are joined from all that wait.
	maxFlight = 64
	// maxWait bounds a Fetch's wait for data and a Produce's for its quorum,
	// both of which a client may set to 24 days.
	maxWait = 5 * time.Minute
)

// A connection serves one Kafka client. Its goroutine "connection" reads
// requests and answers them one after another, in order. Produce is the
// exception: its batches are handed to the partitions in order, and while they
// are being replicated the next Produce is read. A second goroutine,
// "acknowledger", then writes the responses, again in order. It is started by
// the first Produce, ends when the connection does, and writes only while
// flight is not empty; the first writes only while it is. Any other request
// begins when every earlier one is answered, as with Kafka.
//
//	connection   read P1 submit | read P2 submit | read Fetch | settle . . . . . | serve Fetch, write
//	acknowledger                  . wait for P1 .  write P1     wait P2, write P2
type connection struct {
	server    *Server
	origin    origin
	principal string // who it is, "User:alice"
	login     login
	permitted permitted
	conn      net.Conn
	stranger  bool            // it has sent no whole request yet
	ctx       context.Context // done when the connection or the server ends
	cancel    context.CancelFunc
	r         *bufio.Reader

	frame   []byte // reused by Fetch
	trust   int    // the largest frame that came whole, at most maxTrust
	share   share  // of the memory for requests and answers
	holding int    // bytes of share for the request being read or served
	turn    turn   // of the request; zero: it has none

	out   []byte             // reused for responses
	proto *kmsg.FetchRequest // reused

	members  map[memberOf]struct{} // of groups, that spoke over this connection
	session  *session
	fetching fetching

	acks   chan *appends // to the acknowledger; nil before the first Produce
	flight flight

	throttle throttle
}

// A memberOf is a member of a group.
type memberOf struct{ group, id string }

// maxMembers bounds the members remembered for one connection; a client has one.
const maxMembers = 64

// speaks notes that a member of a group spoke over this connection.
func (c *connection) speaks(group, id string) {
	if id == "" || len(c.members) >= maxMembers {
		return
	}
	if c.members == nil {
		c.members = make(map[memberOf]struct{}, 1)
	}
	c.members[memberOf{group, id}] = struct{}{}
}

// flight counts what is between the connection and its acknowledger.
type flight struct {
	mu       sync.Mutex
	changed  sync.Cond
	requests int
	bytes    int
	broken   bool // the connection failed: nothing more is written
}

func newConnection(s *Server, conn net.Conn) *connection {
	c := &connection{server: s, conn: conn, origin: originOf(conn), principal: acl.Anonymous, stranger: true, r: bufio.NewReaderSize(conn, 4<<10)}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.flight.changed.L = &c.flight.mu
	s.shared.budget.join(&c.share, conn)
	return c
}

// errSlow is why a connection was closed that others needed memory of.
var errSlow = errors.New("it is slow in the middle of a request or an answer while memory for requests is short")

// errBye ends a connection without a word: the client left, or Shutdown came.
var errBye = errors.New("server: bye")

// serve answers requests until the client leaves, misbehaves or Shutdown comes.
func (c *connection) serve() {
	defer c.close()
	if c.outside() {
		c.login.by = time.Now().Add(c.server.stallTimeout())
	}
	for c.ctx.Err() == nil {
		err := c.serveOne()
		if err == nil {
			c.throttle.await(c.ctx)
			continue
		}
		if !errors.Is(err, errBye) {
			c.server.refuse(c.conn, err.Error())
		}
		return
	}
}

// close ends what belongs to the connection. It may come by way of a panic.
func (c *connection) close() {
	if c.acks != nil {
		// Shutdown lets what was submitted be answered; a client that left is not waited for.
		close(c.acks)
		c.settle(0)
	}
	if c.server.ctx.Err() == nil {
		for m := range c.members {
			c.server.handlers.groups.coordinator.Disconnected(m.group, m.id)
		}
	}
	c.linger()
	c.cancel()
	c.server.handlers.fetches.endSession(c)
	c.share.leave()
}

// linger ends a connection that Shutdown closes, or whose client could not log in. Closing it with requests
// unread would reset it, and a reset takes the answers with it that the client
// has not yet read. So the client is told of the end and given a moment to do
// the same. Who was answered that its log-in failed is given that moment before: there are
// clients that drop an answer which they read together with the end (kafka-python 3).
func (c *connection) linger() {
	half, ok := c.conn.(interface{ CloseWrite() error })
	stopping := c.server.ctx.Err() != nil
	if !stopping && c.login.refused == nil || !ok || (stopping || !c.login.told) && half.CloseWrite() != nil {
		return
	}
	c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, io.LimitReader(c.conn, maxLinger))
}

// lingerTime is how long clients are waited for to close their side.
const lingerTime = time.Second

// maxLinger is how much is read of what came too late.
const maxLinger = 8 << 20

// A call is one request under way, and all that its handler knows of who asks: the header
// with the client's id, and the connection with its origin. What is one client's own goes
// here, or on the connection if it outlives the request, and never into a handler, of
// which a server has one for all.
type call struct {
	protocol.Header
	ctx  context.Context // done when the connection or the server ends
	conn *connection
	body []byte
	size int // of the frame, in bytes

	frame []byte // all of it

	cluster int8  // 1 or -1: what onCluster decided
	answer  int   // bytes of the answer so far, where that is counted: see fits
	covered int   // of them counted in the connection's share
	failed  error // why there will be no answer
}

func (c *connection) serveOne() error {
	defer c.letGo()
	if c.login.bare {
		return c.serveBare()
	}
	frame, err := c.readFrame()
	if err != nil {
		return err
	}
	handlers := &c.server.handlers
	h, body, err := handlers.guard.ReadHeader(frame)
	c.server.stats.requests.Add(1)
	if err == nil && c.stranger && !c.outside() {
		c.known()
	}
	switch {
	case errors.Is(err, protocol.ErrVersion) && h.Key == kmsg.ApiVersions:
		// KIP-511: answered in version 0, so that the client learns what to ask for.
		c.settle(0)
		return c.write(handlers.unsupportedVersion(h), nil, &c.share.client)
	case errors.Is(err, protocol.ErrUnknownKey):
		return fmt.Errorf("%w %d", err, int16(h.Key))
	case errors.Is(err, protocol.ErrVersion):
		return fmt.Errorf("%w: %s version %d", err, h.Key.Name(), h.Version)
	case err != nil:
		return err
	}
	if err := c.admitted(h.Key); err != nil {
		return err
	}
	a := handlers.lookup(h.Key)
	elements, err := handlers.guard.Check(h, body)
	if err != nil {
		return fmt.Errorf("%s version %d: %w", h.Key.Name(), h.Version, err)
	}
	if elements > freeElements {
		if err := c.hold(elements * elementBytes); err != nil {
			return err
		}
	}
	if h.Key != kmsg.Produce {
		c.settle(0)
	}
	if !a.early || a.needy && c.server.broker.authorizer.Rules() != nil { // a look at a pointer
		c.server.broker.awaitImage(c.ctx)
	}
	if elements > turnElements {
		if err := c.takeTurn(); err != nil {
			return err
		}
		defer c.endTurn()
	}
	c.throttle.begin(&c.server.handlers.quotas, c.principal, h)
	cl := &call{Header: h, ctx: c.ctx, conn: c, body: body, size: len(frame), frame: frame}
	if err := a.serve(cl); err != nil {
		return err
	}
	return c.login.refused
}

// known says that the client is no stranger any more: it has sent a whole request, or has
// logged in where that is asked for.
func (c *connection) known() {
	c.stranger, c.login.by = false, time.Time{}
	if counted, ok := c.conn.(interface{ Known() }); ok { // by mux.Quotas
		counted.Known()
	}
}

// readFrame reads one request, into memory of its own: handlers, and what they
// hand bytes to, may keep it. Only Fetch's is used again, and Produce's when
// nobody does: see appends.putBack.
//
// Memory follows the bytes that have arrived. The first piece is as large as
// the largest frame this connection has sent before, so a producer's batches
// are read where they stay; from there it is 64 KiB, and doubles as it fills.
func (c *connection) readFrame() ([]byte, error) {
	c.deadline(c.server.broker.idleTimeout())
	prefix, err := c.r.Peek(4)
	if err != nil {
		return nil, c.readError(err, len(prefix) > 0)
	}
	size := int(int32(binary.BigEndian.Uint32(prefix)))
	most := c.server.broker.maxRequestBytes()
	if c.stranger && c.outside() {
		most = min(most, maxLoginBytes)
	}
	if size < protocol.HeaderSize || size > most {
		return nil, protocol.Malformed("a frame of %d bytes; at most %d are read", size, most)
	}
	c.deadline(c.server.stallTimeout())
	c.share.begin()
	if prefix, err = c.r.Peek(6); err != nil {
		return nil, c.readError(err, true)
	}
	key := kmsg.Key(binary.BigEndian.Uint16(prefix[4:]))
	c.r.Discard(4)
	if key == kmsg.Produce {
		c.admit(size)
	}

	// A byte now and then is not enough: 64 KiB/s at the least, without the time
	// that it waits for memory.
	client := &c.share.client
	client.begin(time.Now())
	slowest := c.server.stallTimeout() + time.Duration(size)*time.Second/(64<<10)

	p := c.frame[:0]
	reused := key == kmsg.Fetch && cap(p) >= size
	if !reused {
		if p, err = c.grow(nil, min(size, max(firstRead, c.trust))); err != nil {
			return nil, err
		}
	}
	for len(p) < size {
		if len(p) == cap(p) {
			if p, err = c.grow(p, min(size, max(2*cap(p), smallShare))); err != nil {
				return nil, err
			}
		}
		last := time.Unix(0, client.since.Load()).Add(slowest)
		c.deadline(min(c.server.stallTimeout(), time.Until(last)))
		n, err := c.r.Read(p[len(p):min(cap(p), size)])
		p = p[:len(p)+n]
		client.moved.Add(int64(n))
		if err != nil {
			return nil, c.readError(err, true)
		}
	}
	client.end()
	c.trust = min(max(c.trust, size), maxTrust)
	if key == kmsg.Fetch && size <= maxKept {
		c.frame = p
	}
	return p, nil
}

// grow returns p with room for n bytes, all of what the connection then holds.
// It waits while the budget has none, and takes nothing from the client meanwhile.
func (c *connection) grow(p []byte, n int) ([]byte, error) {
	if err := c.hold(n - c.holding); err != nil {
		return nil, err
	}
	grown := c.server.shared.buffers.Get(n)
	if grown == nil {
		grown = make([]byte, 0, bufpool.RoundUp(n))
	}
	return append(grown, p...), nil
}

// hold takes n bytes more for the request being read or served. While it waits
// for them nothing is up to the client.
func (c *connection) hold(n int) error {
	client := &c.share.client
	since := client.since.Swap(0)
	var waited time.Duration
	var err error
	noTurn := c.besides(func() { waited, err = c.share.take(c.ctx, n, c.server.stallTimeout()) })
	if err != nil {
		return err
	}
	c.holding += n
	if noTurn != nil {
		return noTurn
	}
	if since != 0 {
		client.since.Store(since + int64(waited))
	}
	return nil
}

// cover makes what is held for the request n bytes, which are there already.
func (c *connection) cover(n int) {
	if n > c.holding {
		c.share.add(n - c.holding)
	} else {
		c.share.give(c.holding - n)
	}
	c.holding = n
}

// letGo gives back what is held for the request being read or served.
func (c *connection) letGo() {
	c.share.client.end()
	c.share.give(c.holding)
	c.holding = 0
}

// deadline gives the client so long for its next byte, or until it has to have logged in. Shutdown sets a
// deadline in the past to wake a connection that waits for a request: that one
// must stay.
func (c *connection) deadline(d time.Duration) {
	if by := c.login.by; !by.IsZero() {
		d = min(d, time.Until(by))
	}
	c.conn.SetReadDeadline(time.Now().Add(d))
	if c.ctx.Err() != nil {
		c.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// readError says why no request came.
func (c *connection) readError(err error, within bool) error {
	switch {
	case c.share.slow.Load():
		return errSlow
	case c.ctx.Err() != nil, !within && (err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded)):
		return errBye
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("it stalls in the middle of a request")
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), isReset(err):
		return errBye // clients die and leave; that is no offence
	}
	return err
}

// write writes one response: p, which begins with the frame's length, or the
// pieces, of which p is the backing, when there are any. client is where its progress is counted.
func (c *connection) write(p []byte, pieces net.Buffers, client *progress) error {
	if client == &c.share.client {
		c.endTurn() // the acknowledger, which writes beside it, has none
	}
	client.begin(time.Now())
	defer client.end()
	var err error
	if pieces == nil {
		err = c.writeWhole(p, answerStepBytes, client)
	} else {
		err = c.writePieces(pieces, client)
	}
	if err != nil {
		if c.share.slow.Load() {
			return errSlow
		}
		if c.ctx.Err() != nil || isReset(err) || errors.Is(err, net.ErrClosed) {
			return errBye
		}
		return fmt.Errorf("write response: %w", err)
	}
	return nil
}

// writeStepBytes is how much is given to the kernel under one deadline: a client
// must take so much within StallTimeout, 35 KB/s with the default. It is also
// the most a writev takes anyway, by way of the socket's buffer.
const writeStepBytes = 1 << 20

// answerStepBytes is how much of an answer is written at once that takes memory of
// its own. A care looks at what its client has taken since the last second or less,
// and a step counts when it is done. It divides writeStepBytes.
const answerStepBytes = 32 << 10

// writePieces writes all pieces and consumes them.
func (c *connection) writePieces(pieces net.Buffers, client *progress) error {
	for len(pieces) > 0 {
		n, step := 0, 0
		for n < len(pieces) && n < 512 && (n == 0 || step+len(pieces[n]) <= writeStepBytes) {
			step += len(pieces[n])
			n++
		}
		part := pieces[:n:n]
		pieces = pieces[n:]
		if n == 1 && len(part[0]) > 2*writeStepBytes {
			if err := c.writeWhole(part[0], writeStepBytes, client); err != nil {
				return err
			}
			continue
		}
		c.conn.SetWriteDeadline(time.Now().Add(c.server.stallTimeout()))
		if err := c.writeStep(part); err != nil {
			return err
		}
		client.moved.Add(int64(step))
	}
	return nil
}

// writeWhole writes p in steps, each of which client is told of.
func (c *connection) writeWhole(p []byte, step int, client *progress) error {
	for at := 0; at < len(p); {
		if at%writeStepBytes == 0 {
			c.conn.SetWriteDeadline(time.Now().Add(c.server.stallTimeout()))
		}
		k := min(len(p)-at, step)
		if err := c.writeStep(net.Buffers{p[at : at+k]}); err != nil {
			return err
		}
		client.moved.Add(int64(k))
		at += k
	}
	return nil
}

// writeStep writes pieces, some of which may be mapped pages. writev makes an
// error of a page that cannot be read; whatever encrypts or copies would fault.
func (c *connection) writeStep(part net.Buffers) error {
	if _, socket := c.conn.(syscall.Conn); !socket {
		return segment.Guard(func() error {
			_, err := part.WriteTo(c.conn)
			return err
		})
	}
	_, err := part.WriteTo(c.conn)
	return err
}

// respond encodes and writes an ordinary response, of about so many bytes if that
// is known.
func (c *connection) respond(h protocol.Header, resp kmsg.Response, about int) error {
	resp.SetVersion(h.Version)
	c.throttle.tell(resp)
	p := c.out[:0]
	if c.turn.has() {
		if pieces := protocol.EncodeInPieces(protocol.AppendHeader(p, h), resp, c.turn.step); pieces != nil {
			return c.writeAnswer(pieces)
		}
	}
	if about > maxKept {
		p = make([]byte, 0, about)
	}
	p = protocol.AppendHeader(p, h)
	p = resp.AppendTo(p)
	protocol.Finish(p, 0)
	if cap(p) <= maxKept {
		c.out = p
	} else {
		// From now on the answer is what the request holds.
		c.cover(len(p))
	}
	return c.write(p, nil, &c.share.client)
}

// writeAnswer writes an answer that was encoded in pieces.
func (c *connection) writeAnswer(pieces net.Buffers) error {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	protocol.Finish(pieces[0], n-len(pieces[0]))
	c.cover(n)
	for _, p := range pieces {
		if err := c.write(p, nil, &c.share.client); err != nil {
			return err
		}
	}
	return nil
}

// admit waits until a Produce of so many bytes may be read beside those in
// flight: at most maxFlight of them, and no more bytes than one request may have.
func (c *connection) admit(size int) {
	f := &c.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.broken && f.requests > 0 && (f.requests >= maxFlight || f.bytes+size > c.server.broker.maxRequestBytes()) {
		f.changed.Wait()
	}
}

// settle waits until at most n Produce requests are unanswered.
func (c *connection) settle(n int) {
	f := &c.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.requests > n {
		f.changed.Wait()
	}
}

// enqueue hands a Produce to the acknowledger, which it starts if need be.
func (c *connection) enqueue(a *appends) error {
	if c.acks == nil {
		c.acks = make(chan *appends, maxFlight)
		go c.acknowledge(c.acks)
	}
	f := &c.flight
	f.mu.Lock()
	broken := f.broken
	f.requests++
	f.bytes += a.size
	a.held, c.holding = c.holding, 0
	f.mu.Unlock()
	c.acks <- a // room for maxFlight, and admit lets no more through
	if broken {
		return errBye
	}
	return nil
}

// acknowledge is the body of the goroutine "acknowledger": it answers Produce
// requests in order. When it cannot write any more it closes the connection,
// and goes on emptying the queue.
func (c *connection) acknowledge(acks <-chan *appends) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for a := range acks {
		err := c.acknowledgeOne(a, timer)
		f := &c.flight
		f.mu.Lock()
		a.settled = true
		f.requests--
		f.bytes -= a.size
		c.share.give(a.held)
		if err != nil {
			f.broken = true
		}
		f.changed.Broadcast()
		f.mu.Unlock()
	}
}

func (c *connection) acknowledgeOne(a *appends, timer *time.Timer) (err error) {
	defer func() {
		if r := recover(); r != nil {
			c.server.panicked(c.conn, r)
			err = errBye
		}
		if err != nil {
			c.cancel()
			c.conn.Close()
		}
	}()
	c.flight.mu.Lock()
	broken := c.flight.broken
	c.flight.mu.Unlock()
	if broken {
		return errBye
	}
	select {
	case <-a.finished:
	default:
		timer.Reset(time.Until(a.deadline))
		select {
		case <-a.finished:
		case <-timer.C:
		}
	}
	p, err := a.response()
	if err == nil && p != nil {
		if len(p) > maxKept {
			c.share.add(len(p))
			defer c.share.give(len(p))
		}
		err = c.write(p, nil, &c.share.acks)
	}
	if err != nil && !errors.Is(err, errBye) {
		c.server.refuse(c.conn, err.Error())
	}
	return err
}
