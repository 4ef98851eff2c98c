package segment

import (
	"os"
	"path/filepath"
)

// How a file takes the place of another, so that who reads the name finds the old one or
// the new one whole, and so does who starts after a crash at any point:
//
//	write aside ── sync ── open the folder ── rename ── sync the folder
//	└── after an error here the old file is there ──┘   └─────────────┘
//	                          nobody knows which of both a crash leaves
//
// All of it goes through an FS, so that a test double can stop between any two steps.

// AsideSuffix ends the name of a file that is being written. Who finds one after a crash
// may delete it.
const AsideSuffix = ".tmp"

// WriteFile replaces a file whole and durably. An error before the rename leaves the old
// one; renamed tells. Only such an error may be a *RefusedError.
func WriteFile(fs FS, name string, p []byte) (renamed bool, err error) {
	aside := name + AsideSuffix
	if err := writeAside(fs, aside, true, p); err != nil {
		return false, Refused(err)
	}
	if renamed, err = Replace(fs, aside, name); !renamed {
		fs.Remove(aside)
	}
	return renamed, err
}

// Replace gives the file at aside, whose bytes are on disk, the name of another in the same
// folder, durably. An error before the rename leaves both as they were; renamed tells. Only
// such an error may be a *RefusedError: the folder is opened first, so that nothing is left
// to be refused after the rename.
func Replace(fs FS, aside, name string) (renamed bool, err error) {
	d, err := fs.OpenDir(filepath.Dir(name))
	if err != nil {
		return false, Refused(err)
	}
	defer d.Close()
	if err := fs.Rename(aside, name); err != nil {
		return false, Refused(err)
	}
	return true, d.Sync()
}

// WriteFileUnsynced replaces a file whole, and leaves to the system when it reaches the
// disk: after a power failure there may be the old file, the new one, or one with holes.
// It is for what is written anew at each start, or can be. An error leaves the old file.
func WriteFileUnsynced(fs FS, name string, p []byte) error {
	aside := name + AsideSuffix
	if err := writeAside(fs, aside, false, p); err != nil {
		return Refused(err)
	}
	if err := fs.Rename(aside, name); err != nil {
		fs.Remove(aside)
		return Refused(err)
	}
	return nil
}

// writeAside writes a file that is to be renamed, bufs one after another. After an error
// there is none.
func writeAside(fs FS, aside string, sync bool, bufs ...[]byte) error {
	f, err := fs.OpenFile(aside, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	err = f.Pwritev(bufs, 0)
	if err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		fs.Remove(aside)
	}
	return err
}

// SyncDir makes the names in a folder durable. A *RefusedError says that it did not
// get to try.
func SyncDir(fs FS, name string) error {
	d, err := fs.OpenDir(name)
	if err != nil {
		return Refused(err)
	}
	defer d.Close()
	return d.Sync()
}
