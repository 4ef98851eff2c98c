package partition

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"millrace/segment/record"
)

// cachedBatches is how many of a producer's last batches are recognised when
// they are sent again. Clients keep at most five in flight (KIP-98).
const cachedBatches = 5

// A producer that has written nothing for producer.id.expiration.ms is forgotten,
// by the clock of each replica since it applied the last batch, or since it began.
// A forgotten producer may go on with any sequence number, as in Kafka. Replicas
// may differ by what one of them has forgotten already: so it is in Kafka, and none
// is less careful than the setting says.
//
// One takes 130 bytes with a single batch and 260 with five, so the bounds are
// memory. Where one is reached, those that wrote longest ago are forgotten before
// their time, by index, and a line in the log says so.
const (
	// maxProducers bounds those of one partition: 9 to 17 MB.
	maxProducers = 1 << 16
	// crowdedProducers is how many a node remembers of all partitions, 50 to
	// 100 MB, before each of them must do with sureProducers.
	crowdedProducers = 400_000
	sureProducers    = 8192
	// maxTails bounds those that a leader copies while they write.
	maxTails = 1 << 14
)

// A sequenced is one remembered batch of a producer.
type sequenced struct {
	first, last int32
	offset      int64 // of the first record; -1 on a leader that appended it: see pendingOffset
	appended    int64 // append time in milliseconds, or -1 with CreateTime
	pending     *pendingOffset
}

// A pendingOffset is where a leader's batch will be, once its entry is committed. It
// is written before anything behind that entry is answered, under the
// leadership's mu.
type pendingOffset struct {
	offset int64 // -1: in flight, or lost
}

// A producer is what a partition remembers of one producer id: its last
// epoch and its last batches, oldest first.
type producer struct {
	epoch     int16
	index     uint64 // Raft index of its last batch; orders forgetting
	timestamp int64  // largest timestamp of its last batch, milliseconds
	seen      int64  // when that was applied here, Unix milliseconds; in no snapshot
	batches   []sequenced
}

// lastSequence returns the last sequence number, or -1 without any.
func (p *producer) lastSequence() int32 {
	if len(p.batches) == 0 {
		return -1
	}
	return p.batches[len(p.batches)-1].last
}

// find returns the remembered batch that b repeats.
func (p *producer) find(b record.Batch) (sequenced, bool) {
	if b.ProducerEpoch() != p.epoch {
		return sequenced{}, false
	}
	first, last := b.BaseSequence(), lastSequence(b)
	for _, s := range p.batches {
		if s.first == first && s.last == last {
			return s, true
		}
	}
	return sequenced{}, false
}

// check tells whether b may be appended after what is remembered.
func (p *producer) check(b record.Batch) error {
	epoch := b.ProducerEpoch()
	switch {
	case epoch < p.epoch:
		return fmt.Errorf("%w: epoch %d, last %d", ErrProducerFenced, epoch, p.epoch)
	case epoch > p.epoch:
		if b.BaseSequence() != 0 {
			return fmt.Errorf("%w: sequence %d begins epoch %d", ErrSequence, b.BaseSequence(), epoch)
		}
		return nil
	}
	last := p.lastSequence()
	if len(p.batches) == 0 || follows(last, b.BaseSequence()) {
		return nil
	}
	return fmt.Errorf("%w: sequence %d after %d", ErrSequence, b.BaseSequence(), last)
}

// add remembers b, which check has passed or which is committed.
func (p *producer) add(b record.Batch, s sequenced) {
	if b.ProducerEpoch() != p.epoch {
		p.epoch = b.ProducerEpoch()
		p.batches = p.batches[:0]
	}
	if len(p.batches) == cachedBatches {
		copy(p.batches, p.batches[1:])
		p.batches = p.batches[:cachedBatches-1]
	}
	s.first, s.last = b.BaseSequence(), lastSequence(b)
	if len(p.batches) == 2 {
		p.batches = slices.Grow(p.batches, cachedBatches-2) // and not twice more
	}
	p.batches = append(p.batches, s)
	p.timestamp = b.MaxTimestamp()
}

// clone returns a copy that shares nothing with p.
func (p *producer) clone() *producer {
	c := *p
	c.batches = append(make([]sequenced, 0, cachedBatches), p.batches...)
	return &c
}

// lastSequence returns the sequence number of b's last record; numbers wrap
// from 2³¹−1 to 0.
func lastSequence(b record.Batch) int32 {
	return int32((int64(b.BaseSequence()) + int64(b.LastOffsetDelta())) & math.MaxInt32)
}

// follows tells whether next comes right after last.
func follows(last, next int32) bool {
	return next == last+1 || last == math.MaxInt32 && next == 0
}

// producers is the committed producer state of a partition: the same on every
// replica that has applied the same entries, but for what was forgotten.
type producers map[int64]*producer

// apply remembers a committed batch of the entry at index, applied at now, and no
// more than limit producers. It returns how many it forgot for that.
func (ps producers) apply(b record.Batch, index uint64, now int64, limit int) (forgot int) {
	id := b.ProducerID()
	if id < 0 || b.IsControl() {
		return 0
	}
	p := ps[id]
	if p == nil {
		forgot = ps.makeRoom(limit)
		p = &producer{epoch: b.ProducerEpoch()}
		ps[id] = p
	}
	appended := int64(-1)
	if b.AppendTime() {
		appended = b.MaxTimestamp()
	}
	p.add(b, sequenced{offset: b.BaseOffset(), appended: appended})
	p.index, p.seen = index, now
	return forgot
}

// makeRoom makes room for one more than limit-1 by forgetting the producers that
// wrote longest ago, an eighth of limit at a time so that the search for them is
// paid seldom. It returns how many.
func (ps producers) makeRoom(limit int) int {
	if len(ps) < limit {
		return 0
	}
	indexes := make([]uint64, 0, len(ps))
	for _, p := range ps {
		indexes = append(indexes, p.index)
	}
	slices.Sort(indexes)
	last := indexes[len(ps)-limit+limit/8]
	before := len(ps)
	for id, p := range ps {
		if p.index <= last {
			delete(ps, id)
		}
	}
	return before - len(ps)
}

// expire forgets the producers that have written nothing since before, in Unix
// milliseconds, and returns how many.
func (ps producers) expire(before int64) (n int) {
	for id, p := range ps {
		if p.seen < before {
			delete(ps, id)
			n++
		}
	}
	return n
}

// encode appends the state in the snapshot's format:
//
//	count u32, then for each producer, by ascending id:
//	id i64 · epoch i16 · index u64 · timestamp i64 · batches u8, then for each:
//	first i32 · last i32 · offset i64 · appended i64
//
// Big-endian throughout.
func (ps producers) encode(p []byte) []byte {
	p = binary.BigEndian.AppendUint32(p, uint32(len(ps)))
	for _, id := range slices.Sorted(maps.Keys(ps)) {
		s := ps[id]
		p = binary.BigEndian.AppendUint64(p, uint64(id))
		p = binary.BigEndian.AppendUint16(p, uint16(s.epoch))
		p = binary.BigEndian.AppendUint64(p, s.index)
		p = binary.BigEndian.AppendUint64(p, uint64(s.timestamp))
		p = append(p, byte(len(s.batches)))
		for _, b := range s.batches {
			p = binary.BigEndian.AppendUint32(p, uint32(b.first))
			p = binary.BigEndian.AppendUint32(p, uint32(b.last))
			p = binary.BigEndian.AppendUint64(p, uint64(b.offset))
			p = binary.BigEndian.AppendUint64(p, uint64(b.appended))
		}
	}
	return p
}

// decodeProducers reads what encode wrote. All are taken for seen at now.
func decodeProducers(p []byte, now int64) (producers, error) {
	const fixed, each = 8 + 2 + 8 + 8 + 1, 4 + 4 + 8 + 8
	bad := fmt.Errorf("partition: producer state of %d bytes ends early", len(p))
	if len(p) < 4 {
		return nil, bad
	}
	n := int(binary.BigEndian.Uint32(p))
	p = p[4:]
	if n > len(p)/fixed {
		return nil, bad
	}
	ps := make(producers, n)
	for range n {
		if len(p) < fixed {
			return nil, bad
		}
		id := int64(binary.BigEndian.Uint64(p))
		s := &producer{
			epoch:     int16(binary.BigEndian.Uint16(p[8:])),
			index:     binary.BigEndian.Uint64(p[10:]),
			timestamp: int64(binary.BigEndian.Uint64(p[18:])),
			seen:      now,
		}
		count := int(p[26])
		p = p[fixed:]
		if count > cachedBatches || len(p) < count*each {
			return nil, bad
		}
		for range count {
			s.batches = append(s.batches, sequenced{
				first:    int32(binary.BigEndian.Uint32(p)),
				last:     int32(binary.BigEndian.Uint32(p[4:])),
				offset:   int64(binary.BigEndian.Uint64(p[8:])),
				appended: int64(binary.BigEndian.Uint64(p[16:])),
			})
			p = p[each:]
		}
		ps[id] = s
	}
	if len(p) != 0 {
		return nil, fmt.Errorf("partition: %d bytes follow the producer state", len(p))
	}
	return ps, nil
}
