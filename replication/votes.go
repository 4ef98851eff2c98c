package replication

import (
	"errors"
	"fmt"
	"path/filepath"

	"millrace/replication/vote"
	"millrace/segment"
)

// openVotes opens the votes in a data folder. If another process has the folder open,
// which this is the first to notice, the error says what to do about it.
func openVotes(fs segment.FS, dir string, cfg vote.Config) (*vote.Store, error) {
	cfg.Replace = func(aside, path string) error {
		_, err := segment.Replace(fs, aside, path)
		return err
	}
	votes, err := vote.Open(filepath.Join(dir, stableName), cfg)
	if inUse := (*vote.InUseError)(nil); errors.As(err, &inUse) {
		return nil, fmt.Errorf("in use by %s; stop it, or choose another folder with --data-dir", inUse.Holder())
	}
	return votes, err
}

// InUse tells whether a process has the data folder of a node open, and which: 0 if that
// cannot be told. It changes nothing there.
func InUse(dir string) (pid int, used bool) {
	var inUse *vote.InUseError
	if errors.As(vote.InUse(filepath.Join(dir, stableName)), &inUse) {
		return inUse.PID, true
	}
	return 0, false
}
