//go:build unix

package segment

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A compared is a segment whose frames Read has compared with their CRCs. It
// relies on that for all but the first, which is short. The first two begin in
// the same block.
type compared struct {
	*Active
	t      *testing.T
	frames []Frame
}

func newCompared(t *testing.T) *compared {
	t.Helper()
	s := newTestSegment(t, 1<<20)
	c := &compared{s, t, appendTest(t, s, 3, [2]int{1, 3000}, [2]int{10, 3000}, [2]int{10, 3000})}
	c.settle()
	c.read(0, 3, true)
	if !c.crcs.Load().has(&c.frames[1]) || !c.crcs.Load().has(&c.frames[2]) {
		t.Fatal("the long frames are not remembered")
	}
	return c
}

// settle waits until the file's last change is long enough ago.
func (c *compared) settle() fileState {
	c.t.Helper()
	state, err := stateOf(c.path)
	if errors.Is(err, unix.EOPNOTSUPP) {
		c.t.Skip("this system does not tell when a file was changed: every read compares")
	}
	if err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(time.Until(state.changed.Add(settledAfter)))
	return state
}

// read reads n frames from the i-th on. They are served, or refused because the
// i-th is damaged.
func (c *compared) read(i, n int, served bool) {
	c.t.Helper()
	bytes := 0
	for _, f := range c.frames[i : i+n] {
		bytes += len(f.Payload)
	}
	v, err := c.Read(c.frames[i].BaseOffset, c.Info().NextOffset, bytes)
	if err == nil {
		defer v.Release()
	}
	if served && (err != nil || v.Len() != bytes) {
		c.t.Fatalf("%d frames from %d on: %v", n, i, err)
	}
	var corrupt *CorruptError
	if !served && (!errors.As(err, &corrupt) || corrupt.Position != c.frames[i].Position) {
		c.t.Fatalf("frame %d, a byte of which was changed: %v", i, err)
	}
}

// middle is a byte of the frame's payload.
func (c *compared) middle(i int) int64 { return c.frames[i].Position + c.frames[i].size()/2 }

// rot changes a byte of a frame in the file.
func (c *compared) rot(i int) {
	c.t.Helper()
	f, err := os.OpenFile(c.path, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 1)
	if _, err := f.ReadAt(p, c.middle(i)); err != nil {
		c.t.Fatal(err)
	}
	p[0] ^= 0x10
	if _, err := f.WriteAt(p, c.middle(i)); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		c.t.Fatal(err)
	}
}

// pretend makes Read believe that the file has not changed since it was compared.
func (c *compared) pretend() {
	c.crcs.Load().file = c.settle()
}

// TestReadChecksAgainAfterTheFileChanged: whoever writes to the file, and in
// whatever way, the next Read finds it.
func TestReadChecksAgainAfterTheFileChanged(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(c *compared)
	}{
		{"written", func(c *compared) { c.rot(1) }},
		{"written, and its time set back", func(c *compared) {
			before, err := os.Stat(c.path)
			if err != nil {
				c.t.Fatal(err)
			}
			c.rot(1)
			if err := os.Chtimes(c.path, before.ModTime(), before.ModTime()); err != nil {
				c.t.Fatal(err)
			}
		}},
		{"mapped", func(c *compared) {
			f, err := os.OpenFile(c.path, os.O_RDWR, 0)
			if err != nil {
				c.t.Fatal(err)
			}
			defer f.Close()
			p, err := unix.Mmap(int(f.Fd()), 0, int(c.Info().Bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				c.t.Fatal(err)
			}
			p[c.middle(1)] ^= 1
			if err := unix.Munmap(p); err != nil {
				c.t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newCompared(t)
			test.change(c)
			c.read(1, 1, false)
			c.settle()
			c.read(2, 1, true)
			c.read(1, 2, false)
			c.read(1, 2, false)
		})
	}
}

// TestReadChecksALongFrameOncePerCheckedFor: a long frame is not compared again before
// checkedFor is over, a short one always is.
func TestReadChecksALongFrameOncePerCheckedFor(t *testing.T) {
	t.Parallel()
	c := newCompared(t)
	c.rot(0)
	c.rot(1)
	c.pretend()
	c.crcs.Load().note(&c.frames[1]) // and will be for a while
	c.read(1, 2, true)
	c.read(0, 2, false)
	c.crcs.Load().began = c.crcs.Load().began.Add(-checkedFor)
	c.read(1, 2, false)
}

// TestTheCRCCacheIsUsedOnlyForPagesInMemory: whether a page is in memory was
// asked only as far as the answer was expected to go.
func TestTheCRCCacheIsUsedOnlyForPagesInMemory(t *testing.T) {
	t.Parallel()
	c := newCompared(t)
	c.rot(1)
	c.rot(2)
	c.pretend()
	p, err := c.pin()
	if err != nil {
		t.Fatal(err)
	}
	defer p.release(0)
	g := gathering{pinned: p, offset: c.frames[1].BaseOffset}
	g.askCache(len(c.frames), 1)
	for i, relied := range map[int]bool{1: true, 2: false} {
		f, err := c.Entry(c.frames[i].Index)
		if err != nil {
			t.Fatal(err)
		}
		c.crcs.Load().note(&f)
		if wrong := g.check(&f, f.body(p.m.data)); (wrong == nil) != relied {
			t.Errorf("frame %d, which is rotten, and good for what is remembered: %v", i, wrong)
		}
	}
}

// TestReadChecksWhatComesFromTheDisk: the system may drop pages at any time,
// and reads them with others when it needs one.
func TestReadChecksWhatComesFromTheDisk(t *testing.T) {
	t.Parallel()
	c := newCompared(t)
	c.rot(1)
	c.pretend()
	c.crcs.Load().note(&c.frames[1])
	if err := c.m.mm.Advise(unix.MADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	c.f.DropCache(0, 1<<20)
	if c.m.inMemory(c.frames[1].Position, c.middle(1)) {
		t.Skip("the system keeps this file in memory: not run")
	}
	c.read(0, 1, true) // which brings the rest
	if !c.m.inMemory(c.frames[1].Position, c.middle(1)) {
		t.Log("the system has read nothing ahead")
	}
	c.read(1, 1, false)
}

// TestTheCRCCacheStaysEmptyForAFileJustChanged: two changes may bear one time.
func TestTheCRCCacheStaysEmptyForAFileJustChanged(t *testing.T) {
	s := newTestSegment(t, 1<<20)
	for {
		began := time.Now()
		f := appendTest(t, s, 3, [2]int{10, 3000})[0]
		v, err := s.Read(f.BaseOffset, s.Info().NextOffset, 1)
		if err != nil {
			t.Fatal(err)
		}
		v.Release()
		remembered := s.crcs.Load()
		if time.Since(began) >= settledAfter {
			continue // too slow to tell
		}
		if remembered != nil {
			t.Error("a frame that was written less than a second ago is remembered as good")
		}
		return
	}
}
