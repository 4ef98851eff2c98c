package partition

import (
	"testing"
	"time"
)

// A roomless host says whether the disk has room for the node's own files.
type roomless struct {
	Host
	lacks bool
}

func (h *roomless) LacksRoom() bool { return h.lacks }

// Records that settings would delete at once are spared for a while after these changed, for
// whoever meant others; not where the node needs the room.
func TestWhatIsSparedIsDeletedForWantOfRoom(t *testing.T) {
	h := &roomless{}
	s := &site{env: &Env{Host: h}}
	until := time.UnixMilli(1_700_000_000_000)
	s.deleteFrom.Store(until.UnixMilli())
	for _, c := range []struct {
		at     time.Time
		lacks  bool
		spared bool
	}{
		{until.Add(-time.Millisecond), false, true},
		{until, false, false},
		{until.Add(-time.Millisecond), true, false},
	} {
		h.lacks = c.lacks
		if at, spared := s.spared(c.at); spared != c.spared || at != until.UnixMilli() {
			t.Errorf("at %v, room lacking %v: spared %v until %d, want %v", c.at, c.lacks, spared, at, c.spared)
		}
	}
}
