package partition

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// An entry of our own must be the next of its leadership: behind one that was refused
// it would let two batches of a producer change places, and of another term it was
// judged by what another leadership knew.
func TestOwnEntriesOutOfTurnAreRefused(t *testing.T) {
	later := ownEntry(2, 0)
	later.Term = 2
	for name, tt := range map[string]struct {
		entries []*raft.Log
		ok      bool
	}{
		"in turn":                   {[]*raft.Log{ownEntry(2, 0), ownEntry(3, 1)}, true},
		"one was left out":          {[]*raft.Log{ownEntry(2, 1)}, false},
		"one was left out behind":   {[]*raft.Log{ownEntry(2, 0), ownEntry(3, 2)}, false},
		"sent under an earlier one": {[]*raft.Log{later}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := testStore(t)
			err := s.StoreLogs(tt.entries)
			if !tt.ok && !errors.Is(err, errStale) || tt.ok && err != nil {
				t.Errorf("stored with %v", err)
			}
			want := uint64(1)
			if tt.ok {
				want = 3
			}
			if last, _ := s.LastIndex(); last != want {
				t.Errorf("the log ends at entry %d, want %d", last, want)
			}
			if err := s.pending.settle(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A write that the system refuses has changed nothing, and Raft is told. Behind a cut it
// is not so simple: Raft takes the cut entries for its last ones until it has stored
// others, so that this run has to end.
func TestARefusedWriteBehindACutEndsALife(t *testing.T) {
	for _, cut := range []bool{false, true} {
		s, disk := testStoreThatMayFail(t)
		if err := s.StoreLogs([]*raft.Log{{Index: 2, Term: 1, Type: raft.LogNoop}, {Index: 3, Term: 1, Type: raft.LogNoop}}); err != nil {
			t.Fatal(err)
		}
		next := uint64(4)
		if cut {
			if err := s.DeleteRange(3, 3); err != nil {
				t.Fatal(err)
			}
			next = 3
		}
		disk.fill()
		err := s.StoreLogs([]*raft.Log{{Index: next, Term: 2, Type: raft.LogConfiguration, Data: make([]byte, 4<<20)}})
		if !segment.IsRefused(err) {
			t.Fatalf("cut %t: stored with %v", cut, err)
		}
		if cause := s.r.ended(); (cause != nil) != cut {
			t.Errorf("cut %t: the end of this run was asked for with %v", cut, cause)
		}
	}
}

// Raft itself acts on a configuration, and serves once its first entry of a term is
// committed, counting itself: these are not synced beside it.
func TestWhatRaftActsOnIsSyncedFirst(t *testing.T) {
	noop := &raft.Log{Index: 2, Term: 1, Type: raft.LogNoop}
	configuration := &raft.Log{Index: 2, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{})}
	behind := *configuration
	behind.Index = 3
	for name, entries := range map[string][]*raft.Log{
		"noop":                            {noop},
		"configuration":                   {configuration},
		"configuration behind an own one": {ownEntry(2, 0), &behind},
	} {
		t.Run(name, func(t *testing.T) {
			s, disk := testStore(t)
			disk.set(true, nil)
			defer disk.set(false, nil)
			done := make(chan error, 1)
			go func() { done <- s.StoreLogs(entries) }()
			select {
			case err := <-done:
				t.Fatalf("stored before it was synced: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
			disk.set(false, nil)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// After a sync that failed nothing above it is ever durable, whatever a later sync says.
func TestFailedSyncMakesNothingDurable(t *testing.T) {
	failed := errors.New("failed")
	s := newPendingSync()
	s.begin(4)
	s.end(failed)
	if got := s.durable(); got != 4 {
		t.Errorf("durable up to entry %d, want 4", got)
	}
	if err := s.await(5); err != failed {
		t.Errorf("entry 5: %v", err)
	}
	if err := s.await(4); err != nil {
		t.Errorf("entry 4 was durable before: %v", err)
	}
	if err := s.settle(); err != failed {
		t.Errorf("settled with %v", err)
	}
}
