package acl

import (
	"cmp"
	"slices"
	"strings"
)

// A key is what a row of a table is found by.
type key struct {
	principal, host string
	kind            ResourceType
	pattern         PatternType
	name            string
}

func keyOf(e *Entry) key { return key{e.Principal, e.Host, e.Type, e.Pattern, e.Name} }

// compareRuns orders keys but for their names: rows of keys that are equal by it are a run.
func compareRuns(a, b *key) int {
	if c := strings.Compare(a.principal, b.principal); c != 0 {
		return c
	}
	if c := strings.Compare(a.host, b.host); c != 0 {
		return c
	}
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	return cmp.Compare(a.pattern, b.pattern)
}

func compareKeys(a, b *key) int {
	if c := compareRuns(a, b); c != 0 {
		return c
	}
	return strings.Compare(a.name, b.name)
}

// A row is what entries of one key say together.
type row struct {
	key
	allow, deny bits
	entries     int32 // how many they are

	// parent is how far above the row, in its run, is that of the longest name that the
	// row's name begins with; 0: there is none, or the rows are literal. By parents the
	// prefixes of a name are found from the row it would follow: see walk.prefix.
	parent int32
	// allowAll and denyAll are what the entries of the row, its parent, and so on say.
	allowAll, denyAll bits
}

// bits are a set of operations.
type bits uint32

func bit(o Operation) bits { return 1 << (uint(o) & 31) }

// A table is rows in the order of their keys. It does not change.
type table []row

// A change puts an entry into a table or takes it out.
type change struct {
	key
	allow, deny bits // what it says there
	added       bool
}

// with is the table after changes, which are sorted by their keys. An entry that is added
// is not there yet, and one that is taken out is. What it costs is one copy of the table,
// and one look at the rows of the runs that changed.
func (t table) with(changes []change) table {
	next := make(table, 0, len(t)+len(changes))
	at := 0 // in t
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].key == changes[0].key {
			n++
		}
		from := at + t[at:].search(&changes[0].key)
		next = append(next, t[at:from]...)
		at = from
		r := row{key: changes[0].key}
		if at < len(t) && t[at].key == r.key {
			r = t[at]
			at++
		}
		for _, c := range changes[:n] {
			r.change(c)
		}
		changes = changes[n:]
		touched := len(next)
		if r.entries > 0 {
			next = append(next, r)
		}
		// The rest of a run of prefixes goes with it, up to the next change: any of it may
		// get another parent, whose entries say something else, and be farther from it.
		end := at
		if r.pattern == Prefixed {
			end += t[at:].endOfRun(&r.key)
		}
		if len(changes) > 0 && end > at {
			end = min(end, at+t[at:end].search(&changes[0].key))
		}
		next = append(next, t[at:end]...)
		at = end
		next.link(touched, len(next))
	}
	return append(next, t[at:]...)
}

func (r *row) change(c change) {
	if c.added {
		r.entries++
		r.allow, r.deny = r.allow|c.allow, r.deny|c.deny
	} else {
		r.entries--
		r.allow, r.deny = r.allow&^c.allow, r.deny&^c.deny
	}
}

// link finds the parents of rows, and what they say with these, when those above them
// have theirs.
func (t table) link(from, to int) {
	for i := from; i < to; i++ {
		r := &t[i]
		r.parent, r.allowAll, r.denyAll = 0, r.allow, r.deny
		if r.pattern != Prefixed || i == 0 || compareRuns(&t[i-1].key, &r.key) != 0 {
			continue
		}
		// The prefixes of a name that are in a sorted list are the name before it, if
		// that is one, or else prefixes of that name.
		for above := i - 1; ; above -= int(t[above].parent) {
			if strings.HasPrefix(r.name, t[above].name) {
				r.parent = int32(i - above)
				r.allowAll |= t[above].allowAll
				r.denyAll |= t[above].denyAll
				break
			}
			if t[above].parent == 0 {
				break
			}
		}
	}
}

// search is where a key is, or would be.
func (t table) search(k *key) int {
	i, _ := slices.BinarySearchFunc(t, k, func(r row, k *key) int { return compareKeys(&r.key, k) })
	return i
}

// endOfRun is how many of the rows, which are sorted and not before the key, are of its run.
func (t table) endOfRun(k *key) int {
	i, _ := slices.BinarySearchFunc(t, k, func(r row, k *key) int {
		if compareRuns(&r.key, k) <= 0 {
			return -1
		}
		return 1
	})
	return i
}
