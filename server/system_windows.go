package server

import "golang.org/x/sys/windows"

// volume tells the size of the volume that holds path, and what is left of it.
func volume(path string) (total, usable int64, err error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, 0, err
	}
	var left, all uint64
	if err := windows.GetDiskFreeSpaceEx(name, &left, &all, nil); err != nil {
		return 0, 0, err
	}
	return int64(all), int64(left), nil
}

// descriptors is how many handles the process may have: millions.
func descriptors() int { return 1 << 30 }
