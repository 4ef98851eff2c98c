package server

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func frameOf(key kmsg.Key, version int16, rest ...byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(key))
	p = binary.BigEndian.AppendUint16(p, uint16(version))
	p = binary.BigEndian.AppendUint32(p, 7)
	return append(p, rest...)
}

func TestHeaderIsReadInEveryVersion(t *testing.T) {
	for _, a := range apis {
		for v := a.min; v <= a.max; v++ {
			req := newFiller(1).request(a.key, v)
			frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("näme")).AppendRequest(nil, req, 7)[4:]
			h, body, err := readHeader(frame)
			if err != nil {
				t.Fatalf("%s version %d: %v", a.key.Name(), v, err)
			}
			want := header{a.key, v, 7, "näme"}
			if h != want {
				t.Errorf("header %+v, want %+v", h, want)
			}
			if !slices.Equal(body, req.AppendTo(nil)) {
				t.Errorf("%s version %d: the body begins elsewhere", a.key.Name(), v)
			}
		}
	}
}

// B1, B4, B5, B6.
func TestHeadersThatAreRefused(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"no bytes", nil, errMalformed},
		{"seven bytes", make([]byte, 7), errMalformed},
		{"an unknown key", frameOf(999, 0, 0xff, 0xff), errUnknownKey},
		{"a negative key", frameOf(-1, 0, 0xff, 0xff), errUnknownKey},
		{"a key of the brokers' own", frameOf(4, 0, 0xff, 0xff), errUnknownKey},
		{"version −1", frameOf(kmsg.Metadata, -1, 0xff, 0xff), errVersion},
		{"version 32767", frameOf(kmsg.Metadata, 32767, 0xff, 0xff), errVersion},
		{"version above", frameOf(kmsg.Metadata, 14, 0xff, 0xff), errVersion},
		{"version below", frameOf(kmsg.Fetch, 3, 0xff, 0xff), errVersion},
		{"no client", frameOf(kmsg.Metadata, 0), errMalformed},
		{"a client longer than the frame", frameOf(kmsg.Metadata, 0, 0x7f, 0xff, 'x'), errMalformed},
		{"a client of length −2", frameOf(kmsg.Metadata, 0, 0xff, 0xfe), errMalformed},
		{"no tagged fields where they belong", frameOf(kmsg.Metadata, 9, 0xff, 0xff), errMalformed},
		{"2³²−1 tagged fields", frameOf(kmsg.Metadata, 9, append([]byte{0xff, 0xff}, huge...)...), errMalformed},
		{"2²⁸ tagged fields in eight bytes", frameOf(kmsg.Metadata, 9, 0xff, 0xff, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 0, 0), errMalformed},
		{"a varint of six bytes", frameOf(kmsg.Metadata, 9, 0xff, 0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0), errMalformed},
	} {
		if _, _, err := readHeader(c.frame); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(frameOf(kmsg.Metadata, 9, 0, 1, 'x', 1, 0, 1, 1))
	f.Add(frameOf(kmsg.ApiVersions, 0, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, body, err := readHeader(frame)
		if err != nil {
			return
		}
		a := lookup(h.key)
		if a == nil || h.version < a.min || h.version > a.max || len(body) > len(frame)-headerSize-2 {
			t.Errorf("accepted %+v with a body of %d", h, len(body))
		}
	})
}
