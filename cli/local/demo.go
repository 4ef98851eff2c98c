package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/testdata"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

// DemoCommand is `millrace demo`.
func DemoCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "demo",
		Usage: "see three brokers lose nothing while they are killed",
		Description: `   Starts three brokers in a temporary folder on free ports and produces 20,000 flights by
   airport. Half-way it kills the leader of partition 0 with -9. It reads everything back and
   compares: every record there, once, unchanged, in order for each key. It kills all three,
   starts them again, and replays from the beginning and from a time.

   Exit status 0 means that nothing was lost or changed.

EXAMPLES:
   $ millrace demo
   $ millrace demo --keep`,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "keep", Usage: "leave the cluster running, and say how to reach it"},
		},
		Action: demo,
	}
}

const (
	demoTopic   = "flights"
	demoTimeout = 2 * time.Minute
)

// demoFrom is the time of the second replay: the last of the three months.
var demoFrom = time.Date(2001, 3, 1, 0, 0, 0, 0, time.UTC)

// A flight is a record of the demo, and where it was acknowledged.
type flight struct {
	key, value string
	time       time.Time
	partition  int32
	offset     int64
}

func demo(c *urfave.Context) (err error) {
	if c.NArg() > 0 {
		return term.Usage("demo takes no arguments")
	}
	if err := keepsLogs(); err != nil {
		return err
	}
	flights, err := readFlights()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-demo-")
	if err != nil {
		return err
	}
	addresses, err := freeAddresses(3)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, demoTimeout)
	defer cancel()
	d := &demonstration{w: c.App.Writer, cluster: NewNodes(dir, addresses, c.Bool("keep")), flights: flights}
	err = d.run(ctx)
	switch {
	case err == nil && c.Bool("keep"):
		d.leave(dir)
		return nil
	case err == nil:
		d.cluster.Kill(d.cluster.All...) // nothing of it is kept
		exe := ownName()
		fmt.Fprintf(d.w, "\nNothing was lost. Next, break it yourself:\n")
		fmt.Fprintf(d.w, "   %s demo --keep   leaves the brokers running, and says how to reach them\n", exe)
		fmt.Fprintf(d.w, "   %s up            starts three of your own\n", exe)
		return os.RemoveAll(dir)
	}
	// What went wrong is in the logs.
	d.cluster.Kill(d.cluster.All...)
	if c.Context.Err() != nil {
		os.RemoveAll(dir)
		return term.Fail(term.StatusFailed, "interrupted")
	}
	return fmt.Errorf("%w; the nodes' folders and logs are in %s", err, dir)
}

// A demonstration is one run of the demo. Each step prints a line with its figure.
type demonstration struct {
	w       io.Writer
	cluster *Nodes
	flights []flight // in the order produced
	begin   time.Time
}

func (d *demonstration) step(name, format string, args ...any) {
	text := fmt.Sprintf("%s  (%s)", fmt.Sprintf(format, args...), term.Seconds(time.Since(d.begin)))
	if width := term.TerminalWidth(d.w); width > 0 {
		text = strings.TrimSpace(term.Wrapped(text, 11, max(width, 40)))
	}
	fmt.Fprintf(d.w, "%-9s  %s\n", name, text)
	d.begin = time.Now()
}

func (d *demonstration) run(ctx context.Context) error {
	d.begin = time.Now()
	if err := d.cluster.StartAll(ctx); err != nil {
		return err
	}
	d.step("started", "three brokers on %s", strings.Join(d.cluster.Addresses(), ", "))
	if err := d.produce(ctx); err != nil {
		return err
	}
	if err := d.replay(ctx, "consumed", kafka.Span{}, "", d.flights); err != nil {
		return err
	}
	d.cluster.Kill(d.cluster.All...)
	d.step("killed", "all three with -9")
	if err := d.cluster.StartAll(ctx); err != nil {
		return err
	}
	d.step("started", "all three again, on what they have on disk")
	if err := d.replay(ctx, "replayed", kafka.Span{}, " from the beginning", d.flights); err != nil {
		return err
	}
	since := kafka.Span{From: kafka.Point{Kind: kafka.AtTime, Time: demoFrom}}
	return d.replay(ctx, "replayed", since, " from "+demoFrom.Format(time.DateOnly)+" on", flightsSince(d.flights, demoFrom))
}

// produce creates the topic and sends every flight; once half of them are
// acknowledged and more are on their way it kills the leader of partition 0.
func (d *demonstration) produce(ctx context.Context) error {
	client, err := kafka.DialBrokers(ctx, d.cluster.Addresses(), kgo.UnknownTopicRetries(kafka.UnknownRetries), kgo.MaxBufferedRecords(len(d.flights)))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	// The records carry the times of 2001: seven days of retention would take them.
	forever := "-1"
	if _, err := admin.CreateTopic(ctx, 3, 3, map[string]*string{"retention.ms": &forever}, demoTopic); err != nil {
		return fmt.Errorf("create topic %s: %w", demoTopic, err)
	}
	d.step("created", "topic %s: 3 partitions, 3 replicas", demoTopic)

	var (
		acknowledged atomic.Int64
		killedAt     atomic.Int64 // ns since 1970, 0 before
		recovery     atomic.Int64 // ns from the kill to the first record sent after it to be acknowledged in partition 0
		mu           sync.Mutex
		failed       error
	)
	send := func(i int, afterKill bool) {
		f := &d.flights[i]
		r := &kgo.Record{Topic: demoTopic, Key: []byte(f.key), Value: []byte(f.value), Timestamp: f.time}
		client.Produce(ctx, r, func(r *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
				return
			}
			f.partition, f.offset = r.Partition, r.Offset
			acknowledged.Add(1)
			if afterKill && r.Partition == 0 {
				recovery.CompareAndSwap(0, time.Now().UnixNano()-killedAt.Load())
			}
		})
	}
	half, inFlight := len(d.flights)/2, 1000
	for i := range half {
		send(i, false)
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	d.step("produced", "%s flights, keyed by airport, on a quorum's disks", term.Number(half))
	victim, err := d.leader(ctx, admin, 0)
	if err != nil {
		return err
	}
	for i := half; i < half+inFlight; i++ {
		send(i, false)
	}
	killedAt.Store(time.Now().UnixNano())
	d.cluster.Kill(victim)
	d.step("killed", "node %d (pid %d) with -9: it led partition 0, and %s flights were on their way", victim.ID, victim.PID, term.Number(inFlight))
	for i := half + inFlight; i < len(d.flights); i++ {
		send(i, true)
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		return failed
	}
	d.step("produced", "%s flights, all acknowledged; partition 0 went on %s after the kill",
		term.Number(acknowledged.Load()), term.Seconds(time.Duration(recovery.Load())))
	return nil
}

// leader returns the node that leads a partition of the demo's topic.
func (d *demonstration) leader(ctx context.Context, admin *kadm.Client, partition int32) (*Child, error) {
	t, err := kafka.DescribeTopic(ctx, admin, demoTopic)
	if err != nil {
		return nil, err
	}
	leader := t.Partitions[partition].Leader
	if leader < 1 || int(leader) > len(d.cluster.All) {
		return nil, fmt.Errorf("partition %d of topic %s has no leader", partition, demoTopic)
	}
	return d.cluster.All[leader-1], nil
}

// replay reads what lies in a span, with a client that knows nothing yet, and
// compares it with the flights that must be there.
func (d *demonstration) replay(ctx context.Context, verb string, what kafka.Span, whence string, want []flight) error {
	got, err := readAll(ctx, d.cluster.Addresses(), demoTopic, what)
	if err != nil {
		return err
	}
	airports, err := compare(want, got)
	if err != nil {
		return fmt.Errorf("%s%s: %w", verb, whence, err)
	}
	d.step(verb, "%s flights%s: none lost, none changed, none twice, in order for each of %s", term.Number(len(got)), whence, term.Count(airports, "airport"))
	return nil
}

// readAll reads a topic up to its present end.
func readAll(ctx context.Context, brokers []string, topic string, what kafka.Span) (all []*kgo.Record, err error) {
	whole, err := kafka.EachRecord(ctx, brokers, topic, what, func(r *kgo.Record) { all = append(all, r) })
	if err == nil && !whole {
		err = ctx.Err()
	}
	return all, err
}

// compare checks that got is exactly want: each record where it was acknowledged,
// unchanged, once, and the records of each key in the order of want. It returns
// how many keys there are. got is in the order read, partition by partition.
func compare(want []flight, got []*kgo.Record) (keys int, err error) {
	type place struct {
		partition int32
		offset    int64
	}
	read := make(map[place]*kgo.Record, len(got))
	lost, changed, twice, strange, disordered := 0, 0, 0, 0, 0
	next := make(map[int32]int64)
	for _, r := range got {
		at := place{r.Partition, r.Offset}
		if read[at] != nil || r.Offset < next[r.Partition] {
			twice++
		}
		read[at] = r
		next[r.Partition] = r.Offset + 1
	}
	last := make(map[string]place)
	for _, f := range want {
		at := place{f.partition, f.offset}
		switch r := read[at]; {
		case r == nil:
			lost++
		case string(r.Key) != f.key || string(r.Value) != f.value || !r.Timestamp.Equal(f.time):
			changed++
		}
		if before, ok := last[f.key]; ok && (before.partition != at.partition || before.offset >= at.offset) {
			disordered++
		}
		last[f.key] = at
		delete(read, at)
	}
	strange = len(read)
	if lost+changed+twice+strange+disordered > 0 {
		return 0, fmt.Errorf("%s expected, %s read: %d lost, %d changed, %d twice, %d never acknowledged, %d out of order",
			term.Count(len(want), "flight"), term.Number(len(got)), lost, changed, twice, strange, disordered)
	}
	return len(last), nil
}

// flightsSince returns the flights a replay from a time yields: in each partition, from
// the first at or after that time on. Flights are only nearly sorted by time.
func flightsSince(flights []flight, from time.Time) []flight {
	first := make(map[int32]int64)
	for _, f := range flights {
		if o, ok := first[f.partition]; !f.time.Before(from) && (!ok || f.offset < o) {
			first[f.partition] = f.offset
		}
	}
	return slices.DeleteFunc(slices.Clone(flights), func(f flight) bool {
		o, ok := first[f.partition]
		return !ok || f.offset < o
	})
}

// leave prints how to reach a cluster that goes on.
func (d *demonstration) leave(dir string) {
	var pids []string
	for _, n := range d.cluster.All {
		pids = append(pids, fmt.Sprint(n.PID))
	}
	exe := ownName()
	fmt.Fprintf(d.w, "\nThe cluster goes on. Its folders and logs are in %s\n", dir)
	fmt.Fprintf(d.w, "   reach it:  export MILLRACE_BROKERS=%s\n", strings.Join(d.cluster.Addresses(), ","))
	fmt.Fprintf(d.w, "   then:      %s consume %s -n 5\n", exe, demoTopic)
	fmt.Fprintf(d.w, "   stop it:   kill %s; rm -r %s\n", strings.Join(pids, " "), dir)
}

// ownName is how somebody at this prompt runs this program again: by its name where the
// shell finds it, else by where it is.
func ownName() string {
	exe, err := os.Executable()
	if err != nil {
		return "millrace"
	}
	if found, err := exec.LookPath("millrace"); err == nil && sameFile(found, exe) {
		return "millrace"
	}
	if strings.Contains(exe, "go-build") { // go run removes it when it ends
		return "go run ./cli/millrace"
	}
	if found, err := filepath.Rel(".", exe); err == nil && !strings.HasPrefix(found, "..") {
		return "./" + found
	}
	return exe
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// readFlights reads the data set compiled into the binary.
func readFlights() ([]flight, error) {
	var flights []flight
	for line := range strings.Lines(testdata.Flights) {
		line = strings.TrimSuffix(line, "\n")
		var fields struct{ Date, Origin string }
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			return nil, fmt.Errorf("flights: %w", err)
		}
		t, err := time.Parse("2006/01/02 15:04", fields.Date)
		if err != nil {
			return nil, fmt.Errorf("flights: %w", err)
		}
		flights = append(flights, flight{key: fields.Origin, value: line, time: t})
	}
	return flights, nil
}
