package replication

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/internal/memnet"
	"millrace/internal/storytest"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
	"millrace/replication/roster"
	"millrace/segment/record/recordtest"
)

// TestStories runs testdata/replication/*.txt, each with a cluster of three in virtual
// time: a command with its arguments, "----" and what came of it. A is the node that
// leads the partition at first, B and C are the others, and "leader" is whoever leads.
// What is told of entries is told by offsets: how many entries and terms there are
// depends on who is elected when.
//
//	create [KEY=VALUE …]     a topic with one partition, and its settings
//	append VALUE …           one after the other, at the leader: their offsets, or errors
//	fill N BYTES             N values of so many bytes, one after the other
//	in-flight NODE VALUE …   append at a node, and do not wait
//	answers                  what came of those, in order
//	trim OFFSET              move the log start
//	cut NODE | heal          off from both others | all again
//	stop NODE | start NODE   as if it had crashed
//	wipe NODE                stop, and start with an empty folder under the same number
//	break NODE NODE          the link between two, until heal
//	lose NODE NODE           what the first sends to the second, until heal
//	open NODE                start, and do not wait until it is registered
//	move NODE …              stop them, and start all of them at new addresses
//	wait DURATION            in virtual time
//	leads                    who leads, and whether the epoch is that of the last leads
//	controller               who leads the controller group
//	change NODE              create a topic through a node, within 2 s
//	addresses                which nodes are registered where they are
//	state                    each replica, when all know what is committed
//	read                     the values from the log start on
func TestStories(t *testing.T) {
	storytest.Run(t, "../testdata/replication/*.txt", func(t *testing.T, text string) (got string) {
		inVirtualTime(t, func(t *testing.T, c *testCluster) { got = tell(t, c, text) })
		return got
	})
}

// A teller plays one story.
type teller struct {
	t       *testing.T
	c       *testCluster
	id      idOf
	nodes   map[string]*testNode
	cut     map[*testNode]bool
	filled  int
	waiting []inFlight
	epoch   int32 // of the last leads
	changed int   // topics made by change
	started []<-chan error
}

type inFlight struct {
	value string
	done  chan answer
}

// tell tells a story as it goes now.
func tell(t *testing.T, c *testCluster, text string) string {
	s := &teller{t: t, c: c, nodes: make(map[string]*testNode), cut: make(map[*testNode]bool)}
	told := storytest.Tell(text, func(command, _ []string) string { return s.run(command) })
	for _, started := range s.started {
		if err := <-started; err != nil {
			t.Fatal(err)
		}
	}
	return told
}

func (s *teller) run(args []string) string {
	command, args := args[0], args[1:]
	switch command {
	case "create":
		config := make(map[string]string)
		for _, arg := range args {
			k, v, _ := strings.Cut(arg, "=")
			config[k] = v
		}
		s.id = s.c.create("orders", 1, 3, config)
		first, _ := s.c.leader(s.id)
		s.nodes["A"] = first
		for _, n := range s.c.nodes {
			mustPartition(s.t, n, s.id)
			if n != first {
				s.nodes[string(rune('A'+len(s.nodes)))] = n
			}
		}
		time.Sleep(time.Minute) // it stays there
		_, p := s.leader()
		s.epoch, _ = p.Serving()
		return ""
	case "append":
		var results []string
		for _, v := range args {
			_, p := s.leader()
			ack, err := appendWait(p, recordtest.Values(v))
			results = append(results, outcome(ack, err))
		}
		return strings.Join(results, " ")
	case "fill":
		n, size := s.number(args[0]), s.number(args[1])
		first, last := int64(-1), int64(-1)
		for range n {
			_, p := s.leader()
			ack, err := appendWait(p, recordtest.Values(fmt.Sprintf("fill-%d %s", s.filled, strings.Repeat("x", size))))
			if err != nil {
				s.t.Fatal(err)
			}
			if s.filled++; first < 0 {
				first = ack.BaseOffset
			}
			last = ack.BaseOffset
		}
		return fmt.Sprintf("offsets %d to %d", first, last)
	case "in-flight":
		p := mustPartition(s.t, s.node(args[0]), s.id)
		for _, v := range args[1:] {
			s.waiting = append(s.waiting, inFlight{v, appendLater(p, recordtest.Values(v))})
			time.Sleep(10 * time.Millisecond) // one entry each
		}
		return ""
	case "answers":
		var results []string
		for _, w := range s.waiting {
			a := <-w.done
			results = append(results, w.value+": "+outcome(a.ack, a.err))
		}
		s.waiting = nil
		return strings.Join(results, "\n")
	case "trim":
		_, p := s.leader()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		start, err := p.Trim(ctx, int64(s.number(args[0])))
		if err != nil {
			s.t.Fatal(err)
		}
		return fmt.Sprintf("start=%d", start)
	case "cut":
		n := s.node(args[0])
		s.c.separate(n)
		s.cut[n] = true
	case "heal":
		s.c.net.Heal()
		clear(s.cut)
	case "break":
		s.c.net.Set(s.node(args[0]).addr, s.node(args[1]).addr, memnet.Severed)
	case "lose":
		s.c.net.Set(s.node(args[0]).addr, s.node(args[1]).addr, memnet.Lost)
	case "open":
		s.started = append(s.started, s.node(args[0]).startInBackground())
	case "move":
		var moving []*testNode
		for _, name := range args {
			moving = append(moving, s.node(name))
		}
		s.c.moves(10*time.Second, moving...)
	case "leads":
		n, p := s.leader()
		epoch, _ := p.Serving()
		before := s.epoch
		s.epoch = epoch
		if epoch == before {
			return s.name(n) + ", as before"
		}
		return s.name(n) + ", in a later epoch"
	case "controller":
		if n := s.c.controllerLead(); n != nil {
			return s.name(n)
		}
		return "nobody"
	case "change":
		s.changed++
		err := s.node(args[0]).changes(fmt.Sprint("topic-", s.changed), 2*time.Second)
		switch {
		case err == nil:
			return "done"
		case errors.Is(err, ErrUnknown), errors.Is(err, context.DeadlineExceeded):
			return "no answer in time"
		}
		return err.Error()
	case "addresses":
		var lines []string
		for _, name := range []string{"A", "B", "C"} {
			n := s.node(name)
			b, _ := s.c.live().Image().Broker(n.id)
			switch roster.Address(b) {
			case n.addr:
				lines = append(lines, name+" where it is")
			default:
				lines = append(lines, name+" elsewhere")
			}
		}
		return strings.Join(lines, "\n")
	case "stop":
		s.node(args[0]).stop()
	case "start":
		s.node(args[0]).start()
	case "wipe":
		n := s.node(args[0])
		if n.id == 1 {
			s.t.Fatal("node 1 would found another cluster")
		}
		n.stop()
		if err := os.RemoveAll(n.dir); err != nil {
			s.t.Fatal(err)
		}
		n.start()
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		time.Sleep(d)
	case "state":
		return s.state()
	case "read":
		return s.read()
	default:
		s.t.Fatalf("unknown command %q", command)
	}
	return ""
}

// state tells of each replica what it holds and does, and whether it was caught up by
// segments since it started.
func (s *teller) state() string {
	leader, led := s.leader()
	for begin := time.Now(); time.Since(begin) < 3*raftgroup.CommitTimeout; time.Sleep(time.Second) {
		if !slices.ContainsFunc(s.c.nodes, func(n *testNode) bool {
			return n.Node != nil && mustPartition(s.t, n, s.id).HighWatermark() < led.HighWatermark()
		}) {
			break // an idle follower hears of the last commit by the way
		}
	}
	var lines []string
	for _, name := range []string{"A", "B", "C"} {
		n := s.nodes[name]
		if n.Node == nil {
			lines = append(lines, name+" is down")
			continue
		}
		p := mustPartition(s.t, n, s.id)
		r := p.Replica()
		if r == nil {
			lines = append(lines, fmt.Sprintf("%s has no replica: %v", name, p.Down()))
			continue
		}
		line := fmt.Sprintf("%s start=%d high=%d end=%d", name, p.StartOffset(), p.HighWatermark(), p.EndOffset())
		if voters := leader.replicaOf(p.Group()).Voters(); !slices.Contains(voters, n.serverID()) {
			line += " no vote"
		}
		if times := n.log.count("caught up by segments"); times > 0 {
			line += " caught up by segments"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// read returns the names of the values, and compares the replicas.
func (s *teller) read() string {
	var names []string
	for _, v := range s.c.values(s.id) {
		name, _, _ := strings.Cut(v, " ")
		names = append(names, name)
	}
	var short []string
	for i := 0; i < len(names); i++ {
		j := i
		for j+1 < len(names) && strings.HasPrefix(names[i], "fill-") && strings.HasPrefix(names[j+1], "fill-") {
			j++
		}
		short = append(short, names[i])
		if j > i {
			short[len(short)-1] += "…" + names[j]
		}
		i = j
	}
	s.c.sameEverywhere(s.id)
	return strings.Join(short, " ")
}

// leader waits for a node that serves the partition and can be told of it by the others:
// one that is cut off may still believe that it leads.
func (s *teller) leader() (*testNode, *partition.Partition) {
	s.t.Helper()
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(10 * time.Millisecond) {
		for _, n := range s.c.nodes {
			if n.Node == nil || s.cut[n] {
				continue
			}
			if p, err := n.Partition(s.id); err == nil {
				if _, err := p.Confirm(context.Background()); err == nil {
					return n, p
				}
			}
		}
	}
	s.t.Fatal("nobody leads")
	return nil, nil
}

func (s *teller) node(name string) *testNode {
	if name == "leader" {
		n, _ := s.leader()
		return n
	}
	if n := s.nodes[name]; n != nil {
		return n
	}
	s.t.Fatalf("there is no node %q", name)
	return nil
}

// name is the inverse of node.
func (s *teller) name(n *testNode) string {
	for name, other := range s.nodes {
		if other == n {
			return name
		}
	}
	return fmt.Sprint("node ", n.id)
}

func (s *teller) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// outcome says what came of an append.
func outcome(ack partition.Ack, err error) string {
	switch {
	case err == nil:
		return fmt.Sprint(ack.BaseOffset)
	case errors.Is(err, ErrUnknown):
		return "unknown"
	case errors.Is(err, partition.ErrNotLeader):
		return "not leader"
	}
	return err.Error()
}
