// Package ports has addresses for tests that start nodes, which choose a port before
// anybody listens on it, and start nodes on it again.
package ports

import (
	"net/netip"
	"runtime"
	"syscall"
	"testing"
)

// Hold returns n addresses of 127.0.0.1 that nobody listens on. Until the test ends the
// system gives their ports to nobody who asks it for any, while whoever names one may
// listen on it as often as it likes: a socket is bound to each, and Go's listeners share
// such a port. Whoever dials one on which nobody listens is refused.
//
// A port that is merely found to be free may be another process's by the time a node
// listens on it, or when that node is started again. Elsewhere than on Linux it is that.
func Hold(t testing.TB, n int) (addresses []string) {
	t.Helper()
	for range n {
		addresses = append(addresses, hold(t, 0).String())
	}
	return addresses
}

// HoldRow returns a port with n-1 others behind it, all as Hold has them.
func HoldRow(t testing.TB, n int) (first int) {
	t.Helper()
tries:
	for range 50 {
		at := hold(t, 0)
		for i := 1; i < n; i++ {
			if next := int(at.Port()) + i; next > 65535 || !hold(t, next).IsValid() {
				continue tries // what is held so far stays so: there are enough
			}
		}
		return int(at.Port())
	}
	t.Fatalf("there are no %d free ports in a row", n)
	return 0
}

// hold binds a socket to a port, or to any for 0. It returns no address if the port that
// was asked for is taken.
func hold(t testing.TB, port int) netip.AddrPort {
	t.Helper()
	// What another test starts meanwhile must not inherit it, and hold the port for longer.
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" {
		t.Cleanup(func() { syscall.Close(fd) })
	} else {
		defer syscall.Close(fd)
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: loopback.As4()}); err != nil {
		if port == 0 {
			t.Fatal(err)
		}
		return netip.AddrPort{}
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	// Only now, since two sockets that share from the start could be bound to one port.
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(loopback, uint16(bound.(*syscall.SockaddrInet4).Port))
}
