package protocol

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Header is what a request begins with (KIP-511, KIP-482):
//
//	key int16 · version int16 · correlation int32 · client nullable string · [tagged fields]
//
// The client's id stays a plain string in every version, so that a broker can
// read it before it knows the version; tagged fields are there in flexible ones.
type Header struct {
	Key         kmsg.Key
	Version     int16
	Correlation int32
	Client      string
}

// HeaderSize is the least a request takes: no client, no tagged fields.
const HeaderSize = 8

// ReadHeader reads a request's header and returns the body that follows. The
// body aliases frame. Tagged fields are checked and dropped: there are none
// that a client may send today.
//
// A request we cannot serve is returned with its key and version, no body and
// ErrUnknownKey or ErrVersion.
func (g *Guard) ReadHeader(frame []byte) (h Header, body []byte, err error) {
	if len(frame) < HeaderSize {
		return h, nil, Malformed("a frame of %d bytes", len(frame))
	}
	h.Key = kmsg.Key(binary.BigEndian.Uint16(frame))
	h.Version = int16(binary.BigEndian.Uint16(frame[2:]))
	h.Correlation = int32(binary.BigEndian.Uint32(frame[4:]))
	v, served := g.versions(h.Key)
	if !served {
		return h, nil, ErrUnknownKey
	}
	w := walker{p: frame[HeaderSize:]}
	n, err := w.length(text, false)
	if err != nil {
		return h, nil, err
	}
	if n > 0 {
		name := w.p
		if err := w.skip(n); err != nil {
			return h, nil, err
		}
		h.Client = string(name[:n])
	}
	l := v.layout(h.Version)
	if l == nil {
		return h, nil, ErrVersion
	}
	if l.flexible {
		if err := w.tagged(&layout{}); err != nil {
			return h, nil, err
		}
	}
	return h, w.p, nil
}

// AppendHeader begins a response to h in p: four bytes for the frame's length,
// to be filled in by Finish, the correlation id, and from the flexible versions
// on an empty set of tagged fields. The answer to ApiVersions has none: a
// client may ask before it knows what we speak (KIP-511).
func AppendHeader(p []byte, h Header) []byte {
	p = append(p, 0, 0, 0, 0)
	p = binary.BigEndian.AppendUint32(p, uint32(h.Correlation))
	if IsFlexible(h.Key, h.Version) && h.Key != kmsg.ApiVersions {
		p = append(p, 0)
	}
	return p
}

// Finish fills in the length of the response that begins p, of which more
// bytes are elsewhere.
func Finish(p []byte, more int) {
	binary.BigEndian.PutUint32(p, uint32(len(p)-4+more))
}
