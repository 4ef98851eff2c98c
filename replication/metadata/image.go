// Package metadata is what a cluster knows about itself: its brokers, its
// topics with their partitions and settings, and the counters that hand out
// numbers. It is a value and the steps between values, without I/O, clocks or
// goroutines.
//
// An [Image] never changes. A [Change] is one of a closed set, and
// [Image.Apply] is a pure function of an image and a change: every node that
// applies the same changes in the same order, whatever its clock or its
// hardware, has the same image. So Apply's rules are part of the format. A rule
// that is made stricter or looser needs a new version of the change it
// concerns, else two releases in one cluster would disagree about what was
// refused.
//
// What may differ between releases, above all which values a setting accepts,
// is therefore not looked at by Apply. It is checked at the gate, by
// [Image.Check], once, on the node that leads the controller group, before the
// change becomes an entry of the log. Check does all that Apply does besides. What
// settings there are, and what their values mean, is package settings'; an image holds
// what was set, and [Image.Settings] says by it what is in force.
//
// Sharing. An image, and every topic, broker, slice and map reached through it,
// may be read by any number of goroutines and must not be written by anyone.
// Images share what did not change: a step copies the sorted tables of pointers
// and the topic it touches, never the partitions of other topics.
package metadata

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// A Broker is a node that serves clients and holds replicas.
type Broker struct {
	ID          int32  // 1 or more; 0 breaks clients
	Incarnation string // of its data folder: a wiped disk under an old id is another incarnation
	Host        string // as told to peers and, unless a listener says otherwise, to clients
	Port        int32
	Rack        string // "" when none was given

	// Since feature level 2.
	MinLevel int32  `json:",omitempty"` // the feature levels its release reads; 0: it registered with the first release
	MaxLevel int32  `json:",omitempty"`
	Starts   uint64 `json:",omitempty"` // the age of its data folder when it registered: each start raises it, and so does writing
	Run      string `json:",omitempty"` // random, of that start: who starts a copy of the folder has another

	// Listeners says where clients reach the broker that came in by a listener of that
	// name, here or at another broker: NAME://HOST:PORT,…, in the order of the names.
	// "", before feature level 3 too: at Host and Port, by whatever listener they come.
	// A text and not a list, so that brokers can be compared.
	Listeners string `json:",omitempty"`

	// Secured says, since feature level 4, that it has a certificate of the cluster's.
	Secured bool `json:",omitempty"`
}

// At returns where clients reach the broker that came in by the listener of a name:
// there, or where the broker has no listener of that name, where other nodes do.
func (b *Broker) At(listener string) (host string, port int32) {
	for one := range strings.SplitSeq(b.Listeners, ",") {
		if name, address, ok := strings.Cut(one, "://"); ok && name == listener {
			if host, port, err := splitAddress(address); err == nil {
				return host, port
			}
		}
	}
	return b.Host, b.Port
}

// A Listener is a name, and the HOST:PORT that clients are told who came in by it.
type Listener struct{ Name, Address string }

// JoinListeners is what a broker with these registers as its Listeners.
func JoinListeners(all []Listener) string {
	all = slices.SortedFunc(slices.Values(all), func(a, b Listener) int { return cmp.Compare(a.Name, b.Name) })
	var texts []string
	for _, l := range all {
		texts = append(texts, l.Name+"://"+l.Address)
	}
	return strings.Join(texts, ",")
}

// validListeners reports whether a text is one of JoinListeners.
func validListeners(text string) bool {
	if text == "" {
		return true
	}
	before := ""
	for one := range strings.SplitSeq(text, ",") {
		name, address, ok := strings.Cut(one, "://")
		host, port, err := splitAddress(address)
		if !ok || name <= before || err != nil || host == "" || port < 1 {
			return false
		}
		before = name
	}
	return true
}

func splitAddress(address string) (host string, port int32, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return host, int32(n), err
}

// ServerID is the name under which this incarnation of the broker is a member
// of Raft groups: "<node>.<incarnation>".
func (b *Broker) ServerID() string {
	return strconv.Itoa(int(b.ID)) + "." + b.Incarnation
}

// Outran reports whether b shows that other, which says it is the same incarnation, is at
// work in a copy of b's data folder, a restored backup or a clone: each start is at a
// greater age than any that was told before. What one run says of itself may come late,
// and is no copy.
func (b *Broker) Outran(other *Broker) bool {
	return b.Incarnation == other.Incarnation && other.Starts != 0 && other.Starts <= b.Starts && other.Run != b.Run
}

// A Partition is a log with its replicas, one Raft group.
type Partition struct {
	Group     uint64   // the number of its Raft group; 0 is the controller's, so never 0 here; never reused
	Replicas  []int32  // broker ids, the preferred leader first; distinct, each registered
	Bootstrap []string // server ids of the members the group begins with, fixed when the partition was created
}

// A Topic is a named list of partitions with settings.
type Topic struct {
	ID         TopicID
	Name       string
	Partitions []Partition       // by partition index
	Config     map[string]string // what was set for this topic and nothing else; nil when nothing was
	Internal   bool              // the cluster's own, such as __consumer_offsets
	Grow       bool              // created with the default replication factor: replicas are added as brokers join
}

// A Block is a run of producer ids, [Start, Start+Count), that belongs to one broker.
type Block struct {
	Start int64
	Count int32
}

// An Image is the cluster's metadata after one change and before the next. The
// zero value is the image of a cluster that does not exist yet. It is
// immutable; see the package comment for what that includes.
type Image struct {
	Index     uint64 // of the last change that was applied; 0 before the first
	ClusterID string // 22 characters of base64; "" only in the zero image

	brokers []*Broker      // by id
	topics  []*Topic       // by name
	byID    []*Topic       // the same topics, by id
	groups  []run          // by first group, disjoint
	configs []brokerConfig // by broker, 0 (the whole cluster) first; none is empty
	blocks  []brokerBlock  // by broker

	resources []resourceConfig // by kind and name; none is empty

	access // since level 4

	level        int32  // see Level
	deleted      []span // since level 2, groups that were deleted, in order; neighbours are one
	lastBroker   int32  // the highest id ever registered
	lastGroup    uint64 // the highest group ever numbered
	nextProducer int64

	replicas      int // over all partitions
	size          int // an upper bound of len(Encode()), without brokers
	resourceBytes int // of size, what resources take
}

// A run says whose groups [first, first+count) are: those of one topic, its
// partitions from start on. A topic has one run for each time it got
// partitions, so there are about as many runs as topics, however many
// partitions they have.
type run struct {
	first uint64
	count int32
	start int32
	topic TopicID
}

type brokerConfig struct {
	broker int32
	values map[string]string
}

type brokerBlock struct {
	broker int32
	Block
}

// Brokers lists the registered brokers by id. They need not be alive.
func (m *Image) Brokers() []*Broker { return m.brokers }

// Broker finds a registered broker.
func (m *Image) Broker(id int32) (*Broker, bool) {
	i, ok := m.broker(id)
	if !ok {
		return nil, false
	}
	return m.brokers[i], true
}

// BrokerOf finds the broker whose current incarnation this is. A node that
// registered without an id learns its id by it.
func (m *Image) BrokerOf(incarnation string) (*Broker, bool) {
	for _, b := range m.brokers {
		if b.Incarnation == incarnation {
			return b, true
		}
	}
	return nil, false
}

// Topics lists all topics by name, internal ones included.
func (m *Image) Topics() []*Topic { return m.topics }

// Difference lists what a step, or several, from before to m touched: the topics that
// before has not or has otherwise, and those of before that m has not. It compares
// pointers, some nanoseconds a topic, and lists all topics of an image that was decoded.
func (m *Image) Difference(before *Image) (changed, gone []*Topic) {
	old := before.byID
	for _, t := range m.byID {
		for len(old) > 0 && old[0].ID.compare(t.ID) < 0 {
			gone, old = append(gone, old[0]), old[1:]
		}
		if len(old) == 0 || old[0].ID != t.ID {
			changed = append(changed, t)
			continue
		}
		if old[0] != t {
			changed = append(changed, t)
		}
		old = old[1:]
	}
	return changed, append(gone, old...)
}

// SameBrokerConfigs reports whether all settings of brokers and of the cluster are before's.
func (m *Image) SameBrokerConfigs(before *Image) bool {
	return slices.EqualFunc(m.configs, before.configs, func(a, b brokerConfig) bool {
		return a.broker == b.broker && maps.Equal(a.values, b.values)
	})
}

// Topic finds a topic by name.
func (m *Image) Topic(name string) (*Topic, bool) {
	i, ok := m.topic(name)
	if !ok {
		return nil, false
	}
	return m.topics[i], true
}

// TopicByID finds a topic by id.
func (m *Image) TopicByID(id TopicID) (*Topic, bool) {
	i, ok := m.topicID(id)
	if !ok {
		return nil, false
	}
	return m.byID[i], true
}

// Partition finds a partition and the topic it belongs to.
func (m *Image) Partition(id PartitionID) (*Topic, *Partition, bool) {
	t, ok := m.TopicByID(id.Topic)
	if !ok || id.Index < 0 || int(id.Index) >= len(t.Partitions) {
		return nil, nil, false
	}
	return t, &t.Partitions[id.Index], true
}

// Group finds the partition a Raft group is. It is false for 0, the
// controller's group, for groups of deleted topics and for those to come.
func (m *Image) Group(group uint64) (PartitionID, bool) {
	i, found := slices.BinarySearchFunc(m.groups, group, func(r run, g uint64) int { return cmp.Compare(r.first, g) })
	if !found {
		i--
	}
	if i < 0 || group-m.groups[i].first >= uint64(m.groups[i].count) {
		return PartitionID{}, false
	}
	r := m.groups[i]
	return PartitionID{Topic: r.topic, Index: r.start + int32(group-r.first)}, true
}

// LastGroup is the highest number a group was ever given. A group above it
// belongs to a change this image has not seen; one at or below it that Group
// does not find was deleted.
func (m *Image) LastGroup() uint64 { return m.lastGroup }

// BrokerConfig returns the settings changed at run time: for one broker, or,
// with id 0, for the whole cluster. It is nil when there are none.
func (m *Image) BrokerConfig(id int32) map[string]string {
	i, ok := m.config(id)
	if !ok {
		return nil
	}
	return m.configs[i].values
}

// NextProducerID is where the next block of producer ids will start.
func (m *Image) NextProducerID() int64 { return m.nextProducer }

// ProducerBlock is the block a broker was given last. A broker that asks for
// one at a time finds its own here as soon as its image holds the change.
func (m *Image) ProducerBlock(broker int32) (Block, bool) {
	i, ok := m.block(broker)
	if !ok {
		return Block{}, false
	}
	return m.blocks[i].Block, true
}

// Replicas counts the replicas of all partitions.
func (m *Image) Replicas() int { return m.replicas }

func (m *Image) broker(id int32) (int, bool) {
	return slices.BinarySearchFunc(m.brokers, id, func(b *Broker, id int32) int { return cmp.Compare(b.ID, id) })
}

func (m *Image) topic(name string) (int, bool) {
	return slices.BinarySearchFunc(m.topics, name, func(t *Topic, name string) int { return cmp.Compare(t.Name, name) })
}

func (m *Image) topicID(id TopicID) (int, bool) {
	return slices.BinarySearchFunc(m.byID, id, func(t *Topic, id TopicID) int { return t.ID.compare(id) })
}

func (m *Image) config(id int32) (int, bool) {
	return slices.BinarySearchFunc(m.configs, id, func(c brokerConfig, id int32) int { return cmp.Compare(c.broker, id) })
}

func (m *Image) block(id int32) (int, bool) {
	return slices.BinarySearchFunc(m.blocks, id, func(b brokerBlock, id int32) int { return cmp.Compare(b.broker, id) })
}

// The three below never write to the array of s: images share it.

func inserted[T any](s []T, i int, v T) []T {
	r := make([]T, len(s)+1)
	copy(r, s[:i])
	r[i] = v
	copy(r[i+1:], s[i:])
	return r
}

func replaced[T any](s []T, i int, v T) []T {
	r := slices.Clone(s)
	r[i] = v
	return r
}

func removed[T any](s []T, i int) []T {
	if len(s) == 1 {
		return nil
	}
	r := make([]T, len(s)-1)
	copy(r, s[:i])
	copy(r[i:], s[i+1:])
	return r
}
