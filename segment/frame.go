package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A Type says what an entry is.
type Type uint8

// The types of entries. Only commands take offsets.
const (
	Command       Type = 1 // one or more whole record batches
	Noop          Type = 2 // begins a leadership
	Configuration Type = 3 // the group's members
	Barrier       Type = 4 // waits for what precedes it
	Trim          Type = 5 // moves the log's start offset: int64, big-endian
)

func (t Type) String() string {
	switch t {
	case Command:
		return "command"
	case Noop:
		return "noop"
	case Configuration:
		return "configuration"
	case Barrier:
		return "barrier"
	case Trim:
		return "trim"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

func (t Type) known() bool { return t >= Command && t <= Trim }

// A Frame is one entry. As bytes it is a header of FrameHeaderSize, the payload
// and up to 7 zero bytes, so that the next one begins at a multiple of 8.
// Big-endian:
//
//	 0  magic         uint16  0x4d46
//	 2  version       uint8   1
//	 3  type          uint8
//	 4  flags         uint8   bit 0: all bytes before this frame were synced when it was written
//	                          bit 1: compacted, see Info
//	 5  reserved      [3]byte zero
//	 8  payloadLen    uint32
//	12  span          uint32  offsets the entry takes; 0 unless a command
//	16  index         uint64
//	24  term          uint64
//	32  baseOffset    int64   of the first record, or the next one to come
//	40  maxTimestamp  int64   of the batches, milliseconds since 1970; -1 without any
//	48  payloadCRC    uint32  CRC-32C of payload and padding
//	52  headerCRC     uint32  CRC-32C of salt, position (uint64 each) and bytes 0 to 51
//	56  payload
//
// The header's CRC begins with the segment's salt, a random number that no
// client knows, and the position, so that neither a frame a client put into a
// record nor one that lies in the wrong place passes for one of ours.
type Frame struct {
	Type         Type
	Index, Term  uint64
	BaseOffset   int64
	Span         uint32
	MaxTimestamp int64
	// Synced is the frame's word that all bytes before it had reached the disk
	// when it was written. Append sets it in the file by itself.
	Synced bool
	// Compacted says that compaction has merged the frame of several entries: its
	// batches have gaps between them, and may be none, and are of terms up to Term.
	Compacted bool
	// PayloadCRC is what the header says; Append computes it, unless Summed says
	// that it is the CRC-32C of Payload already.
	PayloadCRC uint32
	Summed     bool
	// Position of the frame in its file; Append computes it.
	Position int64
	Payload  []byte

	payloadLen uint32
}

// NextOffset returns the offset that follows the entry.
func (f *Frame) NextOffset() int64 { return f.BaseOffset + int64(f.Span) }

// PayloadLen returns the payload's length in bytes, with or without the payload
// in memory.
func (f *Frame) PayloadLen() int {
	if f.Payload != nil {
		return len(f.Payload)
	}
	return int(f.payloadLen)
}

const (
	// FrameHeaderSize is the length in bytes of a frame without its payload.
	FrameHeaderSize = 56
	// MaxPayload bounds an entry's payload in bytes.
	MaxPayload = 1 << 30

	frameMagic   = 0x4d46 // "MF"
	frameVersion = 1
	flagSynced   = 1
	flagCompact  = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var zeros [8]byte

// FrameSize returns the bytes a frame with a payload of n bytes takes in a file.
func FrameSize(n int) int64 { return FrameHeaderSize + int64(n) + padding(n) }

func padding(n int) int64 { return int64(-n & 7) }

func payloadCRC(payload []byte) uint32 {
	return padCRC(crc32.Checksum(payload, castagnoli), len(payload))
}

// padCRC adds the padding to the sum of a payload of n bytes.
func padCRC(sum uint32, n int) uint32 {
	return crc32.Update(sum, castagnoli, zeros[:padding(n)])
}

func headerCRC(p []byte, salt uint64, position int64) uint32 {
	return crc32.Update(addCRC(addCRC(0, salt), uint64(position)), castagnoli, p[:52])
}

// addCRC adds the eight bytes of x, big-endian, to a CRC-32C. Package crc32 would do the same,
// of bytes that have to be allocated for it, one by one for each frame that is read.
func addCRC(sum uint32, x uint64) uint32 {
	sum = ^sum
	for shift := 56; shift >= 0; shift -= 8 {
		sum = castagnoli[byte(sum)^byte(x>>shift)] ^ sum>>8
	}
	return ^sum
}

// appendFrameHeader appends f's header to p, for a frame that will lie at
// position.
func appendFrameHeader(p []byte, f *Frame, salt uint64, position int64, synced bool) []byte {
	at := len(p)
	p = append(p, make([]byte, FrameHeaderSize)...)
	h := p[at:]
	binary.BigEndian.PutUint16(h, frameMagic)
	h[2] = frameVersion
	h[3] = byte(f.Type)
	if synced {
		h[4] = flagSynced
	}
	if f.Compacted {
		h[4] |= flagCompact
	}
	binary.BigEndian.PutUint32(h[8:], uint32(len(f.Payload)))
	binary.BigEndian.PutUint32(h[12:], f.Span)
	binary.BigEndian.PutUint64(h[16:], f.Index)
	binary.BigEndian.PutUint64(h[24:], f.Term)
	binary.BigEndian.PutUint64(h[32:], uint64(f.BaseOffset))
	binary.BigEndian.PutUint64(h[40:], uint64(f.MaxTimestamp))
	sum := f.PayloadCRC
	if !f.Summed {
		sum = crc32.Checksum(f.Payload, castagnoli)
	}
	binary.BigEndian.PutUint32(h[48:], padCRC(sum, len(f.Payload)))
	binary.BigEndian.PutUint32(h[52:], headerCRC(h, salt, position))
	return p
}

// A mismatch is half a CorruptError: what is wrong with bytes whose file and
// position the caller knows.
type mismatch struct{ found, expected string }

// corrupt returns the other half as well.
func (m *mismatch) corrupt(path string, position int64) *CorruptError {
	return &CorruptError{Path: path, Position: position, Found: m.found, Expected: m.expected}
}

// parseFrameHeader reads the header at the start of p, which lies at position
// of a segment with this salt. A nil mismatch means that it is one we wrote:
// its CRC holds and every field is legal.
func parseFrameHeader(p []byte, salt uint64, position int64) (Frame, *mismatch) {
	if len(p) < FrameHeaderSize {
		return Frame{}, &mismatch{fmt.Sprintf("%d bytes", len(p)), fmt.Sprintf("a frame header of %d bytes", FrameHeaderSize)}
	}
	if m := binary.BigEndian.Uint16(p); m != frameMagic {
		return Frame{}, &mismatch{fmt.Sprintf("frame magic %#04x", m), fmt.Sprintf("%#04x", frameMagic)}
	}
	if want, got := headerCRC(p, salt, position), binary.BigEndian.Uint32(p[52:]); want != got {
		return Frame{}, &mismatch{fmt.Sprintf("frame header CRC %#08x", got), fmt.Sprintf("%#08x", want)}
	}
	f := Frame{
		Type:         Type(p[3]),
		Synced:       p[4]&flagSynced != 0,
		Compacted:    p[4]&flagCompact != 0,
		payloadLen:   binary.BigEndian.Uint32(p[8:]),
		Span:         binary.BigEndian.Uint32(p[12:]),
		Index:        binary.BigEndian.Uint64(p[16:]),
		Term:         binary.BigEndian.Uint64(p[24:]),
		BaseOffset:   int64(binary.BigEndian.Uint64(p[32:])),
		MaxTimestamp: int64(binary.BigEndian.Uint64(p[40:])),
		PayloadCRC:   binary.BigEndian.Uint32(p[48:]),
		Position:     position,
	}
	switch {
	case p[2] != frameVersion:
		return f, &mismatch{fmt.Sprintf("frame version %d", p[2]), fmt.Sprint(frameVersion)}
	case !f.Type.known():
		return f, &mismatch{f.Type.String(), "a known frame type"}
	case p[4]&^(flagSynced|flagCompact) != 0 || p[5] != 0 || p[6] != 0 || p[7] != 0:
		return f, &mismatch{fmt.Sprintf("flags and reserved bytes % x", p[4:8]), "known flags, then zeros"}
	case f.payloadLen > MaxPayload:
		return f, &mismatch{fmt.Sprintf("payload of %d bytes", f.payloadLen), fmt.Sprintf("at most %d", MaxPayload)}
	case f.BaseOffset < 0 || f.BaseOffset+int64(f.Span) < 0:
		return f, &mismatch{fmt.Sprintf("offsets [%d,+%d)", f.BaseOffset, f.Span), "offsets of 0 or more"}
	case (f.Type == Command) != (f.Span > 0):
		return f, &mismatch{fmt.Sprintf("%s with %d offsets", f.Type, f.Span), "offsets for a command and only for it"}
	}
	return f, nil
}

// size returns the bytes the frame takes in its file.
func (f *Frame) size() int64 { return FrameSize(f.PayloadLen()) }

// checkPayload compares the payload of f, whose bytes with padding are p, with
// the CRC in its header.
func (f *Frame) checkPayload(p []byte) *mismatch {
	n := int(f.payloadLen)
	for _, b := range p[n:] {
		if b != 0 {
			return &mismatch{fmt.Sprintf("padding % x", p[n:]), "zeros"}
		}
	}
	if got := payloadCRC(p[:n]); got != f.PayloadCRC {
		return &mismatch{fmt.Sprintf("payload CRC %#08x", got), fmt.Sprintf("%#08x", f.PayloadCRC)}
	}
	return nil
}
