package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"millrace/cli/local"
	"millrace/cli/term"
	"millrace/replication/folder"
)

// examineFolder looks at a data folder, or where it will be, and at this machine.
func (d *doctor) examineFolder(dir string) {
	const another = "choose another folder with --data-dir"
	at, err := filepath.Abs(dir)
	if err != nil {
		d.say(failed, "folder", dir, "name it from the root on with --data-dir", "%v", err)
		return
	}
	info, err := os.Stat(at)
	missing := absent(err)
	for absent(err) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		info, err = os.Stat(at)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		// One of those above does not let this user in: the last that can be seen.
		for errors.Is(err, fs.ErrPermission) && at != filepath.Dir(at) {
			at = filepath.Dir(at)
			_, err = os.Stat(at)
		}
		d.say(failed, "folder", dir, "let the user that runs the broker enter it and write there, or "+another, "%s cannot be entered: permission denied", at)
		return
	case err != nil:
		d.say(failed, "folder", dir, another, "%v", because(err))
		return
	case !info.IsDir():
		d.say(failed, "folder", dir, "name a folder with --data-dir", "%s is a file", at)
		return
	case missing:
		d.say(fine, "folder", dir, "", "serve will make it; its disk is looked at in %s", at)
	default:
		if _, err := os.ReadDir(at); err != nil {
			d.say(failed, "folder", dir, "let the user that runs the broker read and write there, or "+another, "it cannot be read: %v", because(err))
			return
		}
		what := "there, never served"
		if _, err := os.Stat(filepath.Join(at, local.NodeFile)); err == nil {
			what = "a node's"
		} else if nodes, _ := filepath.Glob(filepath.Join(at, "node-*", local.NodeFile)); len(nodes) > 0 {
			what = fmt.Sprintf("%s of `millrace up`", term.Count(len(nodes), "node"))
		} else if others := folder.Strange(at); len(others) > 0 {
			d.say(failed, "folder", dir, "choose another, or an empty one, with --data-dir", "it holds %s: serve does not begin among somebody's files", strings.Join(others, ", "))
			break
		}
		d.say(fine, "folder", dir, "", "%s", what)
	}
	d.examineDisk(at)
	d.examineSync(at)
	d.examineLimits()
}

// absent reports whether something is not there: itself, or the folder it should be in.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// An acknowledged record has waited for an fsync, or several in a row: what a disk takes
// for it is what a producer waits for. An SSD takes a millisecond or less, a hard disk
// ten; the cheap storage of clouds tens. However slow it is, a broker works on it.
const (
	slowSync  = 20 * time.Millisecond
	syncTries = 32
)

// examineSync measures what an fsync takes in a folder: of 4 KiB behind others, as often
// as there is time for in a second.
func (d *doctor) examineSync(dir string) {
	f, err := os.CreateTemp(dir, ".millrace-doctor-*")
	if err != nil {
		change := "let the user that runs the broker write there"
		switch {
		case errors.Is(err, syscall.ENOSPC):
			change = "make room, or remove files"
		case !errors.Is(err, fs.ErrPermission):
			change = "choose a folder on a disk that can be written, with --data-dir"
		}
		d.say(failed, "write", dir, change, "%v", because(err))
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	block := make([]byte, 4<<10)
	for began := time.Now(); len(took) < syncTries && (len(took) < 3 || time.Since(began) < time.Second); {
		if _, err = f.Write(block); err == nil {
			at := time.Now()
			err = f.Sync()
			took = append(took, time.Since(at))
		}
		if err != nil {
			change := "look into the system's log for the disk"
			if errors.Is(err, syscall.ENOSPC) {
				change = "make room"
			}
			d.say(failed, "fsync", dir, change, "%v", because(err))
			return
		}
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	verdict, change := fine, ""
	if median > slowSync {
		verdict, change = worrying, "choose a faster disk, or one that nothing else writes to; a topic whose loss is bearable can do without: flush.messages"
	}
	d.say(verdict, "fsync", dir, change, "median %s, at worst %s, of %s", fineGrained(median), fineGrained(worst), term.Count(len(took), "fsync"))
}

// because leaves out the path and the call of an error whose line names them.
func because(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// fineGrained is short for what may take microseconds.
func fineGrained(d time.Duration) string {
	if d < time.Millisecond {
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	}
	return short(d)
}
