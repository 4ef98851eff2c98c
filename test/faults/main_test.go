//go:build faults

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"millrace/internal/testcluster"
)

// binary is the path of the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Getenv(roleVariable) != "" { // a part of another process's test, which has all there is to clean up
			return m.Run()
		}
		if binary = os.Getenv(insideNamespace); binary != "" { // what TestMain has begun already
			defer os.RemoveAll(filepath.Dir(binary))
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "millrace-faults-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		var flags []string
		if os.Getenv("FAULTS_RACE") != "" {
			flags = append(flags, "-race")
		}
		if binary, err = testcluster.Build(dir, flags...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if os.Getuid() == 0 {
			// It comes back only where there are no namespaces; the tests that need them skip.
			fmt.Fprintf(os.Stderr, "no network namespace of its own, so tests of networks skip: %v\n", enterNamespace())
		}
		return m.Run()
	}())
}

// setting is a number from the environment, for longer or shorter runs than CI's.
func setting(name string, standard int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return standard
}

// figure prints a measurement, whether or not tests run with -v.
func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Printf("figure %s: %s\n", t.Name(), fmt.Sprintf(format, args...))
}

// eventually waits for a condition that has to come true; how long it may take
// only guards against hanging.
func eventually(t *testing.T, patience time.Duration, what string, holds func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %v: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
