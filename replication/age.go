package replication

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"millrace/segment"
)

// An age is how far a data folder has come: a number on its disk that each start
// raises, and that a node raises once a second for as long as it writes. Others are told
// of a number once it is on the disk, and never of the same one by two processes. So who
// says less than was heard under its name, or the same in another run, is at work in a
// copy of the folder that lacks what has happened since: a restored backup, or a clone.
//
//	the folder  5 start · 6 · 7 ──────────── 8 · 9 stop
//	its copy                 └─ copied at 7 ─────────── 8 start: the others have heard 9
//
// Whoever has started again since does not know better than the image, which has the
// number of the node's last registration.
//
// It is safe for one goroutine that raises it and any number that read it.
type age struct {
	f   segment.File
	now atomic.Uint64
}

// ageName is the file, called by what it counted first.
const ageName = "starts"

const ageSlot = 16

// openAge opens a folder's age and raises it, for good, before the node speaks to any
// other: whatever a node says, it says at an age that is on its disk. The age is above
// registered, at which the folder knows itself to have been registered: a file that was
// lost alone makes it no copy of itself.
//
// The file has two slots of 16 bytes, used in turn and overwritten in place, so that a
// full disk does not stop a start and a crash leaves one of them:
//
//	age u64 · CRC-32C of it u32 · 4 bytes zero
func openAge(dir string, registered uint64) (*age, error) {
	f, err := segment.OS.OpenFile(filepath.Join(dir, ageName), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	a := &age{f: f}
	a.now.Store(registered)
	var p [2 * ageSlot]byte
	// What is not there, or torn, counts nothing. What the disk does not give may be there:
	// this node must not say that it is younger, and be sent away as a copy of itself.
	if _, err := f.ReadAt(p[:], 0); err != nil && err != io.EOF {
		f.Close()
		return nil, err
	}
	for slot := range 2 {
		s := p[slot*ageSlot : (slot+1)*ageSlot]
		if crc32.Checksum(s[:8], castagnoli) == binary.BigEndian.Uint32(s[8:]) {
			a.now.Store(max(a.now.Load(), binary.BigEndian.Uint64(s)))
		}
	}
	err = a.raise()
	if err == nil {
		err = segment.SyncDir(segment.OS, dir)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

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

// raise makes the age one more, on the disk first.
func (a *age) raise() error {
	next := a.now.Load() + 1
	var s [ageSlot]byte
	binary.BigEndian.PutUint64(s[:], next)
	binary.BigEndian.PutUint32(s[8:], crc32.Checksum(s[:8], castagnoli))
	if err := a.f.Pwritev([][]byte{s[:]}, int64(next%2)*ageSlot); err != nil {
		return err
	}
	if err := a.f.Sync(); err != nil {
		return err
	}
	a.now.Store(next)
	return nil
}

// ages is the chore that raises the age while the node writes, once a second and once
// more after the last write: of what is on its way to the disk at one raise, the next
// tells. It costs a write of 16 bytes in place, an fdatasync, and a call to each node.
type ages struct {
	under   atomic.Bool // a raise is under way
	written uint64      // Node.written at the last one; upkeepLoop's own
	again   bool        // it was for something; upkeepLoop's own
	failed  atomic.Bool // no more: the disk is in doubt
	scarce  atomic.Bool // the latest found no room for a copy of a block; tried again
}

// written changes when something was written that others may rely on.
func (n *Node) written() uint64 {
	c := n.controller.raft
	return n.budget.writes.Load() + c.LastIndex() + c.CurrentTerm()
}

// grow raises the age if something was written, in the background, and tells the others.
func (n *Node) grow() {
	a := &n.ages
	written := n.written()
	changed := written != a.written
	if a.failed.Load() || !changed && !a.again || !a.under.CompareAndSwap(false, true) {
		return
	}
	a.written, a.again = written, changed
	n.goTracked(func() {
		defer a.under.Store(false)
		err := n.age.raise()
		if err == nil {
			a.scarce.Store(false)
			n.failover.gossip.spread()
			return
		}
		if segment.Scarce(err) { // where to overwrite is to copy; the whole slot is written anew
			if !a.scarce.Swap(true) {
				n.logger.Warn("the age of the data folder cannot be kept now, and is tried again", "error", err)
			}
			return
		}
		// As after any sync that failed, nobody knows what is there. What was said was on
		// the disk; nothing more is said.
		a.failed.Store(true)
		n.logger.Warn("the age of the data folder is not kept any more: a copy of it that is restored may not be recognised before the node is started again",
			"error", err)
	})
}
