// Package heap keeps elements so that the first of them is at hand, while any of them
// may move or leave: each knows its place.
//
// It is not container/heap with types around it: that took a fifth more for an alarm
// that is moved, which each heartbeat of a member does.
package heap

// An Order says which of two elements comes first, and where an element keeps its
// place. Its zero value is used.
type Order[E any] interface {
	// Less reports whether a comes before b.
	Less(a, b E) bool
	// Place is where e's place in its heap is kept, from 1; 0: it is in none. Only the
	// heap writes to it.
	Place(e E) *int
}

// A Heap holds elements in an order. Its zero value is empty. One goroutine may use it
// at a time.
type Heap[E any, O Order[E]] struct {
	s []E // none comes before that at half its index, counted from 1
	o O
}

// Len is how many elements there are.
func (h *Heap[E, O]) Len() int { return len(h.s) }

// First is the element that comes before all others. There must be one.
func (h *Heap[E, O]) First() E { return h.s[0] }

// Set adds e, or gives it the place that it has by now.
func (h *Heap[E, O]) Set(e E) {
	at := *h.o.Place(e)
	if at == 0 {
		h.s = append(h.s, e)
		at = len(h.s)
	}
	h.put(e, at)
}

// Remove takes e out. It may not be there.
func (h *Heap[E, O]) Remove(e E) {
	place := h.o.Place(e)
	at := *place
	if at == 0 {
		return
	}
	*place = 0
	n := len(h.s) - 1
	last := h.s[n]
	var zero E
	h.s[n] = zero
	h.s = h.s[:n]
	if at <= n {
		h.put(last, at)
	}
}

// Clear takes all elements out.
func (h *Heap[E, O]) Clear() {
	for _, e := range h.s {
		*h.o.Place(e) = 0
	}
	h.s = nil
}

// put finds the place of e, whose place is free: that at, or above or below it.
func (h *Heap[E, O]) put(e E, at int) {
	for at > 1 && h.o.Less(e, h.s[at/2-1]) {
		h.move(h.s[at/2-1], at)
		at /= 2
	}
	for below := 2 * at; below <= len(h.s); below = 2 * at {
		if below < len(h.s) && h.o.Less(h.s[below], h.s[below-1]) {
			below++
		}
		if !h.o.Less(h.s[below-1], e) {
			break
		}
		h.move(h.s[below-1], at)
		at = below
	}
	h.move(e, at)
}

// move puts e where it is to be.
func (h *Heap[E, O]) move(e E, to int) {
	h.s[to-1] = e
	*h.o.Place(e) = to
}
