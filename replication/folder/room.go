package folder

import (
	"errors"
	"os"
)

// roomAhead is the disk room that each of the node's own files, votes and the metadata
// log, has taken ahead: some hundreds of metadata changes, and more votes than a
// cluster holds in a year of elections, since pages are used again.
//
// A disk that is full must not take away what frees it: deletions, trims and changes of
// settings go through the metadata log, and the elections that they may need through
// the votes. bbolt writes each change to other pages than the ones in use, and grows a
// file by its length alone, with a hole, so a commit on a full disk fails though the
// file does not grow. A file of ballast, to be given up when that happens, would not
// do: partitions that wait for room are as quick to take it.
const roomAhead = 1 << 20

// KeepRoom takes room for the files' holes and for roomAhead behind their ends, without
// a change to their lengths. It costs next to nothing where it is taken already, and is
// called now and then: files grow, and what a full disk did not allow comes later.
func (f Folder) KeepRoom() error {
	var failed error
	for _, path := range []string{f.Path(VotesName), f.MetaLog()} {
		if err := keepRoom(path); err != nil && !errors.Is(err, os.ErrNotExist) { // the node is younger than its files
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func keepRoom(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := takeRoom(f, st.Size()+roomAhead); err != nil {
		return &os.PathError{Op: "take room for", Path: path, Err: err}
	}
	return nil
}
