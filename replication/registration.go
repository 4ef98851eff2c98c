package replication

import (
	"errors"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
	"millrace/replication/roster"
)

// broker is this node as it registers at a feature level.
func (n *Node) broker(level int32) (metadata.Broker, error) {
	host, port, err := roster.SplitAddress(n.cfg.Advertise)
	b := metadata.Broker{ID: n.identity.Node, Incarnation: n.identity.Incarnation, Host: host, Port: port, Rack: n.cfg.Rack}
	if level >= 2 {
		b.MinLevel, b.MaxLevel, b.Starts, b.Run = metadata.MinLevel, n.cfg.maxLevel, n.age.Now(), n.run
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

// known tells whether the image has this node where it is, whatever start it was.
func (n *Node) known() bool {
	self, err := n.broker(1)
	b, ok := n.Image().Broker(self.ID)
	if err != nil || !ok {
		return false
	}
	was := *b
	was.MinLevel, was.MaxLevel, was.Starts, was.Run, was.Listeners = 0, 0, 0, "", ""
	return was == self
}

// stayRegistered registers again when the image no longer says what this node is: the
// feature level was raised, or somebody else said something.
func (n *Node) stayRegistered(image *metadata.Image) {
	if !n.isRegistered.Load() || n.controller.Down() != nil {
		return
	}
	self, err := n.broker(image.Level())
	if b, ok := image.Broker(self.ID); err != nil || ok && sameRegistration(*b, self) || !n.registering.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer n.registering.Store(false)
		if err := n.registerSelf(n.ctx); err != nil && n.ctx.Err() == nil {
			n.logger.Error("this node could not register again", "error", err)
			if errors.Is(err, metadata.ErrOldDisk) {
				n.outdated(err.Error())
			}
		}
	})
}

// noteController remembers when there was a controller last.
func (n *Node) noteController() {
	if _, ok := n.Controller(); ok {
		n.members.Controlled()
	}
}

// raiseLevel raises the cluster's feature level, on its controller, as far as it can.
func (n *Node) raiseLevel() {
	m := n.memberOf(controllerGroup)
	if m == nil || n.controller.Down() != nil || n.Image().Level() >= n.cfg.maxLevel || m.Raft.State() != raft.Leader {
		return
	}
	change, ok := n.members.NextLevel()
	if !ok || !n.raising.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer n.raising.Store(false)
		if _, err := n.controller.propose(n.ctx, change); err != nil {
			n.logger.Warn("the cluster's feature level was not raised", "to", change.Level, "error", err)
			return
		}
		n.logger.Info("the cluster's feature level was raised: all brokers read it", "to", change.Level)
	})
}
