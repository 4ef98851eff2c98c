package acl

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A Set is entries in an order in which decisions are found fast, however many they are and
// whatever they are like. It does not change, and its zero value has no entries.
//
// Who asks is looked for in four places: under its own name and under everybody's, from its
// own host and from all. In each, what entries of literal names say is found by searching,
// and what those of prefixes say by one more search and a walk over the prefixes of the
// name that there are.
type Set struct {
	entries []Entry
	rows    table

	// resources is the same by resources alone. It is made when it is first asked for:
	// only allow.everyone.if.no.acl.found needs it.
	resources atomic.Pointer[table]
	mu        sync.Mutex // held while it is made

	anywhere anywhere
}

// NewSet returns a set of entries, which may come in any order and more than once. It does
// not retain the slice.
func NewSet(entries []Entry) *Set {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, Compare)
	return new(Set).With(slices.Compact(sorted))
}

// Entries are what the set is made of, sorted by Compare. The caller must not change them.
func (s *Set) Entries() []Entry { return s.entries }

// With returns the set of other entries, made from s by what is different: a few
// milliseconds for one entry among 100,000. They are sorted by Compare without
// duplicates, and retained. If they are those of s, it returns s.
func (s *Set) With(entries []Entry) *Set {
	if len(entries) == len(s.entries) && (len(entries) == 0 || &entries[0] == &s.entries[0]) {
		return s
	}
	added, removed := Diff(s.entries, entries)
	if len(added)+len(removed) == 0 {
		return s
	}
	next := &Set{entries: entries, rows: s.rows.with(changes(added, removed))}
	if resources := s.resources.Load(); resources != nil {
		after := resources.with(resourceChanges(added, removed))
		next.resources.Store(&after)
	}
	return next
}

// Diff returns what b has and a has not, and what a has and b has not. Both are sorted by
// Compare.
func Diff(a, b []Entry) (added, removed []*Entry) {
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		if a[i] == b[j] { // most are, and their strings the same memory: a glance at each
			i, j = i+1, j+1
		} else if Compare(a[i], b[j]) < 0 {
			removed = append(removed, &a[i])
			i++
		} else {
			added = append(added, &b[j])
			j++
		}
	}
	for ; i < len(a); i++ {
		removed = append(removed, &a[i])
	}
	for ; j < len(b); j++ {
		added = append(added, &b[j])
	}
	return added, removed
}

// changes are what was added and removed, as changes to a set's rows.
func changes(added, removed []*Entry) []change {
	return sorted(added, removed, func(e *Entry) change {
		c := change{key: keyOf(e)}
		if e.Permission == Allow {
			c.allow = bit(e.Operation)
		} else {
			c.deny = bit(e.Operation)
		}
		return c
	})
}

// resourceChanges are the same as changes to a set's table by resources, where nothing is
// said but that an entry is about them.
func resourceChanges(added, removed []*Entry) []change {
	return sorted(added, removed, func(e *Entry) change {
		return change{key: key{kind: e.Type, pattern: e.Pattern, name: e.Name}}
	})
}

func sorted(added, removed []*Entry, changeOf func(*Entry) change) []change {
	all := make([]change, 0, len(added)+len(removed))
	for _, e := range removed {
		all = append(all, changeOf(e))
	}
	for _, e := range added {
		c := changeOf(e)
		c.added = true
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b change) int { return compareKeys(&a.key, &b.key) })
	return all
}

// byResource is the set's table by resources.
func (s *Set) byResource() table {
	if t := s.resources.Load(); t != nil {
		return *t
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.resources.Load(); t != nil {
		return *t
	}
	every := make([]*Entry, len(s.entries))
	for i := range s.entries {
		every[i] = &s.entries[i]
	}
	t := table(nil).with(resourceChanges(every, nil))
	s.resources.Store(&t)
	return t
}

// said is what the entries that are for a principal and a host say about one resource.
type said struct {
	allow, deny bits
	any         bool // there are such entries
}

// hear adds what the entries of a row say, and those of its parents.
func (s *said) hear(r *row) {
	s.allow |= r.allowAll
	s.deny |= r.denyAll
	s.any = true
}

// A walk looks things up in a table, and counts the steps that takes: comparisons of keys,
// and rows looked at.
type walk struct {
	table
	steps int
}

// about is what entries for exactly this principal and host, which may be AnyPrincipal and
// AnyHost, say about a resource.
func (w *walk) about(principal, host string, kind ResourceType, name string) (s said) {
	k := key{principal, host, kind, Literal, ""}
	first := w.find(0, &k, false)
	if first == len(w.table) || !w.table[first].isFor(principal, host, kind) {
		return s // as for most: nothing is said
	}
	for _, literal := range [...]string{name, AnyName} {
		k.name = literal
		if r := w.row(first, &k); r != nil {
			s.hear(r)
		}
	}
	k.pattern, k.name = Prefixed, name
	if r := w.prefix(first, &k); r != nil {
		s.hear(r)
	}
	return s
}

// row is the row of a key, or nil.
func (w *walk) row(first int, k *key) *row {
	if i := w.find(first, k, false); i < len(w.table) && w.table[i].key == *k {
		return &w.table[i]
	}
	return nil
}

// prefix is the row of the longest prefix that there is of a key's name; its parents are
// those of the others. nil: there is none.
func (w *walk) prefix(first int, k *key) *row {
	i := w.find(first, k, true) - 1
	if i < 0 || compareRuns(&w.table[i].key, k) != 0 {
		return nil
	}
	// Row i is the last one not behind the name. Each prefix of the name begins what the
	// two have in common: so it is that row's name, or begins it as well.
	common := commonPrefix(w.table[i].name, k.name)
	for ; ; i -= int(w.table[i].parent) {
		w.steps++
		if len(w.table[i].name) <= common {
			return &w.table[i]
		}
		if w.table[i].parent == 0 {
			return nil
		}
	}
}

// find is where the first row is, from one on, that is not before the key, or with after
// the first that is behind it.
func (w *walk) find(from int, k *key, after bool) int {
	to := len(w.table)
	for from < to {
		w.steps++
		middle := int(uint(from+to) >> 1)
		c := compareKeys(&w.table[middle].key, k)
		if c < 0 || after && c == 0 {
			from = middle + 1
		} else {
			to = middle
		}
	}
	return from
}

func (r *row) isFor(principal, host string, kind ResourceType) bool {
	return r.principal == principal && r.host == host && r.kind == kind
}

// commonPrefix is how many bytes two strings begin with alike.
func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
