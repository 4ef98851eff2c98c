package partition

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
	"millrace/replication/vote"
	"millrace/segment"
	"millrace/segment/record"
)

// A testNode hosts the partitions of a test. It is the only node of its cluster, and hears
// nobody. It implements Host and Events.
type testNode struct {
	image   *metadata.Image
	disk    *testDisk
	tracked sync.WaitGroup
}

func (n *testNode) Image() *metadata.Image                { return n.image }
func (n *testNode) Connected(raft.ServerID) bool          { return false }
func (n *testNode) HasOpen(raft.ServerID, uint64) bool    { return false }
func (n *testNode) GoTracked(f func())                    { n.tracked.Go(f) }
func (n *testNode) QueueSnapshot(*Replica) bool           { return false }
func (n *testNode) RetainBy(int64)                        {}
func (n *testNode) LacksRoom() bool                       { return false }
func (n *testNode) Full(*slog.Logger, error)              {}
func (n *testNode) MembersChanged(uint64, string, string) {}

func (n *testNode) HeardOf(_ raft.ServerID, now time.Time) (time.Time, bool) { return now, true }

func (n *testNode) CallBulk(int32, uint8, []byte) ([]byte, error) {
	return nil, errors.New("there is no other node")
}

func (n *testNode) Opened(uint64)        {}
func (n *testNode) Closed(uint64)        {}
func (n *testNode) NotOpen()             {}
func (n *testNode) Noticed()             {}
func (n *testNode) Leads(uint64, uint64) {}
func (n *testNode) Ended(uint64)         {}
func (n *testNode) StoodDown(uint64)     {}

// newTestEnv returns the environment of a node's partitions: node 1 of a cluster that has a
// topic of one partition, orders/0. The node's end closes the partitions first.
func newTestEnv(t testing.TB) (env *Env, n *testNode, id metadata.PartitionID) {
	t.Helper()
	id.Topic, _ = metadata.NewTopicID(rand.Reader)
	n = &testNode{image: new(metadata.Image), disk: newTestDisk()}
	for i, c := range []metadata.Change{
		metadata.RegisterBroker{Broker: metadata.Broker{ID: 1, Incarnation: "a", Host: "h", Port: 1}, ClusterID: "c"},
		metadata.CreateTopic{ID: id.Topic, Name: "orders", Assignment: [][]int32{{1}}},
	} {
		var err error
		if n.image, err = n.image.Apply(uint64(i+1), c); err != nil {
			t.Fatal(err)
		}
	}
	votes, err := vote.Open(filepath.Join(t.TempDir(), "votes"), vote.Config{Folder: renames{}})
	if err != nil {
		t.Fatal(err)
	}
	env = newTestEnvOver(t, n)
	env.Votes = votes
	t.Cleanup(func() { votes.Close() })
	return env, n, id
}

// newTestEnvOver is the same without votes.
func newTestEnvOver(t testing.TB, n *testNode) *Env {
	ctx, cancel := context.WithCancel(context.Background())
	tr := transport.New(transport.Config{
		Local: transport.Peer{Node: 1, Incarnation: "a"}, Cluster: "c", Entries: testEntries{},
	})
	t.Cleanup(func() {
		cancel()
		tr.Close()
		n.tracked.Wait()
	})
	return &Env{
		Cluster: "c", Self: "1.a", FS: n.disk, Now: time.Now, Cache: log.NewCache(1 << 20), Transport: tr,
		LogLimits: raftgroup.NewLogLimits(), Budget: NewBudget(), Logger: slog.New(slog.DiscardHandler),
		Ctx: ctx, Closing: ctx.Done(), Host: n, Events: n,
	}
}

// renames is a vote.Folder.
type renames struct{}

func (renames) Replace(aside, path string) error {
	_, err := segment.Replace(segment.OS, aside, path)
	return err
}

// alone returns a partition whose only replica leads.
func alone(t testing.TB) (*Partition, *testNode) {
	t.Helper()
	env, n, id := newTestEnv(t)
	p := New(env, id, "orders", 1, filepath.Join(t.TempDir(), FolderName(id)), settings.Topic{
		SegmentBytes: 1 << 20, SegmentMillis: 1 << 40, FlushMessages: 1, RetentionMillis: -1, RetentionBytes: -1,
	})
	p.Open()
	if err := p.Down(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(true) })
	lead(t, p)
	return p, n
}

// lead has a partition's replica campaign, and waits until it serves.
func lead(t testing.TB, p *Partition) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := p.Serving(); err == nil {
			return
		}
		if r := p.Replica(); r != nil && r.Raft.State() == raft.Follower {
			r.Port.Elect() // again, if it was not ready to be told
		}
		if time.Since(began) > time.Minute {
			t.Fatal("the replica does not lead")
		}
	}
}

// appendWait appends a batch and waits for the answer.
func appendWait(p *Partition, b record.Batch) (Ack, error) {
	type answer struct {
		ack Ack
		err error
	}
	done := make(chan answer, 1)
	p.Append([]record.Batch{b}, told(func(ack Ack, err error) { done <- answer{ack, err} }))
	a := <-done
	return a.ack, a.err
}

// holds reads all of a partition, and fails if it is not these values.
func holds(t *testing.T, p *Partition, want ...string) {
	t.Helper()
	var got []string
	for offset := p.StartOffset(); offset < p.HighWatermark(); {
		v, err := p.Read(offset, 1<<20, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, rest := range v.Bytes {
			for len(rest) > 0 {
				b, next, err := record.Split(rest)
				if err != nil {
					t.Fatal(err)
				}
				for r, err := range b.Records() {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, string(r.Value))
				}
				offset, rest = b.NextOffset(), next
			}
		}
		v.Release()
	}
	if len(got) != len(want) {
		t.Fatalf("it holds %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("it holds %q, want %q", got, want)
		}
	}
}

// testEntries are what the transport knows of a partition's entries.
type testEntries struct{}

func (testEntries) Sum(sum uint32, l *raft.Log) uint32 { return SumEntry(sum, l) }

func (testEntries) Check(_ uint64, l *raft.Log) error {
	if l.Type != raft.LogCommand {
		return nil
	}
	return CheckEntry(l)
}

// dialled are connections to one listener.
type dialled struct{ addr string }

func (d dialled) Resolve(int32) (string, bool)       { return d.addr, true }
func (d dialled) About() string                      { return "" }
func (d dialled) Judge(transport.Peer, string) error { return nil }
func (d dialled) Admitted(transport.Peer, string)    {}

// serving has a transport serve a listener of its own, until the test ends.
func serving(t *testing.T, tr *transport.Transport) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { tr.Serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		tr.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

// A testDisk is the operating system's file system, whose syncs may be held or fail, and
// which may have no room but what is given back to it.
type testDisk struct {
	segment.FS
	mu      sync.Mutex
	changed sync.Cond
	held    bool
	err     error
	full    bool
	freed   int64 // bytes given back since it is full
}

func newTestDisk() *testDisk {
	d := &testDisk{FS: segment.OS}
	d.changed.L = &d.mu
	return d
}

// set says whether syncs wait from now on, and what they return then.
func (d *testDisk) set(held bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held, d.err = held, err
	d.changed.Broadcast()
}

// fill takes what room there is.
func (d *testDisk) fill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.freed = true, 0
}

func (d *testDisk) OpenFile(name string, flag int) (segment.File, error) {
	f, err := d.FS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return &testFile{File: f, disk: d}, nil
}

type testFile struct {
	segment.File
	disk     *testDisk
	promised int64 // bytes of room that are its own
}

func (f *testFile) Allocate(from, to int64) error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return syscall.ENOSPC
	}
	f.promised += to - from
	return f.File.Allocate(from, to)
}

func (f *testFile) Sync() error {
	d := f.disk
	d.mu.Lock()
	for d.held {
		d.changed.Wait()
	}
	err := d.err
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *testFile) Pwritev(bufs [][]byte, off int64) error {
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.full:
	case f.promised >= n:
		f.promised -= n
	case d.freed < n:
		return syscall.ENOSPC
	default:
		d.freed -= n
	}
	return f.File.Pwritev(bufs, off)
}

func (f *testFile) Punch(from, to int64) error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	free := min(f.promised, to-from)
	f.promised -= free
	d.freed += free
	return f.File.Punch(from, to)
}

// told is a function as an Appender.
type told func(Ack, error)

func (f told) Appended(ack Ack, err error) { f(ack, err) }
