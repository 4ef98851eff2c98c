package log

import (
	"hash/maphash"
	"time"

	"millrace/segment/record"
)

// A filter says what a compaction keeps of a batch. It knows nothing of files: it learns
// the batches of the dirty segments, in order, and is applied to those of all segments
// that are compacted.
type filter struct {
	start     int64 // the log start offset
	now       int64 // milliseconds since 1970
	retention int64 // of tombstones, from the first compaction that meets them on; milliseconds
	seeds     [2]maphash.Seed
	latest    keyTable

	records, kept int64 // met by apply
}

// newFilter returns a filter that remembers up to maxKeys keys. now is in milliseconds
// since 1970.
func newFilter(start, now int64, retention time.Duration, maxKeys int) *filter {
	return &filter{
		start: start, now: now, retention: retention.Milliseconds(),
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, latest: keyTable{max: maxKeys},
	}
}

func (f *filter) hash(key []byte) keyHash {
	return keyHash{maphash.Bytes(f.seeds[0], key), maphash.Bytes(f.seeds[1], key)}
}

// learn notes the offset of each key in b. It returns false at a key too many, unless it is
// forced to take them all. Of a batch that cannot be read it takes what comes before the
// damage: apply keeps such a batch whole.
func (f *filter) learn(b record.Batch, force bool) bool {
	if b.IsControl() {
		return true
	}
	for r, err := range b.Records() {
		if err != nil {
			return true
		}
		if r.Key != nil && !f.latest.put(f.hash(r.Key), r.Offset, force) {
			return false
		}
	}
	return true
}

// apply returns what is kept of b, nil for nothing; an error if b cannot be read.
func (f *filter) apply(b record.Batch) (record.Batch, error) {
	if b.NextOffset() <= f.start {
		return nil, nil
	}
	if b.IsControl() {
		return b, nil // transactions' markers stay until their records are gone
	}
	horizon, set := b.DeleteHorizon()
	keep := func(r record.Record) bool {
		switch {
		case r.Key == nil:
			return false // no key: nothing could ever take its place; Kafka drops it too
		case r.Offset < f.start:
			return false
		}
		if latest, ok := f.latest.get(f.hash(r.Key)); ok && latest > r.Offset {
			return false
		}
		return r.Value != nil || !set || f.now < horizon
	}
	total, kept, tombstones := 0, 0, false
	for r, err := range b.Records() {
		if err != nil {
			return nil, err
		}
		total++
		if keep(r) {
			kept++
			tombstones = tombstones || r.Value == nil
		}
	}
	f.records += int64(total)
	f.kept += int64(kept)
	switch {
	case kept == 0:
		return nil, nil
	case tombstones && !set:
		return b.RewriteUntil(f.now+f.retention, b.Codec(), keep)
	case kept == total:
		return b, nil
	}
	return b.Rewrite(b.Codec(), keep)
}
