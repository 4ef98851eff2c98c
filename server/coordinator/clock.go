package coordinator

import "time"

// A Clock says what time it is, and calls when it is later. All timestamps, sessions
// and alarms of a coordinator go by one.
type Clock interface {
	// Now's times carry a monotonic reading, so that a system whose clock is set moves
	// no alarm.
	Now() time.Time
	// AfterFunc calls f in a goroutine of its own once Now is d later.
	AfterFunc(d time.Duration, f func()) Timer
}

// A Timer is what Clock.AfterFunc and time.AfterFunc return.
type Timer interface {
	Stop() bool
	Reset(d time.Duration) bool
}

// SystemClock is the system's clock.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// AfterFunc implements Clock.
func (SystemClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }
