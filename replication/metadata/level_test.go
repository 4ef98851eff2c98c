package metadata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"millrace/replication/metadata/settings"
)

// upgraded registers a broker with a release that reads feature levels 1 to high.
func upgraded(id, high int32, starts uint64, run string) RegisterBroker {
	r := register(id)
	r.Broker.MinLevel, r.Broker.MaxLevel, r.Broker.Starts, r.Broker.Run = 1, high, starts, run
	return r
}

// atLevelTwo is an image that uses every part of the encoding of level 2.
func atLevelTwo(t testing.TB) *Image {
	return grown(t,
		upgraded(1, 2, 7, "abc"), upgraded(2, 2, 1, "def"),
		CreateTopic{ID: topicID(1), Name: "first", Assignment: [][]int32{{1, 2}, {2, 1}}},
		CreateTopic{ID: topicID(2), Name: "gone", Assignment: [][]int32{{1}, {1}, {1}}},
		CreateTopic{ID: topicID(3), Name: "last", Assignment: [][]int32{{2}}},
		DeleteTopic{Topic: topicID(2)},
		SetResourceConfig{Kind: settings.Group, Name: "billing", Set: map[string]string{"consumer.session.timeout.ms": "50000"}},
		SetResourceConfig{Kind: settings.ClientMetrics, Name: "all", Set: map[string]string{"interval.ms": "60000", "metrics": "org."}},
	)
}

// Level 2's bytes stay readable, as level 1's do: these files are never regenerated.
func TestLevelTwoIsReadForGood(t *testing.T) {
	frozen := func(name string, now []byte) []byte {
		path := filepath.Join("testdata", "v2", name)
		p, err := os.ReadFile(path)
		if os.IsNotExist(err) && *rewrite {
			p, err = now, os.WriteFile(path, now, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	want := atLevelTwo(t)
	m, err := DecodeImage(frozen("image.json", want.Encode()))
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("image: %#v, want %#v: %v", m, want, err)
	}
	for _, want := range []Change{
		upgraded(1, 2, 7, "abc"), SetLevel{Level: 2},
		SetResourceConfig{Kind: settings.Group, Name: "g\"", Set: map[string]string{"k": "v"}, Delete: []string{"d"}, Replace: true, Was: map[string]*string{"k": new("u"), "n": nil}},
	} {
		p, err := EncodeChange(want)
		if err != nil {
			t.Fatal(err)
		}
		c, err := DecodeChange(frozen(want.kind()+".json", p))
		if err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("change: %#v, want %#v: %v", c, want, err)
		}
	}
}

func TestImageNamesTheGroupsThatWereDeleted(t *testing.T) {
	m := atLevelTwo(t)
	for group, want := range map[uint64]bool{0: false, 1: false, 2: false, 3: true, 4: true, 5: true, 6: false, 7: false, 1 << 40: false} {
		if m.Deleted(group) != want {
			t.Errorf("group %d deleted: %v, want %v", group, !want, want)
		}
	}
	// Level 1 does not know, and raising it makes it known.
	old := grown(t, register(1),
		CreateTopic{ID: topicID(1), Name: "gone", Assignment: [][]int32{{1}}},
		CreateTopic{ID: topicID(2), Name: "there", Assignment: [][]int32{{1}}},
		DeleteTopic{Topic: topicID(1)})
	if old.Deleted(1) || old.Level() != 1 {
		t.Errorf("at level %d group 1 is deleted: %v", old.Level(), old.Deleted(1))
	}
	raised, err := old.Apply(old.Index+1, SetLevel{Level: 2})
	if err != nil || !raised.Deleted(1) || raised.Deleted(2) || raised.Level() != 2 {
		t.Errorf("raised to %d: group 1 deleted %v, group 2 %v, %v", raised.Level(), raised.Deleted(1), raised.Deleted(2), err)
	}
}

// Nothing is proposed that a broker of the cluster cannot read, and no broker joins
// that cannot read what is there.
func TestNothingIsWrittenAboveTheLevel(t *testing.T) {
	old := grown(t, register(1), register(2))
	if err := old.Check(upgraded(1, 2, 1, "a")); !errors.Is(err, ErrLevel) {
		t.Errorf("a registration of level 2 at level 1: %v", err)
	}
	if _, err := old.Apply(old.Index+1, SetResourceConfig{Kind: settings.Group, Name: "g", Set: map[string]string{"k": "v"}}); !errors.Is(err, ErrLevel) {
		t.Errorf("settings of a group at level 1: %v", err)
	}
	if err := old.Check(SetLevel{Level: 2}); err != nil {
		t.Errorf("raising the level: %v", err)
	}
	if err := old.Check(SetLevel{Level: MaxLevel + 1}); !errors.Is(err, ErrLevel) {
		t.Errorf("raising it above what this release reads: %v", err)
	}
	// A broker of the first release registers while the change is on its way.
	judged := SetLevel{Level: 2, Judged: old.Index}
	if err := old.Check(judged); err != nil {
		t.Errorf("raising it as it was judged: %v", err)
	}
	met, err := old.Apply(old.Index+1, register(9))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := met.Apply(met.Index+1, judged); !errors.Is(err, ErrLevel) || !strings.Contains(err.Error(), "judged by the image") {
		t.Errorf("raising it beside a broker that was not looked at: %v", err)
	}
	m := atLevelTwo(t)
	for _, c := range []struct {
		change Change
		text   string
	}{
		{register(3), "reads feature levels 1 to 1, the cluster is at 2"},
		{register(2), "reads feature levels 1 to 1, the cluster is at 2"},
		{SetLevel{Level: 2}, "at feature level 2 already"},
		{SetLevel{Level: 1}, "at feature level 2 already"},
		{SetLevel{Level: 3}, "broker 1 reads feature levels up to 2, not 3"},
	} {
		if _, err := m.Apply(m.Index+1, c.change); !errors.Is(err, ErrLevel) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%#v: %v, want %q", c.change, err, c.text)
		}
	}
	next := grown(t, upgraded(1, 3, 1, "a"), upgraded(2, 3, 1, "b"))
	if next.Level() != 3 {
		t.Errorf("founded at level %d, want 3", next.Level())
	}
}

// A folder that has come as far as the registered one or less, in another run, is a copy
// of it. Each start counts, whether it came to a registration or not.
func TestCopyOfADataFolderIsRefused(t *testing.T) {
	m := atLevelTwo(t) // broker 1: age 7, run abc
	for _, c := range []struct {
		starts uint64
		run    string
		want   error
	}{
		{7, "abc", nil}, // said again
		{6, "abc", nil}, // and late
		{8, "new", nil}, // the next start
		{11, "new", nil},
		{7, "other", ErrOldDisk}, // a clone that was started beside it
		{6, "other", ErrOldDisk}, // an old backup
		{1, "new", ErrOldDisk},
	} {
		next, err := m.Apply(m.Index+1, upgraded(1, 2, c.starts, c.run))
		if !errors.Is(err, c.want) {
			t.Errorf("age %d, run %s: %v, want %v", c.starts, c.run, err, c.want)
		}
		if b, _ := next.Broker(1); b.Starts < 7 {
			t.Errorf("age %d, run %s: the image goes back to %d", c.starts, c.run, b.Starts)
		}
	}
	fresh := upgraded(1, 2, 1, "new")
	fresh.Broker.Incarnation = "another"
	if _, err := m.Apply(m.Index+1, fresh); err != nil {
		t.Errorf("a new incarnation: %v", err)
	}
}

func TestImageThatContradictsItsLevelIsRefused(t *testing.T) {
	good := string(atLevelTwo(t).Encode())
	for _, c := range []struct{ what, old, new string }{
		{"a level of another version", `"level":2`, `"level":1`},
		{"no level", `"level":2,`, ``},
		{"level 2 in version 1", `"v":2`, `"v":1`},
		{"more groups than it accounts for", `"lastGroup":6`, `"lastGroup":1000000000`},
		{"a live group deleted", `"deleted":[[3,5]]`, `"deleted":[[3,6]]`},
		{"a deleted group not named", `"deleted":[[3,5]]`, `"deleted":[[3,4]]`},
		{"nothing deleted", `,"deleted":[[3,5]]`, ``},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("%s: %q is not in %s", c.what, c.old, good)
		}
		if m, err := DecodeImage([]byte(bad)); m != nil || !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if p := fmt.Sprint(DecodeChange([]byte(`{"v":1,"change":"SetLevel","body":{"Level":2}}`))); !strings.Contains(p, "version 2") {
		t.Errorf("a change of level 2 in version 1: %s", p)
	}
}

// atLevelThree is an image whose brokers tell clients where they are by listener.
func atLevelThree(t testing.TB) *Image {
	return grown(t, listening(1, "EXTERNAL://example.org:29092,INTERNAL://node-1:9092"), listening(2, "EXTERNAL://[::1]:29093,INTERNAL://node-2:9092"), upgraded(3, 3, 1, "ghi"))
}

func listening(id int32, listeners string) RegisterBroker {
	r := upgraded(id, 3, 7, "abc")
	r.Broker.Listeners = listeners
	return r
}

// Level 3's bytes stay readable, as level 2's do: these files are never regenerated.
func TestLevelThreeIsReadForGood(t *testing.T) {
	for name, want := range map[string]any{"image.json": atLevelThree(t), "RegisterBroker.json": listening(1, "EXTERNAL://example.org:29092,INTERNAL://node-1:9092")} {
		path := filepath.Join("testdata", "v3", name)
		p, err := os.ReadFile(path)
		if os.IsNotExist(err) && *rewrite {
			if m, ok := want.(*Image); ok {
				p = m.Encode()
			} else if p, err = EncodeChange(want.(Change)); err != nil {
				t.Fatal(err)
			}
			err = os.WriteFile(path, p, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if _, ok := want.(*Image); ok {
			got, err = DecodeImage(p)
		} else {
			got, err = DecodeChange(p)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, want %#v: %v", path, got, want, err)
		}
	}
	bad := strings.NewReplacer(`"v":3`, `"v":2`, `"level":3`, `"level":2`).Replace(string(atLevelThree(t).Encode()))
	if m, err := DecodeImage([]byte(bad)); m != nil || !errors.Is(err, ErrDamaged) {
		t.Errorf("listeners at feature level 2: %v", err)
	}
}

// A broker registers its listeners where every node can read them, and clients are
// told of the one they came in by; where a broker has none of that name, of its own.
func TestBrokersAreFoundByListener(t *testing.T) {
	old := grown(t, upgraded(1, 2, 7, "abc"))
	if err := old.Check(listening(1, "A://h:1")); !errors.Is(err, ErrLevel) {
		t.Errorf("a registration with listeners at level 2: %v", err)
	}
	m := atLevelThree(t)
	for _, c := range []struct {
		broker   int32
		listener string
		host     string
		port     int32
	}{
		{1, "EXTERNAL", "example.org", 29092}, {1, "INTERNAL", "node-1", 9092}, {2, "EXTERNAL", "::1", 29093},
		{1, "external", "", 0}, {1, "", "", 0}, {3, "EXTERNAL", "", 0},
	} {
		b, _ := m.Broker(c.broker)
		if c.host == "" {
			c.host, c.port = b.Host, b.Port
		}
		if host, port := b.At(c.listener); host != c.host || port != c.port {
			t.Errorf("broker %d by %q is at %s:%d, want %s:%d", c.broker, c.listener, host, port, c.host, c.port)
		}
	}
	for _, bad := range []string{"A", "A://h", "://h:1", "A://:1", "A://h:0", "A://h:65536", "B://h:1,A://h:1", "A://h:1,A://h:2", "A://h:1,", "A://" + strings.Repeat("h", maxListeners) + ":1"} {
		if err := m.Check(listening(1, bad)); !errors.Is(err, ErrInvalidBroker) {
			t.Errorf("listeners %.40q: %v", bad, err)
		}
	}
	all := JoinListeners([]Listener{{"INTERNAL", "node-1:9092"}, {"EXTERNAL", "example.org:29092"}})
	if all != "EXTERNAL://example.org:29092,INTERNAL://node-1:9092" || JoinListeners(nil) != "" {
		t.Errorf("joined: %s", all)
	}
}
