package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"millrace/cli/load"
)

// A comparison is one run of the command: the systems in turn, round after round.
type comparison struct {
	millrace millrace
	kafka    kafka
	nats     natsServer

	root    string        // for folders
	rounds  int           //
	seconds time.Duration // a measurement of throughput
	quick   bool          // to try the tool: small everything
	only    []string      // scenarios; none: all
	systems []string      // none: all

	values map[string]sample // by "scenario system figure"
	notes  []string          // what went wrong
}

// The settings that topics of a variant have besides the system's.
var variants = map[string]map[string]string{
	"millrace":         nil,
	"millrace relaxed": {"flush.messages": "9223372036854775807", "flush.ms": "1000"},
	"kafka":            {"min.insync.replicas": "2"},
	"kafka fsync":      {"min.insync.replicas": "2", "flush.messages": "1"},
	"nats":             nil,
}

// durability says what an acknowledgement means, for the table.
var durability = map[string]string{
	"millrace": "fsync on a majority", "millrace relaxed": "page cache of a majority, fsync every second",
	"kafka": "page cache of all in sync", "kafka fsync": "fsync on all in sync", "nats": "page cache of a majority, fsync every 2 min",
}

func (c *comparison) wants(scenario string) bool {
	return len(c.only) == 0 || slices.Contains(c.only, scenario)
}

func (c *comparison) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func (c *comparison) note(format string, args ...any) {
	c.say("! "+format, args...)
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// add enters a figure of this round.
func (c *comparison) add(scenario, system, figure string, value float64) {
	key := scenario + " " + system + " " + figure
	c.values[key] = append(c.values[key], value)
	c.say("%-14s %-17s %-22s %.3g", scenario, system, figure, value)
}

func (c *comparison) sample(scenario, system, figure string) sample {
	return c.values[scenario+" "+system+" "+figure]
}

// compare runs everything.
func (c *comparison) compare(ctx context.Context) error {
	kinds := []kind{c.kafka, c.millrace, c.nats} // Kafka first: its peak sets the rate of the others' latency
	kinds = slices.DeleteFunc(kinds, func(k kind) bool { return len(c.systems) > 0 && !slices.Contains(c.systems, k.name()) })
	for round := range c.rounds {
		order := slices.Clone(kinds)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, k := range order {
			c.say("round %d of %d: %s", round+1, c.rounds, k.version())
			if err := c.round(ctx, k); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				c.note("round %d, %s: %v", round+1, k.name(), err)
			}
		}
		if c.wants("consume") {
			for _, readers := range []int{1, 10} {
				size := c.topicBytes()
				limit, err := writevLimit(c.root, size, readers)
				if err != nil {
					return err
				}
				c.add(fmt.Sprint("consume-", readers), "writev", "MiB/s", limit)
			}
		}
	}
	for _, k := range kinds {
		if k.name() == "nats" {
			continue
		}
		if c.wants("idle-1000") {
			if err := c.idlePartitions(ctx, k); err != nil {
				c.note("1,000 partitions, %s: %v", k.name(), err)
			}
		}
		if c.wants("restart") {
			if err := c.restartWithData(ctx, k); err != nil {
				c.note("restart, %s: %v", k.name(), err)
			}
		}
	}
	return ctx.Err()
}

// topicBytes is the size of the topic that is consumed.
func (c *comparison) topicBytes() int64 {
	if c.quick {
		return 64 << 20
	}
	return 1 << 30
}

// round is one life of one system.
func (c *comparison) round(ctx context.Context, k kind) error {
	s, err := newSystem(k, c.root)
	if err != nil {
		return err
	}
	defer s.end()
	patience, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.start(patience, false); err != nil {
		return err
	}
	name := k.name()
	first := s.firstAck
	if name == "nats" {
		first = func(ctx context.Context) (time.Duration, error) { return natsFirstAck(ctx, s) }
	}
	took, err := first(patience)
	if err != nil {
		return err
	}
	c.add("start", name, "ms", float64(took.Milliseconds()))
	if _, memory := s.idle(ctx, 3*time.Second); true {
		c.add("memory", name, "idle MiB", float64(memory)/(1<<20))
	}
	for _, p := range []struct {
		scenario         string
		bytes, partition int
	}{{"produce-1k", 1024, 6}, {"produce-100", 100, 6}, {"produce-100p", 1024, 100}} {
		if !c.wants(p.scenario) {
			continue
		}
		if err := c.produce(ctx, s, p.scenario, name, p.bytes, p.partition, 0); err != nil {
			return err
		}
		for _, variant := range []string{"millrace relaxed", "kafka fsync"} {
			if p.scenario == "produce-1k" && strings.HasPrefix(variant, name+" ") {
				if err := c.produce(ctx, s, p.scenario, variant, p.bytes, p.partition, 0); err != nil {
					return err
				}
			}
		}
	}
	if peak := c.sample("produce-1k", "kafka", "records/s").median(); c.wants("latency") && peak > 0 {
		if err := c.produce(ctx, s, "latency", name, 1024, 6, peak/5); err != nil {
			return err
		}
		if name == "kafka" {
			if err := c.produce(ctx, s, "latency", "kafka fsync", 1024, 6, peak/5); err != nil {
				return err
			}
		}
	}
	if name != "nats" {
		if c.wants("consume") {
			if err := c.consume(ctx, s); err != nil {
				return err
			}
		}
		if c.wants("e2e") {
			if err := c.endToEnd(ctx, s); err != nil {
				return err
			}
		}
	}
	c.add("memory", name, "peak MiB", float64(s.memory("VmHWM"))/(1<<20))
	if name != "nats" && c.wants("failover") {
		kills := map[string]int{"kafka": 2, "millrace": 10}[name]
		if c.quick {
			kills = min(kills, 2)
		}
		patience, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		all, err := s.failovers(patience, kills)
		for _, d := range all {
			c.add("failover", name, "ms", float64(d.Microseconds())/1000)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// measured runs a load with the processor time of the brokers and of the load
// around it.
func (c *comparison) measured(s *system, scenario, variant string, patience time.Duration, command string, args ...string) (*load.Result, error) {
	before := s.cpu()
	out, loader, err := run(patience, command, args...)
	if err != nil {
		return nil, err
	}
	var r load.Result
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("%s %v printed %.200q: %w", command, args, out, err)
	}
	if r.Errors+r.Unacknowledged+r.Lost > 0 {
		c.note("%s, %s: %d errors, %d unacknowledged, %d lost; first: %s", scenario, variant, r.Errors, r.Unacknowledged, r.Lost, r.FirstError)
	}
	if r.Bytes > 0 {
		// The warm-up costs the brokers as well: a byte of it counts like any other.
		whole := float64(r.Bytes) * (r.Seconds + r.Plan.WarmUp.Seconds()) / r.Seconds
		c.add(scenario, variant, "broker CPU ns/B", float64((s.cpu()-before).Nanoseconds())/whole)
		c.add(scenario, variant, "load CPU ns/B", float64(loader.Nanoseconds())/whole)
	}
	return &r, nil
}

const loadClients = 3

func (c *comparison) produce(ctx context.Context, s *system, scenario, variant string, bytes, partitions int, rate float64) error {
	topic := strings.ReplaceAll(scenario+"-"+variant, " ", "-")
	warm := c.seconds / 5
	var r *load.Result
	var err error
	if variant == "nats" {
		self, e := os.Executable()
		if e != nil {
			return e
		}
		r, err = c.measured(s, scenario, variant, c.seconds+3*time.Minute, self, "nats-load", strings.Join(s.addresses(), ","), topic,
			fmt.Sprint(partitions), fmt.Sprint(loadClients), fmt.Sprint(bytes), fmt.Sprint(rate), c.seconds.String(), warm.String())
	} else {
		args := []string{"bench", "produce", "-b", strings.Join(s.addresses(), ","), "-t", topic, "-p", fmt.Sprint(partitions), "-r", fmt.Sprint(nodes),
			"--producers", fmt.Sprint(loadClients), "--size", fmt.Sprint(bytes), "--duration", c.seconds.String(), "--warm-up", warm.String(), "-o", "json"}
		for key, value := range variants[variant] {
			args = append(args, "-c", key+"="+value)
		}
		if rate > 0 {
			args = append(args, "--rate", fmt.Sprintf("%.0f/s", rate), "--linger", "0s")
		}
		r, err = c.measured(s, scenario, variant, c.seconds+3*time.Minute, c.millrace.binary, args...)
	}
	if err != nil {
		return err
	}
	if rate > 0 {
		c.add(scenario, variant, "p50 ms", r.Latency.P50)
		c.add(scenario, variant, "p99 ms", r.Latency.P99)
		c.add(scenario, variant, "p99.9 ms", r.Latency.P999)
		c.add(scenario, variant, "records/s", r.RecordsPerSecond)
		return ctx.Err()
	}
	c.add(scenario, variant, "records/s", r.RecordsPerSecond)
	c.add(scenario, variant, "MiB/s", r.MiBPerSecond)
	return ctx.Err()
}

func (c *comparison) consume(ctx context.Context, s *system) error {
	const topic = "consume"
	name := s.kind.name()
	brokers := strings.Join(s.addresses(), ",")
	records := fmt.Sprint(c.topicBytes() / 1024)
	fill := []string{"bench", "produce", "-b", brokers, "-t", topic, "-p", "6", "-r", fmt.Sprint(nodes), "--keep", "-n", records, "--producers", fmt.Sprint(loadClients), "-o", "json"}
	for key, value := range variants[name] {
		fill = append(fill, "-c", key+"="+value)
	}
	if _, _, err := run(5*time.Minute, c.millrace.binary, fill...); err != nil {
		return err
	}
	for _, consumers := range []int{1, 10} {
		for _, raw := range []bool{false, true} {
			scenario := fmt.Sprint("consume-", consumers)
			args := []string{"bench", "consume", "-b", brokers, "-t", topic, "--consumers", fmt.Sprint(consumers), "-o", "json"}
			if raw {
				scenario += "-raw"
				args = append(args, "--raw")
			}
			if consumers == 1 {
				args = append(args, "--rounds", "3")
			}
			r, err := c.measured(s, scenario, name, 5*time.Minute, c.millrace.binary, args...)
			if err != nil {
				return err
			}
			c.add(scenario, name, "MiB/s", r.MiBPerSecond)
		}
	}
	return ctx.Err()
}

func (c *comparison) endToEnd(ctx context.Context, s *system) error {
	name := s.kind.name()
	args := []string{"bench", "e2e", "-b", strings.Join(s.addresses(), ","), "-t", "e2e", "-p", "6", "-r", fmt.Sprint(nodes), "--rate", "1000/s", "--linger", "0s",
		"--duration", c.seconds.String(), "--warm-up", (c.seconds / 5).String(), "-o", "json"}
	for key, value := range variants[name] {
		args = append(args, "-c", key+"="+value)
	}
	r, err := c.measured(s, "e2e", name, c.seconds+3*time.Minute, c.millrace.binary, args...)
	if err != nil {
		return err
	}
	c.add("e2e", name, "p50 ms", r.Latency.P50)
	c.add("e2e", name, "p99 ms", r.Latency.P99)
	c.add("e2e", name, "max ms", r.Latency.Max)
	return ctx.Err()
}

// idlePartitions measures what 1,000 partitions cost while nothing happens.
func (c *comparison) idlePartitions(ctx context.Context, k kind) error {
	partitions := int32(1000)
	if c.quick {
		partitions = 50
	}
	c.say("%d partitions, idle: %s", partitions, k.version())
	s, err := newSystem(k, c.root)
	if err != nil {
		return err
	}
	defer s.end()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := s.start(ctx, false); err != nil {
		return err
	}
	if _, err := s.firstAck(ctx); err != nil {
		return err
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	admin := kadm.NewClient(client)
	if err := create(ctx, admin, "idle", partitions, nil); err != nil {
		client.Close()
		return err
	}
	err = s.inSync(ctx, admin)
	client.Close() // an idle broker has no clients
	if err != nil {
		return err
	}
	settle, watch := 20*time.Second, 30*time.Second
	if c.quick {
		settle, watch = 2*time.Second, 3*time.Second
	}
	s.idle(ctx, settle)
	share, memory := s.idle(ctx, watch)
	c.add("idle-1000", k.name(), "% of a core", 100*share)
	c.add("idle-1000", k.name(), "MiB", float64(memory)/(1<<20))
	return ctx.Err()
}

// restartWithData kills all brokers with much on their disks, and times the restart.
func (c *comparison) restartWithData(ctx context.Context, k kind) error {
	bytes := int64(10 << 30)
	if c.quick {
		bytes = 128 << 20
	}
	c.say("restart with %d MiB on each disk: %s", bytes>>20, k.version())
	s, err := newSystem(k, c.root)
	if err != nil {
		return err
	}
	defer s.end()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	if err := s.start(ctx, false); err != nil {
		return err
	}
	if _, err := s.firstAck(ctx); err != nil {
		return err
	}
	if _, _, err := run(12*time.Minute, c.millrace.binary, "bench", "produce", "-b", strings.Join(s.addresses(), ","), "-t", "full", "-p", "6", "-r", fmt.Sprint(nodes),
		"--keep", "-n", fmt.Sprint(bytes/(10<<10)), "--size", fmt.Sprint(10<<10), "--producers", fmt.Sprint(loadClients), "-o", "json"); err != nil {
		return err
	}
	c.add("restart", k.name(), "GiB on a disk", float64(diskOf(s.folder(0)))/(1<<30))
	took, err := s.restart(ctx)
	if err != nil {
		return err
	}
	c.add("restart", k.name(), "ms", float64(took.Milliseconds()))
	return ctx.Err()
}

// demands are what the results are held against.
func (c *comparison) demands() []demand {
	v := c.sample
	return []demand{
		ratio("produce 1 KiB, 6 partitions: millrace (fsync) / kafka (no fsync)", v("produce-1k", "millrace", "records/s"), v("produce-1k", "kafka", "records/s"), 1.5, false),
		ratio("produce 1 KiB, 6 partitions: millrace / nats", v("produce-1k", "millrace", "records/s"), v("produce-1k", "nats", "records/s"), 2.5, false),
		ratio("produce 100 B: millrace / kafka", v("produce-100", "millrace", "records/s"), v("produce-100", "kafka", "records/s"), 1.5, false),
		ratio("produce 100 B: millrace / nats", v("produce-100", "millrace", "records/s"), v("produce-100", "nats", "records/s"), 10, false),
		ratio("produce 1 KiB, 100 partitions: millrace / kafka", v("produce-100p", "millrace", "records/s"), v("produce-100p", "kafka", "records/s"), 1.5, false),
		ratio("latency at 20 % of Kafka's peak, p50: millrace / kafka", v("latency", "millrace", "p50 ms"), v("latency", "kafka", "p50 ms"), 0.5, true),
		ratio("latency at 20 % of Kafka's peak, p99: millrace / kafka", v("latency", "millrace", "p99 ms"), v("latency", "kafka", "p99 ms"), 0.5, true),
		ratio("consume, 1 consumer: millrace / kafka", v("consume-1", "millrace", "MiB/s"), v("consume-1", "kafka", "MiB/s"), 1.2, false),
		ratio("consume, 10 consumers: millrace / kafka", v("consume-10", "millrace", "MiB/s"), v("consume-10", "kafka", "MiB/s"), 1.2, false),
		ratio("consume without decoding, 1 consumer: millrace / kafka", v("consume-1-raw", "millrace", "MiB/s"), v("consume-1-raw", "kafka", "MiB/s"), 1.2, false),
		ratio("consume without decoding, 10 consumers: millrace / kafka", v("consume-10-raw", "millrace", "MiB/s"), v("consume-10-raw", "kafka", "MiB/s"), 1.2, false),
		ratio("consume without decoding, 1 consumer: millrace / bare writev", v("consume-1-raw", "millrace", "MiB/s"), v("consume-1", "writev", "MiB/s"), 0.5, false),
		ratio("consume without decoding, 10 consumers: millrace / bare writev", v("consume-10-raw", "millrace", "MiB/s"), v("consume-10", "writev", "MiB/s"), 0.5, false),
		absolute("end to end at 1,000 records/s, p99 in ms", "%.2f", v("e2e", "millrace", "p99 ms"), 5, true),
		ratio("peak memory of a broker: millrace / kafka", v("memory", "millrace", "peak MiB"), v("memory", "kafka", "peak MiB"), 0.25, true),
		absolute("memory of an idle broker, MiB", "%.0f", v("memory", "millrace", "idle MiB"), 64, true),
		ratio("start to first acknowledgement: millrace / kafka", v("start", "millrace", "ms"), v("start", "kafka", "ms"), 0.2, true),
		absolute("kill -9 of a leader to the next acknowledgement, p50 in ms", "%.0f", v("failover", "millrace", "ms"), 150, true),
		ratio("kill -9 of a leader to the next acknowledgement: millrace / kafka", v("failover", "millrace", "ms"), v("failover", "kafka", "ms"), 0.05, true),
		absolute("1,000 partitions × 3, idle: % of a core, the busiest broker", "%.1f", v("idle-1000", "millrace", "% of a core"), 3, true),
		absolute("restart after kill -9 with 10 GiB on each disk, ms", "%.0f", v("restart", "millrace", "ms"), 3000, true),
	}
}

// The tables: each figure of a scenario, and how it is written.
var shown = []struct{ scenario, title, figure, format string }{
	{"produce-1k", "produce 1 KiB, 6 partitions", "records/s", "%.0f"},
	{"produce-1k", "", "MiB/s", "%.1f"},
	{"produce-1k", "", "broker CPU ns/B", "%.1f"},
	{"produce-1k", "", "load CPU ns/B", "%.1f"},
	{"produce-100", "produce 100 B, 6 partitions", "records/s", "%.0f"},
	{"produce-100", "", "MiB/s", "%.1f"},
	{"produce-100", "", "broker CPU ns/B", "%.1f"},
	{"produce-100", "", "load CPU ns/B", "%.1f"},
	{"produce-100p", "produce 1 KiB, 100 partitions", "records/s", "%.0f"},
	{"produce-100p", "", "MiB/s", "%.1f"},
	{"produce-100p", "", "broker CPU ns/B", "%.1f"},
	{"latency", "latency at 20 % of Kafka's peak", "records/s", "%.0f"},
	{"latency", "", "p50 ms", "%.2f"},
	{"latency", "", "p99 ms", "%.2f"},
	{"latency", "", "p99.9 ms", "%.2f"},
	{"consume-1", "consume, 1 consumer", "MiB/s", "%.0f"},
	{"consume-1", "", "broker CPU ns/B", "%.2f"},
	{"consume-1", "", "load CPU ns/B", "%.2f"},
	{"consume-10", "consume, 10 consumers together", "MiB/s", "%.0f"},
	{"consume-10", "", "broker CPU ns/B", "%.2f"},
	{"consume-10", "", "load CPU ns/B", "%.2f"},
	{"consume-1-raw", "consume without decoding, 1", "MiB/s", "%.0f"},
	{"consume-1-raw", "", "broker CPU ns/B", "%.2f"},
	{"consume-10-raw", "consume without decoding, 10", "MiB/s", "%.0f"},
	{"consume-10-raw", "", "broker CPU ns/B", "%.2f"},
	{"e2e", "end to end, 1,000 records/s", "p50 ms", "%.2f"},
	{"e2e", "", "p99 ms", "%.2f"},
	{"e2e", "", "max ms", "%.1f"},
	{"start", "start to first acknowledgement", "ms", "%.0f"},
	{"failover", "kill -9 of a leader to the next acknowledgement", "ms", "%.0f"},
	{"memory", "largest broker", "idle MiB", "%.0f"},
	{"memory", "", "peak MiB", "%.0f"},
	{"idle-1000", "1,000 partitions × 3, idle, the busiest broker", "% of a core", "%.1f"},
	{"idle-1000", "", "MiB", "%.0f"},
	{"restart", "kill -9 of all to the next acknowledgement", "GiB on a disk", "%.1f"},
	{"restart", "", "ms", "%.0f"},
}

// report is the section for BENCHMARKS.md.
func (c *comparison) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## Side by side\n\nThree brokers each, on one machine, one system at a time; %d rounds in alternating order; medians, in parentheses the lowest and highest round.\n\n", c.rounds)
	for _, line := range machine(c.root) {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	fmt.Fprintf(&b, "- %s · %s · %s · %s · %s\n", c.millrace.version(), c.kafka.version(), c.nats.version(), runtime.Version(), javaVersion())
	fmt.Fprintf(&b, "- %s, measurements of %v, replication 3, acks=all; the load is %d producers of franz-go (nats.go for NATS), which share the machine\n", time.Now().UTC().Format("2006-01-02"), c.seconds, loadClients)
	for _, v := range []string{"millrace", "millrace relaxed", "kafka", "kafka fsync", "nats"} {
		fmt.Fprintf(&b, "- *%s*: an acknowledgement means %s\n", v, durability[v])
	}
	rows := [][]string{{"what", "measured", "wanted", ""}}
	for _, d := range c.demands() {
		rows = append(rows, d.row())
	}
	fmt.Fprintf(&b, "\n%s\n", table(rows))
	columns := []string{"millrace", "millrace relaxed", "kafka", "kafka fsync", "nats", "writev"}
	rows = [][]string{append([]string{"", ""}, columns...)}
	for _, s := range shown {
		row := []string{s.title, s.figure}
		any := false
		for _, column := range columns {
			v := c.sample(s.scenario, column, s.figure)
			any = any || len(v) > 0
			row = append(row, v.cell(s.format))
		}
		if any {
			rows = append(rows, row)
		}
	}
	b.WriteString(table(rows))
	for _, n := range c.notes {
		fmt.Fprintf(&b, "\nNot as it should be: %s\n", strings.ReplaceAll(n, "\n", " "))
	}
	return b.String()
}

// javaVersion is what the installed Java calls itself.
func javaVersion() string {
	out, err := exec.Command("java", "-version").CombinedOutput()
	if err != nil {
		return "no java"
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.ReplaceAll(first, "\"", "")
}
