package group

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// TestNothingGoesBackAndNothingIsSharedWhateverFails lets clients of one group do
// what they do while coordinators follow one another and the journal fails in
// every way it may. An acknowledged offset is never read lower (I8), and in one
// generation no partition is assigned twice, nor differently to one member.
func TestNothingGoesBackAndNothingIsSharedWhateverFails(t *testing.T) {
	entered, acknowledged := int64(0), int64(0)
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			e, a := run(t, seed)
			entered, acknowledged = entered+e, acknowledged+a
		})
	}
	if entered < 200 || acknowledged < 2000 {
		t.Errorf("only %d assignments and %d commits: the test does not test", entered, acknowledged)
	}
}

// A history is one life of a group, whose coordinator moves while its journal fails.
type history struct {
	t       *testing.T
	seed    uint64
	p       *journal
	current atomic.Pointer[Coordinator]
	stop    chan struct{}
	wg      sync.WaitGroup

	mu     sync.Mutex
	random *rand.Rand
	owners map[string]string // generation and partition to member

	entered      atomic.Int64 // assignments that members got
	acknowledged atomic.Int64 // the newest value of the register that was; -1: none
}

// run is one history. It returns how many assignments members got, and how many
// commits were acknowledged.
func run(t *testing.T, seed uint64) (int64, int64) {
	h := &history{
		t: t, seed: seed, p: &journal{}, stop: make(chan struct{}),
		random: rand.New(rand.NewPCG(seed, 1)), owners: make(map[string]string),
	}
	h.acknowledged.Store(-1)
	h.current.Store(h.p.takeOver(t, Config{}))
	h.p.FailBy(h)
	for i := range 4 {
		h.wg.Go(func() { h.member(i == 0) })
	}
	h.wg.Go(h.write)
	h.wg.Go(h.read)
	for range 30 {
		h.move()
	}
	close(h.stop)
	h.wg.Wait()
	return h.entered.Load(), h.acknowledged.Load()
}

func (h *history) draw(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.random.IntN(n)
}

func (h *history) chance(n int) bool { return h.draw(n) == 0 }

func (h *history) over() bool {
	select {
	case <-h.stop:
		return true
	default:
		return false
	}
}

// Next implements coordinatortest.Fates.
func (h *history) Next() error {
	switch {
	case h.chance(15):
		return errors.New("refused")
	case h.chance(60):
		return coordinator.ErrUnknownOutcome
	}
	return nil
}

// move has the next coordinator take over, with what is on its way in the journal or not.
func (h *history) move() {
	time.Sleep(time.Duration(5+h.draw(25)) * time.Second)
	if h.chance(2) {
		h.p.Hold()
		time.Sleep(200 * time.Millisecond)
	}
	old := h.current.Load()
	h.current.Store(h.p.takeOver(h.t, Config{}))
	h.p.Release()
	if h.chance(2) {
		old.Unload(0)
	}
}

// member is a client that comes, stays a while and comes again.
func (h *history) member(static bool) {
	r := newReader(nil, "g")
	r.timeout = 15 * time.Second
	if static {
		s := "static"
		r.instance = &s
	}
	for !h.over() {
		r.c = h.current.Load()
		time.Sleep(time.Second)
		j := r.join()
		if j.ErrorCode != int16(protocol.None) {
			r.id = ""
			continue
		}
		var plan map[string][]byte
		if j.LeaderID == r.id && !j.SkipAssignment {
			plan = make(map[string][]byte)
			for n := range 8 {
				m := j.Members[n%len(j.Members)].MemberID
				plan[m] = fmt.Appendf(plan[m], "p%d ", n)
			}
		}
		if r.sync(plan).ErrorCode != int16(protocol.None) {
			continue
		}
		h.entered.Add(1)
		h.own(r)
		h.stay(r)
	}
}

// own notes what a member has been assigned, which nobody else may have been.
func (h *history) own(r *reader) {
	member := r.id
	if r.instance != nil {
		member = *r.instance // whose former member id is fenced
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, partition := range strings.Fields(string(r.assignment)) {
		at := fmt.Sprint(r.generation, " ", partition)
		if o := h.owners[at]; o != "" && o != member {
			h.t.Errorf("seed %d: in generation %d, %s and %s both own %s", h.seed, r.generation, o, member, partition)
		}
		h.owners[at] = member
	}
}

// stay sends heartbeats until the member is to join again, or goes.
func (h *history) stay(r *reader) {
	for !h.over() {
		time.Sleep(time.Second)
		r.c = h.current.Load()
		switch code := r.heartbeat(); code {
		case protocol.NotCoordinator, protocol.CoordinatorLoadInProgress:
			continue
		case protocol.None:
		case protocol.RebalanceInProgress:
			return
		default:
			r.id = ""
			return
		}
		if h.chance(30) {
			r.leave()
			r.id = ""
			return
		}
		if h.chance(30) && r.instance != nil {
			r.id = ""
			return
		}
	}
}

// write is the one writer of a register, a committed offset.
func (h *history) write() {
	for n := int64(1); !h.over(); n++ {
		if simpleCommit(h.current.Load(), "register", n) == protocol.None {
			h.acknowledged.Store(n)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// read is its reader.
func (h *history) read() {
	highest := int64(-1)
	for !h.over() {
		before := h.acknowledged.Load()
		if got, code := fetch(h.current.Load(), "register", "t"); code == protocol.None {
			if got < before || got < highest {
				h.t.Errorf("seed %d: read %d, %d was acknowledged and %d seen", h.seed, got, before, highest)
			}
			highest = max(highest, got)
		}
		time.Sleep(130 * time.Millisecond)
	}
}

// A storm of joins that never come back leaves nothing once sessions are over.
func TestAStormOfJoinsLeavesNothing(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		for i := range 20_000 {
			r := newReader(c, fmt.Sprint("g", i%1000))
			c.Join(t.Context(), Client{"storm", "/"}, r.joinRequest())
		}
		if c.pending.Load() == 0 {
			t.Error("nothing was charged")
		}
		time.Sleep(time.Minute)
		s, _ := c.shardOf("g")
		defer s.Unlock()
		if n := len(s.groups); n != 0 || c.memory.held()+c.pending.Load() != 0 || s.AlarmsLocked() != 1 || p.Len() != 0 {
			t.Errorf("%d groups, %d bytes, %d alarms, %d records", n, c.memory.held()+c.pending.Load(), s.AlarmsLocked(), p.Len())
		}
	})
}

// Members of all groups are bounded together, and one address leaves room for
// others: what it may hold is what it leaves free.
func TestMembersOfAllGroupsAreBoundedTogetherAndShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &journal{}
		c := p.takeOver(t, Config{Settings: set{MaxBytes: 100_000}})
		join := func(host string, i int) protocol.Code {
			req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			req.Version, req.Group, req.MemberID, req.RebalanceTimeoutMillis = 1, fmt.Sprint("g", i), host, 60_000
			req.SubscribedTopicNames, req.Topics = []string{"t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			return protocol.Code(c.ConsumerHeartbeat(t.Context(), Client{Host: host}, nil, req).ErrorCode)
		}
		for i, host := range []string{"/1", "/2", "/3", "/4"} {
			got := 0
			for i := range 1000 {
				if join(host, i) == protocol.None {
					got++
				}
			}
			if least := 100_000 / memoryOf(host) / (2 << i); got < least*8/10 || got == 1000 {
				t.Errorf("%s got %d members in, want about %d", host, got, least)
			}
		}
		if n := c.memory.held(); n > 100_000 {
			t.Errorf("%d bytes are held", n)
		}
		s, _ := c.shardOf("g")
		s.Unlock()
		c.Unload(0)
		if n := c.memory.held(); n != 0 {
			t.Errorf("%d bytes are held after the unload", n)
		}
	})
}

func memoryOf(host string) int {
	topic := consumerMember{id: host, memberValue: memberValue{client: Client{Host: host}, topics: []string{"t"}}}
	return topic.cost()
}

// Who asks for member ids by the thousand, with client ids as long as can be, keeps
// no other group's members from getting theirs, and takes the ids from itself.
func TestMemberIDsThatAreNeverUsedShutNobodyOut(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		victim := newReader(c, "victim")
		id := c.Join(t.Context(), Client{"v", "/v"}, victim.joinRequest()).MemberID
		long := strings.Repeat("x", 32_000)
		for i := range 20_000 {
			r := newReader(c, fmt.Sprint("g", i%10))
			wantCode(t, "a member id", c.Join(t.Context(), Client{long, "/a"}, r.joinRequest()).ErrorCode, protocol.MemberIDRequired)
		}
		if n := c.pending.Load(); n > maxPending {
			t.Errorf("%d bytes are pending, want at most %d", n, maxPending)
		}
		if n := c.memory.held(); n != 0 {
			t.Errorf("%d bytes are members'", n)
		}
		victim.id = id
		together(t, victim)
		together(t, newReader(c, "another"))
	})
}

func TestManyMembersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &journal{}
		c := p.takeOver(t, Config{})
		readers := make([]*reader, 300)
		for i := range readers {
			readers[i] = newReader(c, "g")
		}
		together(t, readers...)
		c = p.takeOver(t, Config{})
		for _, r := range readers {
			r.c = c
			wantCode(t, "heartbeat", r.heartbeat(), protocol.None)
		}
	})
}

// FuzzReplay: whatever is in __consumer_offsets, a coordinator loads it without a
// panic and serves.
func FuzzReplay(f *testing.F) {
	now := time.Unix(1, 0)
	o := offsetRecord(now, "g", place{"t", 1}, committed{offset: 1, expiresAt: never, metadata: "m", topicID: [16]byte{1}})
	f.Add(o.Key, o.Value)
	f.Add(o.Key, []byte(nil))
	old := offsetRecord(now, "g", place{"t", 1}, committed{offset: 1, expiresAt: 5})
	f.Add(old.Key, old.Value)
	f.Add([]byte{0, 4, 0, 0, 0, 1, 't', 0xff, 0xff}, []byte{})
	f.Add([]byte{0, 1}, []byte{0, 4})
	f.Add(classicKey("g"), []byte{0, 3, 0, 8, 'c', 'o', 'n', 's', 'u', 'm', 'e', 'r', 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff})
	synctestGroup := func() []record.Record {
		p := &journal{}
		c := New(Config{Journal: p, Settings: set{InitialRebalanceDelay: -1}})
		defer c.Close()
		if err := c.Load(0, p.NewEpoch(), p.Records()); err != nil {
			f.Fatal(err)
		}
		r := newReader(c, "g")
		if _, code := r.enter(); code != protocol.None {
			f.Fatal(code)
		}
		r.leave()
		var records []record.Record
		for r := range p.Records() {
			records = append(records, r)
		}
		return records
	}
	for _, r := range synctestGroup() {
		f.Add(r.Key, r.Value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		p := &journal{}
		if len(value) == 0 {
			value = nil
		}
		good := offsetRecord(time.Now(), "good", place{"t", 0}, committed{offset: 7, expiresAt: never})
		p.Put(good, record.Record{Key: key, Value: value})
		c := New(Config{Journal: p})
		defer c.Close()
		if err := c.Load(0, p.NewEpoch(), p.Records()); err != nil {
			t.Fatal(err)
		}
		if k, err := parseKey(key); err == nil && k.group == "good" {
			return
		}
		if got := fetched(t, c, "good", "t"); got != 7 {
			t.Fatalf("offset %d, want 7", got)
		}
	})
}
