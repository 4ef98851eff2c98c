package metadata

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"millrace/replication/metadata/settings"
)

var rewrite = flag.Bool("rewrite", false, "write files of testdata that are missing")

// everything is an image that uses every part of the encoding.
func everything(t testing.TB) *Image {
	return grown(t,
		register(1, "a"), register(2, "b"), register(3),
		CreateTopic{ID: topicID(2), Name: "orders", Assignment: [][]int32{{1, 2, 3}, {2, 3, 1}}, Config: map[string]string{"retention.ms": "-1", "cleanup.policy": "compact,delete"}, Grow: true},
		CreateTopic{ID: topicID(1), Name: "__consumer_offsets", Assignment: [][]int32{{3, 1}}, Internal: true},
		CreateTopic{ID: topicID(3), Name: "gone", Assignment: [][]int32{{1}}},
		RegisterBroker{Broker: Broker{ID: 2, Incarnation: "second", Host: "::1", Port: 9093, Rack: "b"}},
		CreatePartitions{Topic: topicID(2), Count: 3, Assignment: [][]int32{{3, 2, 1}}},
		DeleteTopic{Topic: topicID(3)},
		SetReplicas{Partition: PartitionID{topicID(1), 0}, Replicas: []int32{1, 2, 3}},
		SetBrokerConfig{Set: map[string]string{"log.retention.ms": "1000"}},
		SetBrokerConfig{Broker: 3, Set: map[string]string{"log.cleaner.threads": "2"}},
		AllocateProducerIDs{Broker: 2, Count: 1000},
		AllocateProducerIDs{Broker: 3, Count: 1000},
	)
}

// changes has one of each kind, with all fields set.
var changes = []Change{
	RegisterBroker{Broker: Broker{ID: 1, Incarnation: "i", Host: "h", Port: 2, Rack: "r"}, ClusterID: "c", Replaces: "j"},
	UnregisterBroker{ID: 1, Incarnation: "i"},
	CreateTopic{ID: topicID(1), Name: "n", Assignment: [][]int32{{1, 2}, {2, 1}}, Config: map[string]string{"k": "<v>"}, Internal: true, Grow: true},
	DeleteTopic{Topic: topicID(1)},
	CreatePartitions{Topic: topicID(1), Count: 3, Assignment: [][]int32{{1}}},
	SetTopicConfig{Topic: topicID(1), Set: map[string]string{"k": "v"}, Delete: []string{"d"}, Replace: true, Was: map[string]*string{"k": new("u"), "n": nil}},
	SetResourceConfig{Kind: settings.Group, Name: "g\"", Set: map[string]string{"k": "v"}, Delete: []string{"d"}, Replace: true, Was: map[string]*string{"k": new("u"), "n": nil}},
	SetBrokerConfig{Broker: 4, Set: map[string]string{"k": "v"}, Delete: []string{"d"}, Replace: true, Was: map[string]*string{"k": new("u"), "n": nil}},
	SetReplicas{Partition: PartitionID{topicID(1), 5}, Replicas: []int32{1, 2}, Manual: true},
	AllocateProducerIDs{Broker: 1, Count: 1000},
	SetLevel{Level: 2, Judged: 7},
	RemoveBroker{ID: 1, Incarnation: "i", Moves: []Move{{PartitionID{topicID(1), 5}, []int32{1, 2}}}, Judged: 7},
	AlterUsers{Upsert: []User{alice}, Delete: []string{"bob"}, Judged: 7},
	AlterACLs{Add: entries, Remove: entries[:1]},
	AlterQuotas{Quotas: []QuotaChange{{QuotaEntity{User: new("a\"")}, map[string]float64{ProducerByteRate: 1048576, RequestPercentage: 0.1}, []string{ConsumerByteRate}}, {QuotaEntity: QuotaEntity{IP: new("")}, Delete: []string{ConnectionCreationRate}}}},
	SetAuthorities{Authorities: authorities, Secret: clusterSecret, Judged: 7},
	PutJoinToken{Token: joinToken, At: 500},
	UseJoinToken{ID: "j1", At: 600, By: "inc"},
	RemoveJoinToken{ID: "j1"},
	PutDelegationToken{Token: delegation, Renews: true},
	RemoveDelegationToken{ID: "d1"},
}

func TestEveryChangeSurvivesEncoding(t *testing.T) {
	for _, c := range changes {
		p, err := EncodeChange(c)
		if err != nil {
			t.Fatalf("%s: %v", c.kind(), err)
		}
		got, err := DecodeChange(p)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s became %#v, want %#v: %v", p, got, c, err)
		}
		for i := range reflect.ValueOf(c).NumField() {
			if reflect.ValueOf(c).Field(i).IsZero() {
				t.Errorf("%s: field %s is zero, so this test does not cover it", c.kind(), reflect.TypeOf(c).Field(i).Name)
			}
		}
	}
}

// The first release's bytes stay readable: these files are never regenerated,
// and a new version gets files of its own.
func TestVersionOneIsReadForGood(t *testing.T) {
	frozen := func(name string, now []byte) []byte {
		path := filepath.Join("testdata", name)
		p, err := os.ReadFile(path)
		if os.IsNotExist(err) && *rewrite {
			p, err = now, os.WriteFile(path, now, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	want := everything(t)
	m, err := DecodeImage(frozen("v1/image.json", want.Encode()))
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("image: %#v, want %#v: %v", m, want, err)
	}
	for _, want := range changes {
		if want.level() > 1 {
			continue
		}
		p, err := EncodeChange(want)
		if err != nil {
			t.Fatal(err)
		}
		c, err := DecodeChange(frozen("v1/"+want.kind()+".json", p))
		if err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("change: %#v, want %#v: %v", c, want, err)
		}
	}
}

func TestBytesOfAnotherVersionAreRefusedWithASentence(t *testing.T) {
	for _, c := range []struct{ bytes, text string }{
		{`{"v":9,"change":"DeleteTopic","body":{}}`, "change has version 9, this release knows versions up to 4; upgrade this node"},
		{`{"v":9,"anything":"else"}`, "change has version 9, this release knows versions up to 4; upgrade this node"},
		{`{"v":1,"change":"Sing","body":{}}`, `this release does not know the change "Sing"; a newer one wrote it, upgrade this node`},
	} {
		if _, err := DecodeChange([]byte(c.bytes)); !errors.Is(err, ErrVersion) || err.Error() != c.text {
			t.Errorf("%s: %v", c.bytes, err)
		}
	}
	if _, err := DecodeImage([]byte(`{"v":9,"image":{}}`)); !errors.Is(err, ErrVersion) || err.Error() != "image has version 9, this release knows versions up to 4; upgrade this node" {
		t.Errorf("image: %v", err)
	}
}

func TestDamagedChangeIsRefused(t *testing.T) {
	for _, p := range []string{
		``, `null`, `[]`, `{}`, `{"v":0}`, `{"v":-1}`, `{"v":"1"}`, `{"v":1}x`,
		`{"v":1,"change":"DeleteTopic"}`,
		`{"v":1,"change":"DeleteTopic","body":{"Topic":"short"}}`,
		`{"v":1,"change":"DeleteTopic","body":{"Topic":"AAAAAAAAAAAAAAAAAAAAA!"}}`,
		`{"v":1,"change":"DeleteTopic","body":{"Topic":"AAAAAAAAAAAAAAAAAAAAAB"}}`, // bits that mean nothing are set
		`{"v":1,"change":"DeleteTopic","body":{"Topik":"AAAAAAAAAAAAAAAAAAAAAA"}}`,
		`{"v":1,"change":"DeleteTopic","body":{},"more":1}`,
		`{"v":1,"change":"DeleteTopic","body":{}}{}`,
		`{"v":1,"change":"SetReplicas","body":{"Replicas":[2147483648]}}`,
		`{"v":1,"change":"SetReplicas","body":[1]}`,
		"{\"v\":1,\"change\":\"CreateTopic\",\"body\":{\"Name\":\"\xff\"}}",
	} {
		if c, err := DecodeChange([]byte(p)); c != nil || !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %#v, %v", p, c, err)
		}
	}
}

// Each row damages one thing of a good image, and no image may come of it.
func TestDamagedImageIsRefused(t *testing.T) {
	good := string(everything(t).Encode())
	for _, c := range []struct{ what, old, new string }{
		{"no version", `"v":1`, `"v":0`},
		{"no image", `"image":{`, `"omage":{`},
		{"unknown member", `"index":`, `"index":1,"index2":`},
		{"no cluster id", testCluster, ``},
		{"negative producer id", `"nextProducer":2000`, `"nextProducer":-2`},
		{"producer ids given twice", `"nextProducer":2000`, `"nextProducer":1500`},
		{"block too large", `"blockCount":1000`, `"blockCount":1000001`},
		{"negative block", `"blockCount":1000`, `"blockCount":-1`},
		{"broker above the highest", `"lastBroker":3`, `"lastBroker":2`},
		{"broker twice", `"id":2,"incarnation"`, `"id":1,"incarnation"`},
		{"broker 0", `"id":1,"incarnation"`, `"id":0,"incarnation"`},
		{"incarnation twice", `"incarnation":"i3"`, `"incarnation":"i1"`},
		{"no host", `"host":"host1"`, `"host":""`},
		{"port 0", `"port":9093`, `"port":0`},
		{"settings of a stranger", `"broker":3`, `"broker":4`},
		{"settings out of order", `"broker":0`, `"broker":3`},
		{"no settings", `"values":{"log.cleaner.threads":"2"}`, `"values":{}`},
		{"setting without a name", `"log.cleaner.threads"`, `""`},
		{"server ids out of order", `"1.i1","2.i2"`, `"2.i2","1.i1"`},
		{"server id without incarnation", `"1.i1"`, `"1."`},
		{"server id of no node", `"1.i1"`, `"+1.i1"`},
		{"topics out of order", `"__consumer_offsets"`, `"z"`},
		{"topic name", `"__consumer_offsets"`, `"__consumer/offsets"`},
		{"topic id twice", topicID(2).String(), topicID(1).String()},
		{"topic id reserved", topicID(2).String(), TopicID{}.String()},
		{"group 0", `[[3,[1,2,3]`, `[[0,[1,2,3]`},
		{"group twice", `[2,[2,3,1]`, `[1,[2,3,1]`},
		{"group above the last", `"lastGroup":5`, `"lastGroup":4`},
		{"group negative", `[2,[2,3,1]`, `[-2,[2,3,1]`},
		{"replica twice", `[2,[2,3,1]`, `[2,[2,3,2]`},
		{"replica unknown", `[2,[2,3,1]`, `[2,[2,3,9]`},
		{"no replicas", `[2,[2,3,1]`, `[2,[]`},
		{"no members to begin with", `[2,[2,3,1],[1,3,0]]`, `[2,[2,3,1],[]]`},
		{"member that is not in the list", `[2,[2,3,1],[1,3,0]]`, `[2,[2,3,1],[1,3,9]]`},
		{"partition too short", `[2,[2,3,1],[1,3,0]]`, `[2,[2,3,1]]`},
		{"partition too long", `[2,[2,3,1],[1,3,0]]`, `[2,[2,3,1],[1,3,0],0]`},
		{"more after it", `}}`, `}} {}`},
	} {
		t.Run(c.what, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.new, 1)
			if c.what == "more after it" {
				bad = good + " {}"
			}
			if bad == good {
				t.Fatalf("%q is not in %s", c.old, good)
			}
			if m, err := DecodeImage([]byte(bad)); m != nil || !errors.Is(err, ErrDamaged) {
				t.Errorf("image %v, error %v", m, err)
			}
		})
	}
	for n := range len(good) {
		if m, err := DecodeImage([]byte(good[:n])); m != nil || err == nil {
			t.Fatalf("the first %d bytes are an image", n)
		}
	}
}

func TestReasonsSurviveTheNetwork(t *testing.T) {
	for code, reason := range codes {
		if code == 0 {
			if reason != nil {
				t.Fatal("code 0 means no error")
			}
			continue
		}
		here := fmt.Errorf("propose: %w", refuse(reason, "what happened"))
		if got := ErrorCode(here); got != uint16(code) {
			t.Errorf("%v has code %d, want %d", reason, got, code)
		}
		far := ErrorFrom(ErrorCode(here), here.Error())
		for _, other := range codes[1:] {
			if errors.Is(here, other) != errors.Is(far, other) {
				t.Errorf("%v is %v: here %v, far away %v", reason, other, errors.Is(here, other), errors.Is(far, other))
			}
		}
		if far.Error() != here.Error() {
			t.Errorf("says %q, want %q", far, here)
		}
	}
	if ErrorCode(nil) != 0 || ErrorFrom(0, "ignored") != nil {
		t.Error("nil does not stay nil")
	}
	foreign := errors.New("disk on fire")
	if far := ErrorFrom(ErrorCode(foreign), foreign.Error()); far == nil || far.Error() != "disk on fire" || ErrorCode(far) != codeOther {
		t.Errorf("an error of another package became %v", far)
	}
	if far := ErrorFrom(999, "from the future"); far == nil || far.Error() != "from the future" || errors.Unwrap(far) != nil {
		t.Errorf("an unknown code became %v", far)
	}
}

func TestChangeTooLargeForAnEntryIsRefused(t *testing.T) {
	c := CreateTopic{ID: topicID(1), Name: "a"}
	for range MaxTopicPartitions {
		c.Assignment = append(c.Assignment, []int32{2000000001, 2000000002, 2000000003, 2000000004, 2000000005, 2000000006, 2000000007, 2000000008, 2000000009, 2000000010, 2000000011, 2000000012, 2000000013, 2000000014, 2000000015, 2000000016, 2000000017, 2000000018, 2000000019, 2000000020})
	}
	if p, err := EncodeChange(c); p != nil || !errors.Is(err, ErrLimit) {
		t.Errorf("%d bytes, %v", len(p), err)
	}
}

func TestImageThatWouldNotFitASnapshotIsRefused(t *testing.T) {
	m := three(t)
	value := strings.Repeat("\x01", MaxConfigBytes-1) // the dearest there is: six bytes each
	for i := range byte(100) {
		c := CreateTopic{ID: topicID(i + 1), Name: fmt.Sprintf("t%d", i), Assignment: [][]int32{{1}}, Config: map[string]string{"k": value}}
		next, err := m.Apply(m.Index+1, c)
		if errors.Is(err, ErrLimit) {
			if n := len(m.Encode()); n < MaxImageBytes/2 || n > MaxImageBytes+1000 {
				t.Errorf("refused at %d bytes", n)
			}
			m = apply(t, m, DeleteTopic{Topic: topicID(1)})
			apply(t, m, c)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		m = next
	}
	t.Errorf("the image takes %d bytes and was not refused", len(m.Encode()))
}

func FuzzDecodeChange(f *testing.F) {
	for _, c := range changes {
		p, err := EncodeChange(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Add([]byte(`{"v":2}`))
	base := everything(f)
	before := base.Encode()
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := DecodeChange(p)
		if err != nil {
			if c != nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatalf("%v, %v", c, err)
			}
			return
		}
		once, err := EncodeChange(c)
		if errors.Is(err, ErrLimit) {
			return
		}
		again, err2 := DecodeChange(once)
		if err != nil || err2 != nil {
			t.Fatalf("%q became %q: %v, %v", p, once, err, err2)
		}
		m1, err := base.Apply(base.Index+1, c)
		m2, err2 := base.Apply(base.Index+1, again)
		if fmt.Sprint(err) != fmt.Sprint(err2) || !bytes.Equal(m1.Encode(), m2.Encode()) {
			t.Fatalf("%q and %q differ: %v, %v", p, once, err, err2)
		}
		if !bytes.Equal(before, base.Encode()) {
			t.Fatalf("%q changed the image it was applied to", p)
		}
		consistent(t, m1)
		if gate := base.Check(c); gate == nil && err != nil {
			t.Fatalf("%q passed the gate and was refused: %v", p, err)
		}
	})
}

func FuzzDecodeImage(f *testing.F) {
	f.Add(everything(f).Encode())
	f.Add(new(Image).Encode())
	f.Add(three(f).Encode())
	f.Add(atLevelFour(f).Encode())
	f.Add(secured(f).Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := DecodeImage(p)
		if err != nil {
			if m != nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatalf("%v, %v", m, err)
			}
			return
		}
		again, err := DecodeImage(m.Encode())
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%#v became %#v: %v", m, again, err)
		}
		consistent(t, m)
		for _, topic := range m.Topics() {
			m.Settings(0, nil).Topic(topic.Config)
			m.Settings(0, nil).DescribeTopic(topic.Config)
		}
		m.Settings(1, nil).Broker()
	})
}

func BenchmarkEncodeImage(b *testing.B) {
	p := large(b).Encode()
	b.SetBytes(int64(len(p)))
	m, err := DecodeImage(p)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			m.Encode()
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := DecodeImage(p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("step", func(b *testing.B) {
		id := m.Topics()[17].ID
		for b.Loop() {
			if _, err := m.Apply(m.Index+1, SetTopicConfig{Topic: id, Set: map[string]string{"a": "b"}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("settings", func(b *testing.B) {
		topic := m.Topics()[17]
		for b.Loop() {
			m.Settings(0, nil).Topic(topic.Config)
		}
	})
}

// large has as many partitions as nine brokers may hold three replicas of: 12,000 in 4,000 topics.
func large(t testing.TB) *Image {
	m := grown(t, register(1), register(2), register(3), register(4), register(5), register(6), register(7), register(8), register(9))
	for i := range 4000 {
		placed, err := Place(m.Brokers(), 3, 3, i)
		if err != nil {
			t.Fatal(err)
		}
		m = apply(t, m, CreateTopic{ID: TopicID{1, byte(i >> 8), byte(i)}, Name: fmt.Sprintf("topic-%d", i), Assignment: placed})
	}
	return m
}
