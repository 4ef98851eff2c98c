package group

import (
	"fmt"
	"strings"

	"millrace/server/protocol"
)

// A consumerMember is one member, as the journal knows it. It is never changed.
type consumerMember struct {
	id string
	memberValue
	currentValue
	set *nameSet // of the topics it names
}

// A nameSet is the topics that a member names. Members that name the same share
// one, since in most groups all do.
type nameSet struct {
	key   string
	names []string // ascending
}

// consumerState is what the records of a group say, and what follows from them by
// counting, so that a step costs what it changes and not what there is.
//
// A state may lie over another, which it leaves as it is: then it has what differs,
// and its counts are to be added to those below. So a step can look at what it is
// about to do at the cost of what it does.
type consumerState struct {
	under *consumerState // nil: none

	// Not relative to what is below.
	epoch       int32
	hash        int64
	targetEpoch int32
	oldTopics   bool // the journal has a topicsKey record, of an older Kafka
	known       bool // the journal has any record
	size        int  // members
	classics    int  // of them, those that speak the classic protocol

	// Above another state, nil (or "") is what has been removed.
	members map[string]*consumerMember
	static  map[string]string // instance id to member id
	targets map[string]assignment
	regexes map[string]*regexValue

	// Counts. 0 is as good as absent.
	owners    map[uuid]map[int32]int // members that have a partition, or have yet to give it back
	sets      map[string]counted     // by key: members of each
	names     map[string]int         // sets that name a topic
	patterns  map[string]int         // members that subscribe by an expression
	protocols map[string]int         // members of the classic protocol that support one
}

type counted struct {
	set     *nameSet
	members int
}

func newConsumerState() consumerState {
	return consumerState{
		members: make(map[string]*consumerMember), static: make(map[string]string),
		targets: make(map[string]assignment), regexes: make(map[string]*regexValue),
		owners: make(map[uuid]map[int32]int), sets: make(map[string]counted),
		names: make(map[string]int), patterns: make(map[string]int), protocols: make(map[string]int),
	}
}

// over returns a state over st that does not differ from it yet.
func (st *consumerState) over() consumerState {
	up := newConsumerState()
	up.under = st
	up.epoch, up.hash, up.targetEpoch = st.epoch, st.hash, st.targetEpoch
	up.oldTopics, up.known, up.size, up.classics = st.oldTopics, st.known, st.size, st.classics
	return up
}

// merge makes st what up, a state over it, says.
func (st *consumerState) merge(up *consumerState) {
	for id, m := range up.members {
		st.setMember(id, m)
	}
	for instance, id := range up.static {
		st.setStatic(instance, id)
	}
	for id, a := range up.targets {
		st.setTarget(id, a)
	}
	for regex, v := range up.regexes {
		st.setRegex(regex, v)
	}
	st.epoch, st.hash, st.targetEpoch = up.epoch, up.hash, up.targetEpoch
	st.oldTopics, st.known = up.oldTopics, up.known
}

func (st *consumerState) member(id string) *consumerMember {
	if m, ok := st.members[id]; ok || st.under == nil {
		return m
	}
	return st.under.member(id)
}

// staticMember returns who has an instance id; "": nobody.
func (st *consumerState) staticMember(instance string) string {
	if id, ok := st.static[instance]; ok || st.under == nil {
		return id
	}
	return st.under.staticMember(instance)
}

// target returns a member's target; nil: it has none.
func (st *consumerState) target(id string) assignment {
	if a, ok := st.targets[id]; ok || st.under == nil {
		return a
	}
	return st.under.target(id)
}

func (st *consumerState) regex(name string) *regexValue {
	if v, ok := st.regexes[name]; ok || st.under == nil {
		return v
	}
	return st.under.regex(name)
}

func (st *consumerState) ownersOf(topic uuid, partition int32) int {
	n := st.owners[topic][partition]
	if st.under != nil {
		n += st.under.owners[topic][partition]
	}
	return n
}

func (st *consumerState) usersOf(regex string) int {
	n := st.patterns[regex]
	if st.under != nil {
		n += st.under.patterns[regex]
	}
	return n
}

func (st *consumerState) supporters(protocol string) int {
	n := st.protocols[protocol]
	if st.under != nil {
		n += st.under.protocols[protocol]
	}
	return n
}

func (st *consumerState) membersOf(set string) int {
	n := st.sets[set].members
	if st.under != nil {
		n += st.under.sets[set].members
	}
	return n
}

// each calls f for every member, in no order.
func (st *consumerState) each(f func(m *consumerMember)) {
	if st.under != nil {
		for id, m := range st.under.members {
			if _, ok := st.members[id]; !ok {
				f(m)
			}
		}
	}
	for _, m := range st.members {
		if m != nil {
			f(m)
		}
	}
}

// keys returns the names in a map of st's and in that below which are not removed.
func keys[V any](own, below map[string]V, there func(string) bool) (out []string) {
	for k := range own {
		if there(k) {
			out = append(out, k)
		}
	}
	for k := range below {
		if _, ok := own[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}

func (st *consumerState) allTargets() []string {
	var below map[string]assignment
	if st.under != nil {
		below = st.under.targets
	}
	return keys(st.targets, below, func(id string) bool { return st.targets[id] != nil })
}

func (st *consumerState) allRegexes() []string {
	var below map[string]*regexValue
	if st.under != nil {
		below = st.under.regexes
	}
	return keys(st.regexes, below, func(r string) bool { return st.regexes[r] != nil })
}

// eachTopic calls f once for each topic that a member names or whose name an
// expression is known to match.
func (st *consumerState) eachTopic(f func(name string)) {
	named := func(name string) bool {
		n := st.names[name]
		if st.under != nil {
			n += st.under.names[name]
		}
		return n > 0
	}
	if st.under != nil {
		for name := range st.under.names {
			if named(name) {
				f(name)
			}
		}
	}
	for name := range st.names {
		if named(name) && (st.under == nil || st.under.names[name] == 0) {
			f(name)
		}
	}
	var seen map[string]bool
	for _, regex := range st.allRegexes() {
		if st.usersOf(regex) == 0 {
			continue
		}
		for _, name := range st.regex(regex).topics {
			if !named(name) && !seen[name] {
				if seen == nil {
					seen = make(map[string]bool)
				}
				seen[name] = true
				f(name)
			}
		}
	}
}

// find returns a member that is who it says it is, or a code.
func (st *consumerState) find(id string, instanceID *string) (*consumerMember, protocol.Code) {
	if instanceID != nil {
		if code := isItself(id, st.staticMember(*instanceID)); code != protocol.None {
			return nil, code
		}
	}
	if m := st.member(id); m != nil {
		return m, protocol.None
	}
	return nil, protocol.UnknownMemberID
}

// setMember makes m the member of that id; nil removes it.
func (st *consumerState) setMember(id string, m *consumerMember) {
	old := st.member(id)
	if old != nil {
		st.size--
		st.count(old, -1)
	}
	if m != nil {
		st.size++
		st.count(m, 1)
	}
	if old == nil || m == nil || old.set != m.set {
		if old != nil {
			st.countSet(old.set, -1)
		}
		if m != nil {
			st.countSet(m.set, 1)
		}
	}
	if m == nil && st.under == nil {
		delete(st.members, id)
	} else {
		st.members[id] = m
	}
}

func (st *consumerState) count(m *consumerMember, by int) {
	for _, a := range [...]assignment{m.assigned, m.revoking} {
		for topic, parts := range a {
			of := st.owners[topic]
			if of == nil {
				of = make(map[int32]int)
				st.owners[topic] = of
			}
			for _, p := range parts {
				add(of, p, by)
			}
			if len(of) == 0 {
				delete(st.owners, topic)
			}
		}
	}
	if m.regex != nil && *m.regex != "" {
		add(st.patterns, *m.regex, by)
	}
	if m.classic != nil {
		st.classics += by
		for _, p := range m.classic.protocols {
			add(st.protocols, p.name, by)
		}
	}
}

// countSet counts a member of a set, and the set's names if it is the first or was
// the last.
func (st *consumerState) countSet(set *nameSet, by int) {
	before := st.membersOf(set.key)
	c := st.sets[set.key]
	if c.set == nil {
		c.set = set
	}
	if c.members += by; c.members == 0 {
		delete(st.sets, set.key)
	} else {
		st.sets[set.key] = c
	}
	if before == 0 || before+by == 0 {
		for _, name := range set.names {
			add(st.names, name, by)
		}
	}
}

func add[K comparable](counts map[K]int, k K, by int) {
	if counts[k] += by; counts[k] == 0 {
		delete(counts, k)
	}
}

// setOf returns the set of those names, which are ascending.
func (st *consumerState) setOf(names []string) *nameSet {
	key := strings.Join(names, "\x00")
	for s := st; s != nil; s = s.under {
		if c, ok := s.sets[key]; ok {
			return c.set
		}
	}
	return &nameSet{key, names}
}

func (st *consumerState) setStatic(instance, id string) {
	if id == "" && st.under == nil {
		delete(st.static, instance)
	} else {
		st.static[instance] = id
	}
}

func (st *consumerState) setTarget(id string, a assignment) {
	if a == nil && st.under == nil {
		delete(st.targets, id)
	} else {
		st.targets[id] = a
	}
}

func (st *consumerState) setRegex(regex string, v *regexValue) {
	if v == nil && st.under == nil {
		delete(st.regexes, regex)
	} else {
		st.regexes[regex] = v
	}
}

// apply replays one record. value nil ends what the key names.
func (st *consumerState) apply(version int16, name string, value []byte) error {
	if value != nil {
		st.known = true
	}
	switch version {
	case groupEpochKey:
		if value == nil {
			st.epoch, st.hash, st.known = 0, 0, false
			return nil
		}
		v, err := parseGroupEpoch(value)
		if err == nil {
			st.epoch, st.hash = v.epoch, v.hash
		}
		return err
	case topicsKey:
		st.oldTopics = value != nil
		return nil
	case targetEpochKey:
		if value == nil {
			st.targetEpoch = 0
			return nil
		}
		v, err := parseTargetEpoch(value)
		if err == nil {
			st.targetEpoch = int32(v)
		}
		return err
	case targetKey:
		if value == nil {
			st.setTarget(name, nil)
			return nil
		}
		a, err := parseTarget(value)
		if err == nil {
			st.setTarget(name, a)
		}
		return err
	case regexKey:
		if value == nil {
			st.setRegex(name, nil)
			return nil
		}
		v, err := parseRegex(value)
		if err == nil {
			st.setRegex(name, &v)
		}
		return err
	case memberKey:
		return st.applyMember(name, value)
	case currentKey:
		return st.applyCurrent(name, value)
	}
	return fmt.Errorf("unknown key version %d", version)
}

// applyMember replays what a member says of itself. A tombstone takes it out.
func (st *consumerState) applyMember(id string, value []byte) error {
	old := st.member(id)
	if value == nil {
		if old == nil {
			return nil
		}
		if old.instanceID != nil && st.staticMember(*old.instanceID) == id {
			st.setStatic(*old.instanceID, "")
		}
		st.setMember(id, nil)
		return nil
	}
	v, err := parseMember(value)
	if err != nil {
		return err
	}
	m := consumerMember{id: id, memberValue: v, set: st.setOf(v.topics)}
	m.topics = m.set.names
	if old != nil {
		m.currentValue = old.currentValue
	}
	st.setMember(id, &m)
	if v.instanceID != nil {
		st.setStatic(*v.instanceID, id)
	}
	return nil
}

// applyCurrent replays what a member has, and in which epoch.
func (st *consumerState) applyCurrent(id string, value []byte) error {
	old := st.member(id)
	if old == nil {
		return nil // a tombstone behind the member's own
	}
	m := *old
	m.currentValue = currentValue{}
	if value != nil {
		v, err := parseCurrent(value)
		if err != nil {
			return err
		}
		m.currentValue = v
	}
	st.setMember(id, &m)
	return nil
}
