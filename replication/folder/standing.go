package folder

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
)

// A Standing is whether a node may go on, and keeps what node.json says of that and of the
// cluster's feature level. It is made by NewStanding; any goroutine may call its methods.
type Standing struct {
	folder Folder
	failed chan struct{} // closed when failure is set

	mu       sync.Mutex
	logger   *slog.Logger
	identity Identity // as the file has it, once the node belongs to a cluster
	failure  error
}

// NewStanding returns that of the node of a folder, which may go on.
func NewStanding(f Folder) *Standing {
	return &Standing{folder: f, failed: make(chan struct{})}
}

// Belongs says who the node is, once it is a member of a cluster and node.json has that.
func (s *Standing) Belongs(id Identity, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity, s.logger = id, logger
}

// NoteLevel keeps in the folder that the cluster has reached a feature level, for a
// release that cannot read it. It is the reconciler's, who comes again if it is not ok.
func (s *Standing) NoteLevel(level int32) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if level < 2 || level <= s.identity.Level || s.failure != nil { // which has noted it, and more
		return true
	}
	id := s.identity
	id.Level = level
	if err := s.folder.Save(id); err != nil {
		s.logger.Warn("the feature level was not noted, trying again", "level", level, "error", err)
		return false
	}
	s.identity = id
	return true
}

// Fail ends the node, which is at a feature level, after a note in its folder of why.
func (s *Standing) Fail(cause error, level int32, note func(*Identity)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return
	}
	id := s.identity
	id.Level = max(id.Level, level)
	note(&id)
	if err := s.folder.Save(id); err != nil {
		cause = fmt.Errorf("%w (and %s was not written: %w)", cause, IdentityName, err)
	}
	s.failure = cause
	s.logger.Error("this node must end", "error", cause)
	close(s.failed)
}

// Failure is why the node must not go on, nil while there is none.
func (s *Standing) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// Failed is closed when the node must not go on.
func (s *Standing) Failed() <-chan struct{} { return s.failed }

// WhileSound returns a context that ends with ctx, and when this node must end.
func (s *Standing) WhileSound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the context
		select {
		case <-s.failed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
