package failover

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/replication/metadata"
	"millrace/replication/transport"
)

func TestGossipSurvivesItsEncoding(t *testing.T) {
	g := gossip{first: true, open: []uint64{0, 7}, leads: []groupTerm{{7, 3}}}
	p := g.encode()
	got, err := decodeGossip(p)
	if err != nil || !got.first || len(got.open) != 2 || got.open[1] != 7 || len(got.leads) != 1 || got.leads[0] != g.leads[0] {
		t.Fatalf("got %+v, %v", got, err)
	}
	g.number = 9
	numbered := g.encode()
	if got, err := decodeGossip(numbered); err != nil || !got.first || got.number != 9 || len(got.leads) != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	g.about = "what a node says about itself"
	old := g.encode()
	if got, err := decodeGossip(old); err != nil || got.number != 9 || got.about != g.about {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, p := range [][]byte{p, numbered, old[:len(old)-len(g.about)+1]} { // about is the rest
		for n := range p {
			if _, err := decodeGossip(p[:n]); err == nil {
				t.Fatalf("the first %d of %d bytes were taken for whole", n, len(p))
			}
		}
	}
}

func FuzzGossip(f *testing.F) {
	f.Add(gossip{open: []uint64{1}, leads: []groupTerm{{1, 2}}}.encode())
	f.Add(gossip{first: true, number: 3, about: "what a node says about itself"}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		g, err := decodeGossip(p)
		if err == nil && len(g.encode()) != len(p) {
			t.Fatal("gossip that was read has another length when written")
		}
	})
}

// started returns a world of three nodes in which n1 leads group 1, and all know that.
func started(t *testing.T) *world {
	w := newWorld(t, 3)
	for _, command := range []string{"group g1", "start n1 n2 n3", "open g1", "wait 1s"} {
		w.run(strings.Fields(command))
	}
	if node, _, ok := w.nodes[3].f.Leader(1); !ok || node != 1 {
		t.Fatalf("node 3 says that %d leads: this tests nothing", node)
	}
	return w
}

// What was on its way while it was said again, with more, changes nothing.
func TestOvertakenGossipChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t)
		defer w.end()
		f, from := w.nodes[2].f, w.nodes[1].process()
		g := w.nodes[1].f.gossip.fullState()
		for _, number := range []uint64{1 << 40, 1<<40 - 1, 1} {
			g.number = number
			if err := f.ReceiveGossip(from.Peer, g.encode()); err != nil {
				t.Fatal(err)
			}
			g = gossip{first: true}
		}
		if node, _, ok := f.Leader(1); !ok || node != 1 {
			t.Errorf("it is said that %d leads the group (%v), want 1", node, ok)
		}
		if !f.HasOpen(serverID(1), 1) {
			t.Error("the leader is said not to have it open")
		}
		f.gossip.mu.Lock()
		defer f.gossip.mu.Unlock()
		if len(f.gossip.numbers) != 2 {
			t.Errorf("%d processes count what they say, want 2", len(f.gossip.numbers))
		}
	})
}

// Two nodes need not lose each other at the same time. One that was paused finds new
// connections beside the old ones and has heard the other all the while, so it says
// nothing again; the other had given it up, and must still know what it has open, else it
// would never find a quorum for a group.
func TestNodeThatWasGivenUpAndCameBackStillHasItsGroupsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t)
		defer w.end()
		f, lost := w.nodes[1].f, w.nodes[2].process()
		if !f.HasOpen(serverID(2), 1) {
			t.Fatal("the nodes do not know each other: the test shows nothing")
		}
		f.PeerDown(lost)
		f.PeerUp(lost)
		time.Sleep(time.Minute)
		if !f.HasOpen(serverID(2), 1) {
			t.Error("it is not known to have the group open")
		}
		f.evidence.mu.Lock()
		_, shown := f.evidence.views[lost]
		f.evidence.mu.Unlock()
		if !shown {
			t.Error("it is not known whom it hears")
		}
		// A new process has nothing open until it says so.
		w.nodes[2].kill()
		w.nodes[2].start()
		time.Sleep(time.Second)
		if f.HasOpen(serverID(2), 1) {
			t.Error("what the process before had open is known of the next one")
		}
		w.nodes[2].opens(1)
		time.Sleep(time.Second)
		if !f.HasOpen(serverID(2), 1) {
			t.Error("it says nothing")
		}
		f.evidence.mu.Lock()
		defer f.evidence.mu.Unlock()
		f.gossip.mu.Lock()
		defer f.gossip.mu.Unlock()
		if _, stale := f.evidence.views[lost]; stale || len(f.evidence.views) != 2 {
			t.Errorf("of two other nodes the views of %d processes are remembered, of one that is gone: %v", len(f.evidence.views), stale)
		}
		if len(f.gossip.openAt) != 2 || f.gossip.openAt[lost] != nil {
			t.Errorf("of two other nodes %d processes are remembered, among them one that is gone", len(f.gossip.openAt))
		}
	})
}

// What is heard from nobody who is there is refused, so that it is said again.
func TestNewsOfWhoIsNotHeardAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t)
		defer w.end()
		f, stranger := w.nodes[1].f, transport.Peer{Node: 2, Incarnation: "00000000"}
		if err := f.ReceiveGossip(stranger, gossip{open: []uint64{1}}.encode()); !errors.Is(err, transport.ErrUnreachable) {
			t.Errorf("gossip of a node that is not heard: %v", err)
		}
		view := `{"number":1,"self":{"node":2,"incarnation":"00000000","session":1},"hears":[]}`
		if err := f.ReceiveView(stranger, []byte(view)); !errors.Is(err, transport.ErrUnreachable) {
			t.Errorf("a view of a node that is not heard: %v", err)
		}
		if err := f.ReceiveView(peer(2), []byte(view)); err == nil {
			t.Error("a view in another's name was taken in")
		}
	})
}

// A peer that is behind may say who leads a group that was deleted: nothing of it is kept.
func TestNothingIsKeptOfADeletedGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t)
		defer w.end()
		f := w.nodes[3].f
		topic := metadata.TopicID{0: 7, 15: 1}
		for _, change := range []metadata.Change{
			metadata.CreateTopic{ID: topic, Name: "orders", Assignment: [][]int32{{1, 2, 3}}}, // group 1
			metadata.DeleteTopic{Topic: topic},
		} {
			next, err := w.image.Apply(w.image.Index+1, change)
			if err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			w.image = next
			w.mu.Unlock()
		}
		f.Forget()
		if node, _, ok := f.Leader(1); ok {
			t.Errorf("%d leads a group that was deleted", node)
		}
		late := gossip{leads: []groupTerm{{1, 1 << 40}}}
		if err := f.ReceiveGossip(peer(1), late.encode()); err != nil {
			t.Fatal(err)
		}
		if node, _, ok := f.Leader(1); ok {
			t.Errorf("%d leads a group that was deleted, by what it said late", node)
		}
	})
}
