//go:build conformance

package conformance

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafka-configs sets quotas of a user, a client id, both and their defaults, lists them and
// deletes them; franz-go's administrator sees the same.
func TestKafkaConfigsSetsQuotas(t *testing.T) {
	t.Parallel()
	classPath := setUpJava(t, "kafka-tools", kafkaToolsRelease)
	address := guardedNode(t)
	tool := func(args string) (quotas []string) {
		t.Helper()
		command := runJava(t, classPath, "kafka.admin.ConfigCommand")
		command = append(command, "--bootstrap-server", address)
		out, err := exec.Command(command[0], append(command[1:], strings.Fields(args)...)...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "Error while") {
			t.Fatalf("kafka-configs %s: %v\n%s", args, err, tail(string(out)))
		}
		for line := range strings.Lines(string(out)) {
			if quota, ok := strings.CutPrefix(strings.TrimSpace(line), "Quota configs for "); ok {
				quotas = append(quotas, quota)
			}
		}
		slices.Sort(quotas)
		return quotas
	}
	expect := func(args string, want ...string) {
		t.Helper()
		if got := tool(args); !slices.Equal(got, want) {
			t.Errorf("kafka-configs %s:\n%s\nwant\n%s", args, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	tool("--alter --user alice --add-config producer_byte_rate=1048576,consumer_byte_rate=2097152")
	tool("--alter --client app --add-config request_percentage=12.5")
	tool("--alter --user alice --client app --add-config controller_mutation_rate=0.5,producer_byte_rate=7")
	tool("--alter --user-defaults --client-defaults --add-config consumer_byte_rate=5")
	expect("--describe --client app", "client-id 'app' are request_percentage=12.5")
	expect("--describe --entity-type users --entity-type clients",
		"the default user-principal, the default client-id are consumer_byte_rate=5.0",
		"user-principal 'alice', client-id 'app' are controller_mutation_rate=0.5, producer_byte_rate=7.0")

	seen := func() int {
		t.Helper()
		client, err := kgo.NewClient(kgo.SeedBrokers(address))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		described, err := kadm.NewClient(client).DescribeClientQuotas(t.Context(), false, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(described)
	}
	if n := seen(); n != 4 {
		t.Errorf("franz-go sees %d quotas, want 4", n)
	}
	tool("--alter --user alice --delete-config consumer_byte_rate")
	tool("--alter --user-defaults --client-defaults --delete-config consumer_byte_rate")
	expect("--describe --user alice", "user-principal 'alice' are producer_byte_rate=1048576.0")
	if n := seen(); n != 3 {
		t.Errorf("franz-go sees %d quotas at the end, want 3", n)
	}
}
