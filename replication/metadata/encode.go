package metadata

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"millrace/replication/metadata/settings"
)

// Both encodings are one JSON object whose first member is the version. A
// reader that meets another version refuses the whole, and so it does with a
// member it does not know: a field that was silently left out would make two
// nodes hold different images. The version is the feature level whose releases
// read it: see MaxLevel for who adds a field.
//
//	change   {"v":1,"change":"DeleteTopic","body":{"Topic":"…"}}
//	image    {"v":1,"image":{…}}
type changeEnvelope struct {
	Version int             `json:"v"`
	Change  string          `json:"change"`
	Body    json.RawMessage `json:"body"`
}

type imageEnvelope struct {
	Version int             `json:"v"`
	Image   json.RawMessage `json:"image"`
}

// EncodeChange writes c for the controller group's log and for other nodes.
// ErrLimit if that takes more than MaxChangeBytes.
func EncodeChange(c Change) ([]byte, error) {
	p := compact(changeEnvelope{Version: int(c.level()), Change: c.kind(), Body: compact(c)})
	if len(p) > MaxChangeBytes {
		return nil, refuse(ErrLimit, "a change of %d bytes is too large; split it, one may have %d", len(p), MaxChangeBytes)
	}
	return p, nil
}

// DecodeChange reads what EncodeChange wrote. p is not retained. ErrVersion if
// a newer release wrote it: a node that meets such a change in the log must
// stop there, because to go on without it would be to hold another image than
// the others. ErrDamaged if no release did.
func DecodeChange(p []byte) (Change, error) {
	var e changeEnvelope
	if err := envelope(p, &e, &e.Version, MaxLevel, "change"); err != nil {
		return nil, err
	}
	switch e.Change {
	case RegisterBroker{}.kind():
		return decodeBody[RegisterBroker](e)
	case UnregisterBroker{}.kind():
		return decodeBody[UnregisterBroker](e)
	case CreateTopic{}.kind():
		return decodeBody[CreateTopic](e)
	case DeleteTopic{}.kind():
		return decodeBody[DeleteTopic](e)
	case CreatePartitions{}.kind():
		return decodeBody[CreatePartitions](e)
	case SetTopicConfig{}.kind():
		return decodeBody[SetTopicConfig](e)
	case SetBrokerConfig{}.kind():
		return decodeBody[SetBrokerConfig](e)
	case SetReplicas{}.kind():
		return decodeBody[SetReplicas](e)
	case AllocateProducerIDs{}.kind():
		return decodeBody[AllocateProducerIDs](e)
	case SetResourceConfig{}.kind():
		return decodeBody[SetResourceConfig](e)
	case SetLevel{}.kind():
		return decodeBody[SetLevel](e)
	case RemoveBroker{}.kind():
		return decodeBody[RemoveBroker](e)
	case AlterUsers{}.kind():
		return decodeBody[AlterUsers](e)
	case AlterACLs{}.kind():
		return decodeBody[AlterACLs](e)
	case AlterQuotas{}.kind():
		return decodeBody[AlterQuotas](e)
	case SetAuthorities{}.kind():
		return decodeBody[SetAuthorities](e)
	case PutJoinToken{}.kind():
		return decodeBody[PutJoinToken](e)
	case UseJoinToken{}.kind():
		return decodeBody[UseJoinToken](e)
	case RemoveJoinToken{}.kind():
		return decodeBody[RemoveJoinToken](e)
	case PutDelegationToken{}.kind():
		return decodeBody[PutDelegationToken](e)
	case RemoveDelegationToken{}.kind():
		return decodeBody[RemoveDelegationToken](e)
	}
	return nil, refuse(ErrVersion, "this release does not know the change %q; a newer one wrote it, upgrade this node", settings.Shown(e.Change))
}

// CheckChange reports whether p can be a change of some release, this one or another:
// it is what DecodeChange refuses as ErrDamaged in all releases. p is not retained.
func CheckChange(p []byte) error {
	var e struct {
		Version int             `json:"v"`
		Change  string          `json:"change"`
		Body    json.RawMessage `json:"body"`
	}
	if len(p) > MaxChangeBytes || !utf8.Valid(p) {
		return refuse(ErrDamaged, "change of %d bytes is too long or not UTF-8", len(p))
	}
	if err := json.Unmarshal(p, &e); err != nil {
		return refuse(ErrDamaged, "change cannot be read: %v", err)
	}
	if e.Version < 1 || e.Change == "" || len(e.Body) == 0 {
		return refuse(ErrDamaged, "change of version %d, named %q, with a body of %d bytes", e.Version, settings.Shown(e.Change), len(e.Body))
	}
	return nil
}

func decodeBody[C Change](e changeEnvelope) (Change, error) {
	var c C
	if err := strict(e.Body, &c); err != nil {
		return nil, refuse(ErrDamaged, "change %s cannot be read: %v", e.Change, err)
	}
	if c.level() > int32(e.Version) {
		return nil, refuse(ErrDamaged, "change %s has members of version %d, and says it is of version %d", e.Change, c.level(), e.Version)
	}
	return c, nil
}

// envelope reads the outer object into e, whose version it checks before
// anything else of it is believed.
func envelope(p []byte, e any, version *int, known int, what string) error {
	var v struct {
		Version int `json:"v"`
	}
	if !utf8.Valid(p) {
		return refuse(ErrDamaged, "%s is not UTF-8", what)
	}
	if err := json.Unmarshal(p, &v); err != nil {
		return refuse(ErrDamaged, "%s cannot be read: %v", what, err)
	}
	switch {
	case v.Version > known:
		return refuse(ErrVersion, "%s has version %d, this release knows versions up to %d; upgrade this node", what, v.Version, known)
	case v.Version < 1:
		return refuse(ErrDamaged, "%s has no version", what)
	}
	if err := strict(p, e); err != nil {
		return refuse(ErrDamaged, "%s cannot be read: %v", what, err)
	}
	if *version != v.Version {
		return refuse(ErrDamaged, "%s has two versions", what)
	}
	return nil
}

func strict(p []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows after its end")
	}
	return nil
}

// compact encodes what cannot fail to encode: structs of this package.
func compact(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("metadata: encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// The image as written. What can be computed is left out and computed again:
// the order by id, the groups' runs, the sums. Partitions are arrays and server
// ids are numbered, because a partition is what there may be 100,000 of: it
// takes about 35 bytes so.
type imageBody struct {
	Index        uint64       `json:"index"`
	ClusterID    string       `json:"cluster"`
	LastBroker   int32        `json:"lastBroker"`
	LastGroup    uint64       `json:"lastGroup"`
	NextProducer int64        `json:"nextProducer"`
	Level        int32        `json:"level,omitempty"`   // from version 2 on
	Deleted      [][2]uint64  `json:"deleted,omitempty"` // first and last group of each run
	Brokers      []brokerBody `json:"brokers,omitempty"`
	Configs      []configBody `json:"configs,omitempty"`
	Servers      []string     `json:"servers,omitempty"` // what Bootstrap refers to, sorted
	Topics       []topicBody  `json:"topics,omitempty"`

	Resources []resourceBody `json:"resources,omitempty"` // from version 2 on

	accessBody // from version 4 on
}

type brokerBody struct {
	ID          int32  `json:"id"`
	Incarnation string `json:"incarnation"`
	Host        string `json:"host"`
	Port        int32  `json:"port"`
	Rack        string `json:"rack,omitempty"`
	BlockStart  int64  `json:"blockStart,omitempty"`
	BlockCount  int32  `json:"blockCount,omitempty"` // 0: never had a block
	MinLevel    int32  `json:"minLevel,omitempty"`
	MaxLevel    int32  `json:"maxLevel,omitempty"`
	Starts      uint64 `json:"starts,omitempty"`
	Run         string `json:"run,omitempty"`
	Listeners   string `json:"listeners,omitempty"` // from version 3 on
	Secured     bool   `json:"secured,omitempty"`   // from version 4 on
}

type configBody struct {
	Broker int32             `json:"broker"`
	Values map[string]string `json:"values"`
}

type resourceBody struct {
	Kind   settings.ResourceKind `json:"kind"`
	Name   string                `json:"name"`
	Values map[string]string     `json:"values"`
}

type topicBody struct {
	ID         TopicID           `json:"id"`
	Name       string            `json:"name"`
	Internal   bool              `json:"internal,omitempty"`
	Grow       bool              `json:"grow,omitempty"`
	Config     map[string]string `json:"config,omitempty"`
	Partitions []partitionBody   `json:"partitions"`
}

// A partitionBody is [group,[replicas…],[servers…]].
type partitionBody struct {
	group     uint64
	replicas  []int32
	bootstrap []int32
}

// MarshalJSON appends digits itself: reflection would take ten times as long for what there is most of.
func (p partitionBody) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 64)
	b = append(b, '[')
	b = strconv.AppendUint(b, p.group, 10)
	for _, list := range [][]int32{p.replicas, p.bootstrap} {
		b = append(b, ',', '[')
		for i, n := range list {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(n), 10)
		}
		b = append(b, ']')
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *partitionBody) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) != 3 {
		return fmt.Errorf("a partition has %d parts, must have 3", len(parts))
	}
	for i, into := range []any{&p.group, &p.replicas, &p.bootstrap} {
		if err := json.Unmarshal(parts[i], into); err != nil {
			return err
		}
	}
	return nil
}

// Encode writes the image. Equal images have equal encodings, so nodes may
// compare what they hold by its bytes.
func (m *Image) Encode() []byte {
	body := imageBody{
		Index: m.Index, ClusterID: m.ClusterID,
		LastBroker: m.lastBroker, LastGroup: m.lastGroup, NextProducer: m.nextProducer,
	}
	if m.level > 1 {
		body.Level = m.level
		for _, s := range m.deleted {
			body.Deleted = append(body.Deleted, [2]uint64{s.first, s.last})
		}
	}
	for _, b := range m.brokers {
		block, _ := m.ProducerBlock(b.ID)
		body.Brokers = append(body.Brokers, brokerBody{b.ID, b.Incarnation, b.Host, b.Port, b.Rack, block.Start, block.Count, b.MinLevel, b.MaxLevel, b.Starts, b.Run, b.Listeners, b.Secured})
	}
	for _, c := range m.configs {
		body.Configs = append(body.Configs, configBody{c.broker, c.values})
	}
	for _, r := range m.resources {
		body.Resources = append(body.Resources, resourceBody{r.kind, r.name, r.values})
	}
	body.accessBody = m.access.body()
	numbers := make(map[string]int32)
	for _, t := range m.topics {
		for i := range t.Partitions {
			for _, server := range t.Partitions[i].Bootstrap {
				numbers[server] = 0
			}
		}
	}
	for server := range numbers {
		body.Servers = append(body.Servers, server)
	}
	slices.Sort(body.Servers)
	for i, server := range body.Servers {
		numbers[server] = int32(i)
	}
	for _, t := range m.topics {
		partitions := make([]partitionBody, len(t.Partitions))
		for i := range t.Partitions {
			p := &t.Partitions[i]
			bootstrap := make([]int32, len(p.Bootstrap))
			for j, server := range p.Bootstrap {
				bootstrap[j] = numbers[server]
			}
			partitions[i] = partitionBody{p.Group, p.Replicas, bootstrap}
		}
		body.Topics = append(body.Topics, topicBody{t.ID, t.Name, t.Internal, t.Grow, t.Config, partitions})
	}
	return compact(imageEnvelope{Version: max(int(m.level), 1), Image: compact(body)})
}

// DecodeImage reads what Encode wrote. p is not retained. ErrVersion if a newer
// release wrote it, ErrDamaged if it is not a thing Apply could have made.
func DecodeImage(p []byte) (*Image, error) {
	var e imageEnvelope
	if err := envelope(p, &e, &e.Version, MaxLevel, "image"); err != nil {
		return nil, err
	}
	var body imageBody
	if err := strict(e.Image, &body); err != nil {
		return nil, refuse(ErrDamaged, "image cannot be read: %v", err)
	}
	m, err := body.image(e.Version)
	if err == nil && len(body.Resources) > 0 && e.Version < 2 {
		err = errors.New("settings of resources are in an image of version 1")
	}
	if err != nil {
		return nil, refuse(ErrDamaged, "image does not hold together: %v", err)
	}
	return m, nil
}

func (body *imageBody) image(version int) (*Image, error) {
	m := &Image{
		Index: body.Index, ClusterID: body.ClusterID,
		lastBroker: body.LastBroker, lastGroup: body.LastGroup, nextProducer: body.NextProducer,
	}
	switch {
	case version > 1:
		m.level = body.Level
	case body.Level != 0:
		return nil, fmt.Errorf("feature level %d in version 1", body.Level)
	case m.ClusterID != "":
		m.level = 1
	}
	if version > 1 && int(m.level) != version {
		return nil, fmt.Errorf("feature level %d in version %d", m.level, version)
	}
	if !text(m.ClusterID) {
		return nil, errors.New("cluster id is not a text")
	}
	if m.nextProducer < 0 {
		return nil, fmt.Errorf("next producer id is %d", m.nextProducer)
	}
	if err := body.brokers(m); err != nil {
		return nil, err
	}
	if err := body.configs(m); err != nil {
		return nil, err
	}
	if err := body.resources(m); err != nil {
		return nil, err
	}
	if err := body.accessBody.read(m, version); err != nil {
		return nil, err
	}
	if err := body.topics(m); err != nil {
		return nil, err
	}
	for _, s := range body.Deleted {
		m.deleted = append(m.deleted, span{s[0], s[1]})
	}
	// It is exactly what is missing, and is written because being missing is not enough.
	if want := m.missing(); m.level > 1 && !slices.Equal(m.deleted, want) || m.level <= 1 && m.deleted != nil {
		return nil, errors.New("the groups that it says were deleted are not those that are missing")
	}
	return m, nil
}

func (body *imageBody) brokers(m *Image) error {
	incarnations := make(map[string]bool)
	last := int32(0)
	for _, b := range body.Brokers {
		broker := &Broker{b.ID, b.Incarnation, b.Host, b.Port, b.Rack, b.MinLevel, b.MaxLevel, b.Starts, b.Run, b.Listeners, b.Secured}
		if err := validBroker(broker); err != nil {
			return err
		}
		switch {
		case b.Listeners != "" && m.level < 3:
			return fmt.Errorf("broker %d has listeners at feature level %d", b.ID, m.level)
		case b.Secured && m.level < 4:
			return fmt.Errorf("broker %d has a certificate at feature level %d", b.ID, m.level)
		case b.ID <= last:
			return fmt.Errorf("broker %d follows broker %d", b.ID, last)
		case b.ID > m.lastBroker:
			return fmt.Errorf("broker %d is above %d, the highest ever registered", b.ID, m.lastBroker)
		case incarnations[b.Incarnation]:
			return fmt.Errorf("incarnation %s is two brokers", b.Incarnation)
		case b.BlockCount == 0 && b.BlockStart != 0,
			b.BlockCount < 0, b.BlockCount > MaxBlock, b.BlockStart < 0, b.BlockStart > m.nextProducer-int64(b.BlockCount):
			return fmt.Errorf("broker %d has %d producer ids from %d on, the next is %d", b.ID, b.BlockCount, b.BlockStart, m.nextProducer)
		}
		last = b.ID
		incarnations[b.Incarnation] = true
		m.brokers = append(m.brokers, broker)
		if b.BlockCount > 0 {
			m.blocks = append(m.blocks, brokerBlock{b.ID, Block{b.BlockStart, b.BlockCount}})
		}
	}
	if len(m.brokers) > 0 && m.ClusterID == "" {
		return errors.New("there are brokers but no cluster id")
	}
	return nil
}

func (body *imageBody) configs(m *Image) error {
	last := int32(-1)
	for _, c := range body.Configs {
		_, known := m.broker(c.Broker)
		switch {
		case c.Broker <= last:
			return fmt.Errorf("settings of broker %d follow those of %d", c.Broker, last)
		case !known && c.Broker != 0:
			return fmt.Errorf("settings of broker %d, which is not registered", c.Broker)
		case len(c.Values) == 0:
			return fmt.Errorf("no settings of broker %d", c.Broker)
		}
		if err := validConfig(c.Values); err != nil {
			return err
		}
		last = c.Broker
		m.configs = append(m.configs, brokerConfig{c.Broker, c.Values})
		m.size += configSize(c.Values)
	}
	return nil
}

func (body *imageBody) resources(m *Image) error {
	for _, b := range body.Resources {
		r := resourceConfig{b.Kind, b.Name, b.Values}
		if err := validResource(r.kind, r.name); err != nil {
			return err
		}
		if n := len(m.resources); n > 0 && r.compare(m.resources[n-1]) <= 0 {
			return fmt.Errorf("settings of %s %s follow those of %s", r.kind, settings.Shown(r.name), settings.Shown(m.resources[n-1].name))
		}
		if len(r.values) == 0 {
			return fmt.Errorf("no settings of %s %s", r.kind, settings.Shown(r.name))
		}
		if err := validConfig(r.values); err != nil {
			return err
		}
		m.resources = append(m.resources, r)
		m.size += r.size()
		m.resourceBytes += r.size()
	}
	if len(m.resources) > 0 && m.ClusterID == "" {
		return errors.New("there are settings but no cluster id")
	}
	return nil
}

func (body *imageBody) topics(m *Image) error {
	for i, server := range body.Servers {
		if i > 0 && server <= body.Servers[i-1] {
			return fmt.Errorf("server id %s follows %s", server, body.Servers[i-1])
		}
		if err := validServerID(server); err != nil {
			return err
		}
	}
	for _, b := range body.Topics {
		t, err := b.topic(m, body.Servers)
		if err != nil {
			return fmt.Errorf("topic %s: %w", settings.Shown(b.Name), err)
		}
		if n := len(m.topics); n > 0 && t.Name <= m.topics[n-1].Name {
			return fmt.Errorf("topic %s follows %s", t.Name, m.topics[n-1].Name)
		}
		m.topics = append(m.topics, t)
		m.size += topicSize(t)
	}
	m.byID = slices.Clone(m.topics)
	slices.SortFunc(m.byID, func(a, b *Topic) int { return a.ID.compare(b.ID) })
	for i := 1; i < len(m.byID); i++ {
		if m.byID[i].ID == m.byID[i-1].ID {
			return fmt.Errorf("topics %s and %s have the same id", m.byID[i-1].Name, m.byID[i].Name)
		}
	}
	return m.number()
}

func (b *topicBody) topic(m *Image, servers []string) (*Topic, error) {
	t := &Topic{ID: b.ID, Name: b.Name, Internal: b.Internal, Grow: b.Grow}
	if err := ValidateTopicName(b.Name); err != nil {
		return nil, err
	}
	if b.ID.reserved() {
		return nil, errors.New("its id is reserved")
	}
	if err := validConfig(b.Config); err != nil {
		return nil, err
	}
	if len(b.Config) > 0 {
		t.Config = b.Config
	}
	if n := len(b.Partitions); n == 0 || n > MaxTopicPartitions {
		return nil, fmt.Errorf("it has %d partitions", n)
	}
	t.Partitions = make([]Partition, len(b.Partitions))
	for i, p := range b.Partitions {
		if err := m.validReplicas(p.replicas); err != nil {
			return nil, fmt.Errorf("partition %d: %w", i, err)
		}
		if len(p.bootstrap) == 0 || len(p.bootstrap) > MaxReplicas {
			return nil, fmt.Errorf("partition %d began with %d members", i, len(p.bootstrap))
		}
		bootstrap := make([]string, len(p.bootstrap))
		for j, n := range p.bootstrap {
			if n < 0 || int(n) >= len(servers) {
				return nil, fmt.Errorf("partition %d began with server %d of %d", i, n, len(servers))
			}
			bootstrap[j] = servers[n]
		}
		t.Partitions[i] = Partition{Group: p.group, Replicas: p.replicas, Bootstrap: bootstrap}
		m.replicas += len(p.replicas)
	}
	return t, nil
}

// number makes the table of groups, in which Apply would have put the same runs:
// two of the same topic that touch in both numberings are one.
func (m *Image) number() error {
	var runs []run
	for _, t := range m.topics {
		for i := range t.Partitions {
			group := t.Partitions[i].Group
			if group == 0 || group > m.lastGroup {
				return fmt.Errorf("partition %d of topic %s is group %d, the last is %d", i, t.Name, group, m.lastGroup)
			}
			if n := len(runs); i > 0 && runs[n-1].first+uint64(runs[n-1].count) == group {
				runs[n-1].count++
				continue
			}
			runs = append(runs, run{first: group, count: 1, start: int32(i), topic: t.ID})
		}
	}
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(runs); i++ {
		if runs[i-1].first+uint64(runs[i-1].count) > runs[i].first {
			return fmt.Errorf("group %d is two partitions", runs[i].first)
		}
	}
	m.groups = runs
	return nil
}

func validServerID(s string) error {
	node, incarnation, ok := strings.Cut(s, ".")
	id, err := strconv.ParseInt(node, 10, 32)
	if !ok || err != nil || id < 1 || strconv.FormatInt(id, 10) != node || incarnation == "" || len(incarnation) > maxIncarnation || !text(incarnation) {
		return fmt.Errorf("%q is not a server id", settings.Shown(s))
	}
	return nil
}
