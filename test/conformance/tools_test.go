//go:build conformance

package conformance

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// kafkaTools are Apache Kafka's own command-line tools: each is a test,
// TestKafkaTools/TOOL. One Java program runs them one after the other and checks
// what each prints.
var kafkaTools = []string{
	"kafka-topics", "kafka-console-producer", "kafka-console-consumer", "kafka-console-consumer-group",
	"kafka-get-offsets", "kafka-configs", "kafka-consumer-groups", "kafka-verifiable-producer",
	"kafka-verifiable-consumer", "kafka-producer-perf-test", "kafka-delete-records", "kafka-log-dirs",
	"kafka-broker-api-versions", "client-compatibility-test",
}

const kafkaToolsRelease = "4.1.2"

func TestKafkaTools(t *testing.T) {
	t.Parallel()
	command := runJava(t, setUpJava(t, "kafka-tools", kafkaToolsRelease), "conformance.Tools")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], strings.Join(brokers, ","), "tools"+suffix+"-")...)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	verdicts := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		tool, verdict, _ := strings.Cut(lines.Text(), " ")
		verdicts[tool] = verdict
	}
	if err != nil && !strings.Contains(string(out), " FAIL ") {
		t.Errorf("%v\n%s", err, tail(string(out)))
	}
	for _, tool := range kafkaTools {
		t.Run(tool, func(t *testing.T) {
			if verdict := verdicts[tool]; verdict != "ok" {
				t.Errorf("%s %s: %s", tool, kafkaToolsRelease, tail(strings.ReplaceAll(verdict, "|", "\n")))
			}
		})
		delete(verdicts, tool)
	}
	if len(verdicts) > 0 {
		t.Errorf("tools that are not listed here, or lines of none: %v", verdicts)
	}
}
