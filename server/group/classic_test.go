package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

func TestMembersAreAssignedWhatTheLeaderSays(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		began := time.Now()
		a, b := newReader(c, "g"), newReader(c, "g")
		together(t, a, b)
		if waited := time.Since(began); waited < 3*time.Second || waited > 6*time.Second {
			t.Errorf("the initial rebalance took %v, want 3 to 6 s", waited)
		}
		for _, r := range []*reader{a, b} {
			if !strings.HasPrefix(r.id, "app-") || len(r.id) != len("app-")+36 {
				t.Errorf("member id %q is not app-<uuid>", r.id)
			}
			if string(r.assignment) != "of "+r.id {
				t.Errorf("member %s got %q", r.id, r.assignment)
			}
			wantCode(t, "heartbeat", r.heartbeat(), protocol.None)
		}
		if a.generation != b.generation {
			t.Errorf("generations %d and %d", a.generation, b.generation)
		}
		d := stateOf(c, "g")
		if d.State != "Stable" || d.Protocol != "range" || len(d.Members) != 2 {
			t.Errorf("group is %+v", d)
		}
	})
}

func TestAThirdMemberRebalancesTheOthers(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a, b, third := newReader(c, "g"), newReader(c, "g"), newReader(c, "g")
		together(t, a, b)
		done := make(chan protocol.Code)
		go func() { _, code := third.enter(); done <- code }()
		synctest.Wait()
		wantCode(t, "heartbeat while a third joins", a.heartbeat(), protocol.RebalanceInProgress)
		wantCode(t, "sync while a third joins", b.sync(nil).ErrorCode, protocol.RebalanceInProgress)
		wantCode(t, "commit while a third joins", a.commit(3), protocol.None)
		together(t, a, b)
		wantCode(t, "third", <-done, protocol.None)
		if third.generation != a.generation || third.generation != b.generation {
			t.Errorf("generations %d, %d, %d", a.generation, b.generation, third.generation)
		}
		old := *a
		old.generation--
		wantCode(t, "heartbeat of an old generation", old.heartbeat(), protocol.IllegalGeneration)
		wantCode(t, "commit of an old generation", old.commit(4), protocol.IllegalGeneration)
		old.id = "nobody"
		wantCode(t, "heartbeat of nobody", old.heartbeat(), protocol.UnknownMemberID)
	})
}

func TestMembersThatFallSilentAreOut(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a, b := newReader(c, "g"), newReader(c, "g")
		together(t, a, b)
		for range 4 {
			time.Sleep(3 * time.Second)
			a.heartbeat()
		}
		wantCode(t, "heartbeat of the living", a.heartbeat(), protocol.RebalanceInProgress)
		wantCode(t, "heartbeat of the silent", b.heartbeat(), protocol.UnknownMemberID)
		together(t, a)
		time.Sleep(11 * time.Second)
		if d := stateOf(c, "g"); d.State != "Empty" || len(d.Members) != 0 {
			t.Errorf("group is %+v", d)
		}
	})
}

func TestMembersThatDoNotRejoinAreOut(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a, b := newReader(c, "g"), newReader(c, "g")
		a.timeout, b.timeout = 20*time.Second, 20*time.Second
		together(t, a, b)
		go func() { // b lives on but never joins again
			for b.heartbeat() != protocol.UnknownMemberID {
				time.Sleep(3 * time.Second)
			}
		}()
		a.topics = append(a.topics, "u") // so that it is a change
		began := time.Now()
		_, code := a.enter()
		wantCode(t, "entering alone", code, protocol.None)
		if waited := time.Since(began); waited != 20*time.Second {
			t.Errorf("waited %v for the other, want 20s", waited)
		}
		wantCode(t, "heartbeat of the other", b.heartbeat(), protocol.UnknownMemberID)
		time.Sleep(3 * time.Second) // so that the other has heard of it
	})
}

func TestMembersThatNeverSyncAreOut(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a, b := newReader(c, "g"), newReader(c, "g")
		a.timeout, b.timeout = 20*time.Second, 20*time.Second
		var wg sync.WaitGroup
		wg.Go(func() { a.join() })
		wg.Go(func() { b.join() })
		wg.Wait()
		for range 7 {
			a.heartbeat()
			b.heartbeat()
			time.Sleep(3 * time.Second)
		}
		wantCode(t, "heartbeat", a.heartbeat(), protocol.UnknownMemberID)
		if d := stateOf(c, "g"); len(d.Members) != 0 {
			t.Errorf("group is %+v", d)
		}
	})
}

func TestTheLastToLeaveLeavesAnEmptyGroupInTheJournal(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a := newReader(c, "g")
		together(t, a)
		wantCode(t, "commit", a.commit(5), protocol.None)
		p.Hold()
		left := make(chan protocol.Code, 1)
		go func() { left <- a.leave() }()
		synctest.Wait()
		select {
		case <-left:
			t.Fatal("the leave was answered before the journal had it")
		default:
		}
		p.Release()
		wantCode(t, "leave", <-left, protocol.None)
		c = p.takeOver(t, Config{})
		if d := stateOf(c, "g"); d.State != "Empty" || d.ProtocolType != "consumer" {
			t.Errorf("after a failover the group is %+v", d)
		}
		if got := fetched(t, c, "g", "t"); got != 5 {
			t.Errorf("offset %d, want 5", got)
		}
	})
}

func TestAGroupLivesOnAfterAFailover(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a, b := newReader(c, "g"), newReader(c, "g")
		together(t, a, b)
		wantCode(t, "commit", a.commit(42), protocol.None)
		time.Sleep(8 * time.Second) // sessions are nearly over
		c2 := p.takeOver(t, Config{})
		wantCode(t, "commit at the deposed", a.commit(43), protocol.NotCoordinator)
		a.c, b.c = c2, c2
		time.Sleep(8 * time.Second)
		wantCode(t, "heartbeat", a.heartbeat(), protocol.None)
		wantCode(t, "heartbeat", b.heartbeat(), protocol.None)
		before := a.assignment
		wantCode(t, "sync", a.sync(nil).ErrorCode, protocol.None)
		if string(a.assignment) != string(before) {
			t.Errorf("assignment %q, want %q", a.assignment, before)
		}
		if got := fetched(t, c2, "g", "t"); got != 42 {
			t.Errorf("offset %d, want 42", got)
		}
		wantCode(t, "commit", a.commit(44), protocol.None)
		if _, code := fetch(c, "g", "t"); code != protocol.NotCoordinator {
			t.Errorf("the deposed answers a fetch with %d", code)
		}
	})
}

// A generation that JoinGroup handed out but the journal never saw is not handed
// out again by the next coordinators, however many come.
func TestNoGenerationIsHandedOutTwice(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		static := "s"
		a := newReader(c, "g")
		a.instance = &static
		together(t, a)
		seen := map[int32]bool{a.generation: true}
		for i := range 5 {
			a.c = p.takeOver(t, Config{})
			for range 3 { // rebalances that never become stable
				a.topics = append(a.topics, fmt.Sprint("t", i, len(a.topics)))
				wantCode(t, "join", a.join().ErrorCode, protocol.None)
				if seen[a.generation] {
					t.Fatalf("generation %d was handed out twice", a.generation)
				}
				seen[a.generation] = true
			}
			if i%2 == 1 {
				// The journal has no members of the marks: join anew.
				wantCode(t, "sync", a.sync(map[string][]byte{a.id: []byte("x")}).ErrorCode, protocol.None)
			} else {
				a.id = ""
			}
		}
	})
}

func TestGenerationsThatNeverSettleStayNearTheJournals(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a := newReader(c, "g")
		together(t, a)
		for i := range 3 * stride {
			a.topics = []string{fmt.Sprint("t", i)}
			wantCode(t, "join", a.join().ErrorCode, protocol.None)
		}
		last := a.generation
		c = p.takeOver(t, Config{})
		b := newReader(c, "g")
		together(t, b)
		if b.generation <= last {
			t.Errorf("generation %d after a failover, %d was handed out before", b.generation, last)
		}
	})
}

func TestAStaticMemberComesBackWithoutARebalance(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		one, two := "one", "two"
		a, b := newReader(c, "g"), newReader(c, "g")
		a.instance, b.instance = &one, &two
		together(t, a, b)
		generation := a.generation

		for _, r := range []*reader{a, b} { // one of them leads
			before := *r
			r.id = ""
			j := r.join()
			wantCode(t, "join", j.ErrorCode, protocol.None)
			if r.generation != generation || r.id == before.id {
				t.Fatalf("member %s of generation %d came back as %s of %d", before.id, generation, r.id, r.generation)
			}
			if (j.LeaderID == r.id) != j.SkipAssignment || j.SkipAssignment != (len(j.Members) == 2) {
				t.Errorf("leader %s, members %d, skip %v", j.LeaderID, len(j.Members), j.SkipAssignment)
			}
			wantCode(t, "sync", r.sync(nil).ErrorCode, protocol.None)
			if string(r.assignment) != string(before.assignment) {
				t.Errorf("assignment %q, want %q", r.assignment, before.assignment)
			}
			wantCode(t, "heartbeat of the former", before.heartbeat(), protocol.FencedInstanceID)
			wantCode(t, "commit of the former", before.commit(1), protocol.FencedInstanceID)
		}
		c = p.takeOver(t, Config{})
		a.c, b.c = c, c
		wantCode(t, "heartbeat after a failover", a.heartbeat(), protocol.None)
		wantCode(t, "heartbeat after a failover", b.heartbeat(), protocol.None)

		a.id, a.topics = "", []string{"t", "another"}
		entered := make(chan protocol.Code)
		go func() { _, code := a.enter(); entered <- code }()
		synctest.Wait()
		wantCode(t, "heartbeat when the other came back changed", b.heartbeat(), protocol.RebalanceInProgress)
		together(t, b)
		wantCode(t, "the one that came back", <-entered, protocol.None)
	})
}

func TestAnOldLeaderThatComesBackIsNotToldThatItLeads(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		one := "one"
		a := newReader(c, "g")
		a.instance, a.version = &one, 5
		together(t, a)
		former := a.id
		a.id = ""
		j := a.join()
		if j.LeaderID != former || len(j.Members) != 0 {
			t.Errorf("leader %q, members %v; want the former id and none", j.LeaderID, j.Members)
		}
	})
}

func TestAnOperatorRemovesStaticMembersByInstance(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		one, nobody := "one", "nobody"
		a := newReader(c, "g")
		a.instance = &one
		together(t, a)
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Version, req.Group = 5, "g"
		req.Members = []kmsg.LeaveGroupRequestMember{{InstanceID: &one}, {InstanceID: &nobody}, {MemberID: "x"}, {}}
		resp := c.Leave(t.Context(), req)
		var codes []protocol.Code
		for _, m := range resp.Members {
			codes = append(codes, protocol.Code(m.ErrorCode))
		}
		if fmt.Sprint(codes) != "[0 25 25 25]" {
			t.Errorf("codes %v", codes)
		}
		if d := stateOf(c, "g"); d.State != "Empty" {
			t.Errorf("group is %s", d.State)
		}
	})
}

func TestJoinRefusesWhatKafkaRefuses(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a := newReader(c, "g")
		together(t, a)
		for name, test := range map[string]struct {
			change func(*kmsg.JoinGroupRequest)
			want   protocol.Code
		}{
			"no group":                  {func(r *kmsg.JoinGroupRequest) { r.Group = "" }, protocol.InvalidGroupID},
			"session of 0":              {func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 0 }, protocol.InvalidSessionTimeout},
			"session of 2^31-1":         {func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1<<31 - 1 }, protocol.InvalidSessionTimeout},
			"session of -1":             {func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = -1 }, protocol.InvalidSessionTimeout},
			"another protocol type":     {func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "connect" }, protocol.InconsistentGroupProtocol},
			"no protocol in common":     {func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name = "sticky" }, protocol.InconsistentGroupProtocol},
			"no protocols":              {func(r *kmsg.JoinGroupRequest) { r.Protocols = nil }, protocol.InconsistentGroupProtocol},
			"nothing for a new group":   {func(r *kmsg.JoinGroupRequest) { r.Group, r.Protocols = "h", nil }, protocol.InconsistentGroupProtocol},
			"unknown member":            {func(r *kmsg.JoinGroupRequest) { r.MemberID = "x" }, protocol.UnknownMemberID},
			"unknown member, new group": {func(r *kmsg.JoinGroupRequest) { r.Group, r.MemberID = "h", "x" }, protocol.UnknownMemberID},
			"unknown static member": {func(r *kmsg.JoinGroupRequest) {
				i := "i"
				r.MemberID, r.InstanceID = "x", &i
			}, protocol.UnknownMemberID},
			"a member too large": {func(r *kmsg.JoinGroupRequest) {
				r.Version, r.Protocols[0].Metadata = 3, make([]byte, 8<<20)
			}, protocol.GroupMaxSizeReached},
		} {
			req := newReader(c, "g").joinRequest()
			test.change(req)
			if got := c.Join(t.Context(), Client{}, req).ErrorCode; protocol.Code(got) != test.want {
				t.Errorf("%s: code %d, want %d", name, got, test.want)
			}
		}
		if stateOf(c, "h").State != "Dead" {
			t.Error("a refused join left a group behind")
		}
		wantCode(t, "heartbeat", a.heartbeat(), protocol.None)
	})
}

func TestSyncChecksTheProtocol(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a := newReader(c, "g")
		together(t, a)
		req := kmsg.NewPtrSyncGroupRequest()
		req.Version, req.Group, req.MemberID, req.Generation = 5, "g", a.id, a.generation
		right, wrong := "range", "sticky"
		req.Protocol = &right
		wantCode(t, "right protocol", c.Sync(t.Context(), req).ErrorCode, protocol.None)
		req.Protocol = &wrong
		wantCode(t, "wrong protocol", c.Sync(t.Context(), req).ErrorCode, protocol.InconsistentGroupProtocol)
		req.Protocol, req.ProtocolType = nil, &wrong
		wantCode(t, "wrong type", c.Sync(t.Context(), req).ErrorCode, protocol.InconsistentGroupProtocol)
		req.ProtocolType, req.Generation = nil, a.generation+1
		wantCode(t, "wrong generation", c.Sync(t.Context(), req).ErrorCode, protocol.IllegalGeneration)
	})
}

func TestTheProtocolMostMembersPreferWins(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		var wg sync.WaitGroup
		for _, names := range [][]string{{"a", "b", "x"}, {"b", "a"}, {"y", "b", "a"}} {
			req := newReader(c, "g").joinRequest()
			req.Version, req.Protocols = 3, nil
			for _, n := range names {
				req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: n, Metadata: metadataOf("t")})
			}
			wg.Go(func() {
				if resp := c.Join(context.Background(), Client{}, req); resp.Protocol == nil || *resp.Protocol != "b" {
					t.Errorf("protocol %v, want b", resp.Protocol)
				}
			})
		}
		wg.Wait()
	})
}

func TestAFullGroupTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &journal{}
		c := p.takeOver(t, Config{Settings: set{MaxSize: 2, InitialRebalanceDelay: -1}})
		a, b, third := newReader(c, "g"), newReader(c, "g"), newReader(c, "g")
		together(t, a)
		together2 := make(chan protocol.Code, 1)
		go func() { _, code := b.enter(); together2 <- code }()
		synctest.Wait()
		together(t, a)
		wantCode(t, "the second", <-together2, protocol.None)
		wantCode(t, "the third", third.join().ErrorCode, protocol.GroupMaxSizeReached)
		wantCode(t, "heartbeat", a.heartbeat(), protocol.None)
	})
}

func TestPendingMembersHoldUpARebalanceAndExpire(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a := newReader(c, "g")
		together(t, a)
		ghost := c.Join(t.Context(), Client{"ghost", "/"}, newReader(c, "g").joinRequest())
		wantCode(t, "ghost", ghost.ErrorCode, protocol.MemberIDRequired)
		wantCode(t, "heartbeat", a.heartbeat(), protocol.None)
		a.topics = []string{"u"}
		began := time.Now()
		together(t, a)
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("waited %v for a pending member, want its session of 10s", waited)
		}
		c.Join(t.Context(), Client{}, newReader(c, "of ghosts").joinRequest())
		if stateOf(c, "of ghosts").State == "Dead" {
			t.Error("a group with a pending member is not there")
		}
		time.Sleep(11 * time.Second)
		if stateOf(c, "of ghosts").State != "Dead" {
			t.Error("a group whose only pending member went is still there")
		}
		if c.memory.held() < 0 {
			t.Errorf("%d bytes are charged", c.memory.held())
		}
	})
}

func TestAClientThatHangsUpBeforeItHasAnIDIsForgotten(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		ctx, hangUp := context.WithCancel(t.Context())
		req := newReader(c, "g").joinRequest()
		req.Version = 1
		done := make(chan *kmsg.JoinGroupResponse)
		go func() { done <- c.Join(ctx, Client{}, req) }()
		synctest.Wait()
		hangUp()
		<-done
		if d := stateOf(c, "g"); d.State != "Dead" {
			t.Errorf("group is %s with %d members", d.State, len(d.Members))
		}
		if n := c.memory.held(); n != 0 {
			t.Errorf("%d bytes are still charged", n)
		}
	})
}

func TestThoseWhoWaitLearnThatTheCoordinatorMoved(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		codes := make(chan protocol.Code, 2)
		a := newReader(c, "g")
		go func() { codes <- protocol.Code(a.join().ErrorCode) }()
		go func() { codes <- protocol.Code(newReader(c, "h").join().ErrorCode) }()
		synctest.Wait()
		c.Unload(0)
		c.Unload(0)
		wantCode(t, "join", <-codes, protocol.NotCoordinator)
		wantCode(t, "join", <-codes, protocol.NotCoordinator)
		wantCode(t, "heartbeat", a.heartbeat(), protocol.NotCoordinator)
		if n := c.memory.held(); n != 0 {
			t.Errorf("%d bytes are still charged", n)
		}
	})
}

func TestARefusedAssignmentIsShownToNobody(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		refusals := 1
		a, b := newReader(c, "g"), newReader(c, "g")
		var wg sync.WaitGroup
		for _, r := range []*reader{a, b} {
			wg.Go(func() { r.join() })
		}
		wg.Wait()
		p.FailBy(fates(func() error {
			if refusals--; refusals >= 0 {
				return errors.New("disk full")
			}
			return nil
		}))
		p.Hold()
		codes := make(chan protocol.Code, 2)
		for _, r := range []*reader{a, b} {
			go func() {
				codes <- protocol.Code(r.sync(map[string][]byte{a.id: []byte("x"), b.id: []byte("y")}).ErrorCode)
			}()
		}
		synctest.Wait()
		p.Release()
		wantCode(t, "sync", <-codes, protocol.CoordinatorNotAvailable)
		wantCode(t, "sync", <-codes, protocol.CoordinatorNotAvailable)
		together(t, a, b)
	})
}

func TestAnAppendOfUnknownOutcomeUnloadsThePartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &journal{}
		c := p.takeOver(t, Config{})
		wantCode(t, "commit", simpleCommit(c, "s", 1), protocol.None)
		waiting := make(chan protocol.Code, 1)
		go func() { waiting <- protocol.Code(newReader(c, "g").join().ErrorCode) }()
		synctest.Wait()
		p.Fail(fmt.Errorf("timeout: %w", coordinator.ErrUnknownOutcome))
		wantCode(t, "commit", simpleCommit(c, "s", 2), protocol.NotCoordinator)
		wantCode(t, "a join that waits", <-waiting, protocol.NotCoordinator)
		synctest.Wait()
		if lost := p.LostEpochs(); !slices.Equal(lost, []int32{1}) {
			t.Errorf("epochs %v are lost, want 1", lost)
		}
		if _, code := fetch(c, "s", "t"); code != protocol.NotCoordinator {
			t.Errorf("fetch: code %d", code)
		}
		p.Fail(nil)
		p.NewEpoch()
		if err := c.Load(0, 2, p.Records()); err != nil {
			t.Fatal(err)
		}
		if got := fetched(t, c, "s", "t"); got != 1 {
			t.Errorf("offset %d, want 1", got)
		}
	})
}

// Fifty partitions are loaded at each failover, and most hold no group: only of those that
// do the log says so.
func TestNothingLoadedIsNothingLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines strings.Builder
		p := &journal{}
		c := p.takeOver(t, Config{Logger: slog.New(slog.NewTextHandler(&lines, nil))})
		if lines.Len() > 0 {
			t.Errorf("of an empty partition the log says %s", lines.String())
		}
		wantCode(t, "commit", simpleCommit(c, "s", 1), protocol.None)
		p.NewEpoch()
		if err := c.Load(0, 2, p.Records()); err != nil {
			t.Fatal(err)
		}
		if strings.Count(lines.String(), `msg="loaded groups"`) != 1 || !strings.Contains(lines.String(), "groups=1") {
			t.Errorf("of a partition with a group the log says %q", lines.String())
		}
	})
}

// held is what all members are charged for.
func (m *memory) held() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}
