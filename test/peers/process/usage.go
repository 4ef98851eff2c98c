package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process uses.
type Usage struct {
	CPU      time.Duration // user and system, of its children that have ended too; in steps of 10 ms
	Resident int64         // bytes of memory now (VmRSS)
	Own      int64         // of them, those that are no file's pages (RssAnon)
	Peak     int64         // the most that were ever resident (VmHWM)
}

// tick is the unit of the times in /proc/PID/stat: USER_HZ is 100 on every
// architecture Go runs on.
const tick = 10 * time.Millisecond

func usageOf(pid int) (u Usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	if u.CPU, err = parseStat(stat); err != nil {
		return u, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	if err := u.parseStatus(status); err != nil {
		return u, fmt.Errorf("/proc/%d/status: %w", pid, err)
	}
	return u, nil
}

// parseStat adds up the four CPU times of /proc/PID/stat: utime, stime, cutime
// and cstime, its fields 14 to 17 (proc(5)). The second field is the program's
// name in parentheses, which may hold blanks and parentheses itself.
func parseStat(stat []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, fmt.Errorf("no name in %q", stat)
	}
	fields := strings.Fields(string(stat[end+1:]))
	const first = 14 - 3 // field 3 is the first after the name
	if len(fields) < first+4 {
		return 0, fmt.Errorf("%d fields behind the name", len(fields))
	}
	var ticks int64
	for _, f := range fields[first : first+4] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// parseStatus finds the sizes in /proc/PID/status, which are in KiB.
func (u *Usage) parseStatus(status []byte) error {
	sizes := map[string]*int64{"VmRSS": &u.Resident, "RssAnon": &u.Own, "VmHWM": &u.Peak}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		size, ok := sizes[name]
		if !ok {
			continue
		}
		kib, ok := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseInt(kib, 10, 64)
		if !ok || err != nil {
			return fmt.Errorf("%s is %q", name, value)
		}
		*size = n << 10
		delete(sizes, name)
	}
	if len(sizes) > 0 {
		return fmt.Errorf("no memory: the process has ended")
	}
	return nil
}
