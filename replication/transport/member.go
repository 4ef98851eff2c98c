package transport

import (
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// A Member is a group's member on this node, as far as its port asks it.
type Member interface {
	// CurrentTerm returns the member's term. It is called for every message and must not
	// block.
	CurrentTerm() uint64

	// Leads reports whether the member leads the group, so that to stand for election would
	// only depose it.
	Leads() bool

	// InstallSnapshot takes a snapshot of the leader's, which Raft is not given. It runs in a
	// goroutine of its own, one at a time, and answers through rpc.RespChan, at any time and
	// even after the port was closed. data, at most 16 MiB, is its own.
	InstallSnapshot(rpc raft.RPC, req *raft.InstallSnapshotRequest, data []byte)
}

// An attachment is what a port knows of its group's member: nothing, or the term that it
// starts with, or the member itself.
type attachment struct {
	start  atomic.Pointer[uint64]
	member atomic.Pointer[Member]
}

// get returns the member, nil as long as there is none.
func (a *attachment) get() Member {
	if m := a.member.Load(); m != nil {
		return *m
	}
	return nil
}

// term returns the member's term, and whether it is known.
func (a *attachment) term() (term uint64, known bool) {
	if m := a.get(); m != nil {
		return m.CurrentTerm(), true
	}
	if start := a.start.Load(); start != nil {
		return *start, true
	}
	return 0, false
}

// leads reports whether there is a member and it leads.
func (a *attachment) leads() bool {
	m := a.get()
	return m != nil && m.Leads()
}
