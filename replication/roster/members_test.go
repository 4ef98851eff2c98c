package roster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// Whatever happens to what a node says of its age on the way, late, repeated, out of
// order, from runs that are over: nobody says that the folder that is the newest is a
// copy. And of a copy from before something that was heard, everybody does.
func TestNoOrderOfMessagesMakesACopyOfTheOriginal(t *testing.T) {
	type said struct {
		text string
		run  string
		age  uint64
	}
	copies := 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := NewMembers(Config{Began: time.Now(), Node: &testNode{image: &metadata.Image{}}})
		p := transport.Peer{Node: 3, Incarnation: "0123abcd"}
		disk, now, runs := uint64(1), uint64(1), 0
		var way []said
		heard := uint64(0)
		run := func() string { return fmt.Sprint("run ", runs) }
		for range 100 {
			switch r.IntN(5) {
			case 0: // the folder is started again
				disk++
				now = disk
				runs++
			case 1: // it is raised, and what is raised is said once that is done
				if disk = now + 1; r.IntN(4) > 0 {
					now = disk
				} else { // a crash in between
					disk++
					now = disk
					runs++
				}
			case 2:
				way = append(way, said{About{Low: 1, High: 2, Age: now, Run: run()}.Encode(), run(), now})
			default:
				if len(way) == 0 {
					continue
				}
				i := r.IntN(len(way))
				m := way[i]
				if r.IntN(2) == 0 {
					way = append(way[:i], way[i+1:]...)
				}
				if r.IntN(2) == 0 { // a handshake, and not gossip
					err := n.Judge(p, m.text)
					if m.run == run() && err != nil {
						t.Fatalf("seed %d: the newest folder, at age %d: %v", seed, now, err)
					}
					if err != nil {
						continue
					}
				}
				n.Admitted(p, m.text)
				heard = max(heard, m.age)
			}
		}
		for old := uint64(0); old < heard; old++ { // a copy at age old says one more when it is started
			copies++
			if err := n.Judge(p, About{Low: 1, High: 2, Age: old + 1, Run: "copy"}.Encode()); !errors.Is(err, transport.ErrOldDisk) {
				t.Fatalf("seed %d: a copy at age %d was let in, and %d was heard: %v", seed, old, heard, err)
			}
		}
		if err := n.Judge(p, About{Low: 1, High: 2, Age: heard + 1, Run: "next"}.Encode()); err != nil {
			t.Fatalf("seed %d: the next start: %v", seed, err)
		}
	}
	if copies < 10_000 {
		t.Errorf("%d copies were looked at", copies)
	}
}

// members returns node 1's, which reads all feature levels.
func members(n *testNode) *Members {
	return NewMembers(Config{
		Self: transport.Peer{Node: 1, Incarnation: one.Incarnation}, Run: "run", Began: time.Now(),
		MaxLevel: metadata.MaxLevel, Node: n, Logger: slog.New(slog.DiscardHandler),
	})
}

// A peer is let in by its incarnation, or as a controller; others once there has been no
// controller for a while, when the image may be old.
func TestWhoIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &testNode{image: of(t, one, two)}
		m := members(n)
		says := About{Low: 1, High: metadata.MaxLevel, Age: 5, Run: "a"}.Encode()
		replaced := (*transport.ReplacedError)(nil)
		registered, other, stranger := transport.Peer{Node: 2, Incarnation: two.Incarnation}, transport.Peer{Node: 2, Incarnation: "ffffffff"}, transport.Peer{Node: 9, Incarnation: "99999999"}
		if err := m.Judge(registered, says); err != nil {
			t.Errorf("a registered node: %v", err)
		}
		if err := m.Judge(registered, "short"); err == nil {
			t.Error("who says what cannot be read is let in")
		}
		if err := m.Judge(other, says); !errors.As(err, &replaced) || replaced.At != n.image.Index {
			t.Errorf("another incarnation: %v", err)
		}
		if err := m.Judge(stranger, says); !errors.Is(err, transport.ErrStranger) {
			t.Errorf("a stranger: %v", err)
		}
		n.servers = []raft.Server{{ID: stranger.ServerID(), Suffrage: raft.Nonvoter}}
		if err := m.Judge(stranger, says); err != nil {
			t.Errorf("a controller that is not registered yet: %v", err)
		}
		n.servers = nil
		time.Sleep(lostAfter)
		m.Controlled()
		time.Sleep(lostAfter)
		if err := m.Judge(stranger, says); !errors.Is(err, transport.ErrStranger) {
			t.Errorf("a stranger, while there was a controller of late: %v", err)
		}
		time.Sleep(time.Second)
		if err := m.Judge(stranger, says); err != nil {
			t.Errorf("whoever comes when there has been no controller: %v", err)
		}
	})
}

// A clone that calls before the node itself, or after it, is refused; the node is not taken
// for one for long.
func TestACloneIsToldFromTheNode(t *testing.T) {
	n := &testNode{image: of(t, one, two)}
	m := members(n)
	p := transport.Peer{Node: 2, Incarnation: two.Incarnation}
	at := func(age uint64, run string) string { return About{Low: 1, High: 1, Age: age, Run: run}.Encode() }
	m.Admitted(p, at(7, "a"))
	if got := m.Last(p); got.Age != 7 || got.Run != "a" {
		t.Errorf("it said %+v", got)
	}
	for _, copied := range []string{at(6, "b"), at(7, "b")} {
		if err := m.Judge(p, copied); !errors.Is(err, transport.ErrOldDisk) || !m.IsCopy(p) {
			t.Errorf("a copy: %v", err)
		}
	}
	if err := m.Judge(p, at(7, "a")); err != nil {
		t.Errorf("the node itself: %v", err)
	}
	m.Admitted(p, at(7, "a"))
	if m.IsCopy(p) {
		t.Error("the node that was let in is a copy")
	}
}

// That most controllers are old copies is said once.
func TestTooManyCopiesAreSaidOnce(t *testing.T) {
	var log bytes.Buffer
	n := &testNode{image: of(t, one, two, three)}
	m := NewMembers(Config{Self: transport.Peer{Node: 1, Incarnation: one.Incarnation}, Began: time.Now(), Node: n, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, b := range []metadata.Broker{one, two, three} {
		n.servers = append(n.servers, raft.Server{ID: raft.ServerID(b.ServerID()), Suffrage: raft.Voter})
	}
	for i, b := range []metadata.Broker{two, three, two, three} {
		p := transport.Peer{Node: b.ID, Incarnation: b.Incarnation}
		m.Admitted(p, About{Low: 1, High: 1, Age: 7, Run: "a"}.Encode())
		if err := m.Judge(p, About{Low: 1, High: 1, Age: 6, Run: "b"}.Encode()); !errors.Is(err, transport.ErrOldDisk) {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.oldCopies[p] = true // whoever is let in meanwhile
		m.mu.Unlock()
		if said, want := strings.Count(log.String(), "a majority of the controllers are old copies"), min(i, 1); said != want {
			t.Errorf("after %d copies it is said %d times, want %d", i+1, said, want)
		}
	}
}

// It takes a majority of the other brokers, at a later change, to end a node whose place
// another incarnation is said to have.
func TestAMajoritySaysThatANodeWasReplaced(t *testing.T) {
	n := &testNode{image: of(t, one, two, three)}
	m := members(n)
	later := n.image.Index + 1
	m.Replaced(transport.Peer{Node: 2}, n.image.Index, "behind")
	m.Replaced(transport.Peer{Node: 2}, later, "alone")
	m.Replaced(transport.Peer{Node: 2}, later+1, "again")
	m.Replaced(transport.Peer{Node: 1}, later, "itself")
	m.Replaced(transport.Peer{Node: 9}, later, "a stranger")
	if len(n.outdated) > 0 {
		t.Fatalf("it ends: %q", n.outdated)
	}
	m.Replaced(transport.Peer{Node: 3}, later, "a majority")
	if want := []string{"node 3 says: a majority"}; !slices.Equal(n.outdated, want) {
		t.Errorf("%q, want %q", n.outdated, want)
	}
	m.Outdated(transport.Peer{Node: 9}, "a stranger")
	m.Outdated(transport.Peer{Node: 2}, "old")
	if len(n.outdated) != 2 || n.outdated[1] != "old" {
		t.Errorf("a member's word, and no stranger's, ends it: %q", n.outdated)
	}
}
