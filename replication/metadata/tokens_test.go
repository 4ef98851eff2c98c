package metadata

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const clusterSecret = Secret("eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=")

// authorities are PEM of two bytes each.
var authorities = []Authority{
	{"-----BEGIN CERTIFICATE-----\nMTI=\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nMzQ=\n-----END PRIVATE KEY-----\n"},
	{"-----BEGIN CERTIFICATE-----\nNTY=\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nMzQ=\n-----END PRIVATE KEY-----\n"},
}

var (
	joinToken  = JoinToken{ID: "j1", Hash: []byte("hash"), Expires: 1000, Uses: 2}
	delegation = DelegationToken{"d1", "User:alice", "User:bob", []string{"User:carol", "User:dave"}, 100, 2000, 3000, []byte("hmac")}
)

func certified(id int32) RegisterBroker {
	r := upgraded(id, 4, 1, "abc")
	r.Broker.Secured = true
	return r
}

// secured is an image that has the rest of level 4.
func secured(t testing.TB) *Image {
	m := apply(t, founded(t, 4), certified(2))
	second := delegation
	second.ID, second.Renewers = "d2", nil
	for _, c := range []Change{
		SetAuthorities{Authorities: authorities, Secret: clusterSecret, Judged: m.Index},
		PutJoinToken{joinToken, 500},
		PutJoinToken{JoinToken{ID: "j2", Hash: []byte("hash"), Expires: math.MaxInt64, Uses: 1}, 500},
		UseJoinToken{ID: "j1", At: 999, By: "i2"},
		PutDelegationToken{Token: second},
		PutDelegationToken{Token: delegation},
	} {
		m = apply(t, m, c)
	}
	return m
}

func TestAuthoritiesAreSet(t *testing.T) {
	m := secured(t)
	if !slices.Equal(m.Authorities(), authorities) {
		t.Errorf("authorities %v", m.Authorities())
	}
	next := apply(t, m, SetAuthorities{Authorities: authorities[1:]})
	if next.SameAuthorities(m) || !next.SameUsers(m) || !apply(t, m, SetAuthorities{Authorities: authorities}).SameAuthorities(m) {
		t.Error("what changed is not seen, or what did not is")
	}
	if _, err := next.Apply(next.Index+1, SetAuthorities{Authorities: authorities, Judged: m.Index}); !errors.Is(err, ErrConfigChanged) {
		t.Errorf("authorities that were judged by another image: %v", err)
	}
	if other := apply(t, next, SetAuthorities{Authorities: authorities, Secret: NewSecret()}); other.Secret() != clusterSecret {
		t.Errorf("the cluster's secret became another: %q", string(other.Secret()))
	}
	if err := m.Check(SetAuthorities{Authorities: authorities, Secret: clusterSecret[4:]}); !errors.Is(err, ErrInvalidAuthority) {
		t.Errorf("a secret of 31 bytes passed the gate: %v", err)
	}
	good := authorities[0]
	for _, bad := range [][]Authority{
		nil, {{good.Certificate, ""}}, {{"", good.Key}}, {good, good}, {{good.Key, good.Key}}, {{good.Certificate, good.Certificate}},
		{{good.Certificate + good.Certificate, good.Key}}, {{good.Certificate, good.Key + "x"}}, {{strings.Repeat("a", maxPEM+1), good.Key}}, slices.Repeat(authorities, 3),
	} {
		if err := m.Check(SetAuthorities{Authorities: bad}); !errors.Is(err, ErrInvalidAuthority) {
			t.Errorf("%d authorities passed the gate: %v", len(bad), err)
		} else if strings.Contains(err.Error(), "MzQ") {
			t.Errorf("the refusal says a key: %v", err)
		}
	}
}

// A token is used as often as it says until it expires, by each incarnation once however
// often it asks.
func TestJoinTokensAreUsedUp(t *testing.T) {
	m := apply(t, founded(t, 4), PutJoinToken{joinToken, 500})
	use := func(by string, at int64, want error) {
		t.Helper()
		next, err := m.Apply(m.Index+1, UseJoinToken{ID: "j1", At: at, By: by})
		if !errors.Is(err, want) {
			t.Fatalf("used by %s at %d: %v, want %v", by, at, err, want)
		}
		m = next
	}
	use("a", 999, nil)
	before := m
	use("a", 999, nil)
	if !reflect.DeepEqual(m.JoinTokens(), before.JoinTokens()) {
		t.Error("to ask again is another use")
	}
	use("b", 1000, ErrTokenSpent) // expired
	use("a", 1000, ErrTokenSpent)
	use("", 999, nil)
	use("c", 999, ErrTokenSpent) // used up
	use("a", 999, nil)
	if _, err := m.Apply(m.Index+1, UseJoinToken{ID: "j2", At: 1}); !errors.Is(err, ErrUnknownToken) {
		t.Errorf("a token that is not there: %v", err)
	}
	// One that expired is forgotten when another is made.
	other := JoinToken{ID: "j0", Hash: []byte("hash"), Expires: 2000, Uses: 1}
	if m = apply(t, m, PutJoinToken{other, 1000}); len(m.JoinTokens()) != 1 {
		t.Errorf("tokens %v", m.JoinTokens())
	}
	if m = apply(t, m, RemoveJoinToken{"j0"}); m.JoinTokens() != nil || m.size != founded(t, 4).size {
		t.Errorf("tokens %v, %d bytes", m.JoinTokens(), m.size)
	}
	for what, bad := range map[string]PutJoinToken{
		"no id": {JoinToken{"", []byte("h"), 10, 1, nil}, 1}, "no hash": {JoinToken{"j", nil, 10, 1, nil}, 1}, "long hash": {JoinToken{"j", make([]byte, 65), 10, 1, nil}, 1},
		"expired": {JoinToken{"j", []byte("h"), 10, 1, nil}, 10}, "no uses": {JoinToken{"j", []byte("h"), 10, 0, nil}, 1},
		"too many uses": {JoinToken{"j", []byte("h"), 10, 1001, nil}, 1}, "was used": {JoinToken{"j", []byte("h"), 10, 1, []string{"a"}}, 1},
	} {
		if err := m.Check(bad); !errors.Is(err, ErrInvalidToken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range MaxJoinTokens {
		m = apply(t, m, PutJoinToken{JoinToken{fmt.Sprint(i), []byte("h"), 10, 1, nil}, 1})
	}
	if _, err := m.Apply(m.Index+1, PutJoinToken{joinToken, 1}); !errors.Is(err, ErrLimit) {
		t.Errorf("one token more than there may be: %v", err)
	}
}

func TestDelegationTokensComeAndGo(t *testing.T) {
	m := apply(t, founded(t, 4), PutDelegationToken{Token: delegation})
	renewed := delegation
	renewed.Expires = 2500
	next := apply(t, m, PutDelegationToken{Token: renewed, Renews: true})
	if got, ok := next.DelegationToken("d1"); !ok || got.Expires != 2500 || next.SameDelegationTokens(m) {
		t.Errorf("renewed: %v", got)
	}
	if got, ok := m.DelegationToken("d1"); !ok || got.Expires != 2000 || !slices.Equal(got.Renewers, delegation.Renewers) {
		t.Errorf("a step changed the image it came of: %v", got)
	}
	gone := apply(t, next, RemoveDelegationToken{"d1"})
	if len(gone.DelegationTokens()) != 0 || gone.size != founded(t, 4).size || gone.delegationBytes != 0 {
		t.Errorf("tokens %v, %d bytes", gone.DelegationTokens(), gone.size)
	}
	with := func(change func(*DelegationToken)) DelegationToken {
		token := *delegation.clone()
		change(&token)
		return token
	}
	for _, c := range []struct {
		what   string
		change Change
		reason error
	}{
		{"there already", PutDelegationToken{Token: delegation}, ErrInvalidToken},
		{"another owner", PutDelegationToken{Token: with(func(t *DelegationToken) { t.Owner = "User:eve" }), Renews: true}, ErrInvalidToken},
		{"renewed, but not there", PutDelegationToken{Token: with(func(t *DelegationToken) { t.ID = "d9" }), Renews: true}, ErrUnknownToken},
		{"removed, but not there", RemoveDelegationToken{"d9"}, ErrUnknownToken},
		{"no id", PutDelegationToken{Token: with(func(t *DelegationToken) { t.ID = "" })}, ErrInvalidToken},
		{"renewer without a type", PutDelegationToken{Token: with(func(t *DelegationToken) { t.ID, t.Renewers = "d9", []string{"eve"} })}, ErrInvalidToken},
		{"too many renewers", PutDelegationToken{Token: with(func(t *DelegationToken) { t.ID, t.Renewers = "d9", slices.Repeat(t.Renewers, 51) })}, ErrInvalidToken},
		{"no HMAC", PutDelegationToken{Token: with(func(t *DelegationToken) { t.ID, t.HMAC = "d9", nil })}, ErrInvalidToken},
		{"renewed beyond its end", PutDelegationToken{Token: with(func(t *DelegationToken) { t.Expires = 3001 }), Renews: true}, ErrInvalidToken},
	} {
		if err := m.Check(c.change); !errors.Is(err, c.reason) {
			t.Errorf("%s: %v, want %v", c.what, err, c.reason)
		} else if strings.Contains(err.Error(), "hmac") {
			t.Errorf("%s: the refusal says a secret: %v", c.what, err)
		}
	}
}

// Only brokers of a cluster that has authorities register that they have a certificate.
func TestCertificatesBelongToLevelFour(t *testing.T) {
	if err := founded(t, 3).Check(certified(2)); !errors.Is(err, ErrLevel) {
		t.Errorf("at level 3: %v", err)
	}
	first := certified(1)
	first.Broker.MaxLevel = 3
	if err := new(Image).Check(first); !errors.Is(err, ErrLevel) {
		t.Errorf("a cluster is founded at level 3 by a broker that has a certificate: %v", err)
	}
	if b, _ := secured(t).Broker(2); !b.Secured {
		t.Error("broker 2 has no certificate")
	}
}

// Whatever is printed of an image or a change, and however: no key, verifier or hash is in it.
func TestSecretsAreNotPrinted(t *testing.T) {
	m := apply(t, secured(t), AlterUsers{Upsert: []User{{"alice", []Credential{{ScramSHA256, 4096, []byte("s-a-l-t"), bytes.Repeat([]byte("S"), 32), bytes.Repeat([]byte("K"), 32)}}}}})
	u, _ := m.User("alice")
	var secrets []string
	for _, s := range []string{"s-a-l-t", strings.Repeat("S", 32), strings.Repeat("K", 32), "hash", "hmac", "MzQ", string(clusterSecret)} {
		secrets = append(secrets, s, base64.StdEncoding.EncodeToString([]byte(s)), hex.EncodeToString([]byte(s)),
			strings.Trim(fmt.Sprint([]byte(s)), "[]"), strings.Trim(fmt.Sprintf("%#v", []byte(s)), "[]byte{}"))
	}
	things := []any{
		m, *m, u, *u, m.Users(), u.Credentials, u.Credentials[0], &u.Credentials[0], m.Authorities(), m.Authorities()[0], m.JoinTokens(), m.JoinTokens()[0],
		m.DelegationTokens()[0], *m.DelegationTokens()[0], struct{ T *DelegationToken }{m.DelegationTokens()[0]},
		AlterUsers{Upsert: []User{*u}}, SetAuthorities{Authorities: m.Authorities(), Secret: m.Secret()}, m.Secret(), PutJoinToken{Token: joinToken}, PutDelegationToken{Token: delegation},
		fmt.Errorf("propose %v", Change(PutDelegationToken{Token: delegation})),
	}
	for _, thing := range things {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", thing)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "thing", thing)
		for _, secret := range secrets {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%T prints %q:\n%s", thing, secret, out.String())
			}
		}
	}
}
