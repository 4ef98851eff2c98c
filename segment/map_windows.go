package segment

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"
)

// A region is memory that is a file's. It is no gommap.MMap here: that package keeps a
// table of its mappings that two goroutines must not write, and flushes a handle that
// may be another file's by then.
type region = []byte

// mapRegion maps the first size bytes of a file, which has as many: Windows maps nothing
// beyond the end of a file that is read.
func mapRegion(fd uintptr, size int64) (region, error) {
	if size == 0 {
		return nil, errors.New("an empty file cannot be mapped")
	}
	h, err := windows.CreateFileMapping(windows.Handle(fd), nil, windows.PAGE_READONLY, uint32(size>>32), uint32(size), nil)
	if err != nil {
		return nil, err
	}
	defer windows.CloseHandle(h) // the view keeps the mapping
	address, err := windows.MapViewOfFile(h, windows.FILE_MAP_READ, 0, 0, uintptr(size))
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&address))), size), nil
}

func unmapRegion(r region) error {
	return windows.UnmapViewOfFile(uintptr(unsafe.Pointer(unsafe.SliceData(r))))
}

// letGoOf does nothing: Windows takes pages from a process by itself.
func letGoOf(region) {}

// inMemory reports of no page that it is, so that every frame is compared.
func (m *mapping) inMemory(from, to int64) bool { return false }
