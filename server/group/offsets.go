package group

import (
	"context"
	"errors"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// committed is one committed offset. Whatever a client sent comes back as it was.
type committed struct {
	offset      int64
	leaderEpoch int32 // -1: none
	metadata    string
	committedAt int64 // milliseconds since 1970
	expiresAt   int64 // the same; never: by the retention of the broker

	// topicID is the topic's when the offset was committed; zero: not known. An
	// offset goes with the deletion of its topic, but not with that of an earlier
	// topic of the same name.
	topicID [16]byte
}

const never = math.MinInt64

// visibleLocked returns the committed offset of a place.
func (g *group) visibleLocked(p place) (committed, bool) {
	o, ok := g.offsets[p.topic][p.partition]
	return o, ok
}

// applyOffsetLocked makes one offset record visible.
func (s *shard) applyOffsetLocked(k key, value []byte) error {
	p := place{k.topic, k.partition}
	if value == nil {
		if g := s.groupLocked(k.group); g != nil {
			g.forgetLocked(p)
			if s.Loading() {
				s.dropIfNothingLocked(g)
			}
		}
		return nil
	}
	o, err := parseOffset(value)
	if err != nil {
		return err
	}
	g := s.createLocked(k.group)
	if g.offsets == nil {
		g.offsets = make(map[string]map[int32]committed)
	}
	of := g.offsets[p.topic]
	if of == nil {
		of = make(map[int32]committed)
		g.offsets[p.topic] = of
	}
	of[p.partition] = o
	return nil
}

func (g *group) forgetLocked(p place) {
	of := g.offsets[p.topic]
	delete(of, p.partition)
	if len(of) == 0 {
		delete(g.offsets, p.topic)
	}
}

// OffsetCommit, versions 2–9.
//
//   - The member and its generation must be those of the group. Without either
//     (generation -1, no member id) anyone may commit while the group has no members.
//   - The answer comes when a quorum has the offsets; all of a request become visible together.
//   - A partition that does not exist gets UNKNOWN_TOPIC_OR_PARTITION, metadata beyond
//     offset.metadata.max.bytes OFFSET_METADATA_TOO_LARGE; the others are committed.
//   - Offsets and leader epochs are kept as they are, negative ones too, as Kafka does.
//
// v2–4 carry a retention time, v6 leader epochs (KIP-320), v7 the instance id (KIP-345).
func (c *Coordinator) OffsetCommit(ctx context.Context, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	if tooLong(req.Group) {
		return commitResponse(req, protocol.InvalidGroupID, nil)
	}
	s, code := c.shardOf(req.Group)
	if code != protocol.None {
		return commitResponse(req, code, nil)
	}
	answer := make(chan *kmsg.OffsetCommitResponse, 1)
	if !s.Do(func() { s.commitLocked(req, answer) }) {
		return commitResponse(req, protocol.NotCoordinator, nil)
	}
	return await(ctx, answer, func() *kmsg.OffsetCommitResponse {
		return commitResponse(req, protocol.CoordinatorNotAvailable, nil)
	})
}

// An offsetCommit is one that is being answered.
type offsetCommit struct {
	s       *shard
	g       *group // once there is something to append
	req     *kmsg.OffsetCommitRequest
	answer  chan<- *kmsg.OffsetCommitResponse // has room for one
	places  []place                           // where the offsets go that are appended
	refused map[place]protocol.Code           // the others, and why
}

func (s *shard) commitLocked(req *kmsg.OffsetCommitRequest, answer chan<- *kmsg.OffsetCommitResponse) {
	c := &offsetCommit{s: s, req: req, answer: answer}
	if code := s.mayCommitLocked(req); code != protocol.None {
		c.reply(code)
		return
	}
	records := c.records()
	if len(records) == 0 {
		c.reply(protocol.None)
		return
	}
	c.g = s.createLocked(req.Group)
	if c.g.pending == nil {
		c.g.pending = make(map[place]int)
	}
	for _, p := range c.places {
		c.g.pending[p]++
	}
	s.WriteLocked(records, c)
}

// mayCommitLocked returns the code for a commit by whoever req says it is.
func (s *shard) mayCommitLocked(req *kmsg.OffsetCommitRequest) protocol.Code {
	g := s.groupLocked(req.Group)
	switch {
	case g != nil && g.dead:
		return protocol.CoordinatorNotAvailable
	case g != nil:
		return g.members.mayCommit(req.MemberID, req.InstanceID, req.Generation)
	case req.Generation >= 0:
		return protocol.IllegalGeneration
	}
	return protocol.None
}

// records returns the records of the offsets that may be committed, and notes where each
// goes; of the others it notes why not.
func (c *offsetCommit) records() (records []record.Record) {
	s, req, now := c.s, c.req, c.s.Now()
	most := s.c.settings().MaxMetadataBytes
	expires := int64(never)
	if req.Version <= 4 && req.RetentionTimeMillis >= 0 {
		if expires = millis(now) + req.RetentionTimeMillis; expires < 0 {
			expires = math.MaxInt64 // so far away that the sum wrapped
		}
	}
	c.refused = make(map[place]protocol.Code)
	for _, t := range req.Topics {
		var id [16]byte
		partitions, known := int32(math.MaxInt32), true
		if s.c.cfg.Topics != nil {
			id, partitions, known = s.c.cfg.Topics.Topic(t.Topic)
		}
		for _, part := range t.Partitions {
			p := place{t.Topic, part.Partition}
			o := committed{
				offset: part.Offset, leaderEpoch: max(part.LeaderEpoch, -1),
				committedAt: millis(now), expiresAt: expires, topicID: id,
			}
			if req.Version < 6 {
				o.leaderEpoch = -1
			}
			if part.Metadata != nil {
				o.metadata = *part.Metadata
			}
			switch {
			case !known || tooLong(t.Topic) || p.partition < 0 || p.partition >= partitions:
				c.refused[p] = protocol.UnknownTopicOrPartition
			case len(o.metadata) > most:
				c.refused[p] = protocol.OffsetMetadataTooLarge
			default:
				records = append(records, offsetRecord(now, req.Group, p, o))
				c.places = append(c.places, p)
			}
		}
	}
	return records
}

// AppendedLocked implements coordinator.Appender. The offsets have been replayed by then.
func (c *offsetCommit) AppendedLocked(err error) {
	for _, p := range c.places {
		if c.g.pending[p]--; c.g.pending[p] == 0 {
			delete(c.g.pending, p)
		}
	}
	code := codeOf(err)
	if err != nil {
		c.s.dropIfNothingLocked(c.g)
	}
	if errors.Is(err, coordinator.ErrTooLarge) {
		code = protocol.InvalidCommitOffsetSize
	}
	c.reply(code)
}

func (c *offsetCommit) reply(code protocol.Code) { c.answer <- commitResponse(c.req, code, c.refused) }

// commitResponse answers each partition with its code in refused, or else code.
func commitResponse(req *kmsg.OffsetCommitRequest, code protocol.Code, refused map[place]protocol.Code) *kmsg.OffsetCommitResponse {
	resp := kmsg.NewPtrOffsetCommitResponse()
	resp.Version = req.Version
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, int16(code)
			if why := refused[place{t.Topic, p.Partition}]; why != protocol.None {
				rp.ErrorCode = int16(why)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// OffsetFetch, versions 1–9.
//
//   - A group or partition without a committed offset is no error: offset -1.
//   - Null topics (v2+) are all that have an offset.
//   - Read after Journal.Confirm, so a value is never older than one that was
//     acknowledged, by whichever node, before the request.
//
// v2 adds the group's error code, v5 leader epochs, v7 RequireStable (no offset is
// unstable here: there are no pending transactions), v8 several groups, v9 the
// member's id and epoch (KIP-848).
func (c *Coordinator) OffsetFetch(ctx context.Context, req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	resp := kmsg.NewPtrOffsetFetchResponse()
	resp.Version = req.Version
	confirmed := make(map[*shard]bool)
	if req.Version >= 8 {
		bound := newAnswer()
		seen := make(map[string]bool, len(req.Groups))
		for _, g := range req.Groups {
			switch {
			case seen[g.Group]:
				continue
			case bound.full():
				rg := kmsg.NewOffsetFetchResponseGroup()
				rg.Group, rg.ErrorCode = g.Group, int16(protocol.CoordinatorLoadInProgress)
				resp.Groups = append(resp.Groups, rg)
			default:
				resp.Groups = append(resp.Groups, c.fetchOffsets(ctx, g, confirmed, bound))
			}
			seen[g.Group] = true
		}
		return resp
	}

	// Up to v7 there is one group, and its answer has a place of its own.
	ask := kmsg.NewOffsetFetchRequestGroup()
	ask.Group = req.Group
	if req.Topics != nil || req.Version < 2 {
		ask.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for _, t := range req.Topics {
		at := kmsg.NewOffsetFetchRequestGroupTopic()
		at.Topic, at.Partitions = t.Topic, t.Partitions
		ask.Topics = append(ask.Topics, at)
	}
	got := c.fetchOffsets(ctx, ask, confirmed, newAnswer())
	resp.ErrorCode = got.ErrorCode
	if got.ErrorCode != int16(protocol.None) && req.Version < 2 {
		got.Topics = nil
		for _, t := range req.Topics { // v1 has no other place for the error
			gt := kmsg.NewOffsetFetchResponseGroupTopic()
			gt.Topic = t.Topic
			for _, p := range t.Partitions {
				gt.Partitions = append(gt.Partitions, noOffset(p, protocol.Code(got.ErrorCode)))
			}
			got.Topics = append(got.Topics, gt)
		}
	}
	for _, t := range got.Topics {
		rt := kmsg.NewOffsetFetchResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetFetchResponseTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func noOffset(partition int32, code protocol.Code) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = partition, -1, -1, new(string), int16(code)
	return p
}

func (c *Coordinator) fetchOffsets(ctx context.Context, ask kmsg.OffsetFetchRequestGroup, confirmed map[*shard]bool, bound *answer) kmsg.OffsetFetchResponseGroup {
	resp := kmsg.NewOffsetFetchResponseGroup()
	resp.Group = ask.Group
	s, code := c.shardOf(ask.Group)
	if code == protocol.None && !confirmed[s] {
		s.Unlock() // nothing was done under it
		if err := s.Confirm(ctx); err != nil {
			// Java's consumers before 3.9 know no other code to look for the coordinator again.
			resp.ErrorCode = int16(protocol.NotCoordinator)
			return resp
		}
		confirmed[s] = true
		s.Lock()
		if s.EndedLocked() {
			s.Unlock()
			code = protocol.NotCoordinator
		}
	}
	if resp.ErrorCode = int16(code); code != protocol.None {
		return resp
	}
	defer s.Unlock()

	g := s.groupLocked(ask.Group)
	if g == nil {
		g = &group{}
	} else if code := g.members.mayFetch(ask.MemberID, ask.MemberEpoch); code != protocol.None {
		resp.ErrorCode = int16(code)
		return resp
	}
	add := func(t *kmsg.OffsetFetchResponseGroupTopic, p int32) {
		rp := noOffset(p, protocol.None)
		if o, ok := g.visibleLocked(place{t.Topic, p}); ok {
			rp.Offset, rp.LeaderEpoch, rp.Metadata = o.offset, o.leaderEpoch, &o.metadata
		}
		bound.add(32 + len(*rp.Metadata))
		t.Partitions = append(t.Partitions, rp)
	}
	if ask.Topics == nil {
		for topic, of := range g.offsets {
			t := kmsg.NewOffsetFetchResponseGroupTopic()
			t.Topic = topic
			for p := range of {
				add(&t, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp
	}
	seen := make(map[place]bool)
	for _, at := range ask.Topics {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.TopicID = at.Topic, at.TopicID
		for _, p := range at.Partitions {
			if k := (place{at.Topic, p}); !seen[k] {
				seen[k] = true
				add(&t, p)
			}
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// OffsetDelete, version 0 (KIP-496).
//
//   - Offsets of topics that members subscribe to stay: GROUP_SUBSCRIBED_TO_TOPIC. A
//     group whose members' subscriptions are not known to be anything is in use as a
//     whole: NON_EMPTY_GROUP.
//   - What has no offset is deleted without an error, but for topics that are not
//     there: UNKNOWN_TOPIC_OR_PARTITION.
func (c *Coordinator) OffsetDelete(ctx context.Context, req *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	if tooLong(req.Group) {
		return deleteFailure(req, protocol.InvalidGroupID)
	}
	s, code := c.shardOf(req.Group)
	if code != protocol.None {
		return deleteFailure(req, code)
	}
	answer := make(chan *kmsg.OffsetDeleteResponse, 1)
	if !s.Do(func() { s.offsetDeleteLocked(req, answer) }) {
		return deleteFailure(req, protocol.NotCoordinator)
	}
	return await(ctx, answer, func() *kmsg.OffsetDeleteResponse {
		return deleteFailure(req, protocol.CoordinatorNotAvailable)
	})
}

func deleteFailure(req *kmsg.OffsetDeleteRequest, code protocol.Code) *kmsg.OffsetDeleteResponse {
	resp := kmsg.NewPtrOffsetDeleteResponse()
	resp.Version, resp.ErrorCode = req.Version, int16(code)
	return resp
}

func (s *shard) offsetDeleteLocked(req *kmsg.OffsetDeleteRequest, answer chan<- *kmsg.OffsetDeleteResponse) {
	g := s.groupLocked(req.Group)
	switch {
	case g == nil:
		answer <- deleteFailure(req, protocol.GroupIDNotFound)
		return
	case g.dead:
		answer <- deleteFailure(req, protocol.CoordinatorNotAvailable)
		return
	case !g.members.empty() && g.members.protocolType() != consumerProtocol:
		answer <- deleteFailure(req, protocol.NonEmptyGroup)
		return
	}

	resp := deleteFailure(req, protocol.None)
	now := s.Now()
	var records []record.Record
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = t.Topic
		for _, part := range t.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = part.Partition
			p := place{t.Topic, part.Partition}
			if g.members.subscribed(t.Topic) {
				rp.ErrorCode = int16(protocol.GroupSubscribedToTopic)
			} else if _, ok := g.visibleLocked(p); ok || g.pending[p] > 0 {
				records = append(records, offsetTombstone(now, req.Group, p))
			} else if s.c.cfg.Topics != nil {
				if _, _, known := s.c.cfg.Topics.Topic(t.Topic); !known {
					rp.ErrorCode = int16(protocol.UnknownTopicOrPartition)
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if len(records) == 0 {
		answer <- resp
		return
	}
	s.WriteLocked(records, &offsetDeletion{req, resp, answer})
}

// An offsetDeletion is an OffsetDelete whose tombstones are on their way.
type offsetDeletion struct {
	req    *kmsg.OffsetDeleteRequest
	resp   *kmsg.OffsetDeleteResponse
	answer chan<- *kmsg.OffsetDeleteResponse // has room for one
}

// AppendedLocked implements coordinator.Appender.
func (d *offsetDeletion) AppendedLocked(err error) {
	if err != nil {
		d.resp = deleteFailure(d.req, codeOf(err))
	}
	d.answer <- d.resp
}
