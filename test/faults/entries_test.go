//go:build faults

package faults

import (
	"fmt"

	"millrace/log"
	"millrace/segment"
)

// entriesOf reads the log of a stopped node from end to end. What compaction has
// merged, at its beginning, is left out: each replica compacts by itself, so only
// what lies behind is the same on all of them, entry by entry.
func entriesOf(dir string) (all []entry, err error) {
	_, err = log.Inspect(segment.OS, dir, func(f *segment.Frame) error {
		n := len(all)
		switch {
		case f.Compacted && n == 0:
			return nil
		case f.Compacted:
			return fmt.Errorf("index %d is compacted, %d before it is not", f.Index, all[n-1].index)
		case n > 0 && all[n-1].index+1 != f.Index:
			return fmt.Errorf("index %d follows %d", f.Index, all[n-1].index)
		}
		all = append(all, entry{f.Index, f.Term, f.PayloadCRC, f.Type == segment.Command})
		return nil
	}, func(c *segment.CorruptError) error { return c })
	return all, err
}
