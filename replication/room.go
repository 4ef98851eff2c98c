package replication

import (
	"errors"
	"os"
	"path/filepath"
	"time"
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

// keepRoom takes room for the files' holes and for roomAhead behind their ends, without
// a change to their lengths. It costs next to nothing where it is taken already, and is
// called now and then: files grow, and what a full disk did not allow comes later.
func (n *Node) keepRoom() {
	var failed error
	for _, name := range []string{stableName, filepath.Join(metaName, raftName)} {
		err := keepRoom(filepath.Join(n.cfg.DataDir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // the node is younger than its files
			failed = errors.Join(failed, err)
		}
	}
	if lacks := failed != nil; n.lacksRoom.Swap(lacks) != lacks {
		if lacks {
			n.logger.Warn("no room is left on the disk for the node's own files to grow; what they have will do for a while, make room", "error", failed)
		} else {
			n.logger.Info("the node's own files have room to grow again")
		}
	}
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

// fullSaidEvery is how often it is said that a full disk takes no records, while that
// goes on.
const fullSaidEvery = 10 * time.Minute

// full is called with the error of an append that there was no room for. Producers send
// it again and again, a thousand times a second, so it is said once, and rarely after that.
func (n *Node) full(p *Partition, err error) {
	n.fullDisk.Error(p.logger, "", "the disk is full: records are refused until there is room; their producers send them again, and consumers read on", "error", err)
}
