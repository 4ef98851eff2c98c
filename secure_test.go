package millrace_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace"
	"millrace/replication"
	"millrace/security/certificate"
	"millrace/security/certificate/certificatetest"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// secretFiles is a folder, and writes files into it that only their owner may read.
func secretFiles(t *testing.T) (dir string, write func(name, text string) (path string)) {
	dir = t.TempDir()
	return dir, func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// Each listener asks for what its protocol says; TLS and plain connections come on one port.
func TestListenersAskForWhatTheyAreToldTo(t *testing.T) {
	brokers, clients := certificatetest.NewAuthority(t), certificatetest.NewAuthority(t)
	dir, write := secretFiles(t)
	cert, key := brokers.Issue(t, "broker", time.Hour)
	pair := certificate.Config{Certificate: write("cert.pem", cert), Key: write("key.pem", key), ClientCA: write("ca.pem", clients.PEM)}
	withClients := pair
	withClients.ClientAuth = certificate.ClientAuthRequired
	newest := pair
	newest.MinVersion = tls.VersionTLS13
	data := filepath.Join(dir, "data")
	b, err := millrace.Start(t.Context(), millrace.Config{
		DataDir: data,
		Users:   []millrace.UserSecret{{Name: "alice", Password: "sesame"}},
		Listeners: []millrace.Listener{
			{Name: "AUTO", Auto: true},
			{Name: "OPEN", Protocol: millrace.Plaintext},
			{Name: "LOGIN", Protocol: millrace.SASLPlaintext},
			{Name: "TLS", Protocol: millrace.SSL, Certificate: &withClients},
			{Name: "BOTH", Protocol: millrace.SASLSSL, Certificate: &pair},
			{Name: "PLAIN", Protocol: millrace.SASLPlaintext, Mechanisms: []string{"PLAIN"}},
			{Name: "NEWEST", Protocol: millrace.SSL, Certificate: &newest},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Shutdown(context.WithoutCancel(t.Context()))
	image, err := replication.LastImage(data) // which is saved beside all else
	for ; err != nil || len(image.Authorities()) == 0; image, err = replication.LastImage(data) {
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	trust := func(pem string) *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM([]byte(pem))
		return pool
	}
	mine, mineKey := clients.Issue(t, "alice", time.Hour)
	own, err := tls.X509KeyPair([]byte(mine), []byte(mineKey))
	if err != nil {
		t.Fatal(err)
	}
	login := kgo.SASL(scram.Auth{User: "alice", Pass: "sesame"}.AsSha512Mechanism())
	auto := kgo.DialTLSConfig(&tls.Config{RootCAs: trust(image.Authorities()[0].Certificate)})
	plainTLS := kgo.DialTLSConfig(&tls.Config{RootCAs: trust(brokers.PEM)})
	mutual := kgo.DialTLSConfig(&tls.Config{RootCAs: trust(brokers.PEM), Certificates: []tls.Certificate{own}})
	at := make(map[string]string)
	for _, l := range b.Listeners() {
		at[l.Name] = l.Listen
	}
	for _, test := range []struct {
		listener, as string
		options      []kgo.Opt
		in           bool
	}{
		{"AUTO", "nobody", nil, false},
		{"AUTO", "a user", []kgo.Opt{login}, true},
		{"AUTO", "a user over TLS", []kgo.Opt{login, auto}, true},
		{"AUTO", "nobody over TLS", []kgo.Opt{auto}, false},
		{"OPEN", "nobody", nil, true},
		{"LOGIN", "nobody", nil, false},
		{"LOGIN", "a user", []kgo.Opt{login}, true},
		{"LOGIN", "a user over TLS, which it has not", []kgo.Opt{login, auto}, false},
		{"TLS", "nobody", nil, false},
		{"TLS", "a user", []kgo.Opt{login}, false},
		{"TLS", "nobody over TLS", []kgo.Opt{plainTLS}, false},
		{"TLS", "who shows a certificate", []kgo.Opt{mutual}, true},
		{"BOTH", "a user", []kgo.Opt{login}, false},
		{"BOTH", "nobody over TLS", []kgo.Opt{plainTLS}, false},
		{"BOTH", "a user over TLS", []kgo.Opt{login, plainTLS}, true},
		{"PLAIN", "a user by SCRAM", []kgo.Opt{login}, false},
		{"PLAIN", "a user by PLAIN", []kgo.Opt{kgo.SASL(plain.Auth{User: "alice", Pass: "sesame"}.AsMechanism())}, true},
		{"NEWEST", "who speaks TLS 1.2", []kgo.Opt{kgo.DialTLSConfig(&tls.Config{RootCAs: trust(brokers.PEM), MaxVersion: tls.VersionTLS12})}, false},
		{"NEWEST", "who speaks TLS 1.3", []kgo.Opt{plainTLS}, true},
	} {
		cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(at[test.listener]), kgo.RequestRetries(0), kgo.DialTimeout(10 * time.Second)}, test.options...)...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := cl.Ping(ctx); (err == nil) != test.in {
			t.Errorf("%s, %s: %v", test.listener, test.as, err)
		}
		cancel()
		cl.Close()
	}
}

// Certificates are changed while clients come, produce and go: file by file, with a while in
// between in which nothing fits. No record fails, and who comes afterwards is shown the new one.
func TestCertificatesChangeUnderLoad(t *testing.T) {
	authority, people := certificatetest.NewAuthority(t), certificatetest.NewAuthority(t)
	_, write := secretFiles(t)
	cert, key := authority.Issue(t, "first", time.Hour)
	shown := certificate.Config{Certificate: write("cert.pem", cert), Key: write("key.pem", key), ClientCA: write("ca.pem", people.PEM), ClientAuth: certificate.ClientAuthRequested}
	b, err := millrace.Start(t.Context(), millrace.Config{Ephemeral: true, Listeners: []millrace.Listener{{Name: "TLS", Protocol: millrace.SSL, Certificate: &shown}}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Shutdown(context.WithoutCancel(t.Context()))
	address := b.Listeners()[0].Listen
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(authority.PEM))
	mine, mineKey := people.Issue(t, "alice", time.Hour)
	own, err := tls.X509KeyPair([]byte(mine), []byte(mineKey))
	if err != nil {
		t.Fatal(err)
	}
	admin, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DialTLSConfig(&tls.Config{RootCAs: pool}))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := kadm.NewClient(admin).CreateTopic(t.Context(), 1, 1, nil, "jobs"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	var produced atomic.Int64
	for i := range 4 {
		config := &tls.Config{RootCAs: pool}
		if i%2 == 1 {
			config.Certificates = []tls.Certificate{own}
		}
		load.Go(func() {
			for ctx.Err() == nil { // each time with new connections
				client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DialTLSConfig(config), kgo.RecordRetries(0))
				if err != nil {
					t.Error(err)
					return
				}
				for range 20 {
					if err := client.ProduceSync(context.WithoutCancel(ctx), &kgo.Record{Topic: "jobs", Value: []byte("x")}).FirstErr(); err != nil {
						t.Errorf("client %d: %v", i, err)
					}
					produced.Add(1)
				}
				client.Close()
			}
		})
	}
	subject := func() string {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool})
		if err != nil {
			t.Errorf("nobody comes in: %v", err)
			return ""
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	// There is no event to wait for: files are looked at when somebody comes.
	shows := func(name string) {
		for began := time.Now(); subject() != name; time.Sleep(10 * time.Millisecond) {
			if time.Since(began) > time.Minute {
				t.Fatalf("it shows %s, not %s", subject(), name)
			}
		}
	}
	before := "first"
	for _, next := range []string{"second", "third"} {
		write("key.pem", "half a ")
		time.Sleep(1200 * time.Millisecond) // it is looked at in between
		if got := subject(); got != before {
			t.Errorf("with half a key it shows %s, not %s", got, before)
		}
		cert, key := authority.Issue(t, next, time.Hour)
		write("cert.pem", cert)
		write("key.pem", key)
		shows(next)
		before = next
	}
	cancel()
	load.Wait()
	if produced.Load() == 0 {
		t.Error("nothing was produced")
	}
}
