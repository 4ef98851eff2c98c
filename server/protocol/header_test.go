package protocol

import (
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol/protocoltest"
)

// everything is a guard that serves all there are layouts of, in all versions of kmsg.
func everything() *Guard {
	g := new(Guard)
	for key := range layouts {
		g.Serve(key, 0, kmsg.RequestForKey(int16(key)).MaxVersion())
	}
	return g
}

func TestHeaderIsReadInEveryVersion(t *testing.T) {
	g := everything()
	for key := range layouts {
		for v := range kmsg.RequestForKey(int16(key)).MaxVersion() + 1 {
			req := protocoltest.NewFiller(1).Request(key, v)
			frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("näme")).AppendRequest(nil, req, 7)[4:]
			h, body, err := g.ReadHeader(frame)
			if err != nil {
				t.Fatalf("%s version %d: %v", key.Name(), v, err)
			}
			want := Header{key, v, 7, "näme"}
			if h != want {
				t.Errorf("header %+v, want %+v", h, want)
			}
			if !slices.Equal(body, req.AppendTo(nil)) {
				t.Errorf("%s version %d: the body begins elsewhere", key.Name(), v)
			}
		}
	}
}

func TestHeadersThatAreRefused(t *testing.T) {
	var g Guard
	g.Serve(kmsg.Metadata, 0, 13)
	g.Serve(kmsg.Fetch, 4, 18)
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"no bytes", nil, ErrMalformed},
		{"seven bytes", make([]byte, 7), ErrMalformed},
		{"an unknown key", protocoltest.Frame(999, 0, 0xff, 0xff), ErrUnknownKey},
		{"a negative key", protocoltest.Frame(-1, 0, 0xff, 0xff), ErrUnknownKey},
		{"a key of the brokers' own", protocoltest.Frame(4, 0, 0xff, 0xff), ErrUnknownKey},
		{"version −1", protocoltest.Frame(kmsg.Metadata, -1, 0xff, 0xff), ErrVersion},
		{"version 32767", protocoltest.Frame(kmsg.Metadata, 32767, 0xff, 0xff), ErrVersion},
		{"version above", protocoltest.Frame(kmsg.Metadata, 14, 0xff, 0xff), ErrVersion},
		{"version below", protocoltest.Frame(kmsg.Fetch, 3, 0xff, 0xff), ErrVersion},
		{"no client", protocoltest.Frame(kmsg.Metadata, 0), ErrMalformed},
		{"a client longer than the frame", protocoltest.Frame(kmsg.Metadata, 0, 0x7f, 0xff, 'x'), ErrMalformed},
		{"a client of length −2", protocoltest.Frame(kmsg.Metadata, 0, 0xff, 0xfe), ErrMalformed},
		{"no tagged fields where they belong", protocoltest.Frame(kmsg.Metadata, 9, 0xff, 0xff), ErrMalformed},
		{"2³²−1 tagged fields", protocoltest.Frame(kmsg.Metadata, 9, append([]byte{0xff, 0xff}, huge...)...), ErrMalformed},
		{"2²⁸ tagged fields in eight bytes", protocoltest.Frame(kmsg.Metadata, 9, 0xff, 0xff, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 0, 0), ErrMalformed},
		{"a varint of six bytes", protocoltest.Frame(kmsg.Metadata, 9, 0xff, 0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0), ErrMalformed},
	} {
		if _, _, err := g.ReadHeader(c.frame); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(protocoltest.Frame(kmsg.Metadata, 9, 0, 1, 'x', 1, 0, 1, 1))
	f.Add(protocoltest.Frame(kmsg.ApiVersions, 0, 0xff, 0xff))
	g := everything()
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, body, err := g.ReadHeader(frame)
		if err != nil {
			return
		}
		if _, served := g.versions(h.Key); !served || h.Version < 0 || h.Version > kmsg.RequestForKey(int16(h.Key)).MaxVersion() || len(body) > len(frame)-HeaderSize-2 {
			t.Errorf("accepted %+v with a body of %d", h, len(body))
		}
	})
}
