package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/security/certificate/certificatetest"
)

func TestRules(t *testing.T) {
	const subject = "CN=alice,OU=clients,O=Example"
	for text, want := range map[string]string{
		"":                                    subject,
		"DEFAULT":                             subject,
		`RULE:^CN=(.*?),OU=clients.*$/$1/`:    "alice",
		`RULE:^CN=(.*?),OU=clients.*$/$1@x/U`: "ALICE@X",
		`RULE:^CN=(.*?),OU=servers.*$/$1/,RULE:^.*O=(\w+)$/of $1/L`: "of example",
		`RULE:^CN=(.*?),OU=servers.*$/$1/,DEFAULT`:                  subject,
		`RULE:CN=(.*?),OU=(.*?),O=.*/$2\/$1x/`:                      "clients/alicex",
		`RULE:^OU=x$/y/, RULE:^CN=([^,]*),.*$/$1/ , DEFAULT`:        "alice",
		`RULE:^CN=(.*?),OU=servers.*$/$1/`:                          "error",
		`RULE:alice/x/`:                                             "error", // it is not all of it
		`RULE:.*//`:                                                 "error", // nobody's name
		// As Java's Matcher.replaceAll and Kafka's SslPrincipalMapper have it.
		`RULE:CN=(.*?),.*/$2-$1/`:              "$2-alice",
		`RULE:CN=(.*?),.*/$12/`:                "alice2",
		`RULE:CN=(.*?),.*/$01\$1\\$0/`:         `alice$1\` + subject,
		`RULE:CN=(?P<who>.*?),.*/${who}!/`:     "alice!",
		` , ,RULE:CN=(.*?),OU=.*/$1/ ,, `:      "alice",
		`RULE:,RULE:,/,RULE:,\//U,DEFAULT`:     subject,
		`RULE:(.*),DEFAULT,RULE:x/y/,DEFAULT,`: subject,
	} {
		rules, err := ParseRules(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := rules.Name(subject)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"default", "RULE:", "RULE:a", "RULE:a/b", "RULE:a/b/X", "RULE:(/b/", "DEFAUL", "DEFAULT/L", "x,DEFAULT", "DEFAULT DEFAULT", `RULE:(?=a)/b/`, `RULE:a/b/L/U`, `RULE:a/$1/`, `RULE:(a)/$/`, `RULE:(a)/$x/`, `RULE:(a)/${x}/`, `RULE:(a)/${x/`, `RULE:(a)(b/$1/`, `RULE:a)|(?:b/c/`} {
		if rules, err := ParseRules(text); err == nil {
			t.Errorf("%q was taken: %v", text, rules)
		}
	}
}

func FuzzRules(f *testing.F) {
	for _, seed := range []string{"DEFAULT", `RULE:^CN=(.*?),OU=a.*$/$1/U,DEFAULT`, `RULE:a\/b/$9$0/L`, "RULE:,RULE:/,/", `RULE:()/$1/`} {
		f.Add(seed, "CN=alice,O=b")
	}
	f.Fuzz(func(t *testing.T, text, subject string) {
		rules, err := ParseRules(text)
		if err != nil {
			return
		}
		if name, err := rules.Name(subject); err == nil && name == "" && subject != "" {
			t.Errorf("%q makes nobody of %q", text, subject)
		}
	})
}

// files are those of a broker and of its clients' authority, with a source of them.
type files struct {
	t             *testing.T
	dir           string
	now           time.Time
	log           strings.Builder
	brokers, ours *certificatetest.Authority
	source        *Source
}

func (f *files) write(name, text string) string {
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func start(t *testing.T, auth ClientAuth) *files {
	f := &files{t: t, dir: t.TempDir(), now: time.Now(), brokers: certificatetest.NewAuthority(t), ours: certificatetest.NewAuthority(t)}
	cert, key := f.brokers.Issue(t, "broker", 20*time.Hour)
	rules, err := ParseRules(`RULE:^CN=([^,]*),.*$/$1/,DEFAULT`)
	if err != nil {
		t.Fatal(err)
	}
	f.source, err = New(Config{
		Certificate: f.write("cert.pem", cert), Key: f.write("key.pem", key), ClientCA: f.write("ca.pem", f.ours.PEM), ClientAuth: auth, Rules: rules,
		Logger: slog.New(slog.NewTextHandler(&f.log, nil)), Now: func() time.Time { return f.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shake makes a handshake as a client with a certificate, "" for none, that trusts an
// authority, and returns what comes of it on either side.
func (f *files) shake(trust *certificatetest.Authority, cert, key string) (who string, client, server error) {
	f.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(trust.PEM))
	cfg := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	if cert != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			f.t.Fatal(err)
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil } // whatever is asked for
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	s := tls.Server(b, f.source.TLS())
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		b.Close()
		done <- err
	}()
	c := tls.Client(a, cfg)
	client = c.Handshake()
	if client == nil {
		_, client = c.Read(make([]byte, 1))
	}
	a.Close()
	if server = <-done; server != nil {
		return "", client, server
	}
	who, err := f.source.Principal(s.ConnectionState())
	if err != nil {
		f.t.Errorf("principal: %v", err)
	}
	return who, client, nil
}

// Who shows a certificate of the right authority is who it says, and others stay outside.
func TestClientsShowCertificates(t *testing.T) {
	for _, auth := range []ClientAuth{ClientAuthNone, ClientAuthRequested, ClientAuthRequired} {
		f := start(t, auth)
		cert, key := f.ours.Issue(t, "alice", time.Hour)
		old, oldKey := f.ours.Issue(t, "alice", -time.Hour)
		foreign, foreignKey := f.brokers.Issue(t, "alice", time.Hour)
		for _, test := range []struct {
			what, cert, key string
			who             string // "-": it is refused
		}{
			{"none", "", "", map[ClientAuth]string{ClientAuthRequired: "-"}[auth]},
			{"a good one", cert, key, map[ClientAuth]string{ClientAuthRequested: "User:alice", ClientAuthRequired: "User:alice"}[auth]},
			{"one that has ended", old, oldKey, map[ClientAuth]string{ClientAuthRequested: "-", ClientAuthRequired: "-"}[auth]},
			{"one of another authority", foreign, foreignKey, map[ClientAuth]string{ClientAuthRequested: "-", ClientAuthRequired: "-"}[auth]},
		} {
			who, client, server := f.shake(f.brokers, test.cert, test.key)
			switch {
			case test.who == "-" && (server == nil || client == nil):
				t.Errorf("%s, %s: %q came in", auth, test.what, who)
			case test.who != "-" && (server != nil || client != nil || who != test.who):
				t.Errorf("%s, %s: %q, %v, %v", auth, test.what, who, client, server)
			}
		}
	}
}

// Files that change are taken up by the next handshake, in pairs that fit: what cannot be used
// leaves what was there, and is told.
func TestFilesChange(t *testing.T) {
	f := start(t, ClientAuthRequested)
	if !strings.Contains(f.log.String(), "ends soon") {
		t.Errorf("nothing is said of the end: %s", f.log.String())
	}
	next := certificatetest.NewAuthority(t)
	cert, key := next.Issue(t, "broker", 20*time.Hour)
	f.write("cert.pem", cert) // and not yet the key
	f.now = f.now.Add(lookEvery)
	if _, client, server := f.shake(f.brokers, "", ""); client != nil || server != nil {
		t.Errorf("between two files: %v, %v", client, server)
	}
	if !strings.Contains(f.log.String(), "cannot be used") || strings.Contains(f.log.String(), strings.Split(key, "\n")[1]) {
		t.Errorf("it says: %s", f.log.String())
	}
	f.write("key.pem", key)
	if _, client, _ := f.shake(f.brokers, "", ""); client != nil {
		t.Errorf("within a second: %v", client)
	}
	f.now = f.now.Add(lookEvery)
	if _, client, server := f.shake(next, "", ""); client != nil || server != nil {
		t.Errorf("afterwards: %v, %v", client, server)
	}
	if _, client, _ := f.shake(f.brokers, "", ""); client == nil {
		t.Error("the old one is still shown")
	}
	// One that has ended is no better than the one that is shown.
	ended, endedKey := next.Issue(t, "broker", -time.Hour)
	f.write("cert.pem", ended)
	f.write("key.pem", endedKey)
	f.now = f.now.Add(lookEvery)
	if _, client, server := f.shake(next, "", ""); client != nil || server != nil || !strings.Contains(f.log.String(), "ended at") {
		t.Errorf("after one that has ended: %v, %v; it says: %s", client, server, f.log.String())
	}
	// Another authority of clients.
	mine, mineKey := next.Issue(t, "bob", time.Hour)
	f.write("cert.pem", cert)
	f.write("key.pem", key)
	f.write("ca.pem", f.ours.PEM+next.PEM)
	f.now = f.now.Add(lookEvery)
	if who, client, server := f.shake(next, mine, mineKey); who != "User:bob" || client != nil || server != nil {
		t.Errorf("%q, %v, %v", who, client, server)
	}
}
