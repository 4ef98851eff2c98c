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

type entry struct {
	value  string
	until  time.Time // zero: while it is read
	expiry coordinator.Alarm
}

func newKV(cfg coordinator.Config) *kv {
	cfg.Things = "values"
	return &kv{coordinator.New(cfg, func(s *coordinator.Shard) *table { return &table{s, make(map[string]*entry)} })}
}

// set returns when a quorum has the value.
func (k *kv) set(key, value string, until time.Time) error {
	answer := make(chan error, 1)
	t, err := k.runtime.Enter(key)
	if err != nil {
		return err
	}
	if !t.Do(func() { t.setLocked(key, value, until, func(err error) { answer <- err }) }) {
		return coordinator.ErrUnloaded
	}
	return <-answer
}

func (t *table) setLocked(key, value string, until time.Time, done func(error)) {
	r := record.Record{Key: []byte(key), Timestamp: t.Now().UnixMilli()}
	if value != "" {
		var at int64
		if !until.IsZero() {
			at = until.UnixMilli()
		}
		r.Value = append(binary.BigEndian.AppendUint64(nil, uint64(at)), value...)
	}
	t.WriteLocked([]record.Record{r}, func(err error) {
		if err == nil {
			t.touchLocked(key)
		}
		done(err)
	})
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
	e := &entry{value: string(r.Value[8:])}
	if at := binary.BigEndian.Uint64(r.Value); at > 0 {
		e.until = time.UnixMilli(int64(at))
	}
	e.expiry.Ring = func(time.Time) {
		t.setLocked(key, "", time.Time{}, func(err error) {
			if err != nil {
				t.SetLocked(&e.expiry, t.Now().Add(time.Second))
			}
		})
	}
	t.values[key] = e
	return nil
}

func (t *table) LoadedLocked() int {
	for key := range t.values {
		t.touchLocked(key)
	}
	return len(t.values)
}

func (t *table) UnloadedLocked() { t.values = nil }
