package replication

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/roster"
)

// A registrar has the image say what this node is: where it listens, which feature levels
// it reads, which start of which folder it is. On the controller it raises the cluster's
// feature level as far as those say that it can be. Any goroutine may call its methods.
type registrar struct {
	n   *Node
	run string      // random, of this process
	age *folder.Age // of the data folder

	registered  atomic.Bool // from then on it stays so
	registering atomic.Bool // again
	raising     atomic.Bool // the feature level is
}

// broker is this node as it registers at a feature level.
func (r *registrar) broker(level int32) (metadata.Broker, error) {
	n := r.n
	host, port, err := roster.SplitAddress(n.cfg.Advertise)
	b := metadata.Broker{ID: n.identity.Node, Incarnation: n.identity.Incarnation, Host: host, Port: port, Rack: n.cfg.Rack}
	if level >= 2 {
		b.MinLevel, b.MaxLevel, b.Starts, b.Run = metadata.MinLevel, n.cfg.maxLevel, r.age.Now(), r.run
	}
	if level >= 3 {
		b.Listeners = metadata.JoinListeners(n.cfg.Listeners)
	}
	return b, err
}

// sameRegistration tells whether b, as the image has it, is what self says. The age moves on
// in one run, and is registered where that begins.
func sameRegistration(b, self metadata.Broker) bool {
	if b.Run == self.Run {
		self.Starts = b.Starts
	}
	return b == self
}

// register makes the image say what this node is: it registers the broker if the
// image does not know it, or knows it otherwise.
func (r *registrar) register(ctx context.Context) error {
	n := r.n
	// The cluster's level as far as this node knows; who founds one sets it.
	level, refusals := n.cfg.maxLevel, 0
	if known := n.Image().Level(); known > 0 {
		level = known
	}
	for {
		changed := n.Changed()
		self, err := r.broker(level)
		if err != nil {
			return err
		}
		if b, ok := n.Image().Broker(self.ID); ok && sameRegistration(*b, self) {
			return nil
		}
		// What another node committed may still be on its way here; a change
		// waits for the group's leader, so it finds out.
		trying, cancel := n.standing.whileSound(ctx)
		err = n.Change(trying, metadata.RegisterBroker{Broker: self, ClusterID: n.identity.Cluster})
		cancel()
		switch {
		case err == nil:
			continue
		case n.Failure() != nil:
			return fmt.Errorf("register with the cluster: %w", n.Failure())
		case ctx.Err() != nil, errors.Is(err, ErrClosed):
			return fmt.Errorf("register with the cluster: %w", err)
		case (errors.Is(err, metadata.ErrLevel) || errors.Is(err, metadata.ErrVersion)) && refusals < int(n.cfg.maxLevel):
			// It is not at that level, or its controller's release does not read that.
			refusals++
			if level--; level < 1 {
				level = n.cfg.maxLevel
			}
			continue
		case !errors.Is(err, ErrUnknown):
			return fmt.Errorf("register with the cluster: %w", err)
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// known tells whether the image has this node where it is, whatever start it was.
func (r *registrar) known() bool {
	self, err := r.broker(1)
	b, ok := r.n.Image().Broker(self.ID)
	if err != nil || !ok {
		return false
	}
	was := *b
	was.MinLevel, was.MaxLevel, was.Starts, was.Run, was.Listeners = 0, 0, 0, "", ""
	return was == self
}

// stay registers again when the image no longer says what this node is: the
// feature level was raised, or somebody else said something.
func (r *registrar) stay(image *metadata.Image) {
	n := r.n
	if !r.registered.Load() || n.controller.Down() != nil {
		return
	}
	self, err := r.broker(image.Level())
	if b, ok := image.Broker(self.ID); err != nil || ok && sameRegistration(*b, self) || !r.registering.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer r.registering.Store(false)
		if err := r.register(n.ctx); err != nil && n.ctx.Err() == nil {
			n.logger.Error("this node could not register again", "error", err)
			if errors.Is(err, metadata.ErrOldDisk) {
				n.outdated(err.Error())
			}
		}
	})
}

// noteController remembers when there was a controller last.
func (r *registrar) noteController() {
	if _, ok := r.n.Controller(); ok {
		r.n.members.Controlled()
	}
}

// raiseLevel raises the cluster's feature level, on its controller, as far as it can.
func (r *registrar) raiseLevel() {
	n := r.n
	m := n.memberOf(controller.Group)
	if m == nil || n.controller.Down() != nil || n.Image().Level() >= n.cfg.maxLevel || m.Raft.State() != raft.Leader {
		return
	}
	change, ok := n.members.NextLevel()
	if !ok || !r.raising.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer r.raising.Store(false)
		if _, err := n.controller.Propose(n.ctx, change); err != nil {
			n.logger.Warn("the cluster's feature level was not raised", "to", change.Level, "error", err)
			return
		}
		n.logger.Info("the cluster's feature level was raised: all brokers read it", "to", change.Level)
	})
}
