package acl

import "strings"

// Rules are all that decisions are made by. They do not change, and many may decide by
// them at once. Their zero value allows nobody anything.
type Rules struct {
	// Entries are the entries there are; nil: none.
	Entries *Set
	// SuperUsers are principals that may do everything, whatever entries say.
	SuperUsers map[string]bool
	// AllowEveryone says that everybody may do everything with resources that no entry
	// is about, whoever such entries are for. It is allow.everyone.if.no.acl.found.
	AllowEveryone bool
}

// ParseSuperUsers reads the setting super.users, "User:a;User:b", as Kafka does. What is no
// principal in it is left out and named.
func ParseSuperUsers(s string) (users map[string]bool, wrong []string) {
	for p := range strings.SplitSeq(s, ";") {
		p = strings.TrimSpace(p)
		if p == "" {
			continue
		}
		if !IsPrincipal(p) {
			wrong = append(wrong, p)
			continue
		}
		if users == nil {
			users = make(map[string]bool)
		}
		users[p] = true
	}
	return users, wrong
}

// IsPrincipal says whether a string is a type of principals, a colon, and a name.
func IsPrincipal(s string) bool {
	kind, _, ok := strings.Cut(s, ":")
	return ok && kind != ""
}

// A Decision says whether something is allowed, and why.
type Decision struct {
	Allowed bool
	Because Reason
}

// A Reason is why something is allowed or denied.
type Reason int8

// The reasons, in the order in which they count.
const (
	NoEntry   Reason = iota // no entry allows it
	NoEntries               // no entry is about the resource, and AllowEveryone decides
	EntryAllows
	EntryDenies
	SuperUser
)

func (r Reason) String() string {
	return [...]string{"no entry allows it", "no entry is about the resource", "an entry allows it", "an entry denies it", "a super user may do everything"}[r]
}

// implied is by which operations' entries somebody is allowed to carry out o, o among them.
// Entries that deny mean their own operation, and All.
func implied(o Operation) bits {
	of := bit(o) | bit(All)
	switch o {
	case Describe:
		of |= bit(Read) | bit(Write) | bit(Delete) | bit(Alter)
	case DescribeConfigs:
		of |= bit(AlterConfigs)
	}
	return of
}

// Decide decides a request. It takes a few thousand steps at most, which are a few
// microseconds, whatever the entries are like.
func (r *Rules) Decide(q Request) Decision {
	d, _ := r.decide(q)
	return d
}

// decide also counts the steps.
func (r *Rules) decide(q Request) (d Decision, steps int) {
	if r.SuperUsers[q.Principal] {
		return Decision{true, SuperUser}, 0
	}
	s, steps := r.hear(q.Principal, q.Host, q.Type, q.Name)
	d = s.decide(q.Operation)
	if d.Because != NoEntry || !r.AllowEveryone {
		return d, steps
	}
	w := walk{table: r.set().byResource()}
	if !s.any && !w.about("", "", q.Type, q.Name).any {
		d = Decision{true, NoEntries}
	}
	return d, steps + w.steps
}

func (s said) decide(o Operation) Decision {
	switch {
	case s.deny&(bit(o)|bit(All)) != 0:
		return Decision{false, EntryDenies}
	case s.allow&implied(o) != 0:
		return Decision{true, EntryAllows}
	}
	return Decision{false, NoEntry}
}

// Allowed are all those of the operations that a type of resources knows which a principal
// may carry out on one, as the bits of their numbers. It costs what one decision does.
func (r *Rules) Allowed(principal, host string, kind ResourceType, name string) uint32 {
	operations := Operations(kind)
	super := r.SuperUsers[principal]
	var s said
	if !super {
		s, _ = r.hear(principal, host, kind, name)
	}
	everyone := r.AllowEveryone && !super && !s.any
	if everyone {
		w := walk{table: r.set().byResource()}
		everyone = !w.about("", "", kind, name).any
	}
	var may bits
	for _, o := range operations {
		if super || everyone || s.decide(o).Allowed {
			may |= bit(o)
		}
	}
	return uint32(may)
}

var empty Set

func (r *Rules) set() *Set {
	if r.Entries == nil {
		return &empty
	}
	return r.Entries
}

// hear is what all entries for a principal from a host say about a resource.
func (r *Rules) hear(principal, host string, kind ResourceType, name string) (all said, steps int) {
	w := walk{table: r.set().rows}
	for _, p := range [...]string{principal, AnyPrincipal} {
		for _, h := range [...]string{host, AnyHost} {
			s := w.about(p, h, kind, name)
			all.allow |= s.allow
			all.deny |= s.deny
			all.any = all.any || s.any
		}
	}
	return all, w.steps
}
