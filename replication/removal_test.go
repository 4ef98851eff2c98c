package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"millrace/replication/controller"
	"millrace/replication/metadata"
	"millrace/replication/removal"
	"millrace/replication/transport"
)

// remove removes a broker by what another node knows, once it knows it gone.
func (c *testCluster) remove(by *testNode, id int32, want removal.Meaning) {
	c.t.Helper()
	eventually(c.t, "the broker is known to be gone", func() bool { return !by.failover.Heard(id) })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	before := by.Image().Index
	foreseen, err := removal.Remove(ctx, Remaining{by.Node}, id, true)
	if err != nil || fmt.Sprint(foreseen) != fmt.Sprint(want) || by.Image().Index != before {
		c.t.Fatalf("the removal would be %+v, want %+v: %v", foreseen, want, err)
	}
	done, err := removal.Remove(ctx, Remaining{by.Node}, id, false)
	if err != nil || fmt.Sprint(done) != fmt.Sprint(want) {
		c.t.Fatalf("the removal is %+v, want %+v: %v", done, want, err)
	}
	if _, ok := by.Image().Broker(id); ok {
		c.t.Fatalf("broker %d is still registered", id)
	}
}

// follow waits until a partition's group has exactly the replicas that the image has.
func (c *testCluster) follow(id idOf, replicas ...int32) {
	c.t.Helper()
	var servers []int32
	eventually(c.t, fmt.Sprintf("the replicas of partition %d are %v", id.Index, replicas), func() bool {
		lead, p := c.leader(id)
		_, part, ok := lead.Image().Partition(id)
		servers = servers[:0]
		for _, s := range p.Replica().Voters() {
			peer, err := transport.ParseServerID(s)
			if err != nil {
				c.t.Fatal(err)
			}
			servers = append(servers, peer.Node)
		}
		slices.Sort(servers)
		return ok && slices.Equal(servers, replicas) && slices.Equal(slices.Sorted(slices.Values(part.Replicas)), replicas)
	})
}

// controllers are how many controllers vote, and how many there are, as a node knows them.
func (n *testNode) controllers() (voters, all int) {
	m := n.memberOf(controller.Group)
	return len(m.Voters()), len(m.Raft.GetConfiguration().Configuration().Servers)
}

// A broker of four that never comes back is removed: its replicas go to the others, it is in
// no group any more, and an odd number of controllers votes.
func TestABrokerIsRemovedForGood(t *testing.T) {
	inVirtualTimeOf(t, 4, func(t *testing.T, c *testCluster) {
		c.settled()
		grows := c.create("grows", 4, -1, nil)
		all := c.create("all", 1, 4, nil)
		for i := range int32(4) {
			c.append(idOf{Topic: grows.Topic, Index: i}, fmt.Sprint("g", i))
		}
		c.append(all, "a")
		if _, err := removal.Remove(t.Context(), Remaining{c.nodes[0].Node}, 4, false); !errors.Is(err, removal.ErrAlive) {
			t.Fatalf("a broker that is there: %v", err)
		}
		if _, err := removal.Remove(t.Context(), Remaining{c.nodes[0].Node}, 9, false); !errors.Is(err, metadata.ErrUnknownBroker) {
			t.Fatalf("a broker that never was: %v", err)
		}
		gone := int32(4)
		c.nodes[gone-1].stop()
		held := 0
		topic, _ := c.nodes[0].Image().TopicByID(grows.Topic)
		for _, p := range topic.Partitions {
			if slices.Contains(p.Replicas, gone) {
				held++
			}
		}
		c.remove(c.nodes[0], gone, removal.Meaning{Moved: held, Lowered: 1})
		for i := range int32(4) {
			c.follow(idOf{Topic: grows.Topic, Index: i}, 1, 2, 3)
			c.check("after the removal", idOf{Topic: grows.Topic, Index: i}, []string{fmt.Sprint("g", i)})
		}
		c.follow(all, 1, 2, 3)
		c.append(all, "b")
		eventually(t, "three controllers are left", func() bool {
			lead := c.controllerLead()
			if lead == nil {
				return false
			}
			voters, all := lead.controllers()
			return voters == 3 && all == 3
		})
	})
}

// Of three brokers two are left, and of two one, each time as the other never comes back; of
// partitions with two replicas too, of which one is no majority. Nothing is lost, and a broker
// that comes then is given what topics lack.
func TestBrokersAreRemovedDownToOne(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		c.settled()
		grows, two := c.create("grows", 1, -1, nil), c.create("two", 6, 2, nil)
		want := []string{"1"}
		c.append(grows, "1")
		c.nodes[2].stop()
		held := 0
		topic, _ := c.nodes[0].Image().TopicByID(two.Topic)
		var alone []string
		for i, p := range topic.Partitions {
			if slices.Contains(p.Replicas, 3) {
				held++
				alone = append(alone, fmt.Sprint("two/", i))
			}
		}
		c.remove(c.nodes[0], 3, removal.Meaning{Moved: held, Lowered: 1, Alone: alone})
		c.follow(grows, 1, 2)
		for i := range int32(6) {
			c.follow(idOf{Topic: two.Topic, Index: i}, 1, 2)
			c.append(idOf{Topic: two.Topic, Index: i}, fmt.Sprint("p", i))
		}
		c.append(grows, "2")
		want = append(want, "2")
		eventually(t, "one of two controllers votes", func() bool {
			lead := c.controllerLead()
			if lead == nil {
				return false
			}
			voters, all := lead.controllers()
			return voters == 1 && all == 2
		})
		lead := c.controllerLead()
		left := c.nodes[0]
		last := c.nodes[1]
		if lead == last {
			left, last = last, left
		}
		c.settledReplicas(two, 6)
		last.stop()
		alone = []string{"grows/0"}
		for i := range 6 {
			alone = append(alone, fmt.Sprint("two/", i))
		}
		c.remove(left, last.id, removal.Meaning{Lowered: 7, Alone: alone})
		c.follow(grows, left.id)
		c.append(grows, "3")
		c.check("on the last broker", grows, append(want, "3"))
		for i := range int32(6) {
			c.follow(idOf{Topic: two.Topic, Index: i}, left.id)
			c.check("on the last broker", idOf{Topic: two.Topic, Index: i}, []string{fmt.Sprint("p", i)})
		}
		// It is the same after a restart.
		left.stop()
		left.start()
		c.append(grows, "4")
		c.check("after a restart", grows, append(want, "3", "4"))
	})
}

// settledReplicas waits until all replicas of a topic's partitions have all that its leaders have.
func (c *testCluster) settledReplicas(id idOf, partitions int) {
	c.t.Helper()
	eventually(c.t, "the replicas have everything", func() bool {
		for i := range int32(partitions) {
			lead, p := c.leader(idOf{Topic: id.Topic, Index: i})
			for _, s := range p.Replica().Voters() {
				if s != lead.serverID() && !p.Replica().InSync(s) {
					return false
				}
			}
		}
		return true
	})
}

// A stranger's broker joins one that was alone, gets a copy of everything and a vote in it, and
// leaves: one of two is no majority. When it is removed, all goes on with what is here.
func TestABrokerThatCameForAnAfternoonIsRemoved(t *testing.T) {
	inVirtualTimeOf(t, 1, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, -1, nil)
		want := []string{"a", "b"}
		for _, v := range want {
			c.append(id, v)
		}
		c.nodes = append(c.nodes, &testNode{c: c, id: 2, dir: c.dir + "/node-2", disk: newTestDisk(), addr: "127.0.0.1:9001"})
		c.nodes[1].start()
		c.follow(id, 1, 2)
		c.append(id, "c")
		want = append(want, "c")
		c.nodes[1].stop()
		time.Sleep(time.Minute)
		for _, n := range c.nodes[:1] {
			if p, err := n.Partition(id); err == nil {
				if _, err := p.Serving(); err == nil {
					t.Fatal("one of two voters leads: this test shows nothing")
				}
			}
		}
		c.remove(c.nodes[0], 2, removal.Meaning{Lowered: 1, Alone: []string{"orders/0"}})
		c.follow(id, 1)
		c.check("alone again", id, want)
		c.append(id, "d")
		c.nodes[0].stop()
		c.nodes[0].start()
		c.check("after a restart", id, append(want, "d"))
	})
}
