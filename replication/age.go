package replication

import (
	"log/slog"
	"sync/atomic"

	"millrace/replication/folder"
	"millrace/segment"
)

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

// An aging is the chore that raises the age of the data folder while the node writes, once a
// second and once more after the last write: of what is on its way to the disk at one raise,
// the next tells. It costs a write of 16 bytes in place, an fdatasync, and a call to each
// node. due is called by one goroutine.
type aging struct {
	age     *folder.Age // set by Start
	under   atomic.Bool // a raise is under way
	written uint64      // upkeep.written at the last one; upkeep.loop's own
	again   bool        // it was for something; upkeep.loop's own
	failed  atomic.Bool // no more: the disk is in doubt
	scarce  atomic.Bool // the latest found no room for a copy of a block; tried again
}

// due tells whether the age is to be raised now that written is what it is. Then raise is.
func (a *aging) due(written uint64) bool {
	changed := written != a.written
	if a.failed.Load() || !changed && !a.again || !a.under.CompareAndSwap(false, true) {
		return false
	}
	a.written, a.again = written, changed
	return true
}

// raise raises it, and tells whether it did. It waits for the disk.
func (a *aging) raise(logger *slog.Logger) bool {
	defer a.under.Store(false)
	err := a.age.Raise()
	if err == nil {
		a.scarce.Store(false)
		return true
	}
	if segment.Scarce(err) { // where to overwrite is to copy; the whole slot is written anew
		if !a.scarce.Swap(true) {
			logger.Warn("the age of the data folder cannot be kept now, and is tried again", "error", err)
		}
		return false
	}
	// As after any sync that failed, nobody knows what is there. What was said was on
	// the disk; nothing more is said.
	a.failed.Store(true)
	logger.Warn("the age of the data folder is not kept any more: a copy of it that is restored may not be recognised before the node is started again",
		"error", err)
	return false
}

// written changes when something was written that others may rely on.
func (u *upkeep) written() uint64 {
	c := u.n.controller.Raft
	return u.n.env.Budget.Begun() + c.LastIndex() + c.CurrentTerm()
}

// grow raises the age if something was written, in the background, and tells the others.
func (u *upkeep) grow() {
	if u.aging.due(u.written()) {
		u.n.goTracked(func() {
			if u.aging.raise(u.n.logger) {
				u.n.failover.Gossip()
			}
		})
	}
}
