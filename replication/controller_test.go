package replication

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/internal/memnet"
)

// controllerLead is the node that leads the controller group, nil if none does.
func (c *testCluster) controllerLead() *testNode {
	for _, n := range c.nodes {
		if n.Node != nil && n.leadsController() {
			return n
		}
	}
	return nil
}

// controllerWithin waits until one node leads the controller group, and fails the
// test when that takes longer than limit.
func (c *testCluster) controllerWithin(limit time.Duration) *testNode {
	c.t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if n := c.controllerLead(); n != nil {
			return n
		}
		if time.Since(begin) > limit {
			c.t.Fatalf("nobody leads the controller group after %v", limit)
		}
	}
}

// changes commits a metadata change through a node, or says why it was not.
func (n *testNode) changes(name string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err := n.CreateTopic(ctx, TopicRequest{Name: name, Partitions: 1, Replicas: 1})
	return err
}

// startInBackground starts a node that is registered only once there is a controller.
func (n *testNode) startInBackground() (started <-chan error) {
	n.c.t.Helper()
	if err := n.open(); err != nil {
		n.c.t.Fatal(err)
	}
	return n.startNow()
}

// startNow starts a node that is open, in the background.
func (n *testNode) startNow() (started <-chan error) {
	done := make(chan error, 1)
	go func(node *Node) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		done <- node.Start(ctx)
	}(n.Node)
	return done
}

// A controller that lost its followers steps down with an entry that nobody else has.
// Only it can be elected, and the follower that comes back, whose log is shorter,
// must not keep it from that.
func TestControllerThatSteppedDownIsElectedAgain(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		time.Sleep(time.Minute) // all three vote
		first := c.controllerWithin(0)
		others := c.others(first)
		for _, n := range others {
			n.stop()
		}
		if err := first.changes("uncommitted", 5*time.Second); err == nil {
			t.Fatal("a topic was created without a quorum")
		}
		time.Sleep(20 * time.Second)
		if first.leadsController() {
			t.Fatal("the controller kept its lead without a quorum")
		}
		started := others[1].startInBackground()
		c.controllerWithin(2 * time.Second)
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		if err := first.changes("after", 2*time.Second); err != nil {
			t.Fatalf("create a topic: %v", err)
		}
		time.Sleep(time.Second)
		for text, want := range map[string]int{
			"this node is the controller now":       2,
			"this node is the controller no longer": 1,
			"no leader for more than 5s reason=1 of its 3 voters are here, too few to elect one: without node": 1,
			"there is a leader again": 1,
		} {
			if n := first.log.count(text); n != want {
				t.Errorf("%q was logged %d times, want %d; the log:\n%s", text, n, want, strings.Join(first.log.lines, "\n"))
			}
		}
	})
}

// A member that joins anew adds entries that only the controller has; when that
// steps down, the third, which comes back with its data, must not keep it from
// being elected.
func TestControllerIsElectedWhileAnotherJoins(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		time.Sleep(time.Minute)
		first := c.controllerWithin(0)
		others := c.others(first)
		for _, n := range others {
			n.stop()
		}
		wiped := others[0]
		wiped.dir += "-anew"
		joined := wiped.startInBackground()
		time.Sleep(20 * time.Second)
		started := others[1].startInBackground()
		c.controllerWithin(2 * time.Second)
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		if err := <-joined; err != nil {
			t.Fatal(err)
		}
	})
}

// One link between two of three is cut. Who does not hear the controller stands by
// what it sees and cannot win; whoever it deposes is elected again.
func TestControllerIsThereWhileALinkIsCut(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		time.Sleep(time.Minute)
		first := c.controllerWithin(0)
		others := c.others(first)
		c.net.Set(first.addr, others[1].addr, memnet.Severed)
		without := time.Time{}
		for begin, i := time.Now(), 0; time.Since(begin) < 75*time.Second; i++ {
			if err := others[0].changes(fmt.Sprint("topic-", i), 300*time.Millisecond); err == nil {
				without = time.Time{}
			} else if without.IsZero() {
				without = time.Now()
			} else if time.Since(without) > 2*time.Second {
				t.Fatalf("no change was committed for 2 s, %v after the link was cut: %v", time.Since(begin), err)
			}
			time.Sleep(300 * time.Millisecond)
		}
	})
}
