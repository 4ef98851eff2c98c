package server

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/security/acl"
	"millrace/segment/record"
	"millrace/server/group"
	"millrace/server/journal"
	"millrace/server/protocol"
)

// offsetsTopic holds what group coordinators decide, in Kafka's own record
// formats. A group belongs to one of its partitions, by a hash of its name, and
// whoever leads that partition coordinates the group.
const offsetsTopic = "__consumer_offsets"

// createWait is how long a client that asks for a coordinator waits for the
// topic to be there; then it is told to ask again.
const createWait = 5 * time.Second

// A groups answers what is asked of consumer groups and their offsets, and runs their
// coordinator on this node.
type groups struct {
	*broker
	coordinator *group.Coordinator // nil before begin, like its journal
	journal     *journal.Topic
	hosting     sync.WaitGroup // runs journal
}

// begin begins to coordinate the groups whose partitions this node leads, until ctx ends.
func (h *groups) begin(ctx context.Context) {
	h.journal = journal.New(journal.Config{
		Node:   h.node,
		Name:   offsetsTopic,
		Spec:   offsetsSpec{h.broker},
		Logger: h.logger,
		Clock:  h.clock,
	})
	h.coordinator = group.New(group.Config{
		Journal:  h.journal,
		Topics:   knownTopics{h.node},
		Settings: groupSettings{h.broker},
		Logger:   h.logger,
		Clock:    h.clock,
	})
	h.hosting.Go(func() { h.journal.Run(ctx, h.coordinator) })
}

// end ends it, after the context that it was begun with.
func (h *groups) end() {
	h.hosting.Wait()
	if h.coordinator != nil {
		h.coordinator.Close()
	}
}

// offsetsSpec says how offsetsTopic is.
type offsetsSpec struct{ *broker }

// Request implements journal.Spec.
func (s offsetsSpec) Request() replication.TopicRequest {
	want, _ := s.ownTopic(offsetsTopic)
	return want
}

// Codec implements journal.Spec.
func (s offsetsSpec) Codec() record.Codec { return record.Codec(s.settings().broker.Offsets.Codec) }

// Types of coordinators (KIP-98, KIP-932).
const (
	groupCoordinator       = 0
	transactionCoordinator = 1
)

// FindCoordinator, versions 0–6.
//
//   - A group's coordinator is who leads its partition of __consumer_offsets,
//     which is created when it is first asked for.
//   - COORDINATOR_NOT_AVAILABLE while nobody leads it.
//   - A key that is named twice is answered once.
//   - Transactions are not there. Up to version 2, which librdkafka, sarama and
//     aiokafka speak, that is TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which they
//     take as final where they would ask again for UNSUPPORTED_VERSION until they
//     time out. From version 3 on it is UNSUPPORTED_VERSION, which says it better
//     and which Java, franz-go and kafka-python do not retry. Other types are
//     INVALID_REQUEST.
//
// v1 adds the type and the throttle time, v3 tagged fields, v4 several keys
// (KIP-699), v5 an error code that transactions use, v6 share groups (KIP-932).
func (h *groups) findCoordinator(c *call, req *kmsg.FindCoordinatorRequest) *kmsg.FindCoordinatorResponse {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	ctx, cancel := context.WithTimeout(c.ctx, createWait)
	defer cancel()
	keys := []string{req.CoordinatorKey}
	if c.Version >= 4 {
		keys = distinct(c, req.CoordinatorKeys)
	}
	found := make([]kmsg.FindCoordinatorResponseCoordinator, len(keys))
	for i, key := range keys {
		c.step()
		f := &found[i]
		f.Default()
		f.Key, f.NodeID, f.Port = key, -1, -1
		var code protocol.Code
		switch req.CoordinatorType {
		case groupCoordinator:
			if !c.may(acl.Group, key) {
				code = protocol.GroupAuthorizationFailed
				break
			}
			var e endpoint
			if e, code = h.coordinatorOf(ctx, &c.conn.origin, key); code == protocol.None {
				f.NodeID, f.Host, f.Port = e.id, e.host, e.port
			}
		case transactionCoordinator:
			if code = protocol.UnsupportedVersion; c.Version < 3 || !c.may(acl.TransactionalID, key) {
				code = protocol.TransactionalIDAuthorizationFailed
			}
		default:
			code = protocol.InvalidRequest
		}
		if f.ErrorCode = int16(code); code != protocol.None {
			f.ErrorMessage = kmsg.StringPtr(coordinatorMessages[code])
		}
	}
	if c.Version >= 4 {
		resp.Coordinators = found
		return resp
	}
	f := found[0]
	resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = f.ErrorCode, f.ErrorMessage, f.NodeID, f.Host, f.Port
	return resp
}

var coordinatorMessages = map[protocol.Code]string{
	protocol.CoordinatorNotAvailable:            "The coordinator is not available.",
	protocol.UnsupportedVersion:                 "Transactions are not supported.",
	protocol.TransactionalIDAuthorizationFailed: "Transactions are not supported.",
	protocol.GroupAuthorizationFailed:           string(errGroupDenied),
	protocol.InvalidRequest:                     "The coordinator type is not known.",
}

// coordinatorOf finds the node that coordinates a group. It waits a little for
// one: the topic may have to be made, or a leader be elected.
func (h *groups) coordinatorOf(ctx context.Context, o *origin, name string) (endpoint, protocol.Code) {
	if h.journal.Partitions() == 0 {
		if err := h.journal.Create(ctx); err != nil {
			h.warn("the topic of committed offsets was not created", "error", err)
			return endpoint{}, protocol.CoordinatorNotAvailable
		}
	}
	t := h.journal.Metadata()
	if len(t.Partitions) == 0 { // another node made it; its image has not come here yet
		return endpoint{}, protocol.CoordinatorNotAvailable
	}
	leader, _, ok := h.node.Leader(metadata.PartitionID{Topic: t.ID, Index: h.coordinator.Partition(name)})
	if !ok || !h.node.Present(leader) {
		return endpoint{}, protocol.CoordinatorNotAvailable
	}
	b, ok := h.node.Image().Broker(leader)
	if !ok {
		return endpoint{}, protocol.CoordinatorNotAvailable
	}
	return h.address(o, b), protocol.None
}

// groupSettings are the settings that groups look at.
type groupSettings struct{ *broker }

// Settings implements group.SettingsSource.
func (s groupSettings) Settings() group.Settings {
	set := s.settings().broker
	return group.Settings{
		MinSessionTimeout:      millis(set.Groups.MinSessionTimeoutMillis),
		MaxSessionTimeout:      millis(set.Groups.MaxSessionTimeoutMillis),
		InitialRebalanceDelay:  orNone(millis(set.Groups.InitialRebalanceDelayMillis)),
		MaxSize:                int(set.Groups.MaxSize),
		OffsetRetention:        millis(set.Offsets.RetentionMillis),
		RetentionCheckInterval: millis(set.Offsets.RetentionCheckMillis),
		MaxMetadataBytes:       int(set.Offsets.MaxMetadataBytes),
		Consumer: group.ConsumerSettings{
			SessionTimeout:       millis(set.ConsumerGroups.SessionTimeoutMillis),
			MinSessionTimeout:    millis(set.ConsumerGroups.MinSessionTimeoutMillis),
			MaxSessionTimeout:    millis(set.ConsumerGroups.MaxSessionTimeoutMillis),
			HeartbeatInterval:    millis(set.ConsumerGroups.HeartbeatIntervalMillis),
			MinHeartbeatInterval: millis(set.ConsumerGroups.MinHeartbeatIntervalMillis),
			MaxHeartbeatInterval: millis(set.ConsumerGroups.MaxHeartbeatIntervalMillis),
			MaxSize:              int(set.ConsumerGroups.MaxSize),
			Assignors:            set.ConsumerGroups.Assignors,
			RegexRefresh:         millis(set.ConsumerGroups.RegexRefreshMillis),
			MigrationPolicy:      set.ConsumerGroups.MigrationPolicy,
		},
	}
}

// OfGroup implements group.SettingsSource (KIP-848's config resource GROUP).
func (s groupSettings) OfGroup(id string) group.GroupSettings {
	session, heartbeat := settings.GroupTimes(s.node.Image().ResourceConfig(settings.Group, id))
	return group.GroupSettings{SessionTimeout: millis(session), HeartbeatInterval: millis(heartbeat)}
}

// millis turns milliseconds into a duration, at most some 292 years.
func millis[T int32 | int64](n T) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(int64(n), most)) * time.Millisecond
}

// orNone says 0 as group.Settings has it, where 0 is the default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// knownTopics is what groups know of topics: the image's.
type knownTopics struct{ node *replication.Node }

// Topic implements group.Topics.
func (t knownTopics) Topic(name string) (id [16]byte, partitions int32, ok bool) {
	topic, ok := t.node.Image().Topic(name)
	if !ok {
		return id, 0, false
	}
	return topic.ID, int32(len(topic.Partitions)), true
}

// TopicByID implements group.Topics.
func (t knownTopics) TopicByID(id [16]byte) (name string, partitions int32, ok bool) {
	topic, ok := t.node.Image().TopicByID(id)
	if !ok {
		return "", 0, false
	}
	return topic.Name, int32(len(topic.Partitions)), true
}

// Names implements group.Topics.
func (t knownTopics) Names() []string {
	all := t.node.Image().Topics()
	names := make([]string, len(all))
	for i, topic := range all {
		names[i] = topic.Name
	}
	return names
}

// Changed implements group.Topics.
func (t knownTopics) Changed() <-chan struct{} { return t.node.Changed() }
