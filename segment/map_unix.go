//go:build unix

package segment

import (
	"os"
	"slices"

	"github.com/tysonmote/gommap"
)

// A region is memory that is a file's.
type region = gommap.MMap

// mapRegion maps the first size bytes of a file, which may be shorter: what lies beyond
// its end is not touched before it is there.
func mapRegion(fd uintptr, size int64) (region, error) {
	return gommap.MapRegion(fd, 0, size, gommap.PROT_READ, gommap.MAP_SHARED)
}

func unmapRegion(r region) error { return r.UnsafeUnmap() }

// letGoOf takes a region's pages out of the process's memory. It is advice.
func letGoOf(r region) { _ = r.Advise(gommap.MADV_DONTNEED) }

// inMemory reports whether all pages of the bytes from from to to are in memory.
func (m *mapping) inMemory(from, to int64) bool {
	from -= from % int64(os.Getpagesize())
	pages, err := gommap.MMap(m.data[from:to]).IsResident()
	return err == nil && !slices.Contains(pages, false)
}
