package transport

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"millrace/internal/memnet"
)

// The handshake of the first release, as its own code wrote it. Who runs that release
// is said hello to by later ones in the same way, and lets them in: it skips what follows the
// fields it knows.
const firstHello = "4d4c52430101002a3c7bd5721112131415161718" +
	"00000002000000010007636c757374657200016200016100" + "09686f73743a39303932"

func TestHandshakeOfTheFirstReleaseIsUnderstood(t *testing.T) {
	frozen, err := hex.DecodeString(firstHello)
	if err != nil {
		t.Fatal(err)
	}
	n := alone(t, func(cfg *Config) {
		cfg.Cluster = "cluster"
		hooksOf(cfg).about = func() string { return "about" }
		hooksOf(cfg).judge = func(p Peer, about string) error {
			if p != (Peer{2, "b"}) || about != "" {
				t.Errorf("%s came with %q", p, about)
			}
			return nil
		}
	})
	n.high = 5
	s := rawConn(t, n)
	s.raw(frozen)
	if a := s.ack(); a.status != statusWelcome || a.low != 1 || a.high != 5 || a.about != "about" {
		t.Fatalf("answered %+v", a)
	}
	s.in = &intake{r: newReader(s.conn), kind: kindControl, answers: true}
	frame, _ := newFrame(typePing, 0)
	s.send(frame, 5)
	if h, _, _ := s.answer(); h.typ != typePong {
		t.Errorf("answer of type %d", h.typ)
	}
	// What a later release says begins with the same fields, under the same version.
	ours := hello{kind: kindControl, low: 1, high: 5, about: "x", session: 0x1112131415161718, from: Peer{2, "b"}, target: Peer{1, "a"}, cluster: "cluster", address: "host:9092"}.encode()
	if ours[4] != 1 || string(ours[helloFixed:len(frozen)]) != string(frozen[helloFixed:]) {
		t.Errorf("a later release's handshake does not begin as the first one's:\n%x\n%x", ours, frozen)
	}
}

// Two releases speak the highest version that both know, whoever dials; if there is
// none both sides say which versions there are.
func TestVersionIsNegotiated(t *testing.T) {
	for _, c := range []struct{ low1, high1, low2, high2, want uint8 }{
		{1, 1, 1, 1, 1},
		{1, 3, 1, 1, 1},
		{1, 3, 2, 5, 3},
		{2, 5, 1, 3, 3},
		{1, 1, 2, 5, 0},
		{4, 5, 1, 3, 0},
	} {
		bubble(t, 2, nil, func(t *testing.T, cl *cluster, _ *memnet.Network) {
			a, b := cl.nodes[0], cl.nodes[1]
			a.low, a.high, b.low, b.high = c.low1, c.high1, c.low2, c.high2
			link, err := a.peers.of(2).connect(kindControl, "", nil)
			if c.want == 0 {
				if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "versions") {
					t.Fatalf("%+v: %v", c, err)
				}
				if b.Stats().Refused == 0 {
					t.Errorf("%+v: the other side has refused nobody", c)
				}
				return
			}
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			if link.conn.version != c.want {
				t.Errorf("%+v: the dialling side speaks version %d", c, link.conn.version)
			}
			time.Sleep(time.Second)
			b.connections.mu.Lock()
			defer b.connections.mu.Unlock()
			for served := range b.connections.present[a.peer].conns {
				if served.version != c.want {
					t.Errorf("%+v: the answering side speaks version %d", c, served.version)
				}
			}
		})
	}
}

// Who is no member opens no connection, from either side; and who is told that its
// data folder is an old copy hears of it.
func TestJudgeKeepsStrangersOut(t *testing.T) {
	outdated := make(chan string, 10)
	bubble(t, 2, func(cfg *Config) {
		me := cfg.Local
		hooksOf(cfg).about = func() string { return "i am " + me.Incarnation }
		hooksOf(cfg).judge = func(p Peer, about string) error {
			if about != "i am "+p.Incarnation {
				t.Errorf("%s says %q", p, about)
			}
			if me.Node == 1 {
				return ErrOldDisk
			}
			return nil
		}
		hooksOf(cfg).outdated = func(by Peer, reason string) { outdated <- by.String() + ": " + reason }
	}, func(t *testing.T, c *cluster, _ *memnet.Network) {
		a, b := c.nodes[0], c.nodes[1]
		if _, err := b.Call(context.Background(), 1, 1, nil); !errors.Is(err, ErrOldDisk) {
			t.Errorf("the caller that was refused got %v", err)
		}
		if _, err := a.Call(context.Background(), 2, 1, nil); !errors.Is(err, ErrOldDisk) {
			t.Errorf("the caller that refuses got %v", err)
		}
		if got := <-outdated; !strings.HasPrefix(got, "1.: transport: an old copy") {
			t.Errorf("heard %q", got)
		}
		time.Sleep(time.Second)
		if got := b.Connected(); len(got) != 0 {
			t.Errorf("connected to %v", got)
		}
	})
}

// Who is refused because another incarnation has its place is told at which change of the
// metadata that is known, and its caller what it is.
func TestWhoWasReplacedIsToldSinceWhen(t *testing.T) {
	type told struct {
		by     Peer
		at     uint64
		reason string
	}
	replaced := make(chan told, 10)
	bubble(t, 2, func(cfg *Config) {
		me := cfg.Local
		hooksOf(cfg).judge = func(p Peer, _ string) error {
			if me.Node == 1 {
				return fmt.Errorf("no: %w", &ReplacedError{Peer: p, At: 1 << 40})
			}
			return nil
		}
		hooksOf(cfg).replaced = func(by Peer, at uint64, reason string) { replaced <- told{by, at, reason} }
	}, func(t *testing.T, c *cluster, _ *memnet.Network) {
		if _, err := c.nodes[1].Call(context.Background(), 1, 1, nil); !errors.Is(err, ErrReplaced) {
			t.Errorf("the caller that was refused got %v", err)
		}
		if got := <-replaced; got.by.Node != 1 || got.at != 1<<40 || !strings.HasPrefix(got.reason, "no: transport: another incarnation took the peer's place") {
			t.Errorf("heard %+v", got)
		}
	})
}

// What comes before the node serves clients, from clients and from who looks whether the
// port is open, is refused without a line; a node that cannot be understood is not.
func TestClientsThatComeTooEarlyAreNoWarning(t *testing.T) {
	for _, test := range []struct {
		says  string
		warns bool
	}{
		{"", false},
		{"\x00\x00\x00%\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07", false},
		{"GET / HTTP/1.1\r\n\r\n", false},
		{Magic + "\x01\x01\x00\x00\xff\xff\xff\xff", true},
	} {
		var log bytes.Buffer
		tr := New(Config{
			Cluster: "test", Local: Peer{1, "a"}, Address: "a:1",
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		ours, theirs := net.Pipe()
		served := make(chan struct{})
		go func() { tr.Serve(ours); close(served) }()
		go io.Copy(io.Discard, theirs) // what it answers
		theirs.Write([]byte(test.says))
		if test.says == "" {
			theirs.Close()
		}
		<-served
		theirs.Close()
		tr.Close()
		if got := log.Len() > 0; got != test.warns {
			t.Errorf("%q: a line %t, want %t: %s", test.says, got, test.warns, log.String())
		}
	}
}
