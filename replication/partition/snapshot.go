package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"

	"millrace/replication/raftgroup"
	"millrace/segment"
)

// SnapshotName is the file in a partition's folder that holds its snapshot.
const SnapshotName = "snapshot"

// snapshotMagic begins a snapshot file; its last byte is the format version.
const snapshotMagic = "MLSNAP\x00\x01"

// A snapshot is all a partition's snapshot holds: where Raft stood, and the
// producer state there. The data itself stays in the log.
type snapshot struct {
	index, term        uint64
	configurationIndex uint64
	configuration      []byte // raft.EncodeConfiguration
	state              []byte // producers.encode
}

// encode returns the file:
//
//	magic "MLSNAP", 0, 1 · index u64 · term u64 · configurationIndex u64
//	length u32 · configuration · length u32 · state · crc u32
//
// Big-endian; crc is the CRC-32C of everything before it.
func (s *snapshot) encode() []byte {
	p := make([]byte, 0, len(snapshotMagic)+36+len(s.configuration)+len(s.state))
	p = append(p, snapshotMagic...)
	p = binary.BigEndian.AppendUint64(p, s.index)
	p = binary.BigEndian.AppendUint64(p, s.term)
	p = binary.BigEndian.AppendUint64(p, s.configurationIndex)
	p = binary.BigEndian.AppendUint32(p, uint32(len(s.configuration)))
	p = append(p, s.configuration...)
	p = binary.BigEndian.AppendUint32(p, uint32(len(s.state)))
	p = append(p, s.state...)
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

// decodeSnapshot reads what encode wrote. The result aliases p.
func decodeSnapshot(p []byte) (*snapshot, error) {
	const fixed = len(snapshotMagic) + 24
	if len(p) < fixed+12 || string(p[:len(snapshotMagic)]) != snapshotMagic {
		return nil, errors.New("not a snapshot of this version")
	}
	body, sum := p[:len(p)-4], binary.BigEndian.Uint32(p[len(p)-4:])
	if found := crc32.Checksum(body, castagnoli); found != sum {
		return nil, fmt.Errorf("checksum %08x, expected %08x", found, sum)
	}
	s := &snapshot{
		index:              binary.BigEndian.Uint64(p[8:]),
		term:               binary.BigEndian.Uint64(p[16:]),
		configurationIndex: binary.BigEndian.Uint64(p[24:]),
	}
	rest := body[fixed:]
	for _, field := range []*[]byte{&s.configuration, &s.state} {
		if len(rest) < 4 || uint32(len(rest)-4) < binary.BigEndian.Uint32(rest) {
			return nil, errors.New("a field ends past the file")
		}
		n := 4 + int(binary.BigEndian.Uint32(rest))
		*field, rest = rest[4:n], rest[n:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%d bytes too many", len(rest))
	}
	if _, err := raftgroup.DecodeConfiguration(s.configuration); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return s, nil
}

// A snapshotStore keeps a partition's newest snapshot in one file. It
// implements raft.SnapshotStore.
type snapshotStore struct {
	fs   segment.FS
	path string
	r    *Replica // whose snapshots they are, once it runs; nil before, and for another's

	mu   sync.Mutex
	last *snapshot // nil: none yet
}

// openSnapshots reads the snapshot in dir, if there is one.
func openSnapshots(fs segment.FS, dir string) (*snapshotStore, error) {
	return openSnapshot(fs, filepath.Join(dir, SnapshotName))
}

// maxSnapshot bounds what is read: some ten times what maxProducers take.
const maxSnapshot = 1 << 30

func openSnapshot(fs segment.FS, path string) (*snapshotStore, error) {
	s := &snapshotStore{fs: fs, path: path}
	p, err := segment.ReadFile(fs, s.path, maxSnapshot)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if s.last, err = decodeSnapshot(p); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.path, err)
	}
	return s, nil
}

// newest returns the newest snapshot, or nil.
func (s *snapshotStore) newest() *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// index returns the newest snapshot's index, 0 without one.
func (s *snapshotStore) index() uint64 {
	if last := s.newest(); last != nil {
		return last.index
	}
	return 0
}

// put makes snap the newest, durably.
func (s *snapshotStore) put(snap *snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := replaceFile(s.fs, s.path, snap.encode())
	if segment.IsNoSpace(err) && s.r != nil {
		s.r.store.ReleaseRoom() // without a snapshot nothing on a full disk can be deleted
		err = replaceFile(s.fs, s.path, snap.encode())
	}
	if err != nil {
		if s.r != nil {
			s.r.snapshotTroubled(err)
		}
		return err
	}
	s.last = snap
	return nil
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(_ raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &snapshotSink{store: s, snap: &snapshot{
		index:              index,
		term:               term,
		configurationIndex: configurationIndex,
		configuration:      raft.EncodeConfiguration(configuration),
	}}, nil
}

// List implements raft.SnapshotStore.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	last := s.newest()
	if last == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{last.meta()}, nil
}

// Open implements raft.SnapshotStore.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	last := s.newest()
	if last == nil || last.meta().ID != id {
		return nil, nil, fmt.Errorf("snapshot %s was replaced", id)
	}
	return last.meta(), io.NopCloser(bytes.NewReader(last.state)), nil
}

func (s *snapshot) meta() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		ID:                 fmt.Sprintf("%d-%d", s.term, s.index),
		Index:              s.index,
		Term:               s.term,
		Configuration:      raft.DecodeConfiguration(s.configuration),
		ConfigurationIndex: s.configurationIndex,
		Size:               int64(len(s.state)),
	}
}

// A snapshotSink gathers a snapshot's state and keeps it at Close.
type snapshotSink struct {
	store *snapshotStore
	snap  *snapshot
	done  bool
}

// Write implements raft.SnapshotSink.
func (s *snapshotSink) Write(p []byte) (int, error) {
	s.snap.state = append(s.snap.state, p...)
	return len(p), nil
}

// Close implements raft.SnapshotSink.
func (s *snapshotSink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	return s.store.put(s.snap)
}

// Cancel implements raft.SnapshotSink.
func (s *snapshotSink) Cancel() error {
	s.done = true
	return nil
}

// ID implements raft.SnapshotSink.
func (s *snapshotSink) ID() string { return s.snap.meta().ID }

// replaceFile makes path hold p, whole or not at all, and durably: see
// segment.WriteFile.
func replaceFile(fs segment.FS, path string, p []byte) error {
	_, err := segment.WriteFile(fs, path, p)
	return err
}
