package journal

import (
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"millrace/replication/partition"
	"millrace/segment/record"
)

const (
	// loadsAtOnce partitions of a topic are read at one time; the others of which this
	// node became the leader wait, and say that they load.
	loadsAtOnce = 4
	// loadBytes are read of one at a time, and copied: the page cache and the
	// decoder's memory stay small however long the log is.
	loadBytes = 1 << 20
	// loadAgain is the pause after a load that failed.
	loadAgain = time.Second
)

// A hosted is one partition of the topic of which this node has a replica. want, redo
// and loading are under the topic's mu; have belongs to the loader.
type hosted struct {
	t         *Topic
	index     int32
	partition *partition.Partition
	cancel    func()       // of the partition's Notify
	turn      *sync.Mutex  // one replica of the partition after the other
	pending   atomic.Int64 // appends without an outcome

	want    int32 // epoch in which this node leads; -1: it does not
	redo    bool  // unload and load again
	loading bool  // the loader runs

	have int32 // epoch that is loaded; -1: none
}

// follow says in which epoch this node leads, and starts the loader if that is
// news.
func (h *hosted) follow(epoch int32, redo bool) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	switch {
	case redo && h.want != epoch:
		return // of an epoch that is over
	case redo:
		h.redo = true
	case h.want == epoch:
		return
	}
	h.want = epoch
	if !h.loading {
		h.loading = true
		h.t.loaders.Add(1)
		go h.load()
	}
}

// load is the body of the goroutine "loader": it unloads and loads until what is loaded is
// what is wanted.
func (h *hosted) load() {
	defer h.t.loaders.Done()
	h.turn.Lock()
	defer h.turn.Unlock()
	for {
		want, more := h.next()
		if !more {
			return
		}
		h.t.into.Unload(h.index)
		h.have = -1
		// What is still on its way in this very epoch could come to stand behind the reader.
		for h.pending.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		if want < 0 {
			continue
		}
		if err := h.t.into.Load(h.index, want, h.records(want)); err != nil {
			h.failed(want, err)
			continue
		}
		h.have = want
	}
}

// next returns the epoch that is to be loaded; -1: none is. False: it is as wanted, and
// the loader ends.
func (h *hosted) next() (want int32, more bool) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	redo := h.redo
	h.redo = false
	h.loading = h.want != h.have || redo
	return h.want, h.loading
}

// failed follows a load that failed: after a pause it is tried again, if this node still
// leads in that epoch.
func (h *hosted) failed(epoch int32, err error) {
	t := h.t
	if now, e := h.partition.Serving(); e == nil && now == epoch && t.ctx.Err() == nil {
		t.warn("a partition was not loaded, trying again", "partition", h.index, "epoch", epoch, "error", err)
		select {
		case <-t.ctx.Done():
		case <-time.After(loadAgain):
		}
		return
	}
	// It leads no more, and the watcher has been told or is about to be.
	t.mu.Lock()
	if h.want == epoch {
		h.want = -1
	}
	t.mu.Unlock()
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// records yields everything that was committed in the partition before it was
// led in epoch. A batch that cannot be read to its end is logged and left there:
// what else is in the log is worth more than nothing.
func (h *hosted) records(epoch int32) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		t := h.t
		select {
		case t.loads <- struct{}{}:
			defer func() { <-t.loads }()
		case <-t.ctx.Done():
			yield(record.Record{}, t.ctx.Err())
			return
		}
		for b, err := range h.batches(epoch) {
			if err != nil {
				yield(record.Record{}, err)
				return
			}
			for r, err := range b.Records() {
				if err != nil {
					t.warn("a batch of the journal is damaged; what follows in it is left out",
						"partition", h.index, "batch", b.BaseOffset(), "error", err)
					break
				}
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// batches yields the batches of records that were committed before epoch, and last of all
// an error if it could not read all of them.
func (h *hosted) batches(epoch int32) iter.Seq2[record.Batch, error] {
	return func(yield func(record.Batch, error) bool) {
		p := h.partition
		limit := int64(-1)
		for at := p.StartOffset(); limit < 0 || at < limit; {
			if now, err := p.Serving(); err != nil || now != epoch || h.t.ctx.Err() != nil {
				yield(nil, fmt.Errorf("%w in epoch %d", partition.ErrNotLeader, epoch))
				return
			}
			if limit < 0 {
				// A leader that serves has committed all that came before its epoch.
				limit = p.HighWatermark()
				continue
			}
			data, err := read(p, at)
			if err != nil && at < p.StartOffset() {
				at = p.StartOffset() // the log start has moved on
				continue
			}
			if err != nil {
				yield(nil, fmt.Errorf("offset %d, below the high watermark %d: %w", at, limit, err))
				return
			}
			for len(data) > 0 {
				b := record.Batch(data)
				if len(b) < record.HeaderSize || b.Size() < record.HeaderSize || b.Size() > len(b) || b.NextOffset() <= at {
					yield(nil, fmt.Errorf("batch at offset %d: %w", at, record.ErrInvalid))
					return
				}
				b, data = b[:b.Size()], data[b.Size():]
				at = b.NextOffset()
				if !b.IsControl() && !yield(b, nil) {
					return
				}
			}
		}
	}
}

// read returns a copy of what a partition has from an offset on, at most loadBytes or one
// batch.
func read(p *partition.Partition, at int64) ([]byte, error) {
	view, err := p.Read(at, loadBytes, false)
	if err != nil {
		return nil, err
	}
	defer view.Release()
	data, err := view.Copy(nil)
	if err == nil && len(data) == 0 {
		err = errors.New("nothing is read")
	}
	return data, err
}
