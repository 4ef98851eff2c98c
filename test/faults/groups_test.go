//go:build faults

package faults

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/testcluster"
	"millrace/testdata"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A program is a millrace command that runs beside the test.
type program struct {
	*testcluster.Process
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// begin starts a command as a client of the cluster. Its standard output is to
// be read by the test: until it is, the command waits.
func (c *cluster) begin(args ...string) (*program, error) {
	p := &program{}
	cmd := exec.Command(binary, append(slices.Clone(args), "--brokers", strings.Join(c.Addresses(), ","))...)
	cmd.Stderr = &p.stderr
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	p.stdout = bufio.NewReaderSize(r, 64<<10)
	p.Process, err = testcluster.Start(cmd)
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	return p, nil
}

// line returns the next whole line of standard output; false at the end, where
// a kill may have cut a line in two.
func (p *program) line() (string, bool) {
	s, err := p.stdout.ReadString('\n')
	return strings.TrimSuffix(s, "\n"), err == nil
}

// produceFlights makes the topic flights and sends the data set with the program.
func (c *cluster) produceFlights(partitions int32) (lines []string) {
	c.t.Helper()
	c.createTopic("flights", partitions)
	_, errs, status := c.run(strings.NewReader(testdata.Flights), "produce", "flights", "--key-field", "origin", "-q")
	if status != 0 {
		c.t.Fatalf("produce: status %d: %s", status, errs)
	}
	return strings.Split(strings.TrimSuffix(testdata.Flights, "\n"), "\n")
}

// committed returns a group's offsets in a topic, by partition.
func committed(admin *kadm.Client, group, topic string) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return nil, err
	}
	offsets := make(map[int32]int64)
	for _, o := range got.Sorted() {
		if o.Err != nil {
			return nil, o.Err
		}
		if o.Topic == topic {
			offsets[o.Partition] = o.At
		}
	}
	return offsets, nil
}

// An audit is one group that reads flights through consumers that are killed.
type audit struct {
	c       *cluster
	group   string
	admin   *kadm.Client
	printed map[place]int // how often
	values  map[place]string
	commits map[int32]int64 // what was committed when the last consumer had died
	twice   int
}

// run starts a consumer and kills it when it has printed so many lines, or
// after a while if it has not; a negative number lets it finish.
func (a *audit) run(lines int, delay time.Duration, args ...string) error {
	p, err := a.c.begin(append([]string{"consume", "flights", "-g", a.group, "--format", `%p %o %v\n`}, args...)...)
	if err != nil {
		return err
	}
	defer p.Kill()
	if lines >= 0 {
		timer := time.AfterFunc(delay, func() { p.Signal(os.Kill) })
		defer timer.Stop()
	}
	for n := 0; ; n++ {
		if n == lines {
			p.Signal(os.Kill)
			// What it has written is still in the pipe.
		}
		line, ok := p.line()
		if !ok {
			break
		}
		if err := a.saw(line); err != nil {
			return err
		}
	}
	if state := p.Wait(); lines < 0 && !state.Success() {
		return fmt.Errorf("consume %v: %v: %s", args, state, p.stderr.String())
	}
	before := a.commits
	if a.commits, err = committed(a.admin, a.group, "flights"); err != nil {
		return err
	}
	for partition, offset := range before {
		if a.commits[partition] < offset {
			return fmt.Errorf("I8 %s: the committed offset of partition %d went from %d back to %d", a.group, partition, offset, a.commits[partition])
		}
	}
	for partition, offset := range a.commits {
		for o := range offset {
			if a.printed[place{partition, o}] == 0 {
				return fmt.Errorf("I6 %s: %d is committed in partition %d, and %d was never printed", a.group, offset, partition, o)
			}
		}
	}
	return nil
}

func (a *audit) saw(line string) error {
	var at place
	var value string
	if _, err := fmt.Sscanf(line, "%d %d", &at.partition, &at.offset); err != nil {
		return fmt.Errorf("%s printed %q: %v", a.group, line, err)
	}
	_, value, _ = strings.Cut(line, " ")
	_, value, _ = strings.Cut(value, " ")
	if a.printed[at] > 0 {
		a.twice++
		if at.offset < a.commits[at.partition] {
			return fmt.Errorf("%s: %d/%d was printed again, though %d was committed", a.group, at.partition, at.offset, a.commits[at.partition])
		}
		if a.values[at] != value {
			return fmt.Errorf("I2 %s: %d/%d was %q and is %q", a.group, at.partition, at.offset, a.values[at], value)
		}
	}
	a.printed[at]++
	a.values[at] = value
	return nil
}

// `millrace consume flights -g audit -n 5000`, killed with -9 at random moments:
// every record is printed at least once, none is skipped, and those printed
// twice come after the last commit.
func TestKilledConsumersSkipNothing(t *testing.T) {
	kills := setting("FAULTS_KILLS", 50)
	const groups = 5
	c := startCluster(t, 3, nil)
	want := c.produceFlights(6)
	slices.Sort(want)
	began := time.Now()
	audits := make([]*audit, groups)
	errs := make([]error, groups)
	var wg sync.WaitGroup
	for i := range audits {
		a := &audit{
			c: c, group: fmt.Sprintf("audit-%d", i), admin: c.admin(),
			printed: make(map[place]int), values: make(map[place]string), commits: make(map[int32]int64),
		}
		audits[i] = a
		wg.Add(1)
		go func() { // an audit: ends when its group has read everything
			defer wg.Done()
			for range kills / groups {
				// Some are killed while they join, most in the middle of printing.
				lines, delay := rand.IntN(1500), patience
				if rand.IntN(5) == 0 {
					delay = time.Duration(rand.IntN(9000)) * time.Millisecond
				}
				if errs[i] = a.run(lines, delay, "-n", "5000"); errs[i] != nil {
					return
				}
			}
			errs[i] = a.run(-1, 0, "-e")
		}()
	}
	wg.Wait()
	twice := 0
	for i, a := range audits {
		if errs[i] != nil {
			t.Errorf("%v", errs[i])
			continue
		}
		var got []string
		for _, v := range a.values {
			got = append(got, v)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s did not print the data set: %s", a.group, firstDifference(got, want))
		}
		twice += a.twice
	}
	figure(t, "%d consumers of %d groups killed in %.0f s: every one of %d records printed by each group, none skipped, %d printed again, all of them after the last commit",
		kills/groups*groups, groups, time.Since(began).Seconds(), len(want), twice)
}

// numbered is a tutorial's record.
func numbered(i int) *kgo.Record {
	return &kgo.Record{Topic: "tutorial", Key: fmt.Appendf(nil, "key-%d", i%37), Value: fmt.Appendf(nil, "record %d", i)}
}

// sendTutorial makes the topic and produces n numbered records.
func (c *cluster) sendTutorial(n int, partitions int32) {
	c.t.Helper()
	c.createTopic("tutorial", partitions)
	c.sendNumbered(n)
}

func (c *cluster) sendNumbered(n int) {
	c.t.Helper()
	client := c.client()
	var records []*kgo.Record
	for i := range n {
		records = append(records, numbered(i))
	}
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		c.t.Fatal(err)
	}
}

// A thousand records sent, a hundred consumed and committed, all brokers killed
// and started again: the other nine hundred arrive, unchanged.
func TestTutorialRestartLosesNothing(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.sendTutorial(1000, 3)
	const format = `%k %v\n`
	first, errs, status := c.run(nil, "consume", "tutorial", "-g", "tutorial", "-n", "100", "--format", format)
	if n := strings.Count(first, "\n"); status != 0 || n != 100 {
		t.Fatalf("the first consumer: status %d, %d records: %s", status, n, errs)
	}
	c.KillAll()
	c.restart(c.nodes...)
	rest, errs, status := c.run(nil, "consume", "tutorial", "-g", "tutorial", "-e", "--format", format)
	if n := strings.Count(rest, "\n"); status != 0 || n != 900 {
		t.Errorf("after the restart: status %d, %d records: %s", status, n, errs)
	}
	var want []string
	for i := range 1000 {
		r := numbered(i)
		want = append(want, fmt.Sprintf("%s %s", r.Key, r.Value))
	}
	got := strings.Split(strings.TrimSuffix(first+rest, "\n"), "\n")
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the records are not those that were sent: %s", firstDifference(got, want))
	}
	figure(t, "1,000 sent, 100 consumed and committed, all brokers killed: %d others arrived", strings.Count(rest, "\n"))
}

// A consumer is killed while it holds records: another gets its partitions, and
// the records.
func TestTutorialAnotherConsumerTakesOver(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.createTopic("tutorial", 6)
	held := filepath.Join(t.TempDir(), "held")
	holder, err := c.begin("consume", "tutorial", "-g", "tutorial",
		"--exec", fmt.Sprintf(`echo "$MILLRACE_PARTITION $MILLRACE_OFFSET" >>'%s'; exec sleep 20`, held))
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Kill()
	other, err := c.begin("consume", "tutorial", "-g", "tutorial", "--format", `%p %o\n`)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Kill()

	var mu sync.Mutex
	seen := make(map[string]time.Time)
	go func() { // the reader: ends with the other consumer
		for {
			line, ok := other.line()
			if !ok {
				return
			}
			mu.Lock()
			seen[line] = time.Now()
			mu.Unlock()
		}
	}()
	// Sent once each has its half: the first to come would take everything, and would
	// still have all of it in the generation in which the second has joined, whose
	// partitions it is only to give back.
	admin := c.admin()
	eventually(t, patience, "the two consumers share the topic", func() error {
		groups, err := admin.DescribeGroups(context.Background(), "tutorial")
		if err != nil {
			return err
		}
		g := groups["tutorial"]
		var shares []int
		for _, m := range g.Members {
			assigned, _ := m.Assigned.AsConsumer()
			n := 0
			for _, rt := range assigned.Topics {
				n += len(rt.Partitions)
			}
			shares = append(shares, n)
		}
		if g.State != "Stable" || !slices.Equal(shares, []int{3, 3}) {
			return fmt.Errorf("%s, the members have %v of 6 partitions", g.State, shares)
		}
		return nil
	})
	c.sendNumbered(600)
	var holds []string
	eventually(t, patience, "one consumer holds records and the other has printed some", func() error {
		b, _ := os.ReadFile(held)
		holds = strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(b)), " ", "/"))
		mu.Lock()
		defer mu.Unlock()
		if len(holds) == 0 || len(seen) == 0 {
			return fmt.Errorf("%d held, %d printed", len(holds), len(seen))
		}
		return nil
	})
	mu.Lock()
	for _, h := range holds {
		if _, ok := seen[strings.ReplaceAll(h, "/", " ")]; ok {
			t.Errorf("both consumers got %s", h)
		}
	}
	mu.Unlock()
	killed := time.Now()
	holder.Kill()
	var last time.Time
	eventually(t, patience, "the other consumer gets what the first one held", func() error {
		mu.Lock()
		defer mu.Unlock()
		for _, h := range holds {
			at, ok := seen[strings.ReplaceAll(h, "/", " ")]
			if !ok {
				return fmt.Errorf("%s has not come", h)
			}
			if at.After(last) {
				last = at
			}
		}
		if len(seen) != 600 {
			return fmt.Errorf("%d of 600 records", len(seen))
		}
		return nil
	})
	figure(t, "a consumer killed while it held %d records: another had them %s later (its session lasts 6 s)", len(holds), millis(last.Sub(killed)))
}

// cksum is POSIX cksum's checksum: CRC-32 with the most significant bit first,
// over the bytes and their number.
// cksum([]byte("abc")) is 1219131554.
func cksum(p []byte) uint32 {
	crc := uint32(0)
	add := func(b byte) {
		crc ^= uint32(b) << 24
		for range 8 {
			if crc&(1<<31) != 0 {
				crc = crc<<1 ^ 0x04c11db7
			} else {
				crc <<= 1
			}
		}
	}
	for _, b := range p {
		add(b)
	}
	for n := len(p); n > 0; n >>= 8 {
		add(byte(n))
	}
	return ^crc
}

// A command fails three times in ten, by a die cast from the record and the
// attempt. Nothing is lost, and the dead letters are exactly the records whose
// every cast failed.
func TestTutorialFailuresAreRetriedAndBuried(t *testing.T) {
	const records, attempts = 600, 4
	c := startCluster(t, 3, nil)
	c.sendTutorial(records, 6)
	dir := t.TempDir()
	handled := filepath.Join(dir, "handled")
	command := fmt.Sprintf(`v=$(cat); die=$(printf '%%s %%s' "$v" "$MILLRACE_ATTEMPT" | cksum); die=${die%%%% *}
if [ $((die %% 10)) -lt 3 ]; then echo "the die says $((die %% 10))" >&2; exit 7; fi
echo "$v" >>'%s'`, handled)
	_, errs, status := c.run(nil, "consume", "tutorial", "-g", "tutorial", "-e",
		"--exec", command, "--max-retries", "3", "--backoff", "5ms", "--dead-letter", "tutorial-dead")
	if status != 0 {
		t.Fatalf("consume --exec: status %d: %s", status, errs)
	}
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	summary := lines[len(lines)-1]

	wantHandled, wantDead := []string{}, make(map[string]string) // value to reason
	for i := range records {
		v := string(numbered(i).Value)
		last := uint32(0)
		failed := 0
		for a := 1; a <= attempts; a++ {
			if last = cksum(fmt.Appendf(nil, "%s %d", v, a)) % 10; last >= 3 {
				break
			}
			failed++
		}
		if failed == attempts {
			wantDead[v] = fmt.Sprintf("exit status 7: the die says %d", last)
		} else {
			wantHandled = append(wantHandled, v)
		}
	}
	if len(wantDead) == 0 {
		t.Fatal("no record is to fail every time: the test would show nothing")
	}
	b, err := os.ReadFile(handled)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(got)
	slices.Sort(wantHandled)
	if !slices.Equal(got, wantHandled) {
		t.Errorf("the records handled: %s", firstDifference(got, wantHandled))
	}

	client := c.client(kgo.ConsumeTopics("tutorial-dead"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ends, err := kadm.NewClient(client).ListEndOffsets(context.Background(), "tutorial-dead")
	if err != nil {
		t.Fatal(err)
	}
	letters := int64(0)
	ends.Each(func(o kadm.ListedOffset) { letters += o.Offset })
	if letters != int64(len(wantDead)) {
		t.Errorf("%d dead letters, want %d", letters, len(wantDead))
	}
	source := c.readTutorial(records)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for n := int64(0); n < letters; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d dead letters read", n, letters)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			headers := make(map[string]string)
			for _, h := range r.Headers {
				headers[h.Key] = string(h.Value)
			}
			origin, ok := source[string(r.Value)]
			if !ok || string(origin.Key) != string(r.Key) {
				t.Errorf("the dead letter %q with key %q is none of the records", r.Value, r.Key)
				return
			}
			want := map[string]string{
				"millrace.reason": wantDead[string(r.Value)], "millrace.attempts": fmt.Sprint(attempts), "millrace.topic": "tutorial",
				"millrace.partition": fmt.Sprint(origin.Partition), "millrace.offset": fmt.Sprint(origin.Offset),
				"millrace.timestamp": fmt.Sprint(origin.Timestamp.UnixMilli()),
			}
			for k, v := range want {
				if headers[k] != v {
					t.Errorf("the dead letter %q: header %s is %q, want %q", r.Value, k, headers[k], v)
				}
			}
			delete(wantDead, string(r.Value))
		})
	}
	for v := range wantDead {
		t.Errorf("%q failed every time and is no dead letter", v)
	}
	at, err := committed(c.admin(), "tutorial", "tutorial")
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, o := range at {
		total += o
	}
	if total != records {
		t.Errorf("%d records are committed, want %d", total, records)
	}
	figure(t, "%d records, a handler that fails 30 %% of the time: 0 lost, %d dead letters; %q", records, letters, summary)
}

// readTutorial reads all records of the tutorial, by value.
func (c *cluster) readTutorial(n int) map[string]*kgo.Record {
	c.t.Helper()
	client := c.client(kgo.ConsumeTopics("tutorial"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := make(map[string]*kgo.Record)
	for len(all) < n && ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) { all[string(r.Value)] = r })
	}
	if len(all) != n {
		c.t.Fatalf("%d of %d records read", len(all), n)
	}
	return all
}
