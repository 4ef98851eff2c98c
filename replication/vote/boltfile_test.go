package vote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// filled is the bytes of a store, with the records it holds.
func filled(t testing.TB, groups int) ([]byte, map[string][]byte) {
	t.Helper()
	s := testStore(t)
	var wait sync.WaitGroup
	for i := range groups {
		wait.Go(func() {
			g := s.Group(uint64(i + 1))
			if err := cmpErr(term(g, uint64(i)), vote(g, uint64(i), fmt.Sprintf("%d.incarnation", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	must(t, s.Close())
	p, err := os.ReadFile(s.path)
	must(t, err)
	records, err := readRecords(p)
	must(t, err)
	if len(records) != 3*groups {
		t.Fatalf("%d records of %d groups", len(records), groups)
	}
	return p, records
}

// A flip that matters is found, and one that is not found changes nothing: then
// the store opens, with the same votes, takes another and keeps it.
func TestFlippedByteIsFoundOrHarmless(t *testing.T) {
	for _, c := range []struct{ groups, every int }{
		{0, 1},    // the bucket lies inside its own entry
		{2, 1},    // so it does
		{30, 3},   // a page
		{120, 29}, // a branch and leaves
	} {
		t.Run(fmt.Sprint(c.groups), func(t *testing.T) {
			t.Parallel()
			good, want := filled(t, c.groups)
			r := rand.New(rand.NewPCG(uint64(c.groups), 0))
			path := filepath.Join(t.TempDir(), "stable.db")
			found, opened := 0, 0
			bad := bytes.Clone(good)
			for i := r.IntN(c.every); i < len(good); i += c.every {
				copy(bad, good)
				bad[i] ^= 1 << r.IntN(8)
				if r.IntN(7) == 0 {
					bad[i] = byte(r.Uint32())
				}
				records, err := readRecords(bad)
				if err != nil {
					if !errors.Is(err, ErrDamaged) || records != nil {
						t.Fatalf("byte %d: %v", i, err)
					}
					found++
					continue
				}
				if !reflect.DeepEqual(records, want) {
					t.Fatalf("byte %d: a flip changed what is read", i)
				}
				// Of those in pages nobody refers to a few are enough.
				if bytes.Equal(good, bad) || opened > 60 || opened > 30 && r.IntN(100) > 0 {
					continue
				}
				opened++
				must(t, os.WriteFile(path, bad, 0o644))
				s, err := Open(path, onDisk)
				if err != nil {
					t.Fatalf("byte %d: %v", i, err)
				}
				must(t, vote(s.Group(3), 99, "x"))
				s = reopened(t, s)
				if got := state(t, s.Group(3)); !strings.HasSuffix(got, "99 x") {
					t.Fatalf("byte %d: %q", i, got)
				}
				must(t, s.Close())
			}
			if found == 0 || opened == 0 {
				t.Errorf("%d found, %d opened: the test tests nothing", found, opened)
			}
		})
	}
}

// Whatever a long life does to the tree, pages that split, merge and empty
// among it, the check at opening does not mistake it for damage.
func TestLongLivedFileIsNotTakenForDamaged(t *testing.T) {
	s := testStore(t)
	s.db.NoSync = true // of no interest here, and most of the time
	r := rand.New(rand.NewPCG(3, 4))
	for step := range 150 {
		var wait sync.WaitGroup
		for range 1 + r.IntN(60) {
			group := 1 + r.Uint64N(400)
			forget, size := r.IntN(3) == 0, r.IntN(80)
			if step/30%2 == 1 {
				forget = r.IntN(10) > 0 // a time in which it shrinks
			}
			wait.Go(func() {
				if forget {
					if err := s.Forget(group); err != nil {
						t.Error(err)
					}
					return
				}
				if err := vote(s.Group(group), uint64(step), strings.Repeat("x", size)); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		p, err := os.ReadFile(s.path)
		must(t, err)
		records, err := readRecords(p)
		must(t, err)
		if want := int(s.total.count); len(records) != want {
			t.Fatalf("step %d: %d records, want %d", step, len(records), want)
		}
	}
}

func TestDamagedFileIsRefusedByName(t *testing.T) {
	good, _ := filled(t, 150)
	zeroed := bytes.Clone(good)
	clear(zeroed[4096:8192])
	old := bytes.Clone(good)
	newer := 0
	if binary.NativeEndian.Uint64(good[16+48:]) < binary.NativeEndian.Uint64(good[4096+16+48:]) {
		newer = 1
	}
	clear(old[newer*4096 : newer*4096+4096])
	for name, p := range map[string][]byte{
		"empty":              {},
		"short":              good[:10],
		"one page":           good[:4096],
		"cut to half":        good[:usedBytes(good)/2], // what is behind them is free
		"cut by a page":      good[:usedBytes(good)-4096],
		"cut by a byte":      good[:usedBytes(good)-1],
		"second page zeroed": zeroed,
		"newest meta gone":   old,
		"something else":     []byte(strings.Repeat("not a database ", 1000)),
		"zeros":              make([]byte, 32768),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "stable.db")
			must(t, os.WriteFile(path, p, 0o644))
			s, err := Open(path, onDisk)
			if s != nil || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "at byte ") {
				t.Fatalf("%v, %v", s, err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, p) {
				t.Errorf("the evidence was changed: %v", err)
			}
		})
	}
}

// usedBytes is where the pages the newest meta page counts end.
func usedBytes(p []byte) int {
	newest := max(binary.NativeEndian.Uint64(p[16+48:]), binary.NativeEndian.Uint64(p[4096+16+48:]))
	at := 16
	if binary.NativeEndian.Uint64(p[4096+16+48:]) == newest {
		at += 4096
	}
	return int(binary.NativeEndian.Uint64(p[at+40:])) * 4096
}

// The input is a list of bytes to change in a sound file, three for the
// position and one for the value: random bytes would never get past the meta
// pages, whose checksums are therefore made right again.
func FuzzReadRecords(f *testing.F) {
	var sound [][]byte
	for _, groups := range []int{2, 30, 120} {
		p, _ := filled(f, groups)
		sound = append(sound, p[:usedBytes(p)])
	}
	f.Add(uint8(0), []byte{0, 0x10, 40, 1})
	f.Add(uint8(1), []byte{0, 0x20, 10, 0xff, 0, 0x20, 12, 1})
	f.Add(uint8(2), []byte{0, 0x30, 20, 3})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		p := bytes.Clone(sound[int(which)%len(sound)])
		for ; len(edits) >= 4; edits = edits[4:] {
			at := int(edits[0])<<16 | int(edits[1])<<8 | int(edits[2])
			p[at%len(p)] = edits[3]
		}
		for _, at := range []int{16, 4096 + 16} {
			hash := fnv.New64a()
			hash.Write(p[at : at+56])
			binary.NativeEndian.PutUint64(p[at+56:], hash.Sum64())
		}
		if records, err := readRecords(p); err != nil && (records != nil || !errors.Is(err, ErrDamaged)) {
			t.Fatal(err)
		}
	})
}
