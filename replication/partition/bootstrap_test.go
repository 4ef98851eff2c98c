package partition

import (
	"errors"
	"path/filepath"
	"testing"

	"millrace/log"
	"millrace/replication/metadata/settings"
	"millrace/replication/vote"
	"millrace/segment"
)

// A replica that joins its group knows the term before it has an entry. Started
// again in between it goes on; once it has stored something, its log must be there.
func TestJoiningReplicaMayBeEmptyUntilItStores(t *testing.T) {
	env, _, id := newTestEnv(t)
	// For a group that the node was not created with.
	id.Index = 7
	p := New(env, id, "orders", 1<<20, t.TempDir(), settings.Topic{})
	snapshots := &snapshotStore{fs: segment.OS, path: filepath.Join(p.dir, SnapshotName)}
	stable := p.env.Votes.Group(p.group)
	if err := stable.SetUint64([]byte(vote.CurrentTerm), 5); err != nil {
		t.Fatal(err)
	}
	if err := p.bootstrap(nil, stable, snapshots, 0); err != nil {
		t.Fatalf("with a term and no entry: %v", err)
	}
	if err := p.bootstrap(nil, stable, snapshots, 3); err != nil {
		t.Fatalf("with entries: %v", err)
	}
	if err := p.bootstrap(nil, stable, snapshots, 0); err == nil {
		t.Fatal("a replica whose log was lost would vote again")
	}
}

// A replica that was there when its group was founded has entry 1 before it reaches term
// 2. Without an entry in a later term its log was lost, and with it what it acknowledged:
// under the old name it must neither vote nor be counted again.
func TestFoundingReplicaWithoutItsLogIsQuarantined(t *testing.T) {
	env, _, id := newTestEnv(t)
	for term := range uint64(4) {
		p := New(env, id, "orders", 1<<20+term, t.TempDir(), settings.Topic{})
		if _, part, ok := p.lookup(); !ok || len(part.Bootstrap) != 1 {
			t.Fatal("the group was not founded with this node: the test shows nothing")
		}
		l, err := log.Open(filepath.Join(p.dir, "log"), segment.Identity{Cluster: "c"}, log.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(false)
		stable := p.env.Votes.Group(p.group)
		if term > 0 {
			if err := stable.SetUint64([]byte(vote.CurrentTerm), term); err != nil {
				t.Fatal(err)
			}
		}
		err = p.bootstrap(l, stable, &snapshotStore{fs: segment.OS, path: filepath.Join(p.dir, SnapshotName)}, 0)
		if last, _ := l.LastIndex(); term <= 1 && (err != nil || last != 1) {
			t.Errorf("in term %d: %v, the log ends at entry %d", term, err, last)
		} else if term > 1 && (!errors.Is(err, ErrQuarantined) || last != 0) {
			t.Errorf("in term %d: %v, the log ends at entry %d", term, err, last)
		}
	}
}
