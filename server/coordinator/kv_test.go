package coordinator_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"millrace/segment/record"
	"millrace/server/coordinator"
)

// A kv is about the smallest coordinator there can be, and the example of one: values
// by key, each until a time that is in the journal or, without one, until nobody has
// read it for idleFor. An empty value deletes.
type kv struct {
	runtime *coordinator.Runtime[*table]
}

const idleFor = time.Minute

// A table is the values of one partition.
type table struct {
	*coordinator.Shard
	values map[string]*entry
}

// tables makes them.
type tables struct{}

func (tables) New(s *coordinator.Shard) *table { return &table{s, make(map[string]*entry)} }

type entry struct {
	of     *table
	key    string
	value  string
	until  time.Time // zero: while it is read
	expiry coordinator.Alarm
}

func newKV(cfg coordinator.Config) *kv {
	cfg.Things = "values"
	return &kv{coordinator.New(cfg, tables{})}
}

// set returns when a quorum has the value.
func (k *kv) set(key, value string, until time.Time) error {
	t, err := k.runtime.Enter(key)
	if err != nil {
		return err
	}
	w := &write{t, key, make(chan error, 1)}
	if !t.Do(func() { t.setLocked(key, value, until, w) }) {
		return coordinator.ErrUnloaded
	}
	return <-w.answer
}

// A write is a value on its way to the journal, for whom somebody waits.
type write struct {
	of     *table
	key    string
	answer chan error // has room for one
}

// AppendedLocked follows the replay of the write's record.
func (w *write) AppendedLocked(err error) {
	if err == nil {
		w.of.touchLocked(w.key)
	}
	w.answer <- err
}

func (t *table) setLocked(key, value string, until time.Time, by coordinator.Appender) {
	r := record.Record{Key: []byte(key), Timestamp: t.Now().UnixMilli()}
	if value != "" {
		var at int64
		if !until.IsZero() {
			at = until.UnixMilli()
		}
		r.Value = append(binary.BigEndian.AppendUint64(nil, uint64(at)), value...)
	}
	t.WriteLocked([]record.Record{r}, by)
}

// get returns what no later get will contradict.
func (k *kv) get(ctx context.Context, key string) (value string, err error) {
	t, err := k.runtime.Enter(key)
	if err != nil {
		return "", err
	}
	t.Unlock() // a quorum is asked without the lock
	if err := t.Confirm(ctx); err != nil {
		return "", err
	}
	t.Lock()
	defer t.Unlock()
	if t.EndedLocked() {
		return "", coordinator.ErrUnloaded
	}
	if e := t.values[key]; e != nil {
		value = e.value
		t.touchLocked(key)
	}
	return value, nil
}

// touchLocked sets the alarm of a value.
func (t *table) touchLocked(key string) {
	if e := t.values[key]; e != nil {
		at := e.until
		if at.IsZero() {
			at = t.Now().Add(idleFor)
		}
		t.SetLocked(&e.expiry, at)
	}
}

func (t *table) ReplayLocked(r record.Record) error {
	key := string(r.Key)
	if old := t.values[key]; old != nil {
		t.StopLocked(&old.expiry)
		delete(t.values, key)
	}
	if r.Value == nil {
		return nil
	}
	if len(r.Value) < 8 {
		return fmt.Errorf("a value of %d bytes, want at least 8", len(r.Value))
	}
	e := &entry{of: t, key: key, value: string(r.Value[8:])}
	e.expiry.Ringer = e
	if at := binary.BigEndian.Uint64(r.Value); at > 0 {
		e.until = time.UnixMilli(int64(at))
	}
	t.values[key] = e
	return nil
}

// RingLocked deletes a value whose time is over.
func (e *entry) RingLocked(time.Time) { e.of.setLocked(e.key, "", time.Time{}, e) }

// AppendedLocked is told what became of that: if nothing, it is tried again.
func (e *entry) AppendedLocked(err error) {
	if err != nil {
		e.of.SetLocked(&e.expiry, e.of.Now().Add(time.Second))
	}
}

func (t *table) LoadedLocked() int {
	for key := range t.values {
		t.touchLocked(key)
	}
	return len(t.values)
}

func (t *table) UnloadedLocked() { t.values = nil }
