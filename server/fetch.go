package server

import (
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/security/acl"
	"millrace/segment"
	"millrace/segment/record"
	"millrace/server/protocol"
	"millrace/server/quota"
)

// A fetches answers Fetch, and keeps the fetch sessions within their bounds.
type fetches struct {
	*broker
	sessions sessions
}

// Fetch, versions 4–18.
//
//   - Whole batches from the one that holds the offset on, at least one even
//     past the limits (KIP-74); nothing above the high watermark, or the last
//     stable offset for read_committed.
//   - Waits for MinBytes or MaxWait, at most five minutes, unless something is
//     wrong with a partition.
//   - A topic that the client may not read is TOPIC_AUTHORIZATION_FAILED, there or not, from
//     when the right to it is lost on, in sessions as well; one by an id that is no
//     topic's is UNKNOWN_TOPIC_ID, as an id tells nothing.
//   - Sessions (KIP-227) belong to the connection that made them; see session.go.
//   - Only the leader serves: no preferred read replica (KIP-392), and requests
//     of replicas are refused.
//   - Batches compressed by zstd are UNSUPPORTED_COMPRESSION_TYPE below version
//     10 (KIP-110).
//   - An offset past the end, or on another history, may be this replica's fault, if it
//     was deposed and has not heard of it: a quorum confirms such an answer, else it
//     is NOT_LEADER_OR_FOLLOWER.
//   - A leader that hears no majority of the voters any more serves what it has. At the
//     end, where nothing comes before they are heard again, it is
//     NOT_LEADER_OR_FOLLOWER at once, so that clients look for who leads now.
//   - Who fetched more than its quota allows is answered at once, without records, and
//     not read from for as long as it is told (KIP-219). The answer that goes beyond the
//     quota has its records still, half a window's worth or one batch.
//   - A stale or unknown leader epoch is refused (KIP-320); a fetch position that
//     lies on another history is answered with where the histories part (KIP-595).
//
// v5 adds the log start offset, v7 sessions and a top-level error, v9 the
// current leader epoch, v11 the rack, v12 tagged fields and the last fetched
// epoch, v13 topic ids in place of names (KIP-516), v15 moves the replica id into
// a tagged field, v16 adds the addresses of new leaders (KIP-951).
//
// The record bytes are borrowed from the log and written with writev; the
// response around them is encoded here and not by kmsg, which would copy them.
func (h *fetches) fetch(cl *call) error {
	c := cl.conn
	if c.proto == nil {
		c.proto = new(kmsg.FetchRequest)
	}
	req := c.proto
	req.SetVersion(cl.Version)
	if err := req.ReadFrom(cl.body); err != nil {
		return protocol.Malformed("Fetch version %d: %v", cl.Version, err)
	}
	f := &c.fetching
	f.in = h
	f.version = cl.Version
	f.committed = req.IsolationLevel == 1
	f.code = protocol.None
	f.full = true
	f.sessionID = 0
	f.parts = nil
	f.noTurn = nil
	defer c.finishFetch(f) // also when writing fails or something panics

	if req.IsolationLevel != 0 && req.IsolationLevel != 1 {
		f.code = protocol.InvalidRequest
	} else if req.ReplicaID >= 0 || req.ReplicaState.ID >= 0 {
		f.code = protocol.ClusterAuthorizationFailed
	}
	f.least = 0
	if f.code == protocol.None {
		f.least = c.throttle.owes(quota.Consume)
	}
	switch {
	case f.code != protocol.None:
		f.sessionless(c, req)
	case f.least > 0 && (f.version < 7 || req.SessionEpoch == initialEpoch || req.SessionEpoch == finalEpoch):
		// Nothing is answered for any partition and there is no session, which clients
		// know from a fetch that failed by what they are told to wait.
		h.endSession(c)
		return f.write(c, cl.Header)
	default:
		h.open(f, c, req)
	}
	switch {
	case f.code == protocol.None && f.least > 0: // the session goes on
	case f.code == protocol.None:
		f.gather(cl, req)
	default:
		f.refuseAll()
	}
	if f.noTurn != nil {
		return f.noTurn
	}
	return f.write(c, cl.Header)
}

// maxKeptParts is for how many partitions a connection keeps room between
// fetches, 20 KB. Those who fetch more of them without a session make garbage
// instead, a small part of what the records are.
const maxKeptParts = 64

// A wanted is one partition of a fetch or of a fetch session.
type wanted struct {
	partitionKey
	offset    int64
	epoch     int32 // the leader epoch the client knows, or -1
	lastEpoch int32 // the epoch of the last record the client has, or -1
	maxBytes  int32

	image  *metadata.Image // under which p was found
	by     *acl.Rules      // by which it may be read
	id     metadata.PartitionID
	p      *partition.Partition // nil: not found yet
	cancel func()               // ends the notification for p; nil: none

	// What this fetch found.
	code             protocol.Code
	high, stable     int64
	start            int64
	view             *segment.View // nil: no records
	diverging        bool
	divergingEpoch   int32
	divergingOffset  int64
	ahead            bool  // the client knows more than this replica does, or another history
	leads            int32 // the epoch in which that was found
	leader, newEpoch int32 // of the leader elsewhere; -1: not known
	include          bool

	// What the session's client was told last.
	sentHigh, sentStart int64
}

// A partitionKey names a partition as the client does: by the topic's id from
// version 13 on, by its name before.
type partitionKey struct {
	name  string
	topic metadata.TopicID
	index int32
}

// fetching is a Fetch under way, with memory that is kept from one to the next.
type fetching struct {
	in        *fetches
	version   int16
	committed bool
	code      protocol.Code // for the whole request
	full      bool          // every partition is in the answer, changed or not
	sessionID int32
	session   *session // nil: the parts are only for this fetch
	parts     []*wanted

	own      []wanted // backs parts without a session
	ownPtr   []*wanted
	first    map[partitionKey]int // while they are gathered: where in own each is
	wake     chan struct{}
	timer    *time.Timer
	head     []byte
	cuts     []int // where in head each view goes
	pieces   net.Buffers
	total    int           // bytes of records
	spent    bool          // the limit was reached before the last partition
	least    time.Duration // the client waits for so long, and gets nothing before; zero: it gets what there is
	throttle int           // where in head it is said how long

	by     *acl.Rules // in force when the partitions were last looked at; nil: everybody may read
	noTurn error      // why it is not gone on with after a wait
}

// sessionless takes the partitions from the request.
func (f *fetching) sessionless(c *connection, req *kmsg.FetchRequest) {
	n := 0
	for i := range req.Topics {
		n += len(req.Topics[i].Partitions)
	}
	if cap(f.own) < n {
		f.own = make([]wanted, 0, n)
		f.ownPtr = make([]*wanted, 0, n)
	}
	f.own, f.ownPtr = f.own[:0], f.ownPtr[:0]
	if f.first == nil {
		f.first = make(map[partitionKey]int, n)
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			c.turn.step()
			key := partitionKey{t.Topic, t.TopicID, t.Partitions[j].Partition}
			if n > 1 {
				// What is named twice is answered once, where it stood first with what
				// it said last, as with Kafka. Some 50 ns a partition, beside a
				// microsecond that reading it takes.
				if at, again := f.first[key]; again {
					f.own[at].update(&t.Partitions[j])
					continue
				}
				f.first[key] = len(f.own)
			}
			f.own = append(f.own, wanted{partitionKey: key})
			w := &f.own[len(f.own)-1]
			w.update(&t.Partitions[j])
			f.ownPtr = append(f.ownPtr, w)
		}
	}
	clear(f.first)
	if n > maxKeptParts {
		f.first = nil
	}
	f.session = nil
	f.parts = f.ownPtr
}

// update takes over what the client asks of the partition.
func (w *wanted) update(p *kmsg.FetchRequestTopicPartition) {
	w.offset = p.FetchOffset
	w.epoch = p.CurrentLeaderEpoch
	w.lastEpoch = p.LastFetchedEpoch
	w.maxBytes = p.PartitionMaxBytes
}

// gather reads every partition, and again whenever one of them has moved, until
// there is enough or it has taken long enough.
func (f *fetching) gather(cl *call, req *kmsg.FetchRequest) {
	if f.wake == nil {
		f.wake = make(chan struct{}, 1)
	}
	budget := min(max(int(req.MaxBytes), 0), f.in.maxFetchBytes(), cl.conn.throttle.mostRecords())
	enough := min(int(req.MinBytes), budget)
	wait := min(time.Duration(req.MaxWaitMillis)*time.Millisecond, maxWait)
	timing := false
	share := &cl.conn.share
	for {
		select {
		case <-f.wake:
		default:
		}
		troubled := f.read(cl, budget)
		if troubled || f.total >= enough || wait <= 0 || len(f.parts) == 0 && f.session == nil {
			break
		}
		f.watch()
		f.release() // nothing is borrowed while waiting
		if !timing {
			timing = true
			if f.timer == nil {
				f.timer = time.NewTimer(wait)
			} else {
				f.timer.Reset(wait)
			}
		}
		select {
		case <-share.hurried: // at an earlier one
		default:
		}
		woken := false
		f.noTurn = cl.conn.besides(func() {
			share.idle.begin(time.Now())
			select {
			case <-f.wake:
				woken = true
			case <-share.hurried:
			case <-f.timer.C:
			case <-cl.ctx.Done():
			}
			share.idle.end()
		})
		if f.noTurn != nil {
			break
		}
		if woken {
			continue
		}
		f.read(cl, budget)
		break
	}
	if timing {
		f.timer.Stop()
	}
}

// read looks at every partition, and borrows records up to the budget. It
// reports whether something is wrong with one of them, so that the client should
// hear of it at once.
func (f *fetching) read(cl *call, budget int) (troubled bool) {
	f.total, f.spent, f.by = 0, false, cl.conn.server.broker.authorizer.Rules()
	var claims []claim
	for _, w := range f.parts {
		cl.step()
		f.readOne(cl, w, budget-f.total)
		if w.view != nil {
			f.total += w.view.Len()
		}
		troubled = troubled || w.code != protocol.None || w.diverging
		if w.ahead {
			claims = append(claims, claim{w.p, w.leads, fetched{f, w}})
		}
	}
	if claims != nil { // who reads at the end, or before it, waits for nobody
		confirm(cl.ctx, claims)
	}
	return troubled
}

// A fetched partition is deniable.
type fetched struct {
	f *fetching
	w *wanted
}

func (d fetched) deny(code protocol.Code) {
	d.w.diverging = false
	d.w.fail(d.f, code)
}

func (f *fetching) readOne(cl *call, w *wanted, left int) {
	w.code, w.diverging, w.ahead = protocol.None, false, false
	w.high, w.stable, w.start = -1, -1, -1
	w.leader, w.newEpoch = -1, -1
	if w.code = f.find(cl, w); w.code != protocol.None {
		return
	}
	epoch, err := w.p.Serving()
	switch {
	case err != nil:
		w.fail(f, codeOf(err))
		return
	case w.epoch >= 0 && w.epoch < epoch:
		w.fail(f, protocol.FencedLeaderEpoch)
		return
	case w.epoch > epoch:
		w.fail(f, protocol.UnknownLeaderEpoch)
		return
	}
	high, stable, start := w.p.HighWatermark(), w.p.StableOffset(), w.p.StartOffset()
	switch {
	case w.lastEpoch > epoch:
		// Nobody can have read that, unless this replica was deposed: the client speaks
		// of another cluster.
		w.ahead, w.leads = true, epoch
		w.fail(f, protocol.OffsetOutOfRange)
		return
	case w.maxBytes < 0:
		// Kafka answers UNKNOWN_SERVER_ERROR, by an exception it does not expect.
		w.fail(f, protocol.InvalidRequest)
		return
	case w.lastEpoch >= 0 && w.offset >= start:
		if e, end := w.p.EpochEnd(w.lastEpoch); e < w.lastEpoch || end < w.offset {
			w.diverging, w.divergingEpoch, w.divergingOffset = true, e, end
		}
	}
	limit := high
	if f.committed {
		limit = stable
	}
	if (w.diverging || w.offset >= limit) && w.p.CutOff() {
		w.diverging = false
		w.fail(f, protocol.NotLeaderOrFollower)
		return
	}
	w.ahead, w.leads = w.diverging || w.offset > high, epoch
	if !w.diverging && (w.offset < start || w.offset > high) {
		w.fail(f, protocol.OffsetOutOfRange)
		return
	}
	w.high, w.stable, w.start = high, stable, start
	if w.diverging || w.offset >= limit {
		return
	}
	first := f.total == 0
	if left <= 0 && !first {
		f.spent = true
		return
	}
	view, err := w.p.Read(w.offset, max(min(int(w.maxBytes), left), 1), f.committed)
	if err != nil {
		w.fail(f, codeOf(err))
		return
	}
	if f.version < 10 {
		if err := checkZstd(view); err != nil {
			view.Release()
			if err == errZstd {
				w.fail(f, protocol.UnsupportedCompression)
			} else {
				w.fail(f, protocol.KafkaStorageError)
			}
			return
		}
	}
	n := view.Len()
	if n == 0 || n > left && !first {
		f.spent = f.spent || n > 0
		view.Release()
		return
	}
	w.view = view
}

// errZstd ends a look at a view.
var errZstd = errors.New("server: a batch compressed by zstd")

// checkZstd returns errZstd when a batch in the view is compressed by zstd, which
// clients below version 10 do not know (KIP-110).
func checkZstd(view *segment.View) error {
	return view.Look(func(piece []byte) error {
		for len(piece) > 0 {
			b, rest, err := record.Split(piece)
			if err != nil {
				return nil // what is wrong with it is the log's to find
			}
			if b.Codec() == record.Zstd {
				return errZstd
			}
			piece = rest
		}
		return nil
	})
}

// find makes sure that w.p is the replica here of the partition that w names, and that
// the client may read it, by the rules now in force: a session outlives rights.
func (f *fetching) find(cl *call, w *wanted) protocol.Code {
	image := f.in.node.Image()
	if w.p != nil && w.image == image && w.by == f.by {
		return protocol.None
	}
	topic, code := cl.usable(f.by, acl.Read, image, w.name, w.topic, f.version >= 13)
	if code == protocol.None && (w.index < 0 || int(w.index) >= len(topic.Partitions)) {
		code = protocol.UnknownTopicOrPartition
	}
	if code != protocol.None {
		w.forget()
		return code
	}
	w.id = metadata.PartitionID{Topic: topic.ID, Index: w.index}
	p, err := f.in.node.Partition(w.id)
	if err != nil {
		w.forget()
		w.fail(f, codeOf(err))
		return w.code
	}
	if p != w.p {
		w.forget()
		w.p = p
	}
	w.image, w.by = image, f.by
	return protocol.None
}

// fail makes an error the outcome, with the leader's whereabouts where that
// helps the client (KIP-951).
func (w *wanted) fail(f *fetching, c protocol.Code) {
	w.code = c
	w.high, w.stable, w.start = -1, -1, -1
	if f.version >= 16 && (c == protocol.NotLeaderOrFollower || c == protocol.FencedLeaderEpoch) {
		if leader, epoch, ok := f.in.node.Leader(w.id); ok {
			w.leader, w.newEpoch = leader, epoch
		}
	}
}

// forget lets go of the replica.
func (w *wanted) forget() {
	if w.cancel != nil {
		w.cancel()
	}
	w.p, w.image, w.by, w.cancel = nil, nil, nil, nil
}

// watch asks every partition to tell of news. In a session it asks once: a
// notification for an offset that has passed tells of every further one too.
func (f *fetching) watch() {
	for _, w := range f.parts {
		if w.p != nil && w.cancel == nil {
			w.cancel = w.p.Notify(w.high, f.wake)
		}
	}
}

// release gives all borrowed records back.
func (f *fetching) release() {
	for _, w := range f.parts {
		if w.view != nil {
			w.view.Release()
			w.view = nil
		}
	}
}

// finishFetch ends the fetch and lets go of what it was larger for than others.
// Ten thousand idle connections may each have asked for much once.
func (c *connection) finishFetch(f *fetching) {
	f.finish()
	if cap(f.own) > maxKeptParts {
		f.own, f.ownPtr = nil, nil
	}
	if cap(f.ownPtr) > maxKeptParts {
		f.ownPtr = nil
	}
	if cap(f.cuts) > maxKeptParts {
		f.cuts = nil
	}
	if cap(f.pieces) > 4*maxKeptParts {
		f.pieces = nil
	}
	if cap(f.head) > maxKept {
		f.head = nil
	}
	n := cap(c.proto.Topics) + cap(c.proto.ForgottenTopics)
	for i := range c.proto.Topics {
		n += cap(c.proto.Topics[i].Partitions)
	}
	for i := range c.proto.ForgottenTopics {
		n += cap(c.proto.ForgottenTopics[i].Partitions)
	}
	if n > 2*maxKeptParts {
		c.proto = nil
	}
}

// finish gives the records and the replicas back.
func (f *fetching) finish() {
	f.release()
	if f.session == nil {
		for i := range f.own {
			f.own[i].forget()
		}
		clear(f.own) // they hold names and replicas
	}
	f.session, f.parts = nil, nil
}

// refuseAll answers every partition of a sessionless fetch with the fetch's own
// error, which versions before 7 have no other place for.
func (f *fetching) refuseAll() {
	for _, w := range f.parts {
		w.code = f.code
		w.high, w.stable, w.start = -1, -1, -1
		w.leader, w.newEpoch = -1, -1
	}
}

// write answers the client. Views are borrowed until it returns.
func (f *fetching) write(c *connection, h protocol.Header) error {
	f.pick(c)
	f.encode(c, h)
	pieces := f.pieces
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	wait := c.throttle.use(quota.Consume, n)
	if f.least > 0 {
		wait = max(wait, f.least)
	}
	if wait > 0 {
		binary.BigEndian.PutUint32(pieces[0][f.throttle:], uint32(c.throttle.mute(wait)))
	}
	err := c.write(nil, pieces, &c.share.client)
	clear(f.pieces)
	f.reorder()
	return err
}

// pick decides which partitions are in the answer. In a session those are
// the ones about which there is something to say (KIP-227).
func (f *fetching) pick(c *connection) {
	for _, w := range f.parts {
		c.turn.step()
		if f.least > 0 && f.code == protocol.None {
			w.include = false
			continue
		}
		w.include = f.full || w.view != nil || w.code != protocol.None || w.diverging ||
			w.high != w.sentHigh || w.start != w.sentStart
		w.sentHigh, w.sentStart = w.high, w.start
		if w.code != protocol.None {
			w.sentHigh = -1 // so that it is mentioned again when the error has gone
		}
	}
}

// reorder moves partitions that got records behind those that found the answer
// full, so that the next answer begins with the latter.
func (f *fetching) reorder() {
	if f.session == nil || !f.spent {
		return
	}
	served := f.ownPtr[:0]
	rest := f.parts[:0]
	for _, w := range f.parts {
		if w.view != nil {
			served = append(served, w)
		} else {
			rest = append(rest, w)
		}
	}
	copy(f.parts[len(rest):], served)
	clear(served)
	f.ownPtr = served[:0]
}

// encode writes the response's layout, Kafka's FetchResponse.json, around the
// borrowed records:
//
//	length · correlation · [tags] · throttle i32 · [7+: error i16 · session i32]
//	topics: name or [13+: id] · partitions:
//	    index i32 · error i16 · high watermark i64 · last stable offset i64 ·
//	    [5+: log start offset i64] · aborted transactions · [11+: read replica i32] ·
//	    records · [12+: tags 0: diverging epoch, 1: current leader]
//	[12+: tags 0: 16+: addresses of leaders]
func (f *fetching) encode(c *connection, h protocol.Header) {
	e := binary.BigEndian
	flexible := h.Version >= 12
	p := protocol.AppendHeader(f.head[:0], h)
	f.cuts = f.cuts[:0]
	f.throttle = len(p)
	p = e.AppendUint32(p, 0) // see write
	if h.Version >= 7 {
		p = e.AppendUint16(p, uint16(f.code))
		p = e.AppendUint32(p, uint32(f.sessionID))
	}
	p = protocol.AppendLength(p, f.countTopics(), flexible)
	more := 0
	var leaders endpoints
	for i := 0; i < len(f.parts); {
		if !f.parts[i].include {
			i++
			continue
		}
		end, n := f.topicRun(i)
		first := f.parts[i]
		switch {
		case h.Version >= 13:
			p = append(p, first.topic[:]...)
		case flexible:
			p = binary.AppendUvarint(p, uint64(len(first.name)+1))
			p = append(p, first.name...)
		default:
			p = e.AppendUint16(p, uint16(len(first.name)))
			p = append(p, first.name...)
		}
		p = protocol.AppendLength(p, n, flexible)
		for ; i < end; i++ {
			w := f.parts[i]
			c.turn.step()
			if !w.include {
				continue
			}
			p = e.AppendUint32(p, uint32(w.index))
			p = e.AppendUint16(p, uint16(w.code))
			p = e.AppendUint64(p, uint64(w.high))
			p = e.AppendUint64(p, uint64(w.stable))
			if h.Version >= 5 {
				p = e.AppendUint64(p, uint64(w.start))
			}
			aborted := -1 // null
			if f.committed && w.code == protocol.None {
				aborted = 0
			}
			p = protocol.AppendLength(p, aborted, flexible)
			if h.Version >= 11 {
				p = e.AppendUint32(p, 0xffffffff) // no preferred read replica
			}
			size := 0
			if w.view != nil {
				size = w.view.Len()
			}
			p = protocol.AppendLength(p, size, flexible)
			if size > 0 {
				f.cuts = append(f.cuts, len(p))
				more += size
			}
			if flexible {
				p = w.appendTags(p)
				if w.leader >= 0 {
					if leaders == nil {
						leaders = endpoints{}
					}
					leaders[w.leader] = struct{}{}
				}
			}
		}
		if flexible {
			p = append(p, 0)
		}
	}
	if flexible {
		p = f.in.appendEndpoints(p, &c.origin, leaders)
	}
	protocol.Finish(p, more)
	f.head = p

	f.pieces = f.pieces[:0]
	at := 0
	cut := 0
	for _, w := range f.parts {
		if !w.include || w.view == nil || w.view.Len() == 0 {
			continue
		}
		f.pieces = append(f.pieces, p[at:f.cuts[cut]])
		f.pieces = append(f.pieces, w.view.Bytes...)
		at = f.cuts[cut]
		cut++
	}
	if at < len(p) {
		f.pieces = append(f.pieces, p[at:])
	}
}

// appendTags appends a partition's tagged fields.
func (w *wanted) appendTags(p []byte) []byte {
	e := binary.BigEndian
	n := 0
	if w.diverging {
		n++
	}
	if w.leader >= 0 {
		n++
	}
	p = append(p, byte(n))
	if w.diverging {
		p = append(p, 0, 13) // tag, bytes: 4 + 8 + no tags
		p = e.AppendUint32(p, uint32(w.divergingEpoch))
		p = e.AppendUint64(p, uint64(w.divergingOffset))
		p = append(p, 0)
	}
	if w.leader >= 0 {
		p = append(p, 1, 9)
		p = e.AppendUint32(p, uint32(w.leader))
		p = e.AppendUint32(p, uint32(w.newEpoch))
		p = append(p, 0)
	}
	return p
}

// appendEndpoints ends the response with where its leaders are reached.
func (h *broker) appendEndpoints(p []byte, o *origin, leaders endpoints) []byte {
	list := h.addresses(o, leaders)
	if len(list) == 0 {
		return append(p, 0)
	}
	e := binary.BigEndian
	t := binary.AppendUvarint(nil, uint64(len(list)+1))
	for _, b := range list {
		t = e.AppendUint32(t, uint32(b.id))
		t = binary.AppendUvarint(t, uint64(len(b.host)+1))
		t = append(t, b.host...)
		t = e.AppendUint32(t, uint32(b.port))
		if b.rack == nil {
			t = append(t, 0)
		} else {
			t = binary.AppendUvarint(t, uint64(len(*b.rack)+1))
			t = append(t, *b.rack...)
		}
		t = append(t, 0)
	}
	p = append(p, 1, 0) // one tag, 0
	p = binary.AppendUvarint(p, uint64(len(t)))
	return append(p, t...)
}

// countTopics counts the runs of partitions with one topic in the answer.
func (f *fetching) countTopics() (n int) {
	for i := 0; i < len(f.parts); {
		if !f.parts[i].include {
			i++
			continue
		}
		i, _ = f.topicRun(i)
		n++
	}
	return n
}

// topicRun returns where the run ends that begins with part i, and how many of
// it are in the answer.
func (f *fetching) topicRun(i int) (end, n int) {
	first := f.parts[i]
	for end = i; end < len(f.parts); end++ {
		w := f.parts[end]
		if !w.include {
			continue
		}
		if w.name != first.name || w.topic != first.topic {
			return end, n
		}
		n++
	}
	return end, n
}
