//go:build linux

package log

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// TestPowerLossOnARealFileSystem is S4 for logs alone: on an ext4 of its own, whose
// unwritten pages and journal are dropped in mid-work (EXT4_IOC_SHUTDOWN without a
// flush), again and again. What was acknowledged is there afterwards. It needs root
// and a loop device.
func TestPowerLossOnARealFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system of its own")
	}
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	image := filepath.Join(t.TempDir(), "disk")
	mount := filepath.Join(t.TempDir(), "mnt")
	if err := errors.Join(os.Mkdir(mount, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 256<<20)); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
		}
		return nil
	}
	unmount := func() (err error) {
		for range 1000 { // the kernel may hold it for a moment after the last file is closed
			if err = run("umount", mount); err == nil {
				return nil
			}
			time.Sleep(20 * time.Millisecond)
		}
		return err
	}
	var stories [4]*story
	if err := run("mkfs.ext4", "-q", "-F", image); err != nil {
		t.Skipf("no ext4 to be had: %v", err)
	}
	if err := run("mount", "-o", "loop", image, mount); err != nil {
		t.Skipf("no loop device to be had: %v", err)
	}
	t.Cleanup(func() {
		for _, s := range stories {
			if s != nil && s.l != nil {
				s.l.Close(false)
			}
		}
		if err := unmount(); err != nil {
			t.Log(err)
		}
	})

	for i := range stories {
		stories[i] = &story{t: t, root: filepath.Join(mount, fmt.Sprint(i)), cfg: Config{SegmentBytes: 64 << 10}}
		stories[i].now.first = 1
		if err := os.MkdirAll(stories[i].root, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := run("sync"); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for round := range 6 {
		var wg sync.WaitGroup
		var dying atomic.Bool
		for i, s := range stories {
			next := s.next
			if err := s.openLog(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			got, err := observe(s.l)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if wrong := got.within(s.now, next, false); wrong != "" {
				t.Fatalf("round %d, log %d: %s", round, i, wrong)
			}
			// What was not acknowledged may be there or not; from here on it is.
			s.now = got
			for j := range s.now.entries {
				acknowledged += len(s.now.entries[j].Data)
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				r := rand.New(rand.NewPCG(uint64(round), uint64(i)))
				for term := uint64(round + 1); s.err == nil; {
					before := s.now
					switch p := r.IntN(30); {
					case p < 26:
						s.store(max(term, lastTerm(s.now)), [2]int{1 + r.IntN(3), r.IntN(3000)}, [2]int{1, r.IntN(100)})
					case p < 27:
						s.roll()
					case p < 28:
						if last := s.now.last(); last > s.now.first+20 {
							s.cut(last - r.Uint64N(10))
						}
					default:
						if last := s.now.last(); last > s.now.first+100 {
							s.drop(last - 50)
						}
					}
					// The kernel acknowledges an fdatasync that the shutdown overtakes, though
					// its extents are not converted any more: what is answered once it has
					// begun counts as unknown, as it would were the machine dead.
					if dying.Load() && s.err == nil {
						s.now = before
						return
					}
				}
			}()
		}
		time.Sleep(time.Duration(100+100*round) * time.Millisecond)
		d, err := os.Open(mount)
		if err != nil {
			t.Fatal(err)
		}
		noFlush := uint32(2)
		dying.Store(true)
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, d.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&noFlush)))
		d.Close()
		wg.Wait()
		if errno != 0 {
			t.Skipf("the kernel has no EXT4_IOC_SHUTDOWN: %v", errno)
		}
		for _, s := range stories {
			if s.err != nil && strings.Contains(s.err.Error(), "panic") {
				t.Fatal(s.err)
			}
			s.l.Close(true) // in vain
			s.err = nil
		}
		if err := unmount(); err != nil {
			t.Fatal(err)
		}
		if err := run("mount", "-o", "loop", image, mount); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range stories {
		got, err := opened(s.dir(), testID)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := got.within(s.now, s.next, false); wrong != "" {
			t.Fatalf("log %d: %s", i, wrong)
		}
	}
	t.Logf("%d bytes acknowledged before losses of power", acknowledged)
}
