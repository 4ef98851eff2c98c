package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/local"
	"millrace/cli/term"
	"millrace/docs"
	"millrace/replication/metadata/settings"
	"millrace/testdata"
	"millrace/testdata/ports"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestConsumePrintsExactlyWhatWasProduced(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		topic := "quakes-" + codec
		c.Do("", "topic", "create", topic, "-p1", "-r3")
		r := c.Do(testdata.Earthquakes, "produce", topic, "-q", "-z", codec)
		if r.Stdout != "" || r.Stderr != "" {
			t.Errorf("produce -q -z %s printed %q, %q", codec, r.Stdout, r.Stderr)
		}
		if got := c.Do("", "consume", topic, "-e", "--format", "value").Stdout; got != testdata.Earthquakes {
			t.Errorf("-z %s: %d bytes in, %d out, and not the same", codec, len(testdata.Earthquakes), len(got))
		}
	}
	c.Do("", "topic", "create", "flights", "-p3", "-r3")
	c.Do(testdata.Flights, "produce", "flights", "--key-field", "origin", "-q")
	c.MustBeFlights("flights")

	// A topic copied as JSON is the same records at the same times.
	quakes := c.Do("", "produce", "quakes", "--file", clitest.DataFile(t, "earthquakes.jsonl"), "-p0", "--key-field", "net", "--timestamp-field", "time", "-H", "unit=ms")
	if n := strings.Count(quakes.Stdout, "\n"); n != 1707 || !strings.HasPrefix(quakes.Stdout, "quakes/0@0\nquakes/0@1\n") {
		t.Errorf("%d lines, beginning %.30q", n, quakes.Stdout)
	}
	before := c.Do("", "consume", "quakes", "-e", "--format", "json").Stdout
	c.Do(before, "produce", "copies", "--jsonl", "-q", "-p0")
	after := c.Do("", "consume", "copies", "-e", "--format", "json").Stdout
	if after != strings.ReplaceAll(before, `"topic":"quakes"`, `"topic":"copies"`) {
		t.Error("a copy through --format json and --jsonl differs")
	}
}

func TestConsumeReadsFromAnywhere(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "days", "-p1")
	// A record a day, at noon, from the first of March on.
	var lines strings.Builder
	for day := 1; day <= 20; day++ {
		fmt.Fprintf(&lines, `{"day":%d,"at":"2026-03-%02dT12:00:00Z"}`+"\n", day, day)
	}
	c.Do("", "topic", "alter", "days", "-c", "retention.ms=-1")
	c.Do(lines.String(), "produce", "days", "-q", "--timestamp-field", "at")
	for _, test := range []struct {
		offset      string
		first, last int // days
	}{
		{"start", 1, 20}, {":end", 1, 20}, {"0", 1, 20}, {"5", 6, 20}, {"5:7", 6, 7}, {":3", 1, 3}, {"+18", 19, 20}, {"-3", 18, 20}, {"-100", 1, 20},
		{"@2026-03-05", 5, 20}, {"@2026-03-05T12:00:00Z", 5, 20}, {"@2026-03-05T12:00:00.001Z", 6, 20}, {"@2026-03-05:2026-03-08", 5, 7},
		{"@2026-03-05:48h", 5, 6}, {"@:2026-03-03", 1, 2}, {"@2026-03-19:end", 19, 20}, {"@2027-01-01", 0, 0}, {"end", 0, 0}, {"5:5", 0, 0},
	} {
		var want []string
		for day := test.first; day >= 1 && day <= test.last; day++ {
			want = append(want, fmt.Sprint(day-1))
		}
		got := c.Do("", "consume", "days", "-e", "-o", test.offset, "--format", "%o ").Stdout
		if strings.TrimSpace(got) != strings.Join(want, " ") {
			t.Errorf("-o %s: offsets %s, want %s", test.offset, got, strings.Join(want, " "))
		}
	}
	if got := c.Do("", "consume", "days", "-n", "3", "--format", "%o ").Stdout; got != "0 1 2 " {
		t.Errorf("-n 3: %s", got)
	}
	if got := c.Do("", "consume", "-r", "^da", "nothing", "-o", ":end", "-n", "2", "--format", "%t/%o ").Stdout; got != "days/0 days/1 " {
		t.Errorf("-r: %s", got)
	}
	for _, test := range []struct {
		args   string
		status int
	}{
		{"consume nowhere -e", term.StatusNotFound},
		{"consume days -e -p 7", term.StatusNotFound},
		{"produce days -p 7 x", term.StatusNotFound},
		{"topic describe nowhere", term.StatusNotFound},
		{"topic delete nowhere --yes", term.StatusNotFound},
		{"topic trim nowhere -o 1 --yes", term.StatusNotFound},
		{"topic alter nowhere -c retention.ms=1", term.StatusNotFound},
		{"topic delete days", term.StatusUsage},
		{"topic trim days -o 5", term.StatusUsage},
		{"topic trim days -o 500 --yes", term.StatusUsage},
		{"topic create days", term.StatusFailed},
		{"topic create bad/name", term.StatusFailed},
		{"topic create settings -c no.such.setting=1", term.StatusFailed},
		{"produce days --file /no/such/file", term.StatusNotFound},
	} {
		r := clitest.Run(t, c.Addresses(), "", strings.Fields(test.args)...)
		if r.Status != test.status || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("millrace %s: status %d, want %d, %q", test.args, r.Status, test.status, r.Stderr)
		}
	}
	c.Do("", "topic", "trim", "days", "-o", "5", "--dry-run")
	if got := c.Do("", "topic", "trim", "days", "-o", "5", "--yes", "--no-headers").Stdout; strings.Join(strings.Fields(got), " ") != "0 0 5 5" {
		t.Errorf("trim printed %q", got)
	}
	if got := c.Do("", "consume", "days", "-o", "start", "-e", "--format", "%o ").Stdout; !strings.HasPrefix(got, "5 6 ") {
		t.Errorf("after the trim: %s", got)
	}
}

func TestConsumeFollowsAndJoinsNewPartitions(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "news", "-p1")
	cmd := clitest.Command(t, c.Addresses(), "consume", "news", "--format", "%p:%v\n")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	expect := func(want string) {
		t.Helper()
		if got, err := lines.ReadString('\n'); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	c.Do("", "produce", "news", "one")
	expect("0:one\n")
	c.Do("", "topic", "alter", "news", "-p", "2")
	c.Do("", "produce", "news", "-p1", "two")
	expect("1:two\n")
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C ends following with %v, want status 0", err)
	}
}

func TestProduceOutlivesTheLeader(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	c.Do("", "topic", "create", "flights", "-p3", "-r3")
	first, second := clitest.Halves()
	p := c.Produce("flights", "--key-field", "origin")
	p.Feed(first)
	p.Await(10_000)
	victim := c.Leader("flights", 0)
	cut := len(second) / 10
	cut += strings.IndexByte(second[cut:], '\n') + 1
	p.Feed(second[:cut]) // on its way while the leader dies
	c.Kill(victim)
	p.Feed(second[cut:])
	p.Finish(20_000)
	c.MustBeFlights("flights")
}

func TestProduceOutlivesTheWholeCluster(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	c.Do("", "topic", "create", "flights", "-p3", "-r3")
	first, second := clitest.Halves()
	p := c.Produce("flights", "--key-field", "origin")
	p.Feed(first)
	p.Await(10_000)
	cut := len(second) / 10
	cut += strings.IndexByte(second[cut:], '\n') + 1
	p.Feed(second[:cut])
	c.Kill(c.All...)
	c.Start()
	p.Feed(second[cut:])
	p.Finish(20_000)
	c.MustBeFlights("flights")
	c.Kill(c.All...)
	c.Start()
	c.MustBeFlights("flights")
}

// The examples of every client command's help run, in an order in which each
// finds what it needs.
func TestExamplesRun(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	dir := t.TempDir()
	if err := os.Symlink(filepath.Dir(clitest.DataFile(t, "flights.jsonl")), filepath.Join(dir, "testdata")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Base(local.DataDir), "node-1"} { // whose node is asked for what its folder shows
		if err := os.Symlink(c.All[0].Data, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	ran := make(map[string]bool)
	for _, words := range []string{
		"topic create", "produce", "consume", "group list", "group describe", "group seek", "group delete", "topic list", "topic describe", "topic config", "topic alter", "topic trim", "topic delete",
		"bench produce", "bench consume", "bench e2e", "bench tutorial",
		"cluster status", "cluster health", "cluster metadata", "cluster config list", "doctor", "version", "completion", "man",
		"cluster token", "cluster ca", "cluster remove",
	} {
		ran[words] = true
		if words == "cluster remove" {
			c.Kill(c.All[2]) // for good
		}
		if words == "cluster status" {
			c.Do("", "cluster", "health", "--wait", "30s") // replicas of the newest topics may still open
		}
		runExamples(t, dir, c.Addresses(), strings.Fields(words))
	}
	eachCommand(commands(), nil, func(words, _ []string) {
		switch name := strings.Join(words, " "); name {
		case "serve", "up", "demo", "context add", "context use", "context list", "context show", "context delete", "acl grant", "acl revoke", "acl list", "acl check", "user create", "user list", "user passwd", "user delete", "quota set", "quota list", "quota delete", "segment dump", "segment verify", "cluster rescue": // they have tests of their own
		default:
			if !ran[name] {
				t.Errorf("the examples of %s are not run", name)
			}
		}
	})
}

// The README's tour, line by line in one shell, with up on other ports and without what
// has tests of its own. Figures beside the commands are what the commands print.
func TestTheTourOfTheReadmeRuns(t *testing.T) {
	t.Parallel()
	readme, err := docs.Read(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Dir(clitest.DataFile(t, "flights.jsonl")), filepath.Join(dir, "testdata")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	base, other := ports.HoldRow(t, 3), ports.HoldRow(t, 4)
	cmd, pids, _ := clitest.UpProcess(t, filepath.Join(dir, "millrace-data"), "--restart", "--base-port", fmt.Sprint(base))
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}()
	var moved []string
	for i := range 3 {
		moved = append(moved, fmt.Sprint(":", 9092+i), fmt.Sprint(":", base+i), fmt.Sprint(":", 9192+i), fmt.Sprint(":", other+i))
	}
	moved = append(moved, ":9292", fmt.Sprint(":", other+3))
	const begins = "\x1e"
	var lines []string
	var script strings.Builder
	for _, section := range readme.Sections {
		if section.Heading == "Install" || section.Heading == "Connect" {
			continue
		}
		for _, block := range section.Blocks {
			for line := range strings.Lines(block.Code) {
				line = strings.TrimSpace(line)
				first, _, _ := strings.Cut(line, " ")
				_, lacking := exec.LookPath(first)
				switch {
				case block.Language != "sh", first == "go", strings.HasPrefix(line, "millrace up"), first == "kcat" && lacking != nil:
					continue
				case slices.Contains(lines, line) && strings.HasPrefix(line, "millrace produce"):
					fmt.Fprintf(&script, "kill -9 %d\n", pids[1]) // now break something
				case strings.HasPrefix(line, "millrace topic describe events"): // within seconds
					fmt.Fprintf(&script, `until %s -o json | tr -d ' \n' | grep -q '"replicas":\[[0-9],[0-9],[0-9]\]'; do sleep 0.1; done`+"\n", strings.Split(line, " #")[0])
				}
				lines = append(lines, line)
				fmt.Fprintf(&script, "printf '%s'\n%s\n", begins, line)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a line that waits for ever is named
	defer cancel()
	run := exec.CommandContext(ctx, "bash", "-e", "-c", strings.NewReplacer(moved...).Replace(script.String()))
	run.Dir = dir
	run.Env = append(os.Environ(), "PATH="+filepath.Dir(clitest.Program(t))+":"+os.Getenv("PATH"))
	endsWhole(run)
	run.WaitDelay = 10 * time.Second
	out, err := run.CombinedOutput()
	outputs := strings.Split(string(out), begins)[1:]
	if err != nil {
		run.Cancel() // the nodes that it started
		t.Fatalf("$ %s\n%s%v", lines[len(outputs)-1], outputs[len(outputs)-1], err)
	}
	figure := regexp.MustCompile(`# (?:.*; )?([\d,]+)(?:$|,| records are left)`)
	figures := 0
	for i, line := range lines {
		if printed := outputs[i]; strings.HasPrefix(printed, "millrace: ") || strings.Contains(printed, "\nmillrace: ") {
			t.Errorf("$ %s\n%s", line, printed)
		}
		if m := figure.FindStringSubmatch(line); m != nil {
			figures++
			want := strings.ReplaceAll(m[1], ",", "")
			if !regexp.MustCompile(`(?m)^(TOTAL-LAG +)?` + want + `\b`).MatchString(outputs[i]) {
				t.Errorf("$ %s\nprints\n%s", line, outputs[i])
			}
		}
	}
	if len(lines) < 25 || figures < 3 {
		t.Errorf("the README has %d lines to run, with %d figures", len(lines), figures)
	}
}

func TestHealthFollowsTheCluster(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	c.Do("", "topic", "create", "t", "-p3", "-r3")
	if r := clitest.Run(t, c.Addresses(), "", "topic", "create", "two", "-p1", "-r2"); r.Status != term.StatusDone || !strings.HasPrefix(r.Stderr, "millrace: warning: topic two has two replicas: ") {
		t.Errorf("a topic of two replicas: status %d, %q", r.Status, r.Stderr)
	}
	c.Do("", "topic", "delete", "two", "--yes")
	c.Do("", "cluster", "health", "--wait", "30s")
	c.Kill(c.All[2])
	// A node that is gone is named: at once by its address, and when the others have
	// missed it, with how long that is.
	want := regexp.MustCompile(`^millrace: unhealthy: broker 3 at ` + regexp.QuoteMeta(c.All[2].Address) + ` is down, for \d+ s; `)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r := clitest.Run(t, c.Addresses()[:2], "", "cluster", "health")
		if r.Status != term.StatusUnhealthy || !strings.HasPrefix(r.Stderr, "millrace: unhealthy: ") {
			t.Fatalf("with a node down: status %d, %q", r.Status, r.Stderr)
		}
		if want.MatchString(r.Stderr) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with a node down for a while: %q, want %v", r.Stderr, want)
		}
	}
	r := clitest.Run(t, c.Addresses()[:2], "", "cluster", "status")
	row := regexp.MustCompile(`(?m)^3 +` + regexp.QuoteMeta(c.All[2].Address) + ` +- +0 +3 +down \d+ s *$`)
	if r.Status != term.StatusDone || !row.MatchString(r.Stdout) || !strings.Contains(r.Stdout, "3 brokers") {
		t.Errorf("status %d, %q, want a row like %v", r.Status, r.Stdout, row)
	}
	r = clitest.Run(t, c.Addresses()[:2], "", "topic", "describe", "t", "-o", "json")
	if n := strings.Count(strings.Join(strings.Fields(r.Stdout), ""), `"down":[3]`); n != 3 {
		t.Errorf("%d of 3 partitions have a replica down: %s", n, r.Stdout)
	}
	// A topic that nobody can lead is there, and is no success.
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()[:2]...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "unled", -1, -1
	rt.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{3}}}
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), 1000
	if resp, err := req.RequestWith(t.Context(), client); err != nil || resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	err = awaitLeaders(t.Context(), kadm.NewClient(client), []string{"unled"}, time.Second)
	if want := "created, but 1 of 1 partition has no leader after 1s: unled/0; "; term.StatusOf(err) != term.StatusFailed || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("a topic without leaders: %v, want %s", err, want)
	}
	c.Start()
	c.Do("", "cluster", "health", "--wait", "30s")
}

// A node whose disk is full, or that is gone, or whose controller group has no
// leader, is named with what it is.
func TestHealthNamesWhatIsWrongWithANode(t *testing.T) {
	now := time.Now()
	view := func(leader int32, gone ...registered) *brokerView {
		return &brokerView{index: -1, quorum: true, leader: leader, registered: gone}
	}
	s := &clusterState{Controller: 3, Down: []string{"orders/2 on 1"}, Brokers: []brokerItem{
		{Node: 1, Address: "a:1"}, {Node: 2, Address: "b:1", DiskBytes: 64e6, DiskFree: 3e6, dataDir: "/data"}, {Node: 4, Address: "d:1"}, {Node: 5, Address: "e:1"},
		{Node: 6, Address: "f:1"},
	}}
	views := brokerViews{
		1: view(1, registered{node: 4, missed: now.Add(-200 * time.Second)}),
		2: view(1, registered{node: 4, missed: now.Add(-100 * time.Second)}),
		6: {cluster: "other", index: 7, quorum: true, leader: 9}, // what it says does not count
	}
	views[1].cluster = "this"
	s.Brokers[4].stranger = views.dropStrangers("this")[6]
	s.judge(t.Context(), views)
	want := []string{
		"the disk of broker 2 is full: 2929 KiB are left below /data; delete or trim topics, or make room",
		"broker 4 at d:1 is down, for 100 s",
		"broker 5 at e:1 does not answer",
		"broker 6 is away, and a node of another cluster, other, answers at f:1; if its folder was lost, it starts with an empty one, --node-id 6 and --join",
		"1 replica down, since a disk failed, data is damaged or something ran out, as the broker's log says: orders/2 on 1",
	}
	if got := s.troubles(); !slices.Equal(got, want) || s.Controller != 1 || s.Brokers[2].state() != "down 100 s" {
		t.Errorf("controller %d, %q\nwant %q", s.Controller, got, want)
	}
	// All say that the controllers have no leader: that Metadata names a broker is
	// for clients, which want one.
	s = &clusterState{Controller: 3, Brokers: []brokerItem{{Node: 1}}}
	s.judge(t.Context(), brokerViews{1: view(-1)})
	if got := s.troubles(); !slices.Equal(got, []string{"the controllers have no leader"}) {
		t.Errorf("%q", got)
	}
	// A rescue is for a majority that is gone, not for the second in which one is elected.
	for up, want := range []bool{true, true, false, false} {
		s = &clusterState{Controller: -1}
		for i := range 3 {
			s.Brokers = append(s.Brokers, brokerItem{Node: int32(i + 1), Up: i < up})
		}
		if got := strings.Contains(strings.Join(s.troubles(), "; "), "cluster rescue"); got != want {
			t.Errorf("with %d of 3 brokers up a rescue is spoken of: %v", up, got)
		}
	}
}

// A process that hangs takes connections and answers nothing. Named first, it keeps
// nobody from those named after it.
func TestABrokerThatHangsIsPassedBy(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 1)
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	brokers := []string{hanging.Addr().String(), c.All[0].Address}
	if r := clitest.Run(t, brokers, "", "cluster", "status"); r.Status != term.StatusDone {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
	// Health is about every broker that is named.
	want := "millrace: unhealthy: no broker answers at " + brokers[0] + ", which --brokers names\n"
	if r := clitest.Run(t, brokers, "", "cluster", "health"); r.Status != term.StatusUnhealthy || r.Stderr != want {
		t.Errorf("status %d, %s, want %s", r.Status, r.Stderr, want)
	}
	for nodes, status := range map[string]int{"1": term.StatusDone, "2": term.StatusUnhealthy, "0": term.StatusUsage} {
		if r := clitest.Run(t, brokers[1:], "", "cluster", "health", "--nodes", nodes); r.Status != status || nodes == "2" && r.Stderr != "millrace: unhealthy: the cluster has 1 broker, and --nodes asks for 2\n" {
			t.Errorf("--nodes %s: status %d, %s", nodes, r.Status, r.Stderr)
		}
	}
}

// What one broker tells of the cluster is told when the others take connections and say
// nothing, as paused processes do, and who they are.
func TestOneBrokerTellsOfAClusterThatHangs(t *testing.T) {
	t.Parallel()
	hanging := func() string { return accepting(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }) }
	var cluster scriptedCluster
	first := scriptedBroker(t, func(req kmsg.Request) kmsg.Response { return cluster.answer(1, req) })
	cluster = scriptedCluster{1: first, 2: hanging(), 3: hanging()}
	r := clitest.Run(t, []string{cluster[2], cluster[3], first}, "", "cluster", "status")
	if r.Status != term.StatusDone {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
	for _, want := range []string{
		"broker 2 at " + cluster[2] + " does not answer\n",
		"broker 3 at " + cluster[3] + " does not answer\n",
	} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("%q is not said:\n%s", want, r.Stdout)
		}
	}
}

// A script that starts three nodes in the background and waits for health finds three:
// whoever has not joined yet is waited for.
func TestHealthWaitsForEveryBrokerItIsToldOf(t *testing.T) {
	t.Parallel()
	clitest.Program(t)
	for range 5 {
		dir := t.TempDir()
		base := ports.HoldRow(t, 3)
		cmd := clitest.Command(t, nil, "up", "3", "--data-dir", filepath.Join(dir, "d"), "--base-port", fmt.Sprint(base))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var brokers []string
		for i := range 3 {
			brokers = append(brokers, fmt.Sprintf("127.0.0.1:%d", base+i))
		}
		health := clitest.Run(t, brokers, "", "cluster", "health", "--wait", "30s")
		create := clitest.Run(t, brokers, "", "topic", "create", "t", "-p1", "-r3")
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if health.Status != term.StatusDone || create.Status != term.StatusDone {
			t.Fatalf("health: %d, %s; create: %d, %s", health.Status, health.Stderr, create.Status, create.Stderr)
		}
	}
}

// A node whose metadata stands still is named, and one that only comes a little
// later is not.
func TestHealthSeesMetadataThatStandsStill(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 1)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	index := metadataIndex(t.Context(), client.SeedBrokers()[0])
	if index < 1 {
		t.Fatalf("the node's metadata is at change %d", index)
	}
	if got := behind(t.Context(), c.Addresses()[0], index-1, index); got != "" {
		t.Errorf("a node that has caught up by the time it is asked again: %s", got)
	}
	want := fmt.Sprintf("its metadata stands at change %d, others are at %d", index, index+1)
	if got := behind(t.Context(), c.Addresses()[0], index, index+1); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSegmentsAreReadWithoutABroker(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 1)
	c.Do("", "topic", "create", "quakes", "-p1")
	c.Do(testdata.Earthquakes, "produce", "quakes", "-q", "--key-field", "net", "-z", "zstd")
	c.Do("", "produce", "quakes", "after it")
	id := strings.Fields(c.Do("", "topic", "describe", "quakes").Stdout)[2]
	c.Do("", "group", "seek", "readers", "--to", "end", "--topics", "quakes") // makes the internal topic
	c.Stop()
	var r clitest.Result
	if r = clitest.Run(t, nil, "", "segment", "verify", c.Dir, "-o", "json"); r.Status != term.StatusDone || !regexp.MustCompile(`^51 logs, \d+ kB: no damage\n50 of them, of internal topics, are not listed: -i\n$`).MatchString(r.Stderr) {
		t.Fatalf("verify of orderly logs: status %d, %s", r.Status, r.Stderr)
	}
	if !strings.Contains(r.Stdout, `"end_offset": 1708`) || !strings.Contains(r.Stdout, `"damaged": 0`) || strings.Count(r.Stdout, `"topic": "quakes"`) != 1 || strings.Contains(r.Stdout, "__consumer_offsets") {
		t.Errorf("verify says %s", r.Stdout)
	}
	if r = clitest.Run(t, nil, "", "segment", "verify", c.Dir, "-i"); strings.Count(r.Stdout, "  __consumer_offsets  ") != 50 || strings.Count(r.Stdout, "  quakes ") != 1 {
		t.Errorf("verify -i says %s", r.Stdout)
	}
	files, err := filepath.Glob(filepath.Join(c.All[0].Data, "partitions", id+"-0", "*.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("segments %v, %v", files, err)
	}

	// The records are those that were produced.
	dump := clitest.Run(t, nil, "", "segment", "dump", "-r", "-o", "jsonl", files[0])
	if dump.Status != term.StatusDone {
		t.Fatalf("dump: status %d, %s", dump.Status, dump.Stderr)
	}
	var values strings.Builder
	position := int64(-1) // of the first entry with records
	for line := range strings.Lines(dump.Stdout) {
		var e entryItem
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, r := range e.Records {
			values.WriteString(string(*r.Value) + "\n")
			if position < 0 {
				position = e.Position
			}
		}
	}
	if values.String() != testdata.Earthquakes+"after it\n" {
		t.Errorf("the dump has %d bytes of values, want %d", values.Len(), len(testdata.Earthquakes)+9)
	}

	// One bit, and it is found, with its place; what follows is dumped all the same.
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[position+1000] ^= 4
	if err := os.WriteFile(files[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	where := fmt.Sprintf("millrace: corrupt: %s at %d: found ", files[0], position)
	for _, args := range [][]string{{"verify", c.Dir}, {"verify", filepath.Dir(files[0])}, {"verify", files[0]}, {"dump", "-r", files[0]}} {
		r := clitest.Run(t, nil, "", append([]string{"segment"}, args...)...)
		damage, verdict, _ := strings.Cut(r.Stderr, "\n")
		if r.Status != term.StatusFailed || !strings.HasPrefix(damage, where) || !strings.Contains(damage, ", expected ") {
			t.Errorf("%s: status %d, %q, want a line that begins %q", args[0], r.Status, damage, where)
		}
		if args[0] == "verify" && !regexp.MustCompile(`^millrace: 1 of (1 log|51 logs) damaged, in 1 place; [^\n]*\n$`).MatchString(verdict) || args[0] == "dump" && verdict != "" {
			t.Errorf("%s: the verdict is %q", args[0], verdict)
		}
		if args[0] == "dump" && !strings.Contains(r.Stdout, "after it") {
			t.Error("what follows the damage is not dumped")
		}
	}
	for _, test := range []struct {
		args   string
		status int
	}{
		{"segment verify " + t.TempDir(), term.StatusNotFound}, {"segment verify /no/such", term.StatusNotFound}, {"segment dump /no/such.log", term.StatusNotFound},
		{"segment dump " + c.All[0].Log, term.StatusFailed}, {"segment dump", term.StatusUsage}, {"segment verify", term.StatusUsage},
	} {
		if r := clitest.Run(t, nil, "", strings.Fields(test.args)...); r.Status != test.status || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("millrace %s: status %d, want %d, %q", test.args, r.Status, test.status, r.Stderr)
		}
	}
}

// The settings in force are listed with all that is needed to change one.
func TestSettingsAreListed(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 2)
	c.Do("", "topic", "create", "orders", "-c", "retention.ms=5000")
	if out := c.Do("", "cluster", "config", "list", "log.retention.h").Stdout; out != "log.retention.hours=168  (default)\n"+
		"   The same in hours, where neither log.retention.ms nor log.retention.minutes\n   is set. A whole number of hours. Fixed while a node runs.\n" {
		t.Errorf("%s", out)
	}
	changed := c.Do("", "cluster", "config", "list", "--changed").Stdout
	for _, n := range c.All {
		if want := fmt.Sprintf("listeners=PLAINTEXT://%s  (set at the start, node %d)\n", n.Address, n.ID); !strings.Contains(changed, want) {
			t.Errorf("%s is not in\n%s", want, changed)
		}
	}
	if strings.Contains(changed, "num.partitions") {
		t.Errorf("a default is said to be changed:\n%s", changed)
	}
	if out := c.Do("", "topic", "config", "orders", "--changed").Stdout; out != "retention.ms=5000  (set for the topic)\n"+
		"   Age at which segments are deleted; -1 is no limit. Default: 604800000. A\n   whole number of milliseconds, -1 or more.\n" {
		t.Errorf("%s", out)
	}
	var list []listedSetting
	if err := json.Unmarshal([]byte(c.Do("", "cluster", "config", "list", "-o", "json").Stdout), &list); err != nil || len(list) < len(settings.BrokerDefinitions()) {
		t.Errorf("%d settings, %v", len(list), err)
	}
	for _, s := range list {
		if s.Doc == "" || s.Allowed == "" || len(s.Nodes) == 0 {
			t.Errorf("%+v", s)
		}
	}
	if r := clitest.Run(t, c.Addresses(), "", "topic", "config", "orders", "retetion.ms"); r.Status != term.StatusNotFound || !strings.Contains(r.Stderr, "did you mean retention.ms?") {
		t.Errorf("%+v", r)
	}
}

// The script does in a real bash what it should: the words of the line, as they
// are typed, become candidates.
func TestBashCompletesTopicNames(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash here")
	}
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "flights", "freight", "orders")
	for _, test := range []struct{ line, want string }{
		{"millrace ", "serve up demo produce consume topic group acl user quota context cluster doctor segment bench version completion man"},
		{"millrace topic d", "describe delete"},
		{"millrace consume f", "flights freight"},
		{"millrace -b " + c.All[0].Address + " topic describe fl", "flights"},
		{"millrace consume -o s", "start"},
		{"millrace produce -z ", "none gzip snappy lz4 zstd"},
		{"millrace produce flights --key", "--key --key-field"},
		{"millrace produce --file ", ""},
		{"millrace nonsense ", ""},
	} {
		cmd := exec.Command(bash, "-c", `source <(millrace completion bash)
			COMP_LINE="$1" COMP_POINT=${#1}; _millrace; echo "${COMPREPLY[*]}"`, "bash", test.line)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(clitest.Program(t))+":"+os.Getenv("PATH"), "MILLRACE_BROKERS="+c.All[0].Address)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != test.want {
			t.Errorf("%q completes to %q, want %q (%v)", test.line, got, test.want, err)
		}
	}
}
