package millrace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/replication/metadata"
	"millrace/security/sasl"
)

func TestConfigsThatMeanNothingStartNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for want, cfg := range map[string]Config{
		"names no DataDir":                        {},
		"exclude each other":                      {DataDir: "x", Ephemeral: true},
		"has Listeners besides Listen":            {Ephemeral: true, Listen: ":0", Listeners: []Listener{{}}},
		"two listeners called A":                  {Ephemeral: true, Listeners: []Listener{{Name: "A"}, {Name: "A"}}},
		"InterBroker is C":                        {Ephemeral: true, InterBroker: "C"},
		"setting num.partitions=many: it is":      {Ephemeral: true, Settings: map[string]string{"num.partitions": "many"}},
		"log.retention.ms=x: it is a whole numbe": {Ephemeral: true, Settings: map[string]string{"num.partitions": "many", "log.retention.ms": "x"}},
		"open ":                            {Ephemeral: true, Advertise: "nowhere"},
		"open the file of millrace.audit.": {Ephemeral: true, Settings: map[string]string{"millrace.audit.log.path": filepath.Join(t.TempDir(), "none", "audit.log")}},
		"Users has user a twice":           {Ephemeral: true, Users: []UserSecret{{"a", "x"}, {"a", "y"}}},
		"the password of a: it is empty":   {Ephemeral: true, Users: []UserSecret{{"a", ""}}},
		"the password of a: it has 1025 b": {Ephemeral: true, Users: []UserSecret{{"a", strings.Repeat("x", 1025)}}},
		"the password of a: it is no text": {Ephemeral: true, Users: []UserSecret{{"a", "x\x00y"}}},
		"Username must not be empty":       {Ephemeral: true, Users: []UserSecret{{"", "x"}}},
		"choose another name than a;b":     {Ephemeral: true, Users: []UserSecret{{"a;b", "x"}}},
	} {
		b, err := Start(t.Context(), cfg)
		if err == nil {
			b.Shutdown(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want an error with %q", cfg, err, want)
		}
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
}

// What clients change is in the file that is named for it.
func TestChangesAreWrittenToTheAuditLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	b, err := Start(t.Context(), Config{Ephemeral: true, Settings: map[string]string{"millrace.audit.log.path": path}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Error(err)
	}
	if err := b.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(path)
	if want := `"event":"changed","principal":"User:ANONYMOUS","host":"127.0.0.1","client":"kgo","request":"CreateTopics","subject":"create topic orders","outcome":"succeeded"}` + "\n"; err != nil || !strings.HasSuffix(string(text), want) {
		t.Errorf("%s, %v\nwant %s", text, err, want)
	}
}

func TestAnAddressInUseIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = Start(t.Context(), Config{Ephemeral: true, Listeners: []Listener{{Name: "A"}, {Name: "B", Listen: taken.Addr().String()}}})
	var unheard *ListenError
	if !errors.As(err, &unheard) || unheard.Addr != taken.Addr().String() || unheard.Unwrap() == nil {
		t.Errorf("%v", err)
	}
}

// A broker with several listeners registers those that clients may use, and is described
// as it is.
func TestABrokerHasSeveralListeners(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	b, err := Start(t.Context(), Config{
		DataDir: dir, Rack: "r1", InterBroker: "OUTSIDE",
		Listeners: []Listener{{Name: "INSIDE", Advertise: "node:1"}, {Name: "OUTSIDE"}, {Name: "CONTROLLER", Hidden: true}},
		Settings:  map[string]string{"log.retention.ms": "7d", "advertised.listeners": "X://other:1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Shutdown(t.Context())
	at := b.Listeners()
	if want := []metadata.Listener{{Name: "INSIDE", Address: "node:1"}, {Name: "OUTSIDE", Address: at[1].Listen}}; !slices.Equal(b.registered(), want) {
		t.Errorf("registers %+v, want %+v", b.registered(), want)
	}
	if b.Addr() != at[1].Listen || b.Advertised() != at[1].Listen || b.DataDir() != dir || b.ID() != 1 || len(b.ClusterID()) != 22 {
		t.Errorf("at %s, advertised %s, data in %s, node %d of %q", b.Addr(), b.Advertised(), b.DataDir(), b.ID(), b.ClusterID())
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	described, err := kadm.NewClient(client).DescribeBrokerConfigs(t.Context(), 1)
	if err != nil || len(described) != 1 || described[0].Err != nil {
		t.Fatalf("%+v, %v", described, err)
	}
	want := map[string]string{
		"listeners":            "INSIDE://" + at[0].Listen + ",OUTSIDE://" + at[1].Listen + ",CONTROLLER://" + at[2].Listen,
		"advertised.listeners": "INSIDE://node:1", "broker.rack": "r1", "log.dirs": dir, "log.retention.ms": "604800000",
	}
	for _, c := range described[0].Configs {
		if value, ok := want[c.Key]; ok && c.MaybeValue() != value {
			t.Errorf("%s=%s, want %s", c.Key, c.MaybeValue(), value)
		}
		delete(want, c.Key)
	}
	if len(want) > 0 {
		t.Errorf("not described: %q", slices.Collect(maps.Keys(want)))
	}
	// Nobody speaks at the first, and metadata tells its clients of its address.
	inside, err := kgo.NewClient(kgo.SeedBrokers(at[0].Listen))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	brokers, err := kadm.NewClient(inside).ListBrokers(t.Context())
	if err != nil || len(brokers) != 1 || brokers[0].Host != "node" || brokers[0].Port != 1 {
		t.Errorf("clients of INSIDE are told of %+v, %v", brokers, err)
	}
}

func TestABrokerRegistersUnderAnAddressOthersCanReach(t *testing.T) {
	for _, listening := range []string{"127.0.0.1:9092", "[::1]:9092", "10.0.0.7:1"} {
		if got := reachable(listening); got != listening {
			t.Errorf("listening on %s it registers as %s", listening, got)
		}
	}
	for _, listening := range []string{"0.0.0.0:9092", "[::]:9092"} {
		if got := reachable(listening); strings.HasPrefix(got, "0.0.0.0") || strings.HasPrefix(got, "[::]") || !strings.HasSuffix(got, ":9092") {
			t.Errorf("listening on %s it registers as %s", listening, got)
		}
	}
}

// What was written is there when a broker is started again on its folder.
func TestABrokerGoesOnWithItsFolder(t *testing.T) {
	dir := t.TempDir()
	for round := range 2 {
		b, err := Start(t.Context(), Config{DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("t"), kgo.ConsumeTopics("t"))
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if err := client.ProduceSync(t.Context(), kgo.StringRecord("kept")).FirstErr(); err != nil {
				t.Fatal(err)
			}
		} else if r := client.PollFetches(t.Context()).Records(); len(r) != 1 || string(r[0].Value) != "kept" {
			t.Errorf("consumed %v", r)
		}
		client.Close()
		if err := b.Err(); err != nil {
			t.Error(err)
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-b.Done()
		if err := b.Err(); err != nil {
			t.Errorf("after Shutdown: %v", err)
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("again: %v", err)
		}
	}
}

// A broker that waits for a cluster to join can be told to stop.
func TestAStartCanBeGivenUp(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan struct{})
	go func() {
		if conn, err := nobody.Accept(); err == nil { // it asks to join
			conn.Close()
		}
		close(listening)
		cancel()
	}()
	var said strings.Builder
	b, err := Start(ctx, Config{DataDir: t.TempDir(), Join: []string{nobody.Addr().String()}, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if b != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", b, err)
	}
	<-listening
	if !strings.Contains(said.String(), "msg=stopped") {
		t.Errorf("it does not say that it stopped: %s", said.String())
	}
}

// A cluster that is founded with users has them before anybody can come in, and the first
// may do everything. They are made once: neither another password nor another user at a
// later start changes anything.
func TestAClusterBeginsWithUsers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	start := func(users ...UserSecret) *metadata.Image {
		t.Helper()
		b, err := Start(t.Context(), Config{DataDir: dir, Users: users})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Shutdown(t.Context())
		return b.node.Image()
	}
	secret := UserSecret{"alice", "sesame"}
	image := start(secret, UserSecret{"bob", "pass"})
	if all := image.Users(); len(all) != 2 || image.BrokerConfig(0)[metadata.SuperUsers] != "User:alice" {
		t.Fatalf("users %v, super users %q", all, image.BrokerConfig(0)[metadata.SuperUsers])
	}
	alice, _ := image.User("alice")
	for _, c := range alice.Credentials {
		v := sasl.Verifier{Mechanism: sasl.Mechanism(c.Mechanism.String()), Iterations: int(c.Iterations), Salt: c.Salt, StoredKey: c.StoredKey, ServerKey: c.ServerKey}
		if !v.Fits([]byte("sesame")) || v.Fits([]byte("pass")) {
			t.Errorf("%v is of another password", c)
		}
	}
	if len(alice.Credentials) != 2 {
		t.Errorf("credentials %v", alice.Credentials)
	}
	again := start(UserSecret{"alice", "other"}, UserSecret{"carol", "x"})
	if still, _ := again.User("alice"); len(again.Users()) != 2 || !reflect.DeepEqual(still, alice) {
		t.Errorf("a later start made %v", again.Users())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if shown := fmt.Sprintf(verb, Config{Users: []UserSecret{secret}}); strings.Contains(shown, "sesame") || strings.Contains(shown, fmt.Sprintf("%x", "sesame")) {
			t.Errorf("%s shows the password: %s", verb, shown)
		}
	}
	if shown, err := json.Marshal(secret); err != nil || strings.Contains(string(shown), "sesame") {
		t.Errorf("%s, %v", shown, err)
	}
}

// A cluster that was founded without users gets them when its founder is given some.
func TestAnOpenClusterGetsItsFirstUsers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for _, users := range [][]UserSecret{nil, {{"alice", "sesame"}}} {
		b, err := Start(t.Context(), Config{DataDir: dir, Users: users})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(b.node.Image().Users()); n != len(users) {
			t.Errorf("%d users, want %d", n, len(users))
		}
		b.Shutdown(t.Context())
	}
}

// Users that a broker joins with are not made: whoever starts one more broker would shut
// those out who use the cluster as it is.
func TestWhoJoinsMakesNoUsers(t *testing.T) {
	first, err := Start(t.Context(), Config{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Shutdown(t.Context())
	var said strings.Builder
	second, err := Start(t.Context(), Config{Ephemeral: true, Join: []string{first.Addr()}, Users: []UserSecret{{"mallory", "sesame"}}, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(second.node.Image().Users()); n != 0 {
		t.Errorf("%d users were made", n)
	}
	second.Shutdown(t.Context())
	if !strings.Contains(said.String(), "did not found it") || strings.Contains(said.String(), "sesame") {
		t.Errorf("it says %s", said.String())
	}
}
