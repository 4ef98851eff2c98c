package replication

import (
	"log/slog"
	"runtime"
	"time"

	"github.com/hashicorp/raft"
)

// A patientStable keeps writing until it succeeds. Raft panics when it cannot
// save its term, which a full disk must not cause; while the write waits this
// member neither votes nor leads, which is what a broken disk should do. When
// the node closes the waiting goroutine ends.
type patientStable struct {
	raft.StableStore
	logger  *slog.Logger
	closing <-chan struct{}
}

func (s *patientStable) Set(key, value []byte) error {
	return s.insist(func() error { return s.StableStore.Set(key, value) })
}

func (s *patientStable) SetUint64(key []byte, value uint64) error {
	return s.insist(func() error { return s.StableStore.SetUint64(key, value) })
}

func (s *patientStable) insist(write func() error) error {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := write()
		if err == nil {
			return nil
		}
		s.logger.Error("the controller's vote cannot be saved, trying again; make room or replace the disk", "error", err)
		select {
		case <-s.closing:
			runtime.Goexit()
		case <-time.After(wait):
		}
	}
}
