//go:build unix

package term

import "syscall"

// What the network says, as this system says it.
const (
	ErrnoRefused      = syscall.ECONNREFUSED
	ErrnoInUse        = syscall.EADDRINUSE
	ErrnoNotAvailable = syscall.EADDRNOTAVAIL
	ErrnoNotAllowed   = syscall.EACCES
	ErrnoNoHost       = syscall.EHOSTUNREACH
	ErrnoNoNet        = syscall.ENETUNREACH
)
