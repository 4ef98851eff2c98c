// Package heap keeps elements so that the first of them is at hand, while any of them
// may move or leave: each knows its place. It is container/heap with types.
package heap

import "container/heap"

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
type Heap[E any, O Order[E]] struct{ s slice[E, O] }

// Len is how many elements there are.
func (h *Heap[E, O]) Len() int { return len(h.s) }

// First is the element that comes before all others. There must be one.
func (h *Heap[E, O]) First() E { return h.s[0] }

// Set adds e, or gives it the place that it has by now.
func (h *Heap[E, O]) Set(e E) {
	if at := *h.s.order().Place(e); at != 0 {
		heap.Fix(&h.s, at-1)
	} else {
		heap.Push(&h.s, e)
	}
}

// Remove takes e out. It may not be there.
func (h *Heap[E, O]) Remove(e E) {
	if at := *h.s.order().Place(e); at != 0 {
		heap.Remove(&h.s, at-1)
	}
}

// Clear takes all elements out.
func (h *Heap[E, O]) Clear() {
	for _, e := range h.s {
		*h.s.order().Place(e) = 0
	}
	h.s = nil
}

// A slice is a heap as container/heap has it.
type slice[E any, O Order[E]] []E

func (s slice[E, O]) order() (o O) { return o }

func (s slice[E, O]) Len() int           { return len(s) }
func (s slice[E, O]) Less(i, j int) bool { return s.order().Less(s[i], s[j]) }
func (s slice[E, O]) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	*s.order().Place(s[i]), *s.order().Place(s[j]) = i+1, j+1
}

func (s *slice[E, O]) Push(x any) {
	e := x.(E)
	*s = append(*s, e)
	*s.order().Place(e) = len(*s)
}

func (s *slice[E, O]) Pop() any {
	var zero E
	old := *s
	e := old[len(old)-1]
	old[len(old)-1] = zero
	*s = old[:len(old)-1]
	*s.order().Place(e) = 0
	return e
}
