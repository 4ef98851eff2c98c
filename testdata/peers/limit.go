package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The limit of a consumer's speed: what a bare writev of mapped pages to loopback
// sockets reaches, with as many readers, in a process of their own, that throw
// away what they get.

// writeStep is how much is given to the kernel at a time, as a broker does.
const writeStep = 1 << 20

// writevLimit returns MiB a second that all readers together get of a file of
// size bytes, which each of them reads whole.
func writevLimit(dir string, size int64, readers int) (float64, error) {
	f, err := os.CreateTemp(dir, "limit-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	chunk := make([]byte, writeStep)
	for i := range chunk {
		chunk[i] = byte(i * 31)
	}
	for at := int64(0); at < size; at += int64(len(chunk)) {
		if _, err := f.WriteAt(chunk, at); err != nil {
			return 0, err
		}
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer syscall.Munmap(data)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	reader := exec.Command(self, "limit-readers", l.Addr().String(), strconv.Itoa(readers))
	reader.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	fork(func() { err = reader.Start() })
	if err != nil {
		return 0, err
	}
	defer reader.Wait()
	var conns []net.Conn
	for range readers {
		conn, err := l.Accept()
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	began := time.Now()
	var writing sync.WaitGroup
	failed := make(chan error, readers)
	for _, conn := range conns {
		writing.Go(func() {
			for at := 0; at < len(data); at += writeStep {
				pieces := net.Buffers{data[at:min(at+64, len(data))], data[min(at+64, len(data)):min(at+writeStep, len(data))]}
				if _, err := pieces.WriteTo(conn); err != nil {
					failed <- err
					return
				}
			}
			conn.(*net.TCPConn).CloseWrite()
			conn.Read(make([]byte, 1)) // the reader has all of it
		})
	}
	writing.Wait()
	took := time.Since(began)
	select {
	case err := <-failed:
		return 0, err
	default:
	}
	return float64(size) * float64(readers) / took.Seconds() / (1 << 20), nil
}

// limitReaders is the process of the readers.
func limitReaders(address, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var reading sync.WaitGroup
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		reading.Go(func() {
			defer conn.Close()
			b := make([]byte, 256<<10)
			for {
				if _, err := conn.Read(b); err != nil {
					return
				}
			}
		})
	}
	reading.Wait()
	return nil
}

// machine describes this machine in lines of Markdown.
func machine(dir string) []string {
	first := func(path, key string) string {
		b, _ := os.ReadFile(path)
		for l := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(l, key); ok {
				return strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(rest), ":"))
			}
		}
		return "unknown"
	}
	var cores int
	b, _ := os.ReadFile("/proc/cpuinfo")
	cores = strings.Count(string(b), "\nprocessor") + strings.Count(string(b[:min(len(b), 9)]), "processor")
	var u syscall.Utsname
	kernel := "unknown"
	if syscall.Uname(&u) == nil {
		var s []byte
		for _, c := range u.Release {
			if c == 0 {
				break
			}
			s = append(s, byte(c))
		}
		kernel = string(s)
	}
	memory, _ := strconv.Atoi(strings.Fields(first("/proc/meminfo", "MemTotal") + " 0")[0])
	return []string{
		fmt.Sprintf("%s, %d cores, %.0f GiB of memory", first("/proc/cpuinfo", "model name"), cores, float64(memory)/(1<<20)),
		fmt.Sprintf("Linux %s, data on %s", kernel, filesystem(dir)),
	}
}

// filesystem names the file system of a folder.
func filesystem(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "an unknown file system"
	}
	switch st.Type {
	case 0xEF53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683E:
		return "btrfs"
	case 0x01021994:
		return "tmpfs (nothing is ever on a disk: fsync costs nothing here)"
	case 0x794C7630:
		return "overlayfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
