package folder

import (
	"errors"
	"log/slog"
	"testing"

	"millrace/segment"
)

// Why a node must end is in its folder before anybody is told of it, so that the next start
// knows, too; the first reason stands.
func TestWhyANodeEndsIsNotedBeforeItIsTold(t *testing.T) {
	f := Folder{FS: segment.OS, Dir: t.TempDir()}
	s := NewStanding(f)
	id := Identity{Node: 1, Incarnation: "aa", Cluster: "MkU3OEVBNTcwNTJENDM2Qg", Level: 2}
	s.Belongs(id, slog.New(slog.DiscardHandler))
	old := errors.New("an old disk")
	s.Fail(old, 3, func(id *Identity) { id.Outdated = true })
	s.Fail(errors.New("another"), 3, func(id *Identity) { id.Doubted = "another" })
	select {
	case <-s.Failed():
	default:
		t.Error("nobody was told")
	}
	if s.Failure() != old {
		t.Errorf("it ends for %v, want the first reason", s.Failure())
	}
	id.Outdated, id.Level = true, 3
	if noted, _, err := f.Identity(); err != nil || noted != id {
		t.Errorf("%+v is noted (%v), want %+v", noted, err, id)
	}
	if !s.NoteLevel(4) {
		t.Error("the level is to be noted again")
	}
	if noted, _, _ := f.Identity(); noted != id {
		t.Errorf("a level was noted over it: %+v", noted)
	}
}
