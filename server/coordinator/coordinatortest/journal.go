// Package coordinatortest is what tests of coordinators stand on: a journal in memory
// that fails, waits and changes hands when it is told to.
package coordinatortest

import (
	"context"
	"iter"
	"slices"
	"sync"

	"millrace/segment/record"
	"millrace/server/coordinator"
)

// A Journal is a coordinator.Journal of one partition, in memory. Whoever has the
// newest epoch may append. Its zero value is empty and led by nobody.
type Journal struct {
	mu      sync.Mutex
	epoch   int32
	records []record.Record
	appends int
	fates   Fates
	hold    bool
	held    []func() // calls of done that wait, while hold
	lost    []int32
}

// Fates say what becomes of appends.
type Fates interface {
	// Next is asked at each append, under the journal's lock: nil, it succeeds.
	Next() error
}

// always is one fate for all.
type always struct{ err error }

func (a always) Next() error { return a.err }

// Partitions implements coordinator.Journal.
func (j *Journal) Partitions() int32 { return 1 }

// Append implements coordinator.Journal. It has the outcome before it returns, unless
// the journal holds.
func (j *Journal) Append(_, epoch int32, records []record.Record, done func(error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var err error
	if j.fates != nil {
		err = j.fates.Next()
	}
	if epoch != j.epoch {
		err = coordinator.ErrNotLeader
	}
	if err == nil {
		j.records = append(j.records, records...)
		j.appends++
	}
	if j.hold {
		j.held = append(j.held, func() { done(err) })
		return
	}
	done(err)
}

// Confirm implements coordinator.Journal.
func (j *Journal) Confirm(_ context.Context, _, epoch int32) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if epoch != j.epoch {
		return coordinator.ErrNotLeader
	}
	return nil
}

// NewEpoch begins the next epoch and returns it: who had the last one leads no more.
func (j *Journal) NewEpoch() int32 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.epoch++
	return j.epoch
}

// Lost implements coordinator.Journal.
func (j *Journal) Lost(_, epoch int32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lost = append(j.lost, epoch)
}

// LostEpochs are those that coordinators have said to have unloaded by themselves, in
// the order in which they said so.
func (j *Journal) LostEpochs() []int32 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lost)
}

// Fail makes all later appends fail with err; nil: they succeed.
func (j *Journal) Fail(err error) { j.FailBy(always{err}) }

// FailBy has fates say what becomes of each later append.
func (j *Journal) FailBy(fates Fates) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fates = fates
}

// Hold makes the outcomes of later appends wait: their records are there, and nobody
// has been told.
func (j *Journal) Hold() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hold = true
}

// Release tells the outcomes that wait, and ends Hold.
func (j *Journal) Release() {
	j.mu.Lock()
	held := j.held
	j.held, j.hold = nil, false
	j.mu.Unlock()
	for _, f := range held {
		f()
	}
}

// Put adds records as if they had always been there.
func (j *Journal) Put(records ...record.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, records...)
}

// Len is how many records there are.
func (j *Journal) Len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.records)
}

// Appends is how many appends have succeeded, each of one record or several.
func (j *Journal) Appends() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.appends
}

// Records yields the records that are there when it is called.
func (j *Journal) Records() iter.Seq2[record.Record, error] {
	j.mu.Lock()
	records := slices.Clone(j.records)
	j.mu.Unlock()
	return func(yield func(record.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}
