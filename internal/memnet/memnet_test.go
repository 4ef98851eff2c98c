package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// connected runs f in virtual time with a connection from host a to host b. Nothing may be
// left running when both are closed.
func connected(t *testing.T, f func(t *testing.T, n *Network, a, b net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New()
		defer n.Close()
		l, err := n.Listen("b")
		if err != nil {
			t.Fatal(err)
		}
		a, err := n.Dial(t.Context(), "a", "b")
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		f(t, n, a, b)
	})
}

// writes fails the test unless text can be written without waiting.
func writes(t *testing.T, c net.Conn, text string) {
	t.Helper()
	began := time.Now()
	if n, err := c.Write([]byte(text)); n != len(text) || err != nil || time.Since(began) != 0 {
		t.Fatalf("wrote %d of %q in %v: %v", n, text, time.Since(began), err)
	}
}

// reads fails the test unless exactly want arrives, now, and then the error.
func reads(t *testing.T, c net.Conn, want string, then error) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Nanosecond))
	defer c.SetReadDeadline(time.Time{})
	got, err := io.ReadAll(c)
	if err == nil {
		err = io.EOF
	}
	if string(got) != want || !errors.Is(err, then) {
		t.Fatalf("read %q, %v; want %q, %v", got, err, want, then)
	}
}

// nothing is what reads finds behind what has arrived.
var nothing = os.ErrDeadlineExceeded

func TestBytesArriveInOrderWithoutTheirReader(t *testing.T) {
	connected(t, func(t *testing.T, n *Network, a, b net.Conn) {
		writes(t, a, "one ")
		writes(t, a, "two ")
		writes(t, b, "three")
		reads(t, b, "one two ", nothing)
		reads(t, a, "three", nothing)
		if a.LocalAddr().String() != "a" || a.RemoteAddr().String() != "b" || b.LocalAddr().String() != "b" || b.RemoteAddr().String() != "a" {
			t.Errorf("a is %v to %v, b is %v to %v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
		}
	})
}

func TestAWriteWaitsForAFullBuffer(t *testing.T) {
	connected(t, func(t *testing.T, n *Network, a, b net.Conn) {
		writes(t, a, strings.Repeat("x", window))
		began := time.Now()
		a.SetWriteDeadline(began.Add(time.Hour))
		if wrote, err := a.Write([]byte("y")); wrote != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Hour {
			t.Fatalf("%d bytes after %v: %v", wrote, time.Since(began), err)
		}
		a.SetWriteDeadline(time.Time{})
		time.AfterFunc(time.Minute, func() { b.Read(make([]byte, 1)) })
		began = time.Now()
		if _, err := a.Write([]byte("z")); err != nil || time.Since(began) != time.Minute {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	connected(t, func(t *testing.T, n *Network, a, b net.Conn) {
		began := time.Now()
		a.SetDeadline(began.Add(time.Hour))
		time.AfterFunc(time.Minute, func() { a.SetReadDeadline(began.Add(2 * time.Minute)) }) // while the read waits
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 2*time.Minute {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		writes(t, b, "x")
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("past its deadline, with a byte there: %v", err)
		}
		writes(t, a, "y") // whose deadline is another
		a.SetWriteDeadline(time.Now().Add(-time.Second))
		if _, err := a.Write([]byte("z")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write past its deadline: %v", err)
		}
		a.SetDeadline(time.Time{})
		reads(t, a, "x", nothing)
		writes(t, a, "z")
		reads(t, b, "yz", nothing)
	})
}

func TestEnds(t *testing.T) {
	connected(t, func(t *testing.T, n *Network, a, b net.Conn) {
		writes(t, a, "question")
		a.(*Conn).CloseWrite()
		reads(t, b, "question", io.EOF)
		writes(t, b, "answer") // half of it is open
		reads(t, a, "answer", nothing)
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		writes(t, b, "last words")
		b.Close()
		reads(t, a, "last words", io.EOF)
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
	})
	connected(t, func(t *testing.T, n *Network, a, b net.Conn) {
		time.AfterFunc(time.Minute, func() { a.Close() })
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close while it is read: %v", err)
		}
		writes(t, b, "what tells it that a is closed")
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("second write to a closed end: %v", err)
		}
	})
}

// What each way does to a connection in one direction, and leaves of the other.
func TestWays(t *testing.T) {
	for name, tt := range map[string]struct {
		way                 Way
		meanwhile, healed   error // that a finds behind what has arrived
		waiting, afterwards string
		dial                time.Duration
	}{
		"stalled": {Stalled, nothing, io.EOF, "", "12", 0},
		"held":    {Held, nothing, io.EOF, "", "12", time.Hour},
		"lost":    {Lost, nothing, nothing, "", "", time.Hour},
		"severed": {Severed, syscall.ECONNRESET, syscall.ECONNRESET, "", "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			connected(t, func(t *testing.T, n *Network, a, b net.Conn) {
				n.Set("b", "a", tt.way)
				if tt.way != Severed {
					writes(t, a, "heard")
					reads(t, b, "heard", nothing)
					writes(t, b, "1")
					writes(t, b, "2")
				}
				b.Close()
				reads(t, a, tt.waiting, tt.meanwhile)
				if tt.way != Severed {
					writes(t, a, "it does not know that b has closed")
				}
				time.AfterFunc(time.Hour, n.Heal)
				began := time.Now()
				for _, ends := range [][2]string{{"a", "b"}, {"c", "b"}} {
					c, err := n.Dial(t.Context(), ends[0], ends[1])
					switch took := time.Since(began); {
					case ends[0] == "c":
						if err != nil {
							t.Errorf("another host: %v", err)
						}
					case tt.dial < 0 && !errors.Is(err, syscall.ECONNREFUSED), tt.dial >= 0 && (err != nil || took > tt.dial+time.Second || took < tt.dial-time.Second):
						t.Errorf("dialed in %v: %v", took, err)
					}
					if c != nil {
						c.Close()
					}
				}
				time.Sleep(2 * time.Hour)
				reads(t, a, tt.afterwards, tt.healed)
			})
		})
	}
}

// A way set for every host is not opened with that between two.
func TestTheWorseWayCounts(t *testing.T) {
	connected(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.Set("", "b", Held)
		n.Set("a", "b", Stalled)
		n.Set("a", "b", Open)
		writes(t, a, "x")
		reads(t, b, "", nothing)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.Dial(ctx, "c", "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dialed: %v", err)
		}
		n.Set("", "b", Open)
		reads(t, b, "x", nothing)
	})
}

func TestAHostEnds(t *testing.T) {
	connected(t, func(t *testing.T, n *Network, a, b net.Conn) {
		if _, err := n.Listen("b"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listened twice: %v", err)
		}
		waits, err := n.Dial(t.Context(), "a", "b") // and is not accepted
		if err != nil {
			t.Fatal(err)
		}
		n.Kill("b")
		reads(t, a, "", io.EOF)
		reads(t, waits, "", io.EOF)
		for _, ends := range [][2]string{{"a", "b"}, {"b", "a"}} {
			if _, err := n.Dial(t.Context(), ends[0], ends[1]); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dialed %v: %v", ends, err)
			}
		}
		l, err := n.Listen("b")
		if err != nil {
			t.Fatal(err)
		}
		a, err = n.Dial(t.Context(), "a", "b")
		if err != nil {
			t.Fatal(err)
		}
		n.Vanish("b")
		writes(t, a, "it was told nothing")
		reads(t, a, "", nothing)
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepted: %v", err)
		}
	})
}

// pairs carries messages of two bytes: by their offset delayed, repeated, lost, and at once.
type pairs struct{}

// Carry implements Carrier.
func (pairs) Carry(from, to string, offset int64, b []byte) (int, []time.Duration) {
	if len(b) < 2 {
		return 0, nil
	}
	return 2, map[int64][]time.Duration{0: {time.Minute}, 2: {0, 2 * time.Minute}, 4: nil, 6: {0}}[offset]
}

// What comes of half a message comes at its connection's end.
func TestCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		defer n.Close()
		n.Carrier = pairs{}
		if _, err := n.Listen("b"); err != nil {
			t.Fatal(err)
		}
		a, err := n.Dial(t.Context(), "a", "b")
		if err != nil {
			t.Fatal(err)
		}
		b := n.listeners["b"].queue[0]
		writes(t, a, "AaBbCcD")
		reads(t, b, "Bb", nothing)
		writes(t, a, "dE")
		reads(t, b, "Dd", nothing)
		time.Sleep(time.Minute)
		reads(t, b, "Aa", nothing)
		time.Sleep(time.Minute)
		reads(t, b, "Bb", nothing)
		a.Close()
		reads(t, b, "E", io.EOF)
	})
}
