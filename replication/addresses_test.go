package replication

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/metadata"
	"millrace/replication/roster"
)

// moves restarts nodes at new addresses, in the background, and fails the test unless
// all of them are registered there within a while.
func (c *testCluster) moves(limit time.Duration, moving ...*testNode) {
	c.t.Helper()
	for _, n := range moving {
		n.stop()
		n.addr = fmt.Sprintf("127.0.0.1:%d", 9100+n.id)
	}
	begin := time.Now()
	var started []<-chan error
	for _, n := range moving {
		started = append(started, n.startInBackground())
	}
	for i, n := range moving {
		select {
		case err := <-started[i]:
			if err != nil {
				c.t.Fatalf("start node %d: %v", n.id, err)
			}
		case <-time.After(limit - time.Since(begin)):
			c.t.Fatalf("node %d was not registered at its new address after %v", n.id, limit)
		}
	}
	for _, n := range c.nodes {
		for _, other := range c.nodes {
			for !n.Live(other.id) {
				if time.Since(begin) > limit {
					c.t.Fatalf("node %d does not hear node %d after %v", n.id, other.id, limit)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	c.t.Logf("all hear each other after %v", time.Since(begin))
}

// All nodes have new addresses, and are told those of each other by --join: what they
// knew is of no use.
func TestAllMoveAndAreToldWhere(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		time.Sleep(time.Minute)
		for _, n := range c.nodes {
			n.join = []string{"127.0.0.1:9101", "127.0.0.1:9102", "127.0.0.1:9103"}
		}
		c.moves(10*time.Second, c.nodes...)
		c.append(id, "after")
		c.check("after the move", id, []string{"before", "after"})
		for _, n := range c.nodes {
			b, _ := c.nodes[0].Image().Broker(n.id)
			if roster.Address(b) != n.addr {
				t.Errorf("node %d is registered at %s, want %s", n.id, roster.Address(b), n.addr)
			}
		}
	})
}

// Two of three have new addresses, and are told nothing. Both know where the third is,
// and find each other through it.
func TestTwoMoveAndFindEachOther(t *testing.T) {
	for third := range 3 {
		t.Run(fmt.Sprint("node ", third+1, " stays"), func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				id := c.create("orders", 1, 3, nil)
				c.append(id, "before")
				time.Sleep(time.Minute)
				for _, n := range c.nodes {
					n.join = []string{}
				}
				c.moves(10*time.Second, c.others(c.nodes[third])...)
				c.append(id, "after")
			})
		})
	}
}

// A node that does not hear the controller commits changes through one that does.
func TestChangesAreForwarded(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		time.Sleep(time.Minute)
		controller := c.controllerWithin(0)
		others := c.others(controller)
		c.net.Set(controller.addr, others[1].addr, memnet.Severed)
		time.Sleep(time.Second)
		self, _ := controller.Image().Broker(others[1].id)
		moved := *self
		moved.Rack = "elsewhere"
		req := metadata.RegisterBroker{Broker: moved, ClusterID: controller.ClusterID()}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		// Its own image does not hold it: the log does not come by way of another.
		if err := others[1].Change(ctx, req); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNoController) {
			t.Fatalf("the change is committed, and not seen yet: %v", err)
		}
		if b, _ := controller.Image().Broker(moved.ID); b.Rack != moved.Rack {
			t.Errorf("broker %d stands in %q, want %q", b.ID, b.Rack, moved.Rack)
		}
		foreign, _ := controller.Image().Broker(controller.id)
		other := metadata.RegisterBroker{Broker: *foreign, ClusterID: controller.ClusterID()}
		ctx, cancel = context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := others[1].Change(ctx, other); !errors.Is(err, ErrUnknown) {
			t.Errorf("a node registered another one: %v", err)
		}
	})
}

// Of two addresses the later one holds, whoever tells it; and a node that is told an
// old one of its own, under a later time than its start, tells its own anew.
func TestTheLaterAddressHolds(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		time.Sleep(10 * time.Second)
		n, other := c.nodes[0], c.nodes[1]
		at := func(n *testNode, node int32) roster.Entry {
			for _, a := range n.book.Entries() {
				if a.Node == node {
					return a
				}
			}
			return roster.Entry{}
		}
		now := at(n, other.id)
		if now.Address != other.addr || now.Epoch == 0 || now.Incarnation != other.identity.Incarnation {
			t.Fatalf("node 2 is known as %+v", now)
		}
		earlier, foreign, later := now, now, now
		earlier.Address, earlier.Epoch = "old:1", now.Epoch-1
		foreign.Address, foreign.Epoch, foreign.Incarnation = "foreign:1", now.Epoch+9, "ffffffff"
		later.Address, later.Epoch = "new:1", now.Epoch+5
		n.book.Take([]roster.Entry{earlier, foreign})
		if got := at(n, other.id); got != now {
			t.Errorf("an earlier address, or one of another incarnation, was taken: %+v", got)
		}
		if !n.book.Take([]roster.Entry{later}) || at(n, other.id) != later {
			t.Errorf("a later address was not taken: %+v", at(n, other.id))
		}
		n.failover.ShowViews()
		time.Sleep(time.Second)
		if got := at(n, other.id); got.Address != other.addr || got.Epoch <= later.Epoch {
			t.Errorf("node 2 did not tell its address anew: %+v", got)
		}
	})
}
