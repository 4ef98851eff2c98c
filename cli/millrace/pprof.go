//go:build pprof

package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
)

// A binary built with -tags pprof serves Go's profiles on a free port of
// 127.0.0.1, which it says on standard error: `go tool pprof http://HOST:PORT/debug/pprof/profile`.
func init() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "millrace: no profiles:", err)
		return
	}
	fmt.Fprintf(os.Stderr, "profiles at http://%s/debug/pprof/\n", l.Addr())
	go http.Serve(l, nil)
}
