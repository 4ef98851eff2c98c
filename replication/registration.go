package replication

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"millrace/replication/admission"
	"millrace/replication/controller"
	"millrace/replication/metadata"
)

// A registrar has the image go on saying what this node is. On the controller it raises the
// cluster's feature level as far as the brokers say that it can be. Any goroutine may call
// its methods.
type registrar struct {
	*admission.Registrar
	n *Node

	registered  atomic.Bool // from then on it stays so
	registering atomic.Bool // again
	raising     atomic.Bool // the feature level is
}

// stay registers again when the image no longer says what this node is: the
// feature level was raised, or somebody else said something.
func (r *registrar) stay(image *metadata.Image) {
	n := r.n
	if !r.registered.Load() || n.controller.Down() != nil {
		return
	}
	if r.Current(image) || !r.registering.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer r.registering.Store(false)
		if err := r.Register(n.ctx); err != nil && n.ctx.Err() == nil {
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
