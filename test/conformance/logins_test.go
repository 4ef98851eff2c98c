//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"millrace/security/certificate/certificatetest"
)

// A way is one to log in by, of which a cell of the matrix is one use.
type way struct {
	ability   string
	mechanism string // "": by the certificate alone
	tls       bool
}

// ways are the lines of the matrix that log in.
var ways = []way{
	{"login-plain", "PLAIN", false},
	{"login-plain-tls", "PLAIN", true},
	{"login-scram-256", "SCRAM-SHA-256", false},
	{"login-scram-256-tls", "SCRAM-SHA-256", true},
	{"login-scram-512", "SCRAM-SHA-512", false},
	{"login-scram-512-tls", "SCRAM-SHA-512", true},
	{"login-token", "OAUTHBEARER", false},
	{"login-token-tls", "OAUTHBEARER", true},
	{"login-certificate", "", true},
}

// logins are those lines as abilities.
func logins() (all []ability) {
	for _, w := range ways {
		all = append(all, ability{w.ability, func(x *cell) { x.asGuest(w) }, func(x *cell) { x.expectLogins(w) }})
	}
	return all
}

// password is every user's, with what a mechanism may stumble over.
const password = `open, "sesame"=ü`

// A guarded is a cluster of three nodes that lets in who has logged in, and where each cell
// has a principal of its own, which may use the cell's topic and group. It is there as soon
// as a cell asks for it.
type guarded struct {
	brokers []string
	own     *kgo.Client                // the super user's
	dir     string                     // of data, certificates and tokens
	audit   string                     // the file that its nodes write who logged in to
	ca      string                     // the file of the authority of the certificate that it shows
	people  *certificatetest.Authority // of clients' certificates
	strange *certificatetest.Authority // of those that it does not believe
	issuer  jose.Signer                // of tokens
}

var (
	guardedOnce sync.Once
	guardedOne  *guarded // nil: it did not start
)

// theGuarded returns the cluster that asks for a log-in.
func theGuarded(x *cell) *guarded {
	x.Helper()
	if program == "" {
		x.Skip("needs a cluster of its own, and CONFORMANCE_BROKERS names brokers")
	}
	guardedOnce.Do(func() {
		g := &guarded{dir: filepath.Join(filepath.Dir(program), "guarded")}
		if err := g.start(x.T); err != nil {
			x.Fatalf("the cluster that asks for a log-in: %v", err)
		}
		guardedOne = g
	})
	if guardedOne == nil {
		x.Fatal("the cluster that asks for a log-in did not start: another cell says why")
	}
	return guardedOne
}

// write makes a file of a name in the cluster's folder and returns its path.
func (g *guarded) write(t testing.TB, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(g.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs the cluster, and makes its users and what they may do.
func (g *guarded) start(t *testing.T) error {
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	shown := certificatetest.NewAuthority(t)
	g.people, g.strange = certificatetest.NewAuthority(t), certificatetest.NewAuthority(t)
	cert, key := shown.Issue(t, "millrace", time.Hour)
	g.ca, g.audit = g.write(t, "ca.pem", shown.PEM), filepath.Join(g.dir, "audit.log")
	set, err := g.issuing()
	if err != nil {
		return err
	}
	var stop func()
	g.brokers, stop, err = up(filepath.Join(g.dir, "data"),
		"MILLRACE_CFG_SUPER_USERS=User:admin;User:ANONYMOUS", // who makes the first user
		"MILLRACE_CFG_SSL_KEYSTORE_LOCATION="+g.write(t, "broker.pem", cert+key),
		"MILLRACE_CFG_SSL_TRUSTSTORE_LOCATION="+g.write(t, "people.pem", g.people.PEM),
		"MILLRACE_CFG_SSL_CLIENT_AUTH=requested",
		"MILLRACE_CFG_SASL_OAUTHBEARER_JWKS_ENDPOINT_URL=file://"+g.write(t, "keys.json", set),
		"MILLRACE_CFG_SASL_OAUTHBEARER_EXPECTED_ISSUER="+issuer,
		"MILLRACE_CFG_MILLRACE_AUDIT_LOG_PATH="+g.audit)
	stops = append(stops, stop)
	if err != nil {
		return err
	}
	return g.invite(t)
}

const issuer = "https://issuer.example"

// issuing makes the key that signs tokens, and returns the set of keys that brokers read.
func (g *guarded) issuing() (set string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	g.issuer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", "one"))
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Use: "sig", Algorithm: "ES256"}}})
	return string(b), err
}

// token is one for a user, which ends a while from now.
func (g *guarded) token(t testing.TB, user string, ends time.Duration) string {
	t.Helper()
	now := time.Now()
	claims := jwt.Claims{Issuer: issuer, Subject: user, IssuedAt: jwt.NewNumericDate(now.Add(-2 * time.Hour)), Expiry: jwt.NewNumericDate(now.Add(ends))}
	token, err := jwt.Signed(g.issuer).Claims(claims).Claims(map[string]any{"scope": "kafka"}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// invite makes the super user, with whom the cluster lets nobody in any more who has not
// logged in, and a client that has, once every node knows of the user.
func (g *guarded) invite(t *testing.T) error {
	open, err := kgo.NewClient(kgo.SeedBrokers(g.brokers...))
	if err != nil {
		return err
	}
	defer open.Close()
	if err := allThere(open, len(g.brokers)); err != nil {
		return err
	}
	if err := user(t.Context(), kadm.NewClient(open), "admin", kadm.ScramSha512); err != nil {
		return err
	}
	in := kgo.SASL(scram.Auth{User: "admin", Pass: password}.AsSha512Mechanism())
	for _, broker := range g.brokers {
		one, err := kgo.NewClient(kgo.SeedBrokers(broker), in)
		if err != nil {
			return err
		}
		defer one.Close()
		if err := allThere(one, len(g.brokers)); err != nil {
			return fmt.Errorf("broker %s: %w", broker, err)
		}
	}
	g.own, err = kgo.NewClient(kgo.SeedBrokers(g.brokers...), in, kgo.MetadataMinAge(50*time.Millisecond))
	return err
}

// user makes one who may log in by some of SCRAM's mechanisms, and so by PLAIN.
func user(ctx context.Context, admin *kadm.Client, name string, mechanisms ...kadm.ScramMechanism) error {
	for _, m := range mechanisms {
		made, err := admin.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: name, Mechanism: m, Iterations: 4096, Password: password}})
		if err == nil {
			err = made.Error()
		}
		if err != nil {
			return fmt.Errorf("user %s: %w", name, err)
		}
	}
	return nil
}

// asGuest makes the cell's principal, what it may do, and its topic, and says to the program
// how to log in, and how not to.
func (x *cell) asGuest(w way) {
	x.Helper()
	g := theGuarded(x)
	x.brokers, x.own, x.admin = g.brokers, g.own, kadm.NewClient(g.own)
	x.admin.SetTimeoutMillis(30_000)
	x.env = append(x.credentials(g, w), "LOGIN_MECHANISM="+w.mechanism)
	if w.tls {
		x.env = append(x.env, "LOGIN_CA="+g.ca)
	}
	made, err := x.admin.CreateACLs(x.Context(), kadm.NewACLs().Allow(x.principal(w)).AllowHosts().
		Topics(x.prefix).Groups(x.group()).Operations(kadm.OpRead, kadm.OpWrite, kadm.OpDescribe))
	for _, m := range made {
		err = errors.Join(err, m.Err)
	}
	if err != nil {
		x.Fatalf("entries of %s: %v", x.principal(w), err)
	}
	x.topic() // the last change: a node that knows of it knows of the others
}

// credentials makes what the cell's principal logs in with, and what it is refused with, as
// variables of the program's environment.
func (x *cell) credentials(g *guarded, w way) (env []string) {
	x.Helper()
	switch w.mechanism {
	case "":
		for variable, authority := range map[string]*certificatetest.Authority{"LOGIN_": g.people, "LOGIN_WRONG_": g.strange} {
			cert, key := authority.Issue(x, x.prefix, time.Hour)
			path := strings.ToLower(x.prefix + "." + variable)
			env = append(env, variable+"CERT="+g.write(x, path+"cert", cert), variable+"KEY="+g.write(x, path+"key", key))
		}
	case "OAUTHBEARER":
		for variable, ends := range map[string]time.Duration{"LOGIN_": time.Hour, "LOGIN_WRONG_": -time.Hour} {
			env = append(env, variable+"TOKEN="+g.write(x, strings.ToLower(x.prefix+"."+variable)+"token", g.token(x, x.prefix, ends)))
		}
	default:
		if err := user(x.Context(), x.admin, x.prefix, kadm.ScramSha256, kadm.ScramSha512); err != nil {
			x.Fatal(err)
		}
		env = append(env, "LOGIN_USER="+x.prefix, "LOGIN_PASSWORD="+password, "LOGIN_WRONG_PASSWORD="+password+"?")
	}
	return env
}

// principal is who the brokers take the cell's program for.
func (x *cell) principal(w way) string {
	if w.mechanism == "" {
		return "User:CN=" + x.prefix + ",OU=tests"
	}
	return "User:" + x.prefix
}

// expectLogins looks at what the brokers say of who came in, and who did not. Of certificates
// they say nothing, but nobody else than the cell's principal may use its topic.
func (x *cell) expectLogins(w way) {
	x.Helper()
	x.expect(numbered(produced, short))
	x.expectCommitted(produced / partitions)
	if w.mechanism == "" {
		return
	}
	outcomes := x.audited(x.principal(w))
	want := map[string]bool{w.mechanism + " succeeded": true}
	if w.mechanism != "OAUTHBEARER" { // who shows a bad token is nobody
		want[w.mechanism+" failed"] = true
	}
	if !maps.Equal(outcomes, want) {
		x.Errorf("the audit log has of %s: %v, want %v", x.principal(w), slices.Sorted(maps.Keys(outcomes)), slices.Sorted(maps.Keys(want)))
	}
}

// audited is how a principal logged in, MECHANISM OUTCOME, as the audit log has it.
func (x *cell) audited(principal string) map[string]bool {
	x.Helper()
	audit, err := os.ReadFile(guardedOne.audit)
	if err != nil {
		x.Fatal(err)
	}
	outcomes := map[string]bool{}
	for text := range bytes.Lines(audit) {
		if !bytes.HasSuffix(text, []byte("\n")) {
			continue // another cell's, on its way
		}
		var line struct{ Event, Principal, Subject, Outcome string }
		if err := json.Unmarshal(text, &line); err != nil {
			x.Fatalf("%v: %s", err, text)
		}
		if line.Event == "login" && line.Principal == principal {
			outcomes[line.Subject+" "+line.Outcome] = true
		}
	}
	return outcomes
}

// TestGuardedNodesTellNoSecret runs after all cells: what those that logged in keep to
// themselves is in no log of the nodes, nor is what must never be there.
func TestGuardedNodesTellNoSecret(t *testing.T) {
	if guardedOne == nil {
		t.Skip("no cell has logged in")
	}
	secrets := map[string]string{"a password": password, "a user's key": "PRIVATE KEY", "a panic": "panic", "a race": "DATA RACE"}
	tokens, err := filepath.Glob(filepath.Join(guardedOne.dir, "*_token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tokens {
		token, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		secrets[filepath.Base(path)] = string(token)
	}
	logs, err := filepath.Glob(filepath.Join(guardedOne.dir, "data", "node-*.log"))
	if err != nil || len(logs) != len(guardedOne.brokers) {
		t.Fatalf("the nodes' logs are %v (%v), want %d", logs, err, len(guardedOne.brokers))
	}
	for _, path := range append(logs, guardedOne.audit) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, secret := range secrets {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s has %s", filepath.Base(path), what)
			}
		}
	}
}
