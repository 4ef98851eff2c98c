// Command peers holds Millrace against what people would pick instead, on this
// machine: Apache Kafka from its published jars and NATS JetStream, three brokers
// each, one system after another.
//
//	go run . compare -o ../../BENCHMARKS.md   the whole comparison, about 40 minutes
//	go run . compare -quick                   the same with small numbers, to try the tool
//
// Needs Java and Maven for Kafka. What it prints on standard error is how far it
// is; the tables go to the file, or to standard output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"millrace/cli/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("which command? compare")
	}
	switch name, args := args[0], args[1:]; name {
	case "compare":
		return compareCommand(ctx, args)
	case "limit-readers": // the child of writevLimit
		return limitReaders(args[0], args[1])
	case "nats-load": // the child that loads NATS
		return natsLoadCommand(ctx, args)
	default:
		return fmt.Errorf("no command %q; there is compare", name)
	}
}

func natsLoadCommand(ctx context.Context, args []string) error {
	if len(args) != 8 {
		return fmt.Errorf("nats-load takes 8 arguments, got %d", len(args))
	}
	partitions, _ := strconv.Atoi(args[2])
	clients, _ := strconv.Atoi(args[3])
	bytes, _ := strconv.Atoi(args[4])
	rate, _ := strconv.ParseFloat(args[5], 64)
	duration, err := time.ParseDuration(args[6])
	if err != nil {
		return err
	}
	warm, err := time.ParseDuration(args[7])
	if err != nil {
		return err
	}
	return natsLoad(ctx, args[0], args[1], partitions, clients, load.Plan{
		Producers: clients, RecordBytes: bytes, Rate: rate, Duration: duration, WarmUp: warm, InFlight: maxPending, Seed: 1,
	})
}

func compareCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	output := flags.String("o", "", "put the tables into the section of this `file`; empty: standard output")
	rounds := flags.Int("rounds", 3, "how often each system is measured")
	seconds := flags.Duration("seconds", 10*time.Second, "how long a measurement of throughput or latency lasts")
	quick := flags.Bool("quick", false, "small numbers and one round: to try the tool, not to believe")
	only := flags.String("only", "", "scenarios, `a,b,…`: produce-1k, produce-100, produce-100p, latency, consume, e2e, failover, idle-1000, restart")
	systems := flags.String("systems", "", "`a,b,…` of millrace, kafka, nats")
	dir := flags.String("dir", os.TempDir(), "the brokers' data is below this `folder`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	list := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
	}
	root, err := os.MkdirTemp(*dir, "millrace-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	c := &comparison{root: root, rounds: *rounds, seconds: *seconds, quick: *quick, only: list(*only), systems: list(*systems), values: make(map[string]sample)}
	if c.quick {
		c.rounds, c.seconds = 1, 2*time.Second
	}
	if strings.HasPrefix(filesystem(root), "tmpfs") {
		c.note("the data is on tmpfs, where fsync costs nothing: choose another -dir")
	}
	if err := c.build(); err != nil {
		return err
	}
	err = c.compare(ctx)
	if err != nil {
		return err
	}
	if *output == "" {
		fmt.Print(c.report())
		return nil
	}
	return writeSection(*output, "compare", c.report())
}

// build makes the three systems' programs.
func (c *comparison) build() (err error) {
	c.say("building")
	c.millrace = millrace{binary: filepath.Join(c.root, "millrace"), commit: commit()}
	build := exec.Command("go", "build", "-o", c.millrace.binary, "./cli/millrace")
	build.Dir = filepath.Join("..", "..") // with the versions that it is released with
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build millrace: %w\n%s", err, out)
	}
	c.nats = natsServer{binary: filepath.Join(c.root, "nats-server")}
	if out, err := exec.Command("go", "build", "-o", c.nats.binary, natsModule).CombinedOutput(); err != nil {
		return fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", natsModule).Output()
	if err != nil {
		return err
	}
	c.nats.release = strings.TrimSpace(string(out))
	c.kafka, err = prepareKafka(filepath.Join("kafka", "pom.xml"))
	return err
}

// commit names the state of this tree.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--exclude=*").Output()
	if err != nil {
		return "of an unknown commit"
	}
	return strings.TrimSpace(string(out))
}
