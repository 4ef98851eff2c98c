package server

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/replication/partition"
	"millrace/security/acl"
	"millrace/segment/record"
	"millrace/server/protocol"
	"millrace/server/quota"
)

// Produce, versions 3–13; 0–2 are advertised and refused (KAFKA-18659).
//
//   - acks=0 sends no response, and closes the connection on an error; 1 and -1
//     both wait for the quorum, for a second at least: with a timeout of 0 Kafka
//     answers the offset too. Other values are refused.
//   - One batch a partition, of format v2; zstd from version 7 on (KIP-110).
//   - A topic that the client may not write to is TOPIC_AUTHORIZATION_FAILED, there or not.
//     A batch of a transaction refuses the whole request if it names no transactional id.
//   - The last five batches of an idempotent producer are recognised (KIP-98).
//   - A record without a key for a compacted topic is INVALID_RECORD, with the
//     record's index (KIP-467).
//   - Append times are those of the partition; none is -1.
//   - An unknown codec is UNSUPPORTED_COMPRESSION_TYPE, which says what it is;
//     Kafka answers UNKNOWN_SERVER_ERROR, by an exception it does not expect.
//
// v5 adds the log start offset to the response, v8 the records at fault and a
// message, v9 tagged fields, v10 the current leader (KIP-951), v13 topic ids in
// place of names (KIP-516).
//
// The record bytes are never copied here: batches alias the frame, which has
// memory of its own and belongs to the partitions from Append on, until they have
// all said what became of their batches and the response is encoded. Then it is
// put back for the next request, unless a partition keeps it: see partition.KeptBytes.
func (h *producers) produce(cl *call) error {
	c := cl.conn
	var req kmsg.ProduceRequest
	req.SetVersion(cl.Version)
	// Names alias the frame as well; nothing keeps them longer than the batches.
	if err := req.UnsafeReadFrom(cl.body); err != nil {
		return protocol.Malformed("Produce version %d: %v", cl.Version, err)
	}
	a := &appends{
		in:       h,
		header:   cl.Header,
		conn:     c,
		size:     cl.size,
		frame:    cl.frame,
		silent:   req.Acks == 0,
		deadline: time.Now().Add(clamp(req.TimeoutMillis)),
		finished: make(chan struct{}),
	}
	n := 0
	for i := range req.Topics {
		n += len(req.Topics[i].Partitions)
	}
	a.topics = req.Topics
	a.results = make([]appended, n)
	a.left = n + 1 // one for this loop
	// It must be in the queue before anything can finish, and no further
	// request is read before this returns: so answers keep the order.
	if err := c.enqueue(a); err != nil {
		return err
	}
	refusal := produceRefusal(cl, &req)
	set := h.settings()
	by := h.authorizer.Rules()
	i := 0
	for t := range req.Topics {
		rt := &req.Topics[t]
		var topic *metadata.Topic
		var code protocol.Code
		if refusal == nil {
			topic, code = cl.usable(by, acl.Write, set.image, rt.Topic, rt.TopicID, cl.Version >= 13)
		}
		switch {
		case refusal != nil:
		case code == protocol.None && topic.Internal:
			code = protocol.InvalidTopic
		}
		for p := range rt.Partitions {
			rp := &rt.Partitions[p]
			switch {
			case refusal != nil:
				a.refuse(i, *refusal)
			case code != protocol.None:
				a.refuse(i, appended{code: code})
			default:
				h.append(a, i, topic, set.topic(topic), rp)
			}
			rp.Records = nil // the partition's
			i++
		}
	}
	a.throttle(c.throttle.use(quota.Produce, cl.size))
	a.countDown()
	return nil
}

// produceRefusal is what is wrong with a request as a whole, or nil.
func produceRefusal(c *call, req *kmsg.ProduceRequest) *appended {
	switch {
	case req.Version < 3:
		return &appended{code: protocol.UnsupportedVersion}
	case req.Acks < -1 || req.Acks > 1:
		return &appended{code: protocol.InvalidRequiredAcks}
	case req.TransactionID != nil && !c.may(acl.TransactionalID, *req.TransactionID),
		req.TransactionID == nil && hasTransactional(req):
		return &appended{code: protocol.TransactionalIDAuthorizationFailed}
	case req.TransactionID != nil:
		return &appended{code: protocol.InvalidTxnState, err: sentence("transactions are not supported")}
	}
	return nil
}

// hasTransactional reports whether any batch says that it is part of a transaction. Kafka
// refuses all of a request then that names none: what is checked is every batch, and not
// the first. It reads two bytes a batch.
func hasTransactional(req *kmsg.ProduceRequest) bool {
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			b := record.Batch(req.Topics[i].Partitions[j].Records)
			if len(b) >= record.HeaderSize && b.Magic() == 2 && b.IsTransactional() {
				return true
			}
		}
	}
	return false
}

// append submits one partition's batch as result i of a.
func (h *producers) append(a *appends, i int, topic *metadata.Topic, set *settings.Topic, rp *kmsg.ProduceRequestTopicPartition) {
	if rp.Partition < 0 || int(rp.Partition) >= len(topic.Partitions) {
		a.refuse(i, appended{code: protocol.UnknownTopicOrPartition})
		return
	}
	id := metadata.PartitionID{Topic: topic.ID, Index: rp.Partition}
	b, err := record.Validate(rp.Records, int(set.MaxMessageBytes))
	if errors.Is(err, record.ErrTimestamp) && set.TimestampType == settings.CreateTime {
		err = nil // the claim has been cleared; Kafka refuses it where the broker stamps
	}
	if err != nil {
		r := refusedBatch(err)
		r.id = id
		a.refuse(i, r)
		return
	}
	if b.Codec() == record.Zstd && a.header.Version < 7 {
		a.refuse(i, appended{code: protocol.UnsupportedCompression, err: sentence("Produce requests before version 7 may not use ZStandard compression")})
		return
	}
	if refused := h.checkRecords(b, set, topic.Name, rp.Partition); refused != nil {
		refused.id = id
		a.refuse(i, *refused)
		return
	}
	came := len(b)
	a.kept = a.kept || came >= partition.KeptBytes
	if b, err = recompress(b, set); err != nil {
		a.refuse(i, appended{code: codeOf(err), err: err})
		return
	}
	a.hold(len(b) - came)
	p, err := h.node.Partition(id)
	if err != nil {
		a.refuse(i, appended{code: codeOf(err), id: id})
		return
	}
	b.Assign(0, -1) // offset and epoch are the leader's to stamp
	p.Append([]record.Batch{b}, &appending{a, i, topic.Name, id})
}

// An appending is a partition of a Produce request whose batch is being appended. It
// implements partition.Appender.
type appending struct {
	to    *appends
	i     int    // which of its results this is
	topic string // name
	id    metadata.PartitionID
}

// Appended implements partition.Appender.
func (p *appending) Appended(ack partition.Ack, err error) {
	if err != nil {
		// Without a message, as Kafka: clients show it to people, and what it
		// says is ours. Most of it passes, and is no news in the log.
		if code := codeOf(err); code == protocol.UnknownServerError {
			p.to.in.warn("a produce failed", "topic", p.topic, "partition", p.id.Index, "error", err)
		}
		p.to.refuse(p.i, appended{code: codeOf(err), id: p.id})
		return
	}
	p.to.finish(p.i, appended{base: ack.BaseOffset, time: ack.AppendTime, start: ack.StartOffset})
}

// refusedBatch says what Validate found.
func refusedBatch(err error) appended {
	r := appended{code: codeOf(err), err: err}
	var one *record.RecordError
	if errors.As(err, &one) {
		r.records = []faulty{{int32(one.Index), one.Reason}}
	}
	return r
}

// checkRecords applies the topic's rules to a valid batch: keys where the
// topic is compacted, and timestamps near enough to now (KIP-937).
func (h *producers) checkRecords(b record.Batch, t *settings.Topic, topic string, partition int32) *appended {
	now := h.clock.Now().UnixMilli()
	latest, earliest := int64(math.MaxInt64), int64(math.MinInt64)
	if t.TimestampType == settings.CreateTime {
		if t.TimestampAfterMaxMillis < math.MaxInt64-now {
			latest = now + t.TimestampAfterMaxMillis
		}
		if t.TimestampBeforeMaxMillis < math.MaxInt64 {
			earliest = now - t.TimestampBeforeMaxMillis
		}
	}
	if !t.CleanupCompact && b.MaxTimestamp() <= latest && earliest == math.MinInt64 {
		return nil // nothing that a single record could break
	}
	var bad []faulty
	n, untimely := 0, false
	i := int32(-1)
	for r, err := range b.Records() {
		if err != nil {
			return &appended{code: codeOf(err), err: err}
		}
		i++
		var reason string
		switch {
		case t.CleanupCompact && r.Key == nil:
			reason = fmt.Sprintf("Compacted topic cannot accept message without key in topic partition %s-%d", topic, partition)
		// -1 is a record without a timestamp.
		case r.Timestamp != -1 && (r.Timestamp > latest || r.Timestamp < earliest):
			untimely = true
			reason = fmt.Sprintf("Timestamp %d of message with offset %d is out of range. The timestamp should be within [%d, %d]", r.Timestamp, i, earliest, latest)
		default:
			continue
		}
		if n++; n <= maxFaulty {
			bad = append(bad, faulty{i, reason})
		}
	}
	switch {
	case n == 0:
		return nil
	case untimely: // of two kinds, Kafka reports this one
		return &appended{code: protocol.InvalidTimestamp, err: sentence("One or more records have been rejected due to invalid timestamp"), records: bad}
	}
	return &appended{code: protocol.InvalidRecord, records: bad, err: sentencef(
		"One or more records have been rejected due to %d record errors in total, and only showing the first three errors at most: %v", n, bad[:min(n, 3)])}
}

// maxFaulty bounds the records listed as being at fault in one batch.
const maxFaulty = 100

// recompress makes the batch's codec the topic's, unless that is the
// producer's choice (compression.type). The result may be longer than what came,
// so it is held against max.message.bytes again.
func recompress(b record.Batch, t *settings.Topic) (record.Batch, error) {
	codec := record.Codec(t.CompressionType)
	if t.CompressionType == settings.CompressionProducer || codec == b.Codec() {
		return b, nil
	}
	return b.Recompress(codec, t.CompressionLevel, int(t.MaxMessageBytes))
}

// An appends is one Produce request between its submission and its answer. It
// is filled in by the partitions and answered by the acknowledger.
type appends struct {
	in       *producers
	conn     *connection
	header   protocol.Header
	size     int   // of the frame, in bytes
	held     int   // bytes counted for the frame until the answer; under flight.mu
	settled  bool  // it has been answered and is off the books; under flight.mu
	silent   bool  // acks=0
	wait     int32 // what the client is told to wait, in milliseconds; under mu
	deadline time.Time
	topics   []kmsg.ProduceRequestTopic

	finished chan struct{} // closed when nothing is left
	kept     bool          // a partition may keep its part of the frame; set before the last countDown

	mu       sync.Mutex
	frame    []byte // nil once given back
	left     int
	answered bool // later results come too late
	results  []appended
}

// An appended is the outcome for one partition.
type appended struct {
	done    bool
	code    protocol.Code
	err     error
	base    int64
	time    int64
	start   int64
	records []faulty
	id      metadata.PartitionID // zero: it is not known
}

// A faulty record is one a batch was refused for.
type faulty struct {
	index  int32
	reason string
}

// String is how Kafka writes it into the message of the whole batch.
func (f faulty) String() string {
	return fmt.Sprintf("RecordError(batchIndex=%d, message='%s')", f.index, f.reason)
}

// hold counts n bytes more for the request than its frame has. The connection
// reads no further request while it is over its bounds for it.
func (a *appends) hold(n int) {
	if n <= 0 {
		return
	}
	f := &a.conn.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.settled {
		return
	}
	a.held += n
	a.size += n
	f.bytes += n
	a.conn.share.add(n)
}

func (a *appends) finish(i int, r appended) {
	r.done = true
	a.mu.Lock()
	if !a.answered {
		a.results[i] = r
	}
	a.mu.Unlock()
	a.countDown()
}

func (a *appends) refuse(i int, r appended) {
	r.base, r.time, r.start = -1, -1, -1
	a.finish(i, r)
}

// throttle has the client wait, and be told so. Where it has been answered already, late
// as it was, nothing is told and it goes on: what it owes it still does.
func (a *appends) throttle(wait time.Duration) {
	if wait <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.answered {
		a.wait = a.conn.throttle.mute(wait)
	}
}

func (a *appends) countDown() {
	a.mu.Lock()
	a.left--
	last := a.left == 0
	a.mu.Unlock()
	if last {
		close(a.finished)
		a.putBack()
	}
}

// putBack leaves the frame to the next request once nobody uses it any more. It is
// called when nothing is left, and when the answer is encoded.
func (a *appends) putBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left == 0 && a.answered && !a.kept {
		a.in.buffers.Put(a.frame)
		a.frame = nil
	}
}

// response encodes the answer as it stands; partitions that are not done have
// timed out. Without acks there is none, and an error says that the connection
// must go: that is how such a client learns of it.
func (a *appends) response() ([]byte, error) {
	defer a.putBack()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answered = true
	resp := kmsg.NewProduceResponse()
	resp.SetVersion(a.header.Version)
	resp.ThrottleMillis = a.wait
	resp.Topics = make([]kmsg.ProduceResponseTopic, len(a.topics))
	brokers := endpoints{}
	i := 0
	for t := range a.topics {
		rt, st := &a.topics[t], &resp.Topics[t]
		st.Default()
		st.Topic, st.TopicID = rt.Topic, rt.TopicID
		st.Partitions = make([]kmsg.ProduceResponseTopicPartition, len(rt.Partitions))
		for p := range rt.Partitions {
			r := &a.results[i]
			i++
			if !r.done {
				*r = appended{code: protocol.RequestTimedOut, base: -1, time: -1, start: -1}
			}
			sp := &st.Partitions[p]
			sp.Default()
			sp.Partition = rt.Partitions[p].Partition
			sp.ErrorCode = int16(r.code)
			sp.BaseOffset, sp.LogAppendTime, sp.LogStartOffset = r.base, r.time, r.start
			switch r.code {
			case protocol.InvalidRecord, protocol.InvalidTimestamp, protocol.OutOfOrderSequence, protocol.InvalidProducerEpoch, protocol.UnknownProducerID, protocol.UnsupportedCompression:
				// Kafka tells it where the partition itself refused.
				if p, err := a.in.node.Partition(r.id); err == nil {
					sp.LogStartOffset = p.StartOffset()
				}
			}
			sp.ErrorMessage = message(r.err)
			for _, f := range r.records {
				e := kmsg.NewProduceResponseTopicPartitionErrorRecord()
				e.RelativeOffset, e.ErrorMessage = f.index, &f.reason
				sp.ErrorRecords = append(sp.ErrorRecords, e)
			}
			if r.code == protocol.NotLeaderOrFollower && a.header.Version >= 10 {
				if broker, epoch, ok := a.in.node.Leader(r.id); ok {
					sp.CurrentLeader.LeaderID, sp.CurrentLeader.LeaderEpoch = broker, epoch
					brokers[broker] = struct{}{}
				}
			}
			if a.silent && r.code != protocol.None {
				return nil, sentencef("Produce with acks=0 failed: error %d", r.code)
			}
		}
	}
	if a.silent {
		return nil, nil
	}
	for _, b := range a.in.addresses(&a.conn.origin, brokers) {
		e := kmsg.NewProduceResponseBroker()
		e.NodeID, e.Host, e.Port, e.Rack = b.id, b.host, b.port, b.rack
		resp.Brokers = append(resp.Brokers, e)
	}
	p := resp.AppendTo(protocol.AppendHeader(nil, a.header))
	protocol.Finish(p, 0)
	return p, nil
}
