package cli

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// readerGone waits until nobody can read any more what is written to f, or ctx ends; it
// says which. Of a file there is always a reader.
func readerGone(ctx context.Context, f *os.File) bool {
	for ctx.Err() == nil {
		// No event is asked for: an error is told all the same, and is what the end of a
		// pipe without a reader has.
		fds := []unix.PollFd{{Fd: int32(f.Fd())}}
		n, err := unix.Poll(fds, 200) // ms: how soon the end of ctx is seen
		if err != nil && err != unix.EINTR {
			return false
		}
		if n > 0 && err == nil {
			return fds[0].Revents&unix.POLLERR != 0
		}
	}
	return false
}
