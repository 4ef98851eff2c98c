package metadata

import (
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"millrace/replication/metadata/settings"
)

// A Change is a step from one image to the next: one of the types of this file
// and no other, by value. Applying one takes copies of its slices and maps.
type Change interface {
	// kind is the change's name on disk and between nodes.
	kind() string
	// level is the feature level whose releases can read all of it.
	level() int32
	// apply turns next, a copy of an image that shares all it points to, into
	// the image after the change. It must be a function of the two alone.
	apply(next *Image) error
	// check refuses values no node should be given, before the change is
	// proposed. m is the image the change will meet, next what it makes of it.
	check(m, next *Image) error
}

// Apply returns the image that follows m by change c, the entry at index. It
// never changes m, and what it returns shares no memory with c.
//
// A change that is refused leaves everything as it was: Apply then returns m
// itself, with Index where it was, and a [*Refusal].
func (m *Image) Apply(index uint64, c Change) (*Image, error) {
	if index <= m.Index {
		return m, refuse(ErrStaleIndex, "change %d is not after the image, which is at %d", index, m.Index)
	}
	next := *m
	if err := c.apply(&next); err != nil {
		return m, err
	}
	next.Index = index
	return &next, nil
}

// Check is the gate a change passes once, before it is proposed: it tells
// whether Apply would take it now and whether the values it carries are good
// ones. A caller who only wants to know what would happen (validate_only) needs
// nothing else.
func (m *Image) Check(c Change) error {
	if m.ClusterID != "" && c.level() > m.level {
		if _, raises := c.(SetLevel); !raises {
			return refuse(ErrLevel, "%s needs feature level %d, and the cluster is at %d until all its brokers are upgraded", c.kind(), c.level(), m.level)
		}
	}
	next, err := m.Apply(m.Index+1, c)
	if err != nil {
		return err
	}
	return c.check(m, next)
}

// RegisterBroker adds a broker, or gives a known one another address, rack or
// incarnation. A new incarnation takes the place of the old one; partitions
// keep naming the broker by its id.
//
// At feature level 2 it is refused if the broker's release does not read the
// cluster's level, or if its folder is a copy of one that has gone on: see Outran. Who
// founds a cluster sets the level.
//
// Errors: ErrInvalidBroker, ErrOtherCluster, ErrNoCluster, ErrStaleBroker, ErrLimit, ErrLevel, ErrOldDisk.
type RegisterBroker struct {
	// Broker to register. With ID 0 the broker gets the id it has, if its
	// incarnation is registered, or else the next that no broker ever had; see BrokerOf.
	Broker Broker
	// ClusterID founds the cluster when there is none, and must then be given.
	// Afterwards it may be left out, and is refused if it is another's.
	ClusterID string `json:",omitempty"`
	// Replaces, if not empty, is the incarnation the caller knows to be
	// registered under the id. The change is refused as stale if neither it
	// nor the new one is.
	Replaces string `json:",omitempty"`
}

// UnregisterBroker forgets a broker that holds no replicas, together with its settings.
//
// Errors: ErrUnknownBroker, ErrStaleBroker, ErrBrokerInUse.
type UnregisterBroker struct {
	ID          int32
	Incarnation string `json:",omitempty"` // "": whichever is registered
}

// CreateTopic adds a topic. Each partition gets the next group number, and
// begins its Raft group with the incarnations its replicas have now.
//
// Errors: ErrInvalidTopic, ErrTopicExists, ErrTopicCollision, ErrInvalidTopicID,
// ErrInvalidPartitions, ErrInvalidReplication, ErrInvalidAssignment,
// ErrInvalidConfig, ErrLimit.
type CreateTopic struct {
	ID         TopicID // random, see NewTopicID: the caller makes it, because Apply must not
	Name       string
	Assignment [][]int32         // replicas of each partition, preferred leader first; see Place
	Config     map[string]string `json:",omitempty"`
	Internal   bool              `json:",omitempty"`
	Grow       bool              `json:",omitempty"`
}

// DeleteTopic removes a topic. Nothing of it is remembered; its groups are not
// numbered again, because the counter does not go back.
//
// Errors: ErrUnknownTopic.
type DeleteTopic struct {
	Topic TopicID
}

// CreatePartitions adds partitions to a topic.
//
// Errors: ErrUnknownTopic, ErrInvalidPartitions, ErrInvalidReplication, ErrInvalidAssignment, ErrLimit.
type CreatePartitions struct {
	Topic      TopicID
	Count      int32     // partitions in total afterwards: refused if somebody else added some first
	Assignment [][]int32 // replicas of each new partition; see PlaceFor
}

// SetTopicConfig sets settings of a topic and returns others to their defaults.
//
// Errors: ErrUnknownTopic, ErrInvalidConfig, ErrConfigChanged, ErrLimit.
type SetTopicConfig struct {
	Topic   TopicID
	Set     map[string]string  `json:",omitempty"`
	Delete  []string           `json:",omitempty"` // before Set; names that are not set are no error
	Replace bool               `json:",omitempty"` // all that is not in Set returns to its default
	Was     map[string]*string `json:",omitempty"` // refused unless these are what is set now, nil for what is not: what Set was computed from
}

// SetBrokerConfig does the same for one broker, or with Broker 0 for the whole cluster.
//
// Errors: ErrUnknownBroker, ErrInvalidConfig, ErrReadOnlyConfig, ErrConfigChanged, ErrLimit.
type SetBrokerConfig struct {
	Broker  int32
	Set     map[string]string  `json:",omitempty"`
	Delete  []string           `json:",omitempty"`
	Replace bool               `json:",omitempty"`
	Was     map[string]*string `json:",omitempty"`
}

// SetReplicas says which brokers shall hold a partition. The partition's group
// follows, one member at a time.
//
// Errors: ErrUnknownTopic, ErrUnknownPartition, ErrInvalidReplication, ErrInvalidAssignment, ErrLimit.
type SetReplicas struct {
	Partition PartitionID
	Replicas  []int32
	// Manual is true when a person decided it: the topic stops growing by itself.
	Manual bool `json:",omitempty"`
}

// AllocateProducerIDs gives a broker the next Count producer ids. The block
// starts at the NextProducerID of the image before; see ProducerBlock. (KIP-730)
//
// Errors: ErrUnknownBroker, ErrInvalidBlock.
type AllocateProducerIDs struct {
	Broker int32
	Count  int32
}

func (RegisterBroker) kind() string      { return "RegisterBroker" }
func (UnregisterBroker) kind() string    { return "UnregisterBroker" }
func (CreateTopic) kind() string         { return "CreateTopic" }
func (DeleteTopic) kind() string         { return "DeleteTopic" }
func (CreatePartitions) kind() string    { return "CreatePartitions" }
func (SetTopicConfig) kind() string      { return "SetTopicConfig" }
func (SetBrokerConfig) kind() string     { return "SetBrokerConfig" }
func (SetReplicas) kind() string         { return "SetReplicas" }
func (AllocateProducerIDs) kind() string { return "AllocateProducerIDs" }

func (c RegisterBroker) level() int32 {
	if c.Broker.Secured {
		return 4
	}
	if c.Broker.Listeners != "" {
		return 3
	}
	if b := c.Broker; b.MinLevel != 0 || b.MaxLevel != 0 || b.Starts != 0 || b.Run != "" {
		return 2
	}
	return 1
}
func (UnregisterBroker) level() int32    { return 1 }
func (CreateTopic) level() int32         { return 1 }
func (DeleteTopic) level() int32         { return 1 }
func (CreatePartitions) level() int32    { return 1 }
func (SetTopicConfig) level() int32      { return 1 }
func (SetBrokerConfig) level() int32     { return 1 }
func (SetReplicas) level() int32         { return 1 }
func (AllocateProducerIDs) level() int32 { return 1 }

func (c RegisterBroker) apply(next *Image) error {
	b := c.Broker
	if err := validBroker(&b); err != nil {
		return err
	}
	switch {
	case c.ClusterID == "" && next.ClusterID == "":
		return refuse(ErrNoCluster, "the first broker must bring a cluster id")
	case !text(c.ClusterID):
		return refuse(ErrInvalidBroker, "the cluster id is not a text of at most %d bytes", maxText)
	case c.ClusterID != "" && next.ClusterID != "" && c.ClusterID != next.ClusterID:
		return refuse(ErrOtherCluster, "broker %d belongs to cluster %s, this is cluster %s", b.ID, settings.Shown(c.ClusterID), next.ClusterID)
	}
	if next.level > 1 && b.MaxLevel < next.level || b.MinLevel > max(next.level, 1) {
		return refuse(ErrLevel, "broker %d reads feature levels %d to %d, the cluster is at %d; run a release on it that reads that", b.ID, max(b.MinLevel, 1), max(b.MaxLevel, 1), next.level)
	}
	if b.ID == 0 {
		if known, ok := next.BrokerOf(b.Incarnation); ok {
			b.ID = known.ID
		} else if next.lastBroker == math.MaxInt32 {
			return refuse(ErrLimit, "all broker ids have been used")
		} else {
			b.ID = next.lastBroker + 1
		}
	}
	if other, ok := next.BrokerOf(b.Incarnation); ok && other.ID != b.ID {
		return refuse(ErrInvalidBroker, "incarnation %s is broker %d and cannot become broker %d", b.Incarnation, other.ID, b.ID)
	}
	i, known := next.broker(b.ID)
	switch {
	case known:
		now := next.brokers[i].Incarnation
		if c.Replaces != "" && now != c.Replaces && now != b.Incarnation {
			return refuse(ErrStaleBroker, "broker %d is registered as incarnation %s, not %s", b.ID, now, settings.Shown(c.Replaces))
		}
		if was := next.brokers[i]; now == b.Incarnation && was.Outran(&b) {
			if was.Starts == b.Starts {
				return refuse(ErrOldDisk, "another run of broker %d was at age %d already, as this one is: one of the two is in a copy of the data folder", b.ID, b.Starts)
			}
			return refuse(ErrOldDisk, "the data folder of broker %d had come to age %d; this is a copy of it, at %d", b.ID, was.Starts, b.Starts)
		} else if was.Run == b.Run {
			b.Starts = max(b.Starts, was.Starts)
		}
		next.brokers = replaced(next.brokers, i, &b)
	case c.Replaces != "":
		return refuse(ErrStaleBroker, "broker %d is not registered, so incarnation %s cannot be replaced", b.ID, settings.Shown(c.Replaces))
	case len(next.brokers) == MaxBrokers:
		return refuse(ErrLimit, "the cluster has %d brokers, the most there may be", MaxBrokers)
	default:
		next.brokers = inserted(next.brokers, i, &b)
	}
	if next.ClusterID == "" {
		next.ClusterID = c.ClusterID
		next.level = max(b.MaxLevel, 1)
	}
	if b.Secured && next.level < 4 {
		return refuse(ErrLevel, "broker %d says that it has a certificate of the cluster's, which is at feature level %d and has none", b.ID, next.level)
	}
	next.lastBroker = max(next.lastBroker, b.ID)
	return nil
}

func validBroker(b *Broker) error {
	switch {
	case b.ID < 0:
		return refuse(ErrInvalidBroker, "broker id %d is negative", b.ID)
	case b.Incarnation == "" || len(b.Incarnation) > maxIncarnation || !text(b.Incarnation) || strings.ContainsAny(b.Incarnation, ". \t\r\n"):
		return refuse(ErrInvalidBroker, "broker %d: incarnation %q is empty, too long or has a dot or space in it", b.ID, settings.Shown(b.Incarnation))
	case b.Host == "" || !text(b.Host):
		return refuse(ErrInvalidBroker, "broker %d: host %q is empty or not a text of at most %d bytes", b.ID, settings.Shown(b.Host), maxText)
	case b.Port < 1 || b.Port > 65535:
		return refuse(ErrInvalidBroker, "broker %d: port %d is not between 1 and 65535", b.ID, b.Port)
	case b.MinLevel < 0 || b.MaxLevel < b.MinLevel || (b.MinLevel == 0) != (b.MaxLevel == 0):
		return refuse(ErrInvalidBroker, "broker %d: feature levels %d to %d", b.ID, b.MinLevel, b.MaxLevel)
	case len(b.Run) > maxIncarnation || !text(b.Run):
		return refuse(ErrInvalidBroker, "broker %d: the name of its run is too long or no text", b.ID)
	case len(b.Listeners) > maxListeners || !utf8.ValidString(b.Listeners) || !validListeners(b.Listeners):
		return refuse(ErrInvalidBroker, "broker %d: listeners %q are not NAME://HOST:PORT,… in the order of their names, %d bytes at most", b.ID, settings.Shown(b.Listeners), maxListeners)
	case !text(b.Rack):
		return refuse(ErrInvalidBroker, "broker %d: rack is not a text of at most %d bytes", b.ID, maxText)
	}
	return nil
}

func (c UnregisterBroker) apply(next *Image) error {
	i, ok := next.broker(c.ID)
	if !ok {
		return refuse(ErrUnknownBroker, "Broker ID %d is not currently registered", c.ID)
	}
	if now := next.brokers[i].Incarnation; c.Incarnation != "" && c.Incarnation != now {
		return refuse(ErrStaleBroker, "broker %d is registered as incarnation %s, not %s", c.ID, now, settings.Shown(c.Incarnation))
	}
	held := 0
	for _, t := range next.topics {
		for _, p := range t.Partitions {
			if slices.Contains(p.Replicas, c.ID) {
				held++
			}
		}
	}
	if held > 0 {
		return refuse(ErrBrokerInUse, "broker %d still holds %d replicas; `millrace cluster remove %d` moves them to other brokers first", c.ID, held, c.ID)
	}
	next.brokers = removed(next.brokers, i)
	if i, ok := next.config(c.ID); ok {
		next.size -= configSize(next.configs[i].values)
		next.configs = removed(next.configs, i)
	}
	if i, ok := next.block(c.ID); ok {
		next.blocks = removed(next.blocks, i)
	}
	return nil
}

func (c CreateTopic) apply(next *Image) error {
	if err := ValidateTopicName(c.Name); err != nil {
		return err
	}
	at, ok := next.topic(c.Name)
	if ok {
		return refuse(ErrTopicExists, "Topic '%s' already exists.", c.Name)
	}
	if strings.ContainsAny(c.Name, "._") {
		for _, t := range next.topics {
			if collides(t.Name, c.Name) {
				return refuse(ErrTopicCollision, "Topic '%s' collides with existing topic: %s", c.Name, t.Name)
			}
		}
	}
	if c.ID.reserved() {
		return refuse(ErrInvalidTopicID, "topic id %s is reserved", c.ID)
	}
	atID, ok := next.topicID(c.ID)
	if ok {
		return refuse(ErrInvalidTopicID, "topic id %s belongs to topic '%s'", c.ID, next.byID[atID].Name)
	}
	if len(c.Assignment) == 0 {
		return refuse(ErrInvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	if err := validConfig(c.Config); err != nil {
		return err
	}
	t := &Topic{ID: c.ID, Name: c.Name, Config: cloned(c.Config), Internal: c.Internal, Grow: c.Grow}
	if err := next.extend(t, c.Assignment); err != nil {
		return err
	}
	next.topics = inserted(next.topics, at, t)
	next.byID = inserted(next.byID, atID, t)
	return next.grow(topicSize(t))
}

func (c DeleteTopic) apply(next *Image) error {
	atID, ok := next.topicID(c.Topic)
	if !ok {
		return unknownTopic(c.Topic)
	}
	t := next.byID[atID]
	at, _ := next.topic(t.Name)
	next.byID = removed(next.byID, atID)
	next.topics = removed(next.topics, at)
	kept := make([]run, 0, len(next.groups))
	for _, r := range next.groups {
		if r.topic != t.ID {
			kept = append(kept, r)
		}
	}
	if len(kept) == 0 {
		kept = nil
	}
	next.groups = kept
	if next.level >= 2 {
		next.deleted = next.missing()
	}
	for _, p := range t.Partitions {
		next.replicas -= len(p.Replicas)
	}
	next.size -= topicSize(t)
	return nil
}

func (c CreatePartitions) apply(next *Image) error {
	old, ok := next.TopicByID(c.Topic)
	if !ok {
		return unknownTopic(c.Topic)
	}
	has := len(old.Partitions)
	switch {
	case int(c.Count) == has:
		return refuse(ErrInvalidPartitions, "Topic already has %d partition(s).", has)
	case int(c.Count) < has:
		return refuse(ErrInvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", old.Name, has, c.Count)
	case int(c.Count)-has != len(c.Assignment):
		return refuse(ErrInvalidAssignment, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", int(c.Count)-has, len(c.Assignment))
	}
	t := *old
	if err := next.extend(&t, c.Assignment); err != nil {
		return err
	}
	next.replace(&t)
	return next.grow(topicSize(&t) - topicSize(old))
}

// extend gives t, a topic that is not in the image yet, further partitions.
func (next *Image) extend(t *Topic, assignment [][]int32) error {
	had := len(t.Partitions)
	total := had + len(assignment)
	if total > MaxTopicPartitions {
		return refuse(ErrInvalidPartitions, "Topic '%s' would have %d partitions; a topic may have at most %d.", t.Name, total, MaxTopicPartitions)
	}
	added := 0
	for _, replicas := range assignment {
		if err := next.validReplicas(replicas); err != nil {
			return err
		}
		if len(replicas) != len(assignment[0]) {
			return refuse(ErrInvalidAssignment, "The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), len(assignment[0]))
		}
		added += len(replicas)
	}
	if room := len(next.brokers) * MaxBrokerReplicas; next.replicas+added > room {
		return refuse(ErrLimit, "Topic '%s' needs %d more replicas; the cluster holds %d and with %d broker(s) may hold at most %d.", t.Name, added, next.replicas, len(next.brokers), room)
	}
	partitions := make([]Partition, had, total)
	copy(partitions, t.Partitions)
	for i, replicas := range assignment {
		partitions = append(partitions, Partition{
			Group:     next.lastGroup + 1 + uint64(i),
			Replicas:  slices.Clone(replicas),
			Bootstrap: next.serverIDs(replicas),
		})
	}
	t.Partitions = partitions
	next.addRun(run{first: next.lastGroup + 1, count: int32(len(assignment)), start: int32(had), topic: t.ID})
	next.lastGroup += uint64(len(assignment))
	next.replicas += added
	return nil
}

// addRun adds a run whose groups are above all others, as part of the last one if it goes on there.
func (next *Image) addRun(r run) {
	if n := len(next.groups); n > 0 {
		last := next.groups[n-1]
		if last.topic == r.topic && last.first+uint64(last.count) == r.first && last.start+last.count == r.start {
			last.count += r.count
			next.groups = replaced(next.groups, n-1, last)
			return
		}
	}
	next.groups = inserted(next.groups, len(next.groups), r)
}

func (m *Image) validReplicas(replicas []int32) error {
	if len(replicas) == 0 {
		return refuse(ErrInvalidAssignment, "The manual partition assignment includes an empty replica list.")
	}
	if len(replicas) > MaxReplicas {
		return refuse(ErrInvalidReplication, "Replication factor %d is larger than %d, the most a partition may have.", len(replicas), MaxReplicas)
	}
	for i, id := range replicas {
		if slices.Contains(replicas[:i], id) {
			return refuse(ErrInvalidAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		}
		if _, ok := m.broker(id); !ok {
			return refuse(ErrInvalidAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		}
	}
	return nil
}

func (m *Image) serverIDs(replicas []int32) []string {
	ids := make([]string, len(replicas))
	for i, id := range replicas {
		at, _ := m.broker(id)
		ids[i] = m.brokers[at].ServerID()
	}
	return ids
}

func (c SetTopicConfig) apply(next *Image) error {
	old, ok := next.TopicByID(c.Topic)
	if !ok {
		return unknownTopic(c.Topic)
	}
	if err := unchanged(old.Config, c.Was); err != nil {
		return err
	}
	values, err := edited(old.Config, c.Set, c.Delete, c.Replace)
	if err != nil {
		return err
	}
	t := *old
	t.Config = values
	next.replace(&t)
	return next.grow(topicSize(&t) - topicSize(old))
}

func (c SetBrokerConfig) apply(next *Image) error {
	if _, ok := next.broker(c.Broker); !ok && c.Broker != 0 {
		return refuse(ErrUnknownBroker, "Broker ID %d is not currently registered", c.Broker)
	}
	if next.ClusterID == "" {
		return refuse(ErrNoCluster, "there is no cluster whose settings could be changed")
	}
	old := next.BrokerConfig(c.Broker)
	if err := unchanged(old, c.Was); err != nil {
		return err
	}
	values, err := edited(old, c.Set, c.Delete, c.Replace)
	if err != nil {
		return err
	}
	i, known := next.config(c.Broker)
	switch {
	case known && values == nil:
		next.configs = removed(next.configs, i)
	case known:
		next.configs = replaced(next.configs, i, brokerConfig{c.Broker, values})
	case values != nil:
		next.configs = inserted(next.configs, i, brokerConfig{c.Broker, values})
	}
	return next.grow(configSize(values) - configSize(old))
}

// unchanged refuses a change whose maker saw other settings than there are.
func unchanged(now map[string]string, was map[string]*string) error {
	for _, name := range slices.Sorted(maps.Keys(was)) {
		value, set := now[name]
		if seen := was[name]; set != (seen != nil) || set && value != *seen {
			return refuse(ErrConfigChanged, "%s was changed by somebody else in the meantime", settings.Shown(name))
		}
	}
	return nil
}

// edited is a new map, nil if it would be empty.
func edited(old, set map[string]string, unset []string, replace bool) (map[string]string, error) {
	values := make(map[string]string, len(old)+len(set))
	if !replace {
		maps.Copy(values, old)
	}
	for _, name := range unset {
		delete(values, name)
	}
	maps.Copy(values, set)
	if err := validConfig(values); err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, nil
	}
	return values, nil
}

// validConfig refuses settings that could not be stored. What they mean is Check's business.
func validConfig(values map[string]string) error {
	size := 0
	for _, name := range slices.Sorted(maps.Keys(values)) { // sorted: the message must be the same everywhere
		if name == "" || !text(name) {
			return refuse(ErrInvalidConfig, "The name of a setting must be a text of 1 to %d bytes.", maxText)
		}
		if !utf8.ValidString(values[name]) {
			return refuse(ErrInvalidConfig, "Invalid value for configuration %s: it is not UTF-8", settings.Shown(name))
		}
		size += len(name) + len(values[name])
	}
	if size > MaxConfigBytes {
		return refuse(ErrInvalidConfig, "The settings have %d bytes; at most %d are kept.", size, MaxConfigBytes)
	}
	return nil
}

func (c SetReplicas) apply(next *Image) error {
	old, ok := next.TopicByID(c.Partition.Topic)
	if !ok {
		return unknownTopic(c.Partition.Topic)
	}
	i := c.Partition.Index
	if i < 0 || int(i) >= len(old.Partitions) {
		return refuse(ErrUnknownPartition, "topic '%s' has %d partition(s), no partition %d", old.Name, len(old.Partitions), i)
	}
	if err := next.validReplicas(c.Replicas); err != nil {
		return err
	}
	added := len(c.Replicas) - len(old.Partitions[i].Replicas)
	if room := len(next.brokers) * MaxBrokerReplicas; added > 0 && next.replicas+added > room {
		return refuse(ErrLimit, "the cluster holds %d replicas and with %d broker(s) may hold at most %d", next.replicas, len(next.brokers), room)
	}
	t := *old
	t.Partitions = slices.Clone(old.Partitions)
	t.Partitions[i].Replicas = slices.Clone(c.Replicas)
	t.Grow = old.Grow && !c.Manual
	next.replicas += added
	next.replace(&t)
	return next.grow(topicSize(&t) - topicSize(old))
}

func (c AllocateProducerIDs) apply(next *Image) error {
	if _, ok := next.broker(c.Broker); !ok {
		return refuse(ErrUnknownBroker, "Broker ID %d is not currently registered", c.Broker)
	}
	if c.Count < 1 || c.Count > MaxBlock {
		return refuse(ErrInvalidBlock, "a block of %d producer ids was asked for; it may have 1 to %d", c.Count, MaxBlock)
	}
	if next.nextProducer > math.MaxInt64-int64(c.Count) {
		return refuse(ErrInvalidBlock, "producer ids are used up at %d", next.nextProducer)
	}
	block := brokerBlock{c.Broker, Block{Start: next.nextProducer, Count: c.Count}}
	if i, ok := next.block(c.Broker); ok {
		next.blocks = replaced(next.blocks, i, block)
	} else {
		next.blocks = inserted(next.blocks, i, block)
	}
	next.nextProducer += int64(c.Count)
	return nil
}

// replace puts t in the place of the topic with its name and id.
func (next *Image) replace(t *Topic) {
	i, _ := next.topic(t.Name)
	next.topics = replaced(next.topics, i, t)
	i, _ = next.topicID(t.ID)
	next.byID = replaced(next.byID, i, t)
}

// grow adds to the size of topics and settings. Getting smaller is always allowed.
func (next *Image) grow(bytes int) error {
	next.size += bytes
	if bytes > 0 && next.size > MaxImageBytes {
		return refuse(ErrLimit, "The metadata of all topics and settings would take %d bytes; it may take at most %d.", next.size, MaxImageBytes)
	}
	return nil
}

// topicSize bounds what Encode writes for a topic.
func topicSize(t *Topic) int {
	size := 160 + len(t.Name) + configSize(t.Config) // an id, two flags, punctuation
	for i := range t.Partitions {
		// Group and brackets; replicas of up to ten digits; numbers of server ids, of up to seven.
		size += 30 + 11*len(t.Partitions[i].Replicas) + 8*len(t.Partitions[i].Bootstrap)
	}
	return size
}

// configSize bounds what Encode writes for settings: of a topic, or with 40 bytes more of a broker.
func configSize(values map[string]string) int {
	if len(values) == 0 {
		return 0
	}
	size := 40
	for name, value := range values {
		size += jsonLen(name) + jsonLen(value) + 2
	}
	return size
}

// jsonLen bounds the length of s as a JSON string: any byte may become \u00xx.
func jsonLen(s string) int {
	n := 2
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == 0xe2: // U+2028 and U+2029 are escaped and begin with e2
			n += 6
		case c == '"' || c == '\\':
			n += 2
		default:
			n++
		}
	}
	return n
}

func unknownTopic(id TopicID) error {
	return refuse(ErrUnknownTopic, "This server does not host a topic with id %s.", id)
}

func cloned(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}

// text reports whether s can be kept and shown: short, UTF-8, no control characters.
func text(s string) bool {
	return len(s) <= maxText && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
