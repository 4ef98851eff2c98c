package failover

import (
	"fmt"
	"millrace/internal/storytest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStories runs testdata/failover/*.txt, in virtual time: a command with its arguments,
// "----" and what happened, in seconds since the last command other than wait. Groups are
// called g1, g2 … and controller; see world for what is real in them.
//
//	nodes N                  there are so many nodes; none runs
//	group G [NODE …]         there is a group, whose voters are these, or all nodes
//	log G NODE N             the group's log has N entries there
//	start NODE …             they run, and hear each other
//	open G [NODE …]          the group is open there, or at all that run
//	kill NODE                it ends without a word
//	break NODE NODE          the link between two, until heal
//	lose NODE NODE           what the first sends to the second, until heal
//	isolate NODE             its links to all others, until heal
//	heal                     all links
//	later G NODE             Raft there was asked for its vote, in a later term, by who cannot win
//	shut G NODE              the group is closed there for good, as over a broken disk
//	hang G NODE              the group's disk hangs there from now on
//	believe G NODE NODE TERM the first heard that the second leads the group in that term
//	forget G NODE            it has not heard who does
//	wait DURATION            what happens meanwhile
//	leads G                  who leads, in which term, by what each node tells clients
func TestStories(t *testing.T) {
	storytest.Run(t, "../../testdata/failover/*.txt", func(t *testing.T, text string) (got string) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 0)
			defer func() { w.end() }()
			got = storytest.Tell(text, func(command, _ []string) string {
				if command[0] == "nodes" {
					w = newWorld(t, int32(number(t, command[1])))
					return ""
				}
				return w.run(command)
			})
		})
		return got
	})
}

// run carries out one command.
func (w *world) run(args []string) string {
	t := w.t
	switch args[0] {
	case "wait":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(d)
		return w.take()
	case "leads":
		return w.leads(w.groupOf(args[1]))
	}
	w.mark = time.Now()
	switch args[0] {
	case "group":
		var voters []int32
		for _, arg := range args[2:] {
			voters = append(voters, w.nodeOf(arg).id)
		}
		if voters == nil {
			voters = w.all()
		}
		w.groups[w.groupOf(args[1])] = voters
	case "log":
		n, group := w.nodeOf(args[2]), w.groupOf(args[1])
		w.mu.Lock()
		n.member(group).log = number(t, args[3])
		w.mu.Unlock()
	case "start":
		for _, arg := range args[1:] {
			w.nodeOf(arg).start()
			time.Sleep(3 * time.Millisecond)
		}
	case "open":
		for _, id := range w.all() {
			if n := w.nodes[id]; len(args) > 2 && slices.Contains(args[2:], fmt.Sprint("n", id)) || len(args) == 2 && n.alive {
				n.opens(w.groupOf(args[1]))
				time.Sleep(time.Millisecond)
			}
		}
	case "kill":
		w.nodeOf(args[1]).kill()
	case "break":
		w.cut(w.nodeOf(args[1]).id, w.nodeOf(args[2]).id)
	case "lose":
		w.lose(w.nodeOf(args[1]).id, w.nodeOf(args[2]).id)
	case "isolate":
		n := w.nodeOf(args[1])
		for _, other := range w.all() {
			if other != n.id {
				w.cut(n.id, other)
			}
		}
	case "heal":
		w.heal()
	case "later":
		m := w.memberOf(args)
		w.mu.Lock()
		m.follow(m.term + 1)
		w.mu.Unlock()
	case "shut":
		m := w.memberOf(args)
		m.n.shuts(m.group)
	case "hang":
		m := w.memberOf(args)
		w.mu.Lock()
		m.stalled = true
		w.mu.Unlock()
	case "believe":
		n := w.nodeOf(args[2])
		w.mu.Lock()
		leader := leaderEntry{w.nodeOf(args[3]).process(), uint64(number(t, args[4]))}
		w.mu.Unlock()
		n.f.gossip.mu.Lock()
		n.f.gossip.leaders[w.groupOf(args[1])] = leader
		n.f.gossip.mu.Unlock()
	case "forget":
		n := w.nodeOf(args[2])
		n.f.gossip.mu.Lock()
		delete(n.f.gossip.leaders, w.groupOf(args[1]))
		n.f.gossip.mu.Unlock()
	default:
		t.Fatalf("unknown command %q", args)
	}
	return ""
}

// leads says who leads a group, by what those who run tell.
func (w *world) leads(group uint64) string {
	var lines []string
	for _, id := range w.all() {
		n := w.nodes[id]
		if !n.alive {
			continue
		}
		said := "nobody, as far as it knows"
		if node, term, ok := n.f.Leader(group); ok {
			said = fmt.Sprintf("n%d in term %d", node, term)
		} else if m, open := (host{w, id}).Member(group); open {
			if term, leads := m.LeadsNow(); leads {
				said = fmt.Sprintf("n%d in term %d", id, term)
			}
		}
		lines = append(lines, fmt.Sprintf("n%d: %s", id, said))
	}
	return strings.Join(lines, "\n")
}

func (w *world) all() (ids []int32) {
	for id := range w.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) nodeOf(arg string) *testNode {
	n := w.nodes[int32(number(w.t, strings.TrimPrefix(arg, "n")))]
	if n == nil {
		w.t.Fatalf("there is no node %s", arg)
	}
	return n
}

func (w *world) groupOf(arg string) uint64 {
	if arg == groupName(controllerGroup) {
		return controllerGroup
	}
	return uint64(number(w.t, strings.TrimPrefix(arg, "g")))
}

func (w *world) memberOf(args []string) *testMember {
	m := w.nodeOf(args[2]).members[w.groupOf(args[1])]
	if m == nil {
		w.t.Fatalf("%v: it is not there", args)
	}
	return m
}

func number(t *testing.T, arg string) int {
	n, err := strconv.Atoi(arg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
