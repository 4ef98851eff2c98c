package raftgroup

import (
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"millrace/replication/transport"
)

// A Member is this node's part in one Raft group, the controllers' or a partition's. It is
// all that elections and gossip see of a group. Who is one embeds it: makes it with Group,
// Role and Port, has Raft configured by Config, and starts Raft over Transport. All methods
// may be called by any goroutine from then on.
type Member struct {
	Group    uint64
	Role     Role
	Raft     *raft.Raft
	Port     *transport.Port
	Progress Progress // of the followers, while it leads

	notify chan bool // Raft's notifications of leadership
}

// A Role is what a member is in its group for: a controller, or a partition's replica.
type Role interface {
	// Name names the group, for the log.
	Name() string
	// LeadsNow returns the term in which this node leads the group, as it tells the others.
	LeadsNow() (term uint64, ok bool)
	// StillLeads tells whether what it told of a term a moment ago may be told still.
	StillLeads(term uint64) bool
	// Stalls tells whether the disk keeps it from leading.
	Stalls() bool
	// LeadershipChanged is called when Raft says so. Raft may be late, and speak of a term
	// before this one. It must not wait for Raft, which waits for it.
	LeadershipChanged(leads bool)
}

// Elections is who looks after the groups of a node that have no leader.
type Elections interface {
	// StoodDown says that by Raft's word this node leads a group no more. It does not block.
	StoodDown(group uint64)
}

// Config returns Raft's configuration as all groups have it: its timers, and that it tells
// WatchLeadership who leads. It is called once, before Raft starts.
func (m *Member) Config(self raft.ServerID, logger hclog.Logger) *raft.Config {
	m.notify = make(chan bool, 16)
	c := raft.DefaultConfig()
	c.LocalID = self
	c.HeartbeatTimeout = HeartbeatTimeout
	c.ElectionTimeout = HeartbeatTimeout + timeoutStep
	c.LeaderLeaseTimeout = LeaseTimeout
	c.CommitTimeout = CommitTimeout
	c.ShutdownOnRemove = false
	c.NotifyCh = m.notify
	c.NoLegacyTelemetry = true
	c.Logger = logger
	return c
}

// WatchLeadership hands what Raft says of the group's leadership to the role, until closing
// is closed, and tells of a group that this node leads no longer.
func (m *Member) WatchLeadership(to Elections, closing <-chan struct{}) {
	for {
		select {
		case <-closing:
			return
		case leads := <-m.notify:
			m.Role.LeadershipChanged(leads)
			if !leads && m.Raft.State() != raft.Leader { // it may be late, and tell of a term before this one
				to.StoodDown(m.Group)
			}
		}
	}
}

// CurrentTerm is Raft's, for transport.Member.
func (m *Member) CurrentTerm() uint64 { return m.Raft.CurrentTerm() }

// Leads reports whether Raft leads, for transport.Member. It may before its Role does.
func (m *Member) Leads() bool { return m.Raft.State() == raft.Leader }

// Leader returns the server that Raft takes for the leader, "" if none.
func (m *Member) Leader() raft.ServerID {
	_, id := m.Raft.LeaderWithID()
	return id
}

// Voters returns the voting servers in the order of the configuration.
func (m *Member) Voters() []raft.ServerID {
	var ids []raft.ServerID
	for _, s := range m.Raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// matched returns what is known of a follower in Raft's present term, false if it has
// not answered in it.
func (m *Member) matched(id raft.ServerID) (matched, bool) {
	return m.Progress.of(id, m.Raft.CurrentTerm())
}

// MatchIndex returns the last index known to be on a follower.
func (m *Member) MatchIndex(id raft.ServerID) uint64 {
	f, _ := m.matched(id)
	return f.index
}

// InSync tells whether a follower has everything there is, or had all there was within
// the last LagTime, by the system's clock, by which it was noted too.
func (m *Member) InSync(id raft.ServerID) bool {
	last := m.Raft.LastIndex()
	f, ok := m.matched(id)
	return ok && f.inSync(last, time.Now())
}

// caughtUp is how many entries a nonvoter may lack when it gets its vote.
const caughtUp = 256

// MayVote tells whether a follower is close enough to get its vote, or to lead. Of a short log an
// empty replica lacks no more than caughtUp entries: it must have said in this term
// what it has, and have had all there was, too.
func (m *Member) MayVote(id raft.ServerID) bool {
	return m.MatchIndex(id)+caughtUp >= m.Raft.LastIndex() && m.InSync(id)
}

// SendTimeoutNow tells another voter to campaign now.
func (m *Member) SendTimeoutNow(id raft.ServerID) error {
	self := []byte(m.Port.LocalAddr())
	return m.Port.TimeoutNow(id, raft.ServerAddress(id), &raft.TimeoutNowRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self},
	}, &raft.TimeoutNowResponse{})
}

// SetTimeouts sets Raft's heartbeat and election timeouts. A candidate that
// waits for its next try takes a shorter one into use at once.
func (m *Member) SetTimeouts(timeout time.Duration) {
	c := m.Raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = timeout, timeout+timeoutStep
	if err := m.Raft.ReloadConfig(c); err != nil {
		panic(fmt.Sprintf("raft refuses timeouts of %v: %v", timeout, err))
	}
}

// PokeElectionTimer makes a follower that has not heard from a leader within its
// heartbeat timeout notice at once, and ask for pre-votes.
//
// Raft has no call for that. It looks when the timeout is lowered: ReloadConfig notifies
// the follower's loop then (hashicorp/raft v1.7.3, api.go:738), which has its timer run out
// (raft.go:210). So the timeout is raised by timeoutStep and lowered again.
func (m *Member) PokeElectionTimer() error {
	c := m.Raft.ReloadableConfig()
	timeout := c.HeartbeatTimeout
	for _, c.HeartbeatTimeout = range []time.Duration{timeout + timeoutStep, timeout} {
		if err := m.Raft.ReloadConfig(c); err != nil {
			return err
		}
	}
	return nil
}
