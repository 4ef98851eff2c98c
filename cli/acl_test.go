package cli

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/cli/clitest"
	"millrace/cli/term"
	"millrace/security/acl"
)

// setCluster sets a setting of the brokers for the whole cluster.
func setCluster(t *testing.T, c *clitest.Cluster, name, value string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	answers, err := kadm.NewClient(client).AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}})
	if err != nil || len(answers) != 1 || answers[0].Err != nil {
		t.Fatalf("%s=%s: %+v, %v", name, value, answers, err)
	}
}

// What somebody is granted is listed, decides, and is taken back.
func TestACLsFromGrantToRevoke(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	says := func(status int, want string, args ...string) {
		t.Helper()
		args = append([]string{"acl"}, args...)
		r := clitest.Run(t, c.Addresses(), "", args...)
		if got := r.Stdout + r.Stderr; r.Status != status || got != want {
			t.Errorf("millrace %s: status %d, %q\nwant %d, %q", strings.Join(args, " "), r.Status, got, status, want)
		}
	}
	const open = "millrace: access is not controlled here, everybody may do everything; it is as soon as there is a user: `millrace user create` makes one\n"
	says(term.StatusFailed, open, "list")
	says(term.StatusFailed, open, "grant", "--user", "alice", "--produce", "orders")
	setCluster(t, c, "super.users", acl.Anonymous+";User:root")

	says(term.StatusDone, "would grant: User:alice may write topic orders\nwould grant: User:alice may create topic orders\nwould grant: User:alice may describe topic orders\n",
		"grant", "--user", "alice", "--produce", "orders", "--dry-run")
	says(term.StatusDone, "", "list", "--no-headers")
	says(term.StatusDone, "granted: User:alice may write topic orders\ngranted: User:alice may create topic orders\ngranted: User:alice may describe topic orders\ngranted: User:alice may read group billing\n",
		"grant", "--user", "alice", "--produce", "orders", "--group", "billing")
	says(term.StatusDone, "granted: User:CN=x,O=y may not all topics log… from ::1\ngranted: User:bob may not all topics log… from ::1\n",
		"grant", "--user", "bob", "--principal", "User:CN=x,O=y", "--deny", "--operation", "all", "--topic", "log", "--prefix", "--host", "0:0:0:0:0:0:0:1")
	says(term.StatusDone, "granted: User:* may read all topics\ngranted: User:* may describe all topics\n", "grant", "--user", "*", "--consume", "*")
	says(term.StatusDone, "granted: User:ops may alter the cluster\ngranted: User:ops may idempotent-write the cluster\n",
		"grant", "--user", "ops", "--operation", "IdempotentWrite", "--operation", "alter", "--cluster")

	says(term.StatusDone, `PRINCIPAL      PERMISSION  OPERATION         TYPE     NAME           PATTERN   HOST
User:*         allow       read              topic    *              literal   *
User:*         allow       describe          topic    *              literal   *
User:CN=x,O=y  deny        all               topic    log            prefixed  ::1
User:bob       deny        all               topic    log            prefixed  ::1
User:alice     allow       write             topic    orders         literal   *
User:alice     allow       create            topic    orders         literal   *
User:alice     allow       describe          topic    orders         literal   *
User:alice     allow       read              group    billing        literal   *
User:ops       allow       alter             cluster  kafka-cluster  literal   *
User:ops       allow       idempotent-write  cluster  kafka-cluster  literal   *
`, "list")

	says(term.StatusDone, "User:*\nUser:*\nUser:CN=x,O=y\nUser:bob\n", "list", "--topic", "logs", "-o", "name")

	says(term.StatusDone, "yes: an entry allows it\n   User:alice may write topic orders\n", "check", "--user", "alice", "--operation", "write", "--topic", "orders")
	says(term.StatusNotAllowed, "no: no entry allows it\n", "check", "--user", "alice", "--operation", "delete", "--topic", "orders")
	says(term.StatusNotAllowed, "no: an entry denies it\n   User:bob may not all topics log… from ::1\n", "check", "--user", "bob", "--operation", "read", "--topic", "logs", "--host", "::1")
	says(term.StatusDone, "yes: an entry allows it\n   User:* may read all topics\n", "check", "--user", "bob", "--operation", "read", "--topic", "logs")
	says(term.StatusDone, "yes: a super user may do everything\n", "check", "--user", "root", "--operation", "alter", "--cluster")
	says(term.StatusNotAllowed, `{"principal":"User:bob","host":"::1","operation":"read","type":"topic","name":"logs","allowed":false,"because":"an entry denies it","entries":[{"principal":"User:bob","permission":"deny","operation":"all","type":"topic","name":"log","pattern":"prefixed","host":"::1"}]}`+"\n",
		"check", "--user", "bob", "--operation", "read", "--topic", "logs", "--host", "::1", "-o", "jsonl")

	says(term.StatusNotFound, "millrace: nothing of that is granted or denied; see `millrace acl list`\n", "revoke", "--user", "alice", "--consume", "orders", "--host", "10.0.0.1")
	says(term.StatusDone, "would revoke: User:alice may read group billing\n", "revoke", "--user", "alice", "--group", "billing", "--dry-run")
	says(term.StatusDone, "revoked: User:alice may read group billing\n", "revoke", "--user", "alice", "--group", "billing")
	says(term.StatusUsage, "millrace: refusing to revoke all that was granted to somebody and denied, 3 in all: there is no terminal to ask on; say --yes\n", "revoke", "--user", "alice", "--all")
	says(term.StatusDone, "revoked: User:alice may write topic orders\nrevoked: User:alice may create topic orders\nrevoked: User:alice may describe topic orders\n", "revoke", "--user", "alice", "--all", "--yes")
	says(term.StatusNotAllowed, "no: no entry allows it\n", "check", "--user", "alice", "--operation", "write", "--topic", "orders")
}

// A command line that does not say who, what or on what is told which of them.
func TestACLCommandLinesThatSayTooLittle(t *testing.T) {
	for args, want := range map[string]string{
		"grant --produce t":                                   "acl grant whom?",
		"grant --user a":                                      "acl grant what?",
		"grant --user a --topic t":                            "what about topic t?",
		"grant --user a --operation read":                     "--operation on what?",
		"grant --user a --operation raed --topic t":           `--operation "raed": it is one of all, read`,
		"grant --user a --operation cluster-action --topic t": "there is no operation cluster-action on a topic; there are read",
		"grant --user a --operation read --produce t":         "--operation goes with",
		"grant --user a --deny --produce t":                   "--deny what?",
		"grant --user a --produce * --prefix":                 "--prefix takes * for a character",
		"grant --principal a --produce t":                     `--principal "a": it is TYPE:NAME`,
		"grant a --produce t":                                 `acl grant takes flags alone, not "a"`,
		"revoke --all":                                        "acl revoke all of whom?",
		"revoke --all --user a --topic t":                     "--all is all that somebody was granted",
		"check --user a --operation read":                     "acl check takes one --user",
		"check --user a --user b --operation read --topic t":  "acl check takes one --user",
		"list alice": `acl list takes flags alone, not "alice"`,
	} {
		var out strings.Builder
		if status := Run(t.Context(), append([]string{"acl"}, strings.Fields(args)...), strings.NewReader(""), &out, &out); status != term.StatusUsage || !strings.HasPrefix(out.String(), "millrace: "+want) {
			t.Errorf("millrace acl %s: status %d, %s", args, status, out.String())
		}
	}
}

// The examples of the help run, in an order in which each finds what it needs.
func TestACLExamplesRun(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	setCluster(t, c, "super.users", acl.Anonymous)
	for _, words := range []string{"grant", "list", "check", "revoke"} {
		runExamples(t, t.TempDir(), c.Addresses(), []string{"acl", words})
	}
}
