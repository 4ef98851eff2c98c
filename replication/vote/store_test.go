package vote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

var _ raft.StableStore = (*Group)(nil)

// onDisk is a Config for a machine that does not lose power.
var onDisk = Config{Folder: folder{}}

type folder struct{}

func (folder) Replace(aside, path string) error { return os.Rename(aside, path) }

// A disk is a Disk that is one function.
type disk func(records map[string][]byte) error

func (d disk) Commit(records map[string][]byte) error { return d(records) }

func testStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "stable.db"), onDisk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reopened closes s and opens its file again.
func reopened(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := Open(s.path, onDisk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	return next
}

// counting makes the store count its commits.
func counting(s *Store) *atomic.Int64 {
	var n atomic.Int64
	commit := s.disk.Commit
	s.disk = disk(func(records map[string][]byte) error {
		n.Add(1)
		return commit(records)
	})
	return &n
}

// vote does what Raft's persistVote does.
func vote(g *Group, term uint64, candidate string) error {
	if err := g.SetUint64([]byte(lastVoteTerm), term); err != nil {
		return err
	}
	return g.Set([]byte(lastVoteCand), []byte(candidate))
}

func term(g *Group, term uint64) error { return g.SetUint64([]byte(CurrentTerm), term) }

// state is what Raft would read: current term, vote's term, vote's candidate.
func state(t testing.TB, g *Group) string {
	t.Helper()
	var all []string
	for _, key := range []string{CurrentTerm, lastVoteTerm} {
		n, err := g.GetUint64([]byte(key))
		if err != nil && err.Error() != "not found" {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(n))
	}
	candidate, err := g.Get([]byte(lastVoteCand))
	if err != nil && err.Error() != "not found" {
		t.Fatal(err)
	}
	return strings.Join(append(all, string(candidate)), " ")
}

// known reports whether a group has anything on disk.
func (s *Store) known(group uint64) bool { return slices.Contains(s.knownGroups(), group) }

// knownGroups lists the groups that have anything on disk, in order.
func (s *Store) knownGroups() (known []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for group, state := range s.groups {
		if len(state.values) > 0 {
			known = append(known, group)
		}
	}
	slices.Sort(known)
	return known
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestVotesAndTermsSurviveReopening(t *testing.T) {
	s := testStore(t)
	for group := uint64(1); group <= 50; group++ {
		g := s.Group(group)
		must(t, term(g, group+1))
		must(t, vote(g, group, fmt.Sprintf("%d.x", group)))
	}
	must(t, s.Group(3).Set([]byte("other"), nil))
	s = reopened(t, s)
	for group := uint64(1); group <= 50; group++ {
		if got, want := state(t, s.Group(group)), fmt.Sprintf("%d %d %d.x", group+1, group, group); got != want {
			t.Errorf("group %d: %s, want %s", group, got, want)
		}
	}
	if v, err := s.Group(3).Get([]byte("other")); v == nil || len(v) != 0 || err != nil {
		t.Errorf("an empty value is %v, %v: Raft takes a nil candidate for no vote", v, err)
	}
}

func TestWhatIsMissingIsToldAsRaftExpects(t *testing.T) {
	g := testStore(t).Group(1)
	if v, err := g.Get([]byte("x")); v != nil || err == nil || err.Error() != "not found" {
		t.Errorf("%v, %v", v, err)
	}
	if n, err := g.GetUint64([]byte("x")); n != 0 || err == nil || err.Error() != "not found" {
		t.Errorf("%d, %v", n, err)
	}
	must(t, g.Set([]byte("x"), []byte("three")))
	if _, err := g.GetUint64([]byte("x")); err == nil || err.Error() == "not found" {
		t.Errorf("five bytes as a number: %v", err)
	}
	if has, err := raft.HasExistingState(raft.NewInmemStore(), g, raft.NewInmemSnapshotStore()); has || err != nil {
		t.Errorf("a new group has state: %v, %v", has, err)
	}
}

func TestGroupsDoNotSeeEachOther(t *testing.T) {
	s := testStore(t)
	must(t, term(s.Group(1), 7))
	must(t, vote(s.Group(256), 8, "b"))
	if got := state(t, s.Group(1)) + "|" + state(t, s.Group(256)) + "|" + state(t, s.Group(2)); got != "7 0 |0 8 b|0 0 " {
		t.Error(got)
	}
}

func TestUnchangedValueCostsNothing(t *testing.T) {
	s := testStore(t)
	g := s.Group(1)
	must(t, term(g, 5))
	must(t, vote(g, 5, "a"))
	commits := counting(s)
	must(t, term(g, 5))
	must(t, vote(g, 5, "a"))
	must(t, g.Set([]byte(lastVoteCand), []byte("a")))
	if n := commits.Load(); n != 0 {
		t.Errorf("%d commits", n)
	}
	must(t, s.Close())
	must(t, term(g, 5)) // as NewRaft does, and what is on disk stays true
}

func TestVoteIsOneCommit(t *testing.T) {
	s := testStore(t)
	g := s.Group(1)
	must(t, vote(g, 4, "a"))
	commits := counting(s)

	must(t, g.SetUint64([]byte(lastVoteTerm), 5))
	if got := state(t, g); got != "0 5 a" || commits.Load() != 0 {
		t.Errorf("first half: reads %q after %d commits", got, commits.Load())
	}
	must(t, g.Set([]byte(lastVoteCand), []byte("b")))
	if got := state(t, g); got != "0 5 b" || commits.Load() != 1 {
		t.Errorf("both halves: reads %q after %d commits", got, commits.Load())
	}
	must(t, vote(g, 6, "b")) // the same candidate again: the term is news enough
	if got := state(t, reopened(t, s).Group(1)); got != "0 6 b" || commits.Load() != 2 {
		t.Errorf("reopened: reads %q after %d commits", got, commits.Load())
	}
}

func TestHalfAVoteNeverReachesTheDisk(t *testing.T) {
	s := testStore(t)
	g := s.Group(1)
	must(t, vote(g, 4, "a"))
	must(t, g.SetUint64([]byte(lastVoteTerm), 5))
	must(t, term(g, 5)) // a commit of the same group takes no half along
	must(t, g.Set([]byte("other"), []byte("x")))
	if got := state(t, s.Group(1)); got != "5 4 a" {
		t.Errorf("the group begins anew with %q", got)
	}
	must(t, g.SetUint64([]byte(lastVoteTerm), 5))
	must(t, g.SetUint64([]byte(lastVoteTerm), 4)) // back to what is on disk
	commits := counting(s)
	must(t, g.Set([]byte(lastVoteCand), []byte("a")))
	if commits.Load() != 0 {
		t.Error("a half that was taken back was committed")
	}
	must(t, g.SetUint64([]byte(lastVoteTerm), 9))
	if got := state(t, reopened(t, s).Group(1)); got != "5 4 a" {
		t.Errorf("after reopening: %q", got)
	}
}

func TestForgottenGroupIsGone(t *testing.T) {
	s := testStore(t)
	for group := uint64(1); group <= 3; group++ {
		must(t, vote(s.Group(group), group, "a"))
	}
	s.Group(9)
	if !s.known(2) || s.known(9) || s.known(77) || !reflect.DeepEqual(s.knownGroups(), []uint64{1, 2, 3}) {
		t.Errorf("known: %v, 2 %v, 9 %v, 77 %v", s.knownGroups(), s.known(2), s.known(9), s.known(77))
	}
	must(t, s.Forget(2))
	must(t, s.Forget(77))
	if s.known(2) || state(t, s.Group(2)) != "0 0 " {
		t.Errorf("group 2 reads %q", state(t, s.Group(2)))
	}
	s = reopened(t, s)
	if got := fmt.Sprint(s.knownGroups()); got != "[1 3]" {
		t.Errorf("after reopening: %s", got)
	}
	must(t, vote(s.Group(2), 1, "b"))
	if got := state(t, reopened(t, s).Group(2)); got != "0 1 b" {
		t.Errorf("a group of that number begins with %q", got)
	}
}

func TestSlicesBelongToTheCaller(t *testing.T) {
	g := testStore(t).Group(1)
	key, val := []byte("key"), []byte("val")
	must(t, g.Set(key, val))
	key[0], val[0] = 'x', 'x'
	got, err := g.Get([]byte("key"))
	if string(got) != "val" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	got[0] = 'x'
	if again, _ := g.Get([]byte("key")); string(again) != "val" {
		t.Errorf("%q", again)
	}
}

// The committer is held in its first commit until all other groups wait: they
// must then need one more, whatever their number.
func TestWritersThatGatherShareACommit(t *testing.T) {
	s := testStore(t)
	commit := s.disk.Commit
	var commits int
	entered, release := make(chan struct{}), make(chan struct{})
	s.disk = disk(func(records map[string][]byte) error {
		commits++
		if commits == 1 {
			close(entered)
			<-release
		}
		return commit(records)
	})
	const groups = 300
	var wait sync.WaitGroup
	begin := func(group uint64) {
		wait.Go(func() {
			if err := vote(s.Group(group), group, "a"); err != nil {
				t.Error(err)
			}
		})
	}
	begin(1)
	<-entered
	for group := uint64(2); group <= groups; group++ {
		begin(group)
	}
	for {
		s.mu.Lock()
		n := len(s.queue)
		s.mu.Unlock()
		if n == groups-1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if got := state(t, s.Group(400)); got != "0 0 " {
		t.Error(got) // and reads went on meanwhile
	}
	close(release)
	wait.Wait()
	if commits != 2 {
		t.Errorf("%d commits, want 2", commits)
	}
	s = reopened(t, s)
	if n := len(s.knownGroups()); n != groups {
		t.Errorf("%d groups on disk", n)
	}
}

// What was acknowledged is in the file at that moment: a copy of it, taken as a
// crash would leave it, opens with every vote given so far.
func TestEveryAcknowledgedVoteIsInTheFile(t *testing.T) {
	s := testStore(t)
	r := rand.New(rand.NewPCG(1, 2))
	want := make(map[uint64]string)
	for i := range uint64(200) {
		group := 1 + r.Uint64N(40)
		if r.IntN(10) == 0 {
			must(t, s.Forget(group))
			delete(want, group)
		} else {
			must(t, term(s.Group(group), i))
			must(t, vote(s.Group(group), i, fmt.Sprint("n", i)))
			want[group] = fmt.Sprintf("%d %d n%d", i, i, i)
		}
		if i%10 != 0 {
			continue
		}
		p, err := os.ReadFile(s.path)
		must(t, err)
		path := filepath.Join(t.TempDir(), "stable.db")
		must(t, os.WriteFile(path, p, 0o644))
		crashed, err := Open(path, onDisk)
		must(t, err)
		for group := uint64(1); group <= 40; group++ {
			got, known := state(t, crashed.Group(group)), crashed.known(group)
			if want, ok := want[group]; known != ok || ok && got != want {
				t.Fatalf("step %d, group %d: %q, want %q", i, group, got, want)
			}
		}
		must(t, crashed.Close())
	}
}

// faulty makes commits fail while the switch is on.
func faulty(s *Store) (broken *atomic.Bool, attempts *atomic.Int64) {
	broken, attempts = new(atomic.Bool), new(atomic.Int64)
	commit := s.disk.Commit
	s.disk = disk(func(records map[string][]byte) error {
		attempts.Add(1)
		if broken.Load() {
			return errors.New("no space left on device")
		}
		return commit(records)
	})
	return broken, attempts
}

func TestWriteThatFailsIsTriedUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		s, err := Open(filepath.Join(t.TempDir(), "stable.db"), Config{Folder: folder{}, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
		must(t, err)
		defer s.Close()
		broken, attempts := faulty(s)
		broken.Store(true)
		began := time.Now()
		var returned atomic.Int64
		for group := uint64(1); group <= 3; group++ {
			go func() {
				time.Sleep(time.Duration(group) * 10 * time.Second) // they come while it fails already
				if err := cmpErr(term(s.Group(group), 5), vote(s.Group(group), 5, "a")); err != nil {
					t.Error(err)
				}
				returned.Add(1)
			}()
		}
		time.Sleep(65 * time.Second)
		synctest.Wait()
		if returned.Load() != 0 || s.known(1) {
			t.Errorf("%d writers were told their votes are safe", returned.Load())
		}
		// 55 s of failing: 20 ms doubled to 2 s, then every 2 s; a line every 10 s.
		if n := attempts.Load(); n < 20 || n > 60 {
			t.Errorf("%d attempts", n)
		}
		if n := strings.Count(lines.String(), "no space left on device"); n < 4 || n > 6 {
			t.Errorf("%d lines: %s", n, &lines)
		}
		broken.Store(false)
		time.Sleep(retryMost)
		synctest.Wait()
		if returned.Load() != 3 {
			t.Errorf("%d writers went on after the disk came back, %s later", returned.Load(), time.Since(began))
		}
		if !strings.Contains(lines.String(), "saved again") {
			t.Errorf("nobody was told: %s", &lines)
		}
		for group := uint64(1); group <= 3; group++ {
			if got := state(t, s.Group(group)); got != "5 5 a" {
				t.Errorf("group %d: %s", group, got)
			}
		}
	})
}

func cmpErr(errs ...error) error { return errors.Join(errs...) }

func TestCloseLetsBlockedWritersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(filepath.Join(t.TempDir(), "stable.db"), onDisk)
		must(t, err)
		broken, _ := faulty(s)
		broken.Store(true)
		var voteErr, forgetErr error
		var termReturned, termEnded bool
		var wait sync.WaitGroup
		wait.Go(func() { voteErr = vote(s.Group(1), 5, "a") })
		wait.Go(func() {
			defer func() { termEnded = true }()
			term(s.Group(2), 5)
			termReturned = true
		})
		time.Sleep(time.Minute)
		must(t, s.Close())
		wait.Wait()
		if !errors.Is(voteErr, ErrClosed) {
			t.Errorf("vote: %v; Raft takes an error as a vote not given", voteErr)
		}
		if termReturned || !termEnded {
			t.Errorf("term: returned %v, deferred calls ran %v", termReturned, termEnded)
		}
		forgetErr = s.Forget(1)
		if forgetErr != nil || s.known(1) || s.known(2) {
			t.Errorf("nothing was saved, so nothing is known: %v", forgetErr)
		}

		// And so it is for those that come later.
		if err := vote(s.Group(3), 1, "a"); !errors.Is(err, ErrClosed) {
			t.Errorf("vote after Close: %v", err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			term(s.Group(3), 1)
			t.Error("a term was taken after Close")
		}()
		<-ended
		must(t, s.Close())
	})
}

func TestCloseCommitsWhatWaits(t *testing.T) {
	s := testStore(t)
	commit := s.disk.Commit
	entered, release := make(chan struct{}), make(chan struct{})
	first := true
	s.disk = disk(func(records map[string][]byte) error {
		if first {
			first = false
			close(entered)
			<-release
		}
		return commit(records)
	})
	errs := make(chan error, 2)
	go func() { errs <- vote(s.Group(1), 1, "a") }()
	<-entered
	go func() { errs <- vote(s.Group(2), 2, "b") }()
	for {
		s.mu.Lock()
		n := len(s.queue)
		s.mu.Unlock()
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	go close(release)
	must(t, s.Close())
	must(t, <-errs)
	must(t, <-errs)
	if s = reopened(t, s); !s.known(1) || !s.known(2) {
		t.Errorf("known: %v", s.knownGroups())
	}
}

// bbolt itself runs out of room in the middle of a transaction, several times,
// and goes on from what is on disk.
func TestStoreGoesOnAfterBoltFails(t *testing.T) {
	s := testStore(t)
	must(t, vote(s.Group(1), 1, "a"))
	commit := s.disk.Commit
	failures := 0
	s.disk = disk(func(records map[string][]byte) error {
		s.db.MaxSize = 0
		if failures < 3 {
			s.db.MaxSize = 1
		}
		err := commit(records)
		if err != nil {
			failures++
		}
		return err
	})
	large := bytes.Repeat([]byte("x"), 100_000) // needs pages the file does not have
	must(t, s.Group(2).Set([]byte("large"), large))
	if failures != 3 {
		t.Fatalf("%d commits failed, want 3: the test does not test what it says", failures)
	}
	must(t, vote(s.Group(1), 2, "b"))
	s = reopened(t, s)
	if got, err := s.Group(2).Get([]byte("large")); !bytes.Equal(got, large) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got := state(t, s.Group(1)); got != "0 2 b" {
		t.Error(got)
	}
}

// electing starts the only member of a group. It becomes leader unless its
// store stops it.
func electing(t *testing.T, g *Group) (*raft.Raft, error) {
	t.Helper()
	cfg := raft.DefaultConfig()
	cfg.LocalID = "1.a"
	cfg.Logger = hclog.NewNullLogger()
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	logs, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	_, transport := raft.NewInmemTransport("1.a")
	has, err := raft.HasExistingState(logs, g, snaps)
	if err == nil && !has {
		err = raft.BootstrapCluster(cfg, logs, g, snaps, transport, raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}}})
	}
	if err != nil {
		return nil, err
	}
	return raft.NewRaft(cfg, nullFSM{}, logs, g, snaps, transport)
}

type nullFSM struct{}

func (nullFSM) Apply(*raft.Log) any                  { return nil }
func (nullFSM) Snapshot() (raft.FSMSnapshot, error)  { return nil, errors.New("no snapshots") }
func (nullFSM) Restore(snapshot io.ReadCloser) error { return snapshot.Close() }

func TestRaftElectsItsLeaderThroughTheStore(t *testing.T) {
	s := testStore(t)
	r, err := electing(t, s.Group(7))
	must(t, err)
	if leads := <-r.LeaderCh(); !leads {
		t.Fatal("not elected")
	}
	must(t, r.Shutdown().Error())
	s = reopened(t, s)
	if got := state(t, s.Group(7)); got != "2 2 1.a" {
		t.Errorf("on disk: %s", got)
	}
}

func TestRaftOutlivesADiskThatStaysFullUntilTheEnd(t *testing.T) {
	s := testStore(t)
	broken, attempts := faulty(s)
	commit := s.disk.Commit
	failing := make(chan struct{})
	var once sync.Once
	s.disk = disk(func(records map[string][]byte) error {
		err := commit(records)
		if err != nil {
			once.Do(func() { close(failing) })
		} else {
			broken.Store(true) // the bootstrap was the last that fitted
		}
		return err
	})
	r, err := electing(t, s.Group(7))
	must(t, err)
	<-failing // its candidate's term does not get to disk
	if leader, _ := r.LeaderWithID(); leader != "" || attempts.Load() == 0 {
		t.Errorf("a leader without a term: %s", leader)
	}
	must(t, s.Close())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- r.Shutdown().Error() }()
	select {
	case err := <-down:
		must(t, err)
	case <-ctx.Done():
		t.Fatal("Shutdown hangs")
	}
	if r.State() != raft.Shutdown {
		t.Errorf("state %v", r.State())
	}
}

func TestCrashWhileCreatingLeavesNothingThatMatters(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "stable.db")
	must(t, os.WriteFile(path+".new", []byte("half"), 0o644))
	s, err := Open(path, onDisk)
	must(t, err)
	must(t, term(s.Group(1), 1))
	must(t, s.Close())
	if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := Open(filepath.Join(folder, "no folder", "stable.db"), onDisk); err == nil {
		t.Error("opened in a folder that is not there")
	}
}

// Who has the file open is said, instead of that a lock timed out.
func TestSecondProcessIsRefused(t *testing.T) {
	s := testStore(t)
	want := &InUseError{Path: s.path}
	if runtime.GOOS == "linux" {
		want.PID = os.Getpid()
	}
	_, err := Open(s.path, onDisk)
	var got *InUseError
	if !errors.As(err, &got) || *got != *want {
		t.Errorf("opened twice: %v, want %v", err, want)
	}
	if err := InUse(s.path); !errors.As(err, &got) || *got != *want {
		t.Errorf("asked whether it is in use: %v, want %v", err, want)
	}
	must(t, term(s.Group(1), 1))
	must(t, s.Close())
	for _, path := range []string{s.path, s.path + "-none"} {
		if err := InUse(path); err != nil {
			t.Errorf("%s is in use by nobody: %v", path, err)
		}
	}
}

// BenchmarkElections times 300 groups that all vote at once: a term and a vote
// each, as a candidate writes them. "one commit each" is how raft-boltdb writes
// them: a transaction for every key.
func BenchmarkElections(b *testing.B) {
	const groups = 300
	run := func(b *testing.B, elect func(group, term uint64) error) {
		next := uint64(0)
		for b.Loop() {
			next++
			var wait sync.WaitGroup
			for group := range uint64(groups) {
				wait.Go(func() {
					if err := elect(group+1, next); err != nil {
						b.Error(err)
					}
				})
			}
			wait.Wait()
		}
	}
	b.Run("batched", func(b *testing.B) {
		s := testStore(b)
		commits := counting(s)
		run(b, func(group, next uint64) error {
			g := s.Group(group)
			return cmpErr(term(g, next), vote(g, next, "1.incarnation"))
		})
		b.ReportMetric(float64(commits.Load())/float64(b.N), "commits/op")
	})
	b.Run("one commit each", func(b *testing.B) {
		db, err := openBolt(filepath.Join(b.TempDir(), "bolt.db"))
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		put := func(group uint64, name string, value []byte) error {
			return db.Update(func(tx *bbolt.Tx) error {
				bucket, err := tx.CreateBucketIfNotExists(bucketName)
				if err != nil {
					return err
				}
				return bucket.Put([]byte(recordKey(group, name)), value)
			})
		}
		run(b, func(group, next uint64) error {
			n := binary.BigEndian.AppendUint64(nil, next)
			return cmpErr(put(group, CurrentTerm, n), put(group, lastVoteTerm, n), put(group, lastVoteCand, []byte("1.incarnation")))
		})
		b.ReportMetric(3*groups, "commits/op")
	})
}

// A vote that is on disk is not written once more with whatever comes.
func TestWhatIsOnDiskIsNotWrittenAgain(t *testing.T) {
	s := testStore(t)
	g := s.Group(1)
	must(t, vote(g, 5, "a"))
	commits := counting(s)
	must(t, g.Set([]byte(lastVoteCand), []byte("a")))
	must(t, vote(g, 5, "a"))
	if n := commits.Load(); n != 0 {
		t.Errorf("%d commits of what was there", n)
	}
}

// held has the store's commits wait until release is closed.
func held(s *Store) (release chan struct{}) {
	commit := s.disk.Commit
	release = make(chan struct{})
	s.disk = disk(func(records map[string][]byte) error {
		<-release
		return commit(records)
	})
	return release
}

// What a group writes and what deletes it may go in one commit, and the later counts.
func TestForgetTakesWhatIsAboutToBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testStore(t)
		g := s.Group(1)
		must(t, term(g, 1)) // without anything on disk there would be nothing to forget
		release := held(s)
		done := make(chan error, 3)
		go func() { done <- term(s.Group(2), 1) }()
		synctest.Wait() // its commit is under way
		go func() { done <- g.Set([]byte("other"), []byte("x")) }()
		synctest.Wait()
		go func() { done <- s.Forget(1) }()
		synctest.Wait()
		close(release)
		for range 3 {
			must(t, <-done)
		}
		if got := s.knownGroups(); !slices.Equal(got, []uint64{2}) {
			t.Errorf("known: %v", got)
		}
		if got := reopened(t, s).knownGroups(); !slices.Equal(got, []uint64{2}) {
			t.Errorf("after reopening: %v", got)
		}
	})
}

// recovered notes the groups whose writes had to wait.
type recovered struct{ groups chan uint64 }

func (r recovered) VotesRecovered(group uint64) { r.groups <- group }

// Those who come while the disk refuses go with those who wait, once it does not, and
// their groups are told of to the observer. No other is.
func TestWhoComesWhileTheDiskFailsGoesWithTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := recovered{make(chan uint64, 10)}
		s, err := Open(filepath.Join(t.TempDir(), "stable.db"), Config{Folder: folder{}, Observer: heard})
		must(t, err)
		defer s.Close()
		must(t, term(s.Group(9), 1))
		broken, attempts := faulty(s)
		broken.Store(true)
		done := make(chan error, 3)
		for group := uint64(1); group <= 3; group++ {
			go func() { done <- term(s.Group(group), 5) }()
			time.Sleep(time.Minute)
		}
		before := attempts.Load()
		broken.Store(false)
		for range 3 {
			must(t, <-done)
		}
		synctest.Wait()
		if n := attempts.Load() - before; n != 1 {
			t.Errorf("%d commits for three who waited", n)
		}
		close(heard.groups)
		var groups []uint64
		for group := range heard.groups {
			groups = append(groups, group)
		}
		if slices.Sort(groups); !slices.Equal(groups, []uint64{1, 2, 3}) {
			t.Errorf("groups that were told of: %v", groups)
		}
	})
}

// A strictFolder notes what it is asked to put in place, and may refuse.
type strictFolder struct {
	folder
	asked []string
	err   error
}

func (f *strictFolder) Replace(aside, path string) error {
	f.asked = append(f.asked, filepath.Base(aside)+" "+filepath.Base(path))
	if f.err != nil {
		return f.err
	}
	return f.folder.Replace(aside, path)
}

// The folder gives a new file its name, by which it is durable, and only a new one.
func TestANewFileIsPutInPlaceByItsFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stable.db")
	in := &strictFolder{err: errors.New("no power")}
	if _, err := Open(path, Config{Folder: in}); !errors.Is(err, in.err) {
		t.Errorf("the folder refuses, and Open says %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("and the file is there: %v", err)
	}
	in.err = nil
	for range 2 {
		s, err := Open(path, Config{Folder: in})
		must(t, err)
		must(t, s.Close())
	}
	if want := []string{"stable.db.new stable.db", "stable.db.new stable.db"}; !slices.Equal(in.asked, want) {
		t.Errorf("asked for %q, want %q: once in vain, and once", in.asked, want)
	}
}

// What a crash would show cannot be seen from here: whether the machine has a commit on
// disk when it says so.
func TestCommitsAreSynced(t *testing.T) {
	if db := testStore(t).db; db.NoSync || db.NoGrowSync {
		t.Errorf("NoSync %v, NoGrowSync %v", db.NoSync, db.NoGrowSync)
	}
}
