package replication

// registeredAge is the age at which this node was registered last, as far as its own
// folder knows; 0: as far as that goes it never was.
func (n *Node) registeredAge() uint64 {
	image, err := LastImage(n.cfg.DataDir)
	if err != nil {
		return 0 // none, or damaged: the log of the controllers has it
	}
	b, ok := image.Broker(n.identity.Node)
	if !ok || b.Incarnation != n.identity.Incarnation {
		return 0
	}
	return b.Starts
}

// written changes when something was written that others may rely on.
func (u *upkeep) written() uint64 {
	c := u.n.controller.Raft
	return u.n.env.Budget.Begun() + c.LastIndex() + c.CurrentTerm()
}

// grow raises the age if something was written, in the background, and tells the others.
func (u *upkeep) grow() {
	if u.aging.Due(u.written()) {
		u.n.goTracked(func() {
			if u.aging.Raise(u.n.logger) {
				u.n.failover.Gossip()
			}
		})
	}
}
