package log

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"millrace/segment"
)

// Errors a caller can act on.
var (
	ErrOutOfRange = errors.New("log: offset out of range")
	// ErrNoSpace says that the disk is full. It always comes as a *RefusedError.
	ErrNoSpace = segment.ErrNoSpace
	ErrClosed  = errors.New("log: closed")
	// ErrNoSegment says that the log has no sealed segment that begins there, or
	// none any more.
	ErrNoSegment = errors.New("log: no such sealed segment")
	// ErrCommitted refuses to delete entries that are known to be committed.
	ErrCommitted = errors.New("log: entries are committed")
)

// A RefusedError says that nothing has changed, and that the same call may succeed
// later: the system lacks room on the disk, descriptors, mappings or memory.
type RefusedError = segment.RefusedError

// A FailedError says that a change began and did not end, so that nobody knows what
// the disk holds. The log takes no more changes: it has to be closed, and opened
// again, which finds out.
type FailedError struct {
	Dir string
	Err error // never a *RefusedError
}

func (e *FailedError) Error() string { return fmt.Sprintf("log %s failed: %v", e.Dir, e.Err) }

func (e *FailedError) Unwrap() error { return e.Err }

// Scarce reports whether the system ran out of something half-way through the change: of
// room, mostly. The disk is sound then, and the log can be opened again as soon as the
// system has what it lacked. If false, the disk failed. Open may well succeed even so,
// since it writes again what was not synced; but an operator should look at a disk that
// has lost a write before more is entrusted to it.
func (e *FailedError) Scarce() bool { return segment.Scarce(e.Err) }

// A MismatchError says that a follower's batch carries another offset than the
// log would give it: two replicas disagree about what precedes it. Nothing was
// stored.
type MismatchError struct {
	Dir             string
	Index           uint64
	Found, Expected int64 // offsets
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("log %s: entry %d carries offset %d, expected %d", e.Dir, e.Index, e.Found, e.Expected)
}

// SegmentInfo says what one segment holds.
type SegmentInfo = segment.Info

// Config says how a log stores. The zero value is the default of every field.
type Config struct {
	// SegmentBytes bounds a segment's file; 0: 256 MiB. An entry that is larger
	// gets a segment of its own.
	SegmentBytes int64
	// SegmentAge is how old a segment's first entry may be before RollIfDue ends the
	// segment; 0: 7 days.
	SegmentAge time.Duration
	// FlushMessages is the number of records after which StoreLogs syncs; 0 and 1:
	// every call. Entries that are no command are always synced at once.
	FlushMessages int64
	// Cache is shared by the logs of a node; nil: a private one of
	// DefaultCacheBytes.
	Cache *Cache
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Owner is told what the log does unasked; nil: nobody.
	Owner Owner
	// Logger takes what an operator should know; nil: none of it.
	Logger *slog.Logger
	// FS is the file system; nil: the operating system's.
	FS segment.FS
}

const (
	defaultSegmentBytes = 256 << 20
	defaultSegmentAge   = 7 * 24 * time.Hour
)

func (c *Config) defaults() {
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = defaultSegmentBytes
	}
	if c.SegmentAge <= 0 {
		c.SegmentAge = defaultSegmentAge
	}
	if c.FlushMessages <= 0 {
		c.FlushMessages = 1
	}
	if c.Cache == nil {
		c.Cache = NewCache(DefaultCacheBytes)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Owner == nil {
		c.Owner = nobody{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.FS == nil {
		c.FS = segment.OS
	}
}

// An Owner is told what its log does beside what the call under way was for. Its methods are
// called on the goroutine of that call, and must not block.
type Owner interface {
	// LogFailed is called once, when the log fails, with a *FailedError. It must not call the
	// log, whose locks may be held.
	LogFailed(err error)
	// LogRolled is called after each roll with the last index of the segment that ended,
	// outside all locks.
	LogRolled(lastIndex uint64)
}

type nobody struct{}

func (nobody) LogFailed(error)  {}
func (nobody) LogRolled(uint64) {}

// A Log is one partition's log. All methods are safe for concurrent use.
// Readers take no lock of the log and wait for no disk but the pages they read;
// changes wait for one another. It has no goroutine of its own.
//
// A method that ends in Locked needs changing.
type Log struct {
	contents // what readers see
	owner    Owner
	logger   *slog.Logger
	cache    *Cache

	failed     atomic.Pointer[error]
	committed  atomic.Uint64 // nothing at or below this index is ever cut
	isFollower atomic.Bool   // what was stored last was stamped by a leader elsewhere

	changing  sync.Mutex // held by every change, also while it waits for the disk
	folder    folder     // under changing
	cfg       Config     // under changing
	unflushed int64      // records stored since the last sync; under changing
	began     int64      // when the active segment got its first entry, see RollIfDue; under changing
	rolled    uint64     // last index of a segment ended by the change under way; 0: none; under changing

	compaction sync.Mutex // held by a compaction, which holds changing for moments
}

// Configure takes new settings: SegmentBytes, SegmentAge and FlushMessages; the others
// stay. A smaller SegmentBytes ends the last segment with the next append.
func (l *Log) Configure(cfg Config) {
	cfg.defaults()
	l.changing.Lock()
	defer l.changing.Unlock()
	l.cfg.SegmentBytes = cfg.SegmentBytes
	l.cfg.SegmentAge = cfg.SegmentAge
	l.cfg.FlushMessages = cfg.FlushMessages
}

// Generation returns a number that grows with every change to the list of
// segments, and so tells an older copy of the folder from a newer one.
func (l *Log) Generation() uint64 {
	l.changing.Lock()
	defer l.changing.Unlock()
	return l.folder.manifest.generation
}

// Flush makes everything durable that was stored before the call. It may run
// beside StoreLogs and does not hold it up. A failure fails the log.
func (l *Log) Flush() error {
	if err := l.Err(); err != nil {
		return err
	}
	err := l.read(func(st *state) error {
		if a := st.active; a != nil {
			return a.Sync()
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrClosed) {
		return l.fail(err)
	}
	return err
}

// Close closes the log; Views already handed out stay valid. A clean close syncs
// and records how far the log was whole, so that the next Open has little to
// read and can tell rot from a torn tail. After an error the log is closed
// nevertheless, uncleanly.
func (l *Log) Close(clean bool) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	if l.closed.Load() {
		return nil
	}
	var err error
	if clean && l.failed.Load() == nil {
		err = l.checkpointLocked()
	}
	l.closed.Store(true)
	l.cache.cut(&l.cached, 0)
	for _, s := range l.state.Load().segments {
		if cerr := s.Close(); err == nil && clean {
			err = cerr
		}
	}
	return err
}
