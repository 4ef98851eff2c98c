package millrace_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace"
	"millrace/replication"
	"millrace/security/certificate"
	"millrace/security/certificate/certificatetest"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Each listener asks for what its protocol says; TLS and plain connections come on one port.
func TestListenersAskForWhatTheyAreToldTo(t *testing.T) {
	brokers, clients := certificatetest.NewAuthority(t), certificatetest.NewAuthority(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := brokers.Issue(t, "broker", time.Hour)
	pair := certificate.Config{Certificate: write("cert.pem", cert), Key: write("key.pem", key), ClientCA: write("ca.pem", clients.PEM)}
	withClients := pair
	withClients.ClientAuth = certificate.ClientAuthRequired
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
