package record

import (
	"encoding/binary"
	"fmt"
)

// A MarkerType says how a transaction ended (KIP-98, "Control Messages").
type MarkerType int16

// The types of transaction markers.
const (
	Abort  MarkerType = 0
	Commit MarkerType = 1
)

// A Marker is what a control batch says: that a producer's transaction has ended.
// The producer is in the batch's header.
type Marker struct {
	Type             MarkerType
	CoordinatorEpoch int32
	Timestamp        int64 // milliseconds since 1970
}

// BuildMarker returns a control batch with one record, written with the
// producer's id and epoch and without a sequence:
//
//	key    version int16 (0), type int16
//	value  version int16 (0), coordinatorEpoch int32
func BuildMarker(producerID int64, producerEpoch int16, m Marker) Batch {
	key := binary.BigEndian.AppendUint16(make([]byte, 2, 4), uint16(m.Type))
	value := binary.BigEndian.AppendUint32(make([]byte, 2, 6), uint32(m.CoordinatorEpoch))
	bu := Builder{
		Producer:      &Producer{ID: producerID, Epoch: producerEpoch, Sequence: -1},
		Transactional: true,
		Control:       true,
	}
	bu.Append(Record{Timestamp: m.Timestamp, Key: key, Value: value})
	b, err := bu.Batch()
	if err != nil {
		panic(fmt.Sprintf("record: marker %+v: %v", m, err))
	}
	return b
}

// Marker returns what a control batch says. A batch that is none, or holds
// anything but one record with a key of at least the known version's length, is
// an ErrInvalid. Types other than Abort and Commit are returned as they are; a
// newer version's further fields are ignored, as KIP-98 asks.
func (b Batch) Marker() (Marker, error) {
	if !b.IsControl() {
		return Marker{}, fmt.Errorf("%w: no control batch", ErrInvalid)
	}
	if b.Count() != 1 {
		return Marker{}, fmt.Errorf("%w: control batch of %d records", ErrInvalid, b.Count())
	}
	for r, err := range b.Records() {
		if err != nil {
			return Marker{}, err
		}
		if len(r.Key) < 4 || binary.BigEndian.Uint16(r.Key) > 0x7fff {
			return Marker{}, fmt.Errorf("%w: control key %x", ErrInvalid, r.Key)
		}
		m := Marker{Type: MarkerType(binary.BigEndian.Uint16(r.Key[2:])), Timestamp: r.Timestamp}
		if m.Type == Abort || m.Type == Commit {
			if len(r.Value) < 6 {
				return Marker{}, fmt.Errorf("%w: control value %x", ErrInvalid, r.Value)
			}
			m.CoordinatorEpoch = int32(binary.BigEndian.Uint32(r.Value[2:]))
		}
		return m, nil
	}
	panic("record: a batch of one record yielded nothing")
}
