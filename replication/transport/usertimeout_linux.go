package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// giveUpAfter makes the kernel end a connection of which it was not told for so long
// that what it sent has arrived. It repeats a lost burst after 0.2 s, 0.4 s and so on,
// and on a link that comes and goes each repetition may be lost too: what waited for
// that waited until Timeout, since pings, on another connection, went through.
func giveUpAfter(conn net.Conn, d time.Duration) error {
	c, ok := bottom(conn).(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
