//go:build conformance

package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// comesIn reports whether who logs in so is let in.
func comesIn(t *testing.T, address string, option kgo.Opt) error {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(address), option)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	return client.Ping(t.Context())
}

// kafka-configs makes users, gives them other passwords, lists them and deletes them, and
// they log in with what it made and with nothing else.
func TestKafkaConfigsMakesUsers(t *testing.T) {
	t.Parallel()
	classPath := setUpJava(t, "kafka-tools", kafkaToolsRelease)
	address := guardedNode(t)
	admin := filepath.Join(t.TempDir(), "admin.properties")
	tool := func(args ...string) string {
		t.Helper()
		command := append(runJava(t, classPath, "kafka.admin.ConfigCommand"), "--bootstrap-server", address)
		if _, err := os.Stat(admin); err == nil { // the first user is there
			command = append(command, "--command-config", admin)
		}
		out, err := exec.Command(command[0], append(command[1:], args...)...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "Error while") {
			t.Fatalf("kafka-configs %s: %v\n%s", strings.Join(args, " "), err, tail(string(out)))
		}
		return string(out)
	}
	tool("--alter", "--entity-type", "users", "--entity-name", "admin", "--add-config", "SCRAM-SHA-512=[password=first]")
	config := "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"admin\" password=\"first\";\n"
	if err := os.WriteFile(admin, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.SASL(scram.Auth{User: "admin", Pass: "first"}.AsSha512Mechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// Of one user a request of Kafka's tools has one mechanism.
	tool("--alter", "--entity-type", "users", "--entity-name", "alice", "--add-config", "SCRAM-SHA-256=[iterations=8192,password=one]")
	tool("--alter", "--entity-type", "users", "--entity-name", "alice", "--add-config", "SCRAM-SHA-512=[password=two]")
	for what, listed := range map[string]string{
		"alice": tool("--describe", "--entity-type", "users", "--entity-name", "alice"),
		"all":   tool("--describe", "--entity-type", "users"),
	} {
		if !strings.Contains(listed, "SCRAM credential configs for user-principal 'alice' are SCRAM-SHA-256=iterations=8192, SCRAM-SHA-512=iterations=4096") {
			t.Errorf("%s: %s", what, listed)
		}
	}
	expect := func(what string, option kgo.Opt, in bool) {
		t.Helper()
		if err := comesIn(t, address, option); (err == nil) != in {
			t.Errorf("%s: %v", what, err)
		}
	}
	sha256 := func(password string) kgo.Opt {
		return kgo.SASL(scram.Auth{User: "alice", Pass: password}.AsSha256Mechanism())
	}
	sha512 := func(password string) kgo.Opt {
		return kgo.SASL(scram.Auth{User: "alice", Pass: password}.AsSha512Mechanism())
	}
	expect("SCRAM-SHA-256", sha256("one"), true)
	expect("SCRAM-SHA-512", sha512("two"), true)
	expect("the other's password", sha256("two"), false)
	tool("--alter", "--entity-type", "users", "--entity-name", "alice", "--add-config", "SCRAM-SHA-256=[password=three]")
	expect("the password before", sha256("one"), false)
	expect("another password", sha256("three"), true)
	tool("--alter", "--entity-type", "users", "--entity-name", "alice", "--delete-config", "SCRAM-SHA-256")
	expect("a mechanism that was deleted", sha256("three"), false)
	expect("the one that is left", sha512("two"), true)
	tool("--alter", "--entity-type", "users", "--entity-name", "alice", "--delete-config", "SCRAM-SHA-512")
	expect("a user who was deleted", sha512("two"), false)
	described, err := kadm.NewClient(client).DescribeUserSCRAMs(t.Context())
	if err != nil || len(described) != 1 {
		t.Errorf("franz-go sees %v, %v", described, err)
	}
}

// kafka-delegation-tokens makes tokens, which log in as their owner, lists, renews and ends
// them.
func TestKafkaDelegationTokens(t *testing.T) {
	t.Parallel()
	classPath := setUpJava(t, "kafka-tools", kafkaToolsRelease)
	address := guardedNode(t)
	open, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	users, err := kadm.NewClient(open).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "alice", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "sesame"}})
	if err == nil {
		err = users.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "alice.properties")
	login := "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"alice\" password=\"sesame\";\n"
	if err := os.WriteFile(config, []byte(login), 0o600); err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) string {
		t.Helper()
		command := append(runJava(t, classPath, "org.apache.kafka.tools.DelegationTokenCommand"), "--bootstrap-server", address, "--command-config", config)
		out, err := exec.Command(command[0], append(command[1:], args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("kafka-delegation-tokens %s: %v\n%s", strings.Join(args, " "), err, tail(string(out)))
		}
		return string(out)
	}
	made := tool("--create", "--max-life-time-period", "-1", "--renewer-principal", "User:bob")
	row := regexp.MustCompile(`(?m)^([A-Z0-9]{26})\s+(\S+==)\s+User:alice\s+User:alice\s+\[User:bob\]`).FindStringSubmatch(made)
	if row == nil {
		t.Fatalf("it printed %s", made)
	}
	id, hmac := row[1], row[2]
	if listed := tool("--describe", "--owner-principal", "User:alice"); !strings.Contains(listed, id) {
		t.Errorf("--describe: %s", listed)
	}
	holder := kgo.SASL(scram.Auth{User: id, Pass: hmac, IsToken: true}.AsSha256Mechanism())
	if err := comesIn(t, address, holder); err != nil {
		t.Errorf("who has the token: %v", err)
	}
	// So does Kafka's own client.
	byToken := filepath.Join(t.TempDir(), "token.properties")
	login = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"" + id + "\" password=\"" + hmac + "\" tokenauth=\"true\";\n"
	if err := os.WriteFile(byToken, []byte(login), 0o600); err != nil {
		t.Fatal(err)
	}
	command := append(runJava(t, classPath, "org.apache.kafka.tools.TopicCommand"), "--bootstrap-server", address, "--command-config", byToken, "--list")
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Errorf("kafka-topics by a token: %v\n%s", err, tail(string(out)))
	}
	if renewed := tool("--renew", "--renew-time-period", "3600000", "--hmac", hmac); !strings.Contains(renewed, "Completed renew operation") {
		t.Errorf("--renew: %s", renewed)
	}
	if ended := tool("--expire", "--expiry-time-period", "-1", "--hmac", hmac); !strings.Contains(ended, "Completed expire operation") {
		t.Errorf("--expire: %s", ended)
	}
	if err := comesIn(t, address, holder); err == nil {
		t.Error("who has a token that was ended comes in")
	}
	if listed := tool("--describe"); slices.Contains(strings.Fields(listed), id) {
		t.Errorf("--describe once it is ended: %s", listed)
	}
}
