package raftgroup

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/segment"
	"millrace/segment/record"
)

// A log gives headers only to who follows, and who has become the leader meanwhile may be
// about to send what it read: nobody may be sent such an entry.
func TestAnEntryOfHeadersOnlyIsNotSent(t *testing.T) {
	l, err := log.Open(t.TempDir()+"/p", segment.Identity{Cluster: "c"}, log.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(false)
	batch, err := record.Build(record.None, record.Record{Value: []byte("v")})
	if err != nil {
		t.Fatal(err)
	}
	batch.Assign(0, 1)
	whole := &raft.Log{Index: 1, Term: 1, Data: batch}
	headers := new(raft.Log)
	if err := l.StoreLog(whole); err != nil || !l.HeadersOnly(1, headers) {
		t.Fatalf("no headers of entry 1: %v", err)
	}
	err = new(groupTransport).AppendEntries("", "", &raft.AppendEntriesRequest{Entries: []*raft.Log{whole, headers}}, nil)
	if !errors.Is(err, errHeadersOnly) {
		t.Errorf("a headers-only entry was sent: %v", err)
	}
}
