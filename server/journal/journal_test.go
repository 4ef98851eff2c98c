package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"millrace/replication"
	"millrace/segment/record"
	"millrace/server/coordinator"
)

// A scribe is a coordinator that tells the test what it is asked to do, and fails as
// many loads as it is told to.
type scribe struct {
	did   chan string
	fails chan struct{}
	epoch atomic.Int32 // in which partition 0 was loaded last
}

func (s *scribe) Load(partition, epoch int32, records iter.Seq2[record.Record, error]) (err error) {
	if partition == 0 {
		s.epoch.Store(epoch)
	}
	did := fmt.Sprintf("load %d:", partition)
	for r, err := range records {
		if err != nil {
			return err
		}
		did += " " + string(r.Value)
	}
	select {
	case <-s.fails:
		err = errors.New("as it was told to")
	default:
	}
	s.did <- did
	return err
}

func (s *scribe) Unload(partition int32) { s.did <- fmt.Sprintf("unload %d", partition) }

// does waits until all of want have been done, in any order.
func (s *scribe) does(t *testing.T, want ...string) {
	t.Helper()
	for len(want) > 0 {
		select {
		case did := <-s.did:
			i := slices.Index(want, did)
			if i < 0 {
				t.Fatalf("it does %q, want one of %q", did, want)
			}
			want = slices.Delete(want, i, i+1)
		case <-time.After(time.Minute):
			t.Fatalf("it does nothing, want %q", want)
		}
	}
}

// The life of a journal on one node: it is made, loaded, written to, read again after
// its coordinator gave a partition up, and given up with the server.
func TestATopicIsAJournal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	node, err := replication.Open(replication.Config{DataDir: t.TempDir(), Advertise: l.Addr().String(), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- node.Serve(l) }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	defer func() {
		if err := node.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		l.Close()
		<-served
	}()
	if err := node.Start(ctx); err != nil {
		t.Fatal(err)
	}
	topic := New(Config{
		Node: node, Name: "__state", Spec: state{}, Logger: logger})
	write := func(partition, epoch int32, value []byte) error {
		outcome := make(chan error, 1)
		topic.Append(partition, epoch, []record.Record{{Key: []byte("k"), Value: value}}, func(err error) { outcome <- err })
		return <-outcome
	}
	want := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) || want == nil && got != nil {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}

	if n := topic.Partitions(); n != 0 {
		t.Errorf("%d partitions before it is made", n)
	}
	want("an append before it is made", write(0, 1, nil), coordinator.ErrNotLeader)
	for range 2 {
		want("to make it", topic.Create(ctx), nil)
	}
	s := &scribe{did: make(chan string), fails: make(chan struct{}, 1)}
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); topic.Run(running, s) }()
	s.does(t, "unload 0", "unload 1", "load 0:", "load 1:")
	if n := topic.Partitions(); n != 2 {
		t.Errorf("%d partitions, want 2", n)
	}

	epoch := s.epoch.Load()
	want("an append", write(0, epoch, []byte("a")), nil)
	want("an append in another epoch", write(0, epoch+1, []byte("b")), coordinator.ErrNotLeader)
	want("an append to no partition", write(2, epoch, []byte("b")), coordinator.ErrNotLeader)
	want("an append that is too large", write(0, epoch, make([]byte, maxBatch)), coordinator.ErrTooLarge)
	want("the question whether it leads", topic.Confirm(ctx, 0, epoch), nil)
	want("that of another epoch", topic.Confirm(ctx, 0, epoch+1), coordinator.ErrNotLeader)

	topic.Lost(0, epoch-1) // an epoch that is over: nothing follows
	topic.mu.Lock()
	if h := topic.parts[0]; h.want != epoch || h.redo {
		t.Errorf("an epoch that is over has partition 0 loaded in epoch %d, again: %v", h.want, h.redo)
	}
	topic.mu.Unlock()
	s.fails <- struct{}{}
	topic.Lost(0, epoch)
	s.does(t, "unload 0")
	s.does(t, "load 0: a")
	s.does(t, "unload 0") // before it is tried again
	s.does(t, "load 0: a")

	stop()
	s.does(t, "unload 0", "unload 1")
	<-ended
}

// state is the Spec of a topic of two partitions.
type state struct{}

func (state) Request() replication.TopicRequest {
	return replication.TopicRequest{Name: "__state", Internal: true, Partitions: 2, Replicas: 1}
}

func (state) Codec() record.Codec { return 0 }
