package segment

import (
	"errors"
	"syscall"
	"testing"
)

// A greedyFS takes some of the room it is asked for, makes the file longer, and then
// finds that the disk is full, as ext4 does.
type greedyFS struct {
	FS
	most  int64         // of a file
	taken map[int64]int // pages, by position
}

func (fs *greedyFS) OpenFile(name string, flag int) (File, error) {
	f, err := fs.FS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return &greedyFile{f, fs}, nil
}

type greedyFile struct {
	File
	fs *greedyFS
}

func (f *greedyFile) Allocate(from, to int64) error {
	got := min(to, f.fs.most)
	if err := f.File.Allocate(from, max(got, from)); got > from && err != nil {
		return err
	}
	for at := from &^ (page - 1); at < got; at += page {
		f.fs.taken[at] = 1
	}
	if got < to {
		return syscall.ENOSPC
	}
	return nil
}

func (f *greedyFile) Punch(from, to int64) error {
	for at := range f.fs.taken {
		if at >= from && at < to {
			delete(f.fs.taken, at)
		}
	}
	return f.File.Punch(from, to)
}

// TestAPartialAllocationIsPunched: a call that finds too little has taken what there
// was. On a full disk that is somebody else's room, and it stayed taken until the segment ended.
func TestAPartialAllocationIsPunched(t *testing.T) {
	fs := &greedyFS{FS: quick, most: 256 << 10, taken: map[int64]int{}}
	s, err := Create(fs, t.TempDir()+"/00000000000000000000-00000001.log", Header{Identity: testID, FirstIndex: 1}, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := len(fs.taken)
	if err := s.Allocate(1 << 20); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if after := len(fs.taken); after != before || after == 0 {
		t.Errorf("%d pages are taken after a refusal, %d were before", after, before)
	}
	if err := s.Allocate(100 << 10); err != nil { // what there is
		t.Fatal(err)
	}
	// The file is longer than what is taken of it, and PunchTail knows how long.
	fs.most = 300 << 10
	if err := s.Allocate(1 << 20); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	s.PunchTail()
	if n, most := len(fs.taken), int(pageUp(HeaderSize+punchKeeps)/page); n > most {
		t.Errorf("%d pages are taken after a yield, want %d at most", n, most)
	}
	if size, err := s.f.Size(); err != nil || s.length != size {
		t.Errorf("the file is %d long, the segment takes it for %d, %v", size, s.length, err)
	}
}
