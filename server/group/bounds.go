package group

import (
	"math"
	"sync"
	"time"
)

// tooLong reports whether a string has no room in a key of the journal, whose lengths
// have 16 bits. The flexible versions of requests carry longer ones, and what was
// written with them could not be read back.
func tooLong(s string) bool { return len(s) > math.MaxInt16 }

func millisOf(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// memory counts what the members of all groups hold, by the address of who asked
// for it. One address may hold as much as it leaves free: alone it gets half, two
// that are greedy get a third each, and for a newcomer there is always something
// left. What is held is never taken away.
//
// An address is not a person: all behind one share one part. It is what cannot be
// made up, unlike client ids, group ids and connections.
type memory struct {
	mu    sync.Mutex
	total int64
	by    map[string]int64
}

// fits reports whether host may hold n more of most.
func (m *memory) fits(host string, n, most int) bool {
	if n <= 0 {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.by[host]+int64(n) <= int64(most)-m.total
}

func (m *memory) add(host string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil {
		m.by = make(map[string]int64)
	}
	m.total += n
	if m.by[host] += n; m.by[host] == 0 {
		delete(m.by, host)
	}
}

// chargeLocked counts n bytes that a host's members hold in this shard, or give
// back. An unload gives back what is left.
func (s *shard) chargeLocked(host string, n int) {
	if n == 0 || s.EndedLocked() {
		return
	}
	if s.held[host] += int64(n); s.held[host] == 0 {
		delete(s.held, host)
	}
	s.c.memory.add(host, int64(n))
}

// maxAnswer is how much of an answer about the offsets of several groups is made at
// once: for these a quorum is asked once, not group by group. Groups beyond it get
// COORDINATOR_LOAD_IN_PROGRESS, and clients ask for those again; the first is always
// answered. What an answer may be at all is for who asks to say.
const maxAnswer = 32 << 20

// An answer counts what has gone into one.
type answer struct{ left int }

func newAnswer() *answer     { return &answer{maxAnswer} }
func (a *answer) add(n int)  { a.left -= n }
func (a *answer) full() bool { return a.left <= 0 }

// once returns names without those that have come before. Kafka answers a group as
// often as it is named, which makes a response of gigabytes out of a request of a
// kilobyte; no client names one twice.
func once(names []string) []string {
	if len(names) < 2 {
		return names
	}
	seen := make(map[string]bool, len(names))
	out := make([]string, 0, len(names))
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}
