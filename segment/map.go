package segment

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// A mapping is a file's bytes in memory, read-only. It starts with one
// reference, its owner's; whoever hands out a slice of it takes another, and
// the last one to release unmaps. The file itself may be unlinked meanwhile,
// but never shrinks: that would turn reads into faults.
type mapping struct {
	data []byte // may reach beyond the end of the file: only what is written may be touched
	mm   region
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
			letGoOf(m.mm)
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

// mapped knows the segments that have mappings, so that there are never too many
// of these. There is one, as there is one process to be limited.
var mapped = mappings{bound: mappingsBound()}

// mappingsBound is how many mappings segments may have: half of what the system
// allows a process, 65,530 by default. Beyond that mmap fails, for Go's heap as
// well, which ends the process. A gigabyte of heap takes some twenty.
func mappingsBound() int64 {
	p, err := os.ReadFile("/proc/sys/vm/max_map_count")
	n, perr := strconv.ParseInt(strings.TrimSpace(string(p)), 10, 64)
	if err != nil || perr != nil || n < 1<<10 {
		n = 65530
	}
	return n / 2
}

// A mappings counts the mappings of segments and lets go of those of the segments
// that were least recently read, as far as a clock's hand tells: it passes over
// one that was read since it came by last, and takes the next. A sealed segment
// that is read has two, of its data and of its index.
//
// Nothing is done here for a read of what is mapped: that a segment was read it
// notes itself. Safe for concurrent use; mu is taken after a segment's mu, and
// another segment's mu is only ever tried for.
type mappings struct {
	count atomic.Int64
	bound int64

	mu   sync.Mutex
	ring []*Reader // those with a mapping of their data; ring[i].ring == i+1
	hand int
}

// add takes up a segment that has mapped its data. Its mu is held.
func (a *mappings) add(s *Reader) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ring = append(a.ring, s)
	s.ring = len(a.ring)
}

// remove forgets a segment, if it was taken up. Its mu is held.
func (a *mappings) remove(s *Reader) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.ring == 0 {
		return
	}
	i, last := s.ring-1, a.ring[len(a.ring)-1]
	a.ring[i], last.ring = last, i+1
	a.ring[len(a.ring)-1] = nil
	a.ring = a.ring[:len(a.ring)-1]
	s.ring = 0
}

// next moves the hand.
func (a *mappings) next() *Reader {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ring) == 0 {
		return nil
	}
	a.hand = (a.hand + 1) % len(a.ring)
	return a.ring[a.hand]
}

// makeRoom lets go of mappings until n more are within bound. What views and
// readers hold stays, and so do the mappings that a writer needs, so there may be
// more than bound all the same. The caller may hold the mu of one segment, which is
// then passed over.
func (a *mappings) makeRoom(n, bound int64) {
	if a.count.Load()+n <= bound {
		return
	}
	a.mu.Lock()
	turns := 2*len(a.ring) + 1 // all may have been read since the hand came by
	a.mu.Unlock()
	for ; turns > 0 && a.count.Load()+n > bound; turns-- {
		s := a.next()
		if s == nil {
			return
		}
		if s.used.Swap(false) || !s.mu.TryLock() {
			continue
		}
		s.unmapLocked()
		s.mu.Unlock()
	}
}

func newMapping(fd uintptr, size int64) (*mapping, error) {
	mapped.makeRoom(1, mapped.bound)
	mm, err := mapRegion(fd, size)
	if errors.Is(err, syscall.ENOMEM) { // somebody else has many mappings
		mapped.makeRoom(1, 0)
		mm, err = mapRegion(fd, size)
	}
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	mapped.count.Add(1)
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
		if err := unmapRegion(m.mm); err != nil {
			panic(fmt.Sprintf("segment: unmap %d bytes: %v", len(m.mm), err))
		}
		mapped.count.Add(-1)
	case n < 0:
		panic("segment: mapping released twice")
	}
}

// guard is Guard for mapped memory of the file at path, which a fault says is
// corrupt.
func guard(path string, f func() error) error {
	err := Guard(f)
	var fault *FaultError
	if errors.As(err, &fault) {
		return &CorruptError{
			Path: path, Position: -1,
			Found: "a page that cannot be read", Expected: "bytes of the file", Err: fault.Err,
		}
	}
	return err
}
