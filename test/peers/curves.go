package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"millrace/peers/cluster"
	"millrace/peers/report"
)

// A curve is one quantity varied, Millrace measured at each of its values.
type curve struct {
	name, title string
	about       func(o *curveOptions) string
	x           string                          // the quantity, with its unit
	at          func(o *curveOptions) []float64 // its values, ascending
	// measure measures at one value. The cluster is new for the first of them.
	measure func(ctx context.Context, s *session, o *curveOptions, x float64, add func(metric string, value float64)) error
	fresh   bool // it is new for each
	metrics []report.Column
	charts  []chart
}

// A chart is some of a curve's metrics that have a unit in common.
type chart struct {
	y, suffix string
	metrics   []report.Column
}

// curveOptions is what a run of curves is asked for.
type curveOptions struct {
	options
	maxPartitions int
	maxProducers  int
	maxConsumers  int
	disk          []float64 // GiB on each broker
	svg           string    // the folder of the drawings
}

const curvesHelp = `peers curves [flags]

Measures how Millrace scales and prints tables as Markdown; with -o, writes them
into the section "curves" of a file. Draws the curves into the files of a folder.
Run it on a machine that does nothing else.

`

// inFlightBytes bounds what all producers together have sent and not heard of, so
// that many of them differ from few by their number alone.
const inFlightBytes = 160 << 20

// Bytes of a batch around a record of the largest size.
const roomAround = 64 << 10

var recordsAndMiB = []report.Column{{Header: "records/s", Metric: "records"}, {Header: "MiB/s", Metric: "mib"},
	{Header: "p99 ms", Metric: "p99"}, {Header: "brokers' CPU s", Metric: "servers"}, {Header: "loader's CPU s", Metric: "loader"}}

func curves() []*curve {
	// load measures a load, at whatever the value makes of it.
	load := func(of func(o *curveOptions, x float64) bench) func(context.Context, *session, *curveOptions, float64, func(string, float64)) error {
		return func(ctx context.Context, s *session, o *curveOptions, x float64, add func(string, float64)) error {
			b := of(o, x)
			b.kind, b.seconds, b.warmUp = "produce", o.seconds, o.warmUp
			b.inFlight = max(1, min(100_000, inFlightBytes/b.producers/b.size))
			return s.curveLoad(ctx, b, "", add)
		}
	}
	upTo := func(values []float64, most int) []float64 {
		return slices.DeleteFunc(values, func(v float64) bool { return v > float64(most) })
	}
	perSecond := []report.Column{{Header: "records/s", Metric: "records"}}
	return []*curve{
		{
			name: "partitions", title: "Throughput against partitions", x: "partitions",
			about: func(o *curveOptions) string {
				return fmt.Sprintf("%d producers, 1 KiB records, as fast as they can.", o.producers)
			},
			at: func(o *curveOptions) []float64 { return upTo([]float64{1, 10, 100, 1000}, o.maxPartitions) },
			measure: load(func(o *curveOptions, x float64) bench {
				return bench{partitions: int(x), size: 1024, producers: o.producers}
			}),
			metrics: recordsAndMiB, charts: []chart{{"records/s", "", perSecond}},
		},
		{
			name: "producers", title: "Throughput against producers", x: "producers",
			about: func(*curveOptions) string {
				return "1 KiB records to 6 partitions, as fast as they can; at most 160 MiB in flight of all producers together."
			},
			at:      func(o *curveOptions) []float64 { return upTo([]float64{1, 10, 50, 200}, o.maxProducers) },
			measure: load(func(o *curveOptions, x float64) bench { return bench{partitions: 6, size: 1024, producers: int(x)} }),
			metrics: recordsAndMiB, charts: []chart{{"records/s", "", perSecond}},
		},
		{
			name: "record-size", title: "Throughput against the size of records", x: "bytes of a record",
			about: func(o *curveOptions) string {
				return fmt.Sprintf("%d producers to 6 partitions, as fast as they can. max.message.bytes is 2 MiB.", o.producers)
			},
			at: func(*curveOptions) []float64 { return []float64{100, 1 << 10, 10 << 10, 100 << 10, 1 << 20} },
			measure: load(func(o *curveOptions, x float64) bench {
				b := bench{partitions: 6, size: int(x), producers: o.producers, configs: []string{fmt.Sprint("max.message.bytes=", 2<<20)}}
				if x > 1e5 { // otherwise the client's batches are what they always are
					b.batchSize = 1<<20 + roomAround
				}
				return b
			}),
			metrics: recordsAndMiB,
			charts:  []chart{{"records/s", "", perSecond}, {"MiB/s", "-mib", []report.Column{{Header: "MiB/s", Metric: "mib"}}}},
		},
		{
			name: "consumers", title: "Consuming against consumers", x: "consumers",
			about: func(o *curveOptions) string {
				return fmt.Sprintf("Each reads all of a topic of 6 partitions with %s MiB of cached 1 KiB records, over and over; all of them together. Not decoded: fetch requests are sent and their answers only counted.", report.Number(float64(o.fill)/(1<<20)))
			},
			at: func(o *curveOptions) []float64 { return upTo([]float64{1, 10, 100}, o.maxConsumers) },
			measure: func(ctx context.Context, s *session, o *curveOptions, x float64, add func(string, float64)) error {
				if !s.filled {
					if err := s.fill(ctx, o.fill, bench{topic: "consume"}); err != nil {
						return err
					}
					s.filled = true
				}
				b := bench{kind: "consume", topic: "consume", exists: true, consumers: int(x), seconds: o.seconds}
				if err := s.curveLoad(ctx, b, "", add); err != nil {
					return err
				}
				b.raw = true
				return s.curveLoad(ctx, b, "raw ", add)
			},
			metrics: []report.Column{{Header: "records/s", Metric: "records"}, {Header: "MiB/s", Metric: "mib"}, {Header: "not decoded: records/s", Metric: "raw records"}, {Header: "MiB/s", Metric: "raw mib"}},
			charts:  []chart{{"MiB/s", "", []report.Column{{Header: "decoded", Metric: "mib"}, {Header: "not decoded", Metric: "raw mib"}}}},
		},
		{
			name: "topic-size", title: "Throughput against what is on disk", x: "GiB on each broker",
			about: func(o *curveOptions) string {
				return fmt.Sprintf("A topic of 6 partitions that has grown to this size: %d producers as fast as they can, then one consumer from its beginning on.", o.producers)
			},
			at: func(o *curveOptions) []float64 { return o.disk },
			measure: func(ctx context.Context, s *session, o *curveOptions, x float64, add func(string, float64)) error {
				const topic = "size"
				if err := s.grow(ctx, topic, x); err != nil {
					return err
				}
				before, _, err := s.cluster.Brokers[0].OnDisk()
				if err != nil {
					return err
				}
				add("gib", float64(before)/(1<<30))
				b := bench{kind: "produce", topic: topic, exists: true, keep: true, size: 1024, producers: o.producers, seconds: o.seconds, warmUp: o.warmUp}
				if err := s.curveLoad(ctx, b, "", add); err != nil {
					return err
				}
				return s.curveLoad(ctx, bench{kind: "consume", topic: topic, exists: true, consumers: 1, seconds: o.seconds}, "read ", add)
			},
			metrics: []report.Column{{Header: "GiB", Metric: "gib"}, {Header: "produced records/s", Metric: "records"}, {Header: "MiB/s", Metric: "mib"}, {Header: "p99 ms", Metric: "p99"}, {Header: "consumed records/s", Metric: "read records"}, {Header: "MiB/s", Metric: "read mib"}},
			charts:  []chart{{"records/s", "", []report.Column{{Header: "produced", Metric: "records"}, {Header: "consumed", Metric: "read records"}}}},
		},
		{
			name: "start-bytes", title: "Start-up against bytes on disk", x: "GiB on each broker",
			about: func(*curveOptions) string {
				return "All three brokers killed with SIGKILL and started again, until each of 6 partitions has acknowledged a record. What they wrote may still be in the page cache."
			},
			at: func(o *curveOptions) []float64 { return o.disk },
			measure: func(ctx context.Context, s *session, o *curveOptions, x float64, add func(string, float64)) error {
				const topic = "start"
				if err := s.grow(ctx, topic, x); err != nil {
					return err
				}
				return s.curveCrash(ctx, topic, add)
			},
			metrics: startMetrics, charts: startCharts,
		},
		{
			name: "start-segments", title: "Start-up against segments on disk", x: "segments on each broker",
			about: func(o *curveOptions) string {
				return fmt.Sprintf("The same with %s MiB of records on each broker, in ever smaller segments (segment.bytes).", report.Number(float64(o.fill)/(1<<20)))
			},
			at: func(o *curveOptions) (counts []float64) {
				for _, mib := range []int64{128, 16, 1} { // of a segment; 1 is the least a topic may have
					if n := o.fill / (mib << 20); n >= filledPartitions {
						counts = append(counts, float64(n))
					}
				}
				return counts
			},
			fresh: true,
			measure: func(ctx context.Context, s *session, o *curveOptions, x float64, add func(string, float64)) error {
				const topic = "start"
				bytes := int64(float64(o.fill) / x)
				if err := s.fill(ctx, o.fill, bench{topic: topic, configs: []string{fmt.Sprint("segment.bytes=", bytes)}}); err != nil {
					return err
				}
				return s.curveCrash(ctx, topic, add)
			},
			metrics: startMetrics, charts: startCharts,
		},
		{
			name: "idle", title: "Cost of idle partitions", x: "partitions",
			about: func(o *curveOptions) string {
				return fmt.Sprintf("Three replicas each, nothing happens. A broker's share of a core and its memory, once it has settled for %s s; of three brokers, the one that takes most.", report.Number(settleSeconds(&o.options)))
			},
			at:    func(o *curveOptions) []float64 { return upTo([]float64{1, 100, 1000}, o.maxPartitions) },
			fresh: true,
			measure: func(ctx context.Context, s *session, o *curveOptions, x float64, add func(string, float64)) error {
				percent, err := s.idleCost(ctx, "idle", int(x))
				if err != nil {
					return err
				}
				resident, _, _ := s.cluster.Memory()
				add("cpu", slices.Max(percent))
				add("memory", float64(resident)/(1<<20))
				s.say("idle: %s partitions: %.2f %% of a core, %.0f MiB", report.Number(x), slices.Max(percent), float64(resident)/(1<<20))
				return nil
			},
			metrics: []report.Column{{Header: "CPU, % of a core", Metric: "cpu"}, {Header: "resident MiB", Metric: "memory"}},
			charts: []chart{{"% of a core", "", []report.Column{{Header: "CPU", Metric: "cpu"}}},
				{"resident MiB", "-memory", []report.Column{{Header: "memory", Metric: "memory"}}}},
		},
	}
}

var (
	startMetrics = []report.Column{{Header: "s", Metric: "seconds"}, {Header: "GiB", Metric: "gib"}, {Header: "files", Metric: "files"}}
	startCharts  = []chart{{"seconds", "", []report.Column{{Header: "start-up", Metric: "seconds"}}}}
)

// curveLoad makes a load and adds its figures, their names begun as told.
func (s *session) curveLoad(ctx context.Context, b bench, prefix string, add func(string, float64)) error {
	r, u, err := b.run(ctx, s, millraceDefault)
	if err != nil {
		return err
	}
	if r.Records == 0 {
		return errors.New("no record came through in the time that counts")
	}
	add(prefix+"records", r.RecordsPerSecond)
	add(prefix+"mib", r.MiBPerSecond)
	if r.Latency != nil {
		add(prefix+"p99", r.Latency.P99)
	}
	add(prefix+"servers", u.servers.Seconds())
	add(prefix+"loader", u.loader.Seconds())
	s.say("%s%s records/s, %s MiB/s; servers %.1f, loader %.1f CPU s", prefix, report.Number(r.RecordsPerSecond), report.Number(r.MiBPerSecond), u.servers.Seconds(), u.loader.Seconds())
	return nil
}

// grow fills a topic until a broker has so many GiB on disk.
func (s *session) grow(ctx context.Context, topic string, gib float64) error {
	have, _, err := s.cluster.Brokers[0].OnDisk()
	if err != nil {
		return err
	}
	if missing := int64(gib*(1<<30)) - have; missing > 1<<20 {
		if err := s.fill(ctx, missing, bench{topic: topic, exists: s.filled}); err != nil {
			return err
		}
		s.filled = true
	}
	return nil
}

func (s *session) curveCrash(ctx context.Context, topic string, add func(string, float64)) error {
	seconds, gib, files, err := s.crash(ctx, topic)
	if err != nil {
		return err
	}
	add("seconds", seconds)
	add("gib", gib)
	add("files", files)
	s.say("started in %.2f s with %.2f GiB in %.0f files", seconds, gib, files)
	return nil
}

func runCurves(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := &curveOptions{options: options{systems: []cluster.System{cluster.Millrace}}}
	f := o.flags("curves", curvesHelp, stderr, defaults{rounds: 1, seconds: 10, warmUp: 2})
	fill := f.Int("fill", 1024, "`MiB` of a topic that is consumed, or kept in segments")
	f.IntVar(&o.maxPartitions, "max-partitions", 1000, "most partitions, `N`")
	f.IntVar(&o.maxProducers, "max-producers", 200, "most producers, `N`")
	f.IntVar(&o.maxConsumers, "max-consumers", 100, "most consumers, `N`")
	disk := f.String("disk", "0.1,1,4,10", "`GiB,…` on each broker, ascending")
	var all []string
	for _, c := range curves() {
		all = append(all, c.name)
	}
	only := f.String("only", "", "curves, `NAME,…`: "+strings.Join(all, ",")+" (all)")
	f.StringVar(&o.svg, "svg", "curves", "`DIR` for the drawings")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.quick {
		preset(f, map[string]string{"seconds": "0.5", "warm-up": "0.2", "producers": "2", "fill": "32", "max-partitions": "10", "max-producers": "10", "max-consumers": "10", "disk": "0.03,0.06"})
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q: everything is said by flags", f.Arg(0))
	}
	o.fill = int64(*fill) << 20
	for text := range strings.SplitSeq(*disk, ",") {
		var gib float64
		if _, err := fmt.Sscan(text, &gib); err != nil || gib <= 0 || len(o.disk) > 0 && gib <= o.disk[len(o.disk)-1] {
			return fmt.Errorf("-disk %q: they are GiB, ascending", *disk)
		}
		o.disk = append(o.disk, gib)
	}
	if o.rounds < 1 || o.seconds <= 0 || o.warmUp < 0 || o.producers < 1 || o.fill < 1<<20 || min(o.maxPartitions, o.maxProducers, o.maxConsumers) < 1 {
		return fmt.Errorf("-rounds, -seconds, -producers, -fill and what begins with -max are more than nothing")
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
		for _, name := range o.only {
			if !slices.Contains(all, name) {
				return fmt.Errorf("-only %q: curves are %s", name, strings.Join(all, ", "))
			}
		}
	}
	r := &run{o: &o.options, stderr: stderr, begin: time.Now()}
	return r.curves(ctx, o, stdout)
}

func (r *run) curves(ctx context.Context, o *curveOptions, stdout io.Writer) (err error) {
	done, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	defer done()
	if o.json != "" {
		defer func() { err = errors.Join(err, r.writeJSON()) }()
	}
	var wanted []*curve
	for _, c := range curves() {
		if r.wanted(c.name) {
			wanted = append(wanted, c)
		}
	}
	for round := 1; round <= o.rounds; round++ {
		for _, c := range wanted {
			if err := r.measureCurve(ctx, c, o, round); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(o.svg, 0o755); err != nil {
		return err
	}
	text, err := r.curvesMarkdown(wanted, o)
	if err != nil {
		return err
	}
	return r.publish("curves", text, stdout)
}

// measureCurve measures a curve at all its values, once.
func (r *run) measureCurve(ctx context.Context, c *curve, o *curveOptions, round int) error {
	at := c.at(o)
	points := func(s *session, values []float64) error {
		for _, x := range values {
			r.say("%s at %s, round %d of %d", c.name, report.Number(x), round, o.rounds)
			err := c.measure(ctx, s, o, x, func(metric string, value float64) {
				r.figures.Add(report.Key{Scenario: c.name, Row: report.Number(x), Metric: metric}, value)
			})
			if err := r.failed(ctx, fmt.Sprintf("%s at %s", c.name, report.Number(x)), err); err != nil {
				return err
			}
			if err := s.cluster.Check(); err != nil {
				return err
			}
		}
		return nil
	}
	on := func(values []float64) error {
		err := r.withCluster(ctx, cluster.Millrace, round, func(s *session) error { return points(s, values) })
		return r.failed(ctx, c.name, err)
	}
	if !c.fresh {
		return on(at)
	}
	for _, x := range at {
		if err := on([]float64{x}); err != nil {
			return err
		}
	}
	return nil
}

// curvesMarkdown draws the curves and writes the section.
func (r *run) curvesMarkdown(wanted []*curve, o *curveOptions) (string, error) {
	var b strings.Builder
	rounds := "once"
	if o.rounds > 1 {
		rounds = fmt.Sprintf("%d times, medians with the least and the most", o.rounds)
	}
	fmt.Fprintf(&b, "## How it scales\n\nWritten by `make curves` on %s, in %s: three brokers of Millrace as it comes, acks=all, every record fsynced before it is acknowledged. Everything is measured %s, %s s a load after %s s of warm-up.\n\n",
		r.begin.UTC().Format("2 January 2006"), clock(time.Since(r.begin)), rounds, report.Number(o.seconds), report.Number(o.warmUp))
	b.WriteString(r.machine.describe(r.programs))
	b.WriteString(r.notMeasured())
	for _, c := range wanted {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", c.title, c.about(o))
		var rows []report.Row
		at := c.at(o)
		for _, x := range at {
			rows = append(rows, report.Row{Name: report.Number(x)})
		}
		if table := (report.Table{Scenario: c.name, Head: c.x, Rows: rows, Columns: c.metrics}).Markdown(&r.figures); table != "" {
			fmt.Fprintf(&b, "\n%s", table)
		}
		for _, ch := range c.charts {
			drawing := report.Chart{Title: c.title, XLabel: c.x, YLabel: ch.y}
			for _, m := range ch.metrics {
				line := report.Line{Name: m.Header}
				for _, x := range at {
					line.Points = append(line.Points, report.Point{X: x, Y: report.Summarize(r.figures.Of(report.Key{Scenario: c.name, Row: report.Number(x), Metric: m.Metric}))})
				}
				drawing.Lines = append(drawing.Lines, line)
			}
			file := filepath.Join(o.svg, c.name+ch.suffix+".svg")
			if err := os.WriteFile(file, []byte(drawing.SVG()), 0o644); err != nil {
				return "", err
			}
			link, err := linkTo(o.output, file)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "\n![%s: %s against %s](%s)\n", c.title, ch.y, c.x, link)
		}
	}
	return b.String(), nil
}

// linkTo is where a file lies, seen from a document's folder; "" is a document in
// the present folder.
func linkTo(document, file string) (string, error) {
	from, err := filepath.Abs(filepath.Dir(document))
	if err != nil {
		return "", err
	}
	to, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	relative, err := filepath.Rel(from, to)
	return filepath.ToSlash(relative), err
}
