package vote

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// A Store is the file of all groups' votes and terms, with what is in it in memory. It
// is safe for concurrent use.
type Store struct {
	path string
	cfg  Config
	db   *bbolt.DB
	disk Disk // db, unless Intercept put something before it; the committer's alone

	work chan struct{} // one token: something was queued
	stop chan struct{} // closed by Close
	done chan struct{} // closed by the committer when it ends

	mu     sync.Mutex
	groups map[uint64]*groupState
	queue  []*pendingWrite // what the committer has not taken yet
	total  tally           // of what is on disk
	closed bool
}

// A Config is what a Store needs from around it.
type Config struct {
	Folder   Folder       // where the file is; must be set
	Observer Observer     // nil: nobody wants to know
	Logger   *slog.Logger // nil: nothing is logged
}

// A Folder is where a store's file is.
type Folder interface {
	// Replace gives the file at aside, whose bytes are on disk, the name path in the same
	// folder, and returns when that is on disk too. It is called when there is no file yet.
	Replace(aside, path string) error
}

// An Observer hears how the disk takes what a store writes.
type Observer interface {
	// VotesRecovered hears of each group whose writes are done that had to wait until the
	// disk took them. It must not block.
	VotesRecovered(group uint64)
}

// A Disk is what a store's commits go to.
type Disk interface {
	// Commit writes one transaction: data by key, nil deletes. After an error the disk
	// holds the state before it or the state after, and the same may be written again.
	Commit(records map[string][]byte) error
}

// A groupState is what the store knows of one group.
type groupState struct {
	values map[string][]byte // on disk
	// staged is the LastVoteTerm that waits for its LastVoteCand, nil if none
	// does. Half a vote is worth nothing on disk, and never gets there.
	staged []byte
}

// A pendingWrite is one caller's wait for the disk.
type pendingWrite struct {
	group  uint64
	values map[string][]byte // by name; not written to after it is queued
	forget bool              // instead: delete all of the group
	done   chan error        // gets one: nil, or ErrClosed
}

const (
	// A commit that failed is tried again after retryFirst, then after
	// twice as long each time. A disk that was full is seen to have room again
	// within retryMost.
	retryFirst = 20 * time.Millisecond
	retryMost  = 2 * time.Second
	// While commits fail, one line in this time says so.
	logEvery = 10 * time.Second
)

var (
	// ErrNotFound says that a group has nothing under a name. Raft knows it by its text,
	// which may therefore not be wrapped.
	ErrNotFound = errors.New("not found")
	// ErrClosed says that the store was closed before what was to be written was on disk.
	ErrClosed = errors.New("vote: store is closed")
	// ErrDamaged says that the file cannot be what was written. Trying again helps
	// nothing: the votes are lost, and the node must come back as a new incarnation.
	ErrDamaged = errors.New("vote: file is damaged")
)

// An InUseError says that another process has the file open.
type InUseError struct {
	Path string
	PID  int // of the process, 0 if that cannot be told
}

func (e *InUseError) Error() string { return fmt.Sprintf("%s is in use by %s", e.Path, e.Holder()) }

// Holder names the process.
func (e *InUseError) Holder() string {
	if e.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("pid %d", e.PID)
}

// Open opens the store at path or, if there is no file, creates it in its folder, which
// must exist. It starts the committer; Close stops it.
//
// ErrDamaged, with the path, the position and what is wrong there, if the file cannot be
// what was written; an *InUseError if another process has it open. Nothing is changed
// then.
func Open(path string, cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		path: path, cfg: cfg,
		work: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	p, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.create(); err != nil {
			return nil, fmt.Errorf("create the file of votes: %w", err)
		}
		p, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read votes: %w", err)
	}
	if err := s.load(p); err != nil {
		return nil, fmt.Errorf("read votes: %s: %w", path, err)
	}
	if s.db, err = openBolt(path); errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, &InUseError{Path: path, PID: lockHolder(path)}
	} else if err != nil {
		return nil, fmt.Errorf("open votes %s: %w", path, err)
	}
	s.disk = boltDisk{s.db}
	go s.runCommitter()
	return s, nil
}

// InUse returns an *InUseError if a process has the file at path open. It changes nothing,
// and holds the file for no longer than the question takes.
func InUse(path string) error {
	if _, err := os.Stat(path); err != nil {
		return nil // of a file that is not there nobody can tell
	}
	if db, err := lookBolt(path); errors.Is(err, bbolterrors.ErrTimeout) {
		return &InUseError{Path: path, PID: lockHolder(path)}
	} else if err == nil {
		db.Close()
	}
	return nil // what else is wrong with it is for Open to say
}

// create makes an empty file. A crash leaves it whole or not at all.
func (s *Store) create() error {
	aside := s.path + ".new"
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openBolt(aside)
	if err != nil {
		return fmt.Errorf("%s: %w", aside, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(bucketName)
		if err != nil {
			return err
		}
		key := recordKey(sumGroup, sumName)
		return b.Put([]byte(key), encodeRecord(key, tally{}.encode()))
	})
	if err := cmp.Or(err, db.Close()); err != nil {
		return fmt.Errorf("%s: %w", aside, err)
	}
	return s.cfg.Folder.Replace(aside, s.path)
}

// openBolt opens the database. What bbolt finds wrong while it opens comes as a panic, and
// a page the disk cannot read as a fault in the mapping. readRecords has found both
// before, unless the disk reads differently now.
func openBolt(path string) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer panicToError(&err)
	return bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, // for a lock that another process holds
		// The list of free pages is found again by walking the file, which at
		// this size takes no time. Stored, it would be a page more to write in
		// every commit and one more that can rot.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	})
}

// lookBolt opens the database for a look at once or not at all, with a lock that whoever
// else only looks shares.
func lookBolt(path string) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer panicToError(&err)
	return bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Nanosecond})
}

// panicToError makes an error of a panic. It must be deferred by itself.
func panicToError(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("bbolt: %v", r)
	}
}

// load fills the memory from the file's bytes.
func (s *Store) load(p []byte) error {
	records, err := readRecords(p)
	if err != nil {
		return err
	}
	s.groups = make(map[uint64]*groupState)
	for key, data := range records {
		group, name := splitKey(key)
		s.state(group).values[name] = data
		s.total = s.total.with(key, data)
	}
	return nil
}

// Intercept has every commit from now on go to what over makes of the store's disk: tests
// stand between the two by it. It must be called before the first write.
func (s *Store) Intercept(over func(Disk) Disk) { s.disk = over(s.disk) }

// Forget deletes all of a group from disk and returns when it is gone. The
// group's Raft must have been shut down, and a committed change must have
// deleted the group: a vote that is forgotten can be given again.
// ErrClosed.
func (s *Store) Forget(group uint64) error {
	s.mu.Lock()
	if len(s.groups[group].on()) == 0 {
		delete(s.groups, group)
		s.mu.Unlock()
		return nil
	}
	w, err := s.enqueueLocked(&pendingWrite{group: group, forget: true})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return <-w.done
}

// Close commits what was queued, unless the disk refuses, ends the committer
// and closes the file. Callers that still wait are released as the package's comment says.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if !closed {
		close(s.stop)
	}
	<-s.done
	if closed || s.db == nil {
		return nil
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close votes %s: %w", s.path, err)
	}
	return nil
}

// Group returns the part of the store that is one group's. It begins without half a vote
// that an earlier use of the group may have left.
func (s *Store) Group(id uint64) *Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state(id).staged = nil
	return &Group{store: s, group: id}
}

// state finds a group's or begins it. s.mu is held, or nobody else knows s yet.
func (s *Store) state(group uint64) *groupState {
	state, ok := s.groups[group]
	if !ok {
		state = &groupState{values: make(map[string][]byte)}
		s.groups[group] = state
	}
	return state
}

// on is what is on disk; a group nobody asked for has nothing.
func (state *groupState) on() map[string][]byte {
	if state == nil {
		return nil
	}
	return state.values
}

func (s *Store) get(group uint64, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state(group)
	if name == lastVoteTerm && state.staged != nil {
		return bytes.Clone(state.staged), nil
	}
	data, ok := state.values[name]
	if !ok {
		return nil, ErrNotFound
	}
	return append([]byte{}, data...), nil // never nil: Raft takes a nil candidate for no vote
}

// stage keeps the first half of a vote until the second comes.
func (s *Store) stage(group uint64, term []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	state := s.state(group)
	state.staged = nil
	if on, ok := state.values[lastVoteTerm]; !ok || !bytes.Equal(on, term) {
		state.staged = term
	}
	return nil
}

// set writes one value, with the half of a vote that waits for it, and returns
// when both are on disk. data is not retained.
func (s *Store) set(group uint64, name string, data []byte) error {
	s.mu.Lock()
	state := s.state(group)
	values := make(map[string][]byte, 2)
	if on, ok := state.values[name]; !ok || !bytes.Equal(on, data) {
		values[name] = append([]byte{}, data...)
	}
	if name == lastVoteCand && state.staged != nil {
		values[lastVoteTerm] = state.staged
	}
	if len(values) == 0 { // after Close too: it is on disk
		s.mu.Unlock()
		return nil
	}
	w, err := s.enqueueLocked(&pendingWrite{group: group, values: values})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return <-w.done
}

func (s *Store) enqueueLocked(w *pendingWrite) (*pendingWrite, error) {
	if s.closed {
		return nil, ErrClosed
	}
	w.done = make(chan error, 1)
	s.queue = append(s.queue, w)
	select {
	case s.work <- struct{}{}:
	default: // the committer will see it with what it was woken for
	}
	return w, nil
}

// runCommitter is the goroutine "vote committer": Open starts it, Close
// stops it. It is the only one that writes to the file.
func (s *Store) runCommitter() {
	defer close(s.done)
	// For this goroutine a page that cannot be read is an error like any other. If it still
	// cannot when bbolt takes the transaction back, by walking the file in a goroutine of
	// its own, the process ends all the same.
	debug.SetPanicOnFault(true)
	for {
		select {
		case <-s.stop:
			s.finish(nil)
			return
		case <-s.work:
		}
		batch := s.take()
		if len(batch) == 0 {
			continue // it went with an earlier batch
		}
		var since, said time.Time
		for wait := retryFirst; ; wait = min(2*wait, retryMost) {
			err := s.write(batch)
			if err == nil {
				break
			}
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			if said.IsZero() || now.Sub(said) >= logEvery {
				said = now
				s.cfg.Logger.Error("votes and terms cannot be saved, the groups that need it wait",
					"path", s.path, "groups", len(batch), "since", now.Sub(since), "error", err)
			}
			select {
			case <-s.stop:
				s.finish(batch)
				return
			case <-time.After(wait):
			}
			batch = append(batch, s.take()...)
		}
		if !since.IsZero() {
			s.cfg.Logger.Info("votes and terms are saved again", "path", s.path, "after", time.Since(since))
			for _, w := range batch {
				if s.cfg.Observer != nil {
					s.cfg.Observer.VotesRecovered(w.group)
				}
			}
		}
	}
}

// take empties the queue.
func (s *Store) take() []*pendingWrite {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.queue
	s.queue = nil
	return batch
}

// finish is the committer's last act: one attempt for all who wait, who are
// told that the store is closed if it fails. The disk may then hold what they
// were told was not saved; a vote nobody heard of harms nobody.
func (s *Store) finish(batch []*pendingWrite) {
	batch = append(batch, s.take()...)
	if len(batch) == 0 {
		return
	}
	if err := s.write(batch); err != nil {
		s.cfg.Logger.Error("votes and terms were not saved before the store closed", "path", s.path, "groups", len(batch), "error", err)
		for _, w := range batch {
			w.done <- ErrClosed
		}
	}
}

// write commits a batch, shows it to readers and lets the writers go. After an
// error nothing has happened, and the same batch may be written again, with
// others behind it.
func (s *Store) write(batch []*pendingWrite) error {
	type place struct {
		group uint64
		name  string
	}
	// In the order they came: of two writes to one key the later counts. nil deletes.
	changed := make(map[place][]byte)
	s.mu.Lock()
	for _, w := range batch {
		if w.forget {
			for at := range changed {
				if at.group == w.group {
					changed[at] = nil
				}
			}
			for name := range s.groups[w.group].on() {
				changed[place{w.group, name}] = nil
			}
		}
		for name, data := range w.values {
			changed[place{w.group, name}] = data
		}
	}
	total := s.total
	records := make(map[string][]byte, len(changed)+1)
	for at, data := range changed {
		key := recordKey(at.group, at.name)
		if old, ok := s.groups[at.group].on()[at.name]; ok {
			total = total.without(key, old)
		}
		records[key] = nil
		if data != nil {
			records[key] = encodeRecord(key, data)
			total = total.with(key, data)
		}
	}
	s.mu.Unlock()
	sumKey := recordKey(sumGroup, sumName)
	records[sumKey] = encodeRecord(sumKey, total.encode())

	if err := s.disk.Commit(records); err != nil {
		return err
	}

	s.mu.Lock()
	s.total = total
	for at, data := range changed {
		state := s.state(at.group)
		if at.name == lastVoteTerm {
			state.staged = nil
		}
		if data != nil {
			state.values[at.name] = data
			continue
		}
		delete(state.values, at.name)
		if len(state.values) == 0 {
			delete(s.groups, at.group)
		}
	}
	s.mu.Unlock()
	for _, w := range batch {
		w.done <- nil
	}
	return nil
}

// A boltDisk is the disk as bbolt writes it.
type boltDisk struct{ db *bbolt.DB }

// Commit implements Disk. bbolt writes data to free pages, syncs, and then a meta page, so
// only the last sync can fail with the outcome open. To write the same again is right
// either way, and writes every page of it again.
func (d boltDisk) Commit(records map[string][]byte) (err error) {
	defer panicToError(&err)
	return d.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketName)
		for _, key := range slices.Sorted(maps.Keys(records)) {
			record := records[key]
			if record == nil {
				if err := b.Delete([]byte(key)); err != nil {
					return err
				}
				continue
			}
			if err := b.Put([]byte(key), record); err != nil {
				return err
			}
		}
		return nil
	})
}
