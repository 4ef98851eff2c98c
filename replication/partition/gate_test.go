package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
	"millrace/segment"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// stampedAt is a batch as a leader of the term has stored it.
func stampedAt(offset int64, term uint64, values ...string) record.Batch {
	b := recordtest.Values(values...)
	b.Assign(offset, int32(term))
	return b
}

// A partition's entry from a peer is a trim, or whole batches with their leader's
// stamp. Each other shape is one that something behind the gate would take for
// granted: a header that is not there ended the process.
func TestGateLetsInOnlyWhatALeaderStores(t *testing.T) {
	two := append(bytes.Clone(stampedAt(5, 3, "a", "b")), stampedAt(7, 3, "c")...)
	rotten := bytes.Clone(stampedAt(5, 3, "a"))
	rotten[len(rotten)-1] ^= 1
	negative := bytes.Clone(stampedAt(5, 3, "a"))
	binary.BigEndian.PutUint32(negative[23:], 0xffffffff) // last offset delta
	for _, c := range []struct {
		name      string
		data, ext []byte
		want      string // part of the error; "": let in
		typ       raft.LogType
	}{
		{name: "a batch", data: stampedAt(5, 3, "a")},
		{name: "two batches", data: two},
		{name: "a trim", data: u64s(9), ext: []byte{1}},
		{name: "a noop", typ: raft.LogNoop},
		{name: "nothing", want: "batch"},
		{name: "one byte", data: []byte{1}, want: "batch"},
		{name: "a header cut short", data: stampedAt(5, 3, "a")[:40], want: "batch"},
		{name: "a batch cut short", data: two[:len(two)-1], want: "batch"},
		{name: "something behind a batch", data: append(bytes.Clone(two), 7), want: "batch"},
		{name: "another leader's stamp", data: stampedAt(5, 2, "a"), want: "epoch 2"},
		{name: "no stamp", data: recordtest.Values("a"), want: "epoch -1"},
		{name: "the number of an entry of our own", data: stampedAt(-1, 3, "a"), want: "offset -1"},
		{name: "offsets with a gap", data: append(bytes.Clone(stampedAt(5, 3, "a")), stampedAt(7, 3, "c")...), want: "offset 7"},
		{name: "the last offset there is", data: stampedAt(math.MaxInt64, 3, "a"), want: "offset"},
		{name: "a negative delta", data: negative, want: "delta -1"},
		{name: "a flipped bit", data: rotten, want: "checksum"},
		{name: "headers only", data: stampedAt(5, 3, "a")[:record.HeaderSize], ext: []byte{2}, want: "extensions"},
		{name: "a trim of seven bytes", data: u64s(9)[:7], ext: []byte{1}, want: "extensions"},
		{name: "a trim below zero", data: u64s(math.MaxUint64), ext: []byte{1}, want: "trim"},
	} {
		l := &raft.Log{Index: 9, Term: 3, Type: c.typ, Data: c.data, Extensions: c.ext}
		err := testEntries{}.Check(4, l)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Should something reach the log or the fsm after all that they cannot take, it
// ends that run of the replica and Raft's goroutine, and is told.
func TestPanicInRaftsGoroutineIsContained(t *testing.T) {
	s, _ := testStoreThatMayFail(t)
	m := s.r.fsm
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Apply(&raft.Log{Index: 2, Term: 1, Data: []byte{1}})
		t.Error("Apply returned from bytes that are no batch")
	}()
	<-ended
	if cause := s.r.ended(); !errors.Is(cause, raftgroup.ErrPanic) {
		t.Errorf("the replica is ended by %v, want %v", cause, raftgroup.ErrPanic)
	}
	if m.reached(1) { // the lock was given back
		t.Error("the fsm took it")
	}

	s, _ = testStore(t)
	if err := s.StoreLogs([]*raft.Log{{Index: 2, Term: 1, Data: []byte{1}}}); err == nil {
		t.Error("the store took a command of one byte")
	}
	second := bytes.Clone(ownEntry(2, 0).Data)
	if err := s.StoreLogs([]*raft.Log{{Index: 2, Term: 1, Data: append(second, 1, 2, 3)}}); err == nil {
		t.Error("the store took an entry of our own with three bytes behind its batch")
	}
	if err := s.StoreLogs([]*raft.Log{ownEntry(2, 0)}); err != nil {
		t.Errorf("and then refused a good one: %v", err)
	}
}

// A snapshot whose producer state cannot be read is refused before anything is kept
// of it: no later run could begin without reading it.
func TestSnapshotWithDamagedStateIsRefused(t *testing.T) {
	good := &snapshot{index: 3, term: 1, configurationIndex: 1, configuration: raft.EncodeConfiguration(raft.Configuration{}), state: producers{}.encode(nil)}
	if _, err := decodeSnapshot(good.encode()); err != nil {
		t.Fatal(err)
	}
	bad := *good
	bad.configuration = []byte("\x81\xa7Servers\xdd\xff\xff\xff\xff")
	if _, err := decodeSnapshot(bad.encode()); err == nil || !strings.Contains(err.Error(), "configuration") {
		t.Errorf("a configuration that Raft panics on was read: %v", err)
	}
}

// FuzzPeerEntries sends whatever it likes in appends to a replica's real store and
// fsm, through a real transport: what the gate lets in the log must take, or
// refuse for where it stands (an offset or an index that is not next), and the
// fsm must be able to apply what the log gives back. Nothing may panic.
func FuzzPeerEntries(f *testing.F) {
	two := append(bytes.Clone(stampedAt(0, 1, "a", "b")), stampedAt(2, 1, "c")...)
	f.Add(uint8(raft.LogCommand), []byte(stampedAt(0, 1, "a")), []byte(nil), uint8(raft.LogCommand), []byte(stampedAt(1, 1, "b")), []byte(nil))
	f.Add(uint8(raft.LogCommand), two, []byte(nil), uint8(raft.LogCommand), u64s(2), []byte{1})
	f.Add(uint8(raft.LogCommand), []byte{1}, []byte(nil), uint8(raft.LogNoop), []byte(nil), []byte(nil))
	f.Add(uint8(raft.LogCommand), []byte(stampedAt(-1, 1, "a")), []byte(nil), uint8(raft.LogBarrier), []byte("x"), []byte{3})
	f.Add(uint8(raft.LogCommand), two[:record.HeaderSize], []byte{2}, uint8(raft.LogCommand), []byte(recordtest.Sequenced(9, 0, 0, 1, 0)), []byte(nil))
	f.Add(uint8(raft.LogConfiguration), raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}}}), []byte(nil), uint8(raft.LogNoop), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, type1 uint8, data1, ext1 []byte, type2 uint8, data2, ext2 []byte) {
		l, err := log.Open(filepath.Join(t.TempDir(), "p"), segment.Identity{Cluster: "c"}, log.Config{SegmentBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(false)
		r := testReplica(t, l)
		s, m := r.store, r.fsm
		defer func() {
			if cause := r.ended(); errors.Is(cause, raftgroup.ErrPanic) {
				t.Errorf("contained: %v", cause)
			}
		}()
		tr := transport.New(transport.Config{
			Local: transport.Peer{Node: 1, Incarnation: "a"}, Cluster: "c", Entries: testEntries{},
		})
		addr := serving(t, tr)
		port := tr.Group(7, "1.a")
		port.ReuseBuffers()
		ended := make(chan struct{})
		defer close(ended)
		go func() { // Raft, as far as a follower's log is concerned
			for {
				var rpc raft.RPC
				select {
				case rpc = <-port.Consumer():
				case <-ended:
					return
				}
				req := rpc.Command.(*raft.AppendEntriesRequest)
				if err := s.StoreLogs(req.Entries); err != nil {
					var mismatch *log.MismatchError
					if !errors.As(err, &mismatch) && !strings.Contains(err.Error(), "takes") && !strings.Contains(err.Error(), "no form on disk") {
						t.Errorf("the gate let in what the store refuses: %v", err)
					}
					rpc.Respond(&raft.AppendEntriesResponse{Term: 1}, nil)
					continue
				}
				var given []*raft.Log
				for _, e := range req.Entries {
					var back raft.Log
					if err := s.GetLog(e.Index, &back); err != nil {
						t.Errorf("entry %d was stored and cannot be read: %v", e.Index, err)
						continue
					}
					if back.Type == raft.LogCommand || back.Type == raft.LogConfiguration {
						given = append(given, &back)
					}
				}
				if len(given) > 0 {
					m.ApplyBatch(given)
				}
				rpc.Respond(&raft.AppendEntriesResponse{Term: 1, LastLog: uint64(len(req.Entries)), Success: true}, nil)
			}
		}()
		peer := transport.New(transport.Config{
			Local: transport.Peer{Node: 2, Incarnation: "x"}, Cluster: "c", Entries: testEntries{}, Membership: dialled{addr},
		})
		defer peer.Close()
		req := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("2.x"), Addr: []byte("2.x")}, Term: 1,
			Entries: []*raft.Log{
				{Index: 1, Term: 1, Type: raft.LogType(type1), Data: resealed(data1), Extensions: ext1},
				{Index: 2, Term: 1, Type: raft.LogType(type2), Data: resealed(data2), Extensions: ext2},
			},
		}
		peer.Group(7, "2.x").AppendEntries("1.a", "1.a", req, new(raft.AppendEntriesResponse))
		if tr.Stats().Panics > 0 {
			t.Error("the transport contained a panic")
		}
	})
}

// resealed gives batches the checksums of what they hold: whoever damages a batch can
// repair them.
func resealed(p []byte) []byte {
	p = bytes.Clone(p)
	for rest := p; len(rest) > 0; {
		b, next, err := record.Split(rest)
		if err != nil {
			break
		}
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
		rest = next
	}
	return p
}

func u64s(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return b
}
