package log

import (
	"sync"

	"github.com/hashicorp/raft"
)

// A Cache keeps the entries stored last, of all logs that share it, up to a
// number of bytes: of a log that leads the entries until all followers have them,
// of one that follows their batches' headers until they are applied. Replicating the tail
// of a log then touches no mapping and copies nothing, and applying it reads no
// disk. Entries are immutable once stored, so they are handed out as they are.
// Safe for concurrent use.
type Cache struct {
	mu     sync.Mutex // taken before a run's
	max    int64
	size   int64
	oldest *cached // a ring through next and prev, in order of storing
}

// DefaultCacheBytes is the size of the cache a log makes for itself.
const DefaultCacheBytes = 1 << 20

// cachedOverhead is what an entry costs beside its data: a cached, a pointer to
// it, two slack slices.
const cachedOverhead = 192

// NewCache returns a cache of at most maxBytes bytes.
func NewCache(maxBytes int64) *Cache { return &Cache{max: maxBytes} }

// Size returns the bytes held now.
func (c *Cache) Size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

type cached struct {
	entry      raft.Log
	owner      *cacheRun
	prev, next *cached
}

func (e *cached) size() int64 {
	return int64(len(e.entry.Data)+len(e.entry.Extensions)) + cachedOverhead
}

// A cacheRun is one log's part of a cache: a run of entries without a gap, whose
// first is the first to be evicted.
type cacheRun struct {
	mu      sync.RWMutex
	entries []*cached
}

// get copies the entry into out; false when it is not there.
func (w *cacheRun) get(index uint64, out *raft.Log) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if len(w.entries) == 0 {
		return false
	}
	first := w.entries[0].entry.Index
	if index < first || index-first >= uint64(len(w.entries)) {
		return false
	}
	*out = w.entries[index-first].entry
	return true
}

// put adds entries that follow those in w, whose Data is retained, or only their
// batches' headers. An entry of more than half the cache is not worth those of all other
// logs: it goes by, and w begins anew behind it.
func (c *Cache) put(w *cacheRun, logs []*raft.Log, headers bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.mu.Lock()
	for _, l := range logs {
		e := &cached{entry: *l, owner: w}
		if headers {
			e.entry = headersOnly(l)
		}
		if e.size() > c.max/2 {
			c.cutLocked(w, 0)
			continue
		}
		w.entries = append(w.entries, e)
		c.pushLocked(e)
	}
	w.mu.Unlock()
	for c.size > c.max && c.oldest != nil {
		e := c.oldest
		e.owner.mu.Lock()
		e.owner.popLocked()
		e.owner.mu.Unlock()
		c.removeLocked(e)
	}
}

// evict drops the entries of w up to index.
func (c *Cache) evict(w *cacheRun, index uint64) {
	if !w.begins(index) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.entries) > 0 && w.entries[0].entry.Index <= index {
		c.removeLocked(w.entries[0])
		w.popLocked()
	}
}

// begins reports whether w begins at index or below.
func (w *cacheRun) begins(index uint64) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return len(w.entries) > 0 && w.entries[0].entry.Index <= index
}

// cut forgets the entries of w from index on.
func (c *Cache) cut(w *cacheRun, index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	c.cutLocked(w, index)
}

// cutLocked is cut with both locks held.
func (c *Cache) cutLocked(w *cacheRun, index uint64) {
	for n := len(w.entries); n > 0 && w.entries[n-1].entry.Index >= index; n-- {
		c.removeLocked(w.entries[n-1])
		w.entries[n-1] = nil
		w.entries = w.entries[:n-1]
	}
	if len(w.entries) == 0 {
		w.entries = nil
	}
}

// popLocked forgets the first entry. The slice is moved when it is mostly gone,
// so that append does not grow it for ever.
func (w *cacheRun) popLocked() {
	w.entries[0] = nil
	w.entries = w.entries[1:]
	if len(w.entries) == 0 {
		w.entries = nil
	}
}

func (c *Cache) pushLocked(e *cached) {
	c.size += e.size()
	if c.oldest == nil {
		e.prev, e.next = e, e
		c.oldest = e
		return
	}
	e.prev, e.next = c.oldest.prev, c.oldest
	e.prev.next, e.next.prev = e, e
}

func (c *Cache) removeLocked(e *cached) {
	c.size -= e.size()
	if e.next == e {
		c.oldest = nil
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	if c.oldest == e {
		c.oldest = e.next
	}
	e.prev, e.next = nil, nil
}
