package transport

import (
	"math/bits"
	"sync"
	"time"
)

const (
	// What is smaller is not worth keeping, what is larger comes too seldom.
	smallestLent = 32 << 10
	largestLent  = 8 << 20
	// lenderBytes is how much a Lender keeps at most.
	lenderBytes = 8 << 20
	// lenderRest is how long something may lie in a Lender before it goes.
	lenderRest = 2 * time.Second
)

// A Lender keeps memory that bytes from the network came in, for those to come.
// Fresh memory is zeroed, and the system finds it page by page, which together
// costs more than the bytes' way through loopback. (A sync.Pool would do, but is
// emptied by the garbage collector, which then must not run often.) It keeps no
// more than lenderBytes, and nothing that nobody borrows. The zero value is ready.
// Safe for concurrent use.
type Lender struct {
	mu     sync.Mutex
	bytes  int
	kept   [4*8 + 1]shelf // by class
	tidier *time.Timer    // runs while anything is kept
	tidies bool
}

// A shelf holds memory of one class; the last to come is the first to be lent.
type shelf struct {
	kept  [][]byte
	least int // length of kept since it was last tidied: so many nobody needed
}

// class returns the class of the largest memory that n bytes of capacity can stand
// for: a power of two, or one and a quarter, a half or three quarters of it.
func class(n int) int {
	log := bits.Len(uint(n)) - 1
	return 4*(log-bits.Len(smallestLent)+1) + (n>>(log-2))&3
}

// RoundUp returns the capacity that is lent to who needs n bytes: at most a
// quarter more.
func RoundUp(n int) int {
	if n < smallestLent || n > largestLent {
		return n
	}
	step := 1 << (bits.Len(uint(n)) - 3)
	return (n + step - 1) &^ (step - 1)
}

// Borrow returns memory of length 0 and with a capacity of at least n, or nil if
// there is none.
func (l *Lender) Borrow(n int) []byte {
	n = RoundUp(n)
	if n < smallestLent || n > largestLent {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.kept[class(n)]
	last := len(s.kept) - 1
	if last < 0 {
		return nil
	}
	b := s.kept[last]
	s.kept[last] = nil
	s.kept = s.kept[:last]
	s.least = min(s.least, last)
	l.bytes -= cap(b)
	return b
}

// GiveBack takes memory that nobody uses any more, wherever it is from.
func (l *Lender) GiveBack(b []byte) {
	n := cap(b)
	if n < smallestLent || n > largestLent {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes+n > lenderBytes {
		return
	}
	l.bytes += n
	s := &l.kept[class(n)]
	s.kept = append(s.kept, b[:0])
	if !l.tidies {
		l.tidies = true
		if l.tidier == nil {
			l.tidier = time.AfterFunc(lenderRest, l.tidy)
		} else {
			l.tidier.Reset(lenderRest)
		}
	}
}

// tidy lets go of what has lain here since it was last called.
func (l *Lender) tidy() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.kept {
		s := &l.kept[i]
		for _, b := range s.kept[:s.least] {
			l.bytes -= cap(b)
		}
		left := copy(s.kept, s.kept[s.least:])
		clear(s.kept[left:])
		s.kept = s.kept[:left]
		if left == 0 {
			s.kept = nil
		}
		s.least = left
	}
	if l.tidies = l.bytes > 0; l.tidies {
		l.tidier.Reset(lenderRest)
	}
}
