package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"millrace/cli/load"
	"millrace/peers/cluster"
	"millrace/peers/process"
	"millrace/peers/report"
)

// A variant is a system with the settings of topics it is measured with.
type variant struct {
	name    string
	system  cluster.System
	fsync   string // when a record is fsynced, for the tables
	configs []string
}

var (
	millraceDefault = variant{"millrace", cluster.Millrace, "before every ack", nil}
	millraceRelaxed = variant{"millrace relaxed", cluster.Millrace, "every second", []string{"flush.messages=9223372036854775807", "flush.ms=1000"}}
	kafkaDefault    = variant{"kafka", cluster.Kafka, "none", nil}
	kafkaFsync      = variant{"kafka fsync", cluster.Kafka, "before every ack", []string{"flush.messages=1"}}
	natsDefault     = variant{"nats", cluster.NATS, "every 2 minutes", nil}

	variants = []variant{millraceDefault, millraceRelaxed, kafkaDefault, kafkaFsync, natsDefault}
)

// variantsOf lists those of a system, the default first.
func variantsOf(s cluster.System) (all []variant) {
	for _, v := range variants {
		if v.system == s {
			all = append(all, v)
		}
	}
	return all
}

// A bench is one load, for whichever system.
type bench struct {
	kind       string // produce, consume or e2e
	topic      string // "": one of its own
	partitions int
	size       int // bytes of a record
	producers  int
	consumers  int
	rate       float64 // records a second; 0: as fast as possible
	records    int64   // instead of a duration
	seconds    float64
	warmUp     float64 // seconds
	noLinger   bool    // send each record at once
	raw        bool    // consume without decoding
	keep       bool    // the topic
	exists     bool    // the topic, already

	// For Millrace and Kafka alone.
	configs   []string // of a topic that is made, besides the variant's
	batchSize int      // bytes of the largest batch; 0: the client's default
	inFlight  int      // records of a producer, at most; 0: the default
}

// command is the program that makes the load: `millrace bench` for everything
// that speaks Kafka's protocol, this program for NATS.
func (b bench) command(s *session, v variant) (*exec.Cmd, error) {
	var args []string
	add := func(name string, value any) { args = append(args, name, fmt.Sprint(value)) }
	topic := b.topic
	if v.system == cluster.NATS {
		if topic == "" {
			topic = "bench"
		}
		add("-b", s.cluster.Servers())
		add("-p", b.partitions)
	} else {
		add("-b", strings.Join(s.cluster.Addresses(), ","))
		add("-o", "json")
		if !b.exists {
			add("-p", b.partitions)
			add("-r", cluster.Size)
			for _, c := range slices.Concat([]string{"min.insync.replicas=2"}, v.configs, b.configs) {
				add("-c", c)
			}
		}
		if b.batchSize > 0 {
			add("--batch-size", b.batchSize)
		}
		if b.inFlight > 0 {
			add("--in-flight", b.inFlight)
		}
	}
	if topic != "" {
		add("-t", topic)
	}
	if b.keep {
		args = append(args, "--keep")
	}
	if b.kind == "consume" {
		add("--consumers", max(b.consumers, 1))
		if v.system != cluster.NATS {
			add("--rounds", 1000) // more than there is time for
		}
		if b.raw {
			args = append(args, "--raw")
		}
	} else {
		add("--producers", b.producers)
		add("--size", b.size)
		if b.rate > 0 {
			rate := fmt.Sprintf("%.0f", b.rate)
			if v.system != cluster.NATS {
				rate += "/s"
			}
			add("--rate", rate)
		}
		if b.noLinger && v.system != cluster.NATS { // whose client never lingers
			add("--linger", "0s")
		}
		add("--warm-up", fmt.Sprint(b.warmUp, "s"))
	}
	if b.records > 0 {
		add("-n", b.records)
	} else {
		add("--duration", fmt.Sprint(b.seconds, "s"))
	}
	if v.system != cluster.NATS {
		return exec.Command(s.programs.Millrace, append([]string{"bench", b.kind}, args...)...), nil
	}
	self, err := os.Executable()
	return exec.Command(self, append([]string{"nats-bench", b.kind}, args...)...), err
}

// run makes a load, and says what the servers and the loader took for it.
func (b bench) run(ctx context.Context, s *session, v variant) (*load.Result, usage, error) {
	var u usage
	cmd, err := b.command(s, v)
	if err != nil {
		return nil, u, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Env = append(os.Environ(), s.environment...)
	// What was written before is not this load's to write back.
	if err := syncFilesystem(s.dir); err != nil {
		return nil, u, err
	}
	limit := time.Duration((b.seconds+b.warmUp)*float64(time.Second)) + 2*time.Minute
	if b.records > 0 {
		limit = 30 * time.Minute
	}
	patience, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	before, err := s.cluster.CPU()
	if err != nil {
		return nil, u, err
	}
	stolen := stolenTime()
	u.loader, err = process.Run(patience, cmd)
	u.stolen = stolenTime() - stolen
	if err != nil {
		if ended := s.cluster.Check(); ended != nil {
			err = ended
		}
		return nil, u, err
	}
	after, err := s.cluster.CPU()
	if err != nil {
		return nil, u, err
	}
	for i := range after {
		u.servers += after[i] - before[i]
	}
	_, own, _ := s.cluster.Memory()
	s.own, s.loaded = max(s.own, own), true
	r := new(load.Result)
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, u, fmt.Errorf("%s: %w", cmd.Args[0], err)
	}
	switch {
	case r.Errors > 0:
		return r, u, fmt.Errorf("%d records failed, the first: %s", r.Errors, r.FirstError)
	case r.Unacknowledged > 0:
		return r, u, fmt.Errorf("%d records were not acknowledged: %s", r.Unacknowledged, r.FirstError)
	case r.Lost > 0:
		return r, u, fmt.Errorf("%d records were acknowledged and not received", r.Lost)
	}
	return r, u, nil
}

// usage is the CPU time a load took.
type usage struct {
	servers time.Duration // all brokers together
	loader  time.Duration
	stolen  time.Duration // processor time that the host gave to others meanwhile
}

// measure makes a load and enters its figures into a row.
func (s *session) measure(ctx context.Context, scenario, row string, v variant, b bench) error {
	r, u, err := b.run(ctx, s, v)
	if err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	if r.Records == 0 {
		return fmt.Errorf("%s: no record came through in the time that counts", row)
	}
	add := func(metric string, value float64) {
		s.figures.Add(report.Key{Scenario: scenario, Row: row, Metric: metric}, value)
	}
	add("records", r.RecordsPerSecond)
	add("mib", r.MiBPerSecond)
	if r.Latency != nil {
		add("p50", r.Latency.P50)
		add("p99", r.Latency.P99)
		add("p999", r.Latency.P999)
	}
	if r.Unsent > 0 {
		add("unsent", float64(r.Unsent))
	}
	add("servers", u.servers.Seconds())
	add("loader", u.loader.Seconds())
	add("stolen", u.stolen.Seconds())
	said := fmt.Sprintf("%s records/s, %s MiB/s", report.Number(r.RecordsPerSecond), report.Number(r.MiBPerSecond))
	if r.Latency != nil {
		said += fmt.Sprintf(", p50 %s ms, p99 %s ms", report.Number(r.Latency.P50), report.Number(r.Latency.P99))
	}
	s.say("%s: %s: %s; servers %.1f, loader %.1f, stolen %.2f CPU s", scenario, row, said, u.servers.Seconds(), u.loader.Seconds(), u.stolen.Seconds())
	return nil
}
