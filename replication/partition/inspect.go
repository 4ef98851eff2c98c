package partition

import (
	"fmt"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/segment"
)

// A Summary is what the folder of a replica that does not run holds.
type Summary struct {
	Start, End int64              // offsets of the log
	Committed  int64              // what is below is known to be committed
	Last, Term uint64             // of the last entry
	Members    raft.Configuration // as the last entry that says so has them
}

// Inspect reads the folder of a replica of a group, which nobody has open, and changes nothing.
func Inspect(fs segment.FS, dir string, group uint64) (s Summary, err error) {
	of, err := GroupIn(dir)
	if err == nil && of != group {
		err = fmt.Errorf("%s is of group %d, not %d", dir, of, group)
	}
	if err != nil {
		return s, err
	}
	snapshots, err := openSnapshots(fs, dir)
	if err != nil {
		return s, err
	}
	if snap := snapshots.newest(); snap != nil {
		if s.Members, err = raftgroup.DecodeConfiguration(snap.configuration); err != nil {
			return s, err
		}
	}
	summary, err := log.Inspect(fs, dir, func(f *segment.Frame) (err error) {
		s.Last, s.Term = f.Index, f.Term
		if f.Index <= snapshots.index() {
			s.Committed = f.NextOffset()
		}
		if f.Type == segment.Configuration {
			s.Members, err = raftgroup.DecodeConfiguration(f.Payload)
		}
		return err
	}, func(damage *segment.CorruptError) error { return damage })
	if err != nil {
		return s, err
	}
	s.Start, s.End = summary.StartOffset, summary.EndOffset
	s.Committed = max(s.Committed, s.Start)
	return s, nil
}
