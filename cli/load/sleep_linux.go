package load

import (
	"syscall"
	"time"
)

// sleep sleeps for about d, 60 µs more as a rule (the kernel's slack), where time.Sleep takes
// 1 ms at least in a process that has nothing else to do (go.dev/issue/44343).
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	syscall.Nanosleep(&t, nil) // a signal may end it early: the caller looks at the clock
}
