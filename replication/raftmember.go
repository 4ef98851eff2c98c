package replication

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/transport"
)

// A member is this node's part in one Raft group, the controllers' or a partition's. It is
// all that elections and gossip see of a group.
type member struct {
	group    uint64
	role     role
	raft     *raft.Raft
	port     *transport.Port
	progress progress  // of the followers, while it leads
	notify   chan bool // Raft's notifications of leadership
}

// A role is what a member is in its group for: a controller, or a partition's replica.
type role interface {
	// name names the group, for the log.
	name() string
	// leadsNow returns the term in which this node leads the group, as it tells the others.
	leadsNow() (term uint64, ok bool)
	// stillLeads tells whether what it told of a term a moment ago may be told still.
	stillLeads(term uint64) bool
	// stalls tells whether the disk keeps it from leading.
	stalls() bool
	// leadershipChanged is called when Raft says so. Raft may be late, and speak of a term
	// before this one. It must not wait for Raft, which waits for it.
	leadershipChanged(leads bool)
}

// watchLeadership hands what Raft says of the group's leadership to the role, until closing
// is closed. A group that this node leads no longer is elected like any other: a leader that
// steps down, for its lease or for a later term, may be the only one whose log can win, and
// nobody else learns that it is needed.
func (m *member) watchLeadership(self process, to events, closing <-chan struct{}) {
	for {
		select {
		case <-closing:
			return
		case leads := <-m.notify:
			m.role.leadershipChanged(leads)
			if !leads && m.raft.State() != raft.Leader { // it may be late, and tell of a term before this one
				to.leaderLost(m.group, self, true, 2*electionStagger)
			}
		}
	}
}

// leader returns the server that Raft takes for the leader, "" if none.
func (m *member) leader() raft.ServerID {
	_, id := m.raft.LeaderWithID()
	return id
}

// voters returns the voting servers in the order of the configuration.
func (m *member) voters() []raft.ServerID {
	var ids []raft.ServerID
	for _, s := range m.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// matched returns what is known of a follower in Raft's present term, false if it has
// not answered in it.
func (m *member) matched(id raft.ServerID) (matched, bool) {
	return m.progress.of(id, m.raft.CurrentTerm())
}

// matchIndex returns the last index known to be on a follower.
func (m *member) matchIndex(id raft.ServerID) uint64 {
	f, _ := m.matched(id)
	return f.index
}

// inSync tells whether a follower has everything there is, or had all there was within
// the last lagTime, by the system's clock, by which it was noted too.
func (m *member) inSync(id raft.ServerID) bool {
	last := m.raft.LastIndex()
	f, ok := m.matched(id)
	return ok && f.inSync(last, time.Now())
}

// mayVote tells whether a follower is close enough to get its vote. Of a short log an
// empty replica lacks no more than caughtUp entries: it must have said in this term
// what it has, and have had all there was, too.
func (m *member) mayVote(id raft.ServerID) bool {
	return m.matchIndex(id)+caughtUp >= m.raft.LastIndex() && m.inSync(id)
}

// sendTimeoutNow tells another voter to campaign now.
func (m *member) sendTimeoutNow(id raft.ServerID) error {
	self := []byte(m.port.LocalAddr())
	return m.port.TimeoutNow(id, raft.ServerAddress(id), &raft.TimeoutNowRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self},
	}, &raft.TimeoutNowResponse{})
}

// setTimeouts sets Raft's heartbeat and election timeouts. A candidate that
// waits for its next try takes a shorter one into use at once.
func (m *member) setTimeouts(timeout time.Duration) {
	c := m.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = timeout, timeout+timeoutStep
	if err := m.raft.ReloadConfig(c); err != nil {
		panic(fmt.Sprintf("raft refuses timeouts of %v: %v", timeout, err))
	}
}

// pokeElectionTimer makes a follower that has not heard from a leader within its
// heartbeat timeout notice at once, and ask for pre-votes.
//
// Raft has no call for that. It looks when the timeout is lowered: ReloadConfig notifies
// the follower's loop then (hashicorp/raft v1.7.3, api.go:738), which has its timer run out
// (raft.go:210). So the timeout is raised by timeoutStep and lowered again.
func (m *member) pokeElectionTimer() error {
	c := m.raft.ReloadableConfig()
	timeout := c.HeartbeatTimeout
	for _, c.HeartbeatTimeout = range []time.Duration{timeout + timeoutStep, timeout} {
		if err := m.raft.ReloadConfig(c); err != nil {
			return err
		}
	}
	return nil
}
