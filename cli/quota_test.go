package cli

import (
	"strings"
	"testing"

	"millrace/cli/clitest"
	"millrace/cli/term"
)

// A quota is set, listed and deleted, value by value and as a whole.
func TestQuotasFromSetToDelete(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	says := func(status int, want string, args ...string) {
		t.Helper()
		args = append([]string{"quota"}, args...)
		r := clitest.Run(t, c.Addresses(), "", args...)
		if got := r.Stdout + r.Stderr; r.Status != status || got != want {
			t.Errorf("millrace %s: status %d, %q\nwant %d, %q", strings.Join(args, " "), r.Status, got, status, want)
		}
	}
	says(term.StatusDone, "", "list", "--no-headers")
	says(term.StatusNotFound, "millrace: there is no such quota; see `millrace quota list`\n", "delete", "--user", "alice")
	says(term.StatusDone, "set: user alice: producer_byte_rate=10485760\nset: user alice: consumer_byte_rate=20000000\n", "set", "--user", "alice", "--produce", "10MiB", "--consume", "20MB")
	says(term.StatusDone, "set: user alice, each client id without one of its own: request_percentage=12.5\n", "set", "--user", "alice", "--default-client-id", "--requests", "12.5")
	says(term.StatusDone, "set: each address without one of its own: connection_creation_rate=100\n", "set", "--default-ip", "--connections", "100")
	says(term.StatusDone, "set: address ::1: connection_creation_rate=7\n", "set", "--ip", "::1", "--connections", "7")
	says(term.StatusDone, `USER   CLIENT-ID  IP         QUOTA                     VALUE
-      -          <default>  connection_creation_rate  100
-      -          ::1        connection_creation_rate  7
alice  -          -          consumer_byte_rate        20000000
alice  -          -          producer_byte_rate        10485760
alice  <default>  -          request_percentage        12.5
`, "list")
	says(term.StatusDone, `{"user":null,"client_id":null,"ip":"::1","key":"connection_creation_rate","value":7}`+"\n", "list", "--ip", "::1", "-o", "jsonl")
	says(term.StatusDone, "deleted: user alice: consumer_byte_rate\n", "delete", "--user", "alice", "--consume")
	says(term.StatusNotFound, "millrace: there is no such quota; see `millrace quota list`\n", "delete", "--user", "alice", "--consume")
	says(term.StatusDone, "deleted: user alice: producer_byte_rate\n", "delete", "--user", "alice")
	says(term.StatusDone, "alice  <default>  -  request_percentage  12.5\n", "list", "--user", "alice", "--no-headers")
}

// A command line that does not say whose quota, or which, is told what is missing.
func TestQuotaCommandLinesThatSayTooLittle(t *testing.T) {
	for args, want := range map[string]string{
		"set --produce 1":                           "quota set of whom?",
		"set --user a":                              "quota set what?",
		"set --user a --produce 1XB":                `--produce "1XB": it is a number above 0, such as 500000`,
		"set --user a --produce 0":                  `--produce "0": it is a number above 0`,
		"set --user a --requests 5MB":               `--requests "5MB": it is a number above 0, such as 5 or`,
		"set --user a --ip ::1 --produce 1":         "a quota is of users and client ids, or of addresses",
		"set --user a --default-user --mutations 1": "--user a or --default-user, not both",
		"set --ip ::1 --produce 7":                  "--connections is of an address, --ip or --default-ip, and nothing else is",
		"set --user a --connections 3":              "--connections is of an address",
		"set a --user a":                            `quota set takes flags alone, not "a"`,
		"delete":                                    "quota delete of whom?",
		"list a":                                    `quota list takes flags alone, not "a"`,
	} {
		var out strings.Builder
		if status := Run(t.Context(), append([]string{"quota"}, strings.Fields(args)...), strings.NewReader(""), &out, &out); status != term.StatusUsage || !strings.HasPrefix(out.String(), "millrace: "+want) {
			t.Errorf("millrace quota %s: status %d, %s", args, status, out.String())
		}
	}
}

// The examples of the help run, in an order in which each finds what it needs.
func TestQuotaExamplesRun(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	for _, words := range []string{"set", "list", "delete"} {
		runExamples(t, t.TempDir(), c.Addresses(), []string{"quota", words})
	}
}
