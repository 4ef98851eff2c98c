package group

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// consumerProtocol is the protocol type of consumers, whose subscriptions we can
// read. Others (Connect's, Schema Registry's) are opaque.
const consumerProtocol = "consumer"

// A roster is who is in a classic group, and what follows from that by counting. It sets
// no alarm, appends nothing and charges nothing.
type roster struct {
	members    map[string]*member
	static     map[string]string // instance id to member id
	supported  map[string]int    // protocol to how many members support it
	waiting    int               // members with a join call
	nextJoined uint64
}

func newRoster() roster {
	return roster{members: make(map[string]*member), static: make(map[string]string), supported: make(map[string]int)}
}

// A member is one client in a classic group.
type member struct {
	of         *classicGroup
	id         string
	instanceID *string // static membership (KIP-345); nil: dynamic
	client     Client
	joined     uint64 // the order in which members came; the first leads
	session    time.Duration
	timeout    time.Duration    // for a rebalance
	protocols  []memberProtocol // in the order of preference
	assignment []byte
	isNew      bool // has not got an answer to a join yet
	join       *joinCall
	sync       *syncCall
	expiry     coordinator.Alarm
	bytes      int // what was charged for it
}

// A memberProtocol is one that a member speaks, with what it says in it.
type memberProtocol struct {
	name     string
	metadata []byte
}

// memberOverhead is about what a member takes besides its bytes.
const memberOverhead = 512

func (m *member) cost() int {
	n := memberOverhead + 2*len(m.id) + len(m.client.ID) + len(m.client.Host) + len(m.assignment)
	if m.instanceID != nil {
		n += 2 * len(*m.instanceID)
	}
	for _, p := range m.protocols {
		n += 64 + len(p.name) + len(p.metadata)
	}
	return n
}

func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.name == protocol {
			return p.metadata
		}
	}
	return nil
}

// protocolsOf copies a request's protocols; of two with one name the first counts.
func protocolsOf(in []kmsg.JoinGroupRequestProtocol) []memberProtocol {
	seen := make(map[string]bool, len(in))
	out := make([]memberProtocol, 0, len(in))
	for _, p := range in {
		if !seen[p.Name] {
			seen[p.Name] = true
			out = append(out, memberProtocol{p.Name, slices.Clone(p.Metadata)})
		}
	}
	return out
}

func sameProtocols(a, b []memberProtocol) bool {
	return slices.EqualFunc(a, b, func(x, y memberProtocol) bool {
		return x.name == y.name && string(x.metadata) == string(y.metadata)
	})
}

// check is what every request of a member is held against: the code for one that is not
// who it says it is.
func (r *roster) check(memberID string, instanceID *string) protocol.Code {
	if instanceID != nil {
		if code := isItself(memberID, r.static[*instanceID]); code != protocol.None {
			return code
		}
	}
	if r.members[memberID] == nil {
		return protocol.UnknownMemberID
	}
	return protocol.None
}

// inOrder returns the members in the order in which they came.
func (r *roster) inOrder() []*member {
	return slices.SortedFunc(maps.Values(r.members), func(a, b *member) int { return cmp.Compare(a.joined, b.joined) })
}

// enlist adds a member.
func (r *roster) enlist(m *member) {
	m.joined = r.nextJoined
	r.nextJoined++
	r.members[m.id] = m
	if m.instanceID != nil {
		r.static[*m.instanceID] = m.id
	}
	r.support(m, m.protocols)
	if m.join != nil {
		r.waiting++
	}
}

// strike takes a member out.
func (r *roster) strike(m *member) {
	delete(r.members, m.id)
	if m.instanceID != nil && r.static[*m.instanceID] == m.id {
		delete(r.static, *m.instanceID)
	}
	r.unsupport(m)
}

// support counts what m supports: protocols.
func (r *roster) support(m *member, protocols []memberProtocol) {
	m.protocols = protocols
	for _, p := range protocols {
		r.supported[p.name]++
	}
}

func (r *roster) unsupport(m *member) {
	for _, p := range m.protocols {
		if r.supported[p.name]--; r.supported[p.name] == 0 {
			delete(r.supported, p.name)
		}
	}
}

// answerJoin answers m's JoinGroup, if it waits for one.
func (r *roster) answerJoin(m *member, resp *kmsg.JoinGroupResponse) {
	if m.join != nil {
		m.join.answer <- resp
		m.join = nil
		r.waiting--
	}
}

// rebalanceTimeout is the longest any member asks for.
func (r *roster) rebalanceTimeout() time.Duration {
	var t time.Duration
	for _, m := range r.members {
		t = max(t, m.timeout)
	}
	return t
}

// selectProtocol returns what most members like best of what all support. Members
// exist, and support something in common: a join that would end that is refused.
func (r *roster) selectProtocol() string {
	votes := make(map[string]int)
	best := ""
	for _, m := range r.inOrder() {
		for _, p := range m.protocols {
			if r.supported[p.name] == len(r.members) {
				votes[p.name]++
				if best == "" || votes[p.name] > votes[best] {
					best = p.name
				}
				break
			}
		}
	}
	return best
}

// supportsOneOf reports whether all members support one of those protocols.
func (r *roster) supportsOneOf(protocols []kmsg.JoinGroupRequestProtocol) bool {
	return slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return r.supported[p.Name] == len(r.members)
	})
}

// subscriptions returns the topics that all members together subscribe to by a protocol
// of consumers; nil if that cannot be known.
func (r *roster) subscriptions(protocol string) map[string]bool {
	topics := make(map[string]bool)
	for _, m := range r.members {
		own, ok := subscription(m.metadata(protocol))
		if !ok {
			return nil
		}
		for _, t := range own {
			topics[t] = true
		}
	}
	return topics
}

// subscription reads the topics out of a consumer's metadata. All versions of it
// begin alike.
func subscription(metadata []byte) (topics []string, ok bool) {
	r := kbin.Reader{Src: metadata}
	r.Int16()
	for n := r.ArrayLen(); n > 0 && r.Ok(); n-- {
		topics = append(topics, r.String())
	}
	return topics, r.Ok()
}

// maxIDName is how much of a client's name goes into its member id, which has to
// have room in a record's key.
const maxIDName = 1 << 10

// memberID makes up a member id nobody has.
func memberID(client Client, instanceID *string) string {
	name := client.ID
	if instanceID != nil {
		name = *instanceID
	}
	name = name[:min(len(name), maxIDName)]
	var u [16]byte
	rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", name, u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
