package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/raft"
)

// Contain is deferred where Raft calls us in its own goroutines. A panic there is a
// mistake of ours, met by one group's data: it ends that group's run here, by fault, and the
// goroutine, never the process. what says what was done.
func Contain(what string, fault func(error)) {
	cause := recover()
	if cause == nil {
		return
	}
	fault(fmt.Errorf("%s: %w: %v\n%s", what, ErrPanic, cause, debug.Stack()))
	runtime.Goexit()
}

// ErrPanic is in what Contain calls fault with.
var ErrPanic = errors.New("raftgroup: panic")

// DecodeConfiguration reads a group's members. Raft's own function panics on what
// it cannot read, and may have read it from a file, or from a peer.
func DecodeConfiguration(p []byte) (c raft.Configuration, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%v", cause)
		}
	}()
	return raft.DecodeConfiguration(p), nil
}

// Await waits for Raft's answer, until ctx ends or closing is closed: a future may never
// be answered. Its goroutine ends with the answer, or never.
func Await(ctx context.Context, closing <-chan struct{}, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-closing:
		return raft.ErrRaftShutdown
	}
}

// A State is what a state machine's snapshot holds, encoded. It implements
// raft.FSMSnapshot.
type State []byte

// Persist implements raft.FSMSnapshot.
func (s State) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s State) Release() {}
