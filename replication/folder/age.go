package folder

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"sync/atomic"

	"millrace/segment"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// An Age is how far a data folder has come: a number on its disk that each start
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
type Age struct {
	file segment.File
	now  atomic.Uint64
}

const ageSlot = 16

// OpenAge opens a folder's age and raises it, for good, before the node speaks to any
// other: whatever a node says, it says at an age that is on its disk. The age is above
// registered, at which the folder knows itself to have been registered: a file that was
// lost alone makes it no copy of itself.
//
// The file has two slots of 16 bytes, used in turn and overwritten in place, so that a
// full disk does not stop a start and a crash leaves one of them:
//
//	age u64 · CRC-32C of it u32 · 4 bytes zero
func (f Folder) OpenAge(registered uint64) (*Age, error) {
	file, err := segment.OS.OpenFile(f.Path(AgeName), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	a := &Age{file: file}
	a.now.Store(registered)
	var p [2 * ageSlot]byte
	// What is not there, or torn, counts nothing. What the disk does not give may be there:
	// this node must not say that it is younger, and be sent away as a copy of itself.
	if _, err := file.ReadAt(p[:], 0); err != nil && err != io.EOF {
		file.Close()
		return nil, err
	}
	for slot := range 2 {
		s := p[slot*ageSlot : (slot+1)*ageSlot]
		if crc32.Checksum(s[:8], castagnoli) == binary.BigEndian.Uint32(s[8:]) {
			a.now.Store(max(a.now.Load(), binary.BigEndian.Uint64(s)))
		}
	}
	err = a.Raise()
	if err == nil {
		err = segment.SyncDir(segment.OS, f.Dir)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return a, nil
}

// Raise makes the age one more, on the disk first.
func (a *Age) Raise() error {
	next := a.now.Load() + 1
	var s [ageSlot]byte
	binary.BigEndian.PutUint64(s[:], next)
	binary.BigEndian.PutUint32(s[8:], crc32.Checksum(s[:8], castagnoli))
	if err := a.file.Pwritev([][]byte{s[:]}, int64(next%2)*ageSlot); err != nil {
		return err
	}
	if err := a.file.Sync(); err != nil {
		return err
	}
	a.now.Store(next)
	return nil
}

// Now is the age that is on the disk.
func (a *Age) Now() uint64 { return a.now.Load() }

// Close closes the file.
func (a *Age) Close() error { return a.file.Close() }
