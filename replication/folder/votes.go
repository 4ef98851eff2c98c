package folder

import (
	"errors"

	"millrace/replication/vote"
	"millrace/segment"
)

// An InUseError says that another process has the folder open.
type InUseError struct {
	Holder string // "pid 17", or "another process" if that cannot be told
}

func (e *InUseError) Error() string { return "in use by " + e.Holder }

// OpenVotes opens the node's votes. If another process has the folder open, which this is
// the first to notice, the error is an *InUseError.
func (f Folder) OpenVotes(cfg vote.Config) (*vote.Store, error) {
	cfg.Folder = f
	votes, err := vote.Open(f.Path(VotesName), cfg)
	if inUse := (*vote.InUseError)(nil); errors.As(err, &inUse) {
		return nil, &InUseError{Holder: inUse.Holder()}
	}
	return votes, err
}

// Replace implements vote.Folder.
func (f Folder) Replace(aside, path string) error {
	_, err := segment.Replace(f.FS, aside, path)
	return err
}

// InUse tells whether a process has the data folder of a node open, and which: 0 if that
// cannot be told. It changes nothing there.
func InUse(dir string) (pid int, used bool) {
	var inUse *vote.InUseError
	if errors.As(vote.InUse(Folder{Dir: dir}.Path(VotesName)), &inUse) {
		return inUse.PID, true
	}
	return 0, false
}
