//go:build conformance

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/security/certificate/certificatetest"
)

// A suite is the test suite of another project, run as it is against brokers of
// ours. Its version is pinned by test/conformance/clients/go.mod; nothing of it is
// copied.
type suite struct {
	module string // whose root the tests run in
	pkg    string // the package whose tests they are
	// chunk tests are run by one process: 0 is all of them.
	chunk int
	// patience for one process
	patience time.Duration
	// lacking says of a test, or of a subtest, why it cannot pass yet: each needs
	// what a later release will have. One that passes all the same must go.
	lacking map[string]string
	// apart are tests and subtests, of lacking or foreign, that wait for ever for
	// what is not there, or take their process with them: each has a process of
	// its own, and apartPatience.
	apart []string
	// foreign says of a test why it would fail against Apache Kafka just so.
	foreign map[string]string
	// racy says of a test why it sometimes fails, whatever the broker: it is run
	// again when it does, and must pass once.
	racy map[string]string
	// run returns the command that runs the tests named by one pattern, without
	// those named by another.
	run func(binary, pattern, skip string) *exec.Cmd
}

// outcomes of tests, by name; those of subtests have theirs behind a slash.
type outcome struct {
	action string // pass, fail, skip
	output []string
}

// check builds and runs the suite, and holds every test against what is known of it.
func (s *suite) check(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "peer.test")
	build := exec.Command("go", "test", "-c", "-o", binary, s.pkg)
	build.Dir = programs
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", s.pkg, err, out)
	}
	began := time.Now()
	outcomes := s.outcomes(t, binary)
	var reasons []string
	for name, reason := range s.racy {
		for again := 0; again < racyAgain && outcomes[name].action == "fail"; again++ {
			reasons = append(reasons, fmt.Sprintf("%s is run again: %s", name, reason))
			s.runTests(t, s.run(binary, exactly(name), ""), s.patience, outcomes)
		}
	}
	took := time.Since(began)

	count := make(map[string]int)
	for _, name := range slices.Sorted(maps.Keys(outcomes)) {
		o := outcomes[name]
		if !strings.Contains(name, "/") {
			count[o.action]++
		}
		t.Run(name, func(t *testing.T) {
			reason := s.lacking[name] + s.foreign[name]
			switch {
			case o.action == "pass" && reason != "":
				t.Errorf("passes now, though it was said that %q: take it off the list", reason)
			case o.action == "pass", o.action == "skip":
				// What a suite skips it skips by itself; its reason is in the table.
				if o.action == "skip" && !strings.Contains(name, "/") {
					reasons = append(reasons, fmt.Sprintf("%s skips itself: %s", name, lastWords(o.output)))
				}
			case reason != "":
				reasons = append(reasons, fmt.Sprintf("%s fails: %s", name, reason))
			case s.excused(name, outcomes):
			default:
				t.Errorf("%s:\n%s", o.action, strings.Join(o.output, ""))
			}
		})
	}
	for name := range s.lacking {
		if _, ran := outcomes[name]; !ran {
			t.Errorf("%s is said to fail and was never run", name)
		}
	}
	for name := range s.racy {
		if _, ran := outcomes[name]; !ran {
			t.Errorf("%s is said to fail sometimes and was never run", name)
		}
	}
	fmt.Printf("figure %s: %d tests run in %.0f s: %d passed, %d failed, %d skipped by the suite itself\n",
		t.Name(), count["pass"]+count["fail"]+count["skip"], took.Seconds(), count["pass"], count["fail"], count["skip"])
	for _, r := range reasons {
		fmt.Printf("figure %s: %s\n", t.Name(), r)
	}
}

// excused tells whether a test failed only because of subtests whose failure is
// known, or is a subtest of one.
func (s *suite) excused(name string, all map[string]outcome) bool {
	for known := range maps.Keys(s.lacking) {
		if strings.HasPrefix(name, known+"/") {
			return true
		}
	}
	failed, known := 0, 0
	for sub, o := range all {
		if rest, ok := strings.CutPrefix(sub, name+"/"); ok && o.action == "fail" && !strings.Contains(rest, "/") {
			failed++
			if s.lacking[sub]+s.foreign[sub] != "" || s.excused(sub, all) {
				known++
			}
		}
	}
	return failed > 0 && failed == known
}

// outcomes runs all tests of the suite. A process that panics takes tests with
// it that have nothing to do with it: those are run again, one by one.
func (s *suite) outcomes(t *testing.T, binary string) map[string]outcome {
	list := exec.Command(binary, "-test.list", "^(Test|Fuzz)")
	list.Dir = s.dir(t)
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list the tests of %s: %v", s.pkg, err)
	}
	var names []string
	for _, name := range strings.Fields(string(out)) {
		if strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") {
			names = append(names, name)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(s.apart, name) })
	skip := make([]string, len(s.apart))
	for i, name := range s.apart {
		skip[i] = exactly(name)
	}
	chunk := s.chunk
	if chunk == 0 {
		chunk = len(names)
	}
	all := make(map[string]outcome)
	for _, name := range s.apart {
		alone := make(map[string]outcome)
		s.runTests(t, s.run(binary, exactly(name), ""), apartPatience, alone)
		all[name] = outcome{"fail", []string{fmt.Sprintf("not at its end after %v\n", apartPatience)}}
		if o, ended := alone[name]; ended {
			all[name] = o
		}
	}
	for part := range slices.Chunk(names, chunk) {
		s.runTests(t, s.run(binary, "^("+strings.Join(part, "|")+")$", strings.Join(skip, "|")), s.patience, all)
		for _, name := range part {
			if _, ended := all[name]; !ended {
				s.runTests(t, s.run(binary, exactly(name), strings.Join(skip, "|")), s.patience, all)
			}
			if _, ended := all[name]; !ended {
				all[name] = outcome{"fail", []string{"the test's process ended before the test did\n"}}
			}
		}
	}
	return all
}

// apartPatience is for a test that is not expected to pass: one that did would
// take a few seconds.
const apartPatience = 20 * time.Second

// racyAgain is how often a racy test is run again.
const racyAgain = 3

// exactly is the pattern of one test or subtest.
func exactly(name string) string {
	return "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
}

// runTests runs some tests in one process and adds what became of them. Those
// that have not ended when patience has are left out.
func (s *suite) runTests(t *testing.T, cmd *exec.Cmd, patience time.Duration, all map[string]outcome) {
	cmd.Dir = s.dir(t)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The tests are grandchildren: who is killed is the group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("run %v: %v", cmd.Args, err)
	}
	timer := time.AfterFunc(patience, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	cmd.Wait() // its tests say how it went
	timer.Stop()
	outputs := make(map[string][]string)
	ended := 0
	lines := bufio.NewScanner(&stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Test == "" {
			continue
		}
		switch e.Action {
		case "output":
			outputs[e.Test] = append(outputs[e.Test], e.Output)
		case "pass", "fail", "skip":
			all[e.Test] = outcome{e.Action, outputs[e.Test]}
			ended++
		}
	}
	if ended == 0 && stderr.Len() > 0 {
		t.Logf("%v: %s", cmd.Args, stderr.String())
	}
}

// dir is the module's root: tests read files beside their sources.
func (s *suite) dir(t *testing.T) string {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", s.module)
	cmd.Dir = programs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("where is %s: %v", s.module, err)
	}
	root := strings.TrimSpace(string(out))
	return filepath.Join(root, strings.TrimPrefix(s.pkg, s.module))
}

// place matches what precedes a test's own words.
var place = regexp.MustCompile(`^\s*\S+_test\.go:\d+: `)

// lastWords is the last thing a test said before it ended.
func lastWords(output []string) string {
	for _, line := range slices.Backward(output) {
		if place.MatchString(line) {
			return strings.TrimSpace(place.ReplaceAllString(line, ""))
		}
	}
	return "it does not say why"
}

const (
	needsTransactions = "transactions are a later release's"
	needsACLs         = "it wants an authorizer, and the brokers of this suite are open: access control is tried by TestKafkaACLs"
	needsSASL         = "it makes a user or logs in, and the brokers of this suite are open to the other tests: the first user would close them"
	needsReassignment = "moving replicas is a later release's"

	itsOwnPanic = "its getOffsets calls a connect function that it has not set: a nil pointer, whatever the broker"
)

// TestFranzGoSuite runs franz-go's own integration tests on three nodes, and those of a log-in
// on the three that ask for one.
func TestFranzGoSuite(t *testing.T) {
	t.Parallel() // with the other suites: each waits more than it works
	guarded := theGuarded(&cell{T: t})
	franzGoSuite(brokers, "KGO_TEST_RECORDS=20000", "KGO_TEST_SCRAM=admin:"+password+":512", "KGO_TEST_SCRAM_SEEDS="+strings.Join(guarded.brokers, ",")).check(t)
}

// TestFranzGoSuiteOverTLS runs them over TLS. Those of a log-in have run, and skip themselves.
func TestFranzGoSuiteOverTLS(t *testing.T) {
	t.Parallel()
	if program == "" {
		t.Skip("needs a cluster of its own, and CONFORMANCE_BROKERS names brokers")
	}
	dir := t.TempDir()
	authority := certificatetest.NewAuthority(t)
	cert, key := authority.Issue(t, "millrace", time.Hour)
	shown, ca := filepath.Join(dir, "broker.pem"), filepath.Join(dir, "ca.pem")
	for path, text := range map[string]string{shown: cert + key, ca: authority.PEM} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secured, stop, err := up(filepath.Join(dir, "data"), "MILLRACE_CFG_SSL_KEYSTORE_LOCATION="+shown)
	t.Cleanup(stop)
	if err != nil {
		t.Fatal(err)
	}
	s := franzGoSuite(secured, "KGO_TEST_RECORDS=5000", "KGO_TEST_TLS=ca:"+ca)
	s.apart = append(s.apart, "TestIssue769") // it takes the others with it
	s.foreign["TestIssue769"] = "it sets a dialer of its own, which the client takes no TLS beside, and goes on without the client that it did not get"
	s.check(t)
}

// franzGoSuite is franz-go's suite on three nodes, with more in its environment.
func franzGoSuite(brokers []string, env ...string) *suite {
	return &suite{
		module: "github.com/twmb/franz-go", pkg: "github.com/twmb/franz-go/pkg/kgo",
		patience: 15 * time.Minute,
		lacking: map[string]string{
			"TestTxnEtl": needsTransactions,
		},
		apart:   []string{"TestTxnEtl"},
		foreign: map[string]string{},
		racy: map[string]string{
			"Test848RegexBrokerResolves": "its pattern matches __consumer_offsets too, and it stops reading after records of any two topics",
		},
		run: func(binary, pattern, skip string) *exec.Cmd {
			cmd := exec.Command("go", "tool", "test2json", binary, "-test.v=test2json", "-test.timeout=14m", "-test.run", pattern, "-test.skip", skip)
			cmd.Env = append(os.Environ(), "KGO_SEEDS="+strings.Join(brokers, ","), "KGO_TEST_RF=3", "KGO_LOG_LEVEL=none")
			cmd.Env = append(cmd.Env, env...)
			return cmd
		},
	}
}

// TestKafkaGoSuite runs segmentio/kafka-go's own tests, which know one broker at
// localhost:9092: it and they get a network of their own.
func TestKafkaGoSuite(t *testing.T) {
	t.Parallel()
	need(t, "unshare", "apt-get install util-linux")
	need(t, "ip", "apt-get install iproute2")
	if os.Getuid() != 0 {
		t.Skip("a network of its own needs root: not run")
	}
	dir := t.TempDir()
	broker := filepath.Join(dir, "millrace")
	if _, err := call(".", "go", "build", "-o", broker, "millrace/cli/millrace"); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "server.properties")
	// Its groups' members join topics that are made meanwhile, and read their partitions
	// once: three seconds are Kafka's own default, where its shipped file does not say 0.
	settings := "auto.create.topics.enable=true\nmessage.max.bytes=200000000\nsocket.request.max.bytes=210000000\ngroup.initial.rebalance.delay.ms=3000\n"
	if err := os.WriteFile(config, []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	// The broker lives as long as the tests of one process.
	const script = `ip link set lo up || exit 1
rm -f "$READY"
"$BROKER" serve --data-dir "$DATA" --listen 127.0.0.1:9092 --advertise localhost:9092 --config "$CONFIG" --ready-file "$READY" >>"$DATA.log" 2>&1 &
broker=$!
for i in $(seq 300); do [ -e "$READY" ] && break; sleep 0.1; done
go tool test2json "$0" -test.v=test2json -test.timeout=5m -test.run "$1" -test.skip "$2"
kill $broker; wait $broker`
	s := &suite{
		module: "github.com/segmentio/kafka-go", pkg: "github.com/segmentio/kafka-go",
		chunk: 40, patience: 6 * time.Minute,
		lacking: map[string]string{
			"TestClientAddOffsetsToTxn":                                   needsTransactions,
			"TestClientAddPartitionsToTxn":                                needsTransactions,
			"TestClientTxnOffsetCommit":                                   needsTransactions,
			"TestClientAlterPartitionReassignments":                       needsReassignment,
			"TestClientAlterPartitionReassignmentsMultiTopics":            needsReassignment,
			"TestAlterUserScramCredentials":                               needsSASL,
			"TestDescribeUserScramCredentials":                            needsSASL,
			"TestWriter/writing_a_message_with_SASL_Plain_authentication": needsSASL,
			"TestClientCreateACLs":                                        needsACLs,
			"TestClientDeleteACLs":                                        needsACLs,
			"TestClientDescribeACLs":                                      needsACLs,
			"TestClientFindCoordinator":                                   needsTransactions,
			"TestUnsupportedSASLMechanism":                                needsSASL,
		},
		foreign: map[string]string{
			"TestReaderReadCompactedMessage":                                                "it wants segments of 200 bytes; Kafka 4 allows none below 1 MiB (KIP-1030)",
			"TestReaderConsumerGroup/verify_offset_committed":                               itsOwnPanic,
			"TestReaderConsumerGroup/verify_offset_committed_when_using_interval_committer": itsOwnPanic,
			"TestReaderConsumerGroup/consumer_group_commits_on_close":                       itsOwnPanic,
			"TestReaderConsumerGroup/consumer_group_rebalance": "two readers of three partitions with eight records each want twelve both: " +
				"only if the first has read everything before the second joins, which group.initial.rebalance.delay.ms is there to prevent",
		},
		apart: []string{
			"TestReaderConsumerGroup/verify_offset_committed",
			"TestReaderConsumerGroup/verify_offset_committed_when_using_interval_committer",
			"TestReaderConsumerGroup/consumer_group_commits_on_close",
			"TestReaderConsumerGroup/consumer_group_rebalance",
		},
		run: func(binary, pattern, skip string) *exec.Cmd {
			cmd := exec.Command("unshare", "-n", "sh", "-c", script, binary, pattern, skip)
			cmd.Env = append(os.Environ(), "KAFKA_SKIP_NETTEST=1", "KAFKA_VERSION=3.7.0", "BROKER="+broker,
				"DATA="+filepath.Join(dir, "data"), "CONFIG="+config, "READY="+filepath.Join(dir, "ready"))
			return cmd
		},
	}
	s.check(t)
	if t.Failed() {
		if log, err := os.ReadFile(filepath.Join(dir, "data.log")); err == nil {
			t.Logf("the broker's log:\n%s", log)
		}
	}
}
