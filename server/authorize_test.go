package server

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/segment/record"
	"millrace/server/protocol"
)

// allOf are the bits of all operations there are on a type of resources.
func allOf(on acl.ResourceType) (bits int32) {
	for _, op := range acl.Operations(on) {
		bits |= 1 << op
	}
	return bits
}

// A ruled authorizer has the rules that a test gives it.
type ruled struct{ rules atomic.Pointer[acl.Rules] }

// Rules implements authorizer.
func (r *ruled) Rules() *acl.Rules { return r.rules.Load() }

// set has these entries be all there are.
func (r *ruled) set(entries ...acl.Entry) {
	r.rules.Store(&acl.Rules{Entries: acl.NewSet(entries), SuperUsers: map[string]bool{"User:root": true}})
}

// guard has a broker decide by rules, which allow nothing at first. Nobody may have
// connected to it yet.
func (b *testBroker) guard() *ruled {
	r := &ruled{}
	r.set()
	b.server.broker.authorizer = r
	return r
}

// as opens a connection of a principal's, who shows it by a certificate.
func (b *testBroker) as(principal string) *wire {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { client.Close() })
	served, err := l.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	b.server.begin(certified{served.(*net.TCPConn)}, &Listener{Listener: l, Name: "PLAINTEXT", Certificates: certifiedAs(principal)})
	client.SetDeadline(time.Now().Add(30 * time.Second))
	return &wire{t: b.t, conn: client}
}

// A certified connection is one whose client has shown a certificate.
type certified struct{ *net.TCPConn }

// TLS implements overTLS.
func (certified) TLS() (tls.ConnectionState, bool) { return tls.ConnectionState{}, true }

// certifiedAs are Certificates by which all clients are one principal.
type certifiedAs string

// TLS implements Certificates.
func (certifiedAs) TLS() *tls.Config { return nil }

// Principal implements Certificates.
func (c certifiedAs) Principal(tls.ConnectionState) (string, error) { return string(c), nil }

// let allows a principal an operation on a resource.
func let(principal string, op acl.Operation, on acl.ResourceType, name string) acl.Entry {
	return acl.Entry{Type: on, Name: name, Pattern: acl.Literal, Principal: principal, Host: acl.AnyHost, Operation: op, Permission: acl.Allow}
}

// codesOf are the error codes of denials in an answer, wherever they stand in it, each once.
func codesOf(resp kmsg.Response) (codes []int16) {
	var walk func(reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Field(i); strings.HasSuffix(v.Type().Field(i).Name, "ErrorCode") {
					if c := int16(f.Int()); slices.Contains(denials, c) && !slices.Contains(codes, c) {
						codes = append(codes, c)
					}
				} else {
					walk(f)
				}
			}
		}
	}
	walk(reflect.ValueOf(resp))
	slices.Sort(codes)
	return codes
}

const (
	noTopic         = int16(protocol.TopicAuthorizationFailed)
	noGroup         = int16(protocol.GroupAuthorizationFailed)
	noCluster       = int16(protocol.ClusterAuthorizationFailed)
	noTransactional = int16(protocol.TransactionalIDAuthorizationFailed)
	noToken         = 65
)

var denials = []int16{noTopic, noGroup, noCluster, noTransactional, noToken}

func is(code int16) []int16 { return []int16{code} }

// Where all are asked for, what one may not know of is left out, and a cursor does not
// name it either.
func TestWhatOneMayNotKnowOfIsLeftOut(t *testing.T) {
	b := startBroker(t, map[string]string{"offsets.topic.num.partitions": "1"})
	rules := b.guard()
	rules.rules.Store(nil)
	ids := map[[16]byte]string{}
	for _, topic := range []string{"a", "b", "c"} {
		ids[b.create(topic, 2, nil)] = topic
	}
	b.coordinates("g")
	for _, name := range []string{"g", "h"} {
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.SetVersion(9)
		commit.Group, commit.Generation = name, -1
		for _, topic := range []string{"a", "b", "c"} {
			rt := kmsg.NewOffsetCommitRequestTopic()
			rt.Topic, rt.Partitions = topic, []kmsg.OffsetCommitRequestTopicPartition{kmsg.NewOffsetCommitRequestTopicPartition()}
			commit.Topics = append(commit.Topics, rt)
		}
		ask[*kmsg.OffsetCommitResponse](b.dial(), commit)
	}
	const alice = "User:alice"
	rules.set(let(alice, acl.Read, acl.Topic, "a"), let(alice, acl.Describe, acl.Topic, "c"), let(alice, acl.Describe, acl.Group, "h"))
	w := b.as(alice)

	everything := metadataRequest(12)
	everything.Topics, everything.IncludeTopicAuthorizedOperations = nil, true
	got := ask[*kmsg.MetadataResponse](w, everything)
	if !slices.Equal(topicNames(got), []string{"a", "c"}) || got.Topics[0].AuthorizedOperations != 1<<acl.Read|1<<acl.Describe {
		t.Errorf("all topics: %+v", got.Topics)
	}
	first := metadataRequest(0)
	if got := topicNames(ask[*kmsg.MetadataResponse](w, first)); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("all topics of version 0: %v", got)
	}
	for id, topic := range ids {
		byID := metadataRequest(12)
		byID.Topics = []kmsg.MetadataRequestTopic{{TopicID: id}}
		got := ask[*kmsg.MetadataResponse](w, byID).Topics[0]
		if known := topic != "b"; known != (got.ErrorCode == 0) || known != (got.Topic != nil) || !known && got.ErrorCode != noTopic {
			t.Errorf("%s by its id: %+v", topic, got)
		}
	}

	list := kmsg.NewPtrListGroupsRequest()
	list.SetVersion(4)
	if got := ask[*kmsg.ListGroupsResponse](w, list).Groups; len(got) != 1 || got[0].Group != "h" {
		t.Errorf("groups: %+v", got)
	}

	for version := int16(2); version <= 9; version++ {
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.SetVersion(version)
		fetch.Group, fetch.Groups = "h", []kmsg.OffsetFetchRequestGroup{{Group: "g", MemberEpoch: -1}, {Group: "h", MemberEpoch: -1}}
		resp := ask[*kmsg.OffsetFetchResponse](w, fetch)
		var topics []string
		for _, t := range resp.Topics {
			topics = append(topics, t.Topic)
		}
		if version >= 8 {
			if resp.Groups[0].ErrorCode != noGroup || len(resp.Groups[0].Topics) > 0 {
				t.Errorf("version %d: offsets of a group that one may not know of: %+v", version, resp.Groups[0])
			}
			for _, t := range resp.Groups[1].Topics {
				topics = append(topics, t.Topic)
			}
		}
		slices.Sort(topics)
		if !slices.Equal(topics, []string{"a", "c"}) {
			t.Errorf("version %d: offsets of %v", version, topics)
		}
	}

	parts := kmsg.NewPtrDescribeTopicPartitionsRequest()
	var seen []string
	parts.ResponsePartitionLimit = 2
	for {
		resp := ask[*kmsg.DescribeTopicPartitionsResponse](w, parts)
		for _, t := range resp.Topics {
			seen = append(seen, *t.Topic)
		}
		if resp.NextCursor == nil {
			break
		}
		seen = append(seen, "then "+resp.NextCursor.Topic)
		parts.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: resp.NextCursor.Topic, Partition: resp.NextCursor.Partition}
	}
	if slices.ContainsFunc(seen, func(s string) bool { return strings.Contains(s, "b") }) || len(seen) != 3 {
		t.Errorf("partitions of %q", seen)
	}
}

// Whoever names several things is answered for each by itself: what comes first does not
// speak for the others.
func TestEveryThingNamedIsChecked(t *testing.T) {
	b := startBroker(t, map[string]string{"offsets.topic.num.partitions": "1"})
	rules := b.guard()
	rules.rules.Store(nil)
	mine := b.create("mine", 1, nil)
	theirs := b.create("theirs", 1, nil)
	b.coordinates("g")
	const alice = "User:alice"
	rules.set(let(alice, acl.Write, acl.Topic, "mine"), let(alice, acl.Read, acl.Topic, "mine"), let(alice, acl.Read, acl.Group, "g"))
	w := b.as(alice)
	size := func(id [16]byte) int64 {
		p, err := b.node.Partition(partitionOf(b, map[[16]byte]string{mine: "mine", theirs: "theirs"}[id]))
		if err != nil {
			t.Fatal(err)
		}
		return p.HighWatermark()
	}
	producer := &record.Producer{ID: 4711, Epoch: 0}
	both := func(version int16, second record.Batch) []int16 {
		req := produceRequest(version, "mine", mine, batchOf(t, record.None, nil, "x"))
		req.Topics = append(req.Topics, produceRequest(version, "theirs", theirs, second).Topics...)
		resp := ask[*kmsg.ProduceResponse](w, req)
		return []int16{resp.Topics[0].Partitions[0].ErrorCode, resp.Topics[1].Partitions[0].ErrorCode}
	}
	for _, version := range []int16{9, 13} {
		before := size(mine)
		for _, batch := range []record.Batch{batchOf(t, record.None, nil, "y"), batchOf(t, record.None, producer, "y")} {
			if got := both(version, batch); !slices.Equal(got, []int16{0, noTopic}) {
				t.Errorf("Produce %d of what one may and what one may not: %v", version, got)
			}
		}
		// A batch of a transaction without a transactional id refuses all of the request.
		batch := batchOf(t, record.None, producer, "y")
		batch[22] |= 1 << 4
		binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], crc32.MakeTable(crc32.Castagnoli)))
		if got := both(version, batch); !slices.Equal(got, []int16{noTransactional, noTransactional}) {
			t.Errorf("Produce %d with a batch of a transaction behind another: %v", version, got)
		}
		if size(mine) != before+2 || size(theirs) != 0 {
			t.Errorf("Produce %d stored %d and %d", version, size(mine)-before, size(theirs))
		}
	}
	transactional := produceRequest(9, "mine", mine, batchOf(t, record.None, nil, "x"))
	transactional.TransactionID = kmsg.StringPtr("x")
	if got := codesOf(ask[*kmsg.ProduceResponse](w, transactional)); !slices.Equal(got, is(noTransactional)) {
		t.Errorf("Produce with somebody else's transactional id: %v", got)
	}
	initialise := kmsg.NewPtrInitProducerIDRequest()
	initialise.TransactionalID = kmsg.StringPtr("x")
	if got := codesOf(ask[*kmsg.InitProducerIDResponse](w, initialise)); !slices.Equal(got, is(noTransactional)) {
		t.Errorf("InitProducerId with somebody else's transactional id: %v", got)
	}
	initialise.TransactionalID = nil
	if got := ask[*kmsg.InitProducerIDResponse](w, initialise); got.ErrorCode != 0 {
		t.Errorf("InitProducerId of who may write to some topic: %+v", got)
	}

	for _, version := range []int16{12, 13} {
		req := fetchRequest(version, "mine", mine, 0, 0)
		req.Topics = append(req.Topics, fetchRequest(version, "theirs", theirs, 0, 0).Topics...)
		req.SessionEpoch = finalEpoch
		resp := ask[*kmsg.FetchResponse](w, req)
		if a, c := resp.Topics[0].Partitions[0], resp.Topics[1].Partitions[0]; a.ErrorCode != 0 || len(a.RecordBatches) == 0 || c.ErrorCode != noTopic || len(c.RecordBatches) != 0 {
			t.Errorf("Fetch %d: errors %d and %d", version, a.ErrorCode, c.ErrorCode)
		}
	}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.SetVersion(9)
	commit.Group, commit.Generation = "g", -1
	for _, topic := range []string{"theirs", "mine", "theirs"} {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.Partitions = topic, []kmsg.OffsetCommitRequestTopicPartition{kmsg.NewOffsetCommitRequestTopicPartition()}
		commit.Topics = append(commit.Topics, rt)
	}
	resp := ask[*kmsg.OffsetCommitResponse](w, commit)
	var codes []int16
	for i, st := range resp.Topics {
		if st.Topic != commit.Topics[i].Topic {
			t.Errorf("OffsetCommit: %+v", resp.Topics)
		}
		codes = append(codes, st.Partitions[0].ErrorCode)
	}
	if !slices.Equal(codes, []int16{noTopic, 0, noTopic}) {
		t.Errorf("OffsetCommit: %v", codes)
	}
}

// A right that is lost counts from the next request on, in a fetch session and for what
// was allowed a moment ago as well; and so does one that is given.
func TestRightsAreLookedAtAgainWhenTheyChange(t *testing.T) {
	b := startBroker(t, nil)
	rules := b.guard()
	rules.rules.Store(nil)
	id := b.create("t", 1, nil)
	b.produce("t", 0, "x")
	const alice = "User:alice"
	may := []acl.Entry{let(alice, acl.Read, acl.Topic, "t"), let(alice, acl.Write, acl.Topic, "t")}
	rules.set(may...)
	w := b.as(alice)
	req := fetchRequest(13, "", id, 0, 0)
	resp := ask[*kmsg.FetchResponse](w, req)
	if resp.SessionID == 0 || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", resp)
	}
	req.SessionID, req.Topics = resp.SessionID, nil
	for i, step := range []struct {
		entries []acl.Entry
		want    int16
	}{{may, 0}, {may[1:], noTopic}, {may[1:], noTopic}, {may, 0}, {nil, noTopic}, {may, 0}} {
		rules.set(step.entries...)
		req.SessionEpoch = int32(i + 1)
		p := ask[*kmsg.FetchResponse](w, req).Topics[0].Partitions[0]
		if p.ErrorCode != step.want || (len(p.RecordBatches) > 0) != (step.want == 0) {
			t.Errorf("step %d: Fetch answers %d with %d bytes, want %d", i, p.ErrorCode, len(p.RecordBatches), step.want)
		}
		want := int16(0)
		if step.entries == nil {
			want = noTopic
		}
		if got := ask[*kmsg.ProduceResponse](w, produceRequest(13, "", id, batchOf(t, record.None, nil, "y"))).Topics[0].Partitions[0]; got.ErrorCode != want {
			t.Errorf("step %d: Produce answers %d, want %d", i, got.ErrorCode, want)
		}
	}
}

// What an answer says of what one may do is what one may do (KIP-430).
func TestAuthorizedOperations(t *testing.T) {
	b := startBroker(t, map[string]string{"offsets.topic.num.partitions": "1"})
	rules := b.guard()
	rules.rules.Store(nil)
	b.create("t", 1, nil)
	b.coordinates("g")
	const alice = "User:alice"
	about := func(w *wire) (topic, described, cluster, older, group, consumers int32) {
		m := metadataRequest(10, "t")
		m.IncludeTopicAuthorizedOperations, m.IncludeClusterAuthorizedOperations = true, true
		got := ask[*kmsg.MetadataResponse](w, m)
		parts := kmsg.NewPtrDescribeTopicPartitionsRequest()
		parts.ResponsePartitionLimit, parts.Topics = 10, []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "t"}}
		c := kmsg.NewPtrDescribeClusterRequest()
		c.IncludeClusterAuthorizedOperations = true
		g := kmsg.NewPtrDescribeGroupsRequest()
		g.SetVersion(5)
		g.Groups, g.IncludeAuthorizedOperations = []string{"g"}, true
		beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		beat.Group, beat.RebalanceTimeoutMillis, beat.SubscribedTopicNames, beat.Topics = "k", 60_000, []string{"t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		ask[*kmsg.ConsumerGroupHeartbeatResponse](w, beat)
		k := kmsg.NewPtrConsumerGroupDescribeRequest()
		k.Groups, k.IncludeAuthorizedOperations = []string{"k"}, true
		return got.Topics[0].AuthorizedOperations, ask[*kmsg.DescribeTopicPartitionsResponse](w, parts).Topics[0].AuthorizedOperations,
			ask[*kmsg.DescribeClusterResponse](w, c).ClusterAuthorizedOperations, got.AuthorizedOperations,
			ask[*kmsg.DescribeGroupsResponse](w, g).Groups[0].AuthorizedOperations, ask[*kmsg.ConsumerGroupDescribeResponse](w, k).Groups[0].AuthorizedOperations
	}
	for _, c := range []struct {
		who                   string
		entries               []acl.Entry
		topic, cluster, group int32
	}{
		{"User:root", nil, allOf(acl.Topic), allOf(acl.Cluster), allOf(acl.Group)},
		{alice, nil, -1 << 31, 0, -1 << 31},
		{alice, []acl.Entry{let(alice, acl.Write, acl.Topic, "t"), let(alice, acl.All, acl.Group, "*"), let(alice, acl.Alter, acl.Cluster, acl.ClusterName)},
			1<<acl.Write | 1<<acl.Describe, 1<<acl.Alter | 1<<acl.Describe, allOf(acl.Group)},
	} {
		rules.set(c.entries...)
		topic, described, cluster, older, group, consumers := about(b.as(c.who))
		if topic != c.topic || described != c.topic || cluster != c.cluster || older != c.cluster || group != c.group || consumers != c.group {
			t.Errorf("%s with %v: topic %x, %x, cluster %x, %x, group %x, %x", c.who, c.entries, topic, described, cluster, older, group, consumers)
		}
	}
	rules.rules.Store(nil)
	topic, described, cluster, older, group, consumers := about(b.dial())
	if topic != allOf(acl.Topic) || described != topic || cluster != allOf(acl.Cluster) || older != cluster || group != allOf(acl.Group) || consumers != group {
		t.Errorf("without rules: topic %x, %x, cluster %x, %x, group %x, %x", topic, described, cluster, older, group, consumers)
	}
	plain := ask[*kmsg.MetadataResponse](b.dial(), metadataRequest(10, "t"))
	if plain.AuthorizedOperations != -1<<31 || plain.Topics[0].AuthorizedOperations != -1<<31 {
		t.Errorf("not asked for: %x, %x", plain.AuthorizedOperations, plain.Topics[0].AuthorizedOperations)
	}
}

// An expression of a subscription matches what its member may know of (KIP-848), and a
// group whose members are assigned more is not described to who may not know of that.
func TestConsumerGroupsShowWhatTheirMembersMaySee(t *testing.T) {
	b := startBroker(t, map[string]string{"offsets.topic.num.partitions": "1"})
	rules := b.guard()
	rules.rules.Store(nil)
	visible := b.create("visible", 1, nil)
	b.create("hidden", 1, nil)
	b.coordinates("g")
	const alice, bob = "User:alice", "User:bob"
	rules.set(let(alice, acl.Read, acl.Group, "g"), let(alice, acl.Describe, acl.Topic, "visible"), let(bob, acl.Describe, acl.Group, "g"))
	w := b.as(alice)
	beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	beat.SetVersion(1)
	beat.Group, beat.MemberID, beat.RebalanceTimeoutMillis, beat.Topics = "g", "m", 60_000, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	beat.SubscribedTopicNames = []string{"visible", "hidden"}
	if got := ask[*kmsg.ConsumerGroupHeartbeatResponse](w, beat); got.ErrorCode != noTopic {
		t.Errorf("a subscription to what one may and what one may not know of: %+v", got)
	}
	beat.SubscribedTopicNames, beat.SubscribedTopicRegex = nil, kmsg.StringPtr(".*")
	got := ask[*kmsg.ConsumerGroupHeartbeatResponse](w, beat)
	if got.ErrorCode != 0 || got.Assignment == nil || len(got.Assignment.Topics) != 1 || got.Assignment.Topics[0].TopicID != visible {
		t.Errorf("a subscription by an expression: error %d %s, %+v", got.ErrorCode, str(got.ErrorMessage), got.Assignment)
	}
	describe := kmsg.NewPtrConsumerGroupDescribeRequest()
	describe.SetVersion(1)
	describe.Groups = []string{"g"}
	if got := ask[*kmsg.ConsumerGroupDescribeResponse](w, describe).Groups[0]; got.ErrorCode != 0 || len(got.Members) != 1 {
		t.Errorf("described to its member: %+v", got)
	}
	if got := ask[*kmsg.ConsumerGroupDescribeResponse](b.as(bob), describe).Groups[0]; got.ErrorCode != noTopic || len(got.Members) != 0 {
		t.Errorf("described to who may not know of its topics: %+v", got)
	}
}

// Topics are created because they are asked for by who may create them, and by who may
// know of them; others are told the same as of topics that are there.
func TestCreatingByAskingTakesTheRightToCreate(t *testing.T) {
	b := startBroker(t, nil)
	rules := b.guard()
	const alice = "User:alice"
	asked := func(topic string) int16 {
		req := metadataRequest(9, topic)
		req.AllowAutoTopicCreation = true
		return ask[*kmsg.MetadataResponse](b.as(alice), req).Topics[0].ErrorCode
	}
	for i, c := range []struct {
		entries []acl.Entry
		want    int16
		created bool
	}{
		{nil, noTopic, false},
		{[]acl.Entry{let(alice, acl.Create, acl.Topic, "*")}, noTopic, false},
		{[]acl.Entry{let(alice, acl.Describe, acl.Topic, "*")}, noTopic, false},
		{[]acl.Entry{let(alice, acl.Describe, acl.Topic, "*"), let(alice, acl.Create, acl.Topic, "t3")}, int16(protocol.UnknownTopicOrPartition), true},
		{[]acl.Entry{let(alice, acl.Describe, acl.Topic, "*"), let(alice, acl.Create, acl.Cluster, acl.ClusterName)}, int16(protocol.UnknownTopicOrPartition), true},
	} {
		rules.set(c.entries...)
		topic := "t" + string(rune('0'+i))
		if got := asked(topic); got != c.want {
			t.Errorf("%v: error %d, want %d", c.entries, got, c.want)
		}
		if _, created := b.node.Image().Topic(topic); created != c.created {
			t.Errorf("%v: created: %v", c.entries, created)
		}
	}
}

// A refusal does not name a topic that the client did not.
func TestARefusalNamesNoOtherTopic(t *testing.T) {
	b := startBroker(t, nil)
	rules := b.guard()
	rules.rules.Store(nil)
	b.create("secret.name", 1, nil)
	const alice = "User:alice"
	rules.set(let(alice, acl.Create, acl.Topic, "*"))
	req := kmsg.NewPtrCreateTopicsRequest()
	req.SetVersion(7)
	req.Topics, req.TimeoutMillis = []kmsg.CreateTopicsRequestTopic{newTopic("secret_name", 1, 1)}, 20_000
	got := ask[*kmsg.CreateTopicsResponse](b.as(alice), req).Topics[0]
	if got.ErrorCode != int16(protocol.InvalidTopic) || strings.Contains(str(got.ErrorMessage), "secret.name") {
		t.Errorf("error %d, %s", got.ErrorCode, str(got.ErrorMessage))
	}
}

// A heard auditor keeps what it is told.
type heard struct {
	mu     sync.Mutex
	events []AuditEvent
}

// Audit implements Auditor.
func (h *heard) Audit(e AuditEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// take returns what was told since.
func (h *heard) take() []AuditEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := h.events
	h.events = nil
	return events
}

// What a client is denied and sees that it is, the auditor is told once; what is left out,
// not at all.
func TestDenialsAreAudited(t *testing.T) {
	auditor := &heard{}
	b := startBrokerWith(t, nil, func(s *Server) { s.Auditor = auditor })
	rules := b.guard()
	rules.rules.Store(nil)
	id := b.create("t", 1, nil)
	rules.set()
	w := b.as("User:alice")
	auditor.take()
	for _, c := range []struct {
		req  kmsg.Request
		want []string
	}{
		{produceRequest(13, "", id, batchOf(t, record.None, nil, "x")), []string{"Produce: WRITE on TOPIC t"}},
		{fetchRequest(12, "t", id, 0, 0), []string{"Fetch: READ on TOPIC t"}},
		{metadataRequest(12, "t", "u"), []string{"Metadata: DESCRIBE on TOPIC t", "Metadata: DESCRIBE on TOPIC u"}},
		{kmsg.NewPtrListGroupsRequest(), nil},
		{kmsg.NewPtrDescribeQuorumRequest(), []string{"DescribeQuorum: DESCRIBE on CLUSTER kafka-cluster"}},
	} {
		ask[kmsg.Response](w, c.req)
		var got []string
		for _, e := range auditor.take() {
			if e.Kind != "denied" || e.Principal != "User:alice" || e.Host != "127.0.0.1" || e.Client != "test" {
				t.Errorf("%+v", e)
			}
			got = append(got, e.Request+": "+e.Subject)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("the auditor is told %q, want %q", got, c.want)
		}
	}
}

// Rules cost a producer and a consumer nothing for a batch once what they do was allowed:
// neither a decision nor memory.
func TestWhatWasAllowedIsRemembered(t *testing.T) {
	b := startBroker(t, nil)
	rules := b.guard()
	rules.rules.Store(nil)
	id := b.create("t", 1, nil)
	topic, _ := b.node.Image().TopicByID(metadata.TopicID(id))
	const alice = "User:alice"
	rules.set(let(alice, acl.Write, acl.Topic, "t"))
	conn := newConnection(b.server, nowhere{})
	defer conn.close()
	conn.principal = alice
	c := &call{Header: protocol.Header{Key: kmsg.Produce, Version: 13}, conn: conn}
	by := rules.Rules()
	if got := testing.AllocsPerRun(100, func() {
		if _, code := c.usable(by, acl.Write, b.node.Image(), "", metadata.TopicID(id), true); code != protocol.None {
			t.Fatal(code)
		}
	}); got > 0 {
		t.Errorf("%v allocations for what was allowed before", got)
	}
	if _, ok := conn.permitted.topics[permission{acl.Write, topic.ID}]; !ok {
		t.Error("it is not remembered")
	}
	if c.mayUse(by, acl.Read, topic) {
		t.Error("one operation speaks for another")
	}
	if conn.principal = "User:bob"; c.mayUse(by, acl.Write, topic) {
		t.Error("one principal speaks for another")
	}
	conn.principal = alice
	c.mayUse(by, acl.Write, topic)
	rules.set()
	if c.mayUse(rules.Rules(), acl.Write, topic) {
		t.Error("rules speak for those that came after them")
	}
	// However many topics a client uses, no more than so many are remembered.
	rules.set(let(alice, acl.Write, acl.Topic, acl.AnyName))
	by = rules.Rules()
	for i := range 3 * maxPermitted {
		if !c.mayUse(by, acl.Write, &metadata.Topic{Name: "u", ID: metadata.TopicID{1, byte(i >> 8), byte(i)}}) {
			t.Fatal(i)
		}
	}
	if n := len(conn.permitted.topics); n > maxPermitted {
		t.Errorf("%d topics are remembered", n)
	}
}

// BenchmarkUsable is what the rules cost a topic of each Fetch and Produce.
func BenchmarkUsable(b *testing.B) {
	br := startBroker(b, nil)
	rules := br.guard()
	rules.rules.Store(nil)
	id := br.create("t", 1, nil)
	var many []acl.Entry
	for i := range 100_000 {
		many = append(many, let("User:alice", acl.Write, acl.Topic, fmt.Sprint("topic-", i)))
	}
	many = append(many, let("User:alice", acl.Write, acl.Topic, "t"))
	conn := newConnection(br.server, nowhere{})
	defer conn.close()
	conn.principal = "User:alice"
	c := &call{Header: protocol.Header{Key: kmsg.Produce, Version: 13}, conn: conn}
	for _, rule := range []struct {
		name string
		set  func()
	}{{"open", func() { rules.rules.Store(nil) }}, {"100,000 entries", func() { rules.set(many...) }}} {
		b.Run(rule.name, func(b *testing.B) {
			rule.set()
			b.ReportAllocs()
			for b.Loop() {
				if _, code := c.usable(rules.Rules(), acl.Write, br.node.Image(), "", metadata.TopicID(id), true); code != protocol.None {
					b.Fatal(code)
				}
			}
		})
	}
}
