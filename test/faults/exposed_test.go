//go:build faults

package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/replication/identity"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/sys/unix"
)

// A capture is every frame that crosses an interface while it is open.
type capture struct {
	socket int
	done   chan struct{}
	mu     sync.Mutex
	frames bytes.Buffer
	err    error
}

// capturePackets begins to record what crosses an interface. The test fails if the kernel
// had to leave out some of it: what was not seen says nothing.
func capturePackets(t *testing.T, device string) *capture {
	t.Helper()
	link, err := net.InterfaceByName(device)
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the network's order
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatalf("a packet socket: %v", err)
	}
	c := &capture{socket: socket, done: make(chan struct{})}
	for _, err := range []error{
		unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}),
	} {
		if err != nil {
			t.Fatalf("a packet socket on %s: %v", device, err)
		}
	}
	go c.read()
	t.Cleanup(func() { c.end(t) })
	return c
}

func (c *capture) read() {
	defer close(c.done)
	frame := make([]byte, 1<<17)
	for {
		n, err := unix.Read(c.socket, frame)
		c.mu.Lock()
		closed := c.err != nil
		if n > 0 {
			c.frames.Write(frame[:n])
		}
		c.mu.Unlock()
		if err == unix.EAGAIN && closed || err != nil && err != unix.EAGAIN && err != unix.EINTR {
			return
		}
	}
}

// await waits until a text has been seen.
func (c *capture) await(t *testing.T, text string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		seen := bytes.Contains(c.frames.Bytes(), []byte(text))
		c.mu.Unlock()
		if seen {
			return
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("what was sent in the open, %q, is not captured", text)
		}
	}
}

// end returns what has been seen, once all that was underway is read.
func (c *capture) end(t *testing.T) []byte {
	t.Helper()
	c.mu.Lock()
	first := c.err == nil
	c.err = net.ErrClosed
	c.mu.Unlock()
	<-c.done
	if first {
		if s, err := unix.GetsockoptTpacketStats(c.socket, unix.SOL_PACKET, unix.PACKET_STATISTICS); err != nil || s.Drops > 0 {
			t.Errorf("the capture is not whole: %v, %+v", err, s)
		}
		unix.Close(c.socket)
	}
	return c.frames.Bytes()
}

// Three machines become a cluster by README's four commands, and what crosses the network
// between them and their clients holds nothing of the records, of the password, nor of the
// token: neither as they are nor in base64.
func TestNothingIsReadableOnTheNetwork(t *testing.T) {
	const password, word = "correct-horse-battery-staple", "the-word-that-every-record-holds"
	l := newLab(t, 3)
	captured := capturePackets(t, "lab")
	for _, n := range l.nodes {
		n.Args = []string{"--tls", "auto"}
	}
	founder := l.node(1)
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("admin:"+password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	founder.Start("--users", users)
	founder.AwaitReady()
	millrace := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(binary, append(args, "--data-dir", founder.Data)...).Output()
		if err != nil {
			t.Fatalf("millrace %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	token := millrace("cluster", "token", "--uses", "2")
	for _, n := range l.nodes[1:] {
		n.Start("--join", token)
	}
	for _, n := range l.nodes[1:] {
		n.AwaitReady()
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM([]byte(millrace("cluster", "ca"))) {
		t.Fatal("cluster ca prints no certificate")
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(l.Addresses()...), kgo.DialTLSConfig(&tls.Config{RootCAs: authorities}),
		kgo.SASL(scram.Auth{User: "admin", Pass: password}.AsSha512Mechanism()), kgo.DefaultProduceTopic(labTopic), kgo.ConsumeTopics(labTopic),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	eventually(t, patience, "all three have joined, and hold a topic", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return createOn(ctx, client, 3)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const records = 300
	for i := range records {
		if err := client.ProduceSync(ctx, &kgo.Record{Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, "%s %d", word, i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for read := 0; read < records; {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetched.Records() {
			if !strings.HasPrefix(string(r.Value), word) {
				t.Fatalf("read %q", r.Value)
			}
			read++
		}
	}
	// That the capture sees what is not hidden: one record's word on a connection of its own.
	const open = "this-is-said-for-everybody-to-hear"
	conn, err := net.Dial("tcp", founder.Address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte(open))
	conn.Close()
	captured.await(t, open)
	seen := captured.end(t)
	if !bytes.Contains(seen, []byte(open)) {
		t.Fatalf("of %d bytes captured none are what was sent in the open", len(seen))
	}
	parsed, err := identity.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	secret := string(parsed.Secret)
	for what, text := range map[string]string{"records": word, "the password": password, "the token": token, "the token's secret": secret} {
		for _, form := range []string{text, base64.StdEncoding.EncodeToString([]byte(text))} {
			if n := bytes.Count(seen, []byte(form)); n > 0 {
				t.Errorf("%s: %d times in what crossed the network", what, n)
			}
		}
	}
	figure(t, "%.1f MB crossed the network, none of it to be read", float64(len(seen))/1e6)
	for _, n := range l.nodes {
		for _, hidden := range []string{password, token} {
			if found := n.GrepLog(hidden); len(found) > 1 || len(found) == 1 && !strings.HasPrefix(found[0], "----") {
				t.Errorf("the log of node %d holds a secret: %q", n.ID, found)
			}
		}
	}
}

// createOn makes the topic once there are so many brokers to hold it.
func createOn(ctx context.Context, client *kgo.Client, brokers int16) error {
	_, err := kadm.NewClient(client).CreateTopic(ctx, labPartitions, brokers, nil, labTopic)
	return err
}

// An address that others reach is refused, before anything listens and before the folder is
// anything, unless something says who may come in; the message has the commands for it.
func TestNobodyIsLetInUnasked(t *testing.T) {
	for _, address := range []string{"0.0.0.0:9092", "[::]:9092", labNet + "1:9092"} {
		dir := filepath.Join(t.TempDir(), "data")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := exec.CommandContext(ctx, binary, "serve", "--data-dir", dir, "--listen", address).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("serve --listen %s: %v, want status 2: %s", address, err, out)
		}
		for _, command := range []string{"MILLRACE_USER=admin MILLRACE_PASSWORD=… millrace serve --listen " + address + " --tls auto", "millrace cluster token", "--join TOKEN", "--insecure"} {
			if !strings.Contains(string(out), command) {
				t.Errorf("serve --listen %s does not name %q: %s", address, command, out)
			}
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("serve --listen %s has made its folder before it refused", address)
		}
	}
}
