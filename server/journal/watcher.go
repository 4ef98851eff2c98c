package journal

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"millrace/replication/metadata"
)

const (
	// lookEvery is how often Run looks by itself, and lookSoon while a replica that
	// this node should host has not been opened yet.
	lookEvery = 10 * time.Second
	lookSoon  = 50 * time.Millisecond
)

// Run follows the leadership of the topic's partitions until ctx ends, and then unloads
// all of them. It is the body of a goroutine, "journal watcher", that looks whenever a
// replica's leadership changes or a newer image comes. Each partition's loads and
// unloads are the business of a goroutine of its own, "loader", which runs only while
// there is something to do.
//
//	journal watcher  epoch 5 . . . . . . . . lost . . . epoch 7
//	loader                 Load 5 (reads) . . . .  Unload   Load 7
func (t *Topic) Run(ctx context.Context, into Coordinator) {
	t.ctx, t.into = ctx, into
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		changed := t.cfg.Node.Changed()
		if t.look() {
			timer.Reset(lookSoon)
		} else {
			timer.Reset(lookEvery)
		}
		select {
		case <-ctx.Done():
			t.drop(func(*hosted) bool { return true })
			t.loaders.Wait()
			return
		case <-changed:
		case <-t.kick:
		case <-timer.C:
		}
	}
}

// look compares what this node leads with what it has loaded. It reports whether
// a replica is still to be opened.
func (t *Topic) look() (missing bool) {
	topic := t.Metadata()
	t.drop(func(h *hosted) bool {
		return int(h.index) >= len(topic.Partitions) || h.partition.ID().Topic != topic.ID
	})
	for i := range topic.Partitions {
		index := int32(i)
		p, err := t.cfg.Node.Partition(metadata.PartitionID{Topic: topic.ID, Index: index})
		h := t.hosted(index)
		if h != nil && h.partition != p {
			t.drop(func(other *hosted) bool { return other == h })
			h = nil
		}
		if err != nil {
			missing = missing || slices.Contains(topic.Partitions[i].Replicas, t.cfg.Node.ID())
			continue
		}
		if h == nil {
			h = &hosted{t: t, index: index, partition: p, want: -1, have: -1}
			// The high watermark never gets there: only leadership wakes.
			h.cancel = p.Notify(math.MaxInt64, t.kick)
			t.mu.Lock()
			if t.turns[index] == nil {
				t.turns[index] = new(sync.Mutex)
			}
			h.turn = t.turns[index]
			t.parts[index] = h
			t.mu.Unlock()
		}
		epoch, err := p.Serving()
		if err != nil {
			epoch = -1
		}
		h.follow(epoch, false)
	}
	return missing
}

// hosted returns what is hosted here of a partition, or nil.
func (t *Topic) hosted(index int32) *hosted {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.parts[index]
}

// drop gives up partitions, and unloads them.
func (t *Topic) drop(which func(*hosted) bool) {
	t.mu.Lock()
	var dropped []*hosted
	for _, h := range t.parts {
		if which(h) {
			dropped = append(dropped, h)
			delete(t.parts, h.index)
		}
	}
	t.mu.Unlock()
	for _, h := range dropped {
		h.cancel()
		h.follow(-1, false)
	}
}

// Lost implements coordinator.Journal: if this node still leads the partition in that
// epoch, it is to be read again.
func (t *Topic) Lost(partition, epoch int32) {
	if h := t.hosted(partition); h != nil {
		h.follow(epoch, true)
	}
}
