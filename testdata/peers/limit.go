package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"millrace/peers/process"

	"golang.org/x/sys/unix"
)

// What a broker that sends mapped files could reach at most: one process writes
// a mapped file to connections over loopback with writev, another reads them and
// discards what it gets. Nothing is parsed, asked for or copied.

// writevChunk is how much one call hands to the kernel: as much as a consumer asks
// for at a time of one partition, of two of them.
const (
	writevChunk = 1 << 20
	writevParts = 2
)

// limit runs both sides for a while and returns MiB a second of all readers
// together. The file of the given size is made in dir.
func limit(ctx context.Context, dir string, bytes int64, readers int, duration time.Duration) (mib float64, err error) {
	file, err := os.CreateTemp(dir, "writev-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	block := []byte(strings.Repeat("0123456789abcde\n", writevChunk/16))
	for n := int64(0); n < bytes; n += writevChunk {
		if _, err := file.Write(block); err != nil {
			return 0, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	sending := exec.Command(self, "writev-send", "-file", file.Name())
	announced, err := sending.StdoutPipe()
	if err != nil {
		return 0, err
	}
	sender, err := process.Start(sending)
	if err != nil {
		return 0, err
	}
	defer sender.Kill()
	var address string
	if _, err := fmt.Fscanln(announced, &address); err != nil {
		return 0, fmt.Errorf("writev-send did not start: %w", err)
	}
	out, err := process.Output(ctx, exec.Command(self, "writev-read", "-address", address, "-readers", fmt.Sprint(readers), "-duration", duration.String()))
	if err != nil {
		return 0, err
	}
	err = json.Unmarshal([]byte(out), &mib)
	return mib, err
}

// writevSend maps a file and writes it to every connection, over and over. It
// prints its address, and is ended by a signal.
func writevSend(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("writev-send", flag.ContinueOnError)
	name := f.String("file", "", "`FILE` to send")
	if err := f.Parse(args); err != nil {
		return err
	}
	file, err := os.Open(*name)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < writevChunk {
		return fmt.Errorf("%s has %d bytes, fewer than one chunk", *name, info.Size())
	}
	mapped, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map %s: %w", *name, err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() { // a connection: ends with it
			defer conn.Close()
			for at := 0; ; {
				var views net.Buffers
				for range writevParts {
					if at+writevChunk > len(mapped) {
						at = 0
					}
					views = append(views, mapped[at:at+writevChunk])
					at += writevChunk
				}
				if _, err := views.WriteTo(conn); err != nil {
					return
				}
			}
		}()
	}
}

// writevRead reads from several connections for a while and prints MiB a second.
func writevRead(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("writev-read", flag.ContinueOnError)
	address := f.String("address", "", "`HOST:PORT` of the sender")
	readers := f.Int("readers", 1, "connections, `N`")
	duration := f.Duration("duration", time.Second, "how long, `DURATION`")
	if err := f.Parse(args); err != nil {
		return err
	}
	var reading sync.WaitGroup
	counts, errs := make([]int64, *readers), make([]error, *readers)
	begin := time.Now()
	for i := range *readers {
		reading.Go(func() {
			conn, err := net.Dial("tcp", *address)
			if err != nil {
				errs[i] = err
				return
			}
			defer conn.Close()
			buffer := make([]byte, writevChunk)
			for time.Since(begin) < *duration {
				n, err := conn.Read(buffer)
				if err != nil {
					errs[i] = err
					return
				}
				counts[i] += int64(n)
			}
		})
	}
	reading.Wait()
	seconds := time.Since(begin).Seconds()
	var all int64
	for i := range counts {
		if errs[i] != nil {
			return errs[i]
		}
		all += counts[i]
	}
	return json.NewEncoder(stdout).Encode(float64(all) / (1 << 20) / seconds)
}
