package bench

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/kafka"
	"millrace/cli/load"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

// ends returns where the partitions of a topic end.
// What the machine could not send is not held against HTTP.
func TestAStarvedTutorialComparesNothing(t *testing.T) {
	for _, test := range []struct {
		sent, handled int64
		within        time.Duration
		want          bool
	}{
		{100_000, 40_000, 10 * time.Second, false}, // all that four workers of 1 ms can
		{100_000, 20_000, 10 * time.Second, false},
		{100_000, 120, 10 * time.Second, true},
		{1000, 900, 10 * time.Second, false}, // no more was to be sent
		{1000, 10, 100 * time.Millisecond, false},
	} {
		w := &tutorialWay{Sent: test.sent, handled: test.handled}
		if got := w.starved(4, time.Millisecond, test.within); got != test.want {
			t.Errorf("%d handled of %d within %v: starved %v", test.handled, test.sent, test.within, got)
		}
	}
	c := &caller{patience: time.Nanosecond}
	if err := c.call(t.Context(), &load.Record{}); err != errGivenUp || c.givenUp.Load() != 1 || c.timedOut.Load() != 0 {
		t.Errorf("a call that is late before it is made: %v, %d given up, %d timed out", err, c.givenUp.Load(), c.timedOut.Load())
	}
}

func endsOf(c *clitest.Cluster, topic string) (all []int64) {
	c.T.Helper()
	client, err := kafka.DialBrokers(c.T.Context(), c.Addresses())
	if err != nil {
		c.T.Fatal(err)
	}
	defer client.Close()
	var ends kadm.ListedOffsets
	err = kafka.Settle(c.T.Context(), func(ctx context.Context) (err error) {
		ends, err = kafka.Listed(kadm.NewClient(client).ListEndOffsets(ctx, topic))
		return err
	})
	if err != nil {
		c.T.Fatal(err)
	}
	for _, o := range ends.Offsets().Sorted() {
		all = append(all, o.At)
	}
	return all
}

func sum(all []int64) (n int64) {
	for _, i := range all {
		n += i
	}
	return n
}

// bench runs a bench command with -o json and returns its result, whose parts
// must make its whole.
func measured(c *clitest.Cluster, args ...string) *load.Result {
	c.T.Helper()
	return readResult(c.T, c.Do("", append([]string{"bench"}, append(args, "-o", "json")...)...).Stdout)
}

func readResult(t *testing.T, out string) *load.Result {
	t.Helper()
	var r load.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	mustAddUp(t, &r)
	return &r
}

func mustAddUp(t *testing.T, r *load.Result) {
	t.Helper()
	var records, bytes int64
	for _, s := range r.Series {
		records, bytes = records+s.Records, bytes+s.Bytes
	}
	if records != r.Records || bytes != r.Bytes || r.Errors != 0 || r.FirstError != "" {
		t.Errorf("%s: the series has %d records, %d bytes; the result %d, %d, and %d errors (%s)", r.Kind, records, bytes, r.Records, r.Bytes, r.Errors, r.FirstError)
	}
	if r.Records > 0 && (r.Seconds <= 0 || r.RecordsPerSecond <= 0) {
		t.Errorf("%s: %d records in %v s, %v a second", r.Kind, r.Records, r.Seconds, r.RecordsPerSecond)
	}
	if (r.Kind != "consume") != (r.Latency != nil) {
		t.Errorf("%s: latency %+v", r.Kind, r.Latency)
	}
	if l := r.Latency; l != nil && !(0 < l.P50 && l.P50 <= l.P90 && l.P90 <= l.P99 && l.P99 <= l.P999 && l.P999 <= l.Max && l.Mean <= l.Max) {
		t.Errorf("%s: latency %+v", r.Kind, *l)
	}
}

func TestBenchMeasuresWhatReallyHappens(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	page := filepath.Join(t.TempDir(), "page.html")

	// What produce counts is stored, and bears the stamps of one run.
	r := measured(c, "produce", "-t", "one", "-p", "4", "-n", "3000", "--size", "200", "--producers", "3", "-z", "lz4", "--keep", "--html", page)
	if r.Kind != "produce" || r.Topic != "one" || r.Partitions != 4 || r.Records != 3000 || r.Bytes != 600_000 || r.Plan.Producers != 3 || r.Plan.Settings["compression"] != "lz4" {
		t.Errorf("produce: %+v", r)
	}
	if stored := sum(endsOf(c, "one")); stored != 3000 {
		t.Errorf("produce counts 3,000 records, and the topic has %d", stored)
	}
	seen := make(map[int]int)
	for line := range strings.Lines(c.Do("", "consume", "one", "-e", "--format", "value").Stdout) {
		s, ok := load.ReadStamp([]byte(line))
		if !ok || len(line) != 201 {
			t.Fatalf("a value of %d bytes: %s", len(line)-1, line)
		}
		seen[s.Producer]++
	}
	if seen[0] != 1000 || seen[1] != 1000 || seen[2] != 1000 {
		t.Errorf("records by producer: %v", seen)
	}
	if b, err := os.ReadFile(page); err != nil || !bytes.Contains(b, []byte("Producing to one")) || !bytes.HasSuffix(b, []byte("</html>\n")) {
		t.Errorf("the page: %v, %d bytes", err, len(b))
	}

	// A group needs some seconds to divide the partitions: it does so beside the rest.
	group := make(chan clitest.Result, 1)
	go func() {
		defer close(group)
		group <- clitest.Run(t, c.Addresses(), "", "bench", "consume", "-t", "one", "--consumers", "2", "--group", "-o", "json")
	}()

	// consume counts every record, as often as it is read.
	for _, test := range []struct {
		args    string
		records int64
		bytes   int64 // 0: whatever they are, compressed
	}{
		{"", 3000, 600_000},
		{"--consumers 2", 6000, 1_200_000},
		{"--consumers 2 --rounds 2", 12_000, 2_400_000},
		{"--raw --rounds 3", 9000, 0},
		{"--raw --consumers 2 --fetch-bytes 5000 --partition-bytes 1000", 6000, 0},
	} {
		r := measured(c, append([]string{"consume", "-t", "one"}, strings.Fields(test.args)...)...)
		if r.Kind != "consume" || r.Records != test.records || test.bytes > 0 && r.Bytes != test.bytes || test.bytes == 0 && (r.Bytes <= 0 || r.Bytes > 200*r.Records/2) {
			t.Errorf("consume %s: %d records, %d bytes; want %d, %d", test.args, r.Records, r.Bytes, test.records, test.bytes)
		}
	}
	if r := measured(c, "consume", "-n", "500", "--size", "100"); r.Records != 500 || r.Bytes != 50_000 {
		t.Errorf("consume of a topic of its own: %d records, %d bytes", r.Records, r.Bytes)
	}

	// Keys have their partitions; the topic is made as it is asked for; the warm-up is
	// stored and not counted.
	r = measured(c, "produce", "-t", "two", "-p", "3", "-r", "1", "-c", "flush.messages=1", "--rate", "1000/s", "--duration", "500ms", "--warm-up", "200ms",
		"--keys", "1", "--distribution", "zipf", "--acks", "1", "--keep")
	if r.Records+r.Unsent != 500 || r.Plan.Settings["topic.flush.messages"] != "1" {
		t.Errorf("at a rate: %d records, %d not sent: %+v", r.Records, r.Unsent, r.Plan)
	}
	ends := endsOf(c, "two")
	if n := sum(ends); n != r.Records+200 || max(ends[0], ends[1], ends[2]) != n {
		t.Errorf("one key is stored in partitions that end at %v; %d records were counted after a warm-up of 200", ends, r.Records)
	}
	if got := c.Do("", "topic", "describe", "two").Stdout; !strings.Contains(got, "flush.messages") {
		t.Errorf("the topic's setting is not there: %s", got)
	}

	r = measured(c, "e2e", "-t", "three", "-n", "1000", "--rate", "2000/s", "--linger", "0s", "--producers", "2", "--consumers", "2", "--keep")
	if r.Kind != "e2e" || r.Records != 1000 || r.Lost != 0 || r.Duplicates != 0 || sum(endsOf(c, "three")) != 1000 {
		t.Errorf("e2e: %+v", r)
	}
	// What is there already is not taken for ours.
	if r = measured(c, "e2e", "-t", "three", "-n", "100", "--rate", "max", "--size", "64"); r.Records != 100 || r.Duplicates != 0 || sum(endsOf(c, "three")) != 1100 {
		t.Errorf("e2e again: %+v", r)
	}

	// Both other formats, and topics that are gone afterwards.
	seconds, err := csv.NewReader(strings.NewReader(c.Do("", "bench", "produce", "-n", "100", "-o", "csv").Stdout)).ReadAll()
	if err != nil || len(seconds) != 2 || seconds[0][1] != "records" || seconds[1][1] != "100" {
		t.Errorf("%v: %v", err, seconds)
	}
	table := strings.Fields(c.Do("", "bench", "e2e", "-n", "50").Stdout)
	if len(table) < 16 || table[0] != "TOPIC" || table[2] != "RECORDS" {
		t.Errorf("%v", table)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		left := strings.Fields(c.Do("", "topic", "list", "-o", "name").Stdout)
		if strings.Join(left, " ") == "one three two" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("topics left: %v", left)
		}
	}

	if r := readResult(t, (<-group).Stdout); r.Records != 3000 || r.Bytes != 600_000 || r.Plan.Consumers != 2 {
		t.Errorf("a group of two reads %d records, %d bytes: %+v", r.Records, r.Bytes, r)
	}

	for _, test := range []struct {
		args   string
		status int
	}{
		{"produce -t one -p 3", term.StatusUsage}, {"consume -t one -n 5", term.StatusUsage}, {"consume -t one --consumers 9 --group", term.StatusUsage},
		{"produce --html /no/such/page.html", term.StatusNotFound},
	} {
		r := clitest.Run(t, c.Addresses(), "", append([]string{"bench"}, strings.Fields(test.args)...)...)
		if r.Status != test.status || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("millrace bench %s: status %d, want %d, %q", test.args, r.Status, test.status, r.Stderr)
		}
	}
}

// What is wrong with a command line is said before a broker is asked for anything.
func TestBenchUsage(t *testing.T) {
	for _, args := range []string{
		"produce orders", "produce -o yaml", "produce --rate fast", "produce --rate -1", "produce --distribution zipf", "produce --keys 5 --distribution gauss",
		"produce --acks 2", "produce -z brotli", "produce --size 0", "produce -n -1", "produce --duration -1s", "produce -p 0", "produce -r 0", "produce -c x",
		"e2e --size 10", "e2e --consumers 0", "consume --raw --group", "consume --rounds 2 --group", "consume --rounds 0", "tutorial --workers 0",
		"tutorial --within 0s", "tutorial --size 10", "-b localhost:none produce",
	} {
		var out, errs strings.Builder
		words := append([]string{"bench"}, strings.Fields(args)...)
		if strings.HasPrefix(args, "-b") {
			words = append(strings.Fields(args)[:2], "bench", "produce")
		} else {
			words = append(words, "-b", "127.0.0.1:1")
		}
		app := &urfave.App{Commands: []*urfave.Command{Command()}, Reader: strings.NewReader(""), Writer: &out, ErrWriter: &errs}
		term.Prepare(app.Commands)
		if status := term.Report(&errs, term.Run(t.Context(), app, words)); status != term.StatusUsage || strings.Count(errs.String(), "\n") != 1 || out.Len() > 0 {
			t.Errorf("millrace %s: status %d, %q", strings.Join(words, " "), status, errs.String())
		}
	}
}

func TestBenchTutorialCountsBothWays(t *testing.T) {
	c := clitest.StartCluster(t, 3)
	page := filepath.Join(t.TempDir(), "page.html")
	out := c.Do("", "bench", "tutorial", "-n", "300", "--within", "300ms", "--html", page, "-o", "json").Stdout
	var got tutorial
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(got.Ways) != 2 || got.Ways[0].Way != "log" || got.Ways[1].Way != "http" {
		t.Fatalf("%s", out)
	}
	log, http := got.Ways[0], got.Ways[1]
	if log.Sent != 1500 || log.Succeeded != 1500 || log.Percent != 100 || log.Lost != 0 || log.Handling.Records != 1500 || log.Sending.Records != 1500 {
		t.Errorf("log: %+v", log)
	}
	mustAddUp(t, log.Sending)
	mustAddUp(t, log.Handling)
	if http.Sent != 1500 || http.Succeeded+http.Refused+http.TimedOut != 1500 || http.Succeeded != http.Sending.Records {
		t.Errorf("http: %+v", http)
	}
	if b, err := os.ReadFile(page); err != nil || !bytes.Contains(b, []byte("acknowledged and not yet handled")) {
		t.Errorf("the page: %v, %d bytes", err, len(b))
	}
}

// Ctrl-C ends a run, which says what it has, and takes its topic along.
func TestBenchIsInterruptedInAnOrderlyWay(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 1)
	cmd := clitest.Command(t, c.Addresses(), "bench", "produce", "--rate", "500/s", "--duration", "1h", "--warm-up", "0s", "-o", "json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	topics := func() []string { return strings.Fields(c.Do("", "topic", "list", "-o", "name").Stdout) }
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if all := topics(); len(all) == 1 && sum(endsOf(c, all[0])) > 50 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing is produced: %s", stderr.String())
		}
	}
	cmd.Process.Signal(syscall.SIGINT)
	err := cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != term.StatusFailed || stderr.String() != "millrace: interrupted; the figures are those of what was done\n" {
		t.Errorf("it ends with %v, %q", err, stderr.String())
	}
	var r load.Result
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || !r.Interrupted || r.Records <= 50 || r.Unacknowledged != 0 {
		t.Errorf("%v: %+v", err, r)
	}
	mustAddUp(t, &r)
	for deadline := time.Now().Add(time.Minute); len(topics()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("topics left: %v", topics())
		}
	}
}

// What README promises of a bench on a terminal is there on a narrow one.
func TestABenchOnANarrowTerminalSaysItsRate(t *testing.T) {
	r := &load.Result{Topic: "bench-a6cda8f9", Partitions: 6, Records: 12_345_678, Seconds: 10.01, RecordsPerSecond: 1_240_009, MiBPerSecond: 1234.38,
		Latency: &load.Latency{P50: 117, P90: 246, P99: 315, P999: 330, Max: 1315, Mean: 120}}
	var names, row []string
	for _, c := range benchColumns(true) {
		names, row = append(names, c.Header), append(row, c.Cell(r))
	}
	rows := [][]string{slices.Clone(names), row}
	term.Fit(names, rows, 80)
	if !slices.Contains(rows[0], "RECORDS/S") || !slices.Contains(rows[0], "P99") || term.TableWidth(rows) > 80 {
		t.Errorf("%d wide: %v", term.TableWidth(rows), rows[0])
	}
}
