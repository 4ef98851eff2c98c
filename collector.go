package millrace

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
)

// What a broker may allocate between two collections of garbage: half of what is
// live within these bounds, and a quarter beyond them. With less a small broker would collect many times a
// second; more would be memory for nothing, since what a large one holds is mostly
// records on their way, and what has no pointers is not looked through.
const (
	leastSpare = 24 << 20
	mostSpare  = 40 << 20
	// mostPercent makes the first collection come at leastSpare: Go collects nothing
	// below 4 MiB times the target.
	mostPercent = 100 * leastSpare / (4 << 20)
)

// spare returns how many bytes may be allocated until the next collection, for so
// many that are live: heap, stacks and globals.
func spare(live uint64) uint64 {
	return max(min(max(live/2, leastSpare), mostSpare), live/4)
}

// The collector is the process's: the first broker that tunes it begins, the last one ends.
var tuning struct {
	sync.Mutex
	brokers int
	before  int // the target that the last one leaves behind
	stop    func()
}

// A tunedCollector is a broker's part in that; nil is none.
type tunedCollector struct{ stopped sync.Once }

// tuneCollector sets the garbage collector's target anew after each collection until all
// that tuned it have stopped, unless GOGC says what it is to be. It starts no goroutine.
func tuneCollector() *tunedCollector {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	tuning.Lock()
	defer tuning.Unlock()
	if tuning.brokers++; tuning.brokers == 1 {
		tuning.before = debug.SetGCPercent(mostPercent)
		tune()
		tuning.stop = afterEachCollection(func() {
			tuning.Lock()
			defer tuning.Unlock()
			if tuning.brokers > 0 {
				tune()
			}
		})
	}
	return new(tunedCollector)
}

// stop ends a broker's part. A second call does nothing.
func (c *tunedCollector) stop() {
	if c == nil {
		return
	}
	c.stopped.Do(func() {
		tuning.Lock()
		defer tuning.Unlock()
		if tuning.brokers--; tuning.brokers == 0 {
			tuning.stop()
			debug.SetGCPercent(tuning.before)
		}
	})
}

// tune sets the target by what is live.
func tune() {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(s)
	percent, live := s[0].Value.Uint64(), uint64(1)
	for _, part := range s[1:] {
		live += part.Value.Uint64()
	}
	want := min(100*spare(live)/live, mostPercent)
	// Each change stops the world for some microseconds.
	if slack := want / 16; percent+slack < want || want+slack < percent {
		debug.SetGCPercent(int(want))
	}
}

// afterEachCollection calls f after every collection until stop is called, on the
// goroutine of finalizers.
func afterEachCollection(f func()) (stop func()) {
	type bell struct{ _ [16]byte } // not so small that it shares its memory
	var stopped atomic.Bool
	var ring func(*bell)
	ring = func(b *bell) {
		if !stopped.Load() {
			f()
			runtime.SetFinalizer(b, ring)
		}
	}
	runtime.SetFinalizer(new(bell), ring)
	return func() { stopped.Store(true) }
}
