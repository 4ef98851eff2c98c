package replication

import (
	"context"
	"testing"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/segment/record/recordtest"
)

// auto.leader.rebalance.enable=false: leadership stays where it went, until it is
// switched on again.
func TestLeadersAreBroughtBackOnlyWhereThatIsWanted(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		time.Sleep(time.Minute) // leadership goes where it is wanted
		preferred, _ := c.leader(id)
		set := func(value string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			change := metadata.SetBrokerConfig{Set: map[string]string{"auto.leader.rebalance.enable": value}}
			if err := c.live().Change(ctx, change); err != nil {
				t.Fatal(err)
			}
		}
		set("false")
		preferred.stop()
		other, _ := c.leader(id)
		preferred.start()
		time.Sleep(10 * time.Minute)
		if now, _ := c.leader(id); now != other {
			t.Errorf("node %d led when node %d came back, and does no more", other.id, preferred.id)
		}
		set("true")
		time.Sleep(10 * time.Minute)
		if now, _ := c.leader(id); now != preferred {
			t.Errorf("node %d leads, and node %d is preferred", now.id, preferred.id)
		}
	})
}

// controlled.shutdown.enable: a node that stops hands its groups over first, and
// another is asked to lead before it goes; switched off it just goes.
func TestANodeHandsOverBeforeItStopsWhereThatIsWanted(t *testing.T) {
	for enable, want := range map[string]bool{"true": true, "false": false} {
		t.Run(enable, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				id := c.create("orders", 1, 3, nil)
				leader, p := c.leader(id)
				if _, err := appendWait(p, recordtest.Values("x")); err != nil {
					t.Fatal(err)
				}
				leader.cfg.Settings = map[string]string{"controlled.shutdown.enable": enable}
				leader.resolved.Store(nil)
				// Nobody answers: whoever hands over waits for that, and who does not only for its disk.
				c.net.Set("", leader.addr, memnet.Stalled)
				began := time.Now()
				leader.Shutdown(context.Background())
				if asked := time.Since(began) >= partition.TransferTime/2; asked != want {
					t.Errorf("controlled.shutdown.enable=%s: it asked another to lead: %v, want %v; it took %v to stop", enable, asked, want, time.Since(began))
				}
			})
		})
	}
}

// file.delete.delay.ms: a retention that was made shorter deletes nothing until the
// delay is over, so that making it longer again saves everything; then it deletes
// without waiting for the next search. A disk without room waits for nothing.
func TestAShorterRetentionCanBeTakenBack(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		retention := func(id metadata.PartitionID, ms string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := c.live().Change(ctx, metadata.SetTopicConfig{Topic: id.Topic, Set: map[string]string{"retention.ms": ms}}); err != nil {
				t.Fatal(err)
			}
		}
		delay := map[string]string{"file.delete.delay.ms": "60000"}
		for _, name := range []string{"saved", "deleted"} {
			id := c.create(name, 1, 3, delay)
			n, p := c.leader(id)
			if _, err := appendWait(p, recordtest.Values("x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			retention(id, "1000")
			time.Sleep(time.Second)
			_, due, _ := p.NextDeletion()
			n.upkeep.lacksRoom.Store(true)
			if _, full, _ := p.NextDeletion(); !due.After(n.cfg.Now()) || full.After(n.cfg.Now()) {
				t.Errorf("topic %s: what has expired is deleted at %v, and on a disk without room at %v; now it is %v", name, due, full, n.cfg.Now())
			}
			n.upkeep.lacksRoom.Store(false)
			time.Sleep(49 * time.Second)
			if p.StartOffset() != 0 {
				t.Errorf("topic %s: the log starts at %d before the delay is over", name, p.StartOffset())
			}
			if name == "saved" {
				retention(id, "-1")
				time.Sleep(10 * time.Minute)
				if p.StartOffset() != 0 {
					t.Errorf("altered back, and the log starts at %d", p.StartOffset())
				}
				continue
			}
			time.Sleep(15 * time.Second)
			if p.StartOffset() != 1 {
				t.Errorf("topic %s: the log starts at %d after the delay", name, p.StartOffset())
			}
		}
	})
}
