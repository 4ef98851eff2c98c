// Package cluster runs clusters of three brokers on loopback: Millrace, Apache
// Kafka or NATS JetStream, each set up as its users run it. Nothing is tuned for
// a benchmark; what is set at all is in the file of the system, with its reason.
package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

	begin func(context.Context) error // starts what is to run before all others, if anything
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

// New lays a cluster out in an empty folder. Nothing runs yet.
func New(ctx context.Context, system System, programs *Programs, dir string) (*Cluster, error) {
	c := &Cluster{System: system}
	for i := range Size {
		b := &Broker{data: filepath.Join(dir, fmt.Sprintf("data-%d", i+1)), log: filepath.Join(dir, fmt.Sprintf("broker-%d.log", i+1))}
		if err := os.MkdirAll(b.data, 0o755); err != nil {
			return nil, err
		}
		c.Brokers = append(c.Brokers, b)
	}
	ports, err := freeAddresses(2 * Size)
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

// Resident is the memory of the broker that has most of it now, in bytes.
func (c *Cluster) Resident() (most int64, err error) {
	for i, b := range c.Brokers {
		u, err := b.usage()
		if err != nil {
			return 0, fmt.Errorf("broker %d: %w", i+1, err)
		}
		most = max(most, u.Resident)
	}
	return most, nil
}

// Peak is the most memory any broker had since the cluster was laid out, in bytes.
func (c *Cluster) Peak() (most int64) {
	for _, b := range c.Brokers {
		most = max(most, b.peak)
		if u, err := b.usage(); err == nil {
			most = max(most, u.Peak)
		}
	}
	return most
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

// freeAddresses returns n addresses of 127.0.0.1 that nobody listens on now.
func freeAddresses(n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are chosen, so that they differ
		all = append(all, l.Addr().String())
	}
	return all, nil
}

// await asks every 5 ms until ok or ctx ends, or a broker does.
func (c *Cluster) await(ctx context.Context, ok func() error) error {
	poll := time.NewTicker(probeInterval)
	defer poll.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if ended := c.Check(); ended != nil {
			return ended
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; the last attempt: %w", ctx.Err(), err)
		}
	}
}

// probeInterval is how soon a probe tries again, the same for all systems.
const probeInterval = 5 * time.Millisecond

// writeFile writes a configuration file of the given lines.
func writeFile(path string, lines ...string) error {
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}
