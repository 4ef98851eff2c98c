package partition

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/segment"
)

// TestASnapshotAsksForRoom: without one nothing on a full disk can be deleted.
func TestASnapshotAsksForRoom(t *testing.T) {
	d, dir := newTestDisk(), t.TempDir()
	replicaIn := func(name string) *Replica {
		l, err := log.Open(filepath.Join(dir, name), segment.Identity{Cluster: "c"}, log.Config{FS: d})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(false) })
		if err := l.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogNoop}); err != nil {
			t.Fatal(err)
		}
		return testReplica(t, l)
	}
	poor, rich := replicaIn("poor"), replicaIn("rich")
	var said bytes.Buffer
	poor.p.logger = slog.New(slog.NewTextHandler(&said, nil))
	poor.store.ReleaseRoom()
	s, err := openSnapshots(d, dir)
	if err != nil {
		t.Fatal(err)
	}
	d.fill()
	snap := &snapshot{index: 7, term: 2, configuration: raft.EncodeConfiguration(raft.Configuration{}), state: make([]byte, 8<<10)}
	s.r = poor // its log has given back all that it can
	if err := s.put(snap); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(said.String(), "a snapshot was not kept") {
		t.Fatalf("a full disk took it: %v, and said %q", err, said.String())
	}
	s.r = rich
	if err := s.put(snap); err != nil {
		t.Fatal(err)
	}
	if cause := errors.Join(poor.ended(), rich.ended()); cause != nil {
		t.Errorf("for want of room a replica is ended: %v", cause)
	}
	if again, err := openSnapshots(d, dir); err != nil || again.index() != 7 {
		t.Fatal(err)
	}
}
