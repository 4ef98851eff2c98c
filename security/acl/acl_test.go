package acl

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// naive decides as Kafka's documentation says it, one entry after another.
//
//   - "Principal P is [Allowed/Denied] Operation O From Host H on any Resource R matching
//     ResourcePattern RP." ("Authorization and ACLs")
//   - A literal pattern is for the resource of its name, "*" for any; a prefixed one for
//     any resource whose name begins with its own (KIP-290).
//   - "ALLOW READ implies ALLOW DESCRIBE", so do WRITE, DELETE and ALTER, and "ALLOW
//     ALTER_CONFIGS implies ALLOW DESCRIBE_CONFIGS"; ALL implies everything (AclOperation).
//   - "If there are any DENY ACLs that match, the operation is denied"; super users are
//     asked for before (Authorizer, KIP-11).
//   - "If no ResourcePatterns match a specific Resource R, then R has no associated ACLs,
//     and therefore no one other than super users is allowed to access R. If you want to
//     change that behavior, you can include allow.everyone.if.no.acl.found."
func naive(entries []Entry, superUsers []string, allowEveryone bool, q Request) bool {
	if slices.Contains(superUsers, q.Principal) {
		return true
	}
	about, allowed := false, false
	for _, e := range entries {
		if e.Type != q.Type || !means(e, q.Name) {
			continue
		}
		about = true
		if e.Principal != q.Principal && e.Principal != "User:*" || e.Host != q.Host && e.Host != "*" {
			continue
		}
		if e.Permission == Deny {
			if e.Operation == q.Operation || e.Operation == All {
				return false
			}
			continue
		}
		switch {
		case e.Operation == q.Operation, e.Operation == All,
			q.Operation == Describe && (e.Operation == Read || e.Operation == Write || e.Operation == Delete || e.Operation == Alter),
			q.Operation == DescribeConfigs && e.Operation == AlterConfigs:
			allowed = true
		}
	}
	return allowed || !about && allowEveryone
}

// means says whether an entry is about a resource of its type.
func means(e Entry, name string) bool {
	if e.Pattern == Prefixed {
		return strings.HasPrefix(name, e.Name)
	}
	return e.Name == name || e.Name == "*"
}

// naiveAnywhere decides as Authorizer.authorizeByResourceType is written: "If wildcard deny
// exists, return deny directly"; what is allowed for all is allowed; "for any literal
// allowed, if there's no dominant literal and prefix denied, return allow; for any prefix
// allowed, if there's no dominant prefix denied, return allow". Super users, and everyone
// where no entry is about a resource, are asked for before.
func naiveAnywhere(entries []Entry, superUsers []string, allowEveryone bool, q Request) bool {
	if slices.Contains(superUsers, q.Principal) {
		return true
	}
	var allow, deny []Entry
	everyone := allowEveryone
	for _, e := range entries {
		if e.Type != q.Type {
			continue
		}
		if e.Pattern == Literal && e.Name == "*" {
			everyone = false
		}
		switch {
		case e.Principal != q.Principal && e.Principal != "User:*", e.Host != q.Host && e.Host != "*", e.Operation != q.Operation && e.Operation != All:
		case e.Permission == Deny:
			deny = append(deny, e)
		default:
			allow = append(allow, e)
		}
	}
	all := func(e Entry) bool { return e.Pattern == Literal && e.Name == "*" }
	if everyone || slices.ContainsFunc(allow, all) || slices.ContainsFunc(deny, all) {
		return everyone || !slices.ContainsFunc(deny, all)
	}
	return slices.ContainsFunc(allow, func(e Entry) bool {
		return !slices.ContainsFunc(deny, func(d Entry) bool {
			return d.Pattern == Prefixed && strings.HasPrefix(e.Name, d.Name) || d.Pattern == Literal && e.Pattern == Literal && d.Name == e.Name
		})
	})
}

// A chooser makes entries and requests that nearly mean each other: names that begin with
// each other, few principals, hosts and operations, and allowing beside denying.
type chooser func(n int) int

func choose[T any](c chooser, of ...T) T { return of[c(len(of))] }

func (c chooser) name() string {
	name := []byte(choose(c, "", "", "a", "b", "a\x00"))
	for range c(4) {
		name = append(name, choose(c, byte('a'), 'a', 'b', '*'))
	}
	return string(name)
}

func (c chooser) entry() Entry {
	e := Entry{
		Type: choose(c, Topic, Topic, Topic, Group), Name: c.name(), Pattern: choose(c, Literal, Prefixed),
		Principal: choose(c, "User:a", "User:a", "User:aa", AnyPrincipal, "Group:a", "User:"),
		Host:      choose(c, AnyHost, AnyHost, "10.0.0.1", "10.0.0.11", "::1"),
		Operation: choose(c, All, Read, Write, Describe, Alter, Delete, DescribeConfigs, AlterConfigs), Permission: choose(c, Allow, Allow, Deny),
	}
	if e.Name == "" || c(6) == 0 { // entries of no name are not made
		e.Name, e.Pattern = AnyName, Literal
	}
	return e
}

func (c chooser) entries() []Entry {
	entries := make([]Entry, c(10))
	for i := range entries {
		entries[i] = c.entry()
		if i > 0 && c(2) == 0 { // almost the one before
			e := entries[i-1]
			switch c(4) {
			case 0:
				e.Permission = Allow + Deny - e.Permission
			case 1:
				e.Name += "a"
			case 2:
				e.Principal = AnyPrincipal
			case 3:
				e.Host = AnyHost
			}
			entries[i] = e
		}
	}
	return entries
}

// request makes one that is likely about one of the entries.
func (c chooser) request(entries []Entry) Request {
	e := c.entry()
	if len(entries) > 0 && c(4) > 0 {
		e = choose(c, entries...)
	}
	q := Request{e.Principal, e.Host, e.Operation, e.Type, e.Name}
	if q.Host == AnyHost || c(4) == 0 {
		q.Host = choose(c, "10.0.0.1", "10.0.0.2")
	}
	if q.Principal == AnyPrincipal || c(6) == 0 {
		q.Principal = choose(c, "User:a", "User:aa", "User:b")
	}
	switch c(3) {
	case 0:
		q.Name += c.name()
	case 1:
		q.Name = c.name()
	}
	if q.Operation == All || c(2) == 0 {
		q.Operation = choose(c, Read, Write, Describe, DescribeConfigs, Create)
	}
	return q
}

// check holds one set, and one that comes of it, to the naive evaluator.
func (c chooser) check(t *testing.T) (decided Decision) {
	superUsers, allowEveryone := choose(c, nil, nil, []string{"User:aa"}, []string{"User:a", "User:*"}), c(2) == 0
	rules := Rules{SuperUsers: map[string]bool{}, AllowEveryone: allowEveryone}
	for _, u := range superUsers {
		rules.SuperUsers[u] = true
	}
	entries := c.entries()
	rules.Entries = NewSet(entries)
	for range 2 {
		for range 3 {
			q := c.request(entries)
			decided = rules.Decide(q)
			if want := naive(entries, superUsers, allowEveryone, q); decided.Allowed != want {
				t.Fatalf("%s: %+v\nsuper users %v, allow everyone %t, entries\n%+v", q, decided, superUsers, allowEveryone, entries)
			}
			if got, want := rules.DecideAnywhere(q.Principal, q.Host, q.Operation, q.Type), naiveAnywhere(entries, superUsers, allowEveryone, q); got.Allowed != want {
				t.Fatalf("%s, of any name: %+v\nsuper users %v, allow everyone %t, entries\n%+v", q, got, superUsers, allowEveryone, entries)
			}
			for i, may := uint32(0), rules.Allowed(q.Principal, q.Host, q.Type, q.Name); i < 32; i++ {
				o := Operation(i)
				if want := slices.Contains(Operations(q.Type), o) && naive(entries, superUsers, allowEveryone, Request{q.Principal, q.Host, o, q.Type, q.Name}); (may&(1<<i) != 0) != want {
					t.Fatalf("%s: %s is among all that is allowed: %t\n%+v", q, o, !want, entries)
				}
			}
		}
		if len(entries) > 0 && c(2) == 0 {
			entries = slices.Delete(entries, 0, 1+c(len(entries)))
		}
		entries = append(entries, c.entries()...)
		fresh := NewSet(entries)
		rules.Entries = rules.Entries.With(fresh.Entries())
		if !slices.Equal(rules.Entries.rows, fresh.rows) || allowEveryone && !slices.Equal(rules.Entries.byResource(), fresh.byResource()) {
			t.Fatalf("a set that came of another:\n%+v\n%+v\none of the same entries:\n%+v\n%+v", rules.Entries.rows, rules.Entries.byResource(), fresh.rows, fresh.byResource())
		}
	}
	return decided
}

// No decision differs from the naive evaluator's.
func TestDecisionsAreThoseOfTheDocumentation(t *testing.T) {
	const seed = 15
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, seed))
	sets := 100_000
	if testing.Short() {
		sets = 10_000
	}
	var decided [SuperUser + 1][2]int
	for range sets / 2 { // each makes another
		d := chooser(r.IntN).check(t)
		allowed := 0
		if d.Allowed {
			allowed = 1
		}
		decided[d.Because][allowed]++
	}
	for because, n := range decided {
		because := Reason(because)
		if denied, allowed := n[0], n[1]; denied+allowed < sets/200 {
			t.Errorf("of %d decisions %d were made because %s: that is no test of it", sets, denied+allowed, because)
		}
	}
}

func FuzzDecide(f *testing.F) {
	f.Add([]byte("an entry, and another one that is almost like it"))
	f.Fuzz(func(t *testing.T, b []byte) {
		chooser(func(n int) int {
			if len(b) == 0 {
				return 0
			}
			x := int(b[0]) % n
			b = b[1:]
			return x
		}).check(t)
	})
}

// A decision takes at most four times four searches among the rows, and one walk over the
// prefixes of a name in each of the four places, however entries are: with 100,000, and
// names of 249 bytes, so many steps.
func TestDecisionsTakeFewSteps(t *testing.T) {
	const most = 4 * (4*17 + 249)
	n := 100_000
	if testing.Short() {
		n = 20_000
	}
	for name, s := range shapes(n) {
		for _, everyone := range []bool{false, true} {
			r := Rules{Entries: NewSet(s.entries), AllowEveryone: everyone}
			for _, q := range []Request{
				s.ask,
				{s.ask.Principal, s.ask.Host, Create, Topic, s.ask.Name},
				{s.ask.Principal, s.ask.Host, Create, Topic, s.ask.Name[:248] + "b"},
				{s.ask.Principal, s.ask.Host, Create, Topic, "ab"},
				{"User:nobody", s.ask.Host, Create, Topic, s.ask.Name[:200]},
			} {
				// Where everyone is allowed what no entry is about, one place more.
				if _, steps := r.decide(q); steps > most*5/4 || !everyone && steps > most {
					t.Errorf("%s: %d steps to decide %s", name, steps, q)
				}
			}
		}
	}
}

// A set that came of another by one entry shares what it can: only the rows of the place
// that changed are looked at, which is told by time where it is measured (BenchmarkWith).
func TestSetsOfTheSameEntriesAreOne(t *testing.T) {
	a := NewSet([]Entry{{Topic, "a", Literal, "User:a", "*", Read, Allow}})
	if a.With(a.Entries()) != a || a.With(slices.Clone(a.Entries())) != a {
		t.Error("the same entries make another set")
	}
	if got := a.With(nil); len(got.rows) != 0 || len(got.Entries()) != 0 {
		t.Errorf("no entries make %+v", got.rows)
	}
}

// Super users are read as Kafka reads them, blanks and empty ones included.
func TestParseSuperUsers(t *testing.T) {
	users, wrong := ParseSuperUsers(" User:a;;Group:b c ; d;:e;User:CN=x,O=y")
	if len(users) != 3 || !users["User:a"] || !users["Group:b c"] || !users["User:CN=x,O=y"] {
		t.Errorf("users %v", users)
	}
	if !slices.Equal(wrong, []string{"d", ":e"}) {
		t.Errorf("no principals: %q", wrong)
	}
}

// Hosts are the same whatever their spelling; names of hosts stay.
func TestCanonicalHost(t *testing.T) {
	for in, want := range map[string]string{
		"*": "*", "10.0.0.1": "10.0.0.1", "0:0:0:0:0:0:0:1": "::1", "::ffff:10.0.0.1": "10.0.0.1", "FE80::1%eth0": "fe80::1", "a.example": "a.example", "": "",
	} {
		if got := CanonicalHost(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// Operations are read as any of Kafka's tools writes them, and written as they write them.
func TestParseOperation(t *testing.T) {
	for o := All; int(o) < len(operationWords); o++ {
		lower := strings.ToLower(o.String())
		for _, s := range []string{o.String(), lower, strings.ReplaceAll(lower, "_", "-"), strings.ReplaceAll(lower, "_", "")} {
			if got, err := ParseOperation(s); err != nil || got != o {
				t.Errorf("%q is %s, %v", s, got, err)
			}
		}
	}
	for _, s := range []string{"", "any", "unknown", "reads"} {
		if got, err := ParseOperation(s); err == nil {
			t.Errorf("%q is %s", s, got)
		}
	}
	if got := Operation(99).String(); got != "UNKNOWN" {
		t.Errorf("99 is %s", got)
	}
}

// KIP-290's filters: by pattern type, by name, and by what means a resource.
func TestFilter(t *testing.T) {
	literal := Entry{Topic, "foo", Literal, "User:a", "*", Read, Allow}
	prefixed, all := literal, literal
	prefixed.Name, prefixed.Pattern = "fo", Prefixed
	all.Name = AnyName
	str := func(s string) *string { return &s }
	any := Filter{Type: AnyType, Pattern: AnyPattern, Operation: AnyOperation, Permission: AnyPermission}
	for _, test := range []struct {
		what                   string
		change                 func(f *Filter)
		literal, prefixed, all bool
	}{
		{"any", func(f *Filter) {}, true, true, true},
		{"any of a name", func(f *Filter) { f.Name = str("foo") }, true, false, false},
		{"any of all names", func(f *Filter) { f.Name = str("*") }, false, false, true},
		{"literal", func(f *Filter) { f.Pattern = Literal }, true, false, true},
		{"literal of a name", func(f *Filter) { f.Pattern, f.Name = Literal, str("foo") }, true, false, false},
		{"prefixed", func(f *Filter) { f.Pattern = Prefixed }, false, true, false},
		{"prefixed of a longer name", func(f *Filter) { f.Pattern, f.Name = Prefixed, str("foo") }, false, false, false},
		{"matching", func(f *Filter) { f.Pattern = Match }, true, true, true},
		{"matching foo", func(f *Filter) { f.Pattern, f.Name = Match, str("foo") }, true, true, true},
		{"matching foobar", func(f *Filter) { f.Pattern, f.Name = Match, str("foobar") }, false, true, true},
		{"matching bar", func(f *Filter) { f.Pattern, f.Name = Match, str("bar") }, false, false, true},
		{"another type", func(f *Filter) { f.Type = Group }, false, false, false},
		{"the type", func(f *Filter) { f.Type = Topic }, true, true, true},
		{"another principal", func(f *Filter) { f.Principal = str("User:*") }, false, false, false},
		{"the principal", func(f *Filter) { f.Principal = str("User:a") }, true, true, true},
		{"another host", func(f *Filter) { f.Host = str("10.0.0.1") }, false, false, false},
		{"the host", func(f *Filter) { f.Host = str("*") }, true, true, true},
		{"another operation", func(f *Filter) { f.Operation = Describe }, false, false, false},
		{"all operations, which is one", func(f *Filter) { f.Operation = All }, false, false, false},
		{"the operation", func(f *Filter) { f.Operation = Read }, true, true, true},
		{"another permission", func(f *Filter) { f.Permission = Deny }, false, false, false},
		{"the permission", func(f *Filter) { f.Permission = Allow }, true, true, true},
	} {
		f := any
		test.change(&f)
		if l, p, a := f.Matches(&literal), f.Matches(&prefixed), f.Matches(&all); l != test.literal || p != test.prefixed || a != test.all {
			t.Errorf("%s: literal %t, prefixed %t, of all names %t", test.what, l, p, a)
		}
	}
}
