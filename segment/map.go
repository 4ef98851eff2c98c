package segment

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
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
	read bool // since its pages were last let go; under resident.mu
}

// residentBytes is how much is read through mappings before the process lets go
// of their pages. They stay cached, but count as the process's memory, and a
// reader of a large topic would make that as large as the topic. To let go of a
// mapping costs about 10 µs, and to read on a fault for every 64 KiB.
const residentBytes = 16 << 20

// resident knows the mappings whose pages may be in this process's memory. There
// is one, as there is of the memory.
var resident residence

// A residence is safe for concurrent use.
type residence struct {
	mu    sync.Mutex
	bytes int64 // read through the mappings below since they were last let go
	of    []*mapping
}

// add notes that n bytes of m were read, and lets go of all pages when that makes
// them too many. Others may be reading: theirs come back when they touch them.
func (r *residence) add(m *mapping, n int) {
	r.mu.Lock()
	if !m.read {
		m.read = true
		r.of = append(r.of, m)
	}
	if r.bytes += int64(n); r.bytes < residentBytes {
		r.mu.Unlock()
		return
	}
	all := r.of
	r.bytes, r.of = 0, nil
	for _, m := range all {
		m.read = false
	}
	r.mu.Unlock()
	for _, m := range all {
		if m.acquireLive() {
			_ = m.mm.Advise(gommap.MADV_DONTNEED) // advice
			m.release()
		}
	}
}

// acquireLive takes a reference unless the mapping is gone.
func (m *mapping) acquireLive() bool {
	for {
		n := m.refs.Load()
		if n == 0 {
			return false
		}
		if m.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// releaseRead releases a reference through which n bytes were read.
func (m *mapping) releaseRead(n int) {
	resident.add(m, n)
	m.release()
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
