package replication

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Raft has no call that makes a follower look for its leader. Should a release of it not do
// so when its timeout is lowered, elections would wait for timers of half a minute.
func TestPokingTheElectionTimerMakesAFollowerLookForItsLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := raft.DefaultConfig()
		c.LocalID, c.LogOutput = "1.a", io.Discard
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = heartbeatTimeout, heartbeatTimeout+timeoutStep, leaseTimeout
		files, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		_, wire := raft.NewInmemTransport("1.a")
		err := raft.BootstrapCluster(c, files, files, snapshots, wire, raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}, {ID: "2.b", Address: "2.b"}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := raft.NewRaft(c, new(fsm), files, files, snapshots, wire)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Shutdown()
		time.Sleep(heartbeatTimeout / 2)
		if s := r.State(); s != raft.Follower {
			t.Fatalf("half of its timeout after it started it is a %v: this tests nothing", s)
		}
		m := &member{raft: r}
		if err := m.pokeElectionTimer(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := r.State(); s != raft.Candidate {
			t.Errorf("it is a %v, want a candidate", s)
		}
		if now := r.ReloadableConfig().HeartbeatTimeout; now != heartbeatTimeout {
			t.Errorf("its heartbeat timeout is %v from now on, want %v", now, heartbeatTimeout)
		}
	})
}
