package log

import (
	"io"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// A bystander is what else a node does with a log that is being compacted: between the
// compaction's operations on files it appends, reserves room, syncs, checkpoints and rolls, in
// turn and always in the same order, so that a fault at operation n is a fault at the same
// place each time. While the compaction itself holds the log, it waits, as a node would.
type bystander struct {
	k     *keyedLog
	every int // operations of the compaction between two of its calls
	seen  int
	calls int
	errs  []error
}

func (b *bystander) beside(string) {
	if b.seen++; b.seen%b.every != 0 || !b.k.l.changing.TryLock() {
		return
	}
	b.k.l.changing.Unlock()
	b.call()
}

// call makes the next call.
func (b *bystander) call() {
	b.calls++
	if err := b.make(b.calls); err != nil {
		b.errs = append(b.errs, err)
	}
}

func (b *bystander) make(n int) error {
	switch n % bystanderCalls {
	case 1:
		return b.k.l.Reserve(1, 1200)
	case 2:
		return b.k.update(6)
	case 3:
		return b.k.write(6)
	case 4:
		return b.k.flush()
	case 5:
		return b.k.l.Checkpoint()
	}
	_, err := b.k.l.RollIfDue(b.k.clock.Add(8 * 24 * time.Hour))
	return err
}

const bystanderCalls = 6

// compactBeside compacts with a bystander.
func (k *keyedLog) compactBeside(fs *crashFS, b *bystander) error {
	fs.beside = b.beside
	_, err := k.compact()
	fs.beside = nil
	return err
}

// write stores an entry as a leader does, who syncs it later.
func (k *keyedLog) write(keys int) error {
	return k.put(keys, func(e *raft.Log) (synced bool, err error) {
		_, err = k.l.WriteLogs([]*raft.Log{e})
		return false, err
	})
}

func (k *keyedLog) flush() error {
	err := k.l.Flush()
	if err == nil {
		k.acknowledge()
	}
	return err
}

// acknowledge notes that all that was written is durable.
func (k *keyedLog) acknowledge() {
	for _, rec := range k.unsynced {
		k.last[string(rec.Key)] = rec.Offset
	}
	k.unsynced = nil
}

// flushing returns what syncs a story's log beside the change under way, as the other
// goroutines of a leader do. A sync waits for one under way, so it comes before other
// operations only.
func (s *story) flushing() func(operation string) {
	return func(operation string) {
		if s.l != nil && operation != "sync" {
			_ = s.l.Flush() // an error fails the log, and so the change
		}
	}
}

// pull installs what another log has while this one goes on: segments gather beside an open
// log, which appends, reserves room, checkpoints and rolls, and is closed for the moment of
// the installation.
func (s *story) pull(source *Log) error {
	plan := source.Plan()
	var st *Staging
	staging := func(do func() error) error {
		return s.step(nil, func() error {
			s.closes = true // what fails here is no change of the log
			return do()
		})
	}
	if err := staging(func() (err error) {
		st, err = Stage(s.dir(), testID, plan, s.cfg)
		return err
	}); err != nil {
		return err
	}
	for n := 0; ; n++ {
		first, at, left, ok := st.Next()
		if !ok {
			break
		}
		p := make([]byte, min(left, 1500))
		if _, err := source.ReadSegment(first, at, p); err != nil && err != io.EOF {
			return err
		}
		if err := staging(func() error { return st.Write(first, at, p) }); err != nil {
			return err
		}
		term := max(1, lastTerm(s.now))
		var err error
		switch n % 5 {
		case 0:
			err = s.reserve(1, 3000)
		case 1:
			err = s.store(term, [2]int{1, 700})
		case 2:
			err = s.checkpoint()
		case 3:
			err = s.storeLater(term, small, [2]int{1, 300})
		case 4:
			err = s.rollIfDue()
		}
		if err != nil {
			return err
		}
	}
	return s.replace(source, func() error { return Install(s.dir(), testID, st.Dir(), s.cfg) })
}

// sourceOf returns a log to be pulled.
func sourceOf(s *story, entries int) (*Log, error) {
	source := mustOpen(s.t, s.t.TempDir()+"/source", Config{FS: fastFS{segment.OS}, SegmentBytes: 4 << 10})
	for i := range uint64(entries) {
		if err := source.StoreLog(command(s.t, i+1, 2, strings.Repeat("s", 1500))); err != nil {
			return nil, err
		}
	}
	return source, source.Roll()
}
