package segment

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/tysonmote/gommap"
)

// A mapping is a file's bytes in memory, read-only. It starts with one
// reference, its owner's; whoever hands out a slice of it takes another, and
// the last one to release unmaps. The file itself may be unlinked meanwhile,
// but never shrinks: that would turn reads into faults.
type mapping struct {
	data []byte // may reach beyond the end of the file: only what is written may be touched
	mm   gommap.MMap
	refs atomic.Int64
}

func newMapping(fd uintptr, size int64) (*mapping, error) {
	mm, err := gommap.MapRegion(fd, 0, size, gommap.PROT_READ, gommap.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	m := &mapping{data: mm, mm: mm}
	m.refs.Store(1)
	return m, nil
}

// acquire takes a reference; the caller must know that there is one.
func (m *mapping) acquire() {
	if m.refs.Add(1) <= 1 {
		panic("segment: mapping acquired after its last release")
	}
}

func (m *mapping) release() {
	switch n := m.refs.Add(-1); {
	case n == 0:
		m.data = nil
		if err := m.mm.UnsafeUnmap(); err != nil {
			panic(fmt.Sprintf("segment: unmap %d bytes: %v", len(m.mm), err))
		}
	case n < 0:
		panic("segment: mapping released twice")
	}
}

// guard runs f, which reads mapped memory of the file at path, and turns a
// fault (a page the disk cannot deliver, a file somebody truncated) into an
// error, since it must not end the process.
func guard(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface {
			runtime.Error
			Addr() uintptr
		})
		if !ok {
			panic(r)
		}
		err = &CorruptError{
			Path: path, Position: -1,
			Found: "a page that cannot be read", Expected: "bytes of the file", Err: fault,
		}
	}()
	return f()
}
