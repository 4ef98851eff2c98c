package log

import (
	"bytes"
	"iter"

	"github.com/hashicorp/raft"

	"millrace/segment/record"
)

// headersOnlyExtension marks a headers-only entry: its Data has of each batch only the
// header. StoreLogs has no form on disk for it.
var headersOnlyExtension = []byte{2}

// headersOnly returns a copy of e with the headers of its batches, which is what a
// state machine reads of them, or, of any other entry, all of it.
func headersOnly(e *raft.Log) raft.Log {
	if e.Type != raft.LogCommand || len(e.Extensions) > 0 {
		d := *e
		d.Data, d.Extensions = bytes.Clone(e.Data), bytes.Clone(e.Extensions)
		return d
	}
	n := 0
	for range Headers(e) {
		n++
	}
	d := *e
	d.Data = make([]byte, 0, n*record.HeaderSize)
	for b := range Headers(e) {
		d.Data = append(d.Data, b[:record.HeaderSize]...)
	}
	d.Extensions = headersOnlyExtension
	return d
}

// IsHeadersOnly reports whether the entry has only the headers of its batches: it can be
// applied, and must not be sent to anybody.
func IsHeadersOnly(l *raft.Log) bool {
	return l.Type == raft.LogCommand && len(l.Extensions) == 1 && l.Extensions[0] == headersOnlyExtension[0]
}

// Headers returns the batches of an entry that adds records, whole ones or, of a
// headers-only entry, their headers; of any other entry none. Only what a header says may be
// asked of them: Size is the whole batch's in both cases.
func Headers(l *raft.Log) iter.Seq[record.Batch] {
	return func(yield func(record.Batch) bool) {
		short := IsHeadersOnly(l)
		if l.Type != raft.LogCommand || len(l.Extensions) > 0 && !short {
			return
		}
		for p := l.Data; len(p) > 0; {
			b := record.Batch(p)
			if !yield(b) {
				return
			}
			if short {
				p = p[record.HeaderSize:]
			} else {
				p = p[b.Size():]
			}
		}
	}
}

// HeadersOnly returns what a replica that follows has in memory of the entry, if
// anything: enough to apply it. false: ask GetLog.
func (l *Log) HeadersOnly(index uint64, out *raft.Log) bool { return l.cached.get(index, out) }
