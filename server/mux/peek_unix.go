//go:build unix

package mux

import "syscall"

// kernelPeeks says whether peekKernel works.
const kernelPeeks = true

// peekKernel copies what a socket has received, up to len(p), and leaves it there. It
// does not wait: syscall.EAGAIN.
func peekKernel(fd uintptr, p []byte) (n int, err error) {
	for {
		n, _, err = syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
