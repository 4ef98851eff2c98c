package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// A stepFS writes down each step of a change, and fails at one.
type stepFS struct {
	FS
	steps []string
	fail  int // the step that fails, from 1; 0: none
	err   error
}

func (s *stepFS) step(op, name string) error {
	s.steps = append(s.steps, op+" "+filepath.Base(name))
	if len(s.steps) == s.fail {
		return s.err
	}
	return nil
}

func (s *stepFS) OpenFile(name string, flag int) (File, error) {
	if err := s.step("open", name); err != nil {
		return nil, err
	}
	f, err := s.FS.OpenFile(name, flag)
	return &stepFile{f, s, name}, err
}

func (s *stepFS) OpenDir(name string) (Dir, error) {
	if err := s.step("folder", "."); err != nil {
		return nil, err
	}
	d, err := s.FS.OpenDir(name)
	return &stepDir{d, s}, err
}

func (s *stepFS) Rename(from, to string) error {
	if err := s.step("rename", to); err != nil {
		return err
	}
	return s.FS.Rename(from, to)
}

type stepFile struct {
	File
	fs   *stepFS
	name string
}

func (f *stepFile) Pwritev(bufs [][]byte, off int64) error {
	if err := f.fs.step("write", f.name); err != nil {
		return err
	}
	return f.File.Pwritev(bufs, off)
}

func (f *stepFile) Sync() error {
	if err := f.fs.step("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

type stepDir struct {
	Dir
	fs *stepFS
}

func (d *stepDir) Sync() error {
	if err := d.fs.step("sync", "."); err != nil {
		return err
	}
	return d.Dir.Sync()
}

// The order of the steps is what a crash cannot tear; an error in any of them leaves the
// old file whole, or the new one, and nothing beside it.
func TestFileIsReplacedWholeOrNotAtAll(t *testing.T) {
	whole := []string{"open f.tmp", "write f.tmp", "sync f.tmp", "folder .", "rename f", "sync ."}
	for name, c := range map[string]struct {
		steps   []string
		replace func(fs FS, path string) (renamed bool, err error)
	}{
		"WriteFile": {whole, func(fs FS, path string) (bool, error) { return WriteFile(fs, path, []byte("new")) }},
		"Replace": {whole[3:], func(fs FS, path string) (bool, error) {
			if err := os.WriteFile(path+".aside", []byte("new"), 0o644); err != nil {
				t.Fatal(err)
			}
			renamed, err := Replace(fs, path+".aside", path)
			if _, there := os.Stat(path + ".aside"); (there == nil) == renamed {
				t.Errorf("renamed: %v, and the file aside: %v", renamed, there)
			}
			os.Remove(path + ".aside")
			return renamed, err
		}},
		"WriteFileUnsynced": {[]string{"open f.tmp", "write f.tmp", "rename f"}, func(fs FS, path string) (bool, error) {
			err := WriteFileUnsynced(fs, path, []byte("new"))
			return err == nil, err
		}},
	} {
		for fail := range len(c.steps) + 1 {
			for _, trouble := range []error{syscall.EIO, syscall.EMFILE} {
				t.Run(fmt.Sprint(name, " ", fail, " ", trouble), func(t *testing.T) {
					path := filepath.Join(t.TempDir(), "f")
					if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
						t.Fatal(err)
					}
					fs := &stepFS{FS: OS, fail: fail, err: trouble}
					renamed, err := c.replace(fs, path)
					want, steps := "old", c.steps
					if fail > 0 {
						steps = steps[:fail]
					}
					if slices.Contains(steps[:max(len(steps)-1, 0)], "rename f") || fail == 0 {
						want = "new"
					}
					if !slices.Equal(fs.steps, steps) {
						t.Errorf("steps %q, want %q", fs.steps, steps)
					}
					if (err != nil) != (fail > 0) || fail > 0 && !errors.Is(err, trouble) || renamed != (want == "new") {
						t.Errorf("renamed %v, %v", renamed, err)
					}
					if IsRefused(err) && renamed {
						t.Errorf("nothing has changed, and it has: %v", err)
					}
					if fail > 0 && !renamed && trouble == syscall.EMFILE && !IsRefused(err) {
						t.Errorf("%v is no refusal, and nothing has changed", err)
					}
					if p, err := os.ReadFile(path); string(p) != want {
						t.Errorf("the file has %q, %v; want %q", p, err, want)
					}
					if left, err := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
						t.Errorf("left behind: %v, %v", left, err)
					}
				})
			}
		}
	}
}
