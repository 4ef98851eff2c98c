package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
)

// firstUsersPause is between two tries to have the cluster take its first users.
const firstUsersPause = 100 * time.Millisecond

// FirstUsers has a cluster without users take those that its founder was given, of whom the
// first becomes a super user, and returns when it has some. The founder calls it at each
// start before it serves a client, so that nobody comes in meanwhile: at each, since the
// first may have ended half-way. Another node makes none: one broker more would shut those
// out who use the cluster as it is.
func (r *Registrar) FirstUsers(ctx context.Context) error {
	users := r.self.Users
	if !r.self.Founder && len(users) > 0 && len(r.cluster.Image().Users()) == 0 {
		r.self.Logger.Warn("the cluster has no users, and this node did not found it: those that it was given are not made; `millrace user create` makes the first")
	}
	for {
		changed := r.cluster.Changed()
		image := r.cluster.Image()
		if !r.self.Founder || len(users) == 0 || len(image.Users()) > 0 {
			return nil
		}
		// By the image that has none: users that somebody else makes meanwhile stay.
		trying, cancel := r.standing.WhileSound(ctx)
		err := r.cluster.Change(trying, metadata.AlterUsers{Upsert: users, Judged: image.Index})
		cancel()
		switch {
		case err == nil:
			continue
		case r.standing.Failure() != nil:
			return fmt.Errorf("make the cluster's first user: %w", r.standing.Failure())
		case errors.Is(err, metadata.ErrConfigChanged), errors.Is(err, raftgroup.ErrUnknown):
		case errors.Is(err, metadata.ErrLevel) && r.othersRead(image, 4): // it is about to be raised
		default:
			return fmt.Errorf("make the cluster's first user: %w", err)
		}
		select {
		case <-changed:
		case <-time.After(firstUsersPause):
		case <-ctx.Done():
			return fmt.Errorf("make the cluster's first user: %w (last: %w)", context.Cause(ctx), err)
		}
	}
}

// othersRead reports whether this node and all others read a feature level.
func (r *Registrar) othersRead(image *metadata.Image, level int32) bool {
	for _, b := range image.Brokers() {
		if b.ID != r.self.Node.Node && b.MaxLevel < level {
			return false
		}
	}
	return r.self.MaxLevel >= level
}
