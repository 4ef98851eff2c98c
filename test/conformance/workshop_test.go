//go:build conformance

package conformance

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// programs is the folder of the clients' programs, seen from this package's.
const programs = "clients"

// need ends the set-up of a client whose tool is not on this machine: with a
// skip, but in CI as a failure, which must not pass for want of a tool.
func need(t *testing.T, tool, install string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("%s is not installed (%s)", tool, install)
	default:
		t.Skipf("%s is not installed (%s): not run", tool, install)
	}
	return path
}

// workshop returns a folder that stays between runs, where make has once built
// what the pins, files under programs, ask for. Others, in this process and in
// others, wait meanwhile. Another content of a pin, or another version of a tool,
// asks for another folder.
func workshop(t *testing.T, name, tool string, pins []string, make func(dir string) error) string {
	t.Helper()
	hash := sha256.New()
	fmt.Fprintln(hash, tool)
	for _, pin := range pins {
		content, err := os.ReadFile(filepath.Join(programs, pin))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(hash, "%s %d\n%s", pin, len(content), content)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "millrace-conformance", fmt.Sprintf("%s-%.6x", name, hash.Sum(nil)))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	complete := filepath.Join(dir, ".complete")
	if _, err := os.Stat(complete); err == nil {
		return dir
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := make(dir); err != nil {
		t.Fatalf("set up %s: %v", name, err)
	}
	if err := os.WriteFile(complete, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// call runs a command in a folder and returns what it printed; the error has it too.
func call(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}

// absolute is a path under programs, for commands that run elsewhere.
func absolute(t *testing.T, path string) string {
	t.Helper()
	full, err := filepath.Abs(filepath.Join(programs, path))
	if err != nil {
		t.Fatal(err)
	}
	return full
}
