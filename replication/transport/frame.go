package transport

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
	"time"

	"millrace/internal/bufpool"
)

// headerSize is the length in bytes of a frame's fixed part.
const headerSize = 32

// Types of frame. An answer carries its request's id and comes on the same
// connection, in any order.
const (
	typePing uint8 = 1 + iota
	typePong
	typeHeartbeats
	typeHeartbeatAnswers
	typeAppend
	typeAppendAnswer
	typeVote
	typeVoteAnswer
	typePreVote
	typePreVoteAnswer
	typeTimeoutNow
	typeTimeoutNowAnswer
	typeSnapshot
	typeSnapshotAnswer
	typeCall
	typeCallAnswer
	typeFailure
	types
)

const (
	maxHeartbeats   = 4096    // groups in one heartbeat frame
	maxEntries      = 1024    // entries in one append; raft.Config.MaxAppendEntries goes no further
	maxPayload      = 1 << 28 // bytes of entries in one append; it has one entry if it exceeds MaxRequestBytes
	maxSnapshot     = 16 << 20
	maxConfig       = 64 << 10 // bytes of an encoded raft.Configuration
	maxControlCall  = 1 << 20
	maxBulkCall     = 16<<20 + 64<<10 // 16 MiB of data and what describes it
	maxFailureText  = 1024
	firstGrant      = 128 << 10 // bytes granted to a frame before any has arrived
	grantFactor     = 3         // bytes granted for each that has arrived
	maxChunk        = 256 << 10 // small entries share an allocation of at most this
	smallestTimeout = time.Millisecond
	largestTimeout  = 10 * time.Minute
)

// Sizes of heads, by type; the variable ones are multiples on top.
const (
	pingHead            = 0
	heartbeatsHead      = 8
	heartbeatSize       = 40
	heartbeatAnswerSize = 24
	appendHead          = 48
	entrySize           = 16
	appendAnswerHead    = 24
	voteHead            = 40
	voteAnswerHead      = 16
	timeoutNowHead      = 8
	snapshotHead        = 64
	snapshotAnswerHead  = 16
	callHead            = 8
	failureHead         = 8
)

// limits holds what a frame of each type may declare, before anything is
// allocated for it.
var limits = [types]struct {
	minHead, maxHead int
	maxPayload       int
	on               uint8 // bit k set: allowed on connections of kind k
	answer           bool  // comes from the side that was dialled
}{
	typePing:             {pingHead, pingHead, 0, 1<<kindControl | 1<<kindData | 1<<kindBulk, false},
	typePong:             {pingHead, pingHead, 0, 1<<kindControl | 1<<kindData | 1<<kindBulk, true},
	typeHeartbeats:       {heartbeatsHead, heartbeatsHead + maxHeartbeats*heartbeatSize, 0, 1 << kindControl, false},
	typeHeartbeatAnswers: {heartbeatsHead, heartbeatsHead + maxHeartbeats*heartbeatAnswerSize, 0, 1 << kindControl, true},
	typeAppend:           {appendHead, appendHead + maxEntries*entrySize, maxPayload, 1 << kindData, false},
	typeAppendAnswer:     {appendAnswerHead, appendAnswerHead, 0, 1 << kindData, true},
	typeVote:             {voteHead, voteHead, 0, 1 << kindControl, false},
	typeVoteAnswer:       {voteAnswerHead, voteAnswerHead, 0, 1 << kindControl, true},
	typePreVote:          {voteHead, voteHead, 0, 1 << kindControl, false},
	typePreVoteAnswer:    {voteAnswerHead, voteAnswerHead, 0, 1 << kindControl, true},
	typeTimeoutNow:       {timeoutNowHead, timeoutNowHead, 0, 1 << kindControl, false},
	typeTimeoutNowAnswer: {0, 0, 0, 1 << kindControl, true},
	typeSnapshot:         {snapshotHead, snapshotHead, maxSnapshot + maxConfig, 1 << kindBulk, false},
	typeSnapshotAnswer:   {snapshotAnswerHead, snapshotAnswerHead, 0, 1 << kindBulk, true},
	typeCall:             {callHead, callHead, maxBulkCall, 1<<kindControl | 1<<kindBulk | 1<<kindOnce, false},
	typeCallAnswer:       {0, 0, maxBulkCall, 1<<kindControl | 1<<kindBulk | 1<<kindOnce, true},
	typeFailure:          {failureHead, failureHead + maxFailureText, 0, 1<<kindControl | 1<<kindData | 1<<kindBulk | 1<<kindOnce, true},
}

// A header is a frame's fixed part, decoded.
type header struct {
	headLen    int
	payloadLen int
	typ        uint8
	timeout    time.Duration // how long the sender waits; 0 in answers
	request    uint64
	headCRC    uint32
	payloadCRC uint32
}

// newFrame returns header and head of a frame as one slice, and the head within it.
func newFrame(typ uint8, headLen int) (frame, head []byte) {
	frame = make([]byte, headerSize+headLen)
	frame[8] = typ
	binary.BigEndian.PutUint32(frame, uint32(headLen))
	return frame, frame[headerSize:]
}

// setPayload declares what follows the head. The payload's bytes are read once,
// for the checksum; they must not change until they are written.
func setPayload(frame []byte, payload ...[]byte) {
	n, sum := 0, uint32(0)
	for _, p := range payload {
		n += len(p)
		sum = crc32.Update(sum, castagnoli, p)
	}
	declarePayload(frame, n, sum)
}

// declarePayload declares a payload of n bytes with this checksum.
func declarePayload(frame []byte, n int, sum uint32) {
	binary.BigEndian.PutUint32(frame[4:], uint32(n))
	binary.BigEndian.PutUint32(frame[28:], sum)
}

// seal fills in what is known last, and the head's checksum.
func seal(frame []byte, request uint64, timeout time.Duration) {
	if timeout > 0 {
		timeout = min(max(timeout, smallestTimeout), largestTimeout)
	}
	binary.BigEndian.PutUint32(frame[12:], uint32(timeout.Milliseconds()))
	binary.BigEndian.PutUint64(frame[16:], request)
	sum := crc32.Update(crc32.Checksum(frame[:24], castagnoli), castagnoli, frame[headerSize:])
	binary.BigEndian.PutUint32(frame[24:], sum)
}

// An intake reads frames off one connection. It is used by one goroutine.
//
// Memory follows the bytes that have arrived: whatever a frame declares, it is
// granted firstGrant bytes, and grantFactor more for each that came. Memory that
// is there already it may borrow at once.
type intake struct {
	r       *bufio.Reader
	head    []byte // of the current frame, reused
	kind    uint8  // of the connection
	answers bool   // we dialled: answers come in, else requests
	arrived int    // payload bytes of the current frame read so far
	sum     uint32 // their CRC-32C

	pool   *bufpool.Pool // of memory for the current frame's payload; nil: all is new
	pooled [][]byte      // what the payload was read into, if it is to be put back
}

// next reads the next frame up to its payload, which the caller must read or
// discard before the next call. The head is valid until then.
func (in *intake) next() (header, []byte, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(in.r, b[:]); err != nil {
		return header{}, nil, err
	}
	h := header{
		typ:        b[8],
		timeout:    time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Millisecond,
		request:    binary.BigEndian.Uint64(b[16:]),
		headCRC:    binary.BigEndian.Uint32(b[24:]),
		payloadCRC: binary.BigEndian.Uint32(b[28:]),
	}
	headLen, payloadLen := binary.BigEndian.Uint32(b[0:]), binary.BigEndian.Uint32(b[4:])
	if h.typ == 0 || h.typ >= types {
		return h, nil, malformedf("frame: type %d", h.typ)
	}
	limit := &limits[h.typ]
	switch {
	case limit.on&(1<<in.kind) == 0:
		return h, nil, malformedf("frame: type %d on a %s connection", h.typ, kindNames[in.kind])
	case limit.answer != in.answers:
		return h, nil, malformedf("frame: type %d from the wrong side", h.typ)
	case int64(headLen) < int64(limit.minHead) || int64(headLen) > int64(limit.maxHead):
		return h, nil, malformedf("frame: type %d with a head of %d bytes, want %d to %d", h.typ, headLen, limit.minHead, limit.maxHead)
	case int64(payloadLen) > int64(limit.maxPayload):
		return h, nil, malformedf("frame: type %d with a payload of %d bytes, at most %d", h.typ, payloadLen, limit.maxPayload)
	case (in.kind == kindControl || in.kind == kindOnce) && payloadLen > maxControlCall:
		return h, nil, malformedf("frame: payload of %d bytes on a %s connection, at most %d", payloadLen, kindNames[in.kind], maxControlCall)
	case b[9]|b[10]|b[11] != 0:
		return h, nil, malformed("frame: reserved bytes are not zero")
	case payloadLen == 0 && h.payloadCRC != 0:
		return h, nil, malformed("frame: checksum of a payload that is not there")
	}
	h.headLen, h.payloadLen = int(headLen), int(payloadLen)
	h.timeout = min(h.timeout, largestTimeout)

	in.arrived, in.sum = 0, 0
	in.pool, in.pooled = nil, nil
	// The largest head, a full heartbeat frame, is within 164 KiB, so it is
	// read in the two steps grow takes and then kept for the frames to come.
	if cap(in.head) < h.headLen {
		head, err := in.grow(in.head[:0], h.headLen)
		if err != nil {
			return h, nil, err
		}
		in.head = head
		in.arrived = 0
	} else {
		in.head = in.head[:h.headLen]
		if _, err := io.ReadFull(in.r, in.head); err != nil {
			return h, nil, err
		}
	}
	sum := crc32.Update(crc32.Checksum(b[:24], castagnoli), castagnoli, in.head)
	if sum != h.headCRC {
		return h, nil, malformedf("frame: head checksum %08x, want %08x", sum, h.headCRC)
	}
	return h, in.head, nil
}

// grant is how many more bytes may be allocated now.
func (in *intake) grant() int { return max(firstGrant, grantFactor*in.arrived) }

// grow reads into b until it holds n bytes, enlarging it as they arrive.
func (in *intake) grow(b []byte, n int) ([]byte, error) {
	for len(b) < n {
		step := min(n-len(b), in.grant())
		if cap(b)-len(b) < step {
			bigger := make([]byte, len(b), in.capacity(len(b)+step))
			copy(bigger, b)
			b = bigger
		}
		if _, err := io.ReadFull(in.r, b[len(b):len(b)+step]); err != nil {
			return nil, err
		}
		in.arrived += step
		b = b[:len(b)+step]
	}
	return b, nil
}

// capacity is what to allocate for n bytes.
func (in *intake) capacity(n int) int {
	if in.pool == nil {
		return n
	}
	return bufpool.RoundUp(n)
}

// reuse returns memory with room for n bytes, or nil.
func (in *intake) reuse(n int) []byte {
	if in.pool == nil {
		return nil
	}
	return in.pool.Get(n)
}

// payload reads n bytes of payload into memory of their own.
func (in *intake) payload(n int) ([]byte, error) {
	b, err := in.grow(in.reuse(n), n)
	if err != nil {
		return nil, err
	}
	in.pooled = append(in.pooled, b)
	in.sum = crc32.Update(in.sum, castagnoli, b)
	return b, nil
}

// spread reads consecutive pieces of payload into parts[i], sizes[i] bytes each.
// Small neighbours share an allocation, in which each begins at a multiple of 8;
// none can be appended into the next.
func (in *intake) spread(sizes []int, parts [][]byte) error {
	for i := 0; i < len(sizes); {
		room := min(in.grant(), maxChunk)
		total, j := 0, i
		for j < len(sizes) && total+align(sizes[j]) <= room {
			total += align(sizes[j])
			j++
		}
		if j == i {
			b, err := in.payload(sizes[i])
			if err != nil {
				return err
			}
			parts[i] = b
			i++
			continue
		}
		chunk := in.reuse(total)
		if chunk == nil {
			chunk = make([]byte, 0, in.capacity(total))
		}
		in.pooled = append(in.pooled, chunk)
		chunk = chunk[:total]
		for ; i < j; i++ {
			b := chunk[:sizes[i]:sizes[i]]
			chunk = chunk[align(sizes[i]):]
			if _, err := io.ReadFull(in.r, b); err != nil {
				return err
			}
			in.arrived += len(b)
			in.sum = crc32.Update(in.sum, castagnoli, b)
			parts[i] = b
		}
	}
	return nil
}

func align(n int) int { return (n + 7) &^ 7 }

// finish checks the payload's checksum after all of it was read.
func (in *intake) finish(h header) error {
	if in.arrived != h.payloadLen {
		return malformedf("frame: payload of %d bytes, its parts make %d", h.payloadLen, in.arrived)
	}
	if in.sum != h.payloadCRC {
		return malformedf("frame: payload checksum %08x, want %08x", in.sum, h.payloadCRC)
	}
	return nil
}

// discard skips what is left of the current frame.
func (in *intake) discard(h header) error {
	for left := h.payloadLen - in.arrived; left > 0; left = h.payloadLen - in.arrived {
		n, err := in.r.Discard(left)
		in.arrived += n
		if err != nil {
			return err
		}
	}
	return nil
}
