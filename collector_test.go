package millrace

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestSpare(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ live, want uint64 }{
		{0, 24 * mib}, {10 * mib, 24 * mib}, {60 * mib, 30 * mib}, {80 * mib, 40 * mib},
		{110 * mib, 40 * mib}, {160 * mib, 40 * mib}, {1000 * mib, 250 * mib},
	} {
		if got := spare(c.live); got != c.want {
			t.Errorf("of %d MiB live: %d bytes, want %d", c.live/mib, got, c.want)
		}
	}
}

// ballast is live for as long as the test wants; its pages are never touched.
var ballast []byte

func TestCollectorFollowsWhatIsLive(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(77)
	one, other := tuneCollector(), tuneCollector() // two brokers
	t.Cleanup(func() {
		ballast = nil
		debug.SetGCPercent(before)
	})
	target := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	await := func(what string, ok func(percent uint64) bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(target()); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the target is %d %%", what, target())
			}
			runtime.GC()
		}
	}
	small := target()
	ballast = make([]byte, 1<<30)
	await("with 1 GiB live", func(percent uint64) bool { return percent <= 26 })
	ballast = nil
	one.stop()
	await("when it is gone, for the broker that is left", func(percent uint64) bool { return percent >= small/2 && percent > 26 })
	one.stop() // counts once
	other.stop()
	runtime.GC()
	if percent := target(); percent != 77 {
		t.Errorf("without brokers the target is %d %%, want what it was, 77", percent)
	}
}
