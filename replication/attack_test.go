package replication

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/admission"
	"millrace/replication/controller"
	"millrace/replication/failover"
	"millrace/replication/folder"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/roster"
	"millrace/segment/record/recordtest"
)

// inTheNameOf says hello to a node as another, whose process is gone, would at its next start,
// with the certificate that it has left.
func (c *testCluster) inTheNameOf(gone *testNode, id folder.Identity, age uint64, to *testNode, kind byte) *stranger {
	c.t.Helper()
	gone.copied = true // to who heard this, the node itself is the copy when it is back
	says := roster.About{Low: 1, High: metadata.MaxLevel, Age: age + 1, Run: "0123456789abcdef"}.Encode()
	s := c.knock(to, strangerHello{
		kind: kind, node: gone.id, incarnation: id.Incarnation, cluster: id.Cluster, own: gone.credentials(),
		more: append(binary.BigEndian.AppendUint16([]byte{1}, uint16(len(says))), says...),
	})
	if s.ack.status != 0 {
		c.t.Fatalf("node %d refused node %d: status %d, %s", to.id, gone.id, s.ack.status, s.ack.reason)
	}
	return s
}

// threeWithARecord is a cluster of three with one record, whose node 3 has ended.
func threeWithARecord(t *testing.T) (c *testCluster, id idOf, gone *testNode, who folder.Identity, age uint64) {
	c = startCluster(t, 3, nil)
	id = c.create("orders", 1, 3, nil)
	c.append(id, "kept")
	gone = c.nodes[2]
	node := gone.Node
	gone.stop()
	return c, id, gone, node.identity, node.upkeep.aging.Age.Now()
}

// stillWorks fails the test unless the data is there, the groups elect and change.
func (c *testCluster) stillWorks(id idOf) {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		_, p := c.leader(id)
		_, err := appendWait(p, recordtest.Values("after"))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("nothing can be appended: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := c.values(id); len(got) == 0 || got[0] != "kept" {
		c.t.Fatalf("the partition holds %q", got)
	}
	c.create("more", 1, 1, nil)
}

// Who is no member of the cluster opens no connection that carries anything, is told
// nothing that members know each other by, and may call nothing but to join.
func TestStrangersAreKeptOut(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	id := c.create("orders", 1, 1, nil)
	n, p := c.leader(id)
	if _, err := appendWait(p, recordtest.Values("kept")); err != nil {
		t.Fatal(err)
	}
	for kind := byte(controlConn); kind <= bulkConn; kind++ {
		s := c.knock(n, strangerHello{kind: kind, node: 77, incarnation: "x", cluster: n.ClusterID(), address: "127.0.0.1:1"})
		if s.ack.status != 8 || s.ack.incarnation != "" || s.ack.session != 0 {
			t.Errorf("kind %d: %+v", kind, s.ack)
		}
	}
	if kept := n.book.Entries(); len(kept) != 1 {
		t.Errorf("a stranger's address was kept: %v", kept)
	}
	for _, g := range []strangerHello{{}, {node: n.id, incarnation: n.identity.Incarnation}, {node: 77, incarnation: "x", cluster: n.ClusterID()}} {
		g.kind = onceConn
		if s := c.knock(n, g); s.ack.status != 8 || s.ack.incarnation != "" || s.ack.session != 0 {
			t.Errorf("once, without a handshake: %+v", s.ack)
		}
		g.join = true
		for call, req := range map[byte][]byte{
			failover.CallGossip:   {1, 0, 0, 0, 0, 0, 0, 0, 0},
			controller.CallChange: []byte(fmt.Sprintf(`{"v":1,"change":"RegisterBroker","body":{"Broker":{"ID":%d,"Incarnation":%q,"Host":"elsewhere","Port":1,"Rack":""}}}`, n.id, n.identity.Incarnation)),
			callStatus:            u64s(0), callSegments: u64s(p.Group(), 0), callSegment: append(u64s(p.Group(), 1, 0), 0, 0, 1, 0),
			callSeek: nil, keyring.CallIndex: nil, keyring.CallRotate: nil, admission.CallMint: []byte(`{"uses":1,"expires":60000000000}`),
		} {
			s := c.knock(n, g) // each: such a connection is for one call
			if s.ack.status != 0 || s.ack.incarnation != "" || s.ack.session != 0 {
				t.Fatalf("once: %+v", s.ack)
			}
			typ, head, payload, err := s.ask(15, []byte{call, 0, 0, 0, 0, 0, 0, 0}, req)
			if typ != 17 || !strings.Contains(string(head), "members") {
				t.Errorf("call %d as %+v: %s", call, g, describe(typ, head, payload, err))
			}
		}
	}
	c.stillWorks(id)
}

// A snapshot that a leader sends for the controller group is the whole image. One that
// no leader of this group can have made is refused before Raft forgets its log for it.
func TestForgedImageDeletesNothing(t *testing.T) {
	t.Parallel()
	c, id, gone, who, age := threeWithARecord(t)
	defer c.stop()
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "77.x", Address: "77.x"}}})
	for _, n := range c.nodes[:2] {
		image := n.Image()
		for _, forged := range []string{
			`{"v":1,"image":{"index":1000000,"cluster":"` + who.Cluster + `","lastBroker":3,"lastGroup":1000000000,"nextProducer":0}}`,
			`{"v":2,"image":{"index":1000000,"cluster":"` + who.Cluster + `","lastBroker":3,"lastGroup":1000000000,"nextProducer":0,"level":2}}`,
			`{"v":2,"image":{"index":1000000,"cluster":"` + who.Cluster + `","lastBroker":3,"lastGroup":1,"nextProducer":0,"level":2,"deleted":[[1,1]]}}`,
			`{"v":1,"image":{"index":1000000,"cluster":"another","lastBroker":3,"lastGroup":1,"nextProducer":0}}`,
			strings.Replace(string(image.Encode()), fmt.Sprintf(`"index":%d`, image.Index), `"index":1`, 1),
			`not an image`,
		} {
			s := c.inTheNameOf(gone, who, age, n, bulkConn)
			head := u64s(0, n.controller.Raft.CurrentTerm(), 1000000, n.controller.Raft.CurrentTerm(), 1000000)
			head = append(binary.BigEndian.AppendUint32(head, uint32(len(conf))), 1)
			typ, head, payload, err := s.ask(13, append(head, make([]byte, 19)...), append(append([]byte{}, conf...), forged...))
			if typ != 17 {
				t.Errorf("node %d took %.60s…: %s", n.id, forged, describe(typ, head, payload, err))
			}
			s.conn.Close()
		}
	}
	c.stillWorks(id)
}

// That the image does not mention a partition deletes nothing, whatever image it is.
func TestPartitionThatNoImageMentionsIsKept(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	id := c.create("orders", 1, 1, nil)
	gone := c.create("gone", 1, 1, nil)
	n, p := c.leader(id)
	_, g := c.leader(gone)
	empty := `{"v":1,"image":{"index":1000000,"cluster":"` + n.ClusterID() + `","lastBroker":1,"lastGroup":1000000000,"nextProducer":0}}`
	image, err := metadata.DecodeImage([]byte(empty))
	if err != nil {
		t.Fatal(err)
	}
	(&reconciler{n: n.Node, limit: make(chan struct{}, 1)}).follow(image)
	if strange := newReconciler(n.Node).sweep(image, n.folders()); len(strange) != 2 {
		t.Errorf("%d folders are left alone, want 2", len(strange))
	}
	if _, err := n.Partition(id); err != nil {
		t.Errorf("a partition that no change deleted: %v", err)
	}
	if _, err := os.Stat(filepath.Join(p.Dir(), partition.FileName)); err != nil {
		t.Error(err)
	}
	// A deletion that the image records does.
	if err := n.Change(context.Background(), metadata.DeleteTopic{Topic: gone.Topic}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(g.Dir()); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a deleted topic's folder is still there")
		}
	}
	if !n.Image().Deleted(g.Group()) || n.Image().Deleted(p.Group()) {
		t.Errorf("the image says of group %d %v, of group %d %v", g.Group(), n.Image().Deleted(g.Group()), p.Group(), n.Image().Deleted(p.Group()))
	}
}

// A vote, an append or a snapshot of a term that no election can have reached is not
// taken: a group that had taken the last term there is could never elect again.
func TestVoteOfTheLastTermEndsNoGroup(t *testing.T) {
	t.Parallel()
	c, id, gone, who, age := threeWithARecord(t)
	defer c.stop()
	_, p := c.leader(id)
	for _, n := range c.nodes[:2] {
		eventually(t, "the group is open", func() bool { return n.memberOf(p.Group()) != nil }) // the record needed two of three
		s := c.inTheNameOf(gone, who, age, n, controlConn)
		for _, group := range []uint64{0, p.Group()} {
			for _, term := range []uint64{1<<31 - 1, 1 << 30, 1<<20 + 1<<12} {
				head := append(u64s(group, term, 1<<40, term-1), 1, 0, 0, 0, 0, 0, 0, 0)
				if typ, head, payload, err := s.ask(7, head, nil); typ != 17 || head[0] != 4 {
					t.Errorf("node %d, group %d, term %d: %s", n.id, group, term, describe(typ, head, payload, err))
				}
				if typ, head, payload, err := s.ask(3, append(u64s(1<<32, group, term), u64s(0, 0, 0)...), nil); typ != 4 || len(head) < 13 || head[12] != 4 {
					t.Errorf("heartbeat to node %d, group %d, term %d: %s", n.id, group, term, describe(typ, head, payload, err))
				}
			}
		}
		// The highest that is taken, once: the group goes on above it. Who only asks whether
		// it would get a vote there takes nothing from who then asks for it.
		m := n.memberOf(p.Group())
		for range 2 {
			head := u64s(p.Group(), m.Raft.CurrentTerm()+1<<20, 1<<40, 1)
			if typ, head, payload, err := s.ask(9, append(head, make([]byte, 8)...), nil); n.id == 1 && typ != 10 {
				t.Errorf("a pre-vote for a jump of 2^20: %s", describe(typ, head, payload, err))
			}
		}
		head := append(u64s(p.Group(), m.Raft.CurrentTerm()+1<<20, 1<<40, 1), 1, 0, 0, 0, 0, 0, 0, 0)
		if typ, head, payload, err := s.ask(7, head, nil); n.id == 1 && typ != 8 {
			t.Errorf("a jump of 2^20: %s", describe(typ, head, payload, err))
		}
		head = append(u64s(p.Group(), m.Raft.CurrentTerm()+1<<20, 1<<40, 1), 1, 0, 0, 0, 0, 0, 0, 0)
		if typ, head, payload, err := s.ask(7, head, nil); typ != 17 {
			t.Errorf("another at once: %s", describe(typ, head, payload, err))
		}
		s.conn.Close()
	}
	gone.start()
	c.stillWorks(id)
	for _, n := range c.nodes {
		if term := n.controller.Raft.CurrentTerm(); term > 1<<20 {
			t.Errorf("node %d: the controller group is at term %d", n.id, term)
		}
	}
}

// An append to the controller group may cut what lost an election, never what was
// committed.
func TestAppendCutsNothingCommittedFromTheControllersLog(t *testing.T) {
	t.Parallel()
	c, id, gone, who, age := threeWithARecord(t)
	defer c.stop()
	for _, n := range c.nodes[:2] {
		last := n.controller.Raft.LastIndex()
		s := c.inTheNameOf(gone, who, age, n, dataConn)
		term := n.controller.Raft.CurrentTerm() + 5
		head, payload := appendFrame(0, term, 0, 0, 0, &raft.Log{Term: term, Type: raft.LogNoop})
		if typ, head, payload, err := s.ask(5, head, payload); typ != 6 || head[16]&1 != 0 {
			t.Errorf("node %d: %s", n.id, describe(typ, head, payload, err))
		}
		if now := n.controller.Raft.LastIndex(); now < last {
			t.Errorf("node %d had entries up to %d, now up to %d", n.id, last, now)
		}
		s.conn.Close()
	}
	for _, n := range c.nodes {
		n.stop()
	}
	errs := make(chan error, 3)
	for _, n := range c.nodes {
		go func() { errs <- n.tryStart(60 * time.Second) }()
	}
	for range c.nodes {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	c.stillWorks(id)
}

// An olderRelease does not read how topic a was created.
type olderRelease struct{}

// DecodeChange implements controller.Decoder.
func (olderRelease) DecodeChange(p []byte) (metadata.Change, error) {
	change, err := metadata.DecodeChange(p)
	if create, ok := change.(metadata.CreateTopic); ok && create.Name == "a" {
		return nil, metadata.ErrVersion // its answer to what a newer one wrote
	}
	return change, err
}

// A node that meets a change it cannot read stops there. To skip it was to give the
// next topic this one's group: two groups' records in one log.
func TestUnreadableChangeStopsTheMember(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, nil)
	defer c.stop()
	old := c.nodes[2]
	old.stop()
	c.decode = olderRelease{}
	old.start()
	c.decode = nil
	create := func(name string) idOf {
		random, err := metadata.NewTopicID(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		topic := metadata.CreateTopic{ID: random, Name: name, Assignment: [][]int32{{1, 2}}}
		if err := c.nodes[0].Change(context.Background(), topic); err != nil {
			t.Fatal(err)
		}
		return idOf{Topic: topic.ID}
	}
	a, b := create("a"), create("b")
	for deadline := time.Now().Add(30 * time.Second); old.ControllerDown() == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node goes on")
		}
	}
	if err := old.ControllerDown(); !errors.Is(err, metadata.ErrVersion) || !strings.Contains(err.Error(), "upgrade this node") {
		t.Errorf("it stopped because of %v", err)
	}
	if _, ok := old.Image().TopicByID(b.Topic); ok {
		t.Error("it has applied what follows the change")
	}
	if _, err := old.controller.Snapshot(); err == nil {
		t.Error("it takes snapshots")
	}
	for _, n := range c.nodes[:2] {
		eventually(t, "the others go on", func() bool { _, ok := n.Image().TopicByID(b.Topic); return ok })
		first, _, _ := n.Image().Partition(a)
		second, part, _ := n.Image().Partition(b)
		if first == nil || second == nil || first.Partitions[0].Group != 1 || part.Group != 2 {
			t.Errorf("node %d: a %+v, b %+v", n.id, first, second)
		}
	}
	// A release that reads it goes on where this one stopped.
	old.stop()
	old.start()
	eventually(t, "it goes on", func() bool { _, ok := old.Image().TopicByID(b.Topic); return ok })
	if _, part, ok := old.Image().Partition(b); !ok || part.Group != 2 {
		t.Errorf("after an upgrade b is %+v", part)
	}
}
