package log

import "math/bits"

// KeyBytes is what a compaction remembers of a key: a slot of 24 bytes in a table
// that is at most three quarters full, and half as much again while it grows.
const KeyBytes = 48

// A keyHash stands for a key. Two keys of a log share one with a probability of
// n²/2¹²⁹ for n keys: 10⁻²⁶ for two million. The seeds are new for each
// compaction, so no client can make two meet.
type keyHash [2]uint64

// A keyTable holds the last offset of each key, up to max keys. Go's own map takes
// up to 90 bytes for each, depending on when it last grew.
type keyTable struct {
	slots []keySlot
	n     int
	max   int
}

type keySlot struct {
	hash keyHash
	next int64 // follows the offset; 0: the slot is free
}

// slot returns where the key is, or would be. There is always a free slot.
func (t *keyTable) slot(h keyHash) *keySlot {
	i, _ := bits.Mul64(h[0], uint64(len(t.slots)))
	for {
		s := &t.slots[i]
		if s.next == 0 || s.hash == h {
			return s
		}
		if i++; i == uint64(len(t.slots)) {
			i = 0
		}
	}
}

// get returns the last offset of a key.
func (t *keyTable) get(h keyHash) (offset int64, ok bool) {
	if t.n == 0 {
		return 0, false
	}
	s := t.slot(h)
	return s.next - 1, s.next > 0
}

// put notes an offset of a key. A new key beyond max is refused, unless it is
// forced.
func (t *keyTable) put(h keyHash, offset int64, force bool) bool {
	if len(t.slots) == 0 {
		n := t.most()
		for n > 1024 {
			n = (n + 1) / 2 // so that it is half of most before it grows for the last time
		}
		t.slots = make([]keySlot, n)
	}
	s := t.slot(h)
	if s.next == 0 {
		if t.n >= t.max && !force {
			return false
		}
		if 4*(t.n+1) > 3*len(t.slots) {
			t.grow()
			s = t.slot(h)
		}
		s.hash = h
		t.n++
	}
	s.next = offset + 1
	return true
}

// most is how many slots max keys need.
func (t *keyTable) most() int { return t.max + t.max/3 + 2 }

func (t *keyTable) grow() {
	old, n := t.slots, 2*len(t.slots)
	if most := t.most(); len(old) < most {
		n = min(n, most)
	}
	t.slots = make([]keySlot, n)
	for _, s := range old {
		if s.next != 0 {
			*t.slot(s.hash) = s
		}
	}
}
