package failover

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A leader is deposed when a majority of the voters has lost it, by their own word: whoever
// is not heard says nothing, and a broker that has no vote is not asked.
func TestALeaderIsLostWhenAMajorityOfTheVotersHasLostIt(t *testing.T) {
	voters := []raft.ServerID{serverID(1), serverID(2), serverID(3)}
	for _, c := range []struct {
		name string
		cuts [][2]int32
		lost bool // as n3 sees it
	}{
		{"all hear it", nil, false},
		{"n3 has lost it", [][2]int32{{1, 3}}, false},
		{"n2 has lost it", [][2]int32{{1, 2}}, false},
		{"both have", [][2]int32{{1, 3}, {1, 2}}, true},
		{"n3 has, and does not hear what n2 says", [][2]int32{{1, 3}, {2, 3}}, false},
		{"n3 hears it, and nobody else", [][2]int32{{1, 2}, {1, 4}}, false},
		{"both have, and n4 hears it, which has no vote", [][2]int32{{1, 2}, {1, 3}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 4)
				defer w.end()
				for _, id := range w.all() {
					w.nodes[id].start()
				}
				time.Sleep(time.Second)
				for _, link := range c.cuts {
					w.cut(link[0], link[1])
				}
				time.Sleep(time.Second)
				if lost := w.nodes[3].f.evidence.lost(w.nodes[1].process(), voters); lost != c.lost {
					t.Errorf("lost %v, want %v", lost, c.lost)
				}
			})
		})
	}
}

// A process that was started again has lost every leadership, whoever hears the new one.
func TestAProcessThatWasStartedAgainIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.end()
		for _, id := range w.all() {
			w.nodes[id].start()
		}
		time.Sleep(time.Second)
		before := w.nodes[1].process()
		w.nodes[1].kill()
		w.nodes[1].start()
		time.Sleep(time.Second)
		voters := []raft.ServerID{serverID(1), serverID(2), serverID(3)}
		f := w.nodes[3].f
		if !f.evidence.lost(before, voters) || f.evidence.lost(w.nodes[1].process(), voters) {
			t.Error("the process before is heard, or the one now is not")
		}
	})
}

// Clients of a node that is cut off are to find the others: it says of nobody that it is
// gone, and who led stays the leader, until what it knows is too old. The others miss it.
func TestWhoIsCutOffHidesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t)
		defer w.end()
		alone, other := w.nodes[3].f, w.nodes[2].f
		w.cut(3, 1)
		w.cut(3, 2)
		time.Sleep(isolatedAfter - time.Second)
		if node, _, ok := alone.Leader(1); !ok || node != 1 {
			t.Errorf("soon after the cut, %d leads (%v), want 1", node, ok)
		}
		time.Sleep(2 * time.Second)
		if node, _, ok := alone.Leader(1); ok || !alone.Isolated() {
			t.Errorf("a while after the cut it says that %d leads", node)
		}
		for id := int32(1); id <= 3; id++ {
			if !alone.Present(id) || other.Present(id) != (id != 3) {
				t.Errorf("node %d is there: %v to the one that is cut off, %v to another", id, alone.Present(id), other.Present(id))
			}
		}
		if node, _, ok := other.Leader(1); !ok || node != 1 {
			t.Errorf("another says that %d leads (%v), want 1", node, ok)
		}
		w.heal()
		time.Sleep(time.Second)
		if node, _, ok := alone.Leader(1); !ok || node != 1 || alone.Isolated() {
			t.Errorf("after the healing %d leads (%v), want 1", node, ok)
		}
	})
}

// Who leads the controllers is said only while it is heard, though Raft goes on naming it
// for a while; then somebody else is named who hears it, for changes to go through.
func TestAControllerThatIsNotHeardIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.end()
		name := groupName(controllerGroup)
		for _, command := range []string{"group " + name, "start n1 n2 n3", "open " + name, "wait 1s"} {
			w.run(strings.Fields(command))
		}
		f := w.nodes[3].f
		if node, ok := f.Controller(); !ok || node != 1 {
			t.Fatalf("%d is the controller (%v): this tests nothing", node, ok)
		}
		w.cut(3, 1)
		time.Sleep(10 * time.Millisecond)
		if leader := f.member(controllerGroup).Leader(); leader != serverID(1) {
			t.Fatalf("Raft names %q: this tests nothing", leader)
		}
		if node, ok := f.Controller(); ok {
			t.Errorf("%d is the controller, which is not heard", node)
		}
		if node, ok := f.ControllerHearer(); !ok || node != 2 {
			t.Errorf("%d hears it (%v), want 2", node, ok)
		}
	})
}
