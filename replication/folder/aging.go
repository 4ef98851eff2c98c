package folder

import (
	"log/slog"
	"sync/atomic"

	"millrace/segment"
)

// An Aging is the chore that raises the age of the data folder while the node writes, once a
// second and once more after the last write: of what is on its way to the disk at one raise,
// the next tells. It costs a write of 16 bytes in place, an fdatasync, and a call to each
// node. Due is called by one goroutine.
type Aging struct {
	Age     *Age        // set before the first call
	under   atomic.Bool // a raise is under way
	written uint64      // at the last one; Due's own
	again   bool        // it was for something; Due's own
	failed  atomic.Bool // no more: the disk is in doubt
	scarce  atomic.Bool // the latest found no room for a copy of a block; tried again
}

// Due tells whether the age is to be raised now that written is what it is. Then Raise is.
func (a *Aging) Due(written uint64) bool {
	changed := written != a.written
	if a.failed.Load() || !changed && !a.again || !a.under.CompareAndSwap(false, true) {
		return false
	}
	a.written, a.again = written, changed
	return true
}

// Raise raises it, and tells whether it did. It waits for the disk.
func (a *Aging) Raise(logger *slog.Logger) bool {
	defer a.under.Store(false)
	err := a.Age.Raise()
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

// Idle reports whether no raise is under way.
func (a *Aging) Idle() bool { return !a.under.Load() }
