package raftgroup

import "errors"

// Errors a caller can act on, the same for an append and for a change of metadata.
var (
	// ErrUnknown: leadership or storage was lost after the entry was handed to Raft; it may or may not survive.
	ErrUnknown = errors.New("raftgroup: outcome unknown, leadership was lost or storage failed")
	// ErrClosed: the node was shut down.
	ErrClosed = errors.New("raftgroup: node is closed")
)
