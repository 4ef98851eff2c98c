package replication

import (
	"log/slog"
	"time"
)

// keepRoom has the node's own files keep room to grow, and says when there is none.
func (u *upkeep) keepRoom() {
	failed := u.n.folder.KeepRoom()
	if lacks := failed != nil; u.lacksRoom.Swap(lacks) != lacks {
		if lacks {
			u.n.logger.Warn("no room is left on the disk for the node's own files to grow; what they have will do for a while, make room", "error", failed)
		} else {
			u.n.logger.Info("the node's own files have room to grow again")
		}
	}
}

// fullSaidEvery is how often it is said that a full disk takes no records, while that
// goes on.
const fullSaidEvery = 10 * time.Minute

// full is called with the error of an append that there was no room for. Producers send
// it again and again, a thousand times a second, so it is said once, and rarely after that.
func (u *upkeep) full(to *slog.Logger, err error) {
	u.fullDisk.Error(to, "", "the disk is full: records are refused until there is room; their producers send them again, and consumers read on", "error", err)
}
