package replication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/memnet"
	"millrace/log"
	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/transport"
	"millrace/segment"
	"millrace/segment/record"
)

// TestAFaultAtAnyOperation is S20, S21 and S25 of whole clusters: each operation that an
// action of a node asks of its disk fails, on the node that leads the partition, on one
// that follows or on all, once or for as long as the fault lasts, with what a broken
// disk says (EIO), a full one (ENOSPC), a system without descriptors (EMFILE, of what
// opens files) or one that was interrupted (EINTR). Then:
//
//   - within healTime of the fault's end the partition acknowledges, whoever leads it;
//   - the node that had the fault serves again by itself if that was only "try again"; if
//     it is not there within healTime it says why (Partition.Down), and no other node
//     counts its replica as in sync, which is what health and `topic describe` show;
//   - everything acknowledged is read at its offset, nothing refused is read, and all
//     replicas hold the same, then and after a restart of all nodes.
//
// What is not here: that a mapping is refused (ENOMEM of mmap), since segments map what
// the file system opened without asking it; it takes the way of an open that is refused,
// and segment.TestMappingsStayWithinTheirBound and TestANodeWithoutDescriptors… go that. A
// close that fails, which nothing relies on. What fails while a node starts (its identity,
// its age, the files of votes and of the metadata log): the start fails,
// and says so. Punch and the removal of index files fail like the rest, and cost room only.
//
// All cases, some 7,000, take 21 minutes on two cores that have other things to do; a
// part of them, the same each time, is run unless MILLRACE_FAULTS=all, with -timeout 1h.
// MILLRACE_FAULTS=SEED chooses another part, and the name of a case, as a failure shows it,
// that case.
func TestAFaultAtAnyOperation(t *testing.T) {
	if testing.Short() {
		t.Skip("clusters take a second or two each; run without -short")
	}
	t.Parallel()
	for _, a := range faultyActions {
		for _, role := range a.roles {
			t.Run(a.name+"/"+role, func(t *testing.T) {
				t.Parallel()
				runFaults(t, a, role)
			})
		}
	}
}

const (
	// healTime is for how long after the end of a fault nobody has to answer.
	healTime = 5 * time.Second
	// faultTime is how long a fault lasts that does: long enough for Raft's own
	// timers and ours to have grown.
	faultTime = 40 * time.Second
	// casesPerCluster bounds how many topics a test cluster has.
	casesPerCluster = 40
	// usually one of so many cases is run.
	usually = 20
)

// A faultyAction is something a node does that asks for its disk.
type faultyAction struct {
	name   string
	roles  []string // of the node with the fault: leader, follower, all
	config map[string]string
	// prepare leads up to the action, without a fault.
	prepare func(f *faultCase)
	// do is what the fault meets. It may fail.
	do func(f *faultCase)
	// files tells which are counted; nil: those of the partition.
	files func(f *faultCase, name string) bool
	// heals checks what has to hold besides, at the end of the fault; nil: nothing.
	heals func(f *faultCase)
	// oneOf so many cases is run, unless all are asked for; 0: usually.
	oneOf uint32
}

var faultyActions = []faultyAction{
	{name: "append", oneOf: 1, roles: []string{"leader", "follower", "followers"}, do: (*faultCase).append},
	{name: "roll", oneOf: 32, roles: []string{"leader", "follower", "followers", "all"}, prepare: (*faultCase).smallSegments, do: func(f *faultCase) {
		for range 3 {
			f.append()
		}
	}},
	{name: "roll that is due", roles: []string{"leader", "follower"}, prepare: (*faultCase).append, do: func(f *faultCase) {
		f.replica().Log().RollIfDue(time.Now().Add(365 * 24 * time.Hour))
		f.append()
	}},
	{name: "snapshot and checkpoint", roles: []string{"leader", "follower", "all"}, prepare: (*faultCase).append, do: func(f *faultCase) {
		f.each(func(r *partition.Replica) { r.TakeSnapshot() })
	}},
	{name: "trim", roles: []string{"leader", "follower", "all"}, prepare: func(f *faultCase) {
		f.smallSegments()
		f.append()
		f.append()
		f.append()
		f.snapshot()
	}, do: func(f *faultCase) {
		if _, p := f.serving(); p != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			f.trimmed = max(f.trimmed, p.HighWatermark()-1)
			p.Trim(ctx, f.trimmed)
		}
		time.Sleep(time.Second) // followers hear of it
	}},
	{name: "compaction", roles: []string{"leader", "follower"}, config: map[string]string{"cleanup.policy": "compact", "min.compaction.lag.ms": "0"}, prepare: func(f *faultCase) {
		f.keyed = true
		f.smallSegments()
		for range 4 {
			f.append()
		}
		f.snapshot()
	}, do: func(f *faultCase) {
		r := f.replica()
		r.Clean(log.Compaction{MaxIndex: r.SnapshotIndex(), Limit: mustPartition(f.t, f.victim, f.id).StableOffset()})
	}},
	{name: "install", oneOf: 32, roles: []string{"follower"}, prepare: func(f *faultCase) {
		f.smallSegments()
		for range 3 {
			f.append()
		}
		_, p := f.c.leader(f.id)
		if err := p.Replica().Log().Roll(); err != nil {
			f.t.Fatal(err)
		}
		f.append()
		f.snapshot()
		time.Sleep(time.Second)
	}, do: (*faultCase).install},
	{name: "segments for a follower", roles: []string{"leader"}, prepare: func(f *faultCase) {
		f.smallSegments()
		for range 3 {
			f.append()
		}
		f.snapshot()
		f.each(func(r *partition.Replica) {
			r.Log().Evict(r.Log().NextIndex())
			r.Log().UnmapIdle()
			r.Log().UnmapIdle()
		})
	}, do: func(f *faultCase) {
		for _, n := range f.c.nodes {
			if n != f.victim {
				f.installOn(n)
				return
			}
		}
	}},
	{name: "vote and term", oneOf: 1, roles: []string{"leader", "follower", "followers", "all"}, files: func(f *faultCase, name string) bool {
		return filepath.Base(name) == folder.VotesName
	}, do: func(f *faultCase) {
		if _, p := f.serving(); p != nil {
			if r := p.Replica(); r != nil {
				r.Port.StepDown(r.Raft.CurrentTerm() + 1)
			}
		}
		time.Sleep(time.Second)
	}},
	{name: "open", roles: []string{"leader", "follower", "all"}, prepare: (*faultCase).append, do: func(f *faultCase) {
		// As after a fault of another kind, and as when a node starts.
		f.each(func(r *partition.Replica) { r.Bounce(errors.New("a test")) })
		time.Sleep(time.Second)
	}},
	{name: "creation of a topic", roles: []string{"leader", "follower", "all"}, files: func(f *faultCase, name string) bool {
		return strings.Contains(name, folder.PartitionsName) && !f.known[folderOf(name)]
	}, prepare: func(f *faultCase) {
		f.known = map[string]bool{folder.PartitionsName: true}
		for _, n := range f.c.nodes {
			for _, dir := range n.folders() {
				f.known[filepath.Base(dir)] = true
			}
		}
	}, do: func(f *faultCase) {
		f.old = append(f.old, f.id)
		ctx, cancel := context.WithTimeout(context.Background(), healTime)
		defer cancel()
		name := fmt.Sprint("late-", f.victim.Image().Index)
		f.victim.CreateTopic(ctx, TopicRequest{Name: name, Partitions: 1, Replicas: 3})
		topic, ok := f.victim.Image().Topic(name)
		if !ok {
			f.t.Fatalf("%v: a topic was not created", f)
		}
		f.mu.Lock()
		f.id.Topic = topic.ID
		f.mu.Unlock()
		f.acked, f.next = map[int64]string{}, 0
		time.Sleep(time.Second)
	}},
	{name: "deletion of a topic", roles: []string{"leader", "follower", "all"}, files: func(f *faultCase, name string) bool {
		return f.gone != "" && (strings.Contains(name, f.gone) || filepath.Base(name) == folder.PartitionsName || filepath.Base(name) == folder.VotesName)
	}, prepare: func(f *faultCase) {
		f.doomed = f.c.create(fmt.Sprint("doomed-", f.c.live().Image().Index), 1, 3, nil)
		f.c.leader(f.doomed)
		for _, n := range f.c.nodes {
			mustPartition(f.t, n, f.doomed)
		}
		time.Sleep(time.Second)
	}, do: func(f *faultCase) {
		f.gone = partition.FolderName(f.doomed)
		ctx, cancel := context.WithTimeout(context.Background(), healTime)
		defer cancel()
		if err := f.c.live().Change(ctx, metadata.DeleteTopic{Topic: f.doomed.Topic}); err != nil {
			f.t.Errorf("%v: %v", f, err)
		}
		time.Sleep(time.Second)
	}, heals: func(f *faultCase) {
		for _, n := range f.c.nodes {
			for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
				left := ""
				for _, dir := range n.folders() {
					if strings.Contains(dir, f.gone) {
						left = dir
					}
				}
				if left == "" {
					break
				}
				if time.Since(begin) > healTime {
					f.t.Errorf("%v: %s is left", f, left)
					break
				}
			}
		}
	}},
	{name: "metadata change", oneOf: 6, roles: metaRoles, files: ofController, do: func(f *faultCase) {
		f.change(time.Second)
		time.Sleep(2 * time.Second) // the image is saved
	}, heals: (*faultCase).controllerHeals},
	{name: "snapshot of the metadata", oneOf: 6, roles: metaRoles, files: ofController, prepare: func(f *faultCase) { f.change(healTime) }, do: func(f *faultCase) {
		for _, n := range f.struck {
			n.controller.Raft.Snapshot().Error()
		}
		time.Sleep(2 * time.Second)
	}, heals: (*faultCase).controllerHeals},
	{name: "vote and term of the controller", oneOf: 6, roles: metaRoles, files: ofController, do: func(f *faultCase) {
		if n := f.c.controllerLead(); n != nil {
			m := n.memberOf(controller.Group)
			m.Port.StepDown(m.Raft.CurrentTerm() + 1)
		}
		time.Sleep(2 * time.Second)
	}, heals: (*faultCase).controllerHeals},
}

// metaRoles are those of the controller group.
var metaRoles = []string{"controller", "other controller", "other controllers", "all"}

// ofController tells whether a file is the controller group's.
func ofController(f *faultCase, name string) bool {
	return filepath.Base(filepath.Dir(name)) == folder.MetaName
}

// folderOf is the folder of a partition that a file lies in, or is.
func folderOf(name string) string {
	for filepath.Base(filepath.Dir(name)) != folder.PartitionsName && filepath.Base(name) != folder.PartitionsName {
		name = filepath.Dir(name)
	}
	return filepath.Base(name)
}

// change changes the metadata, through a node that has no fault if there is one.
func (f *faultCase) change(limit time.Duration) (ok bool) {
	through := f.c.nodes[0]
	for _, n := range f.c.nodes {
		if !slices.Contains(f.struck, n) {
			through = n
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	f.changes++
	if through.Change(ctx, metadata.SetTopicConfig{Topic: f.id.Topic, Set: map[string]string{"retention.ms": fmt.Sprint(1000000 + f.changes)}}) != nil {
		return false
	}
	f.changed = f.changes
	return true
}

// controllerHeals checks that the controller group takes changes again, and that all
// nodes have what was committed, in memory and as the last image.
func (f *faultCase) controllerHeals() {
	for ended := time.Now(); !f.change(healTime); {
		if took := time.Since(ended); took > healTime {
			f.t.Errorf("%v: no change is committed within %v", f, took)
			break
		}
	}
	want := fmt.Sprint(1000000 + f.changed)
	time.Sleep(healTime)
	for _, n := range f.c.nodes {
		if err := n.ControllerDown(); err != nil {
			if segment.Scarce(f.err) {
				f.t.Errorf("%v: node %d: the controller's member stopped: %v", f, n.id, err)
			}
			continue
		}
		topic, _ := n.Image().TopicByID(f.id.Topic)
		if got := topic.Config["retention.ms"]; got != want {
			f.t.Errorf("%v: node %d has retention.ms=%s, %s was committed", f, n.id, got, want)
		}
		if saved := n.savedImage(f.t); saved.Index != n.Image().Index {
			f.t.Errorf("%v: node %d has saved the image of change %d, it has %d", f, n.id, saved.Index, n.Image().Index)
		}
	}
}

// A faultKind is what a disk answers.
type faultKind struct {
	err     error
	lasting bool // all operations behind the first fail, too, for faultTime
	done    bool // what fails is done all the same
}

// A faultCase is one action under one fault.
type faultCase struct {
	t      *testing.T
	c      *testCluster
	a      faultyAction
	role   string
	id     idOf
	victim *testNode   // whose disk has the fault; the first of them
	struck []*testNode // all of them

	faultKind
	at int // the first operation that fails, from 1; 0: none, they are counted

	mu  sync.Mutex
	met []string // operations of the victim
	hit bool

	old     []idOf          // partitions that were the case's before
	known   map[string]bool // folders of partitions that were there before
	doomed  idOf            // a topic that is deleted
	gone    string          // its folder
	changes int             // of the metadata, so far
	changed int             // the last that was committed
	keyed   bool
	trimmed int64
	next    int
	sent    map[string]bool  // every value
	acked   map[int64]string // by offset
	refused map[string]bool
}

// name is what MILLRACE_FAULTS calls a case.
func (f *faultCase) name() string {
	s := fmt.Sprintf("%s, %s: %v at operation %d", f.a.name, f.role, f.err, f.at)
	if f.lasting {
		s += " and on"
	}
	if f.done {
		s += ", done all the same"
	}
	return s
}

func (f *faultCase) String() string {
	s := f.name()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at > 0 && f.at <= len(f.met) {
		s += fmt.Sprintf(" (%s)", strings.Join(f.met[max(0, f.at-3):f.at], ", "))
	}
	return s
}

// trouble is what the disk of a struck node answers.
func (f *faultCase) trouble(n *testNode) func(op, name string) (error, bool) {
	return func(op, name string) (error, bool) {
		f.mu.Lock()
		mine := strings.Contains(name, partition.FolderName(f.id))
		f.mu.Unlock()
		if f.a.files != nil {
			mine = f.a.files(f, name)
		}
		if !mine || op == "read" || f.err == syscall.EMFILE && op != "open" {
			return nil, false
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if n != f.victim {
			if f.hit && f.lasting {
				return f.err, false
			}
			return nil, false
		}
		f.met = append(f.met, op+" "+filepath.Base(name))
		if k := len(f.met); f.at == 0 || k < f.at || k > f.at && !f.lasting {
			return nil, false
		}
		f.hit = true
		return f.err, f.done && (op == "rename" || op == "sync" || op == "commit" || op == "remove")
	}
}

// wasHit says whether the disk has answered with the error.
func (f *faultCase) wasHit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

// replica is the victim's.
func (f *faultCase) replica() *partition.Replica {
	f.t.Helper()
	p := mustPartition(f.t, f.victim, f.id)
	for range 1000 {
		if r := p.Replica(); r != nil {
			return r
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Fatalf("%v: no replica: %v", f, p.Down())
	return nil
}

// each calls do with the replicas of the struck nodes.
func (f *faultCase) each(do func(r *partition.Replica)) {
	for _, n := range f.struck {
		if r := mustPartition(f.t, n, f.id).Replica(); r != nil {
			do(r)
		}
	}
}

// smallSegments makes every append roll.
func (f *faultCase) smallSegments() {
	for _, n := range f.c.nodes {
		p := mustPartition(f.t, n, f.id)
		for range 1000 {
			if r := p.Replica(); r != nil {
				r.Log().Configure(log.Config{SegmentBytes: 4 << 10, SegmentAge: 7 * 24 * time.Hour, FlushMessages: 1})
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// snapshot has all replicas take one.
func (f *faultCase) snapshot() {
	time.Sleep(time.Second)
	for _, n := range f.c.nodes {
		if r := mustPartition(f.t, n, f.id).Replica(); r != nil {
			r.TakeSnapshot()
		}
	}
}

func (f *faultCase) serving() (*testNode, *partition.Partition) {
	for _, n := range f.c.nodes {
		if p, err := n.Partition(f.id); err == nil {
			if _, err := p.Serving(); err == nil {
				return n, p
			}
		}
	}
	return nil, nil
}

// append sends a record to whoever leads, if anybody does, and notes what came of it.
func (f *faultCase) append() { f.tryAppend(time.Second) }

func (f *faultCase) tryAppend(limit time.Duration) (acked bool) {
	n, p := f.serving()
	if p == nil {
		return false
	}
	f.next++
	value := fmt.Sprintf("%d %s", f.next, strings.Repeat("x", 2500))
	r := record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte(value)}
	if f.keyed {
		r.Key = []byte{byte(f.next % 2)}
	}
	b, err := record.Build(record.None, r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.sent[value] = true
	f.mu.Unlock()
	done := make(chan error, 1)
	p.Append([]record.Batch{b}, told(func(ack partition.Ack, err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case err == nil:
			f.acked[ack.BaseOffset] = value
		case !errors.Is(err, ErrUnknown):
			f.refused[value] = true
			if !errors.Is(err, partition.ErrRefused) && !errors.Is(err, partition.ErrNoSpace) && !errors.Is(err, partition.ErrNotLeader) && !errors.Is(err, partition.ErrQuarantined) {
				f.t.Errorf("%v: node %d answers %v", f, n.id, err)
			}
		}
		done <- err
	}))
	select {
	case err := <-done:
		return err == nil
	case <-time.After(limit):
		return false
	}
}

// install has the victim take the leader's segments in its log's place.
func (f *faultCase) install() { f.installOn(f.victim) }

func (f *faultCase) installOn(n *testNode) {
	lead, p := f.serving()
	if p == nil || lead == n {
		return
	}
	from := p.Replica()
	to := mustPartition(f.t, n, f.id)
	r := to.Replica()
	if from == nil || r == nil || from.SnapshotIndex() == 0 {
		return
	}
	peer, err := transport.ParseServerID(lead.serverID())
	if err != nil {
		f.t.Fatal(err)
	}
	select {
	case <-r.Reinstall(peer.Node, from):
	case <-time.After(30 * time.Second):
		f.t.Errorf("%v: a catch-up does not end", f)
	}
}

// run runs one case, and returns whether the fault was met.
func (f *faultCase) run(name string) bool {
	f.sent, f.acked, f.refused = map[string]bool{}, map[int64]string{}, map[string]bool{}
	config := map[string]string{"segment.bytes": "1048576"}
	for k, v := range f.a.config {
		config[k] = v
	}
	f.id = f.c.create(name, 1, 3, config)
	f.c.leader(f.id)
	for _, n := range f.c.nodes { // hosted
		mustPartition(f.t, n, f.id)
	}
	if !f.tryAppend(healTime) {
		f.t.Fatalf("%v: no acknowledgement before the fault", f)
	}
	if f.a.prepare != nil {
		f.a.prepare(f)
	}
	lead, _ := f.c.leader(f.id)
	switch f.role {
	case "leader":
		f.victim = lead
	case "controller":
		f.victim = f.c.controllerWithin(healTime)
	case "other controller", "other controllers":
		lead = f.c.controllerWithin(healTime)
		f.victim = f.c.others(lead)[f.at%2]
	default:
		f.victim = f.c.others(lead)[f.at%2]
	}
	f.struck = []*testNode{f.victim}
	for _, n := range f.c.others(f.victim) {
		if f.role == "all" || (f.role == "followers" || f.role == "other controllers") && n != lead {
			f.struck = append(f.struck, n)
		}
	}
	for _, n := range f.struck {
		n.disk.disturb(f.trouble(n))
	}
	f.a.do(f)
	time.Sleep(100 * time.Millisecond) // who follows is a little behind
	if f.lasting {
		for end := time.Now().Add(faultTime); f.wasHit() && time.Now().Before(end); time.Sleep(3 * time.Second) {
			f.tryAppend(time.Second)
		}
	}
	for _, n := range f.struck {
		n.disk.disturb(nil)
	}
	hit := f.wasHit()
	if !hit {
		return false
	}
	f.heals()
	return true
}

// heals checks what has to hold after the end of the fault.
func (f *faultCase) heals() {
	ended := time.Now()
	for !f.tryAppend(healTime) {
		if took := time.Since(ended); took > healTime {
			f.t.Errorf("%v: no acknowledgement within %v: %v", f, took, f.states())
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, n := range f.struck {
		p := mustPartition(f.t, n, f.id)
		var down error
		up := func() bool {
			down = p.Down()
			return down == nil && p.Replica() != nil
		}
		for !up() && time.Since(ended) < healTime {
			time.Sleep(10 * time.Millisecond)
		}
		if up() {
			continue
		}
		if down == nil {
			f.t.Errorf("%v: node %d has no replica and does not say why", f, n.id)
		}
		for _, other := range f.c.nodes {
			if slices.Contains(other.InSync(f.id), n.id) {
				f.t.Errorf("%v: node %d says that node %d is in sync, which is down: %v", f, other.id, n.id, down)
			}
		}
		if !segment.Scarce(f.err) {
			if !errors.Is(down, partition.ErrQuarantined) {
				f.t.Errorf("%v: node %d is down: %v", f, n.id, down)
			}
			continue
		}
		for !up() && time.Since(ended) < openedWithin {
			time.Sleep(100 * time.Millisecond)
		}
		if !up() {
			f.t.Errorf("%v: node %d needs a restart: %v", f, n.id, down)
		}
	}
	if f.a.heals != nil {
		f.a.heals(f)
	}
	f.check("after the fault")
}

// states says how the replicas are.
func (f *faultCase) states() string {
	var s []string
	for _, n := range f.c.nodes {
		p := mustPartition(f.t, n, f.id)
		r := p.Replica()
		if r == nil {
			s = append(s, fmt.Sprintf("node %d: down: %v", n.id, p.Down()))
			continue
		}
		s = append(s, fmt.Sprintf("node %d: %v of term %d, last entry %d, commit %d, serving %v", n.id, r.Raft.State(), r.Raft.CurrentTerm(), r.Raft.LastIndex(), r.Raft.CommitIndex(), leads(r)))
	}
	return strings.Join(s, "; ")
}

// check reads everything from the leader, and compares the replicas.
func (f *faultCase) check(when string) {
	f.t.Helper()
	_, p := f.c.leader(f.id)
	got := map[int64]string{}
	for offset := p.StartOffset(); offset < p.HighWatermark(); {
		v, err := p.Read(offset, 1<<20, false)
		if errors.Is(err, partition.ErrNotLeader) {
			_, p = f.c.leader(f.id)
			continue
		}
		if errors.Is(err, partition.ErrOutOfRange) { // a trim that was pending is made meanwhile
			time.Sleep(10 * time.Millisecond)
			if start := p.StartOffset(); offset < start {
				offset = start
				continue
			}
		}
		if err != nil {
			f.t.Fatalf("%v: %s: read at %d: %v", f, when, offset, err)
		}
		for _, piece := range v.Bytes {
			for len(piece) > 0 {
				b, rest, err := record.Split(piece)
				if err != nil {
					f.t.Fatalf("%v: %s: %v", f, when, err)
				}
				for r, err := range b.Records() {
					if err != nil {
						f.t.Fatalf("%v: %s: %v", f, when, err)
					}
					got[r.Offset] = string(r.Value)
				}
				offset = b.NextOffset()
				piece = rest
			}
		}
		v.Release()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	latest := map[byte]int64{}
	for offset, value := range got {
		latest[key(value)] = max(latest[key(value)], offset)
	}
	for offset, value := range f.acked {
		switch found := got[offset]; {
		case found == value, offset < p.StartOffset():
		case found == "" && f.keyed && latest[key(value)] > offset:
		default:
			f.t.Errorf("%s: %s: offset %d was acknowledged as %.10q and is %.10q", f.name(), when, offset, value, found)
		}
	}
	for offset, value := range got {
		if !f.sent[value] || f.refused[value] {
			f.t.Errorf("%s: %s: offset %d is %.10q, which was refused: %v", f.name(), when, offset, value, f.refused[value])
		}
	}
}

// key is the key of a value of a keyed case.
func key(value string) byte {
	var n int
	fmt.Sscan(value, &n)
	return byte(n % 2)
}

// chosen tells whether a case is run; see TestAFaultAtAnyOperation.
func (f *faultCase) chosen() bool {
	asked := os.Getenv("MILLRACE_FAULTS")
	switch name := f.name(); {
	case asked == "all", asked == name:
		return true
	case strings.Contains(asked, " "): // the name of another
		return false
	default:
		h := fnv.New32a()
		fmt.Fprint(h, asked, name)
		return h.Sum32()%cmp.Or(f.a.oneOf, usually) == 0
	}
}

// runFaults runs all cases of an action and a role, some of them in one cluster.
func runFaults(t *testing.T, a faultyAction, role string) {
	var kinds []faultKind
	for _, err := range []error{syscall.EIO, syscall.ENOSPC, syscall.EMFILE, syscall.EINTR} {
		several := role == "all" || role == "followers" || role == "other controllers"
		if several && !segment.Scarce(err) {
			continue // disks that broke everywhere are for somebody to look at
		}
		for _, lasting := range []bool{false, true} {
			for _, done := range []bool{false, true} {
				if done && (err != syscall.EIO || lasting) || several && !lasting {
					continue
				}
				kinds = append(kinds, faultKind{err, lasting, done})
			}
		}
	}
	counts := map[error]int{}
	run, left, at := 0, kinds, 1
	for len(left) > 0 {
		synctest.Test(t, func(t *testing.T) {
			c := startClusterOf(&testCluster{t: t, net: memnet.New(), dir: memDir(t), settings: map[string]string{"log.cleaner.enable": "false"}}, 3)
			defer func() {
				c.stop()
				time.Sleep(time.Minute)
			}()
			var ran []*faultCase
			for len(left) > 0 && len(ran) < casesPerCluster && !t.Failed() {
				kind := left[0]
				if _, counted := counts[kind.err]; !counted {
					dry := &faultCase{t: t, c: c, a: a, role: role, faultKind: kind}
					dry.run(fmt.Sprint("dry-", len(counts)))
					counts[kind.err] = len(dry.met)
				}
				if at > counts[kind.err] {
					left, at = left[1:], 1
					continue
				}
				f := &faultCase{t: t, c: c, a: a, role: role, faultKind: kind, at: at}
				at++
				if !f.chosen() {
					continue
				}
				if f.run(fmt.Sprint("case-", run)) {
					ran = append(ran, f)
				}
				run++
			}
			for _, n := range c.nodes {
				n.stop()
			}
			c.startAll()
			for _, f := range ran {
				f.c.leader(f.id)
				if !f.tryAppend(healTime) {
					t.Errorf("%v: no acknowledgement after a restart: %v", f, f.states())
				}
			}
			time.Sleep(time.Minute)
			for _, f := range ran {
				f.check("after a restart")
				c.sameEverywhere(f.id)
			}
		})
		if t.Failed() {
			return
		}
	}
	if met := counts[syscall.EIO] + counts[syscall.ENOSPC] + counts[syscall.EMFILE]; met == 0 || run == 0 && (a.oneOf == 1 || role == a.roles[0]) && !strings.Contains(os.Getenv("MILLRACE_FAULTS"), " ") {
		t.Fatalf("%d cases, %v operations: the test is of nothing", run, counts)
	}
	t.Logf("%d cases, operations: %v", run, counts)
}

// memDir is a folder in memory: these tests fail syncs themselves.
func memDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "millrace-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// savedImage is the last image that the node keeps.
func (n *testNode) savedImage(t *testing.T) *metadata.Image {
	t.Helper()
	image, err := LastImage(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	return image
}
