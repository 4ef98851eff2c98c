package bufpool

import (
	"math/bits"
	"sync"
	"time"
)

const (
	smallest = 32 << 10 // capacity of what is kept
	largest  = 8 << 20
	maxBytes = 8 << 20 // that one Pool keeps
	// trimEvery is how often what nobody got since the last time is let go.
	trimEvery = 2 * time.Second
)

// A Pool holds memory for reuse. The zero value is ready. It is safe for concurrent use.
type Pool struct {
	mu       sync.Mutex
	bytes    int
	classes  [4*8 + 1]class // by classOf
	timer    *time.Timer    // calls trim; set once something was put
	trimming bool           // the timer runs, as it does while anything is kept
}

// A class is memory of about one size; the last to come is the first to go out.
type class struct {
	free [][]byte
	// idle is the least length of free since it was last trimmed: so many nobody needed.
	idle int
}

// classOf returns the class of the largest memory that n bytes of capacity can stand
// for: a power of two, or one and a quarter, a half or three quarters of it.
func classOf(n int) int {
	log := bits.Len(uint(n)) - 1
	return 4*(log-bits.Len(smallest)+1) + (n>>(log-2))&3
}

// RoundUp returns the capacity that memory for n bytes should be made with, so that it
// serves whoever needs about as much: at most a quarter more.
func RoundUp(n int) int {
	if n < smallest || n > largest {
		return n
	}
	step := 1 << (bits.Len(uint(n)) - 3)
	return (n + step - 1) &^ (step - 1)
}

// Get returns memory of length 0 and with a capacity of at least n, or nil if the pool
// has none.
func (p *Pool) Get(n int) []byte {
	n = RoundUp(n)
	if n < smallest || n > largest {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.classes[classOf(n)]
	last := len(c.free) - 1
	if last < 0 {
		return nil
	}
	b := c.free[last]
	c.free[last] = nil
	c.free = c.free[:last]
	c.idle = min(c.idle, last)
	p.bytes -= cap(b)
	return b
}

// Put gives the pool memory that nobody uses any more, wherever it is from.
func (p *Pool) Put(b []byte) {
	n := cap(b)
	if n < smallest || n > largest {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes+n > maxBytes {
		return
	}
	p.bytes += n
	c := &p.classes[classOf(n)]
	c.free = append(c.free, b[:0])
	if !p.trimming {
		p.trimming = true
		if p.timer == nil {
			p.timer = time.AfterFunc(trimEvery, p.trim)
		} else {
			p.timer.Reset(trimEvery)
		}
	}
}

// trim lets go of what nobody got since it was last called.
func (p *Pool) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.classes {
		c := &p.classes[i]
		for _, b := range c.free[:c.idle] {
			p.bytes -= cap(b)
		}
		left := copy(c.free, c.free[c.idle:])
		clear(c.free[left:])
		c.free = c.free[:left]
		if left == 0 {
			c.free = nil
		}
		c.idle = left
	}
	if p.trimming = p.bytes > 0; p.trimming {
		p.timer.Reset(trimEvery)
	}
}
