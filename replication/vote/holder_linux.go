package vote

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lockHolder is the process that holds a lock on a file, 0 if that cannot be told. A line
// of /proc/locks is, with the file system's numbers in hexadecimal,
//
//	1: FLOCK  ADVISORY  WRITE 14309 08:01:393222 0 EOF
func lockHolder(path string) (pid int) {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	inode := fmt.Sprintf(":%d", info.Sys().(*syscall.Stat_t).Ino)
	for line := range strings.Lines(string(locks)) {
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], inode) {
			pid, _ = strconv.Atoi(fields[4])
			return pid
		}
	}
	return 0
}
