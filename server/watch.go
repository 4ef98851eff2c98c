package server

import (
	"fmt"
	"iter"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/segment/record"
)

const (
	// loadsAtOnce partitions of __consumer_offsets are read at one time; the
	// others of which this node became the leader wait, and say that they load.
	loadsAtOnce = 4
	// loadBytes are read of one at a time, and copied: the page cache and the
	// decoder's memory stay small however long the log is.
	loadBytes = 1 << 20
	// lookEvery is how often the watch looks by itself, and lookSoon while a
	// replica that this node should host has not been opened yet.
	lookEvery = 10 * time.Second
	lookSoon  = 50 * time.Millisecond
	// loadAgain is the pause after a load that failed.
	loadAgain = time.Second
)

// A watch follows the leadership of the partitions of __consumer_offsets: what
// this node begins to lead is loaded into the coordinator, what it no longer
// leads is unloaded. The goroutine "offsets watch" looks whenever a replica's
// leadership changes or a newer image comes; each partition's loads and unloads
// are the business of a goroutine "loader" of its own, which runs only while
// there is something to do.
//
//	offsets watch  epoch 5 . . . . . . . . lost . . . epoch 7
//	loader               Load 5 (reads) . . . .  Unload   Load 7
type watch struct {
	server  *Server
	kick    chan struct{} // a look is due
	loads   chan struct{} // one token a load under way
	loaders sync.WaitGroup
	ended   chan struct{}

	mu    sync.Mutex
	parts map[int32]*led
	turns map[int32]*sync.Mutex // held by a partition's loader
}

// A led is one partition of __consumer_offsets that is hosted here. want, redo
// and loading are under the watch's mu; have belongs to the loader.
type led struct {
	w         *watch
	index     int32
	partition *replication.Partition
	cancel    func()       // of the partition's Notify
	turn      *sync.Mutex  // one replica of the partition after the other
	flying    atomic.Int64 // appends without an outcome

	want    int32 // epoch in which this node leads; -1: it does not
	redo    bool  // unload and load again
	loading bool  // the loader runs

	have int32 // epoch that is loaded; -1: none
}

func newWatch(s *Server) *watch {
	return &watch{
		server: s,
		kick:   make(chan struct{}, 1),
		loads:  make(chan struct{}, loadsAtOnce),
		ended:  make(chan struct{}),
		parts:  make(map[int32]*led),
		turns:  make(map[int32]*sync.Mutex),
	}
}

// run is the body of the goroutine "offsets watch". It ends with the server.
func (w *watch) run() {
	defer close(w.ended)
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		changed := w.server.Node.Changed()
		if w.look() {
			timer.Reset(lookSoon)
		} else {
			timer.Reset(lookEvery)
		}
		select {
		case <-w.server.ctx.Done():
			w.drop(func(*led) bool { return true })
			w.loaders.Wait()
			return
		case <-changed:
		case <-w.kick:
		case <-timer.C:
		}
	}
}

// look compares what this node leads with what it has loaded. It returns whether
// a replica is still to be opened.
func (w *watch) look() (missing bool) {
	t := w.server.offsets()
	w.drop(func(l *led) bool {
		return int(l.index) >= len(t.Partitions) || l.partition.ID().Topic != t.ID
	})
	for i := range t.Partitions {
		index := int32(i)
		p, err := w.server.Node.Partition(metadata.PartitionID{Topic: t.ID, Index: index})
		l := w.led(index)
		if l != nil && l.partition != p {
			w.drop(func(other *led) bool { return other == l })
			l = nil
		}
		if err != nil {
			for _, node := range t.Partitions[i].Replicas {
				missing = missing || node == w.server.Node.ID()
			}
			continue
		}
		if l == nil {
			l = &led{w: w, index: index, partition: p, want: -1, have: -1}
			// The high watermark never gets there: only leadership wakes.
			l.cancel = p.Notify(math.MaxInt64, w.kick)
			w.mu.Lock()
			if w.turns[index] == nil {
				w.turns[index] = new(sync.Mutex)
			}
			l.turn = w.turns[index]
			w.parts[index] = l
			w.mu.Unlock()
		}
		epoch, err := p.Serving()
		if err != nil {
			epoch = -1
		}
		l.follow(epoch, false)
	}
	return missing
}

// led returns what is hosted here of a partition, or nil.
func (w *watch) led(index int32) *led {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.parts[index]
}

// drop gives up partitions, and unloads them.
func (w *watch) drop(which func(*led) bool) {
	w.mu.Lock()
	var dropped []*led
	for _, l := range w.parts {
		if which(l) {
			dropped = append(dropped, l)
			delete(w.parts, l.index)
		}
	}
	w.mu.Unlock()
	for _, l := range dropped {
		l.cancel()
		l.follow(-1, false)
	}
}

// lost is told that the coordinator unloaded a partition by itself: after an
// append of which it does not know whether it survives. If this node still leads
// in that epoch, it is to be read again.
func (w *watch) lost(partition, epoch int32) {
	if l := w.led(partition); l != nil {
		l.follow(epoch, true)
	}
}

// follow says in which epoch this node leads, and starts the loader if that is
// news.
func (l *led) follow(epoch int32, redo bool) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	switch {
	case redo && l.want != epoch:
		return // of an epoch that is over
	case redo:
		l.redo = true
	case l.want == epoch:
		return
	}
	l.want = epoch
	if !l.loading {
		l.loading = true
		l.w.loaders.Add(1)
		go l.load()
	}
}

// load is the body of the goroutine "loader".
func (l *led) load() {
	defer l.w.loaders.Done()
	l.turn.Lock()
	defer l.turn.Unlock()
	groups := l.w.server.groups
	for {
		l.w.mu.Lock()
		want, redo := l.want, l.redo
		l.redo = false
		if want == l.have && !redo {
			l.loading = false
			l.w.mu.Unlock()
			return
		}
		l.w.mu.Unlock()
		groups.Unload(l.index)
		l.have = -1
		// What is still on its way in this very epoch could land behind the reader.
		for l.flying.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		if want < 0 {
			continue
		}
		begin := time.Now()
		records := 0
		err := groups.Load(l.index, want, l.records(want, &records))
		if err == nil {
			l.have = want
			l.w.server.logger().Debug("loaded groups", "partition", l.index, "epoch", want, "records", records, "took", time.Since(begin))
			continue
		}
		if epoch, e := l.partition.Serving(); e == nil && epoch == want && l.w.server.ctx.Err() == nil {
			l.w.server.warn("groups were not loaded, trying again", "partition", l.index, "epoch", want, "error", err)
			select {
			case <-l.w.server.ctx.Done():
			case <-time.After(loadAgain):
			}
			continue
		}
		// It leads no more, and the watch has been told or is about to be.
		l.w.mu.Lock()
		if l.want == want {
			l.want = -1
		}
		l.w.mu.Unlock()
		select {
		case l.w.kick <- struct{}{}:
		default:
		}
	}
}

// records yields everything that was committed in the partition before it was
// led in epoch. A batch that cannot be read to its end is logged and left there:
// what else is in the log is worth more than nothing.
func (l *led) records(epoch int32, count *int) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		s := l.w.server
		select {
		case l.w.loads <- struct{}{}:
			defer func() { <-l.w.loads }()
		case <-s.ctx.Done():
			yield(record.Record{}, ErrClosed)
			return
		}
		p := l.partition
		limit := int64(-1)
		for at := p.StartOffset(); limit < 0 || at < limit; {
			if now, err := p.Serving(); err != nil || now != epoch || s.ctx.Err() != nil {
				yield(record.Record{}, fmt.Errorf("%w in epoch %d", replication.ErrNotLeader, epoch))
				return
			}
			if limit < 0 {
				// A leader that serves has committed all that came before its epoch.
				limit = p.HighWatermark()
				continue
			}
			view, err := p.Read(at, loadBytes, false)
			if err != nil && at < p.StartOffset() {
				at = p.StartOffset() // the log start has moved on
				continue
			}
			if err != nil {
				yield(record.Record{}, err)
				return
			}
			data, err := view.Copy(nil)
			view.Release()
			if err != nil {
				yield(record.Record{}, fmt.Errorf("offset %d: %w", at, err))
				return
			}
			if len(data) == 0 {
				yield(record.Record{}, fmt.Errorf("nothing is read at offset %d below the high watermark %d", at, limit))
				return
			}
			for len(data) > 0 {
				b := record.Batch(data)
				if len(b) < record.HeaderSize || b.Size() < record.HeaderSize || b.Size() > len(b) || b.NextOffset() <= at {
					yield(record.Record{}, fmt.Errorf("batch at offset %d: %w", at, record.ErrInvalid))
					return
				}
				b, data = b[:b.Size()], data[b.Size():]
				at = b.NextOffset()
				if b.IsControl() {
					continue
				}
				for r, err := range b.Records() {
					if err != nil {
						s.warn("a batch of committed offsets is damaged; what follows in it is left out",
							"partition", l.index, "batch", b.BaseOffset(), "error", err)
						break
					}
					*count++
					if !yield(r, nil) {
						return
					}
				}
			}
		}
	}
}
