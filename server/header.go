package server

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A header is what a request begins with (KIP-511, KIP-482):
//
//	key int16 · version int16 · correlation int32 · client nullable string · [tagged fields]
//
// The client's id stays a plain string in every version, so that a broker can
// read it before it knows the version; tagged fields are there in flexible ones.
type header struct {
	key         kmsg.Key
	version     int16
	correlation int32
	client      string
}

// headerSize is the least a request takes: no client, no tagged fields.
const headerSize = 8

// readHeader reads a request's header and returns the body that follows. The
// body aliases frame. Tagged fields are checked and dropped: there are none
// that a client may send today.
//
// A request we cannot serve is returned with its key and version, no body and
// errUnknownKey or errVersion.
func readHeader(frame []byte) (h header, body []byte, err error) {
	if len(frame) < headerSize {
		return h, nil, malformed("a frame of %d bytes", len(frame))
	}
	h.key = kmsg.Key(binary.BigEndian.Uint16(frame))
	h.version = int16(binary.BigEndian.Uint16(frame[2:]))
	h.correlation = int32(binary.BigEndian.Uint32(frame[4:]))
	a := lookup(h.key)
	if a == nil {
		return h, nil, errUnknownKey
	}
	w := walker{p: frame[headerSize:]}
	n, err := w.length(text, false)
	if err != nil {
		return h, nil, err
	}
	if n > 0 {
		name := w.p
		if err := w.skip(n); err != nil {
			return h, nil, err
		}
		h.client = string(name[:n])
	}
	if h.version < a.min || h.version > a.max {
		return h, nil, errVersion
	}
	if isFlexible(h.key, h.version) {
		if err := w.tagged(&layout{}); err != nil {
			return h, nil, err
		}
	}
	return h, w.p, nil
}

// appendHeader begins a response to h in p: four bytes for the frame's length,
// to be filled in by finish, the correlation id, and from the flexible versions
// on an empty set of tagged fields. The answer to ApiVersions has none: a
// client may ask before it knows what we speak (KIP-511).
func appendHeader(p []byte, h header) []byte {
	p = append(p, 0, 0, 0, 0)
	p = binary.BigEndian.AppendUint32(p, uint32(h.correlation))
	if isFlexible(h.key, h.version) && h.key != kmsg.ApiVersions {
		p = append(p, 0)
	}
	return p
}

// finish fills in the length of the response that begins p, of which more
// bytes are elsewhere.
func finish(p []byte, more int) {
	binary.BigEndian.PutUint32(p, uint32(len(p)-4+more))
}
