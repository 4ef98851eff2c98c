package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"

	"millrace/cli/local"
	"millrace/cli/term"

	"golang.org/x/sys/unix"
)

// What a process may have, below which a busy broker comes to its limit: descriptors, two
// a replica and one a connection, and mappings, two a segment that is read, of which
// segments use half of what the system allows.
const (
	fewFiles    = 65_536
	fewMappings = 65_530 // Linux's default
)

const (
	moreFiles    = "raise the limit of files to 65,536 or more: LimitNOFILE=65536 in a systemd unit, --ulimit nofile=65536 of a container, ulimit -n 65536 in a shell"
	moreMappings = "raise the limit of mappings: sysctl -w vm.max_map_count=262144"
)

// examineProcesses looks at the limits of the brokers that are processes of this machine.
func (d *doctor) examineProcesses(all []*visit) {
	for _, v := range all {
		open, _ := v.open()
		if !isOwnIP(open.ip) {
			continue
		}
		pid := local.ListenerPID(v.address)
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		name := strings.TrimSpace(string(comm))
		if err != nil || name != "millrace" && name != "java" { // what forwards a port has other limits
			continue
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		limit := processFiles(pid)
		if err != nil || limit == 0 {
			continue
		}
		found := fmt.Sprintf("%s of %s files", term.Number(len(files)), term.Number(limit))
		verdict, changes := judgeLimit(int64(len(files)), limit, fewFiles), []string(nil)
		if verdict != fine {
			changes = append(changes, moreFiles)
		}
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if limit := mappingsAllowed(); err == nil && limit > 0 {
			n := bytes.Count(maps, []byte("\n"))
			found += fmt.Sprintf(", %s of %s mappings", term.Number(n), term.Number(limit))
			if also := judgeLimit(int64(n), limit, fewMappings); also != fine {
				changes = append(changes, moreMappings)
				if verdict != failed {
					verdict = also
				}
			}
		}
		d.say(verdict, "limits", fmt.Sprintf("%s, pid %d", d.who(v), pid), strings.Join(changes, "; "), "%s", found)
	}
}

// judgeLimit judges a limit of a process that uses some of it already, or none of it yet,
// in the same way.
func judgeLimit(used, limit, few int64) (verdict string) {
	switch {
	case used > limit/10*9:
		return failed
	case used > limit/4*3, limit < few:
		return worrying
	}
	return fine
}

// isOwnIP reports whether an address is of this machine.
func isOwnIP(text string) bool {
	ip := net.ParseIP(text)
	if ip == nil {
		return false
	}
	own, _ := net.InterfaceAddrs()
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return ip.IsLoopback()
}

// processFiles is how many descriptors a process may have, 0 if that cannot be told.
//
//	Max open files            1024                 524288               files
func processFiles(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Max open files"); ok {
			soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if soft == "unlimited" {
				return math.MaxInt32
			}
			n, _ := strconv.ParseInt(soft, 10, 64)
			return n
		}
	}
	return 0
}

// mappingsAllowed is vm.max_map_count, 0 if that cannot be told.
func mappingsAllowed() int64 {
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// fileSystems are those that statfs(2) tells apart by a number, and that matter here.
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", 0x2fc12fc1: "zfs", unix.F2FS_SUPER_MAGIC: "f2fs",
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "smb", unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p",
	0x6a656a63: "fakeowner of Docker Desktop", unix.CEPH_SUPER_MAGIC: "ceph", unix.MSDOS_SUPER_MAGIC: "vfat",
}

// examineDisk looks at the file system of a folder, and at what a process started here may have.
func (d *doctor) examineDisk(dir string) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		d.say(failed, "disk", dir, "look into the system's log for the disk", "%v", err)
		return
	}
	kind, known := fileSystems[int64(s.Type)]
	if !known {
		kind = fmt.Sprintf("a file system of type %#x", s.Type)
	}
	switch kind {
	case "tmpfs", "ramfs":
		d.say(worrying, "file system", dir, "choose a folder on a disk", "%s is memory: all is lost when the machine stops", kind)
	case "overlay":
		d.say(worrying, "file system", dir, "mount a volume there", "overlay, a container's own layer: all is lost when the container is removed")
	case "nfs", "smb", "cifs", "fuse", "9p", "ceph", "vfat", "fakeowner of Docker Desktop":
		d.say(worrying, "file system", dir, "choose a folder on a local disk, with ext4 or xfs", "%s: whether an fsync reaches a disk, and how soon, is up to another program", kind)
	default:
		d.say(fine, "file system", dir, "", "%s", kind)
	}
	total, free := int64(s.Blocks)*int64(s.Bsize), int64(s.Bavail)*int64(s.Bsize)
	d.judgeRoom("room", dir, "", total, free, (&brokerItem{DiskBytes: total, DiskFree: free}).diskFull())
	d.judgeInodes(dir, int64(s.Files), int64(s.Ffree))
}

// A file takes an inode. A broker that serves its first group has some 220 files, of the
// 50 partitions of the offsets topic; a partition four, and two for each of its segments.
const (
	firstInodes = 250
	fewInodes   = 10_000
)

func (d *doctor) judgeInodes(dir string, inodes, left int64) {
	const change = "remove small files, or make the file system with more"
	verdict, advice := fine, ""
	switch {
	case inodes == 0: // they are made as they are needed
		return
	case left < firstInodes || left*100 < inodes:
		verdict, advice = failed, change
	case left*10 < inodes:
		verdict, advice = worrying, change
	case left < fewInodes:
		verdict, advice = worrying, fmt.Sprintf("%s: a broker begins with %d, and fewer than %s are little", change, firstInodes, term.Number(fewInodes))
	}
	d.say(verdict, "inodes", dir, advice, "%s of %s free", term.Number(left), term.Number(inodes))
}

// examineLimits says what a process that is started from here may have. Go has raised the
// limit of this one to what is allowed, as it does for a broker.
func (d *doctor) examineLimits() {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err == nil {
		d.judgeAllowed("descriptors", int64(min(r.Cur, math.MaxInt32)), fewFiles, moreFiles)
	}
	if n := mappingsAllowed(); n > 0 {
		d.judgeAllowed("mappings", n, fewMappings, moreMappings)
	}
}

func (d *doctor) judgeAllowed(check string, n, few int64, change string) {
	verdict := judgeLimit(0, n, few)
	if verdict == fine {
		change = ""
	}
	d.say(verdict, check, "this machine", change, "%s for a process that is started here", term.Number(n))
}
