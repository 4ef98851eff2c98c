package local

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace"
	"millrace/cli/term"
	"millrace/security/certificate"
	"millrace/security/certificate/certificatetest"
)

// Half of a way to keep others out, and a door that nobody keeps, end the start with status 2
// and a sentence that says what would do.
func TestServeClosesWhenInDoubt(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := certificatetest.NewAuthority(t)
	cert, key := ca.Issue(t, "broker", time.Hour)
	old, oldKey := ca.Issue(t, "broker", -time.Hour)
	certFile, keyFile := file("cert.pem", cert, 0o644), file("key.pem", key, 0o600)
	const alone = "--listen=127.0.0.1:0"
	for _, test := range []struct {
		what    string
		environ string
		args    []string
		want    string
	}{
		{"another machine's door", "", []string{"--listen=0.0.0.0:0"}, "\"millrace cluster token\""},
		{"every address", "", []string{"--listen=:0"}, "MILLRACE_USER=admin MILLRACE_PASSWORD=… millrace serve --listen :0 --tls auto"},
		{"a name", "", []string{"--listen=example.org:9092"}, "or say --insecure"},
		{"in a file", "", []string{"--config=" + file("open.properties", "listeners=PLAINTEXT://0.0.0.0:0\n", 0o644)}, "or say --insecure"},
		{"said to be open", "", []string{"--config=" + file("said.properties", "listeners=IN://0.0.0.0:0\nlistener.security.protocol.map=IN:PLAINTEXT\n", 0o644)}, "or say --insecure"},
		{"TLS by which nobody is known", "", []string{"--listen=0.0.0.0:0", "--tls=auto"}, "nothing says who may come in"},
		{"a user without a password", "MILLRACE_USER=a", []string{alone}, "MILLRACE_PASSWORD is not"},
		{"a password without a user", "MILLRACE_PASSWORD=a", []string{alone}, "MILLRACE_USER, whose password it is, is not"},
		{"no such file", "", []string{alone, "--users=" + filepath.Join(dir, "none")}, "no such file"},
		{"a file that everybody reads", "", []string{alone, "--users=" + file("users", "a:b\n", 0o644)}, "chmod 600"},
		{"a line that is none", "", []string{alone, "--users=" + file("lines", "# users\na:b\nc\n", 0o600)}, "line 3 is not NAME:PASSWORD"},
		{"nobody", "", []string{alone, "--users=" + file("nobody", "# none\n", 0o600)}, "it names nobody"},
		{"nobody who may do anything", "", []string{alone, "--config=" + file("authorizer.properties", "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n", 0o644)}, "nobody who may do anything"},
		{"a protocol that is none", "", []string{alone, "--config=" + file("protocols.properties", "listener.security.protocol.map=OUT:TLS\n", 0o644)}, "\"OUT:TLS\" is not NAME:PROTOCOL"},
		{"an old TLS", "", []string{alone, "--config=" + file("old.properties", "ssl.enabled.protocols=TLSv1.1\n", 0o644)}, "any of TLSv1.2, TLSv1.3"},
		{"a weak suite", "", []string{alone, "--config=" + file("weak.properties", "ssl.cipher.suites=TLS_RSA_WITH_RC4_128_SHA\n", 0o644)}, "no suite that is held to be safe"},
		{"a mechanism that is none", "", []string{alone, "--config=" + file("mechanism.properties", "listener.name.plaintext.sasl.enabled.mechanisms=GSSAPI\n", 0o644)}, "it is any of SCRAM-SHA-512"},
		{"versions of a certificate that makes itself", "", []string{alone, "--tls=auto", "--config=" + file("versions.properties", "ssl.enabled.protocols=TLSv1.3\n", 0o644)}, "hold for certificates of your own"},
		{"a key alone", "", []string{alone, "--tls-key=" + keyFile}, "--tls-key is without --tls-cert"},
		{"a certificate alone", "", []string{alone, "--tls-cert=" + certFile}, "--tls-cert: "},
		{"another's key", "", []string{alone, "--tls-cert=" + certFile, "--tls-key=" + file("other.pem", oldKey, 0o600)}, "private key does not match"},
		{"a key that everybody reads", "", []string{alone, "--tls-cert=" + certFile, "--tls-key=" + file("public.pem", key, 0o644)}, "chmod 600"},
		{"one that has ended", "", []string{alone, "--tls-cert=" + file("old.pem", old, 0o644), "--tls-key=" + file("old-key.pem", oldKey, 0o600)}, "every client would refuse it"},
		{"no PEM", "", []string{alone, "--tls-cert=" + file("text", "hello", 0o600)}, "holds no PEM"},
		{"a Java key store", "", []string{alone, "--tls-cert=" + file("store.jks", "\xfe\xed\xfe\xed\x00\x00", 0o600)}, "keytool -importkeystore"},
		{"authorities that are none", "", []string{alone, "--tls-cert=" + certFile, "--tls-key=" + keyFile, "--tls-client-ca=" + keyFile}, "holds no certificate"},
		{"clients' authorities alone", "", []string{alone, "--tls-client-ca=" + certFile}, "--tls-client-ca is without --tls-cert"},
		{"two certificates", "", []string{alone, "--tls=auto", "--tls-cert=" + certFile, "--tls-key=" + keyFile}, "exclude each other"},
		{"another word", "", []string{alone, "--tls=yes"}, "--tls yes: it is auto"},
		{"SSL without a certificate", "", []string{"--config=" + file("ssl.properties", "listeners=SSL://127.0.0.1:0\n", 0o644)}, "listener SSL speaks SSL, and has no certificate to show"},
		{"a log-in for nobody", "", []string{"--config=" + file("sasl.properties", "listeners=SASL_PLAINTEXT://127.0.0.1:0\n", 0o644)}, "there is nobody who could"},
		{"required certificates of nobody", "", []string{"--config=" + file("auth.properties", "listeners=SSL://127.0.0.1:0\nssl.keystore.location="+certFile+"\nssl.client.auth=required\n", 0o644)}, "status 2"},
	} {
		t.Run(test.what, func(t *testing.T) {
			name, value, _ := strings.Cut(test.environ, "=")
			if name != "" {
				t.Setenv(name, value)
			}
			var out strings.Builder
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			status := runServe(ctx, append([]string{"serve", "--data-dir=" + filepath.Join(t.TempDir(), "data")}, test.args...), &out)
			if status != term.StatusUsage || test.want != "status 2" && !strings.Contains(out.String(), test.want) {
				t.Errorf("status %d: %s", status, out.String())
			}
			for _, secret := range []string{key, oldKey} {
				if strings.Contains(out.String(), strings.Split(secret, "\n")[1]) {
					t.Error("it shows a key")
				}
			}
		})
	}
}

// What says who may come in starts anywhere.
func TestServeElsewhere(t *testing.T) {
	for what, args := range map[string][]string{
		"a user": nil, "insecure": {"--insecure"},
	} {
		t.Run(what, func(t *testing.T) {
			if args == nil {
				t.Setenv("MILLRACE_USER", "admin")
				t.Setenv("MILLRACE_PASSWORD", "sesame")
			}
			ready := filepath.Join(t.TempDir(), "ready")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var out strings.Builder
			ended := make(chan int, 1)
			all := append([]string{"serve", "--ephemeral", "--listen=0.0.0.0:0", "--advertise=127.0.0.1:1", "--log-level=error", "--ready-file=" + ready}, args...)
			go func() { ended <- runServe(ctx, all, &out) }()
			for {
				if _, err := os.Stat(ready); err == nil {
					break
				}
				select {
				case status := <-ended:
					t.Fatalf("status %d: %s", status, out.String())
				case <-time.After(2 * time.Millisecond):
				}
			}
			cancel()
			if status := <-ended; status != term.StatusDone {
				t.Errorf("status %d: %s", status, out.String())
			}
		})
	}
}

// Where others may read what is sent, that is said, and nowhere else.
func TestPlainTextIsWarnedOf(t *testing.T) {
	for _, test := range []struct {
		listener listener
		warns    bool
	}{
		{listener{listen: "0.0.0.0:9092"}, true}, {listener{listen: "0.0.0.0:9092", insecure: true}, true}, {listener{listen: "0.0.0.0:9092", auto: true}, false},
		{listener{listen: "0.0.0.0:9092", protocol: millrace.SASLSSL, certificate: &certificate.Config{}}, false}, {listener{listen: "127.0.0.1:9092"}, false}, {listener{listen: "0.0.0.0:9093", only: true}, false},
	} {
		b := &broker{dataDir: t.TempDir(), users: []millrace.UserSecret{{Name: "a", Password: "b"}}, listeners: []listener{test.listener}}
		if err := b.exposed(); err != nil {
			t.Errorf("%+v: %v", test.listener, err)
		}
		if warned := len(b.warnings) == 1 && strings.Contains(b.warnings[0], "can be read on the way"); warned != test.warns {
			t.Errorf("%+v: %q", test.listener, b.warnings)
		}
	}
}

// Who forgets the @ is told so, and not that there is no such host.
func TestAFileIsNoAddress(t *testing.T) {
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := parseJoin("--join", name); err == nil || !strings.HasSuffix(err.Error(), "say @"+name) {
		t.Error(err)
	}
}

// What commands read of the environment is not warned of by a broker.
func TestVariablesOfCommandsAreKnown(t *testing.T) {
	for _, name := range []string{"MILLRACE_TLS_CA", "MILLRACE_PASSWORD_FILE", "MILLRACE_CONTEXT", "MILLRACE_BROKERS", "MILLRACE_USER"} {
		if !slices.Contains(knownVariables(), name) {
			t.Errorf("%s is nobody's", name)
		}
	}
}
