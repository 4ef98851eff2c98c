package log

import (
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"millrace/segment"
)

// An fsm counts records and remembers the offsets stamped.
type fsm struct {
	mu   sync.Mutex
	next int64
	bad  error
}

func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range batches(l.Data) {
		if b.BaseOffset() != f.next || b.Epoch() != int32(l.Term) {
			f.bad = fmt.Errorf("entry %d: batch at %d of epoch %d, want %d of %d", l.Index, b.BaseOffset(), b.Epoch(), f.next, l.Term)
		}
		f.next = b.NextOffset()
	}
	return nil
}
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return nil, fmt.Errorf("not here") }
func (f *fsm) Restore(io.ReadCloser) error         { return fmt.Errorf("not here") }

// TestRaftKeepsItsLogHere: three nodes elect, replicate, lose their leader and come
// back, with Raft from the library on top of real logs.
func TestRaftKeepsItsLogHere(t *testing.T) {
	// In virtual time no pause of this process costs a leader its lease.
	synctest.Test(t, raftKeepsItsLog)
}

func raftKeepsItsLog(t *testing.T) {
	root := t.TempDir()
	type node struct {
		r     *raft.Raft
		l     *Log
		f     *fsm
		trans *raft.InmemTransport
	}
	stable := [3]*raft.InmemStore{raft.NewInmemStore(), raft.NewInmemStore(), raft.NewInmemStore()}
	nodes := [3]*node{}
	start := func(i int) *node {
		t.Helper()
		l, err := Open(filepath.Join(root, fmt.Sprint(i)), testID, Config{FS: fastFS{segment.OS}, SegmentBytes: 16 << 10, Cache: NewCache(8 << 10)})
		if err != nil {
			t.Fatal(err)
		}
		_, trans := raft.NewInmemTransport(raft.ServerAddress(fmt.Sprint(i)))
		conf := raft.DefaultConfig()
		conf.LocalID = raft.ServerID(fmt.Sprint(i))
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout, conf.CommitTimeout = 300*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond, 5*time.Millisecond
		conf.Logger = hclog.NewNullLogger()
		conf.TrailingLogs = 1 << 62
		n := &node{l: l, f: &fsm{}, trans: trans}
		if n.r, err = raft.NewRaft(conf, n.f, l, stable[i], raft.NewInmemSnapshotStore(), trans); err != nil {
			t.Fatal(err)
		}
		return n
	}
	connect := func() {
		for i, a := range nodes {
			for j, b := range nodes {
				if i != j && a != nil && b != nil {
					a.trans.Connect(b.trans.LocalAddr(), b.trans)
				}
			}
		}
	}
	stop := func(i int, clean bool) {
		t.Helper()
		n := nodes[i]
		for _, o := range nodes {
			if o != nil && o != n {
				o.trans.Disconnect(n.trans.LocalAddr())
			}
		}
		n.trans.DisconnectAll()
		if err := n.r.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		if err := n.l.Close(clean); err != nil {
			t.Fatal(err)
		}
		nodes[i] = nil
	}
	for i := range nodes {
		nodes[i] = start(i)
	}
	connect()
	t.Cleanup(func() {
		for i := range nodes {
			if nodes[i] != nil {
				stop(i, true)
			}
		}
	})
	var servers []raft.Server
	for i := range nodes {
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: raft.ServerAddress(fmt.Sprint(i))})
	}
	if err := nodes[0].r.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		t.Fatal(err)
	}
	leader := func() int {
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			for i, n := range nodes {
				if n != nil && n.r.State() == raft.Leader && n.r.Barrier(time.Second).Error() == nil {
					return i
				}
			}
		}
		t.Fatal("no leader")
		return 0
	}
	written := 0
	apply := func(count int) {
		t.Helper()
		var futures []raft.ApplyFuture
		lead := nodes[leader()]
		for range count {
			written++
			futures = append(futures, lead.r.Apply(batch(t, testClock, fmt.Sprintf("v%d", written), "tail of some length to fill segments"), 5*time.Second))
		}
		for _, f := range futures {
			if err := f.Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	apply(300)
	for round := range 4 {
		old := leader()
		stop(old, round%2 == 0)
		apply(100)
		nodes[old] = start(old)
		connect()
		apply(100)
	}
	// All three end up the same (I9).
	last := nodes[leader()].r.LastIndex()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		behind := false
		for _, n := range nodes {
			behind = behind || n.r.AppliedIndex() < last
		}
		if !behind {
			break
		}
	}
	want := ""
	for i, n := range nodes {
		d, err := n.l.Digest(1, last)
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			want = d
		}
		if d != want {
			t.Errorf("node %d has other entries", i)
		}
		if n.f.mu.Lock(); n.f.bad != nil {
			t.Error(n.f.bad)
		}
		n.f.mu.Unlock()
		if n.l.EndOffset() != int64(2*written) {
			t.Errorf("node %d ends at %d, want %d", i, n.l.EndOffset(), 2*written)
		}
		if err := n.l.Verify(1); err != nil {
			t.Error(err)
		}
	}
}
