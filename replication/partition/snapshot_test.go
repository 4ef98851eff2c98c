package partition

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

func testSnapshot() *snapshot {
	return &snapshot{
		index: 42, term: 3, configurationIndex: 1,
		configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}}}),
		state:         []byte("producers"),
	}
}

func TestSnapshotNewestIsKeptAcrossReopening(t *testing.T) {
	dir := t.TempDir()
	s, err := openSnapshots(segment.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Fatalf("an empty folder lists %v, %v", list, err)
	}
	for index := uint64(1); index <= 3; index++ {
		sink, err := s.Create(raft.SnapshotVersionMax, index, 2, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write([]byte{byte(index)}); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cancelled, err := s.Create(raft.SnapshotVersionMax, 9, 2, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancelled.Cancel()
	if s, err = openSnapshots(segment.OS, dir); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Index != 3 {
		t.Fatalf("the newest snapshot is %+v, %v; want index 3", list, err)
	}
	_, r, err := s.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if state, _ := io.ReadAll(r); !bytes.Equal(state, []byte{3}) {
		t.Fatalf("state %v, want [3]", state)
	}
}

func TestSnapshotDamageIsFoundAtEveryByte(t *testing.T) {
	p := testSnapshot().encode()
	if _, err := decodeSnapshot(p); err != nil {
		t.Fatal(err)
	}
	for i := range p {
		damaged := bytes.Clone(p)
		damaged[i] ^= 0x10
		if _, err := decodeSnapshot(damaged); err == nil {
			t.Errorf("a flip in byte %d of %d was not found", i, len(p))
		}
		if _, err := decodeSnapshot(p[:i]); err == nil {
			t.Errorf("the first %d of %d bytes were taken for whole", i, len(p))
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, SnapshotName), p[:10], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openSnapshots(segment.OS, dir); err == nil {
		t.Error("a torn snapshot file was opened")
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add(testSnapshot().encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if s, err := decodeSnapshot(p); err == nil && !bytes.Equal(s.encode(), p) {
			t.Fatal("a snapshot that was read is not what it would be written as")
		}
	})
}
