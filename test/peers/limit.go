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

// What a broker could reach at most: one process sends a file to connections over
// loopback, another reads them and discards what it gets. Nothing is parsed,
// asked for or copied, but by the kernel.

// The system calls that send a file.
const (
	writev   = "writev"   // of mapped pages, as Millrace does
	sendfile = "sendfile" // as Kafka does
)

// limitChunk is how much one call hands to the kernel: as much as a consumer asks
// for at a time of one partition; writev gets two of them.
const (
	limitChunk  = 1 << 20
	writevParts = 2
)

// limit runs both sides for a while and returns MiB a second of all readers
// together. The file of the given size is made in dir.
func limit(ctx context.Context, call, dir string, bytes int64, readers int, duration time.Duration) (mib float64, err error) {
	file, err := os.CreateTemp(dir, "limit-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	block := []byte(strings.Repeat("0123456789abcde\n", limitChunk/16))
	for n := int64(0); n < bytes; n += limitChunk {
		if _, err := file.Write(block); err != nil {
			return 0, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	sending := exec.Command(self, "limit-send", "-call", call, "-file", file.Name())
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
		return 0, fmt.Errorf("limit-send did not start: %w", err)
	}
	out, err := process.Output(ctx, exec.Command(self, "limit-read", "-address", address, "-readers", fmt.Sprint(readers), "-duration", duration.String()))
	if err != nil {
		return 0, err
	}
	err = json.Unmarshal([]byte(out), &mib)
	return mib, err
}

// limitSend writes a file to every connection, over and over. It prints its
// address, and is ended by a signal.
func limitSend(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("limit-send", flag.ContinueOnError)
	call := f.String("call", writev, "`NAME` of the system call: writev or sendfile")
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
	if info.Size() < writevParts*limitChunk {
		return fmt.Errorf("%s has %d bytes, fewer than one call gets", *name, info.Size())
	}
	mapped, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map %s: %w", *name, err)
	}
	send := map[string]func(net.Conn) error{
		writev:   func(conn net.Conn) error { return sendMapped(conn, mapped) },
		sendfile: func(conn net.Conn) error { return sendFile(conn, *name, info.Size()) },
	}[*call]
	if send == nil {
		return fmt.Errorf("-call %q: it is %s or %s", *call, writev, sendfile)
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
			for err := error(nil); err == nil; {
				err = send(conn)
			}
		}()
	}
}

// sendMapped writes mapped pages once, but for what is left of a last answer.
func sendMapped(conn net.Conn, mapped []byte) error {
	for at := 0; at+writevParts*limitChunk <= len(mapped); {
		var views net.Buffers
		for range writevParts {
			views = append(views, mapped[at:at+limitChunk])
			at += limitChunk
		}
		if _, err := views.WriteTo(conn); err != nil {
			return err
		}
	}
	return nil
}

// sendFile sends a file of size bytes once; net has sendfile do it.
func sendFile(conn net.Conn, name string, size int64) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for at := int64(0); at+limitChunk <= size; at += limitChunk {
		if _, err := io.CopyN(conn, file, limitChunk); err != nil {
			return err
		}
	}
	return nil
}

// limitRead reads from several connections for a while and prints MiB a second.
func limitRead(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("limit-read", flag.ContinueOnError)
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
			buffer := make([]byte, limitChunk)
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
