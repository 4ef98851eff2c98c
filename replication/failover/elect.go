package failover

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// An elector looks after the groups open here that have no leader: it has their voters
// campaign in turn, until one is found.
type elector struct {
	f *Failover

	mu         sync.Mutex
	leaderless map[uint64]*leaderlessGroup
	lastPeerUp time.Time

	wake chan struct{} // wakes electLoop

	tending sync.Mutex // held while one leaderless group is looked after
	jitter  *rand.Rand // under tending
	lack    lack
	given   bool // the others are to be told anew what this node leads; under tending
}

// A leaderlessGroup is a group open here that has no leader that this node knows of.
type leaderlessGroup struct {
	since         time.Time     // when it was found so; or a quorum for it; or a majority that hears no leader
	dead          raft.ServerID // the leader it lost; "": it has had none since it was opened
	lost          process       // and which run of it
	stoodDown     bool          // the leader said itself that it leads no more
	term          uint64        // when it lost it: the dead leader may come back and lead in a later one
	campaigns     int           // how often this node campaigned
	jitter        time.Duration // by what its next campaign comes later, see campaignDelay
	campaignAgain bool          // its candidacy was abandoned: it campaigns anew once it follows

	given bool // the others were told that this node, which led it, does so no more
	*lapse
}

// A lapse is the time that a group has had no leader for, however many it lost meanwhile
// before this node knew of them: each leaderlessGroup that takes the place of another has its lapse.
type lapse struct {
	from      time.Time // when this node first knew that there is no leader; none since
	lacked    bool      // which lasts for so long that it was logged; under tending
	shortened bool      // Raft's timers are short until a leader is found; under tending
}

// A lack is what is to be logged of groups without a leader, and of those that have
// one again. elector.tending guards it.
type lack struct {
	logged      time.Time
	lost, found []uint64
}

// log logs what there is, now or after a while.
func (l *lack) log(e *elector, now time.Time, flush bool) {
	if !flush && now.Sub(l.logged) < lackEvery {
		return
	}
	say := func(level slog.Level, groups []uint64, text string, args ...any) {
		if len(groups) == 0 {
			return
		}
		names := make([]string, 0, 4)
		for _, g := range groups[:min(len(groups), 3)] {
			names = append(names, e.groupName(g))
		}
		if len(groups) > 3 {
			names = append(names, "…")
		}
		e.f.logger.Log(context.Background(), level, text, append(args, "count", len(groups), "groups", names)...)
		l.logged = now
	}
	if len(l.lost) > 0 {
		say(slog.LevelWarn, l.lost, fmt.Sprintf("no leader for more than %v", lackTime), "reason", e.whyLeaderless(l.lost[0]))
	}
	say(slog.LevelInfo, l.found, "there is a leader again")
	l.lost, l.found = nil, nil
}

// whyLeaderless says what a group lacks to elect a leader, as far as is known here.
func (e *elector) whyLeaderless(group uint64) string {
	m := e.f.member(group)
	if m == nil {
		return "it is not open here"
	}
	voters := m.Voters()
	var away []string
	for _, id := range voters {
		if p, err := transport.ParseServerID(id); err == nil && id != e.f.self() && !e.f.gossip.hasOpen(id, group, process{}) {
			away = append(away, fmt.Sprint(p.Node))
		}
	}
	switch {
	case len(voters) == 0:
		return "it knows of no voters yet"
	case len(voters)-len(away) < len(voters)/2+1:
		return fmt.Sprintf("%d of its %d voters are here, too few to elect one: without node %s", len(voters)-len(away), len(voters), strings.Join(away, ", "))
	}
	return "enough of its voters are here, and none has been elected"
}

// groupName names a group for the log.
func (e *elector) groupName(group uint64) string {
	if m := e.f.member(group); m != nil {
		return m.Name()
	}
	return fmt.Sprint(group)
}

// peerUp notes when the last peer came up: it is given a while to say what it leads.
func (e *elector) peerUp(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lastPeerUp = now
}

// peerDown looks after the groups that lost their leader with a process. A group that knows
// no leader may have lost this one too: a survivor that was quicker has asked for votes, and
// Raft forgets its leader when it is asked. That survivor is given its chance.
func (e *elector) peerDown(peer process) {
	e.f.node.EachMember(func(m Member) {
		switch m.Leader() {
		case peer.ServerID():
			e.leaderLost(m.Group(), peer, false, 0)
		case "":
			e.leaderLost(m.Group(), peer, false, raftgroup.ElectionStagger)
		}
	})
	e.electLeaderless(time.Now())
}

// opened looks after a group from now on that was opened here.
func (e *elector) opened(group uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	e.tendLocked(group, &leaderlessGroup{since: now, lapse: &lapse{from: now}})
}

// closed looks after a group no longer.
func (e *elector) closed(group uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.leaderless, group)
}

// leaderLost notes that a group lost its leader. The election loop looks after it
// from then on, after a while that gives a leader the time to show. said tells that the
// leader itself says that it leads no more.
func (e *elector) leaderLost(group uint64, lost process, said bool, while time.Duration) {
	m := e.f.member(group)
	if m == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	o := &leaderlessGroup{since: now.Add(while), dead: lost.ServerID(), lost: lost, stoodDown: said, term: m.Term(), lapse: &lapse{from: now}}
	if before := e.leaderless[group]; before != nil {
		o.lapse = before.lapse
	}
	e.tendLocked(group, o)
}

// electionRank returns a voter's place among those that may campaign, or -1
// if it has no vote, how many these are, and how many of them have the group
// open. Who is about to open it keeps its place: the first voter is the one that
// should lead, and nodes open a new group some milliseconds apart.
func electionRank(voters []raft.ServerID, self raft.ServerID, open, coming func(raft.ServerID) bool) (rank, line, present int) {
	rank = -1
	for _, id := range voters {
		here := id == self || open(id)
		if id == self {
			rank = line
		}
		if here {
			present++
		}
		if here || coming(id) {
			line++
		}
	}
	return rank, line, present
}

// campaignAnew has the campaigns of groups without a leader begin anew, where they have led
// nowhere: a voter is there that was not, or did not answer.
func (e *elector) campaignAnew(groups []uint64) {
	e.mu.Lock()
	groups = slices.DeleteFunc(groups, func(group uint64) bool { return e.leaderless[group] == nil })
	e.mu.Unlock()
	if len(groups) == 0 {
		return
	}
	e.f.goTracked(func() { // tending is held while Raft is asked, which may be who calls
		e.tending.Lock()
		defer e.tending.Unlock()
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, group := range groups {
			if o := e.leaderless[group]; o != nil && o.campaigns > 1 {
				o.since, o.campaigns, o.jitter = time.Now(), 0, 0
			}
		}
	})
}

// lostLeader tells whether a group here, which a process leads no more, followed it until
// now; or knows no leader and nobody looks for one: a voter that could not win has asked
// for votes since, and Raft forgets its leader when it is asked.
func (e *elector) lostLeader(m Member, former process) bool {
	switch m.Leader() {
	case former.ServerID():
		return true
	case "":
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.leaderless[m.Group()] == nil
	}
	return false
}

// electLoop looks after groups without a leader, at once where one is put into its care,
// and sleeps while there are none. Of those that come one after another, as a node opens
// its partitions, it looks at all each lookEvery.
func (e *elector) electLoop() {
	for {
		select {
		case <-e.f.ctx.Done():
			return
		case <-e.wake:
		}
		for left := 1; left > 0; {
			left = e.electLeaderless(time.Now())
			select {
			case <-e.f.ctx.Done():
				return
			case <-time.After(lookEvery):
			}
		}
	}
}

// tendLocked puts a group into the care of electLoop, with mu held.
func (e *elector) tendLocked(group uint64, o *leaderlessGroup) {
	e.leaderless[group] = o
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// electLeaderless looks after each of these groups once, and returns how many are left.
func (e *elector) electLeaderless(now time.Time) (left int) {
	e.mu.Lock()
	groups := slices.Sorted(maps.Keys(e.leaderless))
	introduced := now.Sub(e.lastPeerUp) >= introduction
	e.mu.Unlock()
	for _, group := range groups {
		e.mu.Lock()
		o := e.leaderless[group]
		e.mu.Unlock()
		if o != nil && e.electOne(group, o, now, introduced) {
			e.mu.Lock()
			if e.leaderless[group] == o {
				delete(e.leaderless, group)
			}
			e.mu.Unlock()
		}
	}
	e.mu.Lock()
	left = len(e.leaderless)
	e.mu.Unlock()
	e.tending.Lock()
	e.lack.log(e, now, left == 0)
	given := e.given
	e.given = false
	e.tending.Unlock()
	if given {
		e.f.gossip.notOpen()
	}
	return left
}

// electOne looks after one group; done means that it has a leader, or that it
// is none of this node's business. A group is touched by one goroutine at a
// time: tending is held.
func (e *elector) electOne(group uint64, o *leaderlessGroup, now time.Time, introduced bool) (done bool) {
	e.tending.Lock()
	defer e.tending.Unlock()
	m := e.f.member(group)
	if m == nil {
		return true
	}
	leader := m.Leader()
	if leader != "" && (leader != o.dead || m.Term() > o.term) {
		e.settle(m, o)
		return true
	}
	if c, led := e.f.gossip.leaderOf(group); led && c.Node != e.f.peers.Self().Node && c.term >= m.Term() {
		switch {
		case e.f.evidence.hears(c.process):
			// Raft will hear from it; the leader of an earlier term will lead no more.
			// Or has all along: this one was out of hearing for a while, and is back.
			if leader != c.ServerID() {
				return false
			}
			e.settle(m, o)
			return true
		case e.f.evidence.anyHears(func(p process) bool { return p == c.process }) && !e.f.evidence.lost(c.process, m.Voters()):
			// Others hear it, and may follow it: a broker that has no vote does not. The
			// group is led; the stagger counts from when it is not.
			o.since, o.from = now, now
			return false
		}
	}
	if o.stoodDown && !o.given && o.lost == e.f.peers.Self() && now.Sub(o.from) >= giveAfter {
		// It has campaigned, and may not be the one that can win. The others follow it
		// until it says that it leads no more, or Raft's own time is over.
		o.given, e.given = true, true
	}
	if !o.lacked && now.Sub(o.from) > lackTime {
		o.lacked = true
		e.lack.lost = append(e.lack.lost, group)
	}
	voters := m.Voters()
	if len(voters) == 0 {
		return false // joins a group; its leader will find it
	}
	open := func(id raft.ServerID) bool { return e.f.gossip.hasOpen(id, group, o.lost) }
	coming := func(id raft.ServerID) bool { return o.dead == "" && e.connected(id) }
	rank, line, present := electionRank(voters, e.f.self(), open, coming)
	switch {
	case rank < 0:
		return true // no vote here
	case present < len(voters)/2+1:
		o.since = now // the stagger counts from the quorum
		return false
	case o.dead == "" && !introduced:
		return false
	}
	again := o.campaignAgain && m.State() == raft.Follower
	if again || now.Sub(o.since) >= campaignDelay(rank, line, o.campaigns)+o.jitter {
		if !again { // which belongs to the campaign before
			o.countCampaign(line, e.jitter)
		}
		if err := e.campaign(m, o); err != nil {
			e.f.logger.Debug("election not started", "group", group, "error", err)
		}
	}
	if !o.shortened && now.Sub(o.since) > shortenAfter {
		o.shortened = true
		m.ShortenTimeouts(true)
	}
	return false
}

// settle ends what was done for a group that has a leader now.
func (e *elector) settle(m Member, o *leaderlessGroup) {
	if o.shortened {
		o.shortened = false // it may go on, for a group that has lost that leader meanwhile
		m.ShortenTimeouts(false)
	}
	if o.lacked {
		o.lacked = false
		e.lack.found = append(e.lack.found, m.Group())
	}
}

// connected tells whether a server's node is there.
func (e *elector) connected(id raft.ServerID) bool {
	peer, err := transport.ParseServerID(id)
	return err == nil && e.f.live(peer.Node)
}

// campaignDelay returns how long after a group lost its leader the voter of a rank
// campaigns for the next time, of so many in line: in order, then all again after
// one round, two, four, and each up to a round later, by chance. The first in line may lack
// entries that others have; it stays a candidate for seconds then, while they refuse it.
//
// Two nodes do not lose a leader at the same moment: up to a ping's interval apart, and so
// they may campaign at the same one.
//
//	     lost                   rank 1
//	A ────┼───────────────────────┼ campaigns ─ ─ ─ ─ ─ ┼ again ─ ─ ─ ─ ─ ┼
//	          150 ms later, lost, rank 0
//	B ────────────────────────────┼ campaigns ─ ─ ─ ─ ─ ┼ again ─ ─ ─ ─ ─ ┼
//
// Each votes for itself. Without jitter they would meet at all further campaigns, too.
func campaignDelay(rank, line, tries int) time.Duration {
	rounds := 1<<min(tries, 10) - 1
	return time.Duration(rank+line*rounds) * raftgroup.ElectionStagger
}

// countCampaign counts a campaign, and draws the jitter of the next.
func (o *leaderlessGroup) countCampaign(line int, jitter *rand.Rand) {
	o.campaigns++
	o.jitter = time.Duration(jitter.Int64N(int64(line) * int64(raftgroup.ElectionStagger)))
}

// campaign asks for votes: at once if the leader is known to lead no more, since it says so
// or a majority of the voters lost it, else with a pre-vote, to which those who hear
// their leader say no. Asked at once they would have to say yes, and a link that is cut
// between two nodes would depose leaders for as long as it is. A candidate that has
// asked a whole round ago begins anew: others may have campaigned in the same term, and Raft
// would wait for its election timeout.
func (e *elector) campaign(m Member, o *leaderlessGroup) error {
	dead := o.dead != "" && (o.stoodDown || e.f.evidence.lost(o.lost, m.Voters()))
	if dead && m.Stalls() {
		return nil
	}
	o.campaignAgain = false
	if m.State() == raft.Candidate {
		if o.campaigns < 2 {
			return nil
		}
		if err := m.AbandonCandidacy(m.Term() + 1); err != nil {
			return err
		}
		if !dead { // a pre-vote is a follower's
			o.campaignAgain = true
			return nil
		}
	}
	if !dead {
		return m.AskPreVotes()
	}
	return m.Campaign()
}
