package partition

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

func TestCatchUpRefusesSegmentsThatLeaveAGap(t *testing.T) {
	segments := func(first ...uint64) (infos []log.SegmentInfo) {
		for _, f := range first {
			infos = append(infos, log.SegmentInfo{FirstIndex: f})
		}
		return infos
	}
	for _, tt := range []struct {
		name  string
		plan  log.Plan
		index uint64
		ok    bool
	}{
		{"from the beginning", log.Plan{Segments: segments(1, 50), EndIndex: 100}, 99, true},
		{"right behind the snapshot", log.Plan{Segments: segments(51), EndIndex: 100}, 50, true},
		{"nothing but the snapshot", log.Plan{EndIndex: 51}, 50, true},
		{"dropped since the snapshot", log.Plan{Segments: segments(52), EndIndex: 100}, 50, false},
		{"all dropped since the snapshot", log.Plan{EndIndex: 52}, 50, false},
		{"end before the snapshot", log.Plan{Segments: segments(1), EndIndex: 50}, 50, false},
	} {
		if err := covers(tt.plan, tt.index); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// What is acknowledged while segments are pulled must not go with the old log.
func TestCatchUpKeepsWhatCameInMeanwhile(t *testing.T) {
	p, _ := alone(t)
	r := p.current.Load()
	writes := r.store.writes.Load()
	if _, err := appendWait(p, recordtest.Values("acknowledged")); err != nil {
		t.Fatal(err)
	}
	if err := (&catchUp{r: r, snap: &snapshot{index: 1, term: 1}}).install(writes); !errors.Is(err, errOvertaken) {
		t.Fatalf("the log was replaced: %v", err)
	}
	holds(t, p, "acknowledged")
}

// What Raft stores until the moment it has ended counts, too.
func TestCatchUpKeepsWhatCameInUntilRaftEnded(t *testing.T) {
	p, n := alone(t)
	if _, err := appendWait(p, recordtest.Values("before")); err != nil {
		t.Fatal(err)
	}
	r := p.current.Load()
	n.disk.set(true, nil)
	defer n.disk.set(false, nil)
	before := r.store.writes.Load()
	p.Append([]record.Batch{recordtest.Values("in flight")}, told(func(Ack, error) {
		// The replica is ending, and Raft is told after this: it may store something still.
		r.store.writes.Add(1)
		n.disk.set(false, nil)
	}))
	for begin := time.Now(); r.store.writes.Load() == before; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("nothing is stored")
		}
	}
	if err := (&catchUp{r: r, snap: &snapshot{index: 1, term: 1}}).install(before + 1); !errors.Is(err, errOvertaken) {
		t.Fatalf("the log was replaced: %v", err)
	}
	lead(t, p)
	holds(t, p, "before", "in flight")
}

// A deposed leader's InstallSnapshot changes nothing.
func TestInstallSnapshotOfAnEarlierTermIsRefused(t *testing.T) {
	p, _ := alone(t)
	r := p.current.Load()
	term := r.Raft.CurrentTerm()
	answers := make(chan raft.RPCResponse, 1)
	r.InstallSnapshot(raft.RPC{RespChan: answers}, &raft.InstallSnapshotRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("2.00000000"), Addr: []byte("2.00000000")},
		Term:      term - 1, LastLogIndex: 1 << 20, LastLogTerm: term - 1,
	}, nil)
	a := <-answers
	resp, ok := a.Response.(*raft.InstallSnapshotResponse)
	if !ok || a.Error != nil || resp.Success || resp.Term != term {
		t.Errorf("answered with %+v, %v; want a refusal in term %d", a.Response, a.Error, term)
	}
	if p.catching.Load() || p.current.Load() != r {
		t.Error("the replica catches up with a leader that is none")
	}
}
