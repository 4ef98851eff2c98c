// Package record reads and writes Kafka v2 record batches, the unit in which
// records travel: clients send them, entries hold them, and consumers get the
// very bytes back.
//
// The layout is that of the Kafka protocol, "Record Batch"
// (https://kafka.apache.org/documentation/#recordbatch), big-endian:
//
//	 0  baseOffset            int64   stamped by the leader, outside the CRC
//	 8  batchLength           int32   bytes that follow this field
//	12  partitionLeaderEpoch  int32   stamped by the leader, outside the CRC
//	16  magic                 int8    2
//	17  crc                   uint32  CRC-32C of everything from attributes on
//	21  attributes            int16   bits 0–2 codec, 3 append time, 4 transactional, 5 control
//	23  lastOffsetDelta       int32
//	27  baseTimestamp         int64   milliseconds since 1970
//	35  maxTimestamp          int64
//	43  producerId            int64   -1 without idempotence
//	51  producerEpoch         int16
//	53  baseSequence          int32
//	57  recordCount           int32
//	61  records
package record

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// HeaderSize is the length in bytes of a batch without its records.
const HeaderSize = 61

// A Batch is one Kafka v2 record batch; its header is read in place. The
// methods assume what Validate or Split has checked: at least HeaderSize bytes.
type Batch []byte

// BaseOffset returns the offset of the first record.
func (b Batch) BaseOffset() int64 { return int64(binary.BigEndian.Uint64(b)) }

// NextOffset returns the offset that follows the last record.
func (b Batch) NextOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) + 1 }

// LastOffset returns the offset of the last record, or of the last record there
// was before compaction.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// Size returns the length of the whole batch in bytes, as its header declares it.
func (b Batch) Size() int { return 12 + int(int32(binary.BigEndian.Uint32(b[8:]))) }

// Epoch returns the leader epoch under which the batch was appended.
func (b Batch) Epoch() int32 { return int32(binary.BigEndian.Uint32(b[12:])) }

// Magic returns the format version; this package knows only 2.
func (b Batch) Magic() int8 { return int8(b[16]) }

// Checksum returns the stored CRC-32C.
func (b Batch) Checksum() uint32 { return binary.BigEndian.Uint32(b[17:]) }

// Attributes returns the attribute bits: the codec in the lowest three, then
// append time, transactional, control and delete horizon.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[21:])) }

// The attribute bits. A client may set the codec and the transactional bit; the
// rest is the broker's.
const (
	codecMask     = 0x07
	appendTimeBit = 0x08
	transactBit   = 0x10
	controlBit    = 0x20
	horizonBit    = 0x40 // KIP-534: the base timestamp is a delete horizon; set by compaction alone
)

// Codec returns the compression of the records.
func (b Batch) Codec() Codec { return Codec(b[22] & codecMask) }

// AppendTime reports whether the records carry the time of their append, which
// is MaxTimestamp, instead of the times their producer gave them.
func (b Batch) AppendTime() bool { return b[22]&appendTimeBit != 0 }

// IsTransactional reports whether the batch belongs to a transaction (KIP-98).
func (b Batch) IsTransactional() bool { return b[22]&transactBit != 0 }

// IsControl reports whether the batch holds a transaction marker (KIP-98)
// instead of records for consumers.
func (b Batch) IsControl() bool { return b[22]&controlBit != 0 }

// DeleteHorizon returns the time in milliseconds since 1970 after which
// compaction may drop the batch's tombstones; ok is false where none has been set
// (KIP-534).
func (b Batch) DeleteHorizon() (millis int64, ok bool) {
	return b.BaseTimestamp(), b[22]&horizonBit != 0
}

// LastOffsetDelta returns the last record's offset less the first's.
func (b Batch) LastOffsetDelta() int32 { return int32(binary.BigEndian.Uint32(b[23:])) }

// BaseTimestamp returns what the records' timestamps are counted from, in
// milliseconds since 1970: the first one's, or the delete horizon.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[27:])) }

// MaxTimestamp returns the largest timestamp in milliseconds since 1970.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[35:])) }

// ProducerID returns the idempotent producer's id, or -1.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[43:])) }

// ProducerEpoch returns the idempotent producer's epoch, or -1.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[51:])) }

// BaseSequence returns the first record's sequence number, or -1.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[53:])) }

// Count returns the number of records as the header declares it.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[57:])) }

// Assign stamps the base offset and the leader epoch, both of which lie
// outside the batch's CRC.
func (b Batch) Assign(offset int64, epoch int32) {
	binary.BigEndian.PutUint64(b, uint64(offset))
	binary.BigEndian.PutUint32(b[12:], uint32(epoch))
}

// castagnoli is CRC-32C, which the hardware computes: 0.05 ns a byte.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcStart is where the bytes begin that the CRC covers.
const crcStart = 21

// Check recomputes the CRC-32C and returns an error that is ErrChecksum when it
// is not the stored one. It looks at nothing else.
func (b Batch) Check() error {
	if got := crc32.Checksum(b[crcStart:], castagnoli); got != b.Checksum() {
		return fmt.Errorf("%w: computed %08x, stored %08x", ErrChecksum, got, b.Checksum())
	}
	return nil
}

// seal stores the CRC of what the batch now holds.
func (b Batch) seal() {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[crcStart:], castagnoli))
}

// SetAppendTime gives every record the timestamp ms, in milliseconds since 1970,
// as message.timestamp.type=LogAppendTime asks: it sets the attribute and the max
// timestamp and rewrites the CRC. The base timestamp stays what the producer
// wrote, as in Kafka: readers ignore it once the attribute is set.
func (b Batch) SetAppendTime(ms int64) {
	b[22] |= appendTimeBit
	binary.BigEndian.PutUint64(b[35:], uint64(ms))
	b.seal()
}
