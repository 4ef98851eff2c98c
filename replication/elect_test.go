package replication

import (
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/partition"
	"millrace/replication/transport"
)

// What a candidate tells itself, to give up or to campaign, may reach Raft when it has won.
func TestWinnerIsNotDeposedByWhatItToldItselfBefore(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		r := p.Replica()
		led, _ := r.LeadsNow()
		for _, port := range []*transport.Port{r.Port, c.nodes[0].controller.Port} {
			if err := port.AbandonCandidacy(led + 1000); err != nil {
				t.Fatal(err)
			}
			if err := port.Elect(); err != nil {
				t.Fatal(err)
			}
		}
		term := c.nodes[0].controller.Raft.CurrentTerm()
		time.Sleep(time.Minute)
		if now, ok := r.LeadsNow(); !ok || now != led || r.Raft.CurrentTerm() != led {
			t.Errorf("node %d led in term %d, and is in term %d now", leader.id, led, r.Raft.CurrentTerm())
		}
		if now := c.nodes[0].controller.Raft.CurrentTerm(); now != term || c.nodes[0].controller.Raft.State() != raft.Leader {
			t.Errorf("the controller led in term %d, and is in term %d now", term, now)
		}
	})
}

// replaced waits until another node than old leads, which must be soon.
func (c *testCluster) replaced(id idOf, old *testNode) {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if n, _ := c.serving(id); n != nil && n != old {
			return
		}
		if took := time.Since(began); took > 2*time.Second {
			c.t.Fatalf("nobody else leads after %v", took)
		}
	}
}

// withoutSuccessor creates a topic and returns its leader, after a while in which it
// stays that, as if nobody had answered in its term: it can hand over to nobody.
func (c *testCluster) withoutSuccessor() (id idOf, leader *testNode, p *partition.Partition, r *partition.Replica) {
	c.t.Helper()
	id = c.create("orders", 1, 3, nil)
	c.leader(id)
	time.Sleep(time.Minute)
	leader, p = c.leader(id)
	r = p.Replica()
	// As of a term to come, after which nothing is known of this one.
	r.Progress.Answered("9.a", r.Raft.CurrentTerm()+1, 0, 0)
	return id, leader, p, r
}

// A leader whose disk failed says that it leads no more. That is enough for the others to
// elect another, also when it could hand leadership to nobody.
func TestALeaderThatCouldHandOverToNobodyIsReplaced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id, old, p, r := c.withoutSuccessor()
		r.Bounce(&log.FailedError{Dir: p.Dir(), Err: syscall.EIO})
		c.replaced(id, old)
	})
}

// News are told some milliseconds after they were gathered. A leader whose disk fails
// within that time has said by then that it leads no more, and must not say after that
// that it does: the others would follow it until Raft's own time is over.
func TestALeaderThatFailsBeforeItIsHeardOfIsReplaced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id, old, p, r := c.withoutSuccessor()
		term, _ := r.LeadsNow()
		old.failover.Leads(p.Group(), term) // news from here on
		r.Bounce(&log.FailedError{Dir: p.Dir(), Err: syscall.EIO})
		c.replaced(id, old)
	})
}

// A leader that steps down and lives, and cannot be elected again, here for its disk: the
// others follow it, and would until Raft's own time is over, unless it says that it leads
// no more.
func TestALeaderThatStepsDownAndCannotCampaignIsReplaced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.leader(id)
		time.Sleep(time.Minute) // it stays there
		old, p := c.leader(id)
		r := p.Replica()
		synced := make(chan struct{})
		old.disk.disturb(func(op, name string) (error, bool) {
			if op == "sync" && ofLog(id, name) {
				<-synced
			}
			return nil, true
		})
		defer close(synced)
		appendSoon(p, "is synced for long")
		time.Sleep(partition.StallTime * 2 / 3)
		if err := r.Port.StepDown(r.Raft.CurrentTerm() + 1); err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if n, _ := c.serving(id); n != nil && n != old {
				return
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Fatalf("nobody else leads after %v", took)
			}
		}
	})
}
