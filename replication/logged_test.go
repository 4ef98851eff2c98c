package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
	"millrace/replication/vote"
	"millrace/segment/record/recordtest"
)

// since returns what was logged from the line with that number on, and the warnings among it.
func (l *testLog) since(line, warning int) (lines, warnings []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines[line:]), slices.Clone(l.warnings[warning:])
}

// shut ends the node in order: its connections stay until it closes them.
func (n *testNode) shut() {
	n.c.t.Helper()
	if err := n.Shutdown(context.Background()); err != nil {
		n.c.t.Error(err)
	}
	n.listener.Close()
	n.Node = nil
}

// Whoever works with topics and stops nodes in order is not warned of anything, but that
// a node is away.
func TestAnOrdinaryDayWarnsOfNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		time.Sleep(time.Minute)
		from := make(map[int32]int)
		for _, n := range c.nodes {
			_, warnings := n.log.since(0, 0)
			from[n.id] = len(warnings)
		}
		for i := range 4 {
			c.create(fmt.Sprint("topic-", i), 5, 3, nil)
		}
		time.Sleep(time.Minute)
		for i := range 2 {
			topic, _ := c.nodes[0].Image().Topic(fmt.Sprint("topic-", i))
			if err := c.nodes[0].Change(context.Background(), metadata.DeleteTopic{Topic: topic.ID}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		for _, n := range c.nodes { // one after the other, as in an upgrade
			n.shut()
			time.Sleep(5 * time.Second)
			n.start()
			time.Sleep(time.Minute)
		}
		for _, n := range c.nodes {
			n.shut()
		}
		for _, n := range c.nodes {
			_, warnings := n.log.since(0, from[n.id])
			for _, w := range warnings {
				if !strings.HasPrefix(w, "peer is down node=") && !strings.HasPrefix(w, "no leader for more than") {
					t.Errorf("node %d: %s", n.id, w)
				}
			}
		}
	})
}

// What Raft meets where something ends is not a warning; what a disk or a peer does is.
func TestWhatEndsInOrderIsNoWarning(t *testing.T) {
	for _, test := range []struct {
		err   error
		warns bool
	}{
		{vote.ErrClosed, false},
		{fmt.Errorf("save: %w", transport.ErrClosed), false},
		{raft.ErrRaftShutdown, false},
		{fmt.Errorf("%w: 2.a is now 2.b", transport.ErrWrongIncarnation), false},
		{raft.ErrNothingNewToSnapshot, false},
		{log.ErrClosed, false},
		{transport.ErrUnreachable, false},
		{transport.ErrUnknownGroup, false}, // until it lasts
		{transport.ErrTimeout, true},
		{errors.New("input/output error"), true},
	} {
		var to testLog
		raftgroup.NewLogger(slog.New(to.handler()), new(raftgroup.LogLimits)).Error("failed", "error", test.err)
		if got := len(to.warnings) > 0; got != test.warns {
			t.Errorf("%v: a warning %t, want %t", test.err, got, test.warns)
		}
	}
}

// The log says what was done to topics, once in the cluster, and who leads what is said
// of all partitions in a line, not in one for each.
func TestTheLogSaysWhatHappenedToTopics(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		c.create("flights", 60, 3, map[string]string{"retention.ms": "86400000"})
		any := c.nodes[1] // not one in particular
		topic, _ := any.Image().Topic("flights")
		ctx := context.Background()
		five := "5"
		for _, change := range []metadata.Change{
			metadata.SetTopicConfig{Topic: topic.ID, Set: map[string]string{"flush.messages": five}, Delete: []string{"retention.ms"}},
			metadata.SetBrokerConfig{Set: map[string]string{"num.partitions": five}},
		} {
			if err := any.Change(ctx, change); err != nil {
				t.Fatal(err)
			}
		}
		if err := any.AddPartitions(ctx, "flights", 66, nil, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		id := metadata.PartitionID{Topic: topic.ID}
		gone, _ := c.leader(id)
		led := 0
		for i := range 66 {
			if n, _ := c.leader(metadata.PartitionID{Topic: topic.ID, Index: int32(i)}); n == gone {
				led++
			}
		}
		from := make(map[int32]int)
		for _, n := range c.nodes {
			lines, _ := n.log.since(0, 0)
			from[n.id] = len(lines)
		}
		gone.stop()
		time.Sleep(time.Minute)
		taken := 0
		for _, n := range c.others(gone) {
			lines, _ := n.log.since(from[n.id], 0)
			news := slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "this node leads more partitions ") })
			if len(news) > 3 { // one, unless some elections took a second longer
				t.Errorf("node %d said %q", n.id, news)
			}
			for _, line := range news {
				var count int
				if _, err := fmt.Sscanf(line, "this node leads more partitions count=%d partitions=[flights/", &count); err != nil {
					t.Errorf("%s: %v", line, err)
				}
				taken += count
			}
		}
		if taken != led || led < 10 {
			t.Errorf("the others took %d partitions, of %d that node %d led", taken, led, gone.id)
		}
		gone.start()
		if err := any.Change(ctx, metadata.DeleteTopic{Topic: topic.ID}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"topic created topic=flights partitions=60 replicas=3",
			"topic altered topic=flights set=map[flush.messages:5] unset=[retention.ms]",
			"settings of brokers changed broker=all set=map[num.partitions:5]",
			"partitions added topic=flights added=6 partitions=66",
			"topic deleted topic=flights",
		} {
			said := 0
			for _, n := range c.nodes {
				said += n.log.count(want)
			}
			if said != 1 {
				t.Errorf("%d lines %q, want one", said, want)
			}
		}
	})
}

// Retention says in a line what a pass took from a topic, however many partitions it was.
func TestRetentionSaysWhatItDeleted(t *testing.T) {
	inVirtualTimeOf(t, 1, func(t *testing.T, c *testCluster) {
		n := c.nodes[0]
		id := c.create("flights", 3, 1, map[string]string{"retention.ms": "-1"})
		for i := range 3 {
			p := mustPartition(t, n, metadata.PartitionID{Topic: id.Topic, Index: int32(i)})
			for range 4 {
				if _, err := appendWait(p, recordtest.Values("one", "two")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := n.Change(context.Background(), metadata.SetTopicConfig{Topic: id.Topic, Set: map[string]string{"retention.ms": "0", "file.delete.delay.ms": "0"}}); err != nil {
			t.Fatal(err)
		}
		const want = "retention deleted records topic=flights "
		eventually(t, "all is deleted", func() bool {
			for i := range 3 {
				if mustPartition(t, n, metadata.PartitionID{Topic: id.Topic, Index: int32(i)}).StartOffset() != 8 {
					return false
				}
			}
			return n.log.count(want) > 0
		})
		partitions, records := 0, 0
		lines, _ := n.log.since(0, 0)
		for _, line := range lines {
			var p, r int
			if strings.HasPrefix(line, want) {
				if _, err := fmt.Sscanf(line, want+"partitions=%d records=%d", &p, &r); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
			partitions, records = partitions+p, records+r
		}
		if partitions != 3 || records != 24 {
			t.Errorf("%d records of %d partitions, want 24 of 3:\n%s", records, partitions, strings.Join(lines, "\n"))
		}
	})
}

// What is read again when a node starts is not said again.
func TestAStartTellsNoOldNews(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	n := c.nodes[0]
	c.create("flights", 1, 1, nil)
	const news = "topic created topic=flights"
	if n.log.count(news) != 1 {
		t.Fatal("it is not said that the topic was created")
	}
	n.stop()
	if err := os.Remove(filepath.Join(n.dir, folder.MetaName, controller.ImageName)); err != nil {
		t.Fatal(err)
	}
	n.start()
	c.create("trains", 1, 1, nil)
	if n.log.count("topic created topic=trains") != 1 || n.log.count(news) != 1 {
		lines, _ := n.log.since(0, 0)
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
}

// A folder that is being made is nobody's business, and one that is gone by now neither.
func TestTheSweepKnowsWhatThisRunMakes(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	n := c.nodes[0]
	from, _ := n.log.since(0, 0)
	root := filepath.Join(n.dir, folder.PartitionsName)
	half := filepath.Join(root, "half-made-0")
	if err := os.Mkdir(half, 0o755); err != nil {
		t.Fatal(err)
	}
	if strange := newReconciler(n.Node).sweep(n.Image(), []string{half, filepath.Join(root, "gone-0")}); len(strange) > 0 {
		t.Errorf("strange: %v", strange)
	}
	if lines, _ := n.log.since(len(from), 0); len(lines) > 0 {
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
}
