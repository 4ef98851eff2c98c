package partition

import (
	"bytes"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/segment"
	"millrace/segment/record/recordtest"
)

// A follower applies headers-only entries, and must come to the state that the entries
// themselves lead to.
func TestHeadersOnlyEntriesAreAppliedAsWholeOnes(t *testing.T) {
	l, err := log.Open(t.TempDir()+"/p", segment.Identity{Cluster: "c"}, log.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(false)
	offset := int64(0)
	var headersOnly, entries []*raft.Log
	for i := range uint64(20) {
		var data []byte
		for j := range 1 + i%3 {
			b := recordtest.Sequenced(int64(i%4), 0, int32(i), int(1+10*i+j), offset)
			offset = b.NextOffset()
			data = append(data, b...)
		}
		entry := &raft.Log{Index: i + 1, Term: 1, Data: bytes.Clone(data)}
		if err := l.StoreLog(entry); err != nil {
			t.Fatal(err)
		}
		headers := new(raft.Log)
		if !l.HeadersOnly(i+1, headers) || !log.IsHeadersOnly(headers) {
			t.Fatalf("no headers of entry %d", i+1)
		}
		headersOnly, entries = append(headersOnly, headers), append(entries, entry)
	}
	apply := func(logs []*raft.Log) *fsm {
		r := testReplica(t, l)
		r.fsm.ApplyBatch(logs)
		if cause := r.ended(); cause != nil {
			t.Error(cause)
		}
		return r.fsm
	}
	got, want := apply(headersOnly), apply(entries)
	if a, b := got.producers.encode(nil), want.producers.encode(nil); !bytes.Equal(a, b) || len(want.producers) != 4 {
		t.Errorf("headers lead to the producers %x, entries to %x", a, b)
	}
	if got.next != want.next || got.next != offset || got.applied != want.applied || got.applied == 0 {
		t.Errorf("headers lead to offset %d after %d bytes, entries to %d after %d", got.next, got.applied, want.next, want.applied)
	}
}
