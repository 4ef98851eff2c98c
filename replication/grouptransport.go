package replication

import (
	"errors"
	"math"
	"slices"

	"github.com/hashicorp/raft"

	"millrace/log"
)

// A groupTransport is the raft.Transport of one group's member: its port, which also asks
// for votes until somebody answers, keeps back what no follower may hear of yet, and notes
// what followers answer in the member's progress.
type groupTransport struct {
	*voteRetrier
	m   *member
	log *logStore // nil in the controller group, whose log syncs whatever it stores and keeps no copies
}

func newGroupTransport(m *member, log *logStore) *groupTransport {
	return &groupTransport{voteRetrier: newVoteRetrier(m.port), m: m, log: log}
}

// errHeadersOnly refuses to send what a leader read when it was none any more.
var errHeadersOnly = errors.New("replication: an entry of headers only is not sent")

// AppendEntries implements raft.Transport.
func (t *groupTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if slices.ContainsFunc(args.Entries, log.IsHeadersOnly) {
		return errHeadersOnly
	}
	// Raft may take for committed what is not durable here: see logStore.StoreLogs.
	args.LeaderCommitIndex = min(args.LeaderCommitIndex, t.durable())
	err := t.Port.AppendEntries(id, target, args, resp)
	if err == nil && !resp.Success {
		t.pause(id, args, resp)
	}
	if err != nil || !resp.Success {
		return err
	}
	index := args.PrevLogEntry + uint64(len(args.Entries))
	heartbeat := index == 0
	if all, ok := t.m.progress.answered(id, args.Term, index, t.m.raft.LastIndex()); ok && !heartbeat && t.log != nil {
		t.log.Evict(all)
	}
	return nil
}

// durable returns up to which entry this member has everything for good, at least.
func (t *groupTransport) durable() uint64 {
	if t.log == nil {
		return math.MaxUint64
	}
	return t.log.pending.durable()
}

// pause waits before a follower that could not store entries is sent them again, and
// tells Raft not to. Raft would count such answers, and wait for up to 10 s when there
// were many; where a majority was out of room, the partition would be without
// acknowledgements for that long after it had some.
func (t *groupTransport) pause(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if resp.NoRetryBackoff || resp.Term > args.Term || len(args.Entries) == 0 {
		return // it lacks what comes before, or is of a later term
	}
	t.Port.Wait(t.m.progress.refused(id))
	resp.NoRetryBackoff = true
}
