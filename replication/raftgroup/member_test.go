package raftgroup

import (
	"io"
	"log/slog"
	"slices"
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
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = HeartbeatTimeout, HeartbeatTimeout+timeoutStep, LeaseTimeout
		files, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		_, wire := raft.NewInmemTransport("1.a")
		err := raft.BootstrapCluster(c, files, files, snapshots, wire, raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}, {ID: "2.b", Address: "2.b"}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := raft.NewRaft(c, new(raft.MockFSM), files, files, snapshots, wire)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Shutdown()
		time.Sleep(HeartbeatTimeout / 2)
		if s := r.State(); s != raft.Follower {
			t.Fatalf("half of its timeout after it started it is a %v: this tests nothing", s)
		}
		m := &Member{Raft: r}
		if err := m.PokeElectionTimer(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := r.State(); s != raft.Candidate {
			t.Errorf("it is a %v, want a candidate", s)
		}
		if now := r.ReloadableConfig().HeartbeatTimeout; now != HeartbeatTimeout {
			t.Errorf("its heartbeat timeout is %v from now on, want %v", now, HeartbeatTimeout)
		}
	})
}

// Raft's notifications may be late. One that tells of a leadership that is over, when this
// node leads again, is handed on, for the role to look; elections are left alone.
func TestALateNoticeIsNoReasonToElect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		_, wire := raft.NewInmemTransport("1.a")
		role := &watched{}
		m := &Member{Group: 7, Role: role}
		c := m.Config("1.a", NewLogger(slog.New(slog.DiscardHandler), NewLogLimits()))
		err := raft.BootstrapCluster(c, files, files, snapshots, wire, raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}}})
		if err != nil {
			t.Fatal(err)
		}
		if m.Raft, err = raft.NewRaft(c, new(raft.MockFSM), files, files, snapshots, wire); err != nil {
			t.Fatal(err)
		}
		closing := make(chan struct{})
		go m.WatchLeadership(role, closing)
		time.Sleep(3 * HeartbeatTimeout)
		if m.Raft.State() != raft.Leader {
			t.Fatal("the only voter does not lead")
		}
		m.notify <- false // of a term before this one
		synctest.Wait()
		if got, want := role.told, []bool{true, false}; !slices.Equal(got, want) || role.lost != 0 {
			t.Errorf("the role was told %v and elections of %d losses, want %v and none", got, role.lost, want)
		}
		if err := m.Raft.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // Raft has said that it leads no more
		if role.lost != 1 {
			t.Errorf("elections were told of %d losses by a member that leads no more, want one", role.lost)
		}
		close(closing)
	})
}

// A watched role notes what it is told.
type watched struct {
	told []bool
	lost int
}

func (w *watched) Name() string                 { return "watched" }
func (w *watched) LeadsNow() (uint64, bool)     { return 0, false }
func (w *watched) StillLeads(uint64) bool       { return false }
func (w *watched) Stalls() bool                 { return false }
func (w *watched) LeadershipChanged(leads bool) { w.told = append(w.told, leads) }

func (w *watched) StoodDown(uint64) { w.lost++ }
