package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/memnet"
)

// duo runs f in virtual time with group 1 open on two nodes; nobody consumes.
func duo(t *testing.T, adjust func(*Config), f func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port)) {
	t.Helper()
	bubble(t, 2, adjust, func(t *testing.T, c *cluster, n *memnet.Network) {
		f(t, c, n, c.nodes[0].Group(1, c.nodes[0].peer.ServerID()), c.nodes[1].Group(1, c.nodes[1].peer.ServerID()))
	})
}

// async calls AppendEntries from a goroutine.
func async(p *Port, to *Port, req *raft.AppendEntriesRequest) (resp *raft.AppendEntriesResponse, done chan error) {
	resp, done = &raft.AppendEntriesResponse{}, make(chan error, 1)
	go func() { done <- p.AppendEntries(to.local, "", req, resp) }()
	return resp, done
}

func yes(rpc raft.RPC) {
	req := rpc.Command.(*raft.AppendEntriesRequest)
	rpc.Respond(&raft.AppendEntriesResponse{Term: req.Term, LastLog: req.PrevLogEntry + uint64(len(req.Entries)), Success: true}, nil)
}

func TestAppendArrivesAsSent(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		req := &raft.AppendEntriesRequest{
			Term: 9, PrevLogEntry: 4, PrevLogTerm: 2, LeaderCommitIndex: 5,
			Entries: []*raft.Log{
				{Index: 5, Term: 2, Data: []byte("five")},
				{Index: 6, Term: 8, Type: raft.LogNoop},
				{Index: 7, Term: 9, Data: []byte(strings.Repeat("seven", 100_000)), Extensions: []byte{1}},
				{Index: 8, Term: 9, Data: []byte("eight")},
			},
		}
		resp, done := async(from, to, req)
		rpc := consume(t, to)
		got := rpc.Command.(*raft.AppendEntriesRequest)
		if got.Term != 9 || got.PrevLogEntry != 4 || got.PrevLogTerm != 2 || got.LeaderCommitIndex != 5 || string(got.ID) != "1.a" || string(got.Leader) != "1.a" {
			t.Errorf("%+v", got)
		}
		if len(got.Entries) != 4 {
			t.Fatalf("%d entries", len(got.Entries))
		}
		for i, e := range got.Entries {
			w := req.Entries[i]
			if e.Index != w.Index || e.Term != w.Term || e.Type != w.Type || string(e.Data) != string(w.Data) || string(e.Extensions) != string(w.Extensions) {
				t.Errorf("entry %d: index %d, term %d, type %d, %d bytes", i, e.Index, e.Term, e.Type, len(e.Data))
			}
			if (e.Data == nil) != (w.Data == nil) || (e.Extensions == nil) != (w.Extensions == nil) {
				t.Errorf("entry %d: nil became empty or the reverse", i)
			}
			if len(e.Data) != cap(e.Data) && e.Type != raft.LogNoop {
				t.Errorf("entry %d can be appended into what follows it", i)
			}
		}
		rpc.Respond(&raft.AppendEntriesResponse{Term: 10, LastLog: 3, NoRetryBackoff: true}, nil)
		if err := <-done; err != nil || resp.Term != 10 || resp.LastLog != 3 || resp.Success || !resp.NoRetryBackoff || string(resp.ID) != "2.b" {
			t.Errorf("%+v, %v", resp, err)
		}
	})
}

// A follower takes min(commit index, its last index) for committed; what lies
// behind the last entry we matched may be another leader's leavings.
func TestCommitIndexEndsWithTheLastEntryCarried(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		for _, tt := range []struct {
			prev         uint64
			entries      int
			commit, want uint64
		}{
			{5, 2, 100, 7}, {5, 2, 7, 7}, {5, 2, 3, 3}, {5, 0, 100, 5}, {5, 0, 4, 4}, {0, 0, 100, 0}, {0, 1, 100, 1},
		} {
			req := appendOf(tt.prev, tt.entries, 10)
			req.LeaderCommitIndex = tt.commit
			_, done := async(from, to, req)
			rpc := consume(t, to)
			if got := rpc.Command.(*raft.AppendEntriesRequest).LeaderCommitIndex; got != tt.want {
				t.Errorf("previous %d, %d entries, commit %d: arrived as %d, want %d", tt.prev, tt.entries, tt.commit, got, tt.want)
			}
			if req.LeaderCommitIndex != tt.commit {
				t.Errorf("the caller's request was changed to %d", req.LeaderCommitIndex)
			}
			yes(rpc)
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// Raft reckons with the slice in the request it passed: what was not sent must not
// be in it afterwards.
func TestLongAppendIsShortenedInPlace(t *testing.T) {
	adjust := func(cfg *Config) { cfg.Limits.MaxRequestBytes = 1000 }
	duo(t, adjust, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		for _, tt := range []struct{ entries, size, want int }{
			{10, 100, 10}, {11, 100, 10}, {10, 999, 1}, {10, 1000, 1}, {3, 5000, 1}, {1, 5000, 1}, {2000, 0, 1024},
		} {
			req := appendOf(0, tt.entries, tt.size)
			_, done := async(from, to, req)
			rpc := consume(t, to)
			if got := len(rpc.Command.(*raft.AppendEntriesRequest).Entries); got != tt.want {
				t.Errorf("%d entries of %d bytes: %d arrived, want %d", tt.entries, tt.size, got, tt.want)
			}
			yes(rpc)
			if err := <-done; err != nil || len(req.Entries) != tt.want {
				t.Errorf("%d entries of %d bytes: %d left in the request, want %d (%v)", tt.entries, tt.size, len(req.Entries), tt.want, err)
			}
		}
	})
}

// With a limit far below what Raft hands over at once, every entry still gets to
// every replica, in order.
func TestGroupReplicatesInSmallRequests(t *testing.T) {
	bubble(t, 3, func(cfg *Config) { cfg.Limits.MaxRequestBytes = 64 }, func(t *testing.T, c *cluster, n *memnet.Network) {
		w := &groupWriter{groups: c.open(1)}
		w.groups[0].port.Elect()
		w.must(t)
		n.SetBoth(host(3), "", memnet.Held)
		for range 300 {
			w.must(t)
		}
		n.SetBoth(host(3), "", memnet.Open)
		time.Sleep(20 * time.Second)
		w.check(t, true)
	})
}

// A full queue answers busy at once, and only its own group is.
func TestFullQueueIsBusyAtOnceAndAlone(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		from2, to2 := c.nodes[0].Group(2, from.local), c.nodes[1].Group(2, to.local)
		var waiting []chan error
		for range c.nodes[1].cfg.Limits.QueueLength {
			_, done := async(from, to, appendOf(0, 1, 10))
			waiting = append(waiting, done)
			synctest.Wait()
		}
		began := time.Now()
		for _, req := range []*raft.AppendEntriesRequest{appendOf(0, 1, 1<<20), appendOf(5, 0, 0)} {
			_, done := async(from, to, req)
			if err := <-done; !errors.Is(err, ErrBusy) {
				t.Errorf("%d entries: %v, want busy", len(req.Entries), err)
			}
		}
		if err := from.RequestVote(to.local, "", &raft.RequestVoteRequest{Term: 2}, &raft.RequestVoteResponse{}); !errors.Is(err, ErrBusy) {
			t.Errorf("vote: %v, want busy", err)
		}
		if err := to.Elect(); err != ErrBusy {
			t.Errorf("elect: %v, want busy", err)
		}
		_, done := async(from2, to2, appendOf(0, 1, 1<<20))
		yes(consume(t, to2))
		if err := <-done; err != nil {
			t.Errorf("another group: %v", err)
		}
		if took := time.Since(began); took > c.nodes[0].cfg.Timers.GatherInterval {
			t.Errorf("it took %v", took)
		}
		for _, done := range waiting {
			yes(consume(t, to))
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// The queue is bounded in bytes too, of a group and of the node; one request is
// let in whatever its size.
func TestQueuedBytesAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name   string
		adjust func(*Config)
		other  error // what another group is told
	}{
		{"of a group", func(cfg *Config) { cfg.Limits.QueueBytes = 1000 }, nil},
		{"of the node", func(cfg *Config) { cfg.Limits.InflightBytes = 1000 }, ErrBusy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			duo(t, tt.adjust, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
				from2, to2 := c.nodes[0].Group(2, from.local), c.nodes[1].Group(2, to.local)
				_, first := async(from, to, appendOf(0, 1, 5000))
				synctest.Wait()
				_, second := async(from, to, appendOf(0, 1, 10))
				if err := <-second; !errors.Is(err, ErrBusy) {
					t.Errorf("second: %v, want busy", err)
				}
				_, other := async(from2, to2, appendOf(0, 1, 10))
				synctest.Wait()
				if tt.other == nil {
					yes(consume(t, to2))
				}
				if err := <-other; !errors.Is(err, tt.other) {
					t.Errorf("another group: %v, want %v", err, tt.other)
				}
				yes(consume(t, to))
				if err := <-first; err != nil {
					t.Error(err)
				}
				synctest.Wait()
				nothingWaits(t, to)
				if got := c.nodes[1].room.taken.Load(); got != 0 {
					t.Errorf("%d bytes still admitted", got)
				}
			})
		})
	}
}

// Votes, appends and heartbeats of a group reach Raft in the order in which they
// arrived, one after the other answered.
func TestGroupIsServedInOrderOfArrival(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		var done []chan error
		for i := range 6 {
			result := make(chan error, 1)
			done = append(done, result)
			term := uint64(i + 1)
			go func() {
				switch i % 3 {
				case 0:
					result <- from.RequestVote(to.local, "", &raft.RequestVoteRequest{Term: term}, &raft.RequestVoteResponse{})
				case 1:
					result <- from.AppendEntries(to.local, "", &raft.AppendEntriesRequest{Term: term, Entries: []*raft.Log{{Index: 1, Term: 1}}}, &raft.AppendEntriesResponse{})
				case 2:
					result <- from.AppendEntries(to.local, "", &raft.AppendEntriesRequest{Term: term}, &raft.AppendEntriesResponse{})
				}
			}()
			time.Sleep(50 * time.Millisecond) // heartbeats are gathered meanwhile
		}
		to.Elect()
		var got []string
		for range 7 {
			rpc := consume(t, to)
			select {
			case another := <-to.Consumer():
				t.Fatalf("%T came before the answer to %T", another.Command, rpc.Command)
			default:
			}
			switch r := rpc.Command.(type) {
			case *raft.RequestVoteRequest:
				got = append(got, fmt.Sprint("vote ", r.Term))
				rpc.Respond(&raft.RequestVoteResponse{Term: r.Term}, nil)
			case *raft.AppendEntriesRequest:
				got = append(got, fmt.Sprint("append ", r.Term))
				yes(rpc)
			case *raft.TimeoutNowRequest:
				got = append(got, "elect")
				rpc.Respond(&raft.TimeoutNowResponse{}, nil)
			}
		}
		want := "[vote 1 append 2 append 3 vote 4 append 5 append 6 elect]"
		if fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
		for i, d := range done {
			if err := <-d; err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		}
	})
}

// What waited longer than its sender is not worth a disk write.
func TestExpiredRequestsDoNotReachRaft(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		_, first := async(from, to, appendOf(0, 1, 10))
		rpc := consume(t, to) // Raft is busy with it from now on
		_, second := async(from, to, appendOf(1, 1, 10))
		beat := make(chan error, 1)
		go func() {
			beat <- from.AppendEntries(to.local, "", &raft.AppendEntriesRequest{Term: 3}, &raft.AppendEntriesResponse{})
		}()
		for name, done := range map[string]chan error{"first": first, "second": second, "heartbeat": beat} {
			if err := <-done; !errors.Is(err, ErrTimeout) {
				t.Errorf("%s: %v, want a timeout", name, err)
			}
		}
		time.Sleep(time.Second)
		stop := answerer(to) // Raft is ready to take anything
		synctest.Wait()
		yes(rpc)
		synctest.Wait()
		stop()
		nothingWaits(t, to)
		if got := c.nodes[1].Stats().Expired; got != 2 {
			t.Errorf("%d expired, want 2", got)
		}
		_, third := async(from, to, appendOf(0, 1, 10))
		yes(consume(t, to))
		if err := <-third; err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// A queue full of requests nobody waits for any more makes room for a fresh one.
func TestExpiredRequestsMakeRoom(t *testing.T) {
	adjust := func(cfg *Config) { cfg.Limits.QueueLength = 4 }
	duo(t, adjust, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		async(from, to, appendOf(0, 1, 10))
		rpc := consume(t, to)
		for range 3 {
			async(from, to, appendOf(0, 1, 10))
		}
		time.Sleep(11 * time.Second)
		_, fresh := async(from, to, appendOf(0, 1, 10))
		synctest.Wait()
		yes(rpc)
		yes(consume(t, to))
		if err := <-fresh; err != nil {
			t.Error(err)
		}
		nothingWaits(t, to)
	})
}

// A request given up while it waits for a slow line is never written, nor is its
// memory held.
func TestWithdrawnMessageIsNotWritten(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	w := newWriter(near, 0)
	var wg sync.WaitGroup
	wg.Go(w.run)
	messages := []*outgoing{newOutgoing([]byte("one ")), newOutgoing([]byte("two "), []byte("payload ")), newOutgoing([]byte("three "))}
	w.send(messages[0])
	eventually(t, "the first is being written", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return messages[0].taken
	})
	w.send(messages[1])
	w.send(messages[2])
	w.withdraw(messages[1])
	w.withdraw(messages[0]) // too late
	if w.size != len("three ") || messages[1].payload != nil {
		t.Errorf("%d bytes wait, payload %q", w.size, messages[1].payload)
	}
	got := make([]byte, len("one three "))
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "one three " {
		t.Errorf("%q, %v", got, err)
	}
	w.fail(ErrClosed)
	wg.Wait()
	if err := w.send(messages[1]); err != ErrClosed {
		t.Errorf("afterwards: %v", err)
	}
}

// A peer that does not read its answers loses its connection, not our memory.
func TestPeerThatDoesNotReadIsDropped(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	w := newWriter(near, 1000)
	var wg sync.WaitGroup
	wg.Go(w.run)
	var err error
	for range 20 {
		if err = w.send(newOutgoing(make([]byte, 100))); err != nil {
			break
		}
	}
	if err != ErrTooLarge {
		t.Errorf("%v", err)
	}
	wg.Wait()
	if _, err := io.Copy(io.Discard, far); err != nil {
		t.Errorf("the connection is not closed: %v", err)
	}
}

// Heartbeats of 1,000 groups to one peer travel in few frames.
// A connection may end between any two steps of those who send on it.
func TestHeartbeatsEndWithTheirConnection(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, _ *memnet.Network, from, to *Port) {
		defer answerer(to)()
		beats := make([]*waitingBeat, maxHeartbeats/2)
		for range 50 {
			for from.Heartbeat(to.local, &raft.AppendEntriesRequest{Term: 3}, new(raft.AppendEntriesResponse)) != nil {
				time.Sleep(10 * time.Millisecond) // until the next connection
			}
			client := c.nodes[0].peers.controls()[0]
			for i := range beats {
				beats[i] = &waitingBeat{beat: beat{group: 1, term: 3}, done: make(chan struct{})}
			}
			go client.sendBeats(slices.Clone(beats))
			runtime.Gosched()
			client.close(nil)
			for _, b := range beats {
				<-b.done
			}
		}
	})
}

func TestHeartbeatsAreGathered(t *testing.T) {
	bubble(t, 2, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		a, b := c.nodes[0], c.nodes[1]
		var stops []func()
		results := make(chan error, 2000)
		for id := range uint64(1000) {
			stops = append(stops, answerer(b.Group(id, b.peer.ServerID())))
			p := a.Group(id, a.peer.ServerID())
			go func() {
				for range 2 {
					resp := raft.AppendEntriesResponse{}
					err := p.AppendEntries(b.peer.ServerID(), "", &raft.AppendEntriesRequest{Term: id + 1}, &resp)
					if err == nil && (resp.Term != id+1 || !resp.Success) {
						err = fmt.Errorf("group %d was answered %+v", id, resp)
					}
					results <- err
				}
			}()
		}
		for range 2000 {
			if err := <-results; err != nil {
				t.Fatal(err)
			}
		}
		if s := a.Stats(); s.Heartbeats != 2000 || s.HeartbeatFrames > 4 {
			t.Errorf("%d heartbeats in %d frames", s.Heartbeats, s.HeartbeatFrames)
		}
		for _, stop := range stops {
			stop()
		}
	})
}

// One group that does not answer holds the others of its heartbeat frame up for
// answerGather and no longer.
func TestSlowGroupDoesNotHoldHeartbeatsUp(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, slow *Port) {
		b := c.nodes[1]
		var quick []chan error
		began := time.Now()
		_, stuck := async(from, slow, &raft.AppendEntriesRequest{Term: 1})
		var stops []func()
		for id := uint64(2); id < 100; id++ {
			stops = append(stops, answerer(b.Group(id, b.peer.ServerID())))
			_, done := async(c.nodes[0].Group(id, from.local), slow, &raft.AppendEntriesRequest{Term: 1})
			quick = append(quick, done)
		}
		_, unknown := async(c.nodes[0].Group(1000, from.local), slow, &raft.AppendEntriesRequest{Term: 1})
		for _, done := range quick {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := <-unknown; !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("a group the peer does not have: %v", err)
		}
		if took := time.Since(began); took > c.nodes[0].cfg.Timers.GatherInterval+answerGather {
			t.Errorf("the others took %v", took)
		}
		time.Sleep(time.Second)
		yes(consume(t, slow))
		if err := <-stuck; err != nil {
			t.Errorf("the slow one: %v", err)
		}
		for _, stop := range stops {
			stop()
		}
	})
}

// Raft's replication waits for the answer to its empty appends; while entries
// flow these must not wait for company.
func TestEmptyAppendOfAnActiveGroupIsNotGathered(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		defer answerer(to)()
		took := func(req *raft.AppendEntriesRequest) time.Duration {
			began := time.Now()
			if err := from.AppendEntries(to.local, "", req, &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		gather := c.nodes[0].cfg.Timers.GatherInterval
		empty := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 5, PrevLogTerm: 2, LeaderCommitIndex: 5}
		if got := took(empty); got != gather {
			t.Errorf("of an idle group: %v, want %v", got, gather)
		}
		took(appendOf(5, 1, 10))
		if got := took(empty); got != 0 {
			t.Errorf("of an active group: %v", got)
		}
		if got := took(&raft.AppendEntriesRequest{Term: 3}); got != gather {
			t.Errorf("heartbeat of an active group: %v, want %v", got, gather)
		}
		time.Sleep(activeFor)
		if got := took(empty); got != gather {
			t.Errorf("of a group idle again: %v, want %v", got, gather)
		}
	})
}

func TestStalledGroupIsSilent(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		from.Stall(true)
		for name, err := range map[string]error{
			"heartbeat": from.AppendEntries(to.local, "", &raft.AppendEntriesRequest{Term: 1}, &raft.AppendEntriesResponse{}),
			"append":    from.AppendEntries(to.local, "", appendOf(0, 1, 1), &raft.AppendEntriesResponse{}),
			"vote":      from.RequestVote(to.local, "", &raft.RequestVoteRequest{Term: 1}, &raft.RequestVoteResponse{}),
			"pre-vote":  from.RequestPreVote(to.local, "", &raft.RequestPreVoteRequest{Term: 1}, &raft.RequestPreVoteResponse{}),
			"snapshot":  from.InstallSnapshot(to.local, "", &raft.InstallSnapshotRequest{Term: 1}, &raft.InstallSnapshotResponse{}, strings.NewReader("")),
			"elect":     from.Elect(),
		} {
			if err != ErrStalled {
				t.Errorf("%s: %v, want %v", name, err, ErrStalled)
			}
		}
		from.Stall(false)
		_, done := async(from, to, &raft.AppendEntriesRequest{Term: 1})
		yes(consume(t, to))
		if err := <-done; err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// A leader whose disk hangs goes silent, and the others elect one of them.
func TestStalledLeaderIsReplaced(t *testing.T) {
	bubble(t, 3, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		w := &groupWriter{groups: c.open(1)}
		w.groups[0].port.Elect()
		w.must(t)
		w.groups[0].port.Stall(true)
		time.Sleep(20 * time.Second)
		if w.groups[0].raft.State() == raft.Leader || w.groups[1].raft.State() != raft.Leader && w.groups[2].raft.State() != raft.Leader {
			t.Fatal("leadership did not move")
		}
		w.must(t)
		w.groups[0].port.Stall(false)
		time.Sleep(10 * time.Second)
		w.check(t, true)
	})
}

// A candidate that nobody answers gives up its candidacy when told to, and stands
// anew in a later term: sooner than its election timeout, and no more often.
func TestAbandonedCandidateCampaignsAnew(t *testing.T) {
	bubble(t, 3, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		w := &groupWriter{groups: c.open(1)}
		g := w.groups[0]
		n.SetBoth(host(1), "", memnet.Held)
		g.port.Elect()
		time.Sleep(100 * time.Millisecond)
		term := g.raft.CurrentTerm()
		if s := g.raft.State(); s != raft.Candidate {
			t.Fatalf("alone it is a %v", s)
		}
		g.port.Elect()
		time.Sleep(100 * time.Millisecond)
		if now := g.raft.CurrentTerm(); now != term {
			t.Errorf("a candidate stood again by Elect alone: term %d after %d", now, term)
		}
		// First, and to its end, since the votes that it asked for may arrive once it is
		// not alone.
		if err := g.port.AbandonCandidacy(term + 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s, now := g.raft.State(), g.raft.CurrentTerm(); s != raft.Follower || now != term+1 {
			t.Fatalf("abandoned, it is a %v in term %d, want a follower in %d", s, now, term+1)
		}
		n.SetBoth(host(1), "", memnet.Open)
		if err := g.port.Elect(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if s, now := g.raft.State(), g.raft.CurrentTerm(); s != raft.Leader || now != term+2 {
			t.Errorf("it is a %v in term %d, want the leader in %d", s, now, term+2)
		}
		w.must(t)
		time.Sleep(10 * time.Second)
		w.check(t, true)
	})
}

// A group that is stuck must not stand for election when it comes to itself.
func TestElectIsForNow(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		if err := to.Elect(); err != nil {
			t.Fatal(err)
		}
		rpc := consume(t, to)
		req, ok := rpc.Command.(*raft.TimeoutNowRequest)
		if !ok || req.ProtocolVersion != 3 || string(req.ID) != "2.b" {
			t.Errorf("%+v", rpc.Command)
		}
		rpc.Respond(&raft.TimeoutNowResponse{}, nil)
		synctest.Wait()
		if err := to.Elect(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(electWithin + time.Millisecond)
		nothingWaits(t, to)
	})
}

func TestTimeoutNowMakesALeader(t *testing.T) {
	bubble(t, 3, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		groups := c.open(1)
		groups[0].port.Elect()
		time.Sleep(100 * time.Millisecond)
		if groups[0].raft.State() != raft.Leader {
			t.Fatal("Elect made no leader")
		}
		if err := groups[0].raft.LeadershipTransferToServer(groups[2].port.local, groups[2].port.LocalAddr()).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if groups[2].raft.State() != raft.Leader {
			t.Fatal("the transfer made no leader")
		}
	})
}

// Raft counts an error with certain words as a granted pre-vote.
func TestNoErrorIsAPreVote(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		done := make(chan error, 1)
		go func() {
			done <- from.RequestPreVote(to.local, "", &raft.RequestPreVoteRequest{Term: 1}, &raft.RequestPreVoteResponse{})
		}()
		rpc := consume(t, to)
		rpc.Respond(nil, errors.New("unexpected command"))
		if err := <-done; err == nil || strings.Contains(err.Error(), "unexpected command") {
			t.Errorf("%v", err)
		}
		go func() {
			done <- from.RequestVote(to.local, "", &raft.RequestVoteRequest{Term: 1}, &raft.RequestVoteResponse{})
		}()
		rpc = consume(t, to)
		rpc.Respond(nil, errors.New("some trouble"))
		if err := <-done; err == nil || !strings.Contains(err.Error(), "some trouble") {
			t.Errorf("an error of Raft comes as %v", err)
		}
	})
}

// Closing a port, as before a bounce, ends what its Raft waits for at once, and
// its successor takes over.
func TestClosingAPortEndsItsRequests(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		other := c.nodes[0].Group(2, from.local)
		stop := answerer(c.nodes[1].Group(2, to.local))
		defer stop()
		_, append := async(from, to, appendOf(0, 1, 10))
		_, beat := async(from, to, &raft.AppendEntriesRequest{Term: 1})
		vote := make(chan error, 1)
		go func() {
			vote <- from.RequestVote(to.local, "", &raft.RequestVoteRequest{Term: 1}, &raft.RequestVoteResponse{})
		}()
		time.Sleep(time.Second)
		began := time.Now()
		from.Close()
		from.Close()
		for name, done := range map[string]chan error{"append": append, "heartbeat": beat, "vote": vote} {
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v, want closed", name, err)
			}
		}
		if err := from.AppendEntries(to.local, "", appendOf(0, 1, 10), &raft.AppendEntriesResponse{}); err != ErrClosed {
			t.Errorf("afterwards: %v", err)
		}
		if err := from.Elect(); err != ErrClosed {
			t.Errorf("elect: %v", err)
		}
		if err := other.AppendEntries(to.local, "", appendOf(0, 1, 10), &raft.AppendEntriesResponse{}); err != nil {
			t.Errorf("another group: %v", err)
		}

		// The receiving side: what waits there is refused.
		again := c.nodes[0].Group(1, from.local)
		_, waits := async(again, to, appendOf(0, 1, 10))
		synctest.Wait()
		successor := c.nodes[1].Group(1, to.local) // closes to
		if err := <-waits; !errors.Is(err, ErrClosed) {
			t.Errorf("queued on a closed port: %v", err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		_, done := async(again, to, appendOf(0, 1, 10))
		yes(consume(t, successor))
		if err := <-done; err != nil {
			t.Errorf("successor: %v", err)
		}
	})
}

func TestSnapshotGoesToTheCallback(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		config := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}}})
		req := &raft.InstallSnapshotRequest{
			SnapshotVersion: 1, Term: 3, LastLogIndex: 9, LastLogTerm: 2, Configuration: config, ConfigurationIndex: 4,
		}
		send := func(size int) (resp raft.InstallSnapshotResponse, err error) {
			err = from.InstallSnapshot(to.local, "", req, &resp, strings.NewReader(strings.Repeat("s", size)))
			return resp, err
		}
		if _, err := send(10); !errors.Is(err, ErrUnsupported) {
			t.Errorf("without a member: %v", err)
		}
		to.Attach(member{install: func(rpc raft.RPC, got *raft.InstallSnapshotRequest, data []byte) {
			all, _ := io.ReadAll(rpc.Reader)
			if rpc.Command != any(got) || len(all) != len(data) || got.Size != int64(len(data)) {
				t.Errorf("command %T, %d bytes to read, %d of data, size %d", rpc.Command, len(all), len(data), got.Size)
			}
			if got.Term != 3 || got.LastLogIndex != 9 || got.LastLogTerm != 2 || got.ConfigurationIndex != 4 ||
				string(got.Configuration) != string(config) || got.SnapshotVersion != 1 || string(got.ID) != "1.a" {
				t.Errorf("%+v", got)
			}
			// A bounce: the port is closed while its group installs.
			to.Close()
			to = c.nodes[1].Group(1, to.local)
			time.AfterFunc(time.Minute, func() { rpc.Respond(&raft.InstallSnapshotResponse{Term: 4, Success: true}, nil) })
		}})
		if resp, err := send(maxSnapshot); err != nil || !resp.Success || resp.Term != 4 {
			t.Errorf("%+v, %v", resp, err)
		}
		if _, err := send(maxSnapshot + 1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}

		release := make(chan struct{})
		to.Attach(member{install: func(rpc raft.RPC, _ *raft.InstallSnapshotRequest, _ []byte) {
			<-release
			rpc.Respond(nil, errors.New("no room"))
		}})
		first := make(chan error, 1)
		go func() { _, err := send(10); first <- err }()
		synctest.Wait()
		if _, err := send(10); !errors.Is(err, ErrBusy) {
			t.Errorf("a second at once: %v", err)
		}
		close(release)
		if err := <-first; err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("the callback's error: %v", err)
		}
		synctest.Wait()
		to.Attach(member{install: func(raft.RPC, *raft.InstallSnapshotRequest, []byte) { panic("at the wrong moment") }})
		if _, err := send(10); err == nil {
			t.Error("a callback that panics: no error")
		}
		nothingWaits(t, to)
		if got := c.nodes[1].room.taken.Load(); got != 0 {
			t.Errorf("%d bytes still admitted", got)
		}
	})
}

// On a line too slow for a request in time, requests become smaller until they
// arrive (S30).
func TestRequestsShrinkOnASlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		var mu sync.Mutex
		free := make(map[[2]string]time.Time)
		n.Carrier = disturbance(func(from, to string, m []byte) []time.Duration { // 1 Mbit/s and 250 ms each way
			if m[8] != typeAppend {
				return []time.Duration{250 * time.Millisecond}
			}
			mu.Lock()
			defer mu.Unlock()
			line := [2]string{from, to}
			start := time.Now()
			if free[line].After(start) {
				start = free[line]
			}
			free[line] = start.Add(time.Duration(len(m)) * 8 * time.Microsecond)
			return []time.Duration{time.Until(free[line]) + 250*time.Millisecond}
		})
		c := newCluster(t, n, 2, nil)
		defer c.close()
		from, to := c.nodes[0].Group(1, "1.a"), c.nodes[1].Group(1, "2.b")
		defer answerer(to)()
		next, began := uint64(0), time.Now()
		for next < 100 {
			req := appendOf(next, int(min(64, 100-next)), 64<<10)
			if from.AppendEntries(to.local, "", req, &raft.AppendEntriesResponse{}) == nil {
				next += uint64(len(req.Entries))
			} else {
				time.Sleep(time.Second)
			}
			if time.Since(began) > 10*time.Minute {
				t.Fatalf("after ten minutes only %d of 100 entries of 64 KiB arrived", next)
			}
		}
		t.Logf("6.4 MiB took %v; the line alone takes 52 s", time.Since(began))
	})
}

// One connection dies while the others live, of a firewall's forgetfulness say.
func TestDeadConnectionIsReplacedThoughThePeerLives(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		defer answerer(to)()
		send := func() error {
			return from.AppendEntries(to.local, "", appendOf(0, 1, 10), &raft.AppendEntriesResponse{})
		}
		if err := send(); err != nil {
			t.Fatal(err)
		}
		p := c.nodes[0].peers.of(2)
		p.mu.Lock()
		conn := p.links[kindData].client.conn.Conn.(*memnet.Conn)
		p.mu.Unlock()
		conn.Lose()
		if err := send(); !errors.Is(err, ErrTimeout) {
			t.Fatalf("%v, want a timeout", err)
		}
		time.Sleep(4 * time.Second)
		if err := send(); err != nil {
			t.Fatalf("%v after the dead connection should have been replaced", err)
		}
		if down := c.nodes[0].heard("down 2.b"); down != 0 {
			t.Errorf("the peer was down %d times", down)
		}
	})
}

func TestCalls(t *testing.T) {
	bubble(t, 2, func(cfg *Config) {
		cfg.Handler = handler(func(ctx context.Context, from Peer, kind uint8, req []byte) ([]byte, error) {
			switch kind {
			case 1:
				return append([]byte(from.String()+" "), req...), nil
			case 2:
				return nil, errors.New("no such luck")
			case 3:
				panic("in the handler")
			case 4:
				<-ctx.Done()
				return nil, ctx.Err()
			case 5:
				return make([]byte, 1<<20+1), nil
			}
			return nil, nil
		})
	}, func(t *testing.T, c *cluster, n *memnet.Network) {
		a := c.nodes[0]
		ctx := context.Background()
		addr, _ := c.resolve(2)
		for name, call := range map[string]func(kind uint8, req []byte) ([]byte, error){
			"Call":     func(kind uint8, req []byte) ([]byte, error) { return a.Call(ctx, 2, kind, req) },
			"CallBulk": func(kind uint8, req []byte) ([]byte, error) { return a.CallBulk(ctx, 2, kind, req) },
			"CallAddr": func(kind uint8, req []byte) ([]byte, error) { return a.CallAddr(ctx, addr, kind, req) },
		} {
			caller, answerer := "1.a hello", c.nodes[1].peer
			if name == "CallAddr" { // neither side has shown who it is
				caller, answerer = "0.a hello", Peer{Node: 2}
			}
			if got, err := call(1, []byte("hello")); string(got) != caller || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			var remote *RemoteError
			if _, err := call(2, nil); !errors.As(err, &remote) || remote.Message != "no such luck" || remote.Peer != answerer {
				t.Errorf("%s: the handler's error came as %v", name, err)
			}
			if _, err := call(3, nil); !errors.As(err, &remote) || strings.Contains(remote.Message, "in the handler") {
				t.Errorf("%s: the handler's panic came as %v", name, err)
			}
			if got, err := call(6, nil); len(got) != 0 || err != nil {
				t.Errorf("%s: an empty answer came as %q, %v", name, got, err)
			}
			began := time.Now()
			if _, err := call(4, nil); !errors.Is(err, ErrTimeout) && !errors.As(err, &remote) {
				t.Errorf("%s: no answer: %v", name, err)
			}
			if took := time.Since(began); took != a.cfg.Timers.Timeout {
				t.Errorf("%s: no answer took %v", name, took)
			}
			large, limit := make([]byte, 1<<20+1), ErrTooLarge
			if name == "CallBulk" {
				large, limit = make([]byte, maxBulkCall+1), nil
			}
			if _, err := call(1, large); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: a request too large: %v", name, err)
			}
			if _, err := call(5, nil); (err == nil) != (limit == nil) {
				t.Errorf("%s: an answer of 1 MiB + 1: %v", name, err)
			}
		}
		if got, err := a.CallBulk(ctx, 2, 1, make([]byte, 16<<20)); err != nil || len(got) != 16<<20+4 {
			t.Errorf("16 MiB: %d came back, %v", len(got), err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := a.Call(short, 2, 4, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deadline: %v", err)
		}
		if _, err := a.Call(short, 2, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the deadline: %v", err)
		}
		if _, err := a.Call(ctx, 3, 1, nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("unknown node: %v", err)
		}
		if _, err := a.Call(ctx, 1, 1, nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("myself: %v", err)
		}
		if _, err := a.CallAddr(ctx, "nowhere:1", 1, nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("no such address: %v", err)
		}
		if up, down := c.nodes[1].heard("up 1.a"), c.nodes[1].heard("down 1.a"); up != 1 || down != 0 {
			t.Errorf("single calls are no evidence; up %d, down %d", up, down)
		}
	})
}

// Eight answers of 16 MiB at once are all delivered, though together they are more
// than may wait.
func TestLargeAnswersTakeTurns(t *testing.T) {
	bubble(t, 2, func(cfg *Config) {
		cfg.Handler = handler(func(context.Context, Peer, uint8, []byte) ([]byte, error) { return make([]byte, maxBulkCall), nil })
	}, func(t *testing.T, c *cluster, n *memnet.Network) {
		results := make(chan error, maxBulkCalls)
		for range maxBulkCalls {
			go func() {
				got, err := c.nodes[0].CallBulk(context.Background(), 2, 1, nil)
				if err == nil && len(got) != maxBulkCall {
					err = fmt.Errorf("%d bytes", len(got))
				}
				results <- err
			}()
		}
		for range maxBulkCalls {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

// More calls than a connection serves at once are busy, and none blocks another.
func TestCallsAreBounded(t *testing.T) {
	bubble(t, 2, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		release := make(chan struct{})
		c.nodes[1].cfg.Handler = handler(func(ctx context.Context, from Peer, kind uint8, req []byte) ([]byte, error) {
			<-release
			return nil, nil
		})
		results := make(chan error, maxCalls+10)
		for range maxCalls + 10 {
			go func() {
				_, err := c.nodes[0].Call(context.Background(), 2, 1, nil)
				results <- err
			}()
		}
		for range 10 {
			if err := <-results; !errors.Is(err, ErrBusy) {
				t.Errorf("%v, want busy", err)
			}
		}
		close(release)
		for range maxCalls {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

// A connection opened for one call is asked for no sign of life when the call is not
// answered in time: the other side would have to take that for nonsense.
func TestConnectionForOneCallIsNotPinged(t *testing.T) {
	bubble(t, 2, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		addr, _ := c.resolve(2)
		once, err := c.nodes[0].dial(context.Background(), addr, kindOnce, Peer{})
		if err != nil {
			t.Fatal(err)
		}
		go once.read()
		once.suspect(time.Since(once.t.start)) // a request of now, as it were
		time.Sleep(time.Second)
		once.close(ErrClosed)
		time.Sleep(time.Minute)
		if bad := c.nodes[1].Stats().Malformed; bad != 0 {
			t.Errorf("%d connections were closed for what came on them", bad)
		}
	})
}

func TestJoiningNodeCallsWithoutAName(t *testing.T) {
	var heard Peer
	bubble(t, 1, func(cfg *Config) {
		cfg.Handler = handler(func(_ context.Context, from Peer, _ uint8, _ []byte) ([]byte, error) {
			heard = from
			return []byte("you are 2"), nil
		})
	}, func(t *testing.T, c *cluster, n *memnet.Network) {
		joining := c.start(Peer{0, "fresh"}, func(cfg *Config) { cfg.Cluster = "" })
		addr, _ := c.resolve(1)
		if got, err := joining.CallAddr(context.Background(), addr, 1, nil); string(got) != "you are 2" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		if heard != (Peer{0, "fresh"}) {
			t.Errorf("called by %v", heard)
		}
		if _, err := joining.Call(context.Background(), 1, 1, nil); !errors.Is(err, ErrWrongCluster) {
			t.Errorf("a call as a member: %v", err)
		}
		joining.Close()
		joined := c.start(Peer{2, "fresh"}, nil)
		if _, err := joined.Call(context.Background(), 1, 1, nil); err != nil || heard != (Peer{2, "fresh"}) {
			t.Errorf("as a member: %v, called by %v", err, heard)
		}
	})
}

// A peer's address is learned from its handshake, and a link that backs off from
// failures is tried as soon as the peer itself is heard.
func TestPeerIsFoundAgainWhenItCalls(t *testing.T) {
	var mu sync.Mutex
	learned := make(map[Peer]string)
	bubble(t, 1, func(cfg *Config) {
		hooksOf(cfg).learned = func(p Peer, addr string) {
			mu.Lock()
			defer mu.Unlock()
			learned[p] = addr
		}
	}, func(t *testing.T, c *cluster, n *memnet.Network) {
		a := c.nodes[0]
		a.SetPeers([]int32{1, 2})
		time.Sleep(time.Minute)
		if got := a.Connected(); len(got) != 0 {
			t.Fatalf("connected to %v", got)
		}
		b := c.start(Peer{2, "b"}, nil)
		b.SetPeers([]int32{1})
		synctest.Wait()
		p := a.peers.of(2)
		p.mu.Lock()
		found := p.links[kindControl].client != nil
		p.mu.Unlock()
		if !found {
			t.Error("not dialled at once")
		}
		addr, _ := c.resolve(2)
		mu.Lock()
		defer mu.Unlock()
		if learned[b.peer] != addr {
			t.Errorf("learned %v", learned)
		}
	})
}

// Dials of a peer that is not there are spaced out, up to a second apart.
func TestRedialsBackOff(t *testing.T) {
	bubble(t, 1, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		a := c.nodes[0]
		c.addrs[2] = "nowhere:1"
		a.SetPeers([]int32{2})
		time.Sleep(time.Minute)
		if got := a.Stats().Dials; got < 50 || got > 130 {
			t.Errorf("%d dials in a minute", got)
		}
		a.SetPeers(nil)
		time.Sleep(2 * time.Second)
		before := a.Stats().Dials
		time.Sleep(time.Minute)
		if got := a.Stats().Dials; got != before {
			t.Errorf("%d dials of a peer nobody wants", got-before)
		}
	})
}

// A process that was stopped for a while must not take its own silence for that of
// its peers.
func TestOwnPauseIsNobodysDeath(t *testing.T) {
	bubble(t, 2, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		a, b := c.nodes[0], c.nodes[1]
		a.SetPeers([]int32{2})
		time.Sleep(time.Second)
		for _, late := range []bool{true, false} {
			a.connections.of(b.peer).last.Add(-int64(time.Minute))
			a.buryTheSilent(late)
			synctest.Wait()
			if down := a.heard("down 2.b"); (down == 0) != late {
				t.Errorf("late %v: down %d times", late, down)
			}
		}
	})
}

// After Close nothing is left: no goroutine, no connection, whatever was going on.
func TestCloseLeavesNothing(t *testing.T) {
	runtime.GC()
	before := runtime.NumGoroutine()
	for range 5 {
		c := newCluster(t, &loopback{}, 3, func(cfg *Config) {
			cfg.Handler = handler(func(ctx context.Context, _ Peer, _ uint8, _ []byte) ([]byte, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		})
		groups := c.open(1)
		groups[0].port.Elect()
		leaderOf(t, groups)
		for _, n := range c.nodes {
			n.SetPeers([]int32{1, 2, 3, 4})
		}
		stuck := c.nodes[0].Group(2, "1.a")
		c.nodes[1].Group(2, "2.b") // which nobody consumes
		mute, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.addrs[4] = mute.Addr().String() // which never says hello
		c.mu.Unlock()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { stuck.AppendEntries("2.b", "", appendOf(0, 1, 1000), &raft.AppendEntriesResponse{}) })
			wg.Go(func() { stuck.AppendEntries("2.b", "", appendOf(0, 0, 0), &raft.AppendEntriesResponse{}) })
			wg.Go(func() { c.nodes[0].Call(context.Background(), 2, 1, nil) })
			wg.Go(func() { c.nodes[0].CallBulk(context.Background(), 3, 1, nil) })
			wg.Go(func() { c.nodes[0].CallAddr(context.Background(), mute.Addr().String(), 1, nil) })
		}
		eventually(t, "requests wait", func() bool {
			p, _ := c.nodes[1].ports.get(2)
			p.inbox.mu.Lock()
			defer p.inbox.mu.Unlock()
			return p.inbox.slots > 5
		})
		c.close()
		mute.Close()
		wg.Wait()
		for _, n := range c.nodes {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			n.connections.mu.Lock()
			if len(n.connections.conns) != 0 || len(n.connections.present) != 0 {
				t.Errorf("%d connections and %d peers are left", len(n.connections.conns), len(n.connections.present))
			}
			n.connections.mu.Unlock()
			if got := n.room.taken.Load(); got != 0 {
				t.Errorf("%d bytes still admitted", got)
			}
			if _, err := n.Call(context.Background(), 2, 1, nil); !errors.Is(err, ErrClosed) {
				t.Errorf("call after Close: %v", err)
			}
			if err := n.Group(9, "1.a").Elect(); err != ErrClosed {
				t.Errorf("group after Close: %v", err)
			}
			near, far := net.Pipe()
			n.Serve(far)
			if _, err := near.Read(make([]byte, 1)); err == nil {
				t.Error("served after Close")
			}
		}
	}
	eventually(t, fmt.Sprintf("%d goroutines as before", before), func() bool { return runtime.NumGoroutine() <= before })
}

// A node tells itself to stand for election, or a leader that leaves does. Raft may win
// in the meantime, and would depose itself; what it is told to do is done then.
func TestElectionIsNotHeldForALeader(t *testing.T) {
	duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
		var leads atomic.Bool
		to.Attach(member{leads: leads.Load})
		elect := func() chan error {
			done := make(chan error, 1)
			go func() { done <- from.TimeoutNow(to.local, "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}) }()
			return done
		}
		done := elect()
		rpc := consume(t, to)
		if _, ok := rpc.Command.(*raft.TimeoutNowRequest); !ok {
			t.Fatalf("a follower is told %T", rpc.Command)
		}
		rpc.Respond(&raft.TimeoutNowResponse{}, nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}

		// Two requests wait while Raft counts votes and stores its first entry.
		done = elect()
		if err := to.Elect(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(electWithin / 2)
		leads.Store(true)
		if err := <-done; err != nil {
			t.Errorf("answered with %v", err)
		}
		time.Sleep(electWithin)
		select {
		case rpc := <-to.Consumer():
			t.Errorf("a leader is told %T", rpc.Command)
		default:
		}
		// Anything else gets through.
		_, appended := async(from, to, appendOf(0, 1, 10))
		yes(consume(t, to))
		if err := <-appended; err != nil {
			t.Error(err)
		}

		// A group that is busy for too long is not told any more.
		leads.Store(false)
		if err := to.Elect(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * electWithin)
		select {
		case rpc := <-to.Consumer():
			t.Errorf("it is told %T after %v", rpc.Command, 2*electWithin)
		default:
		}
	})
}
