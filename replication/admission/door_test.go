package admission

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// imageOf is what changes make of an empty image.
func imageOf(t *testing.T, changes ...metadata.Change) *metadata.Image {
	t.Helper()
	image := new(metadata.Image)
	for _, change := range changes {
		next, err := image.Apply(image.Index+1, change)
		if err != nil {
			t.Fatal(err)
		}
		image = next
	}
	return image
}

// registered is a broker at a host, as it registers at a level.
func registered(id, level int32, host string) metadata.RegisterBroker {
	return metadata.RegisterBroker{ClusterID: "cluster", Broker: metadata.Broker{
		ID: id, Incarnation: string(rune('a' - 1 + id)), Host: host, Port: 9000 + id, MinLevel: 1, MaxLevel: level,
	}}
}

// Who is taken in, by what was shown: a certificate of a broker that is registered, whichever
// incarnation that is; a token whose secret is right, before it ends; and over loopback while all
// are there and nobody has a password.
func TestWhoIsLetIn(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	secret, other := make([]byte, 32), append(make([]byte, 31), 1)
	put := metadata.PutJoinToken{Token: metadata.JoinToken{ID: "0123456789abcdef", Hash: identity.HashSecret(secret), Expires: now.UnixMilli() + 1, Uses: 1}, At: 1}
	local := []metadata.Change{registered(1, 4, "127.0.0.1"), registered(2, 4, "localhost"), put}
	abroad := []metadata.Change{registered(1, 4, "127.0.0.1"), registered(2, 4, "10.0.0.2"), put}
	user := metadata.AlterUsers{Upsert: []metadata.User{{Name: "u", Credentials: []metadata.Credential{{
		Mechanism: metadata.ScramSHA256, Iterations: 4096, Salt: []byte("salt"), StoredKey: make([]byte, 32), ServerKey: make([]byte, 32),
	}}}}}
	removed := metadata.RemoveBroker{ID: 2, Incarnation: "b"}
	with := func(changes []metadata.Change, more ...metadata.Change) []metadata.Change {
		return append(slices.Clone(changes), more...)
	}
	proven := func(node int32) Request {
		return Request{Node: node, Incarnation: "new", Host: "10.0.0.9", Vouched: vouchedCertificate}
	}
	token := func(change func(*Request)) Request {
		r := Request{Node: 3, Incarnation: "c", Host: "10.0.0.9", Vouched: vouchedSealed, Token: put.Token.ID, Secret: secret, Certificate: []byte{1}}
		change(&r)
		return r
	}
	same := func(*Request) {}
	nothing := func(host, vouched string) Request {
		return Request{Node: 3, Incarnation: "c", Host: host, Vouched: vouched, Certificate: []byte{1}}
	}
	for _, tt := range []struct {
		name    string
		changes []metadata.Change
		req     Request
		after   time.Duration
		want    string // of the refusal; "": it is let in
	}{
		{"anybody, of an earlier release", []metadata.Change{registered(1, 3, "10.0.0.1")}, nothing("10.0.0.9", ""), 0, ""},
		{"a broker as another incarnation", abroad, proven(2), 0, ""},
		{"a broker that never was", abroad, proven(7), 0, "not registered"},
		{"a broker that was removed", with(abroad, removed), proven(2), 0, "not registered"},
		{"nobody, bare", local, nothing("127.0.0.1", ""), 0, "over TLS"},
		{"a token, bare", abroad, token(func(r *Request) { r.Vouched = "" }), 0, "over TLS"},
		{"a token", abroad, token(same), 0, ""},
		{"a token, over loopback", abroad, token(func(r *Request) { r.Vouched = vouchedLoopback }), 0, ""},
		{"a token that has ended", abroad, token(same), time.Millisecond, "not good"},
		{"a token nobody knows", abroad, token(func(r *Request) { r.Token = "fedcba9876543210" }), 0, "not good"},
		{"a token with another secret", abroad, token(func(r *Request) { r.Secret = other }), 0, "not good"},
		{"a token with half of the secret", abroad, token(func(r *Request) { r.Secret = secret[:16] }), 0, "not good"},
		{"a token without a secret", abroad, token(func(r *Request) { r.Secret = nil }), 0, "not good"},
		{"a token, for no certificate", abroad, token(func(r *Request) { r.Certificate = nil }), 0, "not good"},
		{"a wrong token on a machine where none is needed", local, token(func(r *Request) {
			r.Host, r.Vouched, r.Secret = "127.0.0.1", vouchedLoopback, other
		}), 0, "not good"},
		{"nothing, from another machine", local, nothing("127.0.0.1", vouchedSealed), 0, "millrace cluster token"},
		{"nothing, over loopback", local, nothing("127.0.0.1", vouchedLoopback), 0, ""},
		{"nothing, over loopback, for another machine", local, nothing("10.0.0.9", vouchedLoopback), 0, "millrace cluster token"},
		{"nothing, over loopback, while a broker is elsewhere", abroad, nothing("127.0.0.1", vouchedLoopback), 0, "broker 2 is at 10.0.0.2"},
		{"nothing, over loopback, while there are users", with(local, user), nothing("127.0.0.1", vouchedLoopback), 0, "has users"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := lets(imageOf(t, tt.changes...), tt.req, now.Add(tt.after))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), tt.req.Token) && tt.req.Token != "" {
				t.Errorf("the refusal shows the token: %v", err)
			}
		})
	}
	if err := lets(imageOf(t, abroad...), proven(7), now); !errors.Is(err, errUnregistered) {
		t.Errorf("%v: a node that has a token, too, must be told to go on", err)
	}
	if lets(imageOf(t, local...), token(same), now) != nil || keyring.SecureLevel != 4 {
		t.Error("the levels above are not those of a cluster with an authority")
	}
}

// What is known of who asks is what was shown, whatever he says: a certificate counts for the
// node and the incarnation that it names, and loopback and TLS where it came to a handshake.
func TestWhatIsKnownOfWhoAsks(t *testing.T) {
	shown := func(protocol string, node int32, incarnation string, loopback bool) transport.Origin {
		return transport.Origin{Once: true, Loopback: loopback, Proof: identity.Proof{Protocol: protocol, Name: identity.Name{Cluster: "cluster", Node: node, Incarnation: incarnation}}}
	}
	req := Request{Node: 2, Incarnation: "b", Vouched: vouchedCertificate, Forwarded: true}
	for _, tt := range []struct {
		name   string
		origin transport.Origin
		want   string
	}{
		{"bare", transport.Origin{Once: true, Loopback: true}, ""},
		{"over TLS", shown(identity.Join, 0, "", false), vouchedSealed},
		{"over TLS on this machine", shown(identity.Join, 0, "", true), vouchedLoopback},
		{"its certificate", shown(identity.Sealed, 2, "b", false), vouchedCertificate},
		{"its certificate, on this machine", shown(identity.Bare, 2, "b", true), vouchedCertificate},
		{"another node's", shown(identity.Sealed, 3, "b", false), ""},
		{"another incarnation's", shown(identity.Sealed, 2, "c", true), ""},
		{"a name without a certificate", shown(identity.Join, 2, "b", false), vouchedSealed},
	} {
		if got := vouchedBy(tt.origin, req); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
