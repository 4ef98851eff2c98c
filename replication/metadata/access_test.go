package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"millrace/security/acl"
)

// keys are a credential's, of as many bytes as its mechanism wants.
func credential(m Mechanism, fill byte) Credential {
	return Credential{m, 8192, []byte{fill, 0xff, '"'}, bytes.Repeat([]byte{fill}, m.KeyBytes()), bytes.Repeat([]byte{fill + 1}, m.KeyBytes())}
}

var (
	alice = User{"alice", []Credential{credential(ScramSHA256, 1), credential(ScramSHA512, 3)}}
	bob   = User{"bob \"<é>\"", []Credential{credential(ScramSHA512, 5)}}

	// entries are sorted, and have all that a list can have: several of a name, of a holder.
	entries = []acl.Entry{
		{Type: acl.Topic, Name: "*", Pattern: acl.Literal, Principal: "User:*", Host: "*", Operation: acl.Describe, Permission: acl.Allow},
		{Type: acl.Topic, Name: "orders", Pattern: acl.Literal, Principal: "User:alice", Host: "*", Operation: acl.Read, Permission: acl.Deny},
		{Type: acl.Topic, Name: "orders", Pattern: acl.Literal, Principal: "User:alice", Host: "*", Operation: acl.Read, Permission: acl.Allow},
		{Type: acl.Topic, Name: "orders", Pattern: acl.Literal, Principal: "User:alice", Host: "*", Operation: acl.Write, Permission: acl.Allow},
		{Type: acl.Topic, Name: "orders.", Pattern: acl.Prefixed, Principal: "User:alice", Host: "*", Operation: acl.All, Permission: acl.Allow},
		{Type: acl.Cluster, Name: acl.ClusterName, Pattern: acl.Literal, Principal: "User:alice", Host: "*", Operation: acl.Create, Permission: acl.Allow},
		{Type: acl.Group, Name: "a \"group\" ü", Pattern: acl.Literal, Principal: "User:alice", Host: "::1", Operation: acl.Read, Permission: acl.Allow},
	}
)

func init() { slices.SortFunc(entries, acl.Compare) }

func founded(t testing.TB, level int32) *Image {
	return grown(t, upgraded(1, level, 1, "abc"))
}

// atLevelFour is an image that has users, ACLs and quotas.
func atLevelFour(t testing.TB) *Image {
	m := founded(t, 4)
	for _, c := range []Change{
		AlterUsers{Upsert: []User{alice, bob}},
		AlterACLs{Add: entries},
		AlterQuotas{Quotas: []QuotaChange{
			{QuotaEntity: QuotaEntity{User: new("alice"), ClientID: new("")}, Set: map[string]float64{ProducerByteRate: 1 << 20, RequestPercentage: 0.1}},
			{QuotaEntity: QuotaEntity{User: new("")}, Set: map[string]float64{ConsumerByteRate: 1e21}},
			{QuotaEntity: QuotaEntity{ClientID: new("c\"")}, Set: map[string]float64{ControllerMutationRate: 1e-7}},
			{QuotaEntity: QuotaEntity{IP: new("10.0.0.1")}, Set: map[string]float64{ConnectionCreationRate: 10}},
		}},
	} {
		m = apply(t, m, c)
	}
	return m
}

// Level 4's bytes stay readable: these files are never regenerated.
func TestLevelFourIsReadForGood(t *testing.T) {
	samples := map[string]any{"access.json": atLevelFour(t), "secured.json": secured(t), "RegisterBroker.json": certified(2)}
	for _, c := range changes {
		if c.level() == 4 {
			samples[c.kind()+".json"] = c
		}
	}
	for name, want := range samples {
		path := filepath.Join("testdata", "v4", name)
		var now []byte
		if m, ok := want.(*Image); ok {
			now = m.Encode()
		} else {
			var err error
			if now, err = EncodeChange(want.(Change)); err != nil {
				t.Fatal(err)
			}
		}
		p, err := os.ReadFile(path)
		if os.IsNotExist(err) && *rewrite {
			p, err = now, os.WriteFile(path, now, 0o644)
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
		if !bytes.Equal(p, now) {
			t.Errorf("%s is written otherwise now: %s", path, now)
		}
	}
	bad := strings.NewReplacer(`"v":4`, `"v":3`, `"level":4`, `"level":3`).Replace(string(atLevelFour(t).Encode()))
	if m, err := DecodeImage([]byte(bad)); m != nil || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "version 3") {
		t.Errorf("users at feature level 3: %v", err)
	}
}

// Before every broker reads level 4 nothing of it is in the log, and the refusal says what
// is to be done. When all do, the level can be raised.
func TestNothingOfLevelFourComesBeforeIt(t *testing.T) {
	m := founded(t, 3)
	for _, c := range changes {
		if c.level() != 4 {
			continue
		}
		if err := m.Check(c); !errors.Is(err, ErrLevel) || err.Error() != c.kind()+" needs feature level 4, and the cluster is at 3 until all its brokers are upgraded" {
			t.Errorf("%s at level 3 passed the gate: %v", c.kind(), err)
		}
		if next, err := m.Apply(m.Index+1, c); !errors.Is(err, ErrLevel) || next != m {
			t.Errorf("%s at level 3 was applied: %v", c.kind(), err)
		}
	}
	if err := m.Check(SetLevel{Level: 4}); !errors.Is(err, ErrLevel) {
		t.Errorf("level 4 with a broker that reads 3: %v", err)
	}
	m = apply(t, m, upgraded(1, 4, 2, "def"))
	m = apply(t, m, SetLevel{Level: 4, Judged: m.Index})
	if m = apply(t, m, AlterUsers{Upsert: []User{alice}}); m.Level() != 4 || len(m.Users()) != 1 {
		t.Errorf("level %d, users %v", m.Level(), m.Users())
	}
}

func TestUsersComeAndGo(t *testing.T) {
	m := founded(t, 4)
	none := m
	m = apply(t, m, AlterUsers{Upsert: []User{bob, alice}})
	if got := m.BrokerConfig(0)[SuperUsers]; got != "User:"+bob.Name {
		t.Errorf("the first user is bob, super users are %q", got)
	}
	if m.SameUsers(none) || !m.SameACLs(none) || !m.SameQuotas(none) {
		t.Error("a step that touched users and nothing else looks otherwise")
	}
	if u := m.Users(); len(u) != 2 || u[0].Name != "alice" || u[1].Name != bob.Name {
		t.Errorf("users %v", u)
	}
	changed := User{"alice", []Credential{credential(ScramSHA512, 9), credential(ScramSHA256, 7)}}
	next := apply(t, m, AlterUsers{Upsert: []User{changed}, Delete: []string{bob.Name}, Judged: m.Index})
	u, ok := next.User("alice")
	if !ok || len(next.Users()) != 1 {
		t.Fatalf("users %v", next.Users())
	}
	if c, ok := u.Credential(ScramSHA256); !ok || c.StoredKey[0] != 7 || u.Credentials[0].Mechanism != ScramSHA256 {
		t.Errorf("alice has %v", u.Credentials)
	}
	if _, ok := next.User(bob.Name); ok {
		t.Error("bob is still there")
	}
	if u, _ := m.User("alice"); u.Credentials[0].StoredKey[0] != 1 {
		t.Error("a step changed the image it came of")
	}
	changed.Credentials[0].StoredKey[0] = 99
	if u, _ := next.User("alice"); u.Credentials[1].StoredKey[0] != 9 {
		t.Error("the image shares memory with the change")
	}
	if _, err := next.Apply(next.Index+1, AlterUsers{Upsert: []User{alice}, Judged: m.Index}); !errors.Is(err, ErrConfigChanged) {
		t.Errorf("credentials that were computed from another image: %v", err)
	}
	empty := apply(t, next, AlterUsers{Delete: []string{"alice"}})
	if len(empty.Users()) != 0 || empty.userBytes != 0 {
		t.Errorf("users %v, %d bytes", empty.Users(), empty.userBytes)
	}
	// Who is super is said already.
	again := apply(t, empty, AlterUsers{Upsert: []User{alice}})
	if got := again.BrokerConfig(0)[SuperUsers]; got != "User:"+bob.Name {
		t.Errorf("super users were set to %q, and are %q", "User:"+bob.Name, got)
	}
	if same := apply(t, again, CreateTopic{ID: topicID(1), Name: "t", Assignment: [][]int32{{1}}}); !same.SameUsers(again) {
		t.Error("a step that touched no user looks otherwise")
	}
}

func TestBadUsersAreRefused(t *testing.T) {
	m := apply(t, founded(t, 4), AlterUsers{Upsert: []User{alice}})
	with := func(change func(*Credential)) User {
		u := *User{"carol", []Credential{credential(ScramSHA256, 1)}}.clone()
		change(&u.Credentials[0])
		return u
	}
	good := []Credential{credential(ScramSHA256, 1)}
	for _, c := range []struct {
		change AlterUsers
		reason error
		text   string
	}{
		{AlterUsers{Upsert: []User{{"", good}}}, ErrInvalidUser, "Username must not be empty"},
		{AlterUsers{Upsert: []User{{"a\x00b", good}}}, ErrInvalidUser, "control characters"},
		{AlterUsers{Upsert: []User{{"a\xff", good}}}, ErrInvalidUser, "not a text"},
		{AlterUsers{Upsert: []User{{strings.Repeat("a", 256), good}}}, ErrInvalidUser, "255 bytes"},
		{AlterUsers{Upsert: []User{{" carol", good}}}, ErrInvalidUser, "space"},
		{AlterUsers{Upsert: []User{{"*", good}}}, ErrInvalidUser, "means others"},
		{AlterUsers{Upsert: []User{{"ANONYMOUS", good}}}, ErrInvalidUser, "means others"},
		{AlterUsers{Upsert: []User{{"carol", nil}}}, ErrInvalidUser, "no credentials"},
		{AlterUsers{Upsert: []User{{"carol", []Credential{good[0], good[0]}}}}, ErrInvalidUser, "two credentials of SCRAM-SHA-256"},
		{AlterUsers{Upsert: []User{{"carol", good}, {"carol", good}}}, ErrInvalidUser, "twice"},
		{AlterUsers{Upsert: []User{alice}, Delete: []string{"alice"}}, ErrInvalidUser, "twice"},
		{AlterUsers{Delete: []string{"carol"}}, ErrUnknownUser, "no user carol"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.Mechanism = 3 })}}, ErrInvalidUser, "Unknown SCRAM mechanism 3"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.Mechanism = 0 })}}, ErrInvalidUser, "Unknown SCRAM mechanism 0"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.Iterations = 4095 })}}, ErrInvalidUser, "there must be 4096 to 16384"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.Iterations = 16385 })}}, ErrInvalidUser, "there must be 4096 to 16384"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.Iterations = math.MaxInt32 })}}, ErrInvalidUser, "there must be 4096 to 16384"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.Salt = nil })}}, ErrInvalidUser, "a salt has 1 to"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.Salt = make([]byte, 257) })}}, ErrInvalidUser, "a salt has 1 to"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.StoredKey = c.StoredKey[:31] })}}, ErrInvalidUser, "have 32 bytes"},
		{AlterUsers{Upsert: []User{with(func(c *Credential) { c.ServerKey = nil })}}, ErrInvalidUser, "have 32 bytes"},
	} {
		if err := m.Check(c.change); !errors.Is(err, c.reason) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%.60q: %v, want %q", fmt.Sprint(c.change), err, c.text)
		}
	}
	first := AlterUsers{Upsert: []User{{"a;User:b", good}}}
	if err := founded(t, 4).Check(first); !errors.Is(err, ErrInvalidUser) || !strings.Contains(err.Error(), "semicolon") {
		t.Errorf("a first user with a semicolon in its name: %v", err)
	}
	if err := m.Check(first); err != nil {
		t.Errorf("a second one: %v", err)
	}
	// What is said of secrets is never what they are.
	secret := with(func(c *Credential) { c.StoredKey = []byte("hunter2"); c.Salt = []byte("hunter2") })
	if err := m.Check(AlterUsers{Upsert: []User{secret}}); strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the refusal says a secret: %v", err)
	}
}

func TestBadACLsAreRefused(t *testing.T) {
	m := founded(t, 4)
	for _, c := range []struct {
		change func(*acl.Entry)
		text   string
	}{
		{func(e *acl.Entry) { e.Type = acl.AnyType }, "Invalid resourceType ANY"},
		{func(e *acl.Entry) { e.Type = 8 }, "Invalid resourceType UNKNOWN"},
		{func(e *acl.Entry) { e.Type = -1 }, "Invalid resourceType UNKNOWN"},
		{func(e *acl.Entry) { e.Pattern = acl.Match }, "Invalid patternType MATCH"},
		{func(e *acl.Entry) { e.Pattern = 0 }, "Invalid patternType UNKNOWN"},
		{func(e *acl.Entry) { e.Operation = acl.AnyOperation }, "Invalid operation ANY"},
		{func(e *acl.Entry) { e.Operation = 16 }, "Invalid operation UNKNOWN"},
		{func(e *acl.Entry) { e.Permission = acl.AnyPermission }, "Invalid permissionType ANY"},
		{func(e *acl.Entry) { e.Permission = 7 }, "Invalid permissionType UNKNOWN"},
		{func(e *acl.Entry) { e.Name = "" }, "Resource name should not be empty"},
		{func(e *acl.Entry) { e.Name = "a\nb" }, "control characters"},
		{func(e *acl.Entry) { e.Name = strings.Repeat("a", 1025) }, "1024 bytes"},
		{func(e *acl.Entry) { e.Principal = "alice" }, "Could not parse principal from `alice`"},
		{func(e *acl.Entry) { e.Principal = ":alice" }, "Could not parse principal"},
		{func(e *acl.Entry) { e.Principal = "User:\xff" }, "not a text"},
		{func(e *acl.Entry) { e.Host = "" }, "host"},
		{func(e *acl.Entry) { e.Host = "::ffff:10.0.0.1" }, `must be written "10.0.0.1"`},
		{func(e *acl.Entry) { e.Type = acl.Cluster }, "The only valid name for the CLUSTER resource is kafka-cluster"},
	} {
		e := entries[3]
		c.change(&e)
		if err := m.Check(AlterACLs{Add: []acl.Entry{e}}); !errors.Is(err, ErrInvalidACL) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%.80q: %v, want %q", fmt.Sprint(e), err, c.text)
		}
	}
}

// Whatever is added and removed, the entries are those of a set to which the same was done,
// their bound is that of the same entries read, and images before it stay as they were.
func TestACLsAreASet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	entry := func() acl.Entry {
		return acl.Entry{
			Type: acl.ResourceType(2 + r.IntN(2)), Name: []string{"a", "b", "c\"", "ü"}[r.IntN(4)], Pattern: acl.PatternType(3 + r.IntN(2)),
			Principal: []string{"User:a", "User:b"}[r.IntN(2)], Host: []string{"*", "::1"}[r.IntN(2)],
			Operation: acl.Operation(3 + r.IntN(2)), Permission: acl.Permission(2 + r.IntN(2)),
		}
	}
	m, model := founded(t, 4), map[acl.Entry]bool{}
	for range 2000 {
		var c AlterACLs
		for range r.IntN(1 + r.IntN(40)) {
			c.Add = append(c.Add, entry())
		}
		for range r.IntN(1 + r.IntN(80)) {
			c.Remove = append(c.Remove, entry())
		}
		was := slices.Clone(m.ACLs())
		next := apply(t, m, c)
		if !slices.Equal(was, m.ACLs()) {
			t.Fatal("a step changed the image it came of")
		}
		for _, e := range c.Remove {
			delete(model, e)
		}
		for _, e := range c.Add {
			model[e] = true
		}
		if want := slices.SortedFunc(maps.Keys(model), acl.Compare); !slices.Equal(next.ACLs(), want) {
			t.Fatalf("%v, want %v", next.ACLs(), want)
		}
		if next.SameACLs(m) != slices.Equal(was, next.ACLs()) {
			t.Fatalf("the ACLs of two images are the same: %v, after %v", next.SameACLs(m), c)
		}
		read, err := DecodeImage(next.Encode())
		if err != nil || !reflect.DeepEqual(read, next) {
			t.Fatalf("%#v was read as %#v: %v", next, read, err)
		}
		if n := len(compact(aclList(next.acls))); n > next.aclBytes+2 {
			t.Fatalf("%d bytes, thought to be %d at most", n, next.aclBytes)
		}
		m = next
	}
}

func TestQuotasAreMerged(t *testing.T) {
	m := founded(t, 4)
	user := QuotaEntity{User: new("alice")}
	both := QuotaEntity{User: new("alice"), ClientID: new("")}
	m = apply(t, m, AlterQuotas{[]QuotaChange{
		{QuotaEntity: user, Set: map[string]float64{ProducerByteRate: 10, ConsumerByteRate: 20}},
		{QuotaEntity: both, Set: map[string]float64{RequestPercentage: 12.5}},
	}})
	next := apply(t, m, AlterQuotas{[]QuotaChange{{QuotaEntity: user, Set: map[string]float64{ProducerByteRate: 11}, Delete: []string{ConsumerByteRate, ProducerByteRate}}}})
	if q, ok := next.Quota(user); !ok || !maps.Equal(q.Values, map[string]float64{ProducerByteRate: 11}) {
		t.Errorf("alice has %v", q)
	}
	if q, ok := m.Quota(user); !ok || len(q.Values) != 2 {
		t.Errorf("a step changed the image it came of: %v", q)
	}
	if _, ok := next.Quota(QuotaEntity{User: new("")}); ok {
		t.Error("there is a quota for other users")
	}
	if same := apply(t, next, AlterQuotas{[]QuotaChange{{QuotaEntity: user, Set: map[string]float64{ProducerByteRate: 11}}}}); !same.SameQuotas(next) || next.SameQuotas(m) {
		t.Error("what was said already looks like a change, or a change does not")
	}
	next = apply(t, next, AlterQuotas{[]QuotaChange{{QuotaEntity: user, Delete: []string{ProducerByteRate}}, {QuotaEntity: both, Delete: []string{RequestPercentage}}}})
	if len(next.Quotas()) != 0 || next.quotaBytes != 0 || !reflect.DeepEqual(next.access, access{}) {
		t.Errorf("quotas %v, %d bytes", next.Quotas(), next.quotaBytes)
	}
}

func TestBadQuotasAreRefused(t *testing.T) {
	m := founded(t, 4)
	alice, ip := QuotaEntity{User: new("alice")}, QuotaEntity{IP: new("10.0.0.1")}
	for _, c := range []struct {
		entity QuotaEntity
		key    string
		value  float64
		text   string
	}{
		{QuotaEntity{}, ProducerByteRate, 1, "Invalid empty client quota entity"},
		{QuotaEntity{IP: new(""), User: new("")}, ConnectionCreationRate, 1, "Invalid quota entity combination"},
		{QuotaEntity{ClientID: new("a\x00")}, ProducerByteRate, 1, "control characters"},
		{QuotaEntity{IP: new("localhost")}, ConnectionCreationRate, 1, "localhost is not a valid IP"},
		{QuotaEntity{IP: new("::0001")}, ConnectionCreationRate, 1, "not as it is written"},
		{alice, ConnectionCreationRate, 1, "Invalid configuration key connection_creation_rate"},
		{ip, ProducerByteRate, 1, "Invalid configuration key producer_byte_rate"},
		{alice, "", 1, "key"},
		{alice, "rate", 1, "Invalid configuration key rate"},
		{alice, ProducerByteRate, 0, "must be greater than 0"},
		{alice, ProducerByteRate, -1, "must be greater than 0"},
		{alice, RequestPercentage, math.NaN(), "must be greater than 0"},
		{alice, RequestPercentage, math.Inf(1), "finite"},
		{alice, ProducerByteRate, 1.5, "must be a whole number"},
		{ip, ConnectionCreationRate, 1 << 31, "must be a whole number of at most 2147483647"},
	} {
		if err := m.Check(AlterQuotas{[]QuotaChange{{QuotaEntity: c.entity, Set: map[string]float64{c.key: c.value}}}}); !errors.Is(err, ErrInvalidQuota) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s of %s %v: %v, want %q", c.key, c.entity, c.value, err, c.text)
		}
	}
	if err := m.Check(AlterQuotas{[]QuotaChange{{QuotaEntity: alice, Delete: []string{"rate"}}}}); !errors.Is(err, ErrInvalidQuota) {
		t.Errorf("an unknown key to be deleted: %v", err)
	}
}

// Each row damages one thing of a good image, and no image may come of it.
func TestDamagedAccessIsRefused(t *testing.T) {
	good := string(atLevelFour(t).Encode())
	for _, c := range []struct{ what, old, new string }{
		{"unknown member of a user", `"name":"alice",`, `"name":"alice","more":1,`},
		{"users out of order", `"name":"alice"`, `"name":"zoe"`},
		{"no credentials", `"credentials":[[2`, `"credentials":[],"credential":[[2`},
		{"mechanism", `[1,8192,`, `[3,8192,`},
		{"credentials out of order", `[1,8192,`, `[2,8192,`},
		{"credential too short", `[1,8192,`, `[8192,`},
		{"iterations", `[1,8192,`, `[1,0,`},
		{"salt", `"Af8i"`, `""`},
		{"base64", `"Af8i"`, `"!"`},
		{"list of ACLs too short", `[["User:*","*",2,3,["*",35]]`, `[["User:*","*",2,3]`},
		{"no number", `["*",35]`, `["*"]`},
		{"operation", `["*",35]`, `["*",99]`},
		{"permission", `["*",35]`, `["*",32]`},
		{"a number that is none", `["*",35]`, `["*",3500]`},
		{"negative", `["*",35]`, `["*",-35]`},
		{"no principal", `"User:*"`, `null`},
		{"ACLs out of order", `"User:*"`, `"User:z"`},
		{"ACL twice", `"orders",14,15,19`, `"orders",14,14,19`},
		{"no entity", `"client":"c\""`, `"cl":""`},
		{"no values", `"values":{"connection_creation_rate":10}`, `"values":{}`},
		{"negative value", `"connection_creation_rate":10`, `"connection_creation_rate":-10`},
		{"quota twice", `{"ip":"10.0.0.1"`, `{"client":"c\""`},
	} {
		damaged(t, good, c.what, c.old, c.new)
	}
	good = string(secured(t).Encode())
	for _, c := range []struct{ what, old, new string }{
		{"no key", `"key":"-----BEGIN`, `"kay":"-----BEGIN`},
		{"empty certificate", `"certificate":"-----BEGIN CERTIFICATE-----\nMTI=\n-----END CERTIFICATE-----\n"`, `"certificate":""`},
		{"authority twice", `MTI=\n`, `NTY=\n`},
		{"a secret of another size", `"secret":"eHh4`, `"secret":"`},
		{"no hash", `"hash":"aGFzaA=="`, `"hash":""`},
		{"no id", `"id":"j1"`, `"id":""`},
		{"join token twice", `"id":"j2"`, `"id":"j1"`},
		{"negative uses", `"uses":1`, `"uses":-1`},
		{"too many uses", `"uses":1`, `"uses":1001`},
		{"used by one twice", `"by":["i2"]`, `"by":["i2","i2"]`},
		{"delegation tokens out of order", `["d1",`, `["e1",`},
		{"delegation token too short", `["d1",`, `[`},
		{"no owner", `"User:alice"`, `"alice"`},
		{"times", `100,2000,3000`, `100,3001,3000`},
		{"no HMAC", `"aG1hYw=="`, `""`},
	} {
		damaged(t, good, c.what, c.old, c.new)
	}
	bad := strings.NewReplacer(`"v":4`, `"v":3`, `"level":4`, `"level":3`).Replace(string(apply(t, founded(t, 4), certified(2)).Encode()))
	if m, err := DecodeImage([]byte(bad)); m != nil || !errors.Is(err, ErrDamaged) {
		t.Errorf("a certificate at feature level 3: %v", err)
	}
}

func damaged(t *testing.T, good, what, old, to string) {
	t.Helper()
	bad := strings.Replace(good, old, to, 1)
	if bad == good {
		t.Fatalf("%s: %q is not in %s", what, old, good)
	}
	if m, err := DecodeImage([]byte(bad)); m != nil || !errors.Is(err, ErrDamaged) {
		t.Errorf("%s: image %v, error %v", what, m, err)
	}
}

// many is n entries as they are in clusters that have so many: each service has its own.
func many(n int) (all []acl.Entry) {
	for i := range n {
		all = append(all, acl.Entry{Type: acl.Topic, Name: fmt.Sprintf("team-%d.service-%d.orders", i%97, i), Pattern: acl.PatternType(3 + i%2),
			Principal: fmt.Sprintf("User:service-%d", i/4), Host: "*", Operation: acl.Read, Permission: acl.Allow})
	}
	return all
}

// withMany is an image of n entries, added as changes that fit a request.
func withMany(t testing.TB, n int) *Image {
	m := founded(t, 4)
	for part := range slices.Chunk(many(n), 10_000) {
		c := AlterACLs{Add: part}
		if _, err := EncodeChange(c); err != nil {
			t.Fatal(err)
		}
		m = apply(t, m, c)
	}
	return m
}

func TestAsManyACLsAsThereMayBe(t *testing.T) {
	m := withMany(t, MaxACLs)
	p := m.Encode()
	if len(p) > MaxACLBytes {
		t.Errorf("%d ACLs take %d bytes", MaxACLs, len(p))
	}
	read, err := DecodeImage(p)
	if err != nil || !reflect.DeepEqual(read, m) {
		t.Errorf("an image of %d bytes is read as another: %v", len(p), err)
	}
	more := AlterACLs{Add: entries[:1]}
	if _, err := m.Apply(m.Index+1, more); !errors.Is(err, ErrLimit) {
		t.Errorf("one more: %v", err)
	}
	fewer := apply(t, m, AlterACLs{Remove: m.ACLs()[500:501]})
	apply(t, fewer, more)
	// The dearest there are fill the bytes before.
	m = founded(t, 4)
	for i := range 100 {
		var c AlterACLs
		for j := range 100 {
			name := fmt.Sprint(i, j) + strings.Repeat("\"", 900)
			c.Add = append(c.Add, acl.Entry{Type: acl.Topic, Name: name, Pattern: acl.Literal, Principal: "User:" + name, Host: "*", Operation: acl.Read, Permission: acl.Allow})
		}
		next, err := m.Apply(m.Index+1, c)
		if errors.Is(err, ErrLimit) {
			if n := len(m.Encode()); n > MaxACLBytes+1000 || n < MaxACLBytes/2 {
				t.Errorf("refused at %d bytes", n)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		m = next
	}
	t.Error("ACLs are not bounded by their bytes")
}

func BenchmarkAlterACLs(b *testing.B) {
	m := withMany(b, MaxACLs-1)
	c := AlterACLs{Add: entries[3:4]}
	b.ReportAllocs()
	for b.Loop() {
		if next, err := m.Apply(m.Index+1, c); err != nil || len(next.ACLs()) != MaxACLs {
			b.Fatal(err)
		}
	}
}
