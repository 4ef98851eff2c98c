package group

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kbin"
)

// The journal's records of KIP-848, after Kafka's schemas (ConsumerGroup*Key.json
// and *Value.json of its group-coordinator). kmsg does not carry them. Keys are in
// the old encoding, a version that tells the kind and a name or two; values are in
// the flexible one, version 0.
//
//	key version  value
//	3            the group's epoch, and a hash of the topics it reads (4.1)
//	4            topics as the group knows them: read over, 4.1 only removes it
//	5            a member: who it is and what it subscribes to
//	6            the epoch of the target assignment
//	7            a member's target assignment
//	8            a member's current assignment, epoch and state
//	16           the topics that a regular expression of the group matches
const (
	groupEpochKey  int16 = 3
	topicsKey      int16 = 4
	memberKey      int16 = 5
	targetEpochKey int16 = 6
	targetKey      int16 = 7
	currentKey     int16 = 8
	regexKey       int16 = 16
)

type uuid = [16]byte

func compareUUID(x, y uuid) int { return bytes.Compare(x[:], y[:]) }

// An assignment is partitions by topic, each list ascending and not empty. It is
// never changed once made.
type assignment map[uuid][]int32

func (a assignment) equal(b assignment) bool { return maps.EqualFunc(a, b, slices.Equal[[]int32]) }

func (a assignment) count() (n int) {
	for _, parts := range a {
		n += len(parts)
	}
	return n
}

func (a assignment) has(topic uuid, partition int32) bool {
	_, ok := slices.BinarySearch(a[topic], partition)
	return ok
}

// without returns what of a is not in b; common what is in both.
func (a assignment) without(b assignment) assignment { return a.filter(b, false) }
func (a assignment) common(b assignment) assignment  { return a.filter(b, true) }

func (a assignment) filter(b assignment, in bool) assignment {
	out := make(assignment)
	for topic, parts := range a {
		for _, p := range parts {
			if b.has(topic, p) == in {
				out[topic] = append(out[topic], p)
			}
		}
	}
	return out
}

// only returns what of a keep tells to keep.
func (a assignment) only(keep func(topic uuid, partition int32) bool) assignment {
	out := make(assignment)
	for topic, parts := range a {
		for _, p := range parts {
			if keep(topic, p) {
				out[topic] = append(out[topic], p)
			}
		}
	}
	return out
}

// plus returns what is in either.
func (a assignment) plus(b assignment) assignment {
	out := maps.Clone(a)
	if out == nil {
		out = make(assignment)
	}
	for topic, parts := range b {
		all := append(slices.Clone(out[topic]), parts...)
		slices.Sort(all)
		out[topic] = slices.Compact(all)
	}
	return out
}

// An assignment that is read from a list is made in two steps, so that it costs what
// the list is long: add for each entry, then made, once. Lists come from clients; with
// plus for each of 4,000 topics it took a second of the shard's lock.
func (a assignment) add(topic uuid, parts []int32) {
	if len(parts) > 0 {
		a[topic] = append(a[topic], parts...)
	}
}

func (a assignment) made() assignment {
	for topic, parts := range a {
		slices.Sort(parts)
		a[topic] = slices.Compact(parts)
	}
	return a
}

// topics returns the topics in the order in which they are written.
func (a assignment) topics() []uuid {
	return slices.SortedFunc(maps.Keys(a), compareUUID)
}

// The states of a member, as they are written.
const (
	memberStable     int8 = 0
	memberUnrevoked  int8 = 1
	memberUnreleased int8 = 2
)

// consumerKey returns a key: rest is a member id or a regular expression.
func consumerKey(version int16, group string, rest ...string) []byte {
	b := kbin.AppendString(kbin.AppendInt16(nil, version), group)
	for _, s := range rest {
		b = kbin.AppendString(b, s)
	}
	return b
}

// parseConsumerKey reads what follows a key's version.
func parseConsumerKey(version int16, rest []byte) (group, second string, err error) {
	r := kbin.Reader{Src: rest}
	group = r.String()
	if version == memberKey || version == targetKey || version == currentKey || version == regexKey {
		second = r.String()
	}
	return group, second, complete(&r)
}

// groupEpochValue is value 3.
type groupEpochValue struct {
	epoch int32
	hash  int64 // of the topics, their partitions; 0: none
}

func (v groupEpochValue) append(b []byte) []byte {
	b = kbin.AppendInt32(kbin.AppendInt16(b, 0), v.epoch)
	if v.hash == 0 {
		return append(b, 0)
	}
	return kbin.AppendInt64(append(b, 1, 0, 8), v.hash)
}

func parseGroupEpoch(p []byte) (v groupEpochValue, err error) {
	r, err := valueReader(p)
	if err != nil {
		return v, err
	}
	v.epoch = r.Int32()
	tags(&r, func(tag uint32, body *kbin.Reader) {
		if tag == 0 {
			v.hash = body.Int64()
		}
	})
	return v, complete(&r)
}

// memberValue is value 5: what a member says of itself.
type memberValue struct {
	instanceID *string
	rackID     *string
	client     Client
	topics     []string // ascending
	regex      *string
	timeout    int32 // for a rebalance, milliseconds; -1: not said
	assignor   *string
	classic    *classicValue // of a member that speaks the classic protocol
}

type classicValue struct {
	session   int32 // milliseconds
	protocols []memberProtocol
}

func (v memberValue) append(b []byte) []byte {
	b = kbin.AppendInt16(b, 0)
	b = kbin.AppendCompactNullableString(b, v.instanceID)
	b = kbin.AppendCompactNullableString(b, v.rackID)
	b = kbin.AppendCompactString(b, v.client.ID)
	b = kbin.AppendCompactString(b, v.client.Host)
	b = appendNames(b, v.topics)
	b = kbin.AppendCompactNullableString(b, v.regex)
	b = kbin.AppendInt32(b, v.timeout)
	b = kbin.AppendCompactNullableString(b, v.assignor)
	if v.classic == nil {
		return append(b, 0)
	}
	c := kbin.AppendInt32([]byte{1}, v.classic.session) // 1: not null
	c = kbin.AppendCompactArrayLen(c, len(v.classic.protocols))
	for _, p := range v.classic.protocols {
		c = append(kbin.AppendCompactBytes(kbin.AppendCompactString(c, p.name), p.metadata), 0)
	}
	c = append(c, 0)
	return append(kbin.AppendUvarint(append(b, 1, 0), uint32(len(c))), c...)
}

func parseMember(p []byte) (v memberValue, err error) {
	r, err := valueReader(p)
	if err != nil {
		return v, err
	}
	v.instanceID, v.rackID = r.CompactNullableString(), r.CompactNullableString()
	v.client = Client{r.CompactString(), r.CompactString()}
	v.topics = names(&r)
	v.regex = r.CompactNullableString()
	v.timeout = r.Int32()
	v.assignor = r.CompactNullableString()
	tags(&r, func(tag uint32, body *kbin.Reader) {
		if tag != 0 || body.Int8() < 0 {
			return
		}
		v.classic = &classicValue{session: body.Int32()}
		for n := body.CompactArrayLen(); n > 0 && body.Ok(); n-- {
			v.classic.protocols = append(v.classic.protocols, memberProtocol{body.CompactString(), slices.Clone(body.CompactBytes())})
			tags(body, nil)
		}
		tags(body, nil)
	})
	return v, complete(&r)
}

// targetEpochValue is value 6.
type targetEpochValue int32

func (v targetEpochValue) append(b []byte) []byte {
	return append(kbin.AppendInt32(kbin.AppendInt16(b, 0), int32(v)), 0)
}

func parseTargetEpoch(p []byte) (targetEpochValue, error) {
	r, err := valueReader(p)
	if err != nil {
		return 0, err
	}
	v := targetEpochValue(r.Int32())
	tags(&r, nil)
	return v, complete(&r)
}

// appendTarget is value 7.
func appendTarget(b []byte, a assignment) []byte {
	return append(appendAssignment(kbin.AppendInt16(b, 0), a), 0)
}

func parseTarget(p []byte) (assignment, error) {
	r, err := valueReader(p)
	if err != nil {
		return nil, err
	}
	a := readAssignment(&r)
	tags(&r, nil)
	return a, complete(&r)
}

// currentValue is value 8.
type currentValue struct {
	epoch    int32
	previous int32 // the epoch before: the answer with the newer one may be lost
	state    int8
	assigned assignment
	revoking assignment // the member still has to give these back
}

func (v currentValue) append(b []byte) []byte {
	b = kbin.AppendInt32(kbin.AppendInt32(kbin.AppendInt16(b, 0), v.epoch), v.previous)
	b = appendAssignment(kbin.AppendInt8(b, v.state), v.assigned)
	return append(appendAssignment(b, v.revoking), 0)
}

func parseCurrent(p []byte) (v currentValue, err error) {
	r, err := valueReader(p)
	if err != nil {
		return v, err
	}
	v.epoch, v.previous, v.state = r.Int32(), r.Int32(), r.Int8()
	v.assigned, v.revoking = readAssignment(&r), readAssignment(&r)
	tags(&r, nil)
	return v, complete(&r)
}

// regexValue is value 16.
type regexValue struct {
	topics  []string // ascending
	version int64    // of the cluster's metadata
	at      int64    // milliseconds
}

func (v regexValue) append(b []byte) []byte {
	b = appendNames(kbin.AppendInt16(b, 0), v.topics)
	return append(kbin.AppendInt64(kbin.AppendInt64(b, v.version), v.at), 0)
}

func parseRegex(p []byte) (v regexValue, err error) {
	r, err := valueReader(p)
	if err != nil {
		return v, err
	}
	v.topics, v.version, v.at = names(&r), r.Int64(), r.Int64()
	tags(&r, nil)
	return v, complete(&r)
}

// ---- parts

func valueReader(p []byte) (kbin.Reader, error) {
	r := kbin.Reader{Src: p}
	if v := r.Int16(); len(p) < 2 || v != 0 {
		return r, fmt.Errorf("value of unknown version %d", v)
	}
	return r, nil
}

// tags reads tagged fields; those that field does not read are passed over. A
// field that cannot be read makes r bad.
func tags(r *kbin.Reader, field func(tag uint32, body *kbin.Reader)) {
	for n := r.Uvarint(); n > 0 && r.Ok(); n-- {
		tag, size := r.Uvarint(), r.Uvarint()
		if uint64(size) > uint64(len(r.Src)) {
			r.Span(len(r.Src) + 1) // more than there is
			return
		}
		body := kbin.Reader{Src: r.Span(int(size))}
		if field == nil {
			continue
		}
		if field(tag, &body); !body.Ok() {
			r.Span(len(r.Src) + 1)
			return
		}
	}
}

func appendNames(b []byte, names []string) []byte {
	b = kbin.AppendCompactArrayLen(b, len(names))
	for _, s := range names {
		b = kbin.AppendCompactString(b, s)
	}
	return b
}

func names(r *kbin.Reader) (out []string) {
	for n := r.CompactArrayLen(); n > 0 && r.Ok(); n-- {
		out = append(out, r.CompactString())
	}
	slices.SortFunc(out, strings.Compare)
	return slices.Compact(out)
}

func appendAssignment(b []byte, a assignment) []byte {
	b = kbin.AppendCompactArrayLen(b, len(a))
	for _, topic := range a.topics() {
		b = kbin.AppendCompactArrayLen(kbin.AppendUuid(b, topic), len(a[topic]))
		for _, p := range a[topic] {
			b = kbin.AppendInt32(b, p)
		}
		b = append(b, 0)
	}
	return b
}

func readAssignment(r *kbin.Reader) assignment {
	a := make(assignment)
	for n := r.CompactArrayLen(); n > 0 && r.Ok(); n-- {
		topic := r.Uuid()
		var parts []int32
		for k := r.CompactArrayLen(); k > 0 && r.Ok(); k-- {
			parts = append(parts, r.Int32())
		}
		tags(r, nil)
		a.add(topic, parts)
	}
	return a.made()
}
