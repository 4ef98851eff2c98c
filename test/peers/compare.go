package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"millrace/peers/cluster"
	"millrace/peers/report"
)

// options is what a run is asked for.
type options struct {
	rounds       int
	seconds      float64 // a load that is measured
	warmUp       float64 // seconds of a load before anything counts
	producers    int
	records      int64 // of a load as fast as possible; 0: what there is time for
	inFlight     int   // records of a producer, at most; 0: as many as its client's default
	fill         int64 // bytes of a topic that is consumed
	kills        int   // of Millrace's brokers in a round
	kafkaKills   int
	partitions   int     // that are idle
	restartBytes int64   // on each broker
	peak         float64 // records/s of Kafka; 0: as measured

	systems []cluster.System
	only    []string // names of scenarios; nil: all
	quick   bool     // everything on one cluster of each system, one after the other
	dir     string   // where folders of data are made
	output  string   // a Markdown file; "": standard output
	json    string   // a file of all figures; "": none
}

// A run is a comparison going on.
type run struct {
	o         *options
	programs  *cluster.Programs
	machine   machine
	scenarios []*scenario // that are to be run
	figures   report.Figures
	peaks     map[life]memory
	dir       string // everything that is written meanwhile
	stderr    io.Writer
	begin     time.Time
	failures  []string
}

// A life is what a system does in one round, in clusters that follow each other.
type life struct {
	system cluster.System
	round  int
}

// memory is the most that a broker had, bytes; own is that of it which is no files.
type memory struct{ peak, own int64 }

// A session is one cluster in one round.
type session struct {
	*run
	cluster *cluster.Cluster
	round   int
	filled  bool  // the topic that is consumed
	loaded  bool  // there was a load
	own     int64 // the most memory without files that was seen, bytes

	environment []string // of the program that makes the load, besides this one's
}

const compareHelp = `peers compare [flags]

Starts three brokers of each system in turn, makes the same loads, and prints
medians, spreads and ratios as Markdown; with -o, writes them into the section
"compare" of a file. Systems take turns in alternating order. Run it on a machine
that does nothing else. It needs Java 17 or newer and, the first time, Maven.

`

// defaults are those of a command's loads.
type defaults struct {
	rounds          int
	seconds, warmUp float64
}

// flags begins the flags of a command with those that all have.
func (o *options) flags(command, help string, stderr io.Writer, d defaults) *flag.FlagSet {
	f := flag.NewFlagSet(command, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, help); f.PrintDefaults() }
	f.BoolVar(&o.quick, "quick", false, "tiny loads, one round: whether the tool works, not how fast anything is; changes other defaults")
	f.IntVar(&o.rounds, "rounds", d.rounds, "how often everything is measured, `N`")
	f.Float64Var(&o.seconds, "seconds", d.seconds, "of a load that is measured, `N`")
	f.Float64Var(&o.warmUp, "warm-up", d.warmUp, "seconds of a load before anything counts, `N`")
	f.IntVar(&o.producers, "producers", 5, "that send at the same time, where their number is not what is varied, `N`")
	f.StringVar(&o.dir, "dir", os.TempDir(), "`DIR` where the brokers' folders are made")
	f.StringVar(&o.output, "o", "", "Markdown `FILE` whose section is replaced; without it, to standard output")
	f.StringVar(&o.json, "json", "", "`FILE` for all figures, also of a run that is interrupted")
	return f
}

func compare(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := &options{}
	f := o.flags("compare", compareHelp, stderr, defaults{rounds: 3, seconds: 10, warmUp: 2})
	f.Int64Var(&o.records, "records", 0, "end a load that is as fast as possible after `N` records, however long it takes; 0: after -seconds")
	f.IntVar(&o.inFlight, "in-flight", 0, "records that one of them has sent and not heard of, at most, `N`; 0: 32 MiB of them")
	fill := f.Int("fill", 1024, "`MiB` of a topic that is consumed")
	f.IntVar(&o.kills, "kills", 4, "of Millrace's brokers in a round, `N`")
	f.IntVar(&o.kafkaKills, "kafka-kills", 2, "of Kafka's brokers in a round, `N`")
	f.IntVar(&o.partitions, "partitions", 1000, "that are idle, `N`")
	restart := f.Float64("restart", 10, "`GiB` on each broker that is restarted")
	f.Float64Var(&o.peak, "peak", 0, "records/s of Kafka, for latency; 0: as measured, `N`")
	only := f.String("only", "", "scenarios, `NAME,…`: "+strings.Join(names(scenarios()), ",")+" (all)")
	systems := f.String("systems", "millrace,kafka,nats", "`NAME,…`")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.quick {
		preset(f, map[string]string{"rounds": "1", "seconds": "1", "warm-up": "0.3", "producers": "2", "records": "5000", "in-flight": "2000", "fill": "32",
			"kills": "1", "kafka-kills": "1", "partitions": "60", "restart": "0.05"})
	}
	o.fill, o.restartBytes = int64(*fill)<<20, int64(*restart*(1<<30))
	if err := o.check(f.Args(), *only, *systems); err != nil {
		return err
	}
	r := &run{o: o, stderr: stderr, begin: time.Now()}
	return r.compare(ctx, stdout)
}

// preset gives flags that were not set other values than their defaults.
func preset(f *flag.FlagSet, values map[string]string) {
	f.Visit(func(given *flag.Flag) { delete(values, given.Name) })
	for name, value := range values {
		f.Set(name, value)
	}
}

func names(all []*scenario) (names []string) {
	for _, s := range all {
		names = append(names, s.name)
	}
	return names
}

// check looks at what flags cannot say by themselves.
func (o *options) check(args []string, only, systems string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q: everything is said by flags", args[0])
	}
	if o.rounds < 1 || o.seconds <= 0 || o.warmUp < 0 || o.producers < 1 || o.records < 0 || o.inFlight < 0 || o.fill < 1<<20 || o.kills < 1 || o.kafkaKills < 1 || o.partitions < 1 || o.restartBytes < 1<<20 {
		return errors.New("-rounds, -seconds, -producers, -fill, -kills, -kafka-kills, -partitions and -restart are more than nothing")
	}
	for name := range strings.SplitSeq(systems, ",") {
		if !slices.Contains(cluster.Systems, cluster.System(name)) {
			return fmt.Errorf("-systems %q: they are millrace, kafka and nats", name)
		}
		o.systems = append(o.systems, cluster.System(name))
	}
	if only != "" {
		o.only = strings.Split(only, ",")
		for _, name := range o.only {
			if !slices.Contains(names(scenarios()), name) {
				return fmt.Errorf("-only %q: scenarios are %s", name, strings.Join(names(scenarios()), ", "))
			}
		}
		// What Kafka can do is needed for a fifth of it.
		if slices.Contains(o.only, "latency") && o.peak == 0 && !slices.Contains(o.only, "produce-1k") {
			o.only = append(o.only, "produce-1k")
		}
	}
	return nil
}

// wanted tells whether a scenario is to be run.
func (r *run) wanted(name string) bool { return r.o.only == nil || slices.Contains(r.o.only, name) }

// say writes a line of progress.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.stderr, "%9s  %s\n", clock(time.Since(r.begin)), fmt.Sprintf(format, args...))
}

// clock writes a duration as minutes and seconds.
func clock(d time.Duration) string {
	return fmt.Sprintf("%d:%02d min", int(d.Minutes()), int(d.Seconds())%60)
}

func (r *run) compare(ctx context.Context, stdout io.Writer) (err error) {
	for _, s := range scenarios() {
		if r.wanted(s.name) {
			r.scenarios = append(r.scenarios, s)
		}
		if r.o.quick { // starting Kafka is what takes longest
			s.phase = throughput
		}
	}
	if r.o.quick && slices.Contains(r.o.systems, cluster.Kafka) { // what it can do is needed for the others
		r.o.systems = append([]cluster.System{cluster.Kafka}, slices.DeleteFunc(r.o.systems, func(s cluster.System) bool { return s == cluster.Kafka })...)
	}
	done, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	defer done()
	r.say("this will take about %d minutes", r.estimate())
	if r.o.json != "" {
		defer func() { err = errors.Join(err, r.writeJSON()) }()
	}
	err = r.runPhases(ctx)
	r.addPeaks() // of a run that was interrupted, too
	if err != nil {
		return err
	}
	return r.publish("compare", r.markdown(), stdout)
}

// publish writes a section, and returns an error if anything in it is missing.
func (r *run) publish(section, text string, stdout io.Writer) (err error) {
	if r.o.output == "" {
		_, err = io.WriteString(stdout, text)
	} else {
		err = report.WriteSection(r.o.output, section, text)
	}
	if err == nil && len(r.failures) > 0 {
		err = fmt.Errorf("%d measurements failed, the first: %s", len(r.failures), r.failures[0])
	}
	return err
}

// prepare makes a folder for everything that is written, looks at the machine and
// builds the programs. done removes the folder.
func (r *run) prepare(ctx context.Context) (done func(), err error) {
	if r.dir, err = os.MkdirTemp(r.o.dir, "millrace-peers-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(r.dir)
		}
	}()
	if r.machine, err = describeMachine(r.dir); err != nil {
		return nil, err
	}
	if r.machine.filesystem == "tmpfs" {
		r.say("WARNING: the brokers' folders are on a tmpfs, on which an fsync is nothing; choose another -dir")
	}
	r.programs, err = cluster.Build(ctx, r.o.systems, r.dir, r.say)
	return func() { os.RemoveAll(r.dir) }, err
}

func (r *run) writeJSON() error {
	f, err := os.Create(r.o.json)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.figures.WriteJSON(f)
}

// inPhase lists what is to be run on a system in a phase, and whether there is
// anything for which the cluster has to be started.
func (r *run) inPhase(phase int, s cluster.System) (all []*scenario, needed bool) {
	for _, sc := range r.scenarios {
		if !slices.Contains(sc.systems, s) {
			continue
		}
		if sc.phase == phase {
			needed = true
			if sc.run != nil {
				all = append(all, sc)
			}
		}
	}
	return all, needed
}

// rounds is how often a phase is run.
func (r *run) rounds(phase int) int {
	if phase == restart {
		return 1
	}
	return r.o.rounds
}

// startSeconds estimates what comes before the first scenario of a cluster, and
// what comes after the last.
func startSeconds(s cluster.System) float64 {
	if s == cluster.Kafka {
		return 14
	}
	return 4
}

// estimate is how many minutes the run will take.
func (r *run) estimate() int {
	seconds := 0.0
	for phase := range phases {
		for _, s := range r.o.systems {
			all, needed := r.inPhase(phase, s)
			if !needed {
				continue
			}
			once := startSeconds(s) + r.preludeSeconds(all)
			for _, sc := range all {
				once += sc.seconds(r.o, s)
			}
			seconds += once * float64(r.rounds(phase))
		}
	}
	return int(seconds/60) + 1
}

// runPhases runs what is to be run, one phase after the other.
func (r *run) runPhases(ctx context.Context) error {
	for phase := range phases {
		if r.o.quick && phase > throughput {
			break
		}
		if err := r.runPhase(ctx, phase); err != nil {
			return err
		}
	}
	return nil
}

// runPhase runs a phase's rounds.
func (r *run) runPhase(ctx context.Context, phase int) error {
	for round := 1; round <= r.rounds(phase); round++ {
		order := slices.Clone(r.o.systems)
		forth := round%2 == 1
		if !forth {
			slices.Reverse(order)
		}
		limits := func() error {
			if phase != everythingElse && !r.o.quick {
				return nil
			}
			return r.failed(ctx, "limits", r.runLimits(ctx))
		}
		if forth {
			if err := limits(); err != nil {
				return err
			}
		}
		for _, s := range order {
			all, needed := r.inPhase(phase, s)
			if !needed {
				continue
			}
			r.say("round %d of %d, %s: %s", round, r.rounds(phase), s, strings.Join(names(all), ", "))
			if err := r.failed(ctx, string(s), r.runCluster(ctx, s, round, phase, all)); err != nil {
				return err
			}
		}
		if !forth {
			if err := limits(); err != nil {
				return err
			}
		}
	}
	return nil
}

// failed notes an error, for which the run goes on; it returns an error if it is
// time to go.
func (r *run) failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		// A report is for others, who have no such folder.
		failure := strings.ReplaceAll(fmt.Sprintf("%s: %v", what, err), r.dir, "…")
		r.failures = append(r.failures, failure)
		r.say("FAILED: %s", failure)
	}
	return nil
}

// runCluster runs scenarios on a new cluster.
func (r *run) runCluster(ctx context.Context, system cluster.System, round, phase int, all []*scenario) error {
	return r.withCluster(ctx, system, round, func(s *session) error {
		if err := s.prelude(ctx, all); err != nil {
			return err
		}
		for _, sc := range all {
			if err := r.failed(ctx, fmt.Sprintf("%s, %s, round %d", sc.name, system, round), sc.run(ctx, s)); err != nil {
				return err
			}
			if err := s.cluster.Check(); err != nil {
				return err
			}
		}
		if s.loaded && phase != restart { // a restart is not what a broker is expected to do all day
			_, _, peak := s.cluster.Memory()
			r.note(life{system, round}, memory{peak, s.own})
		}
		return nil
	})
}

// note enters what a cluster's brokers had at most into its life.
func (r *run) note(l life, m memory) {
	if r.peaks == nil {
		r.peaks = make(map[life]memory)
	}
	before := r.peaks[l]
	r.peaks[l] = memory{max(m.peak, before.peak), max(m.own, before.own)}
}

// addPeaks enters the peaks of all lives into the figures.
func (r *run) addPeaks() {
	for _, system := range r.o.systems {
		for round := 1; round <= r.o.rounds; round++ {
			if m, ok := r.peaks[life{system, round}]; ok {
				r.addMemory(system, "peak", m.peak)
				r.addMemory(system, "own", m.own)
			}
		}
	}
}

// withCluster calls f with a new cluster that serves, and is gone when it returns.
func (r *run) withCluster(ctx context.Context, system cluster.System, round int, f func(*session) error) error {
	return r.withClusterOf(ctx, system, cluster.Options{}, round, f)
}

// withClusterOf is withCluster with what users set.
func (r *run) withClusterOf(ctx context.Context, system cluster.System, o cluster.Options, round int, f func(*session) error) (err error) {
	dir, err := os.MkdirTemp(r.dir, string(system)+"-")
	if err != nil {
		return err
	}
	defer func() {
		// What is deleted before it is written back never reaches the disk, and nobody
		// else pays for it.
		os.RemoveAll(dir)
		if e := syncFilesystem(r.dir); err == nil {
			err = e
		}
	}()
	s := &session{run: r, round: round}
	if s.cluster, err = cluster.New(ctx, system, r.programs, dir, o); err != nil {
		return err
	}
	defer s.cluster.Kill()
	if err := syncFilesystem(r.dir); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	return f(s)
}

// start starts the cluster, and measures what a start is measured for.
func (s *session) start(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	begin := time.Now()
	if err := s.cluster.Start(patience); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := s.cluster.FirstAck(patience); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	took := time.Since(begin)
	s.figures.Add(report.Key{Scenario: "start", Row: string(s.cluster.System), Metric: "seconds"}, took.Seconds())
	if err := sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	resident, own, _ := s.cluster.Memory()
	s.addMemory(s.cluster.System, "idle", resident)
	s.own = own
	s.say("%s: started in %.2f s, %s MiB", s.cluster.System, took.Seconds(), report.Number(float64(resident)/(1<<20)))
	return nil
}

func (r *run) addMemory(system cluster.System, metric string, bytes int64) {
	r.figures.Add(report.Key{Scenario: "memory", Row: string(system), Metric: metric}, float64(bytes)/(1<<20))
}

// preludeSeconds is how long the load is that comes before any that is measured.
func (r *run) preludeSeconds(all []*scenario) float64 {
	if !slices.ContainsFunc(all, func(sc *scenario) bool {
		return sc.phase != restart && sc.name != "failover" && sc.name != "partitions"
	}) {
		return 0
	}
	return max(2, 2*r.o.warmUp)
}

// prelude makes a load that counts for nothing: a virtual machine has compiled
// nothing yet, and caches are cold.
func (s *session) prelude(ctx context.Context, all []*scenario) error {
	seconds := s.preludeSeconds(all)
	if seconds == 0 {
		return nil
	}
	_, _, err := bench{kind: "produce", partitions: 6, size: 1024, producers: s.o.producers, inFlight: s.o.inFlight, seconds: seconds}.run(ctx, s, variantsOf(s.cluster.System)[0])
	if err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	return nil
}

// markdown writes the report.
func (r *run) markdown() string {
	var b strings.Builder
	rounds := fmt.Sprintf("%d rounds", r.o.rounds)
	if r.o.rounds == 1 {
		rounds = "one round"
	}
	fmt.Fprintf(&b, "## Side by side\n\n")
	if r.o.quick {
		b.WriteString("**A quick run: it shows that the tool works, and nothing about how fast anything is.**\n\n")
	}
	fmt.Fprintf(&b, "Written by `make compare` on %s, in %s: %s, systems in alternating order, %s s a load after %s s of warm-up. ",
		r.begin.UTC().Format("2 January 2006"), clock(time.Since(r.begin)), rounds, report.Number(r.o.seconds), report.Number(r.o.warmUp))
	fmt.Fprintf(&b, "Figures are medians of the rounds, with the least and the most. The load of Kafka and Millrace is made by the same program, `millrace bench` (franz-go); that of NATS by nats.go with the same plan, payloads and clock. CPU seconds are those of all three brokers together, over the whole load with its warm-up.\n\n")
	b.WriteString(r.machine.describe(r.programs))
	if len(r.o.systems) < len(cluster.Systems) || r.o.only != nil {
		fmt.Fprintf(&b, "- Only a part was run: %s on %s\n", strings.Join(names(r.scenarios), ", "), joined(r.o.systems))
	}
	var wants []report.Want
	for _, sc := range r.scenarios {
		wants = append(wants, sc.wants...)
	}
	count := make(map[report.Verdict]int)
	for _, w := range wants {
		_, verdict := r.figures.Judge(w)
		count[verdict]++
	}
	fmt.Fprintf(&b, "- Of %d things wanted, %d held, %d missed, %d not measured\n", len(wants), count[report.Held], count[report.Missed], count[report.NotMeasured])
	b.WriteString(r.notMeasured())
	for _, sc := range r.scenarios {
		fmt.Fprintf(&b, "\n### %s\n\n`%s`: %s\n", sc.title, sc.name, sc.about(r.o))
		if sc.name == "latency" {
			s := &session{run: r}
			if peak := s.peak(); peak > 0 {
				fmt.Fprintf(&b, "The rate was %s records/s.\n", report.Number(0.2*peak))
			}
		}
		for _, part := range []string{
			report.Table{Scenario: sc.name, Note: sc.note, Rows: sc.rows, Columns: sc.columns}.Markdown(&r.figures),
			report.Wants(&r.figures, sc.wants),
		} {
			if part != "" {
				fmt.Fprintf(&b, "\n%s", part)
			}
		}
	}
	return b.String()
}

// notMeasured lists what failed, as Markdown.
func (r *run) notMeasured() string {
	var b strings.Builder
	for _, f := range r.failures {
		fmt.Fprintf(&b, "- Failed: %s\n", strings.Join(strings.Fields(f), " "))
	}
	return b.String()
}

func joined(systems []cluster.System) string {
	var all []string
	for _, s := range systems {
		all = append(all, string(s))
	}
	return strings.Join(all, ", ")
}
