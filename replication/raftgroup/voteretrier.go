package raftgroup

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/transport"
)

// A voteRetrier is a group's transport that asks for votes until somebody answers.
//
// Raft asks each voter once. A candidate whose question found the other node
// starting, or its replica not open yet, would wait out its election timeout of
// seconds; and the voter that comes up in the meantime cannot be elected in the
// same term. Asked again, it gives its vote milliseconds after it is there.
//
// A question is repeated until it arrives, a later one to the same voter takes
// its place, the port closes, or the candidate would give up anyway.
type voteRetrier struct {
	*transport.Port

	mu     sync.Mutex
	latest map[raft.ServerID]uint64 // number of the latest question to each voter
}

func newVoteRetrier(port *transport.Port) *voteRetrier {
	return &voteRetrier{Port: port, latest: make(map[raft.ServerID]uint64)}
}

// RequestVote implements raft.Transport.
func (c *voteRetrier) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return c.ask(id, func() error { return c.Port.RequestVote(id, target, args, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (c *voteRetrier) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return c.ask(id, func() error { return c.Port.RequestPreVote(id, target, args, resp) })
}

// ask runs in a goroutine that Raft started for this one question.
func (c *voteRetrier) ask(id raft.ServerID, question func() error) error {
	c.mu.Lock()
	c.latest[id]++
	number := c.latest[id]
	c.mu.Unlock()
	for deadline := time.Now().Add(HeartbeatTimeout); ; {
		err := question()
		if !errors.Is(err, transport.ErrUnreachable) && !errors.Is(err, transport.ErrUnknownGroup) {
			return err
		}
		select {
		case <-time.After(voteRetryEvery):
		case <-c.Closed():
			return err // the replica is ended, and what ends it waits for this
		}
		c.mu.Lock()
		superseded := c.latest[id] != number
		c.mu.Unlock()
		if superseded || !time.Now().Before(deadline) {
			return err
		}
	}
}
