package replication

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/memnet"
	"millrace/replication/metadata"
	"millrace/segment/record/recordtest"
)

// A member of the controller group gets its vote when it has said in this term that it
// has the log. The log of a young cluster is short: one that has nothing, and does not
// hear the controller, is as close to its end as one that lags; with its vote the
// controller would need it, and commit nothing any more.
func TestAnEmptyControllerGetsNoVote(t *testing.T) {
	if testing.Short() {
		t.Skip("whole clusters take a second or two each; run without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1, memnet.New())
		defer func() {
			c.stop()
			time.Sleep(time.Minute)
		}()
		first := c.nodes[0]
		votes := func() (voters, learners int) {
			for _, s := range first.controller.Raft.GetConfiguration().Configuration().Servers {
				if s.Suffrage == raft.Voter {
					voters++
				} else {
					learners++
				}
			}
			return voters, learners
		}
		first.controller.Port.Stall(true) // what it appends does not arrive
		var started []<-chan error
		for i := 1; i < 3; i++ {
			n := &testNode{c: c, id: int32(i + 1), addr: fmt.Sprintf("127.0.0.1:%d", 9000+i),
				dir: filepath.Join(c.dir, fmt.Sprint("node-", i+1)), disk: newTestDisk()}
			c.nodes = append(c.nodes, n)
			started = append(started, n.startInBackground())
		}
		time.Sleep(10 * time.Second)
		if voters, learners := votes(); voters != 1 || learners != 2 {
			t.Fatalf("%d members vote and %d learn, want 1 and 2: nobody has heard of the log", voters, learners)
		}
		first.controller.Port.Stall(false)
		for _, s := range started {
			if err := <-s; err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		if voters, _ := votes(); voters != 3 {
			t.Fatalf("%d members vote of 3 that have the log", voters)
		}
	})
}

// A replica that has not been heard of has nothing, however short the log: with a vote
// it would be missed at once.
func TestReplicaThatWasNeverHeardOfGetsNoVote(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 1, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Values("before")); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(c.nodes, func(n *testNode) bool { return n != leader && n.id != 1 })
		absent := c.nodes[i]
		c.separate(absent)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := leader.Change(ctx, metadata.SetReplicas{Partition: id, Replicas: []int32{leader.id, absent.id}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r := p.Replica()
		if got := r.Raft.GetConfiguration().Configuration().Servers; len(got) != 2 || len(r.Voters()) != 1 {
			t.Fatalf("the members are %v, and %v vote; want two members and one voter", got, r.Voters())
		}
		if _, err := appendWait(p, recordtest.Values("meanwhile")); err != nil {
			t.Fatalf("without the absent replica: %v", err)
		}
		c.net.Heal()
		time.Sleep(time.Minute)
		if got := p.Replica().Voters(); len(got) != 2 {
			t.Errorf("it is back, and %v vote", got)
		}
		c.check("in the end", id, []string{"before", "meanwhile"})
	})
}
