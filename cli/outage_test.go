package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func TestAnOutageIsOneSentence(t *testing.T) {
	two, three := registered{node: 2, address: "b:1"}, registered{node: 3, address: "c:1"}
	for _, test := range []struct {
		outage
		want string
	}{
		{outage{brokers: 3}, ""},
		{outage{brokers: 3, away: []registered{three}}, "broker 3 at c:1 does not answer, one of 3; start it, or see `millrace cluster health`"},
		{outage{brokers: 3, away: []registered{two, three}}, "no majority: brokers 2 at b:1, 3 at c:1 do not answer, 2 of 3; start them, or see `millrace cluster health`"},
		{outage{brokers: 2, away: []registered{two}}, "no majority: broker 2 at b:1 does not answer, one of 2; start it, or see `millrace cluster health`"},
		{outage{brokers: 3, away: []registered{three}, leaderless: []string{"t/0"}}, "t/0 has no leader: broker 3 at c:1 does not answer, one of 3; start it, or see `millrace cluster health`"},
		{outage{brokers: 3, away: []registered{two, three}, leaderless: []string{"t/0", "t/1"}}, "t/0, t/1 have no leader for want of a majority: brokers 2 at b:1, 3 at c:1 do not answer, 2 of 3; start them, or see `millrace cluster health`"},
		{outage{brokers: 3, leaderless: []string{"t/0"}, group: "g"}, "t/0 has no leader, and group \"g\" has no coordinator; see `millrace cluster health`"},
		{outage{brokers: 3, headless: true}, "the controllers have no leader; see `millrace cluster health`"},
		{outage{unreached: errors.New("cannot reach a broker at a:1")}, "cannot reach a broker at a:1"},
	} {
		if got := test.outage.String(); got != test.want {
			t.Errorf("%+v\n got %s\nwant %s", test.outage, got, test.want)
		}
	}
	names := []string{"t/10", "a/3", "t/9", "a-b/0"}
	if slices.SortFunc(names, byPartition); !slices.Equal(names, []string{"a/3", "a-b/0", "t/9", "t/10"}) {
		t.Error(names)
	}
}

// Whatever a library says of brokers that do not answer, a user is told what is wrong with
// the cluster; what a broker said itself stays.
func TestNoLibrarySpeaks(t *testing.T) {
	refused := fmt.Errorf("unable to dial: %w", &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9493}, Err: os.NewSyscallError("connect", term.ErrnoRefused)})
	shards := func(err error) error {
		return &kadm.ShardErrors{Name: "ListGroups", Errs: []kadm.ShardError{{Err: err}, {Err: err}}}
	}
	for _, test := range []struct {
		err         error
		with, alone string // where there is a cause, and where none is found
	}{
		{refused, "CAUSE", "connection refused at 127.0.0.1:9493"},
		{fmt.Errorf("broker 2: %w", refused), "broker 2: CAUSE", "broker 2: connection refused at 127.0.0.1:9493"},
		{fmt.Errorf("list groups: %w", shards(refused)), "list groups: CAUSE", "list groups: connection refused at 127.0.0.1:9493"},
		{fmt.Errorf("list offsets: %w", shards(kerr.LeaderNotAvailable)), "list offsets: CAUSE", "list offsets: no leader now (LEADER_NOT_AVAILABLE)" + kafka.HealthSays},
		{kafka.TopicError("t", kerr.LeaderNotAvailable, ""), "topic \"t\": CAUSE", "topic \"t\": no leader now (LEADER_NOT_AVAILABLE)" + kafka.HealthSays},
		{kafka.TopicError("t", refused, ""), "topic \"t\": CAUSE", "topic \"t\": connection refused at 127.0.0.1:9493"},
		{kafka.TopicError("t", kerr.RequestTimedOut, "The request timed out; whether it took effect is not known."),
			"topic \"t\": The request timed out; whether it took effect is not known; CAUSE", "topic \"t\": The request timed out; whether it took effect is not known."},
		{kafka.GroupError("g", shards(kerr.CoordinatorNotAvailable)), "group \"g\": CAUSE", "group \"g\": The coordinator is not available (COORDINATOR_NOT_AVAILABLE)"},
		{kafka.TopicError("t", kerr.NotEnoughReplicas, ""), "topic \"t\": Messages are rejected since there are fewer in-sync replicas than required (NOT_ENOUGH_REPLICAS); CAUSE",
			"topic \"t\": Messages are rejected since there are fewer in-sync replicas than required (NOT_ENOUGH_REPLICAS)"},
		{recordError(0, &kgo.Record{Topic: "t"}, refused, 5*time.Second), "record 1 was not acknowledged within 5s; whether it is stored is not known; CAUSE",
			"record 1 was not acknowledged within 5s; whether it is stored is not known"},
		{fmt.Errorf("list groups: %w", context.DeadlineExceeded), "list groups: CAUSE", "list groups: no answer"},
	} {
		if !wanting(test.err) {
			t.Errorf("nobody would ask why: %v", test.err)
		}
		if got := inOurWords(test.err, "CAUSE"); got != test.with {
			t.Errorf("%v\n got %s\nwant %s", test.err, got, test.with)
		}
		if got := inOurWords(test.err, ""); got != test.alone {
			t.Errorf("%v\n got %s\nwant %s", test.err, got, test.alone)
		}
	}
	for _, err := range []error{
		kafka.TopicError("t", kerr.UnknownTopicOrPartition, ""), kafka.TopicError("t", kerr.TopicAlreadyExists, ""), term.Usage("no"), kafka.Unreachable(t.Context(), []string{"a:1"}, refused),
		&term.Silent{Status: term.StatusUnhealthy}, term.Fail(term.StatusNotFound, "topic %q has no partition 7", "t"), kerr.KafkaStorageError,
	} {
		if wanting(err) {
			t.Errorf("the cluster would be asked why of %v", err)
		}
	}
}

// A fakeAwaited is what a test says of it.
type fakeAwaited struct {
	come  func() (bool, int64)
	wrong func() string
	told  func(string)
}

func (f fakeAwaited) progress() (waits bool, done int64) { return f.come() }
func (f fakeAwaited) look(context.Context) string        { return f.wrong() }
func (f fakeAwaited) say(why string)                     { f.told(why) }

// What a command waits for is said after five seconds without progress, then every ten, and
// not at all while anything comes, or nothing is waited for, or nothing is wrong.
func TestWhatIsWaitedForIsSaidNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		waits, done, wrong, looks := true, int64(0), "t/0 has no leader", 0
		var said []string
		begin := time.Now()
		v := &vigil{awaited: fakeAwaited{
			func() (bool, int64) { mu.Lock(); defer mu.Unlock(); return waits, done },
			func() string { mu.Lock(); defer mu.Unlock(); looks++; return wrong },
			func(why string) {
				mu.Lock()
				defer mu.Unlock()
				said = append(said, fmt.Sprintf("%v %s", time.Since(begin), why))
			},
		}}
		step := func(d time.Duration, change func()) {
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
			change()
			mu.Unlock()
		}
		go v.keep(ctx)
		for range 100 { // what comes every four seconds is not waited for
			step(4*time.Second, func() { done++ })
		}
		if len(said) != 0 || looks != 0 || v.because() != "" {
			t.Fatalf("%d looks and %q while all was well", looks, said)
		}
		step(time.Minute, func() { waits = false })
		want := []string{"6m46s t/0 has no leader", "6m56s t/0 has no leader", "7m6s t/0 has no leader", "7m16s t/0 has no leader", "7m26s t/0 has no leader", "7m36s t/0 has no leader"}
		if !slices.Equal(said, want) || v.because() != ": t/0 has no leader" {
			t.Errorf("said %q, because %q", said, v.because())
		}
		step(time.Hour, func() { waits, wrong = true, "" })
		if v.because() != "" {
			t.Errorf("because %q after the end", v.because())
		}
		step(time.Minute, func() {})
		if len(said) != len(want) {
			t.Errorf("said %q while nothing was waited for or wrong", said[len(want):])
		}
		stop()
		synctest.Wait()
	})
}

// Who asks is told after five seconds what keeps the answer away, and given up on after
// fifteen; who follows waits for as long as it takes, however long an attempt hangs.
func TestWhoFollowsIsNotGivenUpOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		away := func(ctx context.Context) error {
			if time.Since(begin) < time.Hour {
				return kerr.CoordinatorNotAvailable
			}
			return nil
		}
		var told []time.Duration
		v := &vigil{awaited: fakeAwaited{
			func() (bool, int64) { return true, 0 },
			func() string { return "no majority" },
			func(string) { told = append(told, time.Since(begin)) },
		}}
		err := v.settle(t.Context(), away)
		synctest.Wait()
		if took := time.Since(begin); !errors.Is(err, kerr.CoordinatorNotAvailable) || took != kafka.SettleTimeout || len(told) == 0 || told[0] != vigilPatience {
			t.Errorf("%v after %v, told at %v", err, took, told)
		}
		r := &reading{c: flagsOf(t, "consume")}
		if err := kafka.SettleFor(t.Context(), r.patience(), away); err != nil || time.Since(begin) < time.Hour {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		attempts := 0
		hangs := func(ctx context.Context) error {
			if attempts++; attempts == 3 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		if err := kafka.SettleFor(t.Context(), r.patience(), hangs); err != nil || attempts != 3 {
			t.Errorf("%v after %d attempts", err, attempts)
		}
		if r = (&reading{c: flagsOf(t, "consume", "--exit")}); r.patience() != kafka.SettleTimeout {
			t.Errorf("who does not follow waits for %v", r.patience())
		}
	})
}

// flagsOf returns the command line of a command, as the command sees it.
func flagsOf(t *testing.T, args ...string) *urfave.Context {
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set.Bool("exit", false, "")
	if err := set.Parse(args[1:]); err != nil {
		t.Fatal(err)
	}
	return urfave.NewContext(urfave.NewApp(), set, nil)
}

// With two of three nodes gone, every command that asks the cluster says what is wrong with
// it. Who produces and consumes is told meanwhile, and goes on when they are back.
func TestWithoutAMajorityEveryCommandSaysSo(t *testing.T) {
	c := clitest.StartCluster(t, 3)
	c.Do("", "topic", "create", "orders", "spare", "-p3", "-r3") // what is done to spare may yet take effect
	c.Do("", "produce", "orders", "-q", "one", "two", "three")
	c.Do("", "consume", "orders", "-g", "audit", "-e")
	for i := range int32(3) {
		c.Leader("orders", i)
	}

	// These have begun before it happens.
	begin := func(records int, args ...string) (said *bufio.Reader, end func() error) {
		cmd := clitest.Command(t, c.Addresses(), args...)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stdout)
		for range records {
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		return bufio.NewReader(stderr), cmd.Wait
	}
	following, endFollowing := begin(3, "consume", "orders", "-n", "4")
	member, endMember := begin(3, "consume", "orders", "-g", "new", "-n", "4")
	c.Kill(c.All[1], c.All[2])
	producing, endProducing := begin(0, "produce", "orders", "four")

	away := fmt.Sprintf("for want of a majority: brokers 2 at %s, 3 at %s do not answer, 2 of 3; start them, or see `millrace cluster health`\n", c.All[1].Address, c.All[2].Address)
	for _, test := range []struct {
		said *bufio.Reader
		want string
	}{
		{producing, "waiting for 1 record to be acknowledged: orders/0, orders/1, orders/2 have no leader"},
		{following, "waiting: orders/0, orders/1, orders/2 have no leader"},
		{member, "waiting: orders/0, orders/1, orders/2 have no leader, and group \"new\" has no coordinator"},
	} {
		// The first words may come before all have noticed.
		want := "millrace: " + test.want + " " + away
		for {
			line, err := test.said.ReadString('\n')
			if err != nil {
				t.Fatalf("the end came instead of %q: %v", want, err)
			}
			if line == want {
				break
			}
			if !strings.HasPrefix(line, "millrace: waiting") {
				t.Fatalf("%q instead of %q", line, want)
			}
		}
	}

	var asked sync.WaitGroup
	for _, line := range []string{
		"topic create more", "topic delete spare --yes", "topic alter spare -p 5", "topic alter spare -c retention.ms=1000", "topic trim orders -o 1",
		"group list", "group describe audit", "group delete audit --yes", "group seek audit --to start",
		"consume orders -e", "consume orders -g more -e", "produce spare five --timeout 1s", "produce missing six --timeout 10s", "bench produce --duration 1s",
	} {
		asked.Go(func() {
			r := clitest.Run(t, c.Addresses(), "", strings.Fields(line)...)
			lines := strings.Split(strings.TrimSuffix(r.Stderr, "\n"), "\n")
			last := lines[len(lines)-1]
			if r.Status != term.StatusFailed && r.Status != term.StatusTimedOut || !strings.Contains(last, "majority: brokers 2 at ") || !strings.HasSuffix(last+"\n", strings.SplitN(away, ": ", 2)[1]) {
				t.Errorf("millrace %s: status %d, %s", line, r.Status, r.Stderr)
			}
			for _, foreign := range []string{"shard", "dial", "tcp", "election"} {
				if strings.Contains(r.Stderr, foreign) {
					t.Errorf("millrace %s speaks of %s: %s", line, foreign, r.Stderr)
				}
			}
		})
	}
	// What a broker that is left can tell, it tells, with what is known of the others.
	for line, want := range map[string]string{
		"topic list": "orders", "topic describe orders": "unknown", "topic config orders retention.ms": "retention.ms=",
		"cluster metadata": "orders", "cluster config list num.partitions": "num.partitions=", "cluster status": "down",
	} {
		asked.Go(func() {
			r := clitest.Run(t, c.Addresses(), "", strings.Fields(line)...)
			if r.Status != term.StatusDone || !strings.Contains(r.Stdout, want) || strings.Contains(r.Stdout, "deleted next") {
				t.Errorf("millrace %s: status %d, %s%s", line, r.Status, r.Stdout, r.Stderr)
			}
			if !strings.Contains(r.Stdout+r.Stderr, c.All[1].Address) || line != "cluster status" && !strings.HasSuffix(r.Stderr, "millrace: not everything can be told: no majority: "+strings.SplitN(away, ": ", 2)[1]) {
				t.Errorf("millrace %s does not say who is away: %s%s", line, r.Stdout, r.Stderr)
			}
			if line == "topic describe orders" && !strings.Contains(r.Stdout, "2,3") {
				t.Errorf("replicas that are down: %s", r.Stdout)
			}
		})
	}
	// Interrupted before it could begin, it says the same; or it had given up just then.
	for _, args := range [][]string{{"consume", "orders"}, {"consume", "orders", "-g", "fresh", "-n", "1"}, {"produce", "spare", "six"}} {
		asked.Go(func() {
			cmd := clitest.Command(t, c.Addresses(), args...)
			stderr, err := cmd.StderrPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Error(err)
				return
			}
			lines := bufio.NewReader(stderr)
			if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "millrace: waiting") {
				t.Errorf("%s: %q, %v", args, line, err)
			}
			cmd.Process.Signal(os.Interrupt)
			last := ""
			for line, err := lines.ReadString('\n'); err == nil; line, err = lines.ReadString('\n') {
				last = line
			}
			cmd.Wait()
			if !strings.HasPrefix(last, "millrace: interrupted") && !strings.HasPrefix(last, "millrace: list offsets") || !strings.Contains(last, "majority: brokers 2 at ") {
				t.Errorf("%s, interrupted: %q", args, last)
			}
		})
	}
	asked.Wait()

	c.Start()
	if err := endProducing(); err != nil {
		t.Errorf("produce with its majority back: %v", err)
	}
	if err := endFollowing(); err != nil {
		t.Errorf("consume with its majority back: %v", err)
	}
	if err := endMember(); err != nil {
		t.Errorf("consume -g with its majority back: %v", err)
	}
}
