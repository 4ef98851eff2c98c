package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"millrace/cli/term"
	"millrace/testdata/ports"
)

func TestFlagsMayStandAnywhere(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"consume flights -o start -e", "consume --offset=start --exit -- flights"},
		{"consume -e flights -o start", "consume --exit --offset=start -- flights"},
		{"-b h:1 consume flights", "consume --brokers=h:1 -- flights"},
		{"topic -b h:1 create a b -p3", "topic create --brokers=h:1 --partitions=3 -- a b"},
		{"topics ls", "topic list"},
		{"consume t -en5", "consume --exit --num=5 -- t"},
		{"consume t -o -10", "consume --offset=-10 -- t"},
		{"consume t -o-10", "consume --offset=-10 -- t"},
		{"consume t --offset=-10", "consume --offset=-10 -- t"},
		{"consume t -n=5", "consume --num=5 -- t"},
		{"produce t -- -v --value", "produce -- t -v --value"},
		{"produce t -", "produce -- t -"},
		{"produce t help", "produce -- t help"},
		{"help topic create", "topic create --help"},
		{"topic create x -p", "error: -p needs a value"},
		{"topic create --help x", "topic create --help"},
		{"topic create x -h", "topic create --help"},
		{"", "--help"},
		{"topic", "topic --help"},
		{"--version", "version"},
		{"topic list --exit", "error: --exit is not a flag of topic list"},
		{"topic list -x", "error: -x is not a flag of topic list"},
		{"topic delete x -n", "error: -n is not a flag of topic delete"},
		{"produce t --p 3", "error: --p is not a flag of produce"},
		{"consume t --ofset 3", "did you mean --offset?"},
		{"prodcue t", "did you mean produce?"},
		{"topic dscribe t", "did you mean describe?"},
		{"frobnicate --help", `error: "frobnicate" is not a command of millrace`},
		{"topic frobnicate -h", `error: "frobnicate" is not a command of millrace topic`},
		{"help frobnicate", `error: "frobnicate" is not a command of millrace`},
		{"consum --help", "did you mean consume?"},
		{"--help frobnicate", "--help"},
		{"hlep", `error: "hlep" is not a command of millrace (did you mean help?); see`},
		{"topic crate", `error: "crate" is not a command of millrace topic (did you mean create?); see`},
		{"ls", "error: \"ls\" is not a command of millrace; see"},
		{"topic list --hlep", "--hlep is not a flag of topic list (did you mean --help?); see"},
		{"topic --help", "topic --help"},
		{"frobnicate", `error: "frobnicate" is not a command of millrace`},
	} {
		got, err := term.Arrange(commands(), strings.Fields(test.line))
		text := strings.Join(got, " ")
		if err != nil {
			text = "error: " + err.Error()
			if term.StatusOf(err) != term.StatusUsage {
				t.Errorf("%q: status %d, not that of a usage error", test.line, term.StatusOf(err))
			}
		}
		if text != test.want && !(err != nil && strings.Contains(text, test.want)) {
			t.Errorf("%q\n got  %s\n want %s", test.line, text, test.want)
		}
	}
}

// No command may be reached by two names, nor a flag by a name that is taken:
// urfave would panic, but only once somebody says that command.
func TestNamesAreUnambiguous(t *testing.T) {
	eachCommand(commands(), nil, func(words []string, flags []string) {
		slices.Sort(flags)
		for i := 1; i < len(flags); i++ {
			if flags[i] == flags[i-1] {
				t.Errorf("millrace %s: two flags are called %s", strings.Join(words, " "), flags[i])
			}
		}
	})
}

func TestUsageErrorsEndWithStatus2(t *testing.T) {
	for _, line := range []string{
		"consume", "consume t -n 0", "consume t -o nonsense", "consume t -p x", "consume t --format nonsense", "consume -r (",
		"produce", "produce t -z brotli x", "produce t --acks 2 x", "produce t --rate fast x", "produce t -H x x", "produce t -k a --key-field b",
		"produce t -p -2 x", "produce t x --file y", "produce t x --jsonl", "produce t --jsonl -f %v", "produce t --jsonl -Z", "produce t -f %Q",
		"topic create", "topic create t -p 0", "topic create t -r 0", "topic create t -c x", "topic create t -c x=1 -c x=2",
		"topic describe", "topic describe a b", "topic alter t", "topic delete", "topic trim t", "topic trim t -o 1:2", "topic list x",
		"serve x", "serve --log-level loud", "serve --node-id 0", "serve --listen nonsense", "serve --advertise nonsense", "serve --ephemeral --data-dir x", "serve --found --join h:1",
		"up 0", "up x", "up 1 2", "up --base-port 70000", "demo x", "completion", "completion tcsh",
		"segment dump", "segment dump x -o yaml", "segment verify",
		"topic list -b h:port", "topic list -b ,", "topic list -b http://h:1", "topic create t -p -1", "topic create t -r -1", "bench produce -n 0", "cluster rescue",
	} {
		var stderr strings.Builder
		status := Run(t.Context(), strings.Fields(line), strings.NewReader(""), &stderr, &stderr)
		if status != term.StatusUsage {
			t.Errorf("millrace %s: status %d, want %d: %s", line, status, term.StatusUsage, stderr.String())
		}
		if n := strings.Count(stderr.String(), "\n"); n != 1 || !strings.HasPrefix(stderr.String(), "millrace: ") {
			t.Errorf("millrace %s: %d lines, want the one line of an error:\n%s", line, n, stderr.String())
		}
	}
}

// A value that cannot be read is named with its flag, as it is called here, and with
// what it should be.
func TestBadValuesAreSaidInOneVoice(t *testing.T) {
	for line, want := range map[string]string{
		"topic create a -p abc":                  "--partitions \"abc\": it is a whole number; see `millrace topic create --help`",
		"consume t -n 1.5":                       "--num \"1.5\": it is a whole number; see `millrace consume --help`",
		"consume t -g g --session-timeout 3":     "--session-timeout \"3\": it is a time with its unit, such as 500ms, 30s or 5m; see `millrace consume --help`",
		"bench produce --seed -1":                "--seed \"-1\": it is a whole number; see `millrace bench produce --help`",
		"consume t --exit=perhaps":               "--exit \"perhaps\": it is true or false, or nothing; see `millrace consume --help`",
		"topic create a -p 99999999999999999999": "--partitions \"99999999999999999999\": it is a whole number; see `millrace topic create --help`",
		"topic list -b http://h:1/":              "--brokers: brokers speak Kafka's protocol, which has no scheme such as http; it is h:9092",
		"topic list -b kafka://h:7":              "--brokers: brokers speak Kafka's protocol, which has no scheme such as kafka; it is h:7",
		"topic list -b amqp://me:secret@h:1/v":   "--brokers: brokers speak Kafka's protocol, which has no scheme such as amqp; it is h:9092",
		"topic list -b me:secret@h:7":            "--brokers: an address has no user or password; it is h:7",
		"topic list -b h:1;h:2":                  "--brokers \"h:1;h:2\": commas separate brokers, HOST:PORT,HOST:PORT",
		"consume t -g g --dead-letter d":         "--dead-letter is about a command that is run for each record; say --exec CMD",
		"consume t --backoff 1s":                 "--backoff is about a command that is run for each record; say --exec CMD",
		"consume t -g g --max-retries 1":         "--max-retries is about a command that is run for each record; say --exec CMD",
		"consume t -g g --exec cat -f json":      "--exec and -f do not go together: CMD is given the value of each record as it is, and prints what it likes",
		"topic list -b kafka://":                 "--brokers: brokers speak Kafka's protocol, which has no scheme such as kafka; it is HOST:PORT",
		"cluster rescue":                         "cluster rescue which node? say --dir DIR; see `millrace cluster rescue --help`",
		"group seek g --to nonsense":             "--to \"nonsense\": not an offset; it is start, end, OFFSET, +N, -N, START:END, @TIME or @FROM:TO",
	} {
		var stderr strings.Builder
		if status := Run(t.Context(), strings.Fields(line), strings.NewReader(""), &stderr, &stderr); status != term.StatusUsage || stderr.String() != "millrace: "+want+"\n" {
			t.Errorf("millrace %s: status %d, %swant %s", line, status, stderr.String(), want)
		}
	}
}

func TestNobodyListeningIsSaidAtOnce(t *testing.T) {
	free := ports.Hold(t, 1)
	var stderr strings.Builder
	status := Run(t.Context(), []string{"topic", "list", "-b", free[0]}, strings.NewReader(""), &stderr, &stderr)
	want := "millrace: cannot reach a broker at " + free[0] + ": connection refused; start one with `millrace serve` or name others with --brokers\n"
	if status != term.StatusFailed || stderr.String() != want {
		t.Errorf("status %d, %q; want %d, %q", status, stderr.String(), term.StatusFailed, want)
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	if got := term.OneLine(errors.Join(errors.New("a"), errors.New("b\r\nc"))); got != "a; b; c" {
		t.Errorf("%q", got)
	}
}
