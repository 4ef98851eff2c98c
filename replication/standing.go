package replication

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"millrace/replication/folder"
)

// A standing is whether a node may go on, and keeps what node.json says of that and of the
// cluster's feature level.
type standing struct {
	folder folder.Folder
	failed chan struct{} // closed when failure is set

	mu       sync.Mutex
	logger   *slog.Logger
	identity folder.Identity // as the file has it, once the node belongs to a cluster
	failure  error
}

// belongs says who the node is, once it is a member of a cluster and node.json has that.
func (s *standing) belongs(id folder.Identity, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity, s.logger = id, logger
}

// noteLevel keeps in the folder that the cluster has reached a feature level, for a
// release that cannot read it. It is the reconciler's, who comes again if it is not ok.
func (s *standing) noteLevel(level int32) (ok bool) {
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

// fail ends the node, which is at a feature level, after a note in its folder of why.
func (s *standing) fail(cause error, level int32, note func(*folder.Identity)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return
	}
	id := s.identity
	id.Level = max(id.Level, level)
	note(&id)
	if err := s.folder.Save(id); err != nil {
		cause = fmt.Errorf("%w (and %s was not written: %w)", cause, folder.IdentityName, err)
	}
	s.failure = cause
	s.logger.Error("this node must end", "error", cause)
	close(s.failed)
}

// why is the failure, nil while there is none.
func (s *standing) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// whileSound returns a context that ends with ctx, and when this node must end.
func (s *standing) whileSound(ctx context.Context) (context.Context, context.CancelFunc) {
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

// Failed is closed when the node must not go on; Failure says why.
func (n *Node) Failed() <-chan struct{} { return n.standing.failed }

// Failure is why the node must not go on, nil while it may.
func (n *Node) Failure() error { return n.standing.why() }

// outdated is called when another node shows that this folder is an old copy. It may
// lack what was acknowledged under its name, and another may be at work under it: so
// it is noted that the next start is that of a new incarnation, as after a lost
// disk, and the node ends.
func (n *Node) outdated(reason string) {
	n.standing.fail(fmt.Errorf("%w: %s; unless the other one is at work, which then has its place, start it again: it comes back as a new incarnation and catches up, and its partitions are set aside; if most nodes were restored, there is nobody to catch up from", ErrOldDisk, reason),
		n.Image().Level(), func(id *folder.Identity) { id.Outdated = true })
}
