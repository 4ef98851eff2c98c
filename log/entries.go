package log

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/hashicorp/raft"

	"millrace/segment"
	"millrace/segment/record"
)

// trimExtension marks a raft.LogCommand that moves the log start offset instead
// of adding records.
var trimExtension = []byte{1}

// TrimEntry returns the entry that moves the log start offset to before when it
// is applied. It takes no offset itself.
func TrimEntry(before int64) raft.Log {
	return raft.Log{
		Type:       raft.LogCommand,
		Data:       binary.BigEndian.AppendUint64(nil, uint64(before)),
		Extensions: trimExtension,
	}
}

// ParseTrim returns the offset that a trim entry moves the log start to; ok is
// false for any other entry.
func ParseTrim(l *raft.Log) (before int64, ok bool) {
	if l.Type != raft.LogCommand || len(l.Extensions) != 1 || l.Extensions[0] != trimExtension[0] || len(l.Data) != 8 {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(l.Data)), true
}

var raftTypes = map[segment.Type]raft.LogType{
	segment.Command:       raft.LogCommand,
	segment.Noop:          raft.LogNoop,
	segment.Configuration: raft.LogConfiguration,
	segment.Barrier:       raft.LogBarrier,
	segment.Trim:          raft.LogCommand,
}

func typeOf(l *raft.Log) (segment.Type, error) {
	switch l.Type {
	case raft.LogCommand:
		if len(l.Extensions) == 0 {
			return segment.Command, nil
		}
		if _, ok := ParseTrim(l); ok {
			return segment.Trim, nil
		}
	case raft.LogNoop:
		return segment.Noop, nil
	case raft.LogConfiguration:
		return segment.Configuration, nil
	case raft.LogBarrier:
		return segment.Barrier, nil
	}
	return 0, fmt.Errorf("log: entry %d of type %s with %d bytes and extensions % x has no form on disk", l.Index, l.Type, len(l.Data), l.Extensions)
}

// framesOf checks entries, which are to come next at a boundary of the log in dir, and
// describes them, without a change to them.
func framesOf(logs []*raft.Log, at boundary, dir string) (frames []segment.Frame, err error) {
	frames = make([]segment.Frame, len(logs))
	for i, e := range logs {
		t, err := typeOf(e)
		if err != nil {
			return nil, err
		}
		switch {
		case e.Index != at.index:
			return nil, fmt.Errorf("log %s: entry %d where %d is next", dir, e.Index, at.index)
		case e.Term < at.term || e.Term > math.MaxInt32:
			return nil, fmt.Errorf("log %s: entry %d of term %d after term %d", dir, e.Index, e.Term, at.term)
		case len(e.Data) > segment.MaxPayload:
			return nil, fmt.Errorf("log %s: entry %d of %d bytes, more than %d", dir, e.Index, len(e.Data), segment.MaxPayload)
		}
		f := segment.Frame{Type: t, Index: e.Index, Term: e.Term, BaseOffset: at.offset, MaxTimestamp: -1, Payload: e.Data}
		if t == segment.Command {
			if err := count(e, &f, dir); err != nil {
				return nil, err
			}
		}
		frames[i] = f
		at = boundary{at.index + 1, f.NextOffset(), e.Term}
	}
	return frames, nil
}

// count finds out how many offsets the batches of e take, and compares those that a
// leader of this term has given them.
func count(e *raft.Log, f *segment.Frame, dir string) error {
	epoch := int32(e.Term)
	next := f.BaseOffset
	for p := e.Data; len(p) > 0 || next == f.BaseOffset; {
		b, rest, err := record.Split(p)
		if err != nil {
			return fmt.Errorf("log %s: entry %d: %w", dir, e.Index, err)
		}
		if b.LastOffsetDelta() < 0 || next > math.MaxInt64-1<<32 {
			return fmt.Errorf("log %s: entry %d: batch with last offset delta %d at offset %d", dir, e.Index, b.LastOffsetDelta(), next)
		}
		if b.Epoch() == epoch && b.BaseOffset() != next {
			return &MismatchError{Dir: dir, Index: e.Index, Found: b.BaseOffset(), Expected: next}
		}
		next += int64(b.LastOffsetDelta()) + 1
		f.MaxTimestamp = max(f.MaxTimestamp, b.MaxTimestamp())
		p = rest
	}
	if next-f.BaseOffset > math.MaxUint32 {
		return fmt.Errorf("log %s: entry %d takes %d offsets", dir, e.Index, next-f.BaseOffset)
	}
	f.Span = uint32(next - f.BaseOffset)
	return nil
}

// stamp assigns offsets to the batches that no leader of their term has given any, and
// computes the payloads' CRCs. own says that there were such batches: they are new, and
// not from a leader elsewhere. It comes last before the write, so that whatever refuses an
// entry leaves it byte for byte as it was.
func stamp(logs []*raft.Log, frames []segment.Frame) (own bool) {
	for i, e := range logs {
		f := &frames[i]
		if f.Type != segment.Command {
			continue
		}
		epoch, next := int32(e.Term), f.BaseOffset
		for p := e.Data; len(p) > 0; {
			b, rest, _ := record.Split(p)
			if b.Epoch() != epoch {
				b.Assign(next, epoch)
				own = true
			}
			next = b.NextOffset()
			p = rest
		}
		f.PayloadCRC, f.Summed = record.UpdateCRC(0, e.Data), true
	}
	return own
}
