package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// Errors a caller can act on.
var (
	// ErrFull says that the frames do not fit this segment; they belong into the
	// next one.
	ErrFull = errors.New("segment: full")
	// ErrNoSpace says that the disk is full. Nothing has changed; it always comes as a
	// *RefusedError.
	ErrNoSpace = errors.New("segment: no space left on the disk")
	// ErrClosed says that the segment was closed, or deleted.
	ErrClosed = errors.New("segment: closed")
	// ErrRange says that the segment does not hold what was asked for.
	ErrRange = errors.New("segment: out of range")
)

const (
	// Preallocation begins small, since a node has thousands of idle partitions,
	// and doubles, since a busy one should not stop for it often.
	minAllocate = 64 << 10
	maxAllocate = 16 << 20

	// timeInterval is the bytes of frames between two entries of the time index:
	// 12 bytes for each, and a look-up reads the headers of at most this much.
	timeInterval = 64 << 10
)

// An Info says what a segment holds. It is a value; a sealed segment's does not
// change.
type Info struct {
	FirstIndex uint64
	LastIndex  uint64 // FirstIndex-1 when empty
	BaseOffset int64
	NextOffset int64 // follows the last record
	PrevTerm   uint64
	LastTerm   uint64 // of the last entry; PrevTerm when empty
	// MaxTimestamp of the records, milliseconds since 1970; -1 without records.
	MaxTimestamp int64
	Bytes        int64 // of the file: header and frames
	Salt         uint64
	Created      int64 // milliseconds since 1970
	// Compacted says that compaction wrote the segment. Its frames are numbered
	// from FirstIndex on without a gap, but they are no entries any more: it has
	// fewer of them than entries went into it, and the next segment's FirstIndex
	// lies beyond LastIndex+1.
	Compacted bool
}

// Frames returns the number of entries.
func (i Info) Frames() int { return int(i.LastIndex + 1 - i.FirstIndex) }

// A Reader reads one segment: a sealed one, or what an Active has appended so far. It is
// safe for concurrent use.
//
// Readers see the entries that info counts, which a writer raises only when the bytes
// below are complete.
//
// A method that ends in RLocked needs mu for reading, one that ends in Locked for writing.
// Methods of tables need it as what they do to them needs it: to look for reading, to change
// for writing. To read through the mapping takes a pinned, which needs no lock.
type Reader struct {
	used    atomic.Bool  // read since the last UnmapIdle, or since mappings.makeRoom came by
	written atomic.Int64 // == info.Bytes, readable without mu
	crcs    atomic.Pointer[crcCache]
	late    atomic.Pointer[lateTimes] // nil until a look-up by time needs it

	rebuilding sync.Mutex // held while the tables are rebuilt; taken before mu
	ring       int        // place among the mapped ones, from 1; mapped's

	closing sync.Mutex // held while f syncs or closes; taken before mu

	mu      sync.RWMutex
	tables           // under mu, all but the origin, which never changes
	closed  bool     // under mu, as the rest
	f       File     // the writer's, which is mapped as well; nil when there is none: sealed
	m       *mapping // of the data; nil until the first reader
	loaded  bool     // entries and times are in memory; always, for an active segment
	rebuilt bool     // the index files were found wrong since they were loaded: do not try again
}

// An Active is the segment that a log appends to, and its Reader. It is for one writer; only
// Sync, Synced and Room may be called beside it.
//
// Bytes below synced have reached the disk; synced <= info.Bytes.
type Active struct {
	Reader

	file      File  // closed by Seal and Close
	length    int64 // of the file
	allocated int64 // what is sure to have room on the disk, at most length
	dropped   int64 // below: dropped from the page cache
	synced    atomic.Int64
	room      atomic.Int64 // allocated less written
	broken    error        // of the sync that failed, for good; under closing
}

// Path returns the data file's path.
func (s *Reader) Path() string { return s.path }

// Header returns what the file begins with.
func (s *Reader) Header() Header { return s.h }

// Info returns what the segment holds now.
func (s *Reader) Info() Info {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.info
}

func (s *Reader) isSealed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.f == nil
}

// Paths returns the paths of the files of the segment whose data file is path.
func Paths(path string) []string {
	return []string{path, indexPath(path), timePath(path)}
}

func indexPath(path string) string { return strings.TrimSuffix(path, ".log") + ".index" }
func timePath(path string) string  { return strings.TrimSuffix(path, ".log") + ".timeindex" }

// Create makes the file at path, which ends in .log, with room for at most
// capacity bytes (at least one frame of any size is up to the caller). The file
// and its header are durable when it returns; its name is not until the folder
// is synced. The file must not exist, and after an error it does not, or nothing is
// in it. A *RefusedError says that the next try may succeed.
func Create(fs FS, path string, h Header, capacity int64) (*Active, error) {
	if len(h.Identity.Cluster) > MaxCluster {
		panic(fmt.Sprintf("segment: cluster id %q is longer than %d bytes", h.Identity.Cluster, MaxCluster))
	}
	h.Identity.Replica = ""
	f, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, Refused(err)
	}
	s := newActive(fs, path, h, max(capacity, HeaderSize), f)
	s.loaded = true
	s.reset()
	s.written.Store(HeaderSize)
	err = s.create()
	if err != nil {
		f.Close()
		fs.Remove(path)
		return nil, Refused(err) // even of a write or a sync: what it was for is gone
	}
	return s, nil
}

func (s *Active) create() error {
	if err := s.Allocate(1); err != nil {
		return err
	}
	if err := s.file.Pwritev([][]byte{s.h.encode()}, 0); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.synced.Store(HeaderSize)
	return nil
}

func newActive(fs FS, path string, h Header, capacity int64, f File) *Active {
	return &Active{
		Reader: Reader{tables: newTables(origin{fs: fs, path: path, h: h, capacity: capacity}), f: f},
		file:   f,
	}
}

// OpenSealed opens a sealed segment that holds what info says. The files are
// mapped when the first reader comes, and no descriptor stays open. A
// *CorruptError says that the file is not the one that info describes. Nothing is
// changed by it; *RefusedError.
func OpenSealed(fs FS, path string, id Identity, info Info) (*Reader, error) {
	f, err := openData(fs, path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, size, err := readHeader(f, path)
	if err != nil {
		return nil, err
	}
	if err := CheckHeader(path, h, id, info); err != nil {
		return nil, err
	}
	if size < info.Bytes {
		return nil, &CorruptError{Path: path, Position: size, Found: fmt.Sprintf("a file of %d bytes", size), Expected: fmt.Sprintf("at least %d", info.Bytes)}
	}
	s := &Reader{tables: newTables(origin{fs: fs, path: path, h: h, capacity: info.Bytes})}
	s.fileSize, s.info = size, info
	s.written.Store(info.Bytes)
	return s, nil
}

// openData opens a data file that must be there.
func openData(fs FS, path string, flag int) (File, error) {
	f, err := fs.OpenFile(path, flag)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &CorruptError{Path: path, Position: 0, Found: "no file", Expected: "a segment", Err: err}
	}
	return f, Refused(err)
}

func readHeader(f File, path string) (Header, int64, error) {
	size, err := f.Size()
	if err != nil {
		return Header{}, 0, err
	}
	p := make([]byte, min(size, HeaderSize))
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		return Header{}, 0, fmt.Errorf("read %s: %w", path, err)
	}
	h, err := parseHeader(path, p)
	return h, size, err
}

// CheckHeader refuses a file of another log, or another segment of this one.
func CheckHeader(path string, h Header, id Identity, info Info) error {
	if !h.Identity.SameLog(id) {
		return &CorruptError{Path: path, Position: 16, Found: h.Identity.String(), Expected: id.String()}
	}
	if h.FirstIndex != info.FirstIndex || h.BaseOffset != info.BaseOffset || h.PrevTerm != info.PrevTerm || h.Salt != info.Salt {
		return &CorruptError{
			Path: path, Position: 64,
			Found:    fmt.Sprintf("first index %d, base offset %d, previous term %d, salt %016x", h.FirstIndex, h.BaseOffset, h.PrevTerm, h.Salt),
			Expected: fmt.Sprintf("%d, %d, %d, %016x", info.FirstIndex, info.BaseOffset, info.PrevTerm, info.Salt),
		}
	}
	return nil
}

// Close lets the segment go: readers get ErrClosed, Views already handed out
// stay valid. Nothing is synced; a Sync under way is waited for.
func (s *Reader) Close() error {
	s.closing.Lock()
	defer s.closing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.m != nil {
		mapped.remove(s)
		s.m.release()
		s.m = nil
	}
	s.entries.release()
	s.times = nil
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// Remove deletes the files of the segment whose data file is path, index files
// first. Files that are not there are no error.
func Remove(fs FS, path string) error {
	paths := Paths(path)
	for i := len(paths) - 1; i >= 0; i-- {
		if err := fs.Remove(paths[i]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// RemoveIndexes deletes the index files of the segment whose data file is path. They
// are made again when they are needed.
func RemoveIndexes(fs FS, path string) error {
	var err error
	for _, p := range Paths(path)[1:] {
		if rerr := fs.Remove(p); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// NeverAppended reports whether the data file at path is one that Create made, or began
// to make, and nothing was ever appended to.
func NeverAppended(fs FS, path string) bool {
	p, err := ReadFile(fs, path, minAllocate)
	return err == nil && (len(p) <= HeaderSize || allZero(p[HeaderSize:]))
}

// Capacity returns the most bytes the file may have.
func (s *Reader) Capacity() int64 { return s.capacity }
