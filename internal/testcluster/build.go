package testcluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Build builds the program into a folder and returns its path. flags are those of go build.
func Build(dir string, flags ...string) (program string, err error) {
	program = filepath.Join(dir, "millrace")
	args := append([]string{"build", "-o", program}, flags...)
	if out, err := exec.Command("go", append(args, "millrace/cli/millrace")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ./cli/millrace: %w: %s", err, out)
	}
	return program, nil
}

// built is what Program has built for this process, and Main removes.
var built struct {
	once    sync.Once
	dir     string
	program string
	err     error
}

// Main runs the tests of a package, removes what Program has built for them, and ends the
// process.
func Main(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// Program builds the program, once for all tests of a process, and returns its path. With
// -short, the test is skipped: what it starts takes long. The package has a TestMain that
// calls [Main].
func Program(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs processes; left out with -short")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "millrace-test-"); built.err == nil {
			built.program, built.err = Build(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.program
}
