//go:build faults

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
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
			startForker()
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "millrace-faults-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "millrace")
		args := []string{"build", "-o", binary}
		if os.Getenv("FAULTS_RACE") != "" {
			args = append(args, "-race")
		}
		build := exec.Command("go", append(args, "millrace/cli/millrace")...)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "build ./cli/millrace: %v\n", err)
			return 1
		}
		if os.Getuid() == 0 {
			// It comes back only where there are no namespaces; the tests that need them skip.
			fmt.Fprintf(os.Stderr, "no network namespace of its own, so tests of networks skip: %v\n", enterNamespace())
		}
		startForker()
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

// fork runs a function on the one thread that starts processes: the kernel ties
// a child's parent-death signal to the thread that made it.
var fork func(func())

func startForker() {
	calls := make(chan func())
	go func() { // the forker: lives as long as the process
		runtime.LockOSThread()
		for f := range calls {
			f()
		}
	}()
	fork = func(f func()) {
		done := make(chan struct{})
		calls <- func() { defer close(done); f() }
		<-done
	}
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
