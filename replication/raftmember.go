package replication

import (
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/transport"
)

// A member is this node's part in one Raft group.
type member struct {
	raft     *raft.Raft
	port     *transport.Port
	progress progress // of the followers, while it leads
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
// the last lagTime.
func (m *member) inSync(id raft.ServerID, now time.Time) bool {
	last := m.raft.LastIndex()
	f, ok := m.matched(id)
	return ok && f.inSync(last, now)
}

// mayVote tells whether a follower is close enough to get its vote. Of a short log an
// empty replica lacks no more than caughtUp entries: it must have said in this term
// what it has, and have had all there was, too.
func (m *member) mayVote(id raft.ServerID) bool {
	return m.matchIndex(id)+caughtUp >= m.raft.LastIndex() && m.inSync(id, time.Now())
}

// sendTimeoutNow tells another voter to campaign now.
func (m *member) sendTimeoutNow(id raft.ServerID) error {
	self := []byte(m.port.LocalAddr())
	return m.port.TimeoutNow(id, raft.ServerAddress(id), &raft.TimeoutNowRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self},
	}, &raft.TimeoutNowResponse{})
}
