package term

import "golang.org/x/sys/windows"

// What the network says, as this system says it: package syscall's names are other
// numbers, which Windows never answers with.
const (
	ErrnoRefused      = windows.WSAECONNREFUSED
	ErrnoInUse        = windows.WSAEADDRINUSE
	ErrnoNotAvailable = windows.WSAEADDRNOTAVAIL
	ErrnoNotAllowed   = windows.WSAEACCES
	ErrnoNoHost       = windows.WSAEHOSTUNREACH
	ErrnoNoNet        = windows.WSAENETUNREACH
)
