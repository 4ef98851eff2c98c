package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestFetcherRefusesWhatIsNoAnswer: a broker's answer is believed if it is one to
// the request, as far as its bytes go.
func TestFetcherRefusesWhatIsNoAnswer(t *testing.T) {
	frame := func(correlation uint32, rest ...byte) []byte {
		p := binary.BigEndian.AppendUint32(nil, uint32(4+len(rest)))
		return append(binary.BigEndian.AppendUint32(p, correlation), rest...)
	}
	empty := kmsg.NewFetchResponse()
	empty.SetVersion(fetcherVersion)
	body := empty.AppendTo([]byte{0})
	for _, test := range []struct {
		name   string
		answer []byte
		want   string // in the error; "": none
	}{
		{"an answer", frame(1, body...), ""},
		{"of another request", frame(2, body...), "answers request 2 when 1 was asked"},
		{"with tags", frame(1, append([]byte{1}, body[1:]...)...), "with 1 tags"},
		{"cut short", frame(1, body[:len(body)-3]...), "answers a fetch: "},
		{"too short for a header", []byte{0, 0, 0, 4, 0, 0, 0, 1}, "an answer of 4 bytes"},
		{"too long", []byte{0xff, 0xff, 0xff, 0xff}, "an answer of 4294967295 bytes"},
		{"the end", nil, "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := dialFetcher(t.Context(), answering(t, test.answer))
			if err != nil {
				t.Fatal(err)
			}
			defer f.close()
			response, err := f.fetch(kmsg.NewPtrFetchRequest())
			switch {
			case test.want == "" && (err != nil || response == nil):
				t.Errorf("refused: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %q in it", err, test.want)
			}
		})
	}
}

// TestFetcherEndsWithItsContext: a broker that never answers holds nobody up.
func TestFetcherEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	silent := make(chan struct{})
	defer close(silent)
	f, err := dialFetcher(ctx, listening(t, func(net.Conn) {
		cancel()
		<-silent
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if _, err := f.fetch(kmsg.NewPtrFetchRequest()); err == nil {
		t.Error("an answer, by a broker that gave none")
	}
	if _, err := f.fetch(kmsg.NewPtrFetchRequest()); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
}

// answering returns the address of a broker that answers the first request so.
func answering(t *testing.T, answer []byte) string {
	return listening(t, func(conn net.Conn) { conn.Write(answer) })
}

// listening returns the address of a broker that reads one request and leaves the
// connection, which it then closes, to serve.
func listening(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(length[:])))
		serve(conn)
	}()
	return l.Addr().String()
}
