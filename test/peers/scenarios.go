package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"millrace/peers/cluster"
	"millrace/peers/report"
)

// A scenario is one comparison: what is done to a cluster, how the figures are
// shown, and what Millrace is held against.
type scenario struct {
	name, title string
	about       func(o *options) string // what exactly is done
	phase       int                     // phases follow each other, each with all its rounds
	systems     []cluster.System        // on which it is run
	// run runs it once on a cluster of one of the systems; nil: the figures come
	// about by themselves.
	run func(ctx context.Context, s *session) error
	// seconds estimates a run.
	seconds func(o *options, s cluster.System) float64
	note    string // the header of the rows' notes; "": rows have none
	rows    []report.Row
	columns []report.Column
	wants   []report.Want
}

// The phases. What Kafka reaches in the first is what the second's rates are made
// from. The last has a cluster of its own, because it fills the disk.
const (
	throughput = iota
	everythingElse
	restart
	phases
)

var (
	all       = cluster.Systems
	kafkaLike = []cluster.System{cluster.Millrace, cluster.Kafka}

	throughputColumns = []report.Column{{Header: "records/s", Metric: "records"}, {Header: "MiB/s", Metric: "mib"},
		{Header: "p50 ms", Metric: "p50"}, {Header: "p99 ms", Metric: "p99"}, {Header: "brokers' CPU s", Metric: "servers"}, {Header: "loader's CPU s", Metric: "loader"}}
	latencyColumns = []report.Column{{Header: "records/s", Metric: "records"}, {Header: "p50 ms", Metric: "p50"}, {Header: "p99 ms", Metric: "p99"},
		{Header: "p99.9 ms", Metric: "p999"}, {Header: "records not sent in time", Metric: "unsent"},
		{Header: "brokers' CPU s", Metric: "servers"}, {Header: "loader's CPU s", Metric: "loader"}, {Header: "stolen CPU s", Metric: "stolen"}}
)

// variantRows are the rows of a table that has one for each variant.
func variantRows() (rows []report.Row) {
	for _, v := range variants {
		rows = append(rows, report.Row{Name: v.name, Note: v.fsync})
	}
	return rows
}

// times is a want of a ratio of two rows.
func times(scenario, metric, unit, of, to string, atLeast bool, bound float64) report.Want {
	return report.Want{What: fmt.Sprintf("%s, %s / %s", unit, of, to), Of: report.Key{Scenario: scenario, Row: of, Metric: metric},
		To: report.Key{Scenario: scenario, Row: to, Metric: metric}, AtLeast: atLeast, Bound: bound}
}

// below is a want of a figure of Millrace's.
func below(scenario, metric, what string, strict bool, bound float64, unit string) report.Want {
	return report.Want{What: what + ", millrace", Of: report.Key{Scenario: scenario, Row: "millrace", Metric: metric}, Strict: strict, Bound: bound, Unit: unit}
}

// scenarios lists all, in the order of the report.
func scenarios() []*scenario {
	return []*scenario{
		producing("produce-1k", "1 KiB records to 6 partitions", 1024, 6, all,
			times("produce-1k", "records", "records/s", "millrace", "kafka", true, 1.5),
			times("produce-1k", "records", "records/s", "millrace", "nats", true, 2.5)),
		producing("produce-100b", "100 B records to 6 partitions", 100, 6, all,
			times("produce-100b", "records", "records/s", "millrace", "kafka", true, 1.5),
			times("produce-100b", "records", "records/s", "millrace", "nats", true, 10)),
		producing("produce-1k-100p", "1 KiB records to 100 partitions", 1024, 100, kafkaLike,
			times("produce-1k-100p", "records", "records/s", "millrace", "kafka", true, 1.5)),
		{
			name: "latency", title: "Latency at a fifth of what Kafka can do", phase: everythingElse, systems: all, run: runLatency,
			about: func(o *options) string {
				return fmt.Sprintf("1 KiB records to 6 partitions at 20 %% of the median that Kafka reached in produce-1k, by %d producers that send each record at once. A record's latency runs from the moment the rate has for it to its acknowledgement.", o.producers)
			},
			seconds: loads(func(s cluster.System) int { return len(variantsOf(s)) }),
			note:    "fsync", rows: variantRows(), columns: latencyColumns,
			wants: []report.Want{
				times("latency", "p50", "p50", "millrace", "kafka", false, 0.5),
				times("latency", "p99", "p99", "millrace", "kafka", false, 0.5),
			},
		},
		consuming("consume-1", "One consumer reads cached records", 1),
		consuming("consume-10", "Ten consumers read cached records", 10),
		{
			name: "e2e", title: "End to end at 1,000 records/s", phase: everythingElse, systems: all, run: runEndToEnd,
			about: func(*options) string {
				return "1 KiB records to 6 partitions at 1,000 a second by one producer that sends each at once, read by one consumer in the same process. A record's latency runs from the moment the rate has for it to its reception. Stolen is processor time that was wanted and that the host of the virtual machine gave to others."
			},
			seconds: loads(func(cluster.System) int { return 1 }),
			note:    "fsync", rows: variantRows(), columns: latencyColumns,
			wants: []report.Want{below("e2e", "p99", "p99", true, 5, "ms")},
		},
		{
			name: "memory", title: "Memory of a broker", phase: everythingElse, systems: all,
			about: func(*options) string {
				return "The broker that has most of it. Idle is what is resident two seconds after the first record was acknowledged, before any load. The peak (VmHWM) is that of a round's scenarios here, all but restart; it includes pages of files that are mapped, which Millrace reads records from and the kernel takes back when it needs them. Without them is what was seen after the loads (RssAnon)."
			},
			seconds: func(*options, cluster.System) float64 { return 0 },
			rows:    []report.Row{{Name: "millrace"}, {Name: "kafka"}, {Name: "nats"}},
			columns: []report.Column{{Header: "idle MiB", Metric: "idle"}, {Header: "peak MiB", Metric: "peak"}, {Header: "of it without files MiB", Metric: "own"}},
			wants: []report.Want{
				times("memory", "peak", "peak", "millrace", "kafka", false, 0.25),
				below("memory", "idle", "idle", true, 64e6/(1<<20), "MiB (64 MB)"),
			},
		},
		{
			name: "start", title: "Start of three brokers on empty folders", phase: throughput, systems: all,
			about: func(*options) string {
				return "To the first record that a topic with three replicas acknowledges, asked for every 5 ms. Kafka's folders were formatted before, which took it seconds more."
			},
			seconds: func(*options, cluster.System) float64 { return 0 },
			rows:    []report.Row{{Name: "millrace"}, {Name: "kafka"}, {Name: "nats"}},
			columns: []report.Column{{Header: "s", Metric: "seconds"}},
			wants:   []report.Want{times("start", "seconds", "time", "millrace", "kafka", false, 0.2)},
		},
		{
			name: "failover", title: "Failover after kill -9", phase: everythingElse, systems: kafkaLike, run: runFailover,
			about: func(o *options) string {
				return fmt.Sprintf("From the SIGKILL of the broker that leads a partition to the next acknowledgement from that partition, asked for every 5 ms of whichever broker is said to lead. Then the broker is started again and everything in sync before the next kill: %d a round of Millrace, %d of Kafka.", o.kills, o.kafkaKills)
			},
			seconds: func(o *options, s cluster.System) float64 {
				if s == cluster.Kafka {
					return 20 * float64(o.kafkaKills)
				}
				return 6 * float64(o.kills)
			},
			rows:    []report.Row{{Name: "millrace"}, {Name: "kafka"}},
			columns: []report.Column{{Header: "ms", Metric: "millis"}, {Header: "kills", Metric: "kills"}},
			wants: []report.Want{
				below("failover", "millis", "p50", true, 150, "ms"),
				times("failover", "millis", "p50", "millrace", "kafka", false, 1.0/20),
			},
		},
		{
			name: "partitions", title: "Many idle partitions", phase: everythingElse, systems: kafkaLike, run: runPartitions,
			about: func(o *options) string {
				return fmt.Sprintf("A topic of %d partitions with three replicas, in which nothing happens: CPU of a broker, in per cent of a core, once it has settled for %s s. Most is the broker that takes most.", o.partitions, report.Number(settleSeconds(o)))
			},
			seconds: func(o *options, s cluster.System) float64 {
				return settleSeconds(o) + o.seconds + float64(o.partitions)/50
			},
			rows:    []report.Row{{Name: "millrace"}, {Name: "kafka"}},
			columns: []report.Column{{Header: "mean %", Metric: "mean"}, {Header: "most %", Metric: "most"}},
			wants:   []report.Want{below("partitions", "most", "CPU of a broker", false, 3, "% of a core")},
		},
		{
			name: "restart", title: "Restart after kill -9 of all three", phase: restart, systems: kafkaLike, run: runRestart,
			about: func(o *options) string {
				return fmt.Sprintf("%s GiB of 1 KiB records in 6 partitions with three replicas, so as much on each broker. All three are killed with SIGKILL and started again: until every partition has acknowledged a record. What they wrote may still be in the page cache. Once, not in every round.", report.Number(float64(o.restartBytes)/(1<<30)))
			},
			seconds: func(o *options, s cluster.System) float64 { return 30 + 3*float64(o.restartBytes)/(150<<20) },
			rows:    []report.Row{{Name: "millrace"}, {Name: "kafka"}},
			columns: []report.Column{{Header: "s", Metric: "seconds"}, {Header: "GiB a broker", Metric: "gib"}, {Header: "files a broker", Metric: "files"}},
			wants:   []report.Want{below("restart", "seconds", "time", false, 3, "s")},
		},
	}
}

// loads estimates so many loads of the usual length.
func loads(n func(cluster.System) int) func(*options, cluster.System) float64 {
	return func(o *options, s cluster.System) float64 { return float64(n(s)) * (o.seconds + o.warmUp + 1.5) }
}

// producing is a scenario of producers that send as fast as they can.
func producing(name, title string, size, partitions int, systems []cluster.System, wants ...report.Want) *scenario {
	return &scenario{
		name: name, title: "Producing " + title, phase: throughput, systems: systems,
		about: func(o *options) string {
			return fmt.Sprintf("%d producers with a connection to each broker send as fast as they can, with acks=all to three replicas, two of which are enough. Latencies are mostly the time spent in the producers' own queues.", o.producers)
		},
		run: func(ctx context.Context, s *session) error {
			return s.each(func(v variant) error {
				return s.measure(ctx, name, v.name, v, bench{kind: "produce", partitions: partitions, size: size,
					producers: s.o.producers, records: s.o.records, inFlight: s.o.inFlight, seconds: s.o.seconds, warmUp: s.o.warmUp})
			})
		},
		seconds: loads(func(s cluster.System) int { return len(variantsOf(s)) }),
		note:    "fsync", rows: variantRows(), columns: throughputColumns, wants: wants,
	}
}

// each runs f for all variants of the session's system, in the order of the
// round. The first error is returned after all have had their turn.
func (s *session) each(f func(variant) error) (first error) {
	all := variantsOf(s.cluster.System)
	if s.round%2 == 0 {
		slices.Reverse(all)
	}
	for _, v := range all {
		if err := f(v); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func runLatency(ctx context.Context, s *session) error {
	rate := 0.2 * s.peak()
	if rate == 0 {
		return fmt.Errorf("what Kafka can do is not known: measure produce-1k with it, or say it with -peak")
	}
	return s.each(func(v variant) error {
		return s.measure(ctx, "latency", v.name, v, bench{kind: "produce", partitions: 6, size: 1024, producers: s.o.producers,
			rate: rate, noLinger: true, seconds: s.o.seconds, warmUp: s.o.warmUp})
	})
}

// peak is Kafka's throughput in produce-1k, records a second; 0: not known.
func (s *session) peak() float64 {
	if s.o.peak > 0 {
		return s.o.peak
	}
	return report.Summarize(s.figures.Of(report.Key{Scenario: "produce-1k", Row: kafkaDefault.name, Metric: "records"})).Median
}

func runEndToEnd(ctx context.Context, s *session) error {
	v := variantsOf(s.cluster.System)[0]
	return s.measure(ctx, "e2e", v.name, v, bench{kind: "e2e", partitions: 6, size: 1024, producers: 1,
		rate: 1000, noLinger: true, seconds: s.o.seconds, warmUp: s.o.warmUp})
}

func consuming(name, title string, consumers int) *scenario {
	raw := func(v string) string { return v + ", not decoded" }
	mibRatio := func(of, to string, bound float64) report.Want {
		return times(name, "mib", "MiB/s", of, to, true, bound)
	}
	return &scenario{
		name: name, title: title, phase: everythingElse, systems: all,
		about: func(o *options) string {
			return fmt.Sprintf("A topic of 6 partitions, filled with %s MiB of 1 KiB records just before; everybody reads everything, over and over. Not decoded: fetch requests are sent and their answers only counted. writev, sendfile: one process sends a file of the same size by that call, writev a mapped one, another discards it, over as many connections of loopback.", report.Number(float64(o.fill)/(1<<20)))
		},
		run: func(ctx context.Context, s *session) error {
			v := variantsOf(s.cluster.System)[0]
			const topic = "consume"
			if !s.filled {
				s.say("filling a topic to consume")
				if _, _, err := (bench{kind: "produce", topic: topic, keep: true, partitions: 6, size: 1024, producers: 1, records: s.o.fill / 1024}).run(ctx, s, v); err != nil {
					return fmt.Errorf("fill: %w", err)
				}
				s.filled = true
			}
			read := func(row string, b bench) error {
				b.kind, b.topic, b.exists, b.keep, b.partitions, b.consumers = "consume", topic, true, true, 6, consumers
				// Once for nothing: nobody starts warm.
				b.seconds = max(s.o.warmUp, 0.2)
				if _, _, err := b.run(ctx, s, v); err != nil {
					return fmt.Errorf("%s: %w", row, err)
				}
				b.seconds = s.o.seconds
				return s.measure(ctx, name, row, v, b)
			}
			err := read(v.name, bench{})
			if v.system == cluster.NATS {
				return err
			}
			if e := read(raw(v.name), bench{raw: true}); err == nil {
				err = e
			}
			return err
		},
		seconds: func(o *options, s cluster.System) float64 {
			n := 2.0
			if s == cluster.NATS {
				n = 1
			}
			return n*(o.seconds+o.warmUp+3) + float64(o.fill)/(200<<20) + 2*o.seconds/float64(len(all))
		},
		rows: []report.Row{{Name: "millrace"}, {Name: "kafka"}, {Name: "nats"}, {Name: raw("millrace")}, {Name: raw("kafka")}, {Name: writev}, {Name: sendfile}},
		columns: []report.Column{{Header: "records/s", Metric: "records"}, {Header: "MiB/s", Metric: "mib"},
			{Header: "brokers' CPU s", Metric: "servers"}, {Header: "loader's CPU s", Metric: "loader"}},
		wants: []report.Want{
			mibRatio("millrace", "kafka", 1.2),
			mibRatio(raw("millrace"), raw("kafka"), 1.2),
			mibRatio(raw("millrace"), writev, 0.5),
		},
	}
}

// runLimits measures what the system calls alone reach, for the consume scenarios
// that are to be run, with no broker running.
func (r *run) runLimits(ctx context.Context) error {
	for name, readers := range map[string]int{"consume-1": 1, "consume-10": 10} {
		if !r.wanted(name) {
			continue
		}
		for _, call := range []string{writev, sendfile} {
			mib, err := limit(ctx, call, r.dir, r.o.fill, readers, time.Duration(r.o.seconds*float64(time.Second)))
			if err != nil {
				return fmt.Errorf("%s: %w", call, err)
			}
			r.figures.Add(report.Key{Scenario: name, Row: call, Metric: "mib"}, mib)
			r.say("%s: %s: %s MiB/s", name, call, report.Number(mib))
		}
	}
	return nil
}

func runFailover(ctx context.Context, s *session) error {
	const topic = "failover"
	row := string(s.cluster.System)
	p, err := s.cluster.Probe()
	if err != nil {
		return err
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := p.CreateTopic(ctx, topic, 1); err != nil {
		return err
	}
	kills := s.o.kills
	if s.cluster.System == cluster.Kafka {
		kills = s.o.kafkaKills
	}
	for range kills {
		if err := p.AwaitInSync(ctx, topic, 1); err != nil {
			return err
		}
		if err := p.Produce(ctx, topic, 0); err != nil {
			return err
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
		leader, err := p.Leader(ctx, topic, 0)
		if err != nil {
			return err
		}
		begin := time.Now()
		dead := make(chan struct{})
		go func() { leader.Kill(); close(dead) }() // ends with the broker
		err = p.Produce(ctx, topic, 0)
		took := time.Since(begin)
		<-dead
		if err != nil {
			return err
		}
		s.figures.Add(report.Key{Scenario: "failover", Row: row, Metric: "millis"}, float64(took)/1e6)
		s.say("failover: %s: %.1f ms", row, float64(took)/1e6)
		if err := leader.Start(); err != nil {
			return err
		}
	}
	s.figures.Add(report.Key{Scenario: "failover", Row: row, Metric: "kills"}, float64(kills))
	return p.AwaitInSync(ctx, topic, 1)
}

// settleSeconds is how long partitions are left alone before their cost counts.
func settleSeconds(o *options) float64 { return min(15, 3*o.seconds) }

func runPartitions(ctx context.Context, s *session) error {
	const topic = "many"
	row := string(s.cluster.System)
	percent, err := s.idleCost(ctx, topic, s.o.partitions)
	if err != nil {
		return err
	}
	mean := 0.0
	for _, p := range percent {
		mean += p / float64(len(percent))
	}
	most := slices.Max(percent)
	s.figures.Add(report.Key{Scenario: "partitions", Row: row, Metric: "mean"}, mean)
	s.figures.Add(report.Key{Scenario: "partitions", Row: row, Metric: "most"}, most)
	s.say("partitions: %s: %.2f %% of a core a broker, %.2f %% the most", row, mean, most)
	return nil
}

// idleCost makes a topic of so many partitions and returns what each broker takes
// while nothing happens, in per cent of a core.
func (s *session) idleCost(ctx context.Context, topic string, partitions int) (percent []float64, err error) {
	p, err := s.cluster.Probe()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	s.say("making %d partitions", partitions)
	setUp, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := p.CreateTopic(setUp, topic, partitions); err != nil {
		return nil, err
	}
	if err := p.AwaitInSync(setUp, topic, partitions); err != nil {
		return nil, err
	}
	if err := sleep(ctx, time.Duration(settleSeconds(s.o)*float64(time.Second))); err != nil {
		return nil, err
	}
	before, err := s.cluster.CPU()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := sleep(ctx, time.Duration(s.o.seconds*float64(time.Second))); err != nil {
		return nil, err
	}
	after, err := s.cluster.CPU()
	if err != nil {
		return nil, err
	}
	took := time.Since(begin)
	for i := range after {
		percent = append(percent, 100*float64(after[i]-before[i])/float64(took))
	}
	return percent, nil
}

func runRestart(ctx context.Context, s *session) error {
	row := string(s.cluster.System)
	seconds, gib, files, err := s.restart(ctx, s.o.restartBytes)
	if err != nil {
		return err
	}
	for metric, value := range map[string]float64{"seconds": seconds, "gib": gib, "files": files} {
		s.figures.Add(report.Key{Scenario: "restart", Row: row, Metric: metric}, value)
	}
	s.say("restart: %s: %.2f s with %.2f GiB in %.0f files a broker", row, seconds, gib, files)
	return nil
}

// restart fills a topic with so many bytes on each broker and says how long it
// takes to serve it again, and what a broker had on disk.
func (s *session) restart(ctx context.Context, bytes int64) (seconds, gib, files float64, err error) {
	const topic = "restart"
	if err := s.fill(ctx, bytes, bench{topic: topic}); err != nil {
		return 0, 0, 0, err
	}
	return s.crash(ctx, topic)
}

// filledPartitions is how many partitions a topic has that fill makes.
const filledPartitions = 6

// fill adds so many bytes of 1 KiB records to a topic, on each broker.
func (s *session) fill(ctx context.Context, bytes int64, b bench) error {
	free, err := freeBytes(s.dir)
	if err != nil {
		return err
	}
	// A twelfth more than the records, for what is around them, and room to breathe.
	if need := bytes*cluster.Size*13/12 + 1<<30; free < need {
		return fmt.Errorf("it needs %s GiB of disk and there are %s", report.Number(float64(need)/(1<<30)), report.Number(float64(free)/(1<<30)))
	}
	s.say("filling %s GiB a broker", report.Number(float64(bytes)/(1<<30)))
	b.kind, b.keep, b.partitions, b.size, b.producers, b.records = "produce", true, filledPartitions, 1024, s.o.producers, bytes/1024
	if _, _, err := b.run(ctx, s, variantsOf(s.cluster.System)[0]); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	return syncFilesystem(s.dir)
}

// crash kills all brokers and starts them again: how long it takes until every
// partition of a filled topic has acknowledged a record, and what the first
// broker had on disk.
func (s *session) crash(ctx context.Context, topic string) (seconds, gib, files float64, err error) {
	s.cluster.Kill()
	size, count, err := s.cluster.Brokers[0].OnDisk()
	if err != nil {
		return 0, 0, 0, err
	}
	p, err := s.cluster.Probe()
	if err != nil {
		return 0, 0, 0, err
	}
	defer p.Close()
	patience, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	begin := time.Now()
	if err := s.cluster.Start(ctx); err != nil {
		return 0, 0, 0, err
	}
	for i := range filledPartitions {
		if err := p.Produce(patience, topic, i); err != nil {
			if ended := s.cluster.Check(); ended != nil {
				err = ended
			}
			return 0, 0, 0, err
		}
	}
	return time.Since(begin).Seconds(), float64(size) / (1 << 30), float64(count), nil
}

// sleep sleeps until the time is over or ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
