package raftgroup

import (
	"errors"
	"math"
	"slices"

	"github.com/hashicorp/raft"

	"millrace/log"
)

// A Log is what a group's transport asks of the log that Raft is given.
type Log interface {
	// Durable returns up to which entry the log is durable at least; math.MaxUint64: all
	// of it.
	Durable() uint64
	// Evict drops what is kept in memory of the entries up to index: all followers have them.
	Evict(index uint64)
}

// Transport returns what Raft is to send and receive by: the member's port, which also asks
// for votes until somebody answers, keeps back what no follower may hear of yet, and notes
// what followers answer in the member's progress. log is nil in the controller group, whose
// log syncs whatever it stores and keeps no copies.
func (m *Member) Transport(log Log) raft.Transport {
	return &groupTransport{voteRetrier: newVoteRetrier(m.Port), m: m, log: log}
}

// A groupTransport is the raft.Transport of one group's member.
type groupTransport struct {
	*voteRetrier
	m   *Member
	log Log // or nil
}

// errHeadersOnly refuses to send what a leader read when it was none any more.
var errHeadersOnly = errors.New("raftgroup: an entry of headers only is not sent")

// AppendEntries implements raft.Transport.
func (t *groupTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if slices.ContainsFunc(args.Entries, log.IsHeadersOnly) {
		return errHeadersOnly
	}
	// Raft may take for committed what is not durable here, where a leader syncs its own
	// entries while they are on their way.
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
	if all, ok := t.m.Progress.Answered(id, args.Term, index, t.m.Raft.LastIndex()); ok && !heartbeat && t.log != nil {
		t.log.Evict(all)
	}
	return nil
}

// durable returns up to which entry this member has everything for good, at least.
func (t *groupTransport) durable() uint64 {
	if t.log == nil {
		return math.MaxUint64
	}
	return t.log.Durable()
}

// pause waits before a follower that could not store entries is sent them again, and
// tells Raft not to. Raft would count such answers, and wait for up to 10 s when there
// were many; where a majority was out of room, the partition would be without
// acknowledgements for that long after it had some.
func (t *groupTransport) pause(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if resp.NoRetryBackoff || resp.Term > args.Term || len(args.Entries) == 0 {
		return // it lacks what comes before, or is of a later term
	}
	t.Port.Wait(t.m.Progress.Refused(id))
	resp.NoRetryBackoff = true
}
