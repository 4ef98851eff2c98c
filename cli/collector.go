package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// What a broker allocates between two collections of garbage. Half of what is
// live, as a rule; less would make a small broker collect many times a second,
// which its latencies show, and more would make a large one larger than its work
// needs: what it holds is mostly records on their way, which have no pointers, so
// collecting often costs next to nothing.
const (
	leastSpare = 24 << 20
	mostSpare  = 40 << 20
)

// spare returns how many bytes may be allocated until the next collection, for so
// many that are live: heap, stacks and globals.
func spare(live uint64) uint64 {
	return max(min(max(live/2, leastSpare), mostSpare), live/4)
}

// tuneCollector sets the garbage collector's target anew after each collection
// until stop is called, unless GOGC says what it is to be. It starts no goroutine.
func tuneCollector() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	percent := -1
	tune := func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
		metrics.Read(live)
		var base uint64
		for _, s := range live {
			base += s.Value.Uint64()
		}
		base = max(base, 1<<20)
		// Each change stops the world for some microseconds.
		if p := int(100 * spare(base) / base); p < percent-percent/16 || p > percent+percent/16 {
			percent = p
			debug.SetGCPercent(p)
		}
	}
	tune()
	return afterEachCollection(tune)
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
