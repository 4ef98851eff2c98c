package server

import (
	"cmp"
	"context"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/server/protocol"
)

// Metadata, versions 0–13.
//
//   - No topics is none, null is all; in version 0 none is all.
//   - A topic that is not there is created where the client and
//     auto.create.topics.enable allow it, implied below version 4. The answer
//     that creates it says UNKNOWN_TOPIC_OR_PARTITION, as that of Kafka with
//     KRaft does; the next one has it. An illegal name is INVALID_TOPIC_EXCEPTION.
//   - A partition without a known, living leader has leader -1 and
//     LEADER_NOT_AVAILABLE.
//   - Living brokers are listed: those that this one hears, or hears of from one
//     that it does. Without a majority of them it cannot tell, and lists all, so that
//     a client of a broker that is cut off asks another. The controller named is one
//     of those; any broker serves what Kafka would have its controller serve.
//   - Brokers are where the listener that the client came in by has them: each
//     registers an address for each of its listeners. One without an advertised
//     address is where the client came in.
//
// v1 adds the controller, racks and internal topics, v2 the cluster's id, v5
// offline replicas, v7 leader epochs, v8 authorized operations (KIP-430), v9
// tagged fields, v10 topic ids (KIP-516), by which v12 may ask, v13 a top-level
// error.
func (s *Server) metadata(c *call, req *kmsg.MetadataRequest) *kmsg.MetadataResponse {
	resp := kmsg.NewPtrMetadataResponse()
	image := s.Node.Image()
	missing := map[string]protocol.Code{}
	if (c.Version < 4 || req.AllowAutoTopicCreation) && s.settings().broker.Topics.AutoCreate {
		missing = s.autoCreate(c, image, req.Topics)
		image = s.Node.Image()
	}
	live := s.live(image)
	for _, b := range image.Brokers() {
		if !live[b.ID] {
			continue
		}
		e := c.conn.address(b)
		rb := kmsg.NewMetadataResponseBroker()
		rb.NodeID, rb.Host, rb.Port, rb.Rack = e.id, e.host, e.port, e.rack
		resp.Brokers = append(resp.Brokers, rb)
	}
	id := s.Node.ClusterID()
	resp.ClusterID = &id
	resp.ControllerID = s.controller()
	if c.Version >= 8 && c.Version <= 10 && req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	describe := func(t *metadata.Topic) {
		rt := s.metadataTopic(t, live)
		if req.IncludeTopicAuthorizedOperations {
			rt.AuthorizedOperations = topicOperations
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if req.Topics == nil || c.Version == 0 && len(req.Topics) == 0 {
		for _, t := range image.Topics() {
			describe(t)
		}
		return resp
	}
	type name struct {
		name string
		id   metadata.TopicID
	}
	seen := make(map[name]struct{}, len(req.Topics))
	resp.Topics = make([]kmsg.MetadataResponseTopic, 0, len(req.Topics))
	for i := range req.Topics {
		c.step()
		rt := &req.Topics[i]
		n := name{id: rt.TopicID}
		if rt.Topic != nil {
			n.name = *rt.Topic
		}
		if _, ok := seen[n]; ok {
			continue
		}
		seen[n] = struct{}{}
		// Kafka's Admin asks by id with an empty name, not with none.
		byID := rt.Topic == nil || c.Version >= 12 && rt.TopicID != (metadata.TopicID{})
		var t *metadata.Topic
		var code protocol.Code
		switch {
		case byID && c.Version < 12:
			code = protocol.InvalidRequest
		default:
			t, code = findTopic(image, n.name, n.id, byID)
		}
		why, asked := missing[n.name]
		asked = asked && !byID
		if t != nil && !asked {
			describe(t)
			continue
		}
		if asked {
			code = why
		} else if !byID && metadata.ValidateTopicName(n.name) != nil {
			code = protocol.InvalidTopic
		}
		e := kmsg.NewMetadataResponseTopic()
		e.ErrorCode, e.Topic, e.TopicID = int16(code), rt.Topic, rt.TopicID
		switch {
		case c.Version < 12 && e.Topic == nil:
			e.Topic = new(string)
		case byID && c.Version >= 12:
			e.Topic = nil
		}
		resp.Topics = append(resp.Topics, e)
	}
	return resp
}

// Bits of operations (KIP-430): what everyone may do as long as nobody is
// forbidden anything.
const (
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

// autoCreate creates the topics that are not there, the cluster's own among
// them, and says of each what the client is told: UNKNOWN_TOPIC_OR_PARTITION,
// upon which it asks again, or why the topic cannot be. Kafka does not wait for
// the controller and so never says why; a client that is told stops asking.
// Clients know a topic that answers at once as one that was there;
// segmentio/kafka-go's tests tell a deleted topic by it.
func (s *Server) autoCreate(c *call, image *metadata.Image, topics []kmsg.MetadataRequestTopic) map[string]protocol.Code {
	missing := map[string]protocol.Code{}
	var names []string
	for i := range topics {
		c.step()
		n := topics[i].Topic
		if n == nil {
			continue
		}
		if _, ok := image.Topic(*n); ok || metadata.ValidateTopicName(*n) != nil || *n == metadataTopic {
			continue
		}
		if _, ok := missing[*n]; !ok {
			missing[*n] = protocol.UnknownTopicOrPartition
			if len(names) < maxAutoCreate {
				names = append(names, *n)
			}
		}
	}
	if len(names) == 0 {
		return missing
	}
	ctx, cancel := context.WithTimeout(c.ctx, 3*time.Second)
	defer cancel()
	results := make([]protocol.Code, len(names))
	s.together(len(names), func(i int) {
		want, own := s.ownTopic(names[i])
		if !own {
			want = replication.TopicRequest{Name: names[i], Partitions: -1, Replicas: -1}
		}
		_, err := s.Node.CreateTopic(ctx, want)
		switch code := codeOf(err); code {
		case protocol.None, protocol.TopicAlreadyExists, protocol.RequestTimedOut, protocol.NotLeaderOrFollower:
			results[i] = protocol.UnknownTopicOrPartition
		default:
			results[i] = code
			s.warn("topic not created on demand", "topic", names[i], "error", err)
		}
	})
	for i, n := range names {
		missing[n] = results[i]
	}
	return missing
}

// maxAutoCreate bounds the topics that one request may create by asking for them.
const maxAutoCreate = 100

func (s *Server) metadataTopic(t *metadata.Topic, live map[int32]bool) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.Topic, rt.TopicID, rt.IsInternal = &t.Name, t.ID, t.Internal
	rt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.Partitions))
	for i := range t.Partitions {
		st := s.partitionState(t, i, live)
		rp := &rt.Partitions[i]
		rp.Default()
		rp.Partition = int32(i)
		rp.ErrorCode = int16(st.code)
		rp.Leader, rp.LeaderEpoch = st.leader, st.epoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = st.replicas, st.inSync, st.offline
	}
	return rt
}

// imageWait bounds how long a request waits for the image after a start, all in all. A
// controller group whose majority starts has a leader before that.
const imageWait = 5 * time.Second

// awaitImage waits, after a start, until the image has what this node already knew of the
// cluster when it ended. Else a client could be told that a topic is not there, which was
// created a second before the crash, and believe it. Where there is no controller nobody
// waits after imageWait: data that can be served does not wait for metadata.
func (s *Server) awaitImage(ctx context.Context) {
	replayed := s.Node.Replayed()
	select {
	case <-replayed:
		return
	default:
	}
	s.awaiting.Do(func() {
		s.imageLate = make(chan struct{})
		time.AfterFunc(cmp.Or(s.imageWait, imageWait), func() { close(s.imageLate) })
	})
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case <-replayed:
	case <-s.imageLate:
	case <-ctx.Done():
	}
}

// live tells which brokers are there, as far as is known here, once for a whole answer.
func (s *Server) live(image *metadata.Image) map[int32]bool {
	live := make(map[int32]bool, len(image.Brokers()))
	for _, b := range image.Brokers() {
		live[b.ID] = s.Node.Present(b.ID)
	}
	return live
}

// A partitionState is what clients are told about a partition.
type partitionState struct {
	code            protocol.Code
	leader, epoch   int32 // -1: not known
	replicas        []int32
	inSync, offline []int32
}

func (s *Server) partitionState(t *metadata.Topic, index int, live map[int32]bool) partitionState {
	id := metadata.PartitionID{Topic: t.ID, Index: int32(index)}
	st := partitionState{leader: -1, epoch: -1, replicas: t.Partitions[index].Replicas}
	leader, epoch, ok := s.Node.Leader(id)
	if ok {
		st.epoch = epoch
	}
	if ok && live[leader] {
		st.leader = leader
	} else {
		st.code = protocol.LeaderNotAvailable
	}
	down := false // here: the disk failed, the data is damaged, or something ran out
	if p, err := s.Node.Partition(id); err == nil {
		down = p.Down() != nil
	}
	for _, r := range st.replicas {
		if !live[r] || down && r == s.Node.ID() {
			st.offline = append(st.offline, r)
		}
	}
	st.inSync = s.Node.InSync(id)
	return st
}

// controller names a living broker for what clients believe must be asked of
// the controller. A broker that is cut off names another: it could do nothing of
// that itself, and a client that took it for the controller would go on asking it.
func (s *Server) controller() int32 {
	if id, ok := s.Node.Controller(); ok && s.Node.Present(id) {
		if _, registered := s.Node.Image().Broker(id); registered {
			return id
		}
	}
	if s.Node.Isolated() {
		for _, b := range s.Node.Image().Brokers() {
			if b.ID != s.Node.ID() {
				return b.ID
			}
		}
	}
	return s.Node.ID()
}

// An endpoint is where clients reach a broker.
type endpoint struct {
	id   int32
	host string
	port int32
	rack *string // nil: none
}

// endpoints is a set of brokers to be named in an answer.
type endpoints map[int32]struct{}

// addresses returns where the client reaches each of the brokers, by id.
func (c *connection) addresses(brokers endpoints) []endpoint {
	if len(brokers) == 0 {
		return nil
	}
	var list []endpoint
	image := c.server.Node.Image()
	for id := range brokers {
		if b, ok := image.Broker(id); ok {
			list = append(list, c.address(b))
		}
	}
	slices.SortFunc(list, func(a, b endpoint) int { return int(a.id) - int(b.id) })
	return list
}

// address returns where the client reaches a broker: at what that registered for the
// listener the client came in by. For this node, unless an address is advertised,
// that is where its connection came in: right behind port forwarding of the same
// port, and from every network this node is in.
func (c *connection) address(b *metadata.Broker) endpoint {
	e := endpoint{id: b.ID, host: b.Host, port: b.Port}
	if b.Rack != "" {
		e.rack = &b.Rack
	}
	advertised := c.server.Advertised
	if c.listener != nil {
		advertised = c.listener.Advertised
		e.host, e.port = b.At(c.listener.Name)
	}
	if b.ID != c.server.Node.ID() {
		return e
	}
	if advertised != "" {
		// Not what is registered: below feature level 3 that is one address for all.
		if host, port, err := net.SplitHostPort(advertised); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				e.host, e.port = host, int32(n)
			}
		}
		return e
	}
	if host, port, ok := splitAddr(c.conn.LocalAddr()); ok {
		e.host, e.port = host, port
	}
	return e
}

// splitAddr takes a TCP address apart; IPv4 in IPv6 becomes IPv4.
func splitAddr(a net.Addr) (host string, port int32, ok bool) {
	h, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n > math.MaxUint16 {
		return "", 0, false
	}
	if ip, err := netip.ParseAddr(h); err == nil {
		h = ip.Unmap().WithZone("").String()
	}
	return h, int32(n), true
}
