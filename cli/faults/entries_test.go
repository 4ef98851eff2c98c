//go:build faults

package faults

import (
	"fmt"

	"millrace/log"
	"millrace/segment"
)

// entriesOf reads the log of a stopped node from end to end.
func entriesOf(dir string) (all []entry, err error) {
	_, err = log.Inspect(segment.OS, dir, func(f *segment.Frame) error {
		if n := len(all); n > 0 && all[n-1].index+1 != f.Index {
			return fmt.Errorf("index %d follows %d", f.Index, all[n-1].index)
		}
		all = append(all, entry{f.Index, f.Term, f.PayloadCRC, f.Type == segment.Command})
		return nil
	}, func(c *segment.CorruptError) error { return c })
	return all, err
}
