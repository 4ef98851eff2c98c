package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// A few bytes that name a thing again do not make the answer longer.
func TestWhatIsNamedTwiceIsAnsweredOnce(t *testing.T) {
	b := startBroker(t, map[string]string{"offsets.topic.num.partitions": "1"})
	b.create("t", 3, nil)
	b.coordinates("g")
	w := b.dial()
	for p := range int32(2) {
		if got := ask[*kmsg.OffsetCommitResponse](w, commitRequest(8, "g", "t", p, 7)).Topics[0].Partitions[0]; got.ErrorCode != 0 {
			t.Fatalf("commit: error %d", got.ErrorCode)
		}
	}
	const times = 100

	of := kmsg.NewPtrOffsetFetchRequest()
	of.SetVersion(8)
	for i := range times {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "g"
		if i == 0 {
			rt := kmsg.NewOffsetFetchRequestGroupTopic()
			rt.Topic, rt.Partitions = "t", []int32{1, 0, 1, 1, 2, 0}
			g.Topics = append(g.Topics, rt, rt)
		}
		of.Groups = append(of.Groups, g)
	}
	got := ask[*kmsg.OffsetFetchResponse](w, of)
	if len(got.Groups) != 1 {
		t.Fatalf("%d groups", len(got.Groups))
	}
	var parts []string
	for _, rt := range got.Groups[0].Topics {
		for _, p := range rt.Partitions {
			parts = append(parts, fmt.Sprintf("%s-%d:%d", rt.Topic, p.Partition, p.Offset))
		}
	}
	if want := "t-1:7 t-0:7 t-2:-1"; strings.Join(parts, " ") != want {
		t.Errorf("offsets %s, want %s", parts, want)
	}
	of = kmsg.NewPtrOffsetFetchRequest()
	of.SetVersion(5)
	of.Group = "g"
	rt := kmsg.NewOffsetFetchRequestTopic()
	rt.Topic, rt.Partitions = "t", []int32{1, 1, 1}
	of.Topics = append(of.Topics, rt)
	if got := ask[*kmsg.OffsetFetchResponse](w, of); len(got.Topics[0].Partitions) != 1 || got.Topics[0].Partitions[0].Offset != 7 {
		t.Errorf("version 5: %+v", got)
	}

	dg := kmsg.NewPtrDescribeGroupsRequest()
	dg.SetVersion(5)
	cg := kmsg.NewPtrConsumerGroupDescribeRequest()
	for i := range times {
		dg.Groups = append(dg.Groups, []string{"g", "", "h"}[i%3])
		cg.Groups = append(cg.Groups, []string{"g", "h"}[i%2])
	}
	var names []string
	for _, g := range ask[*kmsg.DescribeGroupsResponse](w, dg).Groups {
		names = append(names, g.Group)
	}
	if strings.Join(names, ",") != "g,,h" {
		t.Errorf("DescribeGroups answers %q", names)
	}
	if got := ask[*kmsg.ConsumerGroupDescribeResponse](w, cg).Groups; len(got) != 2 || got[0].Group != "g" || got[1].Group != "h" {
		t.Errorf("ConsumerGroupDescribe answers %+v", got)
	}
}

// What has no place in an answer is refused by itself; what does is counted
// before it is encoded.
func TestAnswersAreBounded(t *testing.T) {
	b := startBroker(t, nil)
	c := newConnection(b.server, nowhere{})
	defer c.close()
	cl := &call{ctx: c.ctx, conn: c}
	g := kmsg.NewDescribeGroupsResponseGroup()
	g.Members = []kmsg.DescribeGroupsResponseGroupMember{{ProtocolMetadata: make([]byte, 5<<20)}}
	n := 0
	for cl.fits(&g) {
		n++
	}
	if n != maxAnswer/(5<<20) {
		t.Errorf("%d groups of 5 MiB fit", n)
	}
	if got := b.server.shared.budget.holds(); got < (n*5-1)<<20 || got > maxAnswer {
		t.Errorf("%d bytes are counted for %d groups of 5 MiB", got, n)
	}
	small := kmsg.NewDescribeGroupsResponseGroup()
	if !cl.fits(&small) {
		t.Error("a small one finds no place behind a large one")
	}
	c.letGo()
	if got := b.server.shared.budget.holds(); got != 0 {
		t.Errorf("%d bytes are left over", got)
	}

	cl.answer = maxAnswer
	dg := kmsg.NewPtrDescribeGroupsRequest()
	dg.Groups = []string{"a"}
	if got := b.server.handlers.groups.describeGroups(cl, dg).Groups[0]; got.ErrorCode != int16(protocol.MessageTooLarge) || got.ErrorMessage == nil {
		t.Errorf("answer %+v", got)
	}
}

// Whoever waits for memory for an answer when Shutdown comes, or the client leaves, gets
// none: a group that is no larger than it may be is not called so.
func TestAnAnswerWithoutMemoryIsNone(t *testing.T) {
	b := startBroker(t, nil)
	var other share
	b.server.shared.budget.join(&other, io.NopCloser(nil))
	defer other.leave()
	other.add(maxOver * b.server.shared.budget.size)
	var beyond share // whose place is taken
	b.server.shared.budget.join(&beyond, io.NopCloser(nil))
	defer beyond.leave()
	if _, err := beyond.take(t.Context(), b.server.shared.budget.size, time.Minute); err != nil {
		t.Fatal(err)
	}
	w := &witness{}
	c := newConnection(b.server, w)
	defer c.close()
	c.cancel()
	cl := &call{ctx: c.ctx, conn: c}
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{"g"}
	cl.Header, cl.body = protocol.Header{Key: kmsg.DescribeGroups}, req.AppendTo(nil)
	large := kmsg.NewDescribeGroupsResponseGroup()
	large.Members = []kmsg.DescribeGroupsResponseGroupMember{{ProtocolMetadata: make([]byte, 5<<20)}}
	handle := answer(func(cl *call, _ *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
		if cl.fits(&large) {
			t.Error("there was memory")
		}
		small := kmsg.NewDescribeGroupsResponseGroup()
		if cl.fits(&small) {
			t.Error("an answer is gone on with that nobody will get")
		}
		return kmsg.NewPtrDescribeGroupsResponse()
	})
	if err := handle(cl); !errors.Is(err, errBye) || w.wrote > 0 {
		t.Errorf("%v, %d bytes were written", err, w.wrote)
	}
}

// A witness counts what is written.
type witness struct {
	nowhere
	wrote int
}

func (w *witness) Write(p []byte) (int, error) {
	w.wrote += len(p)
	return len(p), nil
}

// Version 1 of OffsetFetch has a place for an error with each partition only.
func TestOffsetsThatHaveNoPlaceAreRefusedInEachVersion(t *testing.T) {
	b := startBroker(t, map[string]string{"offsets.topic.num.partitions": "1"})
	b.create("t", 2, nil)
	b.coordinates("g")
	if got := ask[*kmsg.OffsetCommitResponse](b.dial(), commitRequest(8, "g", "t", 0, 7)).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Fatalf("commit: error %d", got.ErrorCode)
	}
	c := newConnection(b.server, nowhere{})
	defer c.close()
	for version := int16(1); version <= 8; version++ {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.SetVersion(version)
		req.Group = "g"
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{0, 1}}}
		req.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", Partitions: []int32{0, 1}}}}}
		cl := &call{ctx: c.ctx, conn: c, answer: maxAnswer}
		cl.Version = version
		resp := b.server.handlers.groups.offsetFetch(cl, req)
		var codes []int16
		switch {
		case version >= 8:
			codes = append(codes, resp.Groups[0].ErrorCode)
		case version >= 2:
			codes = append(codes, resp.ErrorCode)
		default:
			for _, p := range resp.Topics[0].Partitions {
				if codes = append(codes, p.ErrorCode); p.Offset != -1 {
					t.Errorf("offset %d beside an error", p.Offset)
				}
			}
		}
		for _, code := range codes {
			if code != int16(protocol.MessageTooLarge) {
				t.Errorf("version %d: error %d", version, code)
			}
		}
		if version == 1 && len(codes) != 2 {
			t.Errorf("version 1: %d partitions", len(codes))
		}
	}
}

// What sizeOf says is what the codec writes, within a few bytes a field.
func TestSizeOfIsAboutWhatIsEncoded(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.DescribeGroups, kmsg.OffsetFetch, kmsg.DescribeConfigs, kmsg.ConsumerGroupDescribe} {
		resp := key.Response()
		resp.SetVersion(0)
		switch r := resp.(type) {
		case *kmsg.DescribeGroupsResponse:
			g := kmsg.NewDescribeGroupsResponseGroup()
			g.Members = make([]kmsg.DescribeGroupsResponseGroupMember, 100)
			for i := range g.Members {
				g.Members[i].ClientID, g.Members[i].MemberAssignment = strings.Repeat("x", 100), make([]byte, 1000)
			}
			r.Groups = append(r.Groups, g)
		case *kmsg.DescribeConfigsResponse:
			g := kmsg.NewDescribeConfigsResponseResource()
			g.Configs = make([]kmsg.DescribeConfigsResponseResourceConfig, 100)
			for i := range g.Configs {
				g.Configs[i].Name, g.Configs[i].Value = "name", kmsg.StringPtr(strings.Repeat("v", 500))
			}
			r.Resources = append(r.Resources, g)
		default:
			continue
		}
		size, encoded := sizeOf(reflect.ValueOf(resp)), len(resp.AppendTo(nil))
		if size < encoded || size > encoded*5/4 {
			t.Errorf("%s: %d bytes, %d encoded", key.Name(), size, encoded)
		}
	}
}

// Clients that ask for a lot and read nothing make the broker hold no more than
// its budget, and nobody else waits for them.
func TestUnreadAnswersAreCounted(t *testing.T) {
	b := startBrokerWith(t, nil, func(s *Server) { s.MaxHeldBytes = 8 << 20 })
	y := b.bystander()
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.SetVersion(4)
	req.CoordinatorKeys = make([]string, 500_000)
	for i := range req.CoordinatorKeys { // what is named twice is answered once
		req.CoordinatorKeys[i] = strconv.Itoa(i)
	}
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
	const n = 4
	for range n {
		w := b.dial()
		w.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		w.write(frame)
		y.unaffected()
	}
	// How much of it the kernel takes is its own affair; what is left is counted.
	peak := func() int {
		b.server.shared.budget.mu.Lock()
		defer b.server.shared.budget.mu.Unlock()
		return b.server.shared.budget.peak
	}
	for i := range 1000 {
		y.unaffected()
		if i >= 20 && peak() >= 11<<20 {
			break
		}
	}
	b.server.shared.budget.mu.Lock()
	defer b.server.shared.budget.mu.Unlock()
	// One request beyond the rest: its elements, with the frame.
	if b.server.shared.budget.peak < 11<<20 {
		t.Errorf("%d bytes were held at most: nothing was counted", b.server.shared.budget.peak)
	}
	if limit := maxOver*8<<20 + 500_000*elementBytes + len(frame); b.server.shared.budget.peak > limit {
		t.Errorf("%d bytes were held", b.server.shared.budget.peak)
	}
}

// Once a long answer is encoded, its bytes are what is held until the client has read it:
// no longer what the request's elements took.
func TestAnUnreadAnswerHoldsItsBytes(t *testing.T) {
	b := startBroker(t, nil)
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.SetVersion(4)
	req.CoordinatorType = 7 // there is none, and no coordinator to be waited for
	req.CoordinatorKeys = make([]string, 300_000)
	for i := range req.CoordinatorKeys {
		req.CoordinatorKeys[i] = strings.Repeat("x", 60) + strconv.Itoa(i)
	}
	w := b.dial()
	w.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	w.write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 1))
	answer := len(req.CoordinatorKeys) * 60 // and more
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b.server.shared.budget.mu.Lock()
		held, peak := b.server.shared.budget.held, b.server.shared.budget.peak
		if beyond := b.server.shared.budget.beyond; beyond != nil {
			held += beyond.held
		}
		b.server.shared.budget.mu.Unlock()
		if peak >= len(req.CoordinatorKeys)*elementBytes && held >= answer && held < 2*answer {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are held, %d were at most; the answer has more than %d", held, peak, answer)
		}
	}
}
