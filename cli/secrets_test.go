//go:build unix

package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/term"
	"millrace/security/certificate/certificatetest"
	"millrace/testdata/ports"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// A hunt has the secrets of a run, and everything that anybody could read of it.
type hunt struct {
	t       *testing.T
	secrets map[string]string // what it is, and the text to look for
	mu      sync.Mutex
	seen    map[string]string // where, and what was there
	env     []string
	dir     string
}

// keep adds a secret in each form in which a program is likely to print it.
func (h *hunt) keep(what, secret string) string {
	numbers := strings.Trim(fmt.Sprint([]byte(secret)), "[]")
	quoted, _ := json.Marshal(secret)
	for form, text := range map[string]string{
		"": secret, " in base64": base64.RawStdEncoding.EncodeToString([]byte(secret)), " in base64 for URLs": base64.RawURLEncoding.EncodeToString([]byte(secret)),
		" in hex": hex.EncodeToString([]byte(secret)), " in a URL": url.QueryEscape(secret), " in JSON": strings.Trim(string(quoted), `"`), " as numbers": numbers,
	} {
		h.secrets[what+form] = text
	}
	return secret
}

// keepKey adds a private key, by the lines of its PEM and by what they say.
func (h *hunt) keepKey(what, text string) {
	block, _ := pem.Decode([]byte(text))
	for block != nil && !strings.Contains(block.Type, "KEY") {
		text = text[strings.Index(text, "-----END")+8:]
		block, _ = pem.Decode([]byte(text))
	}
	if block == nil {
		h.t.Fatalf("%s: there is no key in it", what)
	}
	body := base64.StdEncoding.EncodeToString(block.Bytes)
	for _, at := range []int{40, 64} { // before comes which kind of key it is, behind it the public one
		h.secrets[fmt.Sprintf("%s, from %d", what, at)] = body[at : at+24]
	}
	h.secrets[what+" in hex"] = hex.EncodeToString(block.Bytes[36:60])
	h.secrets[what+" as numbers"] = strings.Trim(fmt.Sprint(block.Bytes[36:60]), "[]")
}

func (h *hunt) saw(where, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[where] += what
}

// run runs a command as somebody who may read its output would, and of whom others may read
// how it was called. What it is meant to print is taken out by the caller.
func (h *hunt) run(stdin string, status int, args ...string) clitest.Result {
	h.t.Helper()
	cmd := clitest.Command(h.t, nil, args...)
	cmd.Env = append(cmd.Env, h.env...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	late := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	cmd.Run()
	late.Stop()
	r := clitest.Result{Stdout: stdout.String(), Stderr: stderr.String(), Status: cmd.ProcessState.ExitCode()}
	line := "millrace " + strings.Join(args, " ")
	if r.Status != status {
		h.t.Errorf("%s: status %d, want %d: %s%s", line, r.Status, status, r.Stdout, r.Stderr)
	}
	h.saw("the command line of "+line, line)
	h.saw("the errors of "+line, r.Stderr)
	return r
}

// look is run of what prints nothing that is secret.
func (h *hunt) look(status int, args ...string) {
	h.t.Helper()
	r := h.run("", status, args...)
	h.saw("the output of millrace "+strings.Join(args, " "), r.Stdout)
}

// serve starts a node with a log of all that it has to say, and returns once it serves.
func (h *hunt) serve(name string, env []string, args ...string) *exec.Cmd {
	h.t.Helper()
	ready := filepath.Join(h.dir, name+".ready")
	cmd := clitest.Command(h.t, nil, append([]string{"serve", "--data-dir", filepath.Join(h.dir, name), "--log-level", "debug", "--ready-file", ready}, args...)...)
	cmd.Env = append(cmd.Env, env...)
	log, err := os.Create(filepath.Join(h.dir, name+".log"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Since(began) > time.Minute {
			text, _ := os.ReadFile(log.Name())
			h.t.Fatalf("%s does not serve: %s", name, text)
		}
	}
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid)); err == nil {
		h.saw("the process list, "+name, strings.ReplaceAll(string(line), "\x00", " "))
	}
	return cmd
}

// end lets a node say where all its goroutines are, and keeps what it logged.
func (h *hunt) end(name string, cmd *exec.Cmd) {
	h.t.Helper()
	cmd.Process.Signal(syscall.SIGQUIT)
	cmd.Wait()
	text, err := os.ReadFile(filepath.Join(h.dir, name+".log"))
	if err != nil || !bytes.Contains(text, []byte("goroutine ")) {
		h.t.Errorf("%s: %v; it did not say where its goroutines are", name, err)
	}
	h.saw("the log of "+name, string(text))
}

// found are the secrets that were seen, each with where.
func (h *hunt) found() (all []string) {
	for where, text := range h.seen {
		for what, secret := range h.secrets {
			if at := strings.Index(text, secret); at >= 0 {
				all = append(all, fmt.Sprintf("%s is in %s: …%s…", what, where, text[max(0, at-60):min(len(text), at+len(secret)+20)]))
			}
		}
	}
	return all
}

// tried logs in, and does not mind whether that goes well.
func (h *hunt) tried(address string, option kgo.Opt) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.SASL(), option, kgo.RequestRetries(0))
	if err != nil {
		h.t.Fatal(err)
	}
	defer client.Close()
	return client.Ping(h.t.Context())
}

// Every secret of a cluster goes through everything that takes one, well and badly, and is then
// looked for in all logs at the level of debugging, in what commands print, in how processes
// were called and in the stacks of a process that is made to crash.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Log("there is no /proc: how processes are called is not looked at")
	}
	h := &hunt{t: t, secrets: make(map[string]string), seen: make(map[string]string), dir: t.TempDir()}
	write := func(name, text string) string {
		path := filepath.Join(h.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const user = "admin"
	first := h.keep("the first user's password", `Founder"s pass-word`)
	alice, wrong := h.keep("alice's password", "alice in wonderland"), h.keep("a wrong password", "alice at the looking-glass")
	issuer := h.keep("the password of the issuer's address", "issuer-sesame-42")
	authority := certificatetest.NewAuthority(t)
	cert, key := authority.Issue(t, "broker", time.Hour)
	h.keepKey("the listener's key", key)
	// The issuer has no keys: each token is one of nobody's, and its address is in the log.
	keys := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(keys.Close)
	addresses := ports.Hold(t, 2)
	config := write("server.properties", "sasl.oauthbearer.jwks.endpoint.url="+keys.URL+"/keys\n"+
		"ssl.keystore.certificate.chain="+strings.ReplaceAll(cert, "\n", `\n`)+"\nssl.keystore.key="+strings.ReplaceAll(key, "\n", `\n`)+"\n")
	one := h.serve("one", []string{"MILLRACE_USER=" + user, "MILLRACE_PASSWORD=" + first}, "--listen", addresses[0], "--config", config)
	h.env = []string{"MILLRACE_BROKERS=" + addresses[0], "XDG_CONFIG_HOME=" + h.dir}
	data := filepath.Join(h.dir, "one")
	secret := write("admin.secret", first+"\n")
	own := []string{"--user", user, "--password-file", secret}
	as := func(args ...string) []string { return append(args, own...) }

	token := h.keep("the join token", strings.TrimSpace(h.run("", 0, "cluster", "token", "--data-dir", data).Stdout))
	two := h.serve("two", nil, "--listen", addresses[1], "--join", "@"+write("token", token))
	h.run("", term.StatusUsage, "serve", "--data-dir", filepath.Join(h.dir, "three"), "--listen", "127.0.0.1:0", "--join", "@"+write("half", token[:len(token)-8]))

	h.run(alice+"\n", 0, as("user", "create", "alice", "--new-password-file", "-")...)
	generated := h.keep("a password that was made", strings.TrimSpace(h.run("", 0, as("user", "create", "bob", "--generate")...).Stdout))
	h.run("", 0, as("user", "passwd", "alice", "--new-password-file", write("alice.secret", alice))...)
	h.look(0, as("user", "list", "-o", "json")...)
	founder := write("admin.properties", "security.protocol=SASL_PLAINTEXT\nsasl.username="+user+"\nsasl.password="+first+"\n")
	h.look(0, "acl", "grant", "--user", "alice", "--produce", "jobs", "--command-config", founder)
	h.look(0, "acl", "list", "--command-config", founder)
	h.look(0, "quota", "list", "--command-config", founder)
	jaas := "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username=\"alice\" password=\""
	for name, password := range map[string]string{"good": alice, "bad": wrong} {
		status := map[string]int{"good": 0, "bad": term.StatusNotAllowed}[name]
		h.look(status, "topic", "list", "--command-config", write(name+".properties", jaas+password+"\";\n"))
		h.look(status, "topic", "list", "--user", "alice", "--password-file", write(name+".secret", password))
		h.look(status, "topic", "list", "--user", "alice", "--password-file", filepath.Join(h.dir, name+".secret"), "-X", "sasl.mechanism=SCRAM-SHA-256")
	}
	h.look(term.StatusUsage, "topic", "list", "--command-config", write("malformed.properties", jaas+alice+"\n"+alice+"\n"))
	h.look(0, "context", "add", "shop", "--brokers", addresses[0], "--user", user, "--password-file", secret)
	for _, args := range [][]string{{"context", "list"}, {"context", "show", "-o", "json"}, {"topic", "list", "--context", "shop"}} {
		h.look(0, args...)
	}

	// Whatever goes wrong in the protocols themselves, a token of nobody's among it.
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"alice","exp":99999999999}`))
	bearer := h.keep("a token", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"k"}`))+"."+claims+"."+strings.Repeat("c2lnbmF0dXJl", 20))
	for what, option := range map[string]kgo.Opt{
		"a token":        kgo.SASL(oauth.Auth{Token: bearer}.AsMechanism()),
		"another's name": kgo.SASL(plain.Auth{Zid: "bob", User: "alice", Pass: alice}.AsMechanism()),
		"no such user":   kgo.SASL(scram.Auth{User: "nobody", Pass: generated}.AsSha512Mechanism()),
	} {
		if err := h.tried(addresses[0], option); err == nil {
			t.Errorf("%s comes in", what)
		} else {
			h.saw("the client's error, "+what, err.Error())
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addresses[0]), kgo.SASL(scram.Auth{User: "alice", Pass: alice}.AsSha512Mechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	made, err := kmsg.NewPtrCreateDelegationTokenRequest().RequestWith(t.Context(), client)
	if err != nil || made.ErrorCode != 0 {
		t.Fatalf("%+v, %v", made, err)
	}
	h.keep("a delegation token", string(made.HMAC))
	delegated := h.keep("a delegation token as a password", base64.StdEncoding.EncodeToString(made.HMAC))
	if err := h.tried(addresses[0], kgo.SASL(scram.Auth{User: made.TokenID, Pass: delegated, IsToken: true}.AsSha256Mechanism())); err != nil {
		t.Error(err)
	}

	for _, args := range [][]string{
		{"cluster", "config", "list"}, {"cluster", "config", "list", "-o", "json"}, {"cluster", "status"}, {"cluster", "metadata"}, {"doctor"},
	} {
		h.look(0, as(args...)...)
	}
	h.look(0, "cluster", "ca", "--data-dir", data)
	h.look(0, "cluster", "ca", "rotate", "--data-dir", data)
	for _, name := range []string{"one", "two"} {
		p, err := os.ReadFile(filepath.Join(h.dir, name, "node.pem"))
		if err != nil {
			t.Fatal(err)
		}
		h.keepKey("the key of node "+name, string(p))
	}
	h.end("one", one)
	h.end("two", two)
	for name, text := range map[string]string{
		"key":   "ssl.keystore.certificate.chain=" + strings.ReplaceAll(cert, "\n", `\n`) + "\nssl.keystore.key=" + strings.ReplaceAll(key, "\n", `\n`)[40:] + "\n",
		"twice": "ssl.keystore.key=" + strings.ReplaceAll(key, "\n", `\n`) + "\nssl.keystore.key=" + strings.ReplaceAll(key, "\n", `\n`) + "\n",
		"url":   "sasl.oauthbearer.jwks.endpoint.url=ftp://reader:" + issuer + "@host/keys\n",
		"user":  "sasl.oauthbearer.jwks.endpoint.url=http://reader:" + issuer + "@host/keys\n",
		"port":  "sasl.oauthbearer.jwks.endpoint.url=http://reader:" + issuer + "@host:x/keys\n",
	} {
		r := h.run("", term.StatusUsage, "serve", "--ephemeral", "--listen", "127.0.0.1:0", "--config", write(name+".server.properties", text))
		h.saw("the errors of a start with "+name, r.Stdout+r.Stderr)
	}
	for _, where := range []string{"the log of one", "the log of two", "the errors of a start with url"} {
		if len(h.seen[where]) < 100 {
			t.Errorf("%s has %q: there is nothing to look through", where, h.seen[where])
		}
	}
	for _, found := range h.found() {
		t.Error(found)
	}
}
