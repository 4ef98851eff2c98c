package replication

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"millrace/replication/controller"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/segment/record/recordtest"
)

// withoutDescriptors runs f while the process can open nothing at all. No other test may
// run meanwhile.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	if _, err := os.Open(os.DevNull); !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("a file can be opened: %v", err)
	}
	f()
}

// TestElectionsAndChangesNeedNoDescriptors is S25 of votes and metadata, with the system's
// own limit: while no node can open anything, leaders of partitions and of the controller
// group are elected, which takes votes and terms on disk, and changes of the metadata are
// committed. What does need a descriptor (the log of a new partition, a snapshot, the last
// image) is refused, and is there within seconds of the end, without a restart.
func TestElectionsAndChangesNeedNoDescriptors(t *testing.T) {
	aloneInVirtualTime(t, 3, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		time.Sleep(5 * time.Second) // the image is saved
		change := func(n *testNode, retention int, limit time.Duration) error {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			return n.Change(ctx, metadata.SetTopicConfig{Topic: id.Topic, Set: map[string]string{"retention.ms": fmt.Sprint(retention)}})
		}
		var late metadata.PartitionID
		want := []string{"before"}
		withoutDescriptors(t, func() {
			for round := range 3 {
				old, p := c.leader(id)
				r := p.Replica()
				term := r.Raft.CurrentTerm()
				if err := r.Port.StepDown(term + 1); err != nil {
					t.Fatal(err)
				}
				for deadline := time.Now().Add(healTime); ; time.Sleep(10 * time.Millisecond) {
					lead, q := c.leader(id)
					if epoch, err := q.Serving(); err == nil && uint64(epoch) > term {
						v := fmt.Sprint("without ", round)
						if _, err := appendWait(q, recordtest.Values(v)); err != nil {
							t.Fatalf("node %d, elected after node %d: %v", lead.id, old.id, err)
						}
						want = append(want, v)
						break
					}
					if time.Now().After(deadline) {
						t.Fatal("nobody was elected")
					}
				}
				lead := c.controllerWithin(healTime)
				m := lead.memberOf(controller.Group)
				if err := m.Port.StepDown(m.Raft.CurrentTerm() + 1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				next := c.controllerWithin(healTime)
				if err := change(c.nodes[round], 1000000+round, healTime); err != nil {
					t.Fatalf("node %d is the controller, and a change says %v", next.id, err)
				}
				if err := next.controller.Raft.Snapshot().Error(); err == nil {
					t.Fatal("a snapshot was written: the test is of nothing")
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), healTime)
			defer cancel()
			if _, err := c.live().CreateTopic(ctx, TopicRequest{Name: "late", Partitions: 1, Replicas: 3}); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			topic, ok := c.live().Image().Topic("late")
			if !ok {
				t.Fatal("a topic was not created")
			}
			late = metadata.PartitionID{Topic: topic.ID}
			time.Sleep(time.Minute) // patience has grown to its most
			for _, n := range c.nodes {
				if err := mustPartition(t, n, late).Down(); !errors.Is(err, partition.ErrRefused) {
					t.Fatalf("node %d: the new partition is down: %v", n.id, err)
				}
				if list := c.live().InSync(late); len(list) != 0 {
					t.Errorf("in sync, though down: %v", list)
				}
			}
		})
		ended := time.Now()
		_, q := c.leader(late)
		if _, err := appendWait(q, recordtest.Values("late")); err != nil {
			t.Fatal(err)
		}
		c.append(id, "after")
		want = append(want, "after")
		if took := time.Since(ended); took > healTime {
			t.Errorf("all acknowledge after %v", took)
		}
		time.Sleep(healTime - time.Since(ended))
		for _, n := range c.nodes {
			if err := mustPartition(t, n, late).Down(); err != nil {
				t.Errorf("node %d: %v", n.id, err)
			}
			if got := n.savedImage(t); got.Index != n.Image().Index {
				t.Errorf("node %d: the last image that was saved is of change %d, it has %d", n.id, got.Index, n.Image().Index)
			}
			if err := n.controller.Raft.Snapshot().Error(); err != nil {
				t.Errorf("node %d: a snapshot of the image: %v", n.id, err)
			}
		}
		c.check("after", id, want)
		c.sameEverywhere(id)
		c.sameEverywhere(late)
	})
}
