package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace"
	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kfake"
)

// A pki is an authority, and certificates that it has signed, in files.
type pki struct {
	dir            string
	ca, cert, key  string // paths
	forServer      tls.Certificate
	authority      *x509.Certificate
	authoritiesKey *ecdsa.PrivateKey
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir()}
	sign := func(name string, template *x509.Certificate) (certPath, keyPath string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		parent, signer := p.authority, p.authoritiesKey
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		if p.authority == nil {
			p.authoritiesKey = key
			if p.authority, err = x509.ParseCertificate(der); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		certPath, keyPath = filepath.Join(p.dir, name+".pem"), filepath.Join(p.dir, name+".key")
		for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: der}, keyPath: {Type: "PRIVATE KEY", Bytes: raw}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return certPath, keyPath
	}
	p.ca, _ = sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	serverCert, serverKey := sign("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	p.cert, p.key = sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	var err error
	if p.forServer, err = tls.LoadX509KeyPair(serverCert, serverKey); err != nil {
		t.Fatal(err)
	}
	return p
}

// file writes a file that only its owner may read, and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// alone is a process's environment in which nobody has said how a cluster is reached.
func alone(t *testing.T) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, name := range kafka.Variables() {
		t.Setenv(name, "")
	}
}

const aliceSecret = "correct horse; \"battery\""

func newFake(t *testing.T, options ...kfake.Opt) string {
	t.Helper()
	c, err := kfake.NewCluster(append(options, kfake.NumBrokers(1), kfake.SeedTopics(1, "there"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

// Every way to say as whom a cluster is reached, and over what, reaches it; and each of
// several commands does, whichever client it makes.
func TestAClusterIsReachedAsItIsSaid(t *testing.T) {
	alone(t)
	p := newPKI(t)
	users := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "alice", aliceSecret), kfake.Superuser("SCRAM-SHA-256", "bob", "b"), kfake.Superuser("PLAIN", "carol", "c")}
	inTheOpen := newFake(t, users...)
	server := &tls.Config{Certificates: []tls.Certificate{p.forServer}}
	secured := newFake(t, append(users, kfake.TLS(server))...)
	mutual := server.Clone()
	mutual.ClientCAs, mutual.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	mutual.ClientCAs.AddCert(p.authority)
	certified := newFake(t, kfake.TLS(mutual))
	password := file(t, "password", aliceSecret+"\n")
	jaas := `org.apache.kafka.common.security.scram.ScramLoginModule required username="alice" password="` + strings.ReplaceAll(aliceSecret, `"`, `\\"`) + `";`
	client := file(t, "client.properties", "acks=all\nsecurity.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nssl.truststore.type=PEM\nssl.truststore.location="+p.ca+"\nsasl.jaas.config="+jaas+"\nbootstrap.servers="+secured+"\n")
	cert, _ := os.ReadFile(p.cert)
	key, _ := os.ReadFile(p.key)
	store := file(t, "store.pem", string(key)+string(cert))
	for _, test := range []struct {
		name, args string
		env        map[string]string
	}{
		{name: "user and password file", args: "-b " + inTheOpen + " --user alice --password-file " + password},
		{name: "environment", args: "-b " + inTheOpen, env: map[string]string{"MILLRACE_USER": "alice", "MILLRACE_PASSWORD": aliceSecret}},
		{name: "a file named by the environment", args: "-b " + inTheOpen, env: map[string]string{"MILLRACE_USER": "alice", "MILLRACE_PASSWORD_FILE": password}},
		{name: "another mechanism", args: "-b " + inTheOpen + " --user bob -X sasl.mechanism=SCRAM-SHA-256", env: map[string]string{"MILLRACE_PASSWORD": "b"}},
		{name: "TLS", args: "-b " + secured + " --user alice --tls-ca " + p.ca + " --password-file " + password},
		{name: "PLAIN over TLS", args: "-b " + secured + " --user carol --tls-ca " + p.ca + " -X sasl.mechanism=PLAIN", env: map[string]string{"MILLRACE_PASSWORD": "c"}},
		{name: "client.properties", args: "--command-config " + client},
		{name: "flags over client.properties", args: "--command-config " + client + " -b " + inTheOpen + " -X security.protocol=SASL_PLAINTEXT"},
		{name: "a certificate", args: "-b " + certified + " --tls-ca " + p.ca + " --tls-cert " + p.cert + " --tls-key " + p.key},
		{name: "a certificate and its key in one file", args: "-b " + certified + " -X ssl.truststore.location=" + p.ca + " -X ssl.keystore.type=PEM -X ssl.keystore.location=" + store},
	} {
		t.Run(test.name, func(t *testing.T) {
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			for _, line := range []string{"topic list", "topic describe there -o json", "produce there x", "consume there -e", "cluster status", "cluster health", "doctor", "group list", "topic alter there -c retention.ms=-1 --yes"} {
				r := runInProcess(t, append(strings.Fields(line), strings.Fields(test.args)...)...)
				if r.Status != term.StatusDone && !strings.Contains(r.Stdout, "log directories") {
					t.Errorf("millrace %s: status %d, %s%s", line, r.Status, r.Stdout, r.Stderr)
				}
			}
		})
	}
}

// Who is not let in is told why, in one line, and what to do.
func TestWhoIsNotLetInIsToldWhy(t *testing.T) {
	alone(t)
	p, others := newPKI(t), newPKI(t)
	users := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "alice", aliceSecret)}
	inTheOpen, nobody := newFake(t, users...), newFake(t)
	server := &tls.Config{Certificates: []tls.Certificate{p.forServer}}
	secured := newFake(t, kfake.TLS(server))
	mutual := server.Clone()
	mutual.ClientAuth = tls.RequireAnyClientCert
	certified := newFake(t, kfake.TLS(mutual))
	right, wrong := file(t, "right", aliceSecret), file(t, "wrong", "wrong-"+aliceSecret)
	// Ours takes TLS and what is in the open by the same port.
	b, err := millrace.Start(t.Context(), millrace.Config{
		Ephemeral: true, Users: []millrace.UserSecret{{Name: "alice", Password: aliceSecret}}, Listeners: []millrace.Listener{{Auto: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Shutdown(context.WithoutCancel(t.Context()))
	either := b.Addr()
	for _, test := range []struct{ args, want string }{
		{"-b " + either, "wants you to log in: say --user NAME and --password-file FILE; it takes SCRAM-SHA-512, SCRAM-SHA-256, PLAIN"},
		{"-b " + either + " --user alice --password-file " + wrong, `does not let user "alice" in`},
		{"-b " + either + " --user alice --password-file " + right + " -X security.protocol=SASL_SSL", "is signed by an authority that is not known here"},
		{"-b " + inTheOpen, "wants you to log in: say --user NAME and --password-file FILE"},
		{"-b " + inTheOpen + " --user alice --password-file " + wrong, `does not let user "alice" in: the password is wrong, or there is no such user; look at --user and --password-file`},
		{"-b " + inTheOpen + " --user mallory --password-file " + right, `does not let user "mallory" in`},
		{"-b " + secured, "wants TLS: say --tls-ca FILE"},
		{"-b " + secured + " --tls-ca " + others.ca, "is signed by an authority that is not known here: --tls-ca names another one"},
		{"-b " + secured + " -X security.protocol=SSL", "is signed by an authority that is not known here: have `millrace cluster ca` print it"},
		{"-b localhost:" + port(secured) + " --tls-ca " + p.ca, "is not for that name"},
		{"-b " + certified + " --tls-ca " + p.ca, "give it with --tls-cert and --tls-key"},
		{"-b " + nobody + " --tls-ca " + p.ca, "speaks no TLS"},
	} {
		for i, line := range []string{"topic list", "topic create new", "cluster status"} {
			if i > 0 && strings.HasPrefix(test.args, "-b "+nobody) {
				break // which is found out when it has not answered for ten seconds
			}
			r := runInProcess(t, append(strings.Fields(line), strings.Fields(test.args)...)...)
			if r.Status != term.StatusNotAllowed || !strings.Contains(r.Stderr, test.want) || strings.Count(r.Stderr, "\n") != 1 {
				t.Errorf("millrace %s %s: status %d, %swant %q", line, test.args, r.Status, r.Stderr, test.want)
			}
			if strings.Contains(r.Stderr, aliceSecret) {
				t.Errorf("millrace %s %s: the password is in %s", line, test.args, r.Stderr)
			}
		}
	}
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// Half of what is needed is an error, and so is a secret where everybody can read it; what
// may be one is not repeated.
func TestHalfAnAccessIsRefused(t *testing.T) {
	alone(t)
	p := newPKI(t)
	secret := "s3cr3t-of-alice"
	one := file(t, "one", secret+"\n")
	two := file(t, "two", secret+"\nand a second line\n")
	for args, want := range map[string]string{
		"--user alice":                        "no password, and no terminal to ask for it: say --password-file FILE or MILLRACE_PASSWORD",
		"--password-file " + one:              "log in as whom? say --user NAME, MILLRACE_USER or sasl.username",
		"--password " + secret:                "--password: what stands in a command line everybody on the machine can read (ps); write the password into a file, --password-file FILE, or set MILLRACE_PASSWORD",
		"--password=" + secret:                "--password: what stands in a command line everybody on the machine can read",
		"-X sasl.password=" + secret:          "-X sasl.password: what stands in a command line everybody on the machine can read (ps)",
		"-X sasl.jaas.config=" + secret:       "-X sasl.jaas.config: what stands in a command line everybody",
		"-X sasl.mechanisn=PLAIN":             "-X sasl.mechanisn: it does not say how a cluster is reached (did you mean sasl.mechanism?)",
		"-X security.protocol=" + secret:      "security.protocol is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
		"-X security.protocol=SASL_SSL":       "log in as whom?",
		"--user alice --password-file two":    "",
		"--user alice --password-file " + two: "it has several lines; the password stands there alone",
		"--user alice --password-file " + one + " -X sasl.mechanism=GSSAPI": "sasl.mechanism is SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or OAUTHBEARER",
		"--user alice --password-file " + one + " -X sasl.mechanism=PLAIN":  "sasl.mechanism PLAIN sends the secret as it is: say --tls-ca FILE, or -X security.protocol=SASL_PLAINTEXT",
		"--tls-cert " + p.cert:                        "a certificate without its key: say --tls-key FILE as well",
		"--tls-key " + p.key:                          "a key without its certificate: say --tls-cert FILE as well",
		"--tls-ca " + p.key:                           "holds no certificate in PEM",
		"--tls-cert " + p.cert + " --tls-key " + p.ca: "the certificate and its key: ",
		"--tls-ca /nowhere":                           "--tls-ca: open /nowhere: no such file or directory",
		"-X ssl.truststore.type=JKS --tls-ca " + p.ca: "is Java's own: convert it to PEM",
		"--context nowhere":                           `context "nowhere" does not exist`,
		"--command-config " + file(t, "f", "=x\n"):    ":1: it is no KEY=VALUE",
		"--command-config " + file(t, "g", "sasl.jaas.config=a.b.ScramLoginModule required password="+secret+";\n"): "sasl.jaas.config says username",
	} {
		r := runInProcess(t, append([]string{"topic", "list", "-b", "127.0.0.1:1"}, strings.Fields(args)...)...)
		if r.Status == term.StatusDone || r.Status == term.StatusFailed || !strings.Contains(r.Stderr, want) || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("%s: status %d, %swant %s", args, r.Status, r.Stderr, want)
		}
		if strings.Contains(r.Stdout+r.Stderr, secret) {
			t.Errorf("%s: a secret is repeated: %s", args, r.Stderr)
		}
	}
}
