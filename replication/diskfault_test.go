package replication

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/log"
	"millrace/replication/folder"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// downAs waits for the partition of a node to be down for a reason, nil for up.
func (n *testNode) downAs(id idOf, want error) {
	n.c.t.Helper()
	var down error
	for range 1000 {
		p, err := n.Partition(id) // a node that has just started may not host it yet
		if down = err; err == nil {
			down = p.Down()
			if want == nil && down == nil && p.Replica() != nil || want != nil && errors.Is(down, want) {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.c.t.Fatalf("node %d: %v, want %v", n.id, down, want)
}

// ofLog tells whether a file belongs to the log of the partition, or is its snapshot.
func ofLog(id idOf, name string) bool {
	return strings.Contains(name, partition.FolderName(id)) && (strings.HasSuffix(name, ".log") || strings.Contains(name, "manifest") || strings.Contains(name, partition.SnapshotName))
}

// S21 for all that a replica does to its log besides storing entries: whatever fails
// on the leader's disk, whoever asked for it, another leads within seconds, and everybody
// sees that the replica is gone.
func TestALeaderWhoseLogFailsIsReplaced(t *testing.T) {
	big := strings.Repeat("x", 600<<10)
	for name, act := range map[string]struct {
		fails string // the file whose opening fails with EIO
		do    func(p *partition.Partition, r *partition.Replica)
	}{
		"a roll before an append": {".log", func(p *partition.Partition, r *partition.Replica) {
			appendWait(p, recordtest.Values(big)) // the last that fits
			appendWait(p, recordtest.Values(big))
		}},
		"a roll that is due": {".log", func(p *partition.Partition, r *partition.Replica) {
			r.Log().RollIfDue(time.Now().Add(365 * 24 * time.Hour))
		}},
		"a roll for a follower": {".log", func(p *partition.Partition, r *partition.Replica) { r.Segments(r.Log().NextIndex() - 1) }},
		"a snapshot":            {"snapshot.tmp", func(p *partition.Partition, r *partition.Replica) { r.TakeSnapshot() }},
		"a checkpoint":          {"manifest.tmp", func(p *partition.Partition, r *partition.Replica) { r.TakeSnapshot() }},
		"a trim": {"manifest.tmp", func(p *partition.Partition, r *partition.Replica) {
			r.Raft.ApplyLog(log.TrimEntry(p.HighWatermark()), time.Second)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				id := c.create("orders", 1, 3, map[string]string{"segment.bytes": "1048576"})
				old, p := c.leader(id)
				if _, err := appendWait(p, recordtest.Values("before")); err != nil {
					t.Fatal(err)
				}
				r := p.Replica()
				old.disk.refuse(func(name string, flag int) error {
					if ofLog(id, name) && strings.HasSuffix(name, act.fails) {
						return syscall.EIO
					}
					return nil
				})
				began := time.Now()
				act.do(p, r)
				old.downAs(id, partition.ErrQuarantined)
				next, q := c.leader(id)
				if next == old {
					t.Fatal("it leads again")
				}
				if _, err := appendWait(q, recordtest.Values("after")); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("another leads after %v", took)
				}
				time.Sleep(100 * time.Millisecond) // gossip
				for _, n := range c.nodes {
					if list := n.InSync(id); slices.Contains(list, old.ID()) || len(list) != 2 {
						t.Errorf("node %d says that %v are in sync", n.id, list)
					}
				}
			})
		})
	}
}

// S25: a node without descriptors refuses, and goes on where it was when it has some
// again. Nothing is bounced or quarantined, no restart is needed.
func TestANodeWithoutDescriptorsGoesOnWhenItHasSome(t *testing.T) {
	big := strings.Repeat("x", 600<<10)
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, map[string]string{"segment.bytes": "1048576"})
		leader, p := c.leader(id)
		want := []string{"before"}
		if _, err := appendWait(p, recordtest.Values("before")); err != nil {
			t.Fatal(err)
		}
		runs := make(map[*testNode]*partition.Replica)
		none := func(string, int) error { return syscall.EMFILE }
		for _, n := range c.nodes {
			q := mustPartition(t, n, id)
			eventually(t, "all have the replica", func() bool { return q.Replica() != nil })
			runs[n] = q.Replica()
		}
		for _, n := range c.nodes {
			n.disk.refuse(none)
		}
		// What fits the segment is taken, what calls for another is refused.
		refused := 0
		for i := range 6 {
			v := fmt.Sprint(i, big)
			switch _, err := appendWait(p, recordtest.Values(v)); {
			case err == nil:
				want = append(want, v)
			case errors.Is(err, partition.ErrRefused):
				refused++
			default:
				t.Fatal(err)
			}
		}
		if refused == 0 {
			t.Fatal("nothing was refused: the test is of nothing")
		}
		time.Sleep(time.Minute) // upkeep has its turn
		for _, n := range c.nodes {
			n.disk.refuse(nil)
		}
		for i := range 4 {
			v := fmt.Sprint("after ", i, big)
			if _, err := appendWait(p, recordtest.Values(v)); err != nil {
				t.Fatal(err)
			}
			want = append(want, v)
		}
		if again, _ := c.leader(id); again != leader {
			t.Errorf("node %d leads, it was node %d", again.id, leader.id)
		}
		for n, r := range runs {
			if q, err := n.Partition(id); err != nil || q.Replica() != r || q.Down() != nil {
				t.Errorf("node %d did not keep its replica: %v, %v", n.id, err, q.Down())
			}
		}
		c.check("after the healing", id, want)
		c.sameEverywhere(id)
	})
}

// Where a majority cannot store, nothing is acknowledged; and once it can, at once: Raft
// counts how often it was refused, and would wait for 10 s.
func TestFollowersThatCouldNotStoreAreSoonSentAgain(t *testing.T) {
	big := strings.Repeat("x", 600<<10)
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, map[string]string{"segment.bytes": "1048576"})
		leader, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Values("0"+big)); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.others(leader) {
			n.disk.refuse(func(name string, flag int) error {
				if ofLog(id, name) && flag&os.O_CREATE != 0 {
					return syscall.EMFILE
				}
				return nil
			})
		}
		done := appendSoon(p, "1"+big)
		time.Sleep(53 * time.Second) // Raft would ask again at 51 s and at 61 s
		select {
		case err := <-done:
			t.Fatalf("the test is of nothing: %v", err)
		default:
		}
		for _, n := range c.nodes {
			n.disk.refuse(nil)
		}
		healed := time.Now()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(healed); took > 2*time.Second { // it is left alone for one at most
			t.Errorf("acknowledged after %v", took)
		}
		c.check("after the healing", id, []string{"0" + big, "1" + big})
		time.Sleep(time.Second)
		c.sameEverywhere(id)
	})
}

// A follower that is behind is sent what lies in segments that ended. To read them takes
// a descriptor and a mapping each; without, it waits, and the leader leads on.
func TestAFollowerWaitsForWhatTheLeaderCannotOpen(t *testing.T) {
	big := strings.Repeat("x", 600<<10)
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, map[string]string{"segment.bytes": "1048576"})
		leader, p := c.leader(id)
		behind := c.nodes[0]
		if behind == leader {
			behind = c.nodes[1]
		}
		var want []string
		behind.stop()
		behind.Node = nil
		for i := range 20 { // more than the cache of entries keeps
			v := fmt.Sprint(i, big)
			if _, err := appendWait(p, recordtest.Values(v)); err != nil {
				t.Fatal(err)
			}
			want = append(want, v)
		}
		r := p.Replica()
		r.Log().Evict(r.Log().NextIndex())
		r.Log().UnmapIdle()
		r.Log().UnmapIdle()
		tries := 0
		leader.disk.refuse(func(name string, flag int) error {
			if ofLog(id, name) && flag&os.O_CREATE == 0 && filepath.Ext(name) == ".log" {
				tries++
				return syscall.EMFILE
			}
			return nil
		})
		behind.start()
		time.Sleep(20 * time.Second)
		if v, err := p.Read(0, 1, false); !errors.Is(err, partition.ErrRefused) {
			t.Errorf("a read says %v, %v", v, err)
		}
		leader.disk.refuse(nil)
		if tries < 3 {
			t.Fatalf("%d tries: the test is of nothing", tries)
		}
		time.Sleep(20 * time.Second)
		if p.Replica() != r || !leads(r) {
			t.Errorf("the leader did not lead on: %v", p.Down())
		}
		c.check("after the healing", id, want)
		c.sameEverywhere(id)
	})
}

// A replica that cannot be opened for want of descriptors is, as soon as there are some.
func TestAReplicaIsOpenedWhenThereAreDescriptors(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Values("before")); err != nil {
			t.Fatal(err)
		}
		n := c.nodes[0]
		if n == leader {
			n = c.nodes[1]
		}
		n.stop()
		n.Node = nil
		n.disk.refuse(func(name string, flag int) error {
			if !strings.Contains(name, folder.PartitionsName) {
				return nil // a node that cannot read who it is does not start
			}
			return syscall.ENFILE
		})
		n.start()
		n.downAs(id, partition.ErrRefused)
		time.Sleep(5 * time.Second)
		if list := leader.InSync(id); slices.Contains(list, n.id) {
			t.Errorf("a replica that is down is in sync: %v", list)
		}
		n.disk.refuse(nil)
		time.Sleep(2 * openedWithin)
		n.downAs(id, nil)
		if _, err := appendWait(p, recordtest.Values("after")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		c.sameEverywhere(id)
	})
}

// A disk that is full in spite of the room that was promised (one that copies what is
// written) ends a run, not the replica.
func TestAWriteThatFindsTheDiskFullEndsALifeOnly(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		old, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Values("before")); err != nil {
			t.Fatal(err)
		}
		r := p.Replica()
		old.disk.set(false, syscall.ENOSPC)
		p.Append([]record.Batch{recordtest.Values("unknown")}, told(func(partition.Ack, error) {}))
		for range 500 {
			if p.Replica() != r {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if p.Replica() == r {
			t.Fatal("the run goes on although its log failed")
		}
		time.Sleep(5 * time.Second)
		if err := p.Down(); errors.Is(err, partition.ErrQuarantined) {
			t.Fatal(err)
		}
		old.disk.set(false, nil)
		time.Sleep(2 * openedWithin)
		old.downAs(id, nil)
		c.sameEverywhere(id)
	})
}

// A disk that is full takes no records, and the log says so: once, though producers send
// theirs again and again, and rarely for as long as it goes on.
func TestAFullDiskIsSaidOnceAndThenRarely(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, map[string]string{"segment.bytes": "1048576"})
		big := strings.Repeat("x", 600<<10)
		lead, p := c.leader(id)
		lead.disk.fill()
		const said = "the disk is full: records are refused"
		refused := 0
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(5 * time.Second) {
			switch _, err := appendWait(p, recordtest.Values(big)); {
			case errors.Is(err, partition.ErrNoSpace):
				refused++
			case err != nil || refused > 0: // what was taken ahead may do for a while
				t.Fatalf("after %d that were refused, another is answered with %v", refused, err)
			}
			if n := lead.log.count(said); n == 0 && refused > 0 || n > 1 && time.Since(began) < fullSaidEvery {
				t.Fatalf("%d refused in %v, and it was said %d times", refused, time.Since(began), n)
			}
		}
		if n := lead.log.count(said); refused < 500 || n != int(time.Hour/fullSaidEvery) {
			t.Errorf("%d refused in an hour, and it was said %d times, want once in %v", refused, n, fullSaidEvery)
		}
	})
}

// openedWithin is how long a replica may need to begin a run once the system has again what
// it lacked.
const openedWithin = 5 * time.Second
