package acl

import (
	"sync"
	"sync/atomic"
)

// DecideAnywhere decides whether a principal may carry out an operation on at least one
// resource of a type, which is how Kafka lets somebody write idempotently who may write to
// any topic (Authorizer.authorizeByResourceType). No operation is implied by another here,
// and what is denied for all resources is denied.
//
// That entries deny all that others allow takes looking at them all, so answers are kept.
func (r *Rules) DecideAnywhere(principal, host string, o Operation, kind ResourceType) Decision {
	if r.SuperUsers[principal] {
		return Decision{true, SuperUser}
	}
	set := r.set()
	q := anywhereKey{principal, host, o, kind}
	d, known := set.anywhere.load(q)
	if !known {
		d = set.decideAnywhere(q)
		set.anywhere.store(q, d)
	}
	if d.Allowed || !r.AllowEveryone {
		return d
	}
	// Some name is in no entry, unless one is for all names. (Kafka asks for the name
	// "hardcode", which entries may be about.)
	resources := walk{table: set.byResource()}
	if resources.row(0, &key{"", "", kind, Literal, AnyName}) == nil {
		d = Decision{true, NoEntries}
	}
	return d
}

func (s *Set) decideAnywhere(q anywhereKey) Decision {
	wanted := bit(q.operation) | bit(All)
	w := walk{table: s.rows}
	principals, hosts := [...]string{q.principal, AnyPrincipal}, [...]string{q.host, AnyHost}

	// What is said of all resources decides.
	allowed := false
	for _, p := range principals {
		for _, h := range hosts {
			k := key{p, h, q.kind, Literal, AnyName}
			if r := w.row(0, &k); r != nil {
				if r.deny&wanted != 0 {
					return Decision{false, EntryDenies}
				}
				allowed = allowed || r.allow&wanted != 0
			}
		}
	}
	if allowed {
		return Decision{true, EntryAllows}
	}

	// Otherwise whoever is allowed something that is not denied is allowed it somewhere.
	d := Decision{false, NoEntry}
	for _, p := range principals {
		for _, h := range hosts {
			k := key{p, h, q.kind, Literal, ""}
			for i := w.find(0, &k, false); i < len(w.table) && w.table[i].isFor(p, h, q.kind); i++ {
				r := &w.table[i]
				if r.allow&wanted == 0 {
					continue
				}
				if !w.denied(q, r, wanted) {
					return Decision{true, EntryAllows}
				}
				d.Because = EntryDenies
			}
		}
	}
	return d
}

// denied says whether all that a row is about is denied: by a row of the same name, if it is
// a literal one, or by one of a prefix.
func (w *walk) denied(q anywhereKey, r *row, wanted bits) bool {
	for _, p := range [...]string{q.principal, AnyPrincipal} {
		for _, h := range [...]string{q.host, AnyHost} {
			k := key{p, h, q.kind, Literal, r.name}
			if r.pattern == Literal {
				if same := w.row(0, &k); same != nil && same.deny&wanted != 0 {
					return true
				}
			}
			k.pattern = Prefixed
			if above := w.prefix(0, &k); above != nil && above.denyAll&wanted != 0 {
				return true
			}
		}
	}
	return false
}

// An anywhereKey is a question to DecideAnywhere.
type anywhereKey struct {
	principal, host string
	operation       Operation
	kind            ResourceType
}

// anywhere keeps decisions of one set about any resource, the first maxAnywhere of them.
type anywhere struct {
	known sync.Map // anywhereKey to Decision
	n     atomic.Int32
}

const maxAnywhere = 1000

func (a *anywhere) load(q anywhereKey) (Decision, bool) {
	if v, ok := a.known.Load(q); ok {
		return v.(Decision), true
	}
	return Decision{}, false
}

func (a *anywhere) store(q anywhereKey, d Decision) {
	if a.n.Load() < maxAnywhere {
		if _, had := a.known.LoadOrStore(q, d); !had {
			a.n.Add(1)
		}
	}
}
