package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"millrace/peers/cluster"
	"millrace/peers/report"
)

func TestFilesystemIsThatOfTheLongestMount(t *testing.T) {
	const mounts = `21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /tmp rw,nosuid shared:3 - tmpfs tmpfs rw
23 22 0:21 / /tmp/big rw - xfs /dev/vdb rw
24 21 0:22 / /srv rw - btrfs /dev/vdc rw
25 21 0:23 / /srv rw master:1 shared:9 - zfs pool rw
a broken line
`
	for dir, want := range map[string]string{
		"/": "ext4", "/home/x": "ext4", "/tmp": "tmpfs", "/tmp/x": "tmpfs", "/tmpx": "ext4", "/tmp/big/x": "xfs", "/tmp/bigger": "tmpfs",
		"/srv/x": "zfs", // mounted over the other
	} {
		if got := filesystemOf(mounts, dir); got != want {
			t.Errorf("%s: %s, want %s", dir, got, want)
		}
	}
	if got := filesystemOf("", "/tmp"); got != "not known" {
		t.Errorf("of nothing: %s", got)
	}
}

func TestFieldsOfProc(t *testing.T) {
	const text = "processor\t: 0\nmodel name\t: A: B\nmodel name\t: C\nMemTotal:       24 kB\n"
	for name, want := range map[string]string{"model name": "A: B", "MemTotal": "24 kB", "model": "not known"} {
		if got := field(text, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestThisMachineIsDescribed(t *testing.T) {
	m, err := describeMachine(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if m.cpu == "" || m.cores < 1 || m.memory < 1<<20 || !strings.HasPrefix(m.kernel, "Linux ") || m.filesystem == "not known" || m.fsync <= 0 {
		t.Errorf("%+v", m)
	}
}

func TestWhatIsAskedForIsChecked(t *testing.T) {
	for _, args := range [][]string{
		{"-only", "produce"}, {"-systems", "redis"}, {"-systems", ""}, {"-rounds", "0"}, {"-seconds", "0"}, {"-fill", "0"}, {"all"}, {"-restart", "0"},
	} {
		if err := compare(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

// fullRun is a run of everything with the usual options.
func fullRun() *run {
	return &run{scenarios: scenarios(), programs: &cluster.Programs{Versions: map[string]string{"millrace": "m", "kafka": "k", "java": "j", "nats": "n"}},
		o: &options{rounds: 3, seconds: 10, warmUp: 2, producers: 5, fill: 1 << 30, kills: 4, kafkaKills: 2, partitions: 1000, restartBytes: 10 << 30, systems: cluster.Systems}}
}

func TestAFullRunIsMeantToTakeLessThanAnHour(t *testing.T) {
	if minutes := fullRun().estimate(); minutes < 20 || minutes > 50 {
		t.Errorf("%d minutes", minutes)
	}
}

func TestWantsAreOfFiguresThatExist(t *testing.T) {
	shown := make(map[report.Key]bool)
	for _, sc := range scenarios() {
		for _, r := range sc.rows {
			for _, c := range sc.columns {
				shown[report.Key{Scenario: sc.name, Row: r.Name, Metric: c.Metric}] = true
			}
		}
	}
	for _, sc := range scenarios() {
		if len(sc.wants) == 0 {
			t.Errorf("%s is held against nothing", sc.name)
		}
		for _, w := range sc.wants {
			if !shown[w.Of] || w.To != (report.Key{}) && !shown[w.To] {
				t.Errorf("%s: %q is of %v and %v, which no table shows", sc.name, w.What, w.Of, w.To)
			}
		}
	}
}

func TestLatencyIsHeldAtAFifthOfTheMedian(t *testing.T) {
	s := &session{run: fullRun(), cluster: &cluster.Cluster{System: cluster.Kafka}}
	if err := runLatency(t.Context(), s); err == nil {
		t.Error("a rate was made of nothing")
	}
	for _, v := range []float64{100, 900, 300} {
		s.figures.Add(report.Key{Scenario: "produce-1k", Row: "kafka", Metric: "records"}, v)
		s.figures.Add(report.Key{Scenario: "produce-1k", Row: "kafka fsync", Metric: "records"}, 7)
	}
	if got := s.peak(); got != 300 {
		t.Errorf("the peak is %v", got)
	}
}

// A round has two clusters of a system, and the peak is that of the one that
// needed more.
func TestAPeakIsThatOfAWholeRound(t *testing.T) {
	r := fullRun()
	for round, peaks := range [][]int64{{300, 20}, {10, 500}, {40}} {
		for _, peak := range peaks {
			r.note(life{cluster.Kafka, round + 1}, memory{peak << 20, peak << 19})
		}
	}
	r.addPeaks()
	for metric, want := range map[string][]float64{"peak": {300, 500, 40}, "own": {150, 250, 20}} {
		if got := r.figures.Of(report.Key{Scenario: "memory", Row: "kafka", Metric: metric}); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", metric, got, want)
		}
	}
	if got := r.figures.Of(report.Key{Scenario: "memory", Row: "nats", Metric: "peak"}); len(got) > 0 {
		t.Errorf("a peak of a system without load: %v", got)
	}
}

func TestVariantsTakeTurns(t *testing.T) {
	var orders [2][]string
	for i := range orders {
		s := &session{run: fullRun(), cluster: &cluster.Cluster{System: cluster.Kafka}, round: i + 1}
		s.each(func(v variant) error { orders[i] = append(orders[i], v.name); return nil })
	}
	slices.Reverse(orders[1])
	if len(orders[0]) != 2 || !slices.Equal(orders[0], orders[1]) {
		t.Errorf("%v", orders)
	}
}

// The verdict of a report is computed from what was measured.
func TestReport(t *testing.T) {
	r := fullRun()
	for _, v := range []float64{100, 110, 90} {
		r.figures.Add(report.Key{Scenario: "produce-1k", Row: "kafka", Metric: "records"}, v)
		r.figures.Add(report.Key{Scenario: "produce-1k", Row: "millrace", Metric: "records"}, 2*v)
		r.figures.Add(report.Key{Scenario: "produce-1k", Row: "nats", Metric: "records"}, v)
	}
	r.failures = []string{"latency, nats, round 2: broken"}
	text := r.markdown()
	for _, line := range []string{
		"| millrace | before every ack | 200 (180–220) |",
		"| kafka | none | 100 (90–110) |",
		"| records/s, millrace / kafka | ≥ 1.5 | 2 (2–2) | held |",
		"| records/s, millrace / nats | ≥ 2.5 | 2 (2–2) | missed |",
		"| p99, millrace | < 5 ms |  | not measured |",
		"- Failed: latency, nats, round 2: broken",
		"The rate was 20 records/s.",
		", 1 held, 1 missed, ",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}

func TestALoadIsTheSameForAllSystems(t *testing.T) {
	s := &session{run: fullRun()}
	b := bench{kind: "produce", partitions: 6, size: 100, producers: 5, rate: 1234.5, seconds: 10, warmUp: 0.5, noLinger: true}
	for _, v := range variants {
		s.cluster = &cluster.Cluster{System: v.system, Brokers: []*cluster.Broker{{Address: "127.0.0.1:1"}}}
		cmd, err := b.command(s, v)
		if err != nil {
			t.Fatal(err)
		}
		line := strings.Join(cmd.Args, " ") + " "
		for _, want := range append([]string{"produce ", "-p 6 ", "--producers 5 ", "--size 100 ", "--rate 123", "--warm-up 0.5s ", "--duration 10s "}, v.configs...) {
			if !strings.Contains(line, want) {
				t.Errorf("%s: no %q in %q", v.name, want, line)
			}
		}
	}
}
