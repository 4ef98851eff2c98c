package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Magic is the first four bytes of what nodes say to each other, behind a handshake of
// package identity; and of a connection without one, by which a shared listener tells it from
// Kafka, HTTP and TLS.
const Magic = "MLRC"

// Versions of the protocol that this release speaks. A handshake carries both ends of
// its sender's range, and the connection speaks the highest that both know.
const (
	minVersion = 1
	maxVersion = 1
)

const (
	helloFixed     = 12   // bytes before a hello's or an acknowledgement's body
	maxHelloBody   = 1024 // a stranger may have this much and no more
	maxClusterID   = 64
	maxAddress     = 270 // 255 of a DNS name, a colon, a port, brackets
	maxRefusalText = 200
	maxAbout       = 128
)

// Kinds of connection.
const (
	kindControl uint8 = 1 + iota // pings, heartbeats, votes, small calls
	kindData                     // entries
	kindBulk                     // snapshots and large calls
	kindOnce                     // one call, by whom may not be a member yet; never evidence
	kinds       = int(kindOnce) + 1
)

var kindNames = [kinds]string{"", "control", "data", "bulk", "once"}

// Status of an acknowledgement.
const (
	statusWelcome uint8 = iota
	statusVersion
	statusCluster
	statusNode
	statusIncarnation
	statusMalformed
	statusClosed
	statusSelf
	statusStranger
	statusOldDisk
	statusReplaced
)

// A hello is how the dialling side begins.
type hello struct {
	kind    uint8
	low     uint8 // versions spoken
	high    uint8
	session uint64 // random, one a process: a restarted peer is told from the one before
	from    Peer   // node 0 while joining
	target  Peer   // node 0: whoever answers; incarnation "": any
	cluster string // "" while joining
	address string // where from listens
	about   string // Membership.About's; "" of the first release
}

// An ack answers a hello.
type ack struct {
	status  uint8
	low     uint8
	high    uint8
	session uint64
	from    Peer
	cluster string
	reason  string
	about   string
	at      uint64 // of statusReplaced: what Membership.Judge knew it at

	version uint8 // what the two agreed on, not a part of it
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h hello) encode() []byte {
	b := make([]byte, helloFixed, helloFixed+128)
	b = binary.BigEndian.AppendUint64(b, h.session)
	b = binary.BigEndian.AppendUint32(b, uint32(h.from.Node))
	b = binary.BigEndian.AppendUint32(b, uint32(h.target.Node))
	b = appendString(b, h.cluster)
	b = appendString(b, h.from.Incarnation)
	b = appendString(b, h.target.Incarnation)
	b = appendString(b, h.address)
	return sealHello(appendTail(b, h.low, h.high, h.about), h.low, h.kind)
}

func (a ack) encode() []byte {
	b := make([]byte, helloFixed, helloFixed+128)
	b = binary.BigEndian.AppendUint64(b, a.session)
	b = binary.BigEndian.AppendUint32(b, uint32(a.from.Node))
	b = appendString(b, a.cluster)
	b = appendString(b, a.from.Incarnation)
	b = appendString(b, a.reason[:min(len(a.reason), maxRefusalText)])
	b = appendTail(b, a.low, a.high, a.about)
	if a.status == statusReplaced {
		if a.high == a.low && a.about == "" { // the tail was left out, which this follows
			b = appendString(append(b, a.high), "")
		}
		b = binary.BigEndian.AppendUint64(b, a.at)
	}
	return sealHello(b, a.low, a.status)
}

// appendTail writes what the first release ends without, and skips when it reads: the
// highest version, and about. It is left out where it would say nothing.
func appendTail(b []byte, low, high uint8, about string) []byte {
	if high == low && about == "" {
		return b
	}
	return appendString(append(b, high), about)
}

// tail reads it.
func (c *cursor) tail(low uint8) (high uint8, about string) {
	if len(c.b) == 0 {
		return low, ""
	}
	if p := c.take(1); p != nil {
		high = p[0]
	}
	return high, c.string(maxAbout)
}

// meet returns the version that two sides speak with each other, 0 if they have none
// in common.
func meet(low, high, theirLow, theirHigh uint8) uint8 {
	if v := min(high, theirHigh); v >= max(low, theirLow) {
		return v
	}
	return 0
}

func sealHello(b []byte, low, kindOrStatus uint8) []byte {
	copy(b, Magic)
	b[4], b[5] = low, kindOrStatus
	binary.BigEndian.PutUint16(b[6:], uint16(len(b)-helloFixed))
	sum := crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, b[helloFixed:])
	binary.BigEndian.PutUint32(b[8:], sum)
	return b
}

// errNoPeer is that of a connection which is not from a node, but from a client, say.
var errNoPeer = errors.New("transport: not a node")

// readHello reads the fixed part and body that begin either side of a
// connection and checks all that does not depend on which side it is. It reads every
// version's: the fields of the first stay where they are, others follow them. v is
// the lowest version that the sender speaks.
func readHello(r io.Reader) (v, kindOrStatus uint8, body []byte, err error) {
	var fixed [helloFixed]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return 0, 0, nil, err
	}
	if string(fixed[:4]) != Magic {
		return 0, 0, nil, fmt.Errorf("%w: the handshake begins with %q", errNoPeer, fixed[:4])
	}
	v, kindOrStatus = fixed[4], fixed[5]
	n := int(binary.BigEndian.Uint16(fixed[6:]))
	if n > maxHelloBody {
		return v, kindOrStatus, nil, malformedf("handshake: %d bytes, at most %d", n, maxHelloBody)
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return v, kindOrStatus, nil, err
	}
	sum := crc32.Update(crc32.Checksum(fixed[:8], castagnoli), castagnoli, body)
	if want := binary.BigEndian.Uint32(fixed[8:]); sum != want {
		return v, kindOrStatus, nil, malformedf("handshake: checksum %08x, want %08x", sum, want)
	}
	return v, kindOrStatus, body, nil
}

// decodeHello parses a hello's body. Bytes behind the known fields are left for
// later versions.
func decodeHello(low, kind uint8, body []byte) (hello, error) {
	d := cursor{b: body}
	h := hello{low: low, kind: kind}
	h.session = d.uint64()
	h.from.Node = int32(d.uint32())
	h.target.Node = int32(d.uint32())
	h.cluster = d.string(maxClusterID)
	h.from.Incarnation = d.string(maxIncarnation)
	h.target.Incarnation = d.string(maxIncarnation)
	h.address = d.string(maxAddress)
	h.high, h.about = d.tail(low)
	switch {
	case d.bad:
		return h, malformed("hello: fields run past its end")
	case low == 0 || h.high < low:
		return h, malformedf("hello: versions %d to %d", low, h.high)
	case kind < kindControl || kind > kindOnce:
		return h, malformedf("hello: connection kind %d", kind)
	case h.from.Node < 0 || h.from.Node == 0 && kind != kindOnce:
		return h, malformedf("hello: from node %d", h.from.Node)
	case !validIncarnation(h.from.Incarnation) && (h.from.Incarnation != "" || kind != kindOnce):
		return h, malformedf("hello: incarnation %.80q", h.from.Incarnation)
	case h.cluster == "" && kind != kindOnce:
		return h, malformed("hello: no cluster id")
	}
	return h, nil
}

func decodeAck(low, status uint8, body []byte) (ack, error) {
	d := cursor{b: body}
	a := ack{low: low, status: status}
	a.session = d.uint64()
	a.from.Node = int32(d.uint32())
	a.cluster = d.string(maxClusterID)
	a.from.Incarnation = d.string(maxIncarnation)
	a.reason = d.string(maxRefusalText)
	a.high, a.about = d.tail(low)
	if status == statusReplaced {
		a.at = d.uint64()
	}
	if d.bad {
		return a, malformed("acknowledgement: fields run past its end")
	}
	return a, nil
}

// appendString writes a 16-bit length and the bytes.
func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// A cursor reads fields off the front of b. Past the end it returns zeros and
// stays bad, so that a decoder checks once.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad = true
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) uint16() uint16 {
	if p := c.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if p := c.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if p := c.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (c *cursor) string(limit int) string {
	n := int(c.uint16())
	if n > limit {
		c.bad = true
	}
	return string(c.take(n))
}
