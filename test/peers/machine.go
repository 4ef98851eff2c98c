package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/peers/cluster"
	"millrace/peers/report"

	"golang.org/x/sys/unix"
)

// syncFilesystem writes back everything that the file system of a folder holds
// in memory.
func syncFilesystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", dir, err)
	}
	return nil
}

// freeBytes is the room on the file system of a folder.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// A machine is what figures depend on.
type machine struct {
	cpu        string
	cores      int
	memory     int64 // bytes
	kernel     string
	filesystem string // its type
	fsync      time.Duration
}

// describeMachine looks at this machine, and the file system of a folder.
func describeMachine(dir string) (m machine, err error) {
	m.cores = runtime.NumCPU()
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	m.cpu = field(string(cpuinfo), "model name")
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m, err
	}
	var kib int64
	fmt.Sscan(field(string(meminfo), "MemTotal"), &kib)
	m.memory = kib << 10
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, err
	}
	m.kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return m, err
	}
	full, err := filepath.Abs(dir)
	if err != nil {
		return m, err
	}
	if full, err = filepath.EvalSymlinks(full); err != nil {
		return m, err
	}
	m.filesystem = filesystemOf(string(mounts), full)
	m.fsync, err = fsyncTime(dir)
	return m, err
}

// field returns the value of the first "name : value" line.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if n, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(value)
		}
	}
	return "not known"
}

// filesystemOf finds the type of the file system that a folder is on, in the text
// of /proc/self/mountinfo: the fifth field is where something is mounted, the one
// behind " - " its type (proc(5)). What is mounted later covers what was before.
func filesystemOf(mounts, dir string) string {
	kind, longest := "not known", -1
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		fields, types := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(types) == 0 {
			continue
		}
		at := fields[4]
		if (at == "/" || dir == at || strings.HasPrefix(dir, at+"/")) && len(at) >= longest {
			kind, longest = types[0], len(at)
		}
	}
	return kind
}

// stolenTime is how much time processors of this machine had to do something and
// were not given by the host, since it started: the eighth figure of the first line of
// /proc/stat (proc_stat(5)), in hundredths of a second. 0 where there is none.
func stolenTime() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0
	}
	ticks, _ := strconv.ParseInt(fields[8], 10, 64)
	return time.Duration(ticks) * 10 * time.Millisecond
}

// fsyncTime is the median time in which a block that was appended to a file
// reaches the disk, which is what an acknowledgement costs where it waits for it.
func fsyncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	var times []time.Duration
	for range 100 {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

// describe says what was measured on what, as a Markdown list.
func (m machine) describe(p *cluster.Programs) string {
	var b strings.Builder
	item := func(name, value string) { fmt.Fprintf(&b, "- %s: %s\n", name, value) }
	item("Machine", fmt.Sprintf("%s, %d cores, %s GiB of memory, %s, %s (a 4 KiB append and fdatasync: %s ms); everything on it, over loopback",
		m.cpu, m.cores, report.Number(float64(m.memory)/(1<<30)), m.kernel, m.filesystem, report.Number(float64(m.fsync)/1e6)))
	item("Millrace", fmt.Sprintf("%s, commit %s", p.Versions["millrace"], p.Commit))
	if v := p.Versions["kafka"]; v != "" {
		item("Apache Kafka", fmt.Sprintf("%s, KRaft, each broker a controller too, heap of 1 GiB, G1, settings at their defaults; %s", v, p.Versions["java"]))
	}
	if v := p.Versions["nats"]; v != "" {
		item("NATS", fmt.Sprintf("nats-server %s, JetStream, a stream of three replicas in files for each partition; %s", v, runtime.Version()))
	}
	return b.String()
}
