package segment

import (
	"fmt"

	"millrace/segment/record"
)

// CheckBatches says what is wrong with the batches of a command, whose payload is
// in memory, "" if nothing is: whole batches, checksums right, stamped with the
// entry's offsets and, as leader epoch, its term. A compacted frame's batches may
// have gaps between them and be of earlier terms.
func CheckBatches(f *Frame) string {
	if f.Type != Command {
		return ""
	}
	next, newest := f.BaseOffset, int64(-1)
	for p := f.Payload; len(p) > 0; {
		b, rest, err := record.Split(p)
		if err != nil {
			return fmt.Sprintf("%v at byte %d of the payload", err, len(f.Payload)-len(p))
		}
		if b.BaseOffset() != next && !(f.Compacted && b.BaseOffset() > next) || b.LastOffsetDelta() < 0 {
			return fmt.Sprintf("a batch at offset %d, last delta %d, where %d was next", b.BaseOffset(), b.LastOffsetDelta(), next)
		}
		if b.Epoch() != int32(f.Term) && !(f.Compacted && b.Epoch() < int32(f.Term)) {
			return fmt.Sprintf("a batch of leader epoch %d in an entry of term %d", b.Epoch(), f.Term)
		}
		if err := b.Check(); err != nil {
			return fmt.Sprintf("the batch at offset %d: %v", next, err)
		}
		next, newest, p = b.NextOffset(), max(newest, b.MaxTimestamp()), rest
	}
	if next != f.NextOffset() && !(f.Compacted && next < f.NextOffset()) || newest != f.MaxTimestamp {
		return fmt.Sprintf("batches up to offset %d and timestamp %d in a frame up to %d and %d", next, newest, f.NextOffset(), f.MaxTimestamp)
	}
	return ""
}
