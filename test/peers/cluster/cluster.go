// Package cluster runs clusters of three brokers on loopback: Millrace, Apache
// Kafka or NATS JetStream, each set up as its users run it. Nothing is tuned for
// a benchmark; what is set at all is in the file of the system, with its reason.
package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"millrace/peers/process"
)

// A System is a kind of broker.
type System string

// The systems.
const (
	Millrace System = "millrace"
	Kafka    System = "kafka"
	NATS     System = "nats"
)

// Systems lists them all.
var Systems = []System{Millrace, Kafka, NATS}

// Size is the number of brokers of a cluster.
const Size = 3

// A Cluster is three brokers on this machine. Its methods are called from one
// goroutine.
type Cluster struct {
	System  System
	Brokers []*Broker

	options Options
	program string                      // of Millrace
	begin   func(context.Context) error // starts what is to run before all others, if anything
}

// A Broker is one server process and the folder of its data.
type Broker struct {
	Address string // where clients find it

	log     string
	data    string
	command func() *exec.Cmd
	process *process.Process // nil before the first start
	peak    int64            // memory of the processes that have ended, bytes
}

// Options are what a cluster may have that its users set.
type Options struct {
	// Host is the address of this machine that brokers listen on; "": 127.0.0.1. Only
	// Millrace is laid out on another.
	Host string
	// Environment is what brokers have in theirs besides, NAME=VALUE.
	Environment []string
}

// New lays a cluster out in an empty folder. Nothing runs yet.
func New(ctx context.Context, system System, programs *Programs, dir string, o Options) (*Cluster, error) {
	if o.Host == "" {
		o.Host = loopback
	}
	c := &Cluster{System: system, options: o}
	for i := range Size {
		b := &Broker{data: filepath.Join(dir, fmt.Sprintf("data-%d", i+1)), log: filepath.Join(dir, fmt.Sprintf("broker-%d.log", i+1))}
		if err := os.MkdirAll(b.data, 0o755); err != nil {
			return nil, err
		}
		c.Brokers = append(c.Brokers, b)
	}
	ports, err := freeAddresses(o.Host, 2*Size)
	if err != nil {
		return nil, err
	}
	for i, b := range c.Brokers {
		b.Address = ports[i]
	}
	switch system {
	case Millrace:
		c.layOutMillrace(programs)
	case Kafka:
		err = c.layOutKafka(ctx, programs, dir, ports[Size:])
	case NATS:
		err = c.layOutNATS(programs, dir, ports[Size:])
	default:
		err = fmt.Errorf("there is no system %q", system)
	}
	return c, err
}

// Start starts all brokers that do not run. When they serve is for the caller to
// find out: FirstAck.
func (c *Cluster) Start(ctx context.Context) error {
	if c.begin != nil {
		if err := c.begin(ctx); err != nil {
			return err
		}
	}
	for _, b := range c.Brokers {
		if !b.Running() {
			if err := b.Start(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Kill ends all brokers with SIGKILL. They can be started again.
func (c *Cluster) Kill() {
	for _, b := range c.Brokers {
		b.Kill()
	}
}

// Addresses is where clients find the brokers.
func (c *Cluster) Addresses() (all []string) {
	for _, b := range c.Brokers {
		all = append(all, b.Address)
	}
	return all
}

// CPU is the CPU time of each broker's present process.
func (c *Cluster) CPU() (all []time.Duration, err error) {
	for i, b := range c.Brokers {
		u, err := b.usage()
		if err != nil {
			return nil, fmt.Errorf("broker %d: %w", i+1, err)
		}
		all = append(all, u.CPU)
	}
	return all, nil
}

// Memory is what the broker that has most of it uses, in bytes: now, of that
// without the pages of files it has mapped, and at its peak since the cluster was
// laid out. Brokers that do not run count with their peak.
func (c *Cluster) Memory() (resident, own, peak int64) {
	for _, b := range c.Brokers {
		u, err := b.usage()
		if err == nil {
			resident, own = max(resident, u.Resident), max(own, u.Own)
		}
		peak = max(peak, b.peak, u.Peak)
	}
	return resident, own, peak
}

// Check returns an error that names a broker which has ended by itself, with the
// last line it logged.
func (c *Cluster) Check() error {
	for i, b := range c.Brokers {
		if b.process != nil && !b.Running() {
			return fmt.Errorf("broker %d of %s has ended (%s): %s", i+1, c.System, b.process.State(), b.lastWords())
		}
	}
	return nil
}

// Start starts the broker's process.
func (b *Broker) Start() error {
	log, err := os.OpenFile(b.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := b.command()
	cmd.Stdout, cmd.Stderr = log, log
	b.process, err = process.Start(cmd)
	return err
}

// Running tells whether the broker's process runs.
func (b *Broker) Running() bool { return b.process != nil && b.process.Running() }

// Kill ends the broker's process with SIGKILL, if it runs.
func (b *Broker) Kill() {
	if b.process == nil {
		return
	}
	if u, err := b.process.Usage(); err == nil {
		b.peak = max(b.peak, u.Peak)
	}
	b.process.Kill()
}

func (b *Broker) usage() (process.Usage, error) {
	if b.process == nil {
		return process.Usage{}, fmt.Errorf("not started")
	}
	return b.process.Usage()
}

// lastWords is the last line of the broker's log.
func (b *Broker) lastWords() string {
	text, err := os.ReadFile(b.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(lines[len(lines)-1])
}

// loopback is where brokers listen whose users said nothing.
const loopback = "127.0.0.1"

// freeAddresses returns n addresses of a host that nobody listens on now.
func freeAddresses(host string, n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are chosen, so that they differ
		all = append(all, l.Addr().String())
	}
	return all, nil
}

// How soon a probe tries again, the same for all systems: where the time counts,
// and where asking often would only make work.
const (
	probeInterval  = 5 * time.Millisecond
	settleInterval = 50 * time.Millisecond
)

// await retries until ok or ctx ends, or a broker does.
func (c *Cluster) await(ctx context.Context, interval time.Duration, ok func() error) error {
	var ended error
	err := retry(ctx, interval, func() error {
		err := ok()
		if err != nil {
			if ended = c.Check(); ended != nil {
				return nil
			}
		}
		return err
	})
	if ended != nil {
		return ended
	}
	return err
}

// retry calls ok until it returns nil or ctx ends.
func retry(ctx context.Context, interval time.Duration, ok func() error) error {
	poll := time.NewTicker(interval)
	defer poll.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; the last attempt: %w", ctx.Err(), err)
		}
	}
}

// writeFile writes a configuration file of the given lines.
func writeFile(path string, lines ...string) error {
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// OnDisk is what the broker's folder takes on disk, in bytes and files.
func (b *Broker) OnDisk() (bytes int64, files int, err error) {
	err = filepath.WalkDir(b.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// Blocks, not lengths: room that was set aside is on the disk, holes are not.
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			bytes += stat.Blocks * 512
		}
		files++
		return nil
	})
	return bytes, files, err
}
