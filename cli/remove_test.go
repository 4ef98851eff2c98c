package cli

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/cli/clitest"
	"millrace/cli/kafka"
	"millrace/cli/local"
	"millrace/cli/term"
)

// Of three brokers one goes for good, disk and all, and then another: each is removed,
// with a word about what that means first, and what is left goes on with all there was.
func TestBrokersThatAreGoneAreRemoved(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	c.Do("", "topic", "create", "orders", "-p2", "-r3")
	c.Do("", "cluster", "health", "--wait", "60s")
	c.Do(strings.Repeat("v\n", 100), "produce", "orders", "-q")
	refused := func(text string, status int, args ...string) {
		t.Helper()
		if r := clitest.Run(t, c.Addresses()[:1], "", append([]string{"cluster", "remove"}, args...)...); r.Status != status || !strings.Contains(r.Stderr, text) {
			t.Errorf("cluster remove %v: status %d, %s", args, r.Status, r.Stderr)
		}
	}
	refused("say its number", term.StatusUsage)
	refused(`"three" is no number of a broker`, term.StatusUsage, "three")
	refused("Broker 3 is there; stop it before the cluster forgets it", term.StatusFailed, "3", "--yes")
	refused("Broker ID 9 is not currently registered", term.StatusFailed, "9", "--dry-run")
	last := c.All[2]
	for left := 2; left >= 1; left-- {
		number := strconv.Itoa(last.ID)
		c.Kill(last)
		if err := os.RemoveAll(last.Data); err != nil {
			t.Fatal(err)
		}
		others := slices.DeleteFunc(slices.Clone(c.All[:2]), func(n *local.Child) bool { return n == last })
		brokers := []string{others[0].Address}
		r := clitest.Run(t, brokers, "", "cluster", "remove", number, "--dry-run")
		for began := time.Now(); r.Status != term.StatusDone && time.Since(began) < time.Minute; time.Sleep(50 * time.Millisecond) {
			r = clitest.Run(t, brokers, "", "cluster", "remove", number, "--dry-run") // until it is known to be gone
		}
		if !strings.HasPrefix(r.Stdout, "would remove broker "+number+": ") || !strings.Contains(r.Stdout, "with one replica less") {
			t.Errorf("%d left: %s%s", left, r.Stdout, r.Stderr)
		}
		if r := clitest.Run(t, brokers, "", "cluster", "remove", number); r.Status != term.StatusUsage || !strings.Contains(r.Stderr, "refusing to remove broker "+number+": ") {
			t.Errorf("%d left, without --yes: status %d, %s", left, r.Status, r.Stderr)
		}
		r = clitest.Run(t, brokers, "", "cluster", "remove", number, "--yes", "--wait", "60s")
		if r.Status != term.StatusDone || !strings.HasPrefix(r.Stdout, "removed broker "+number+": ") {
			t.Fatalf("%d left: status %d, %s%s", left, r.Status, r.Stdout, r.Stderr)
		}
		if !strings.Contains(r.Stderr, "`millrace cluster ca rotate`") {
			t.Errorf("%d left: nothing is said of the key in the broker's folder: %s", left, r.Stderr)
		}
		if r := clitest.Run(t, brokers, "", "cluster", "health", "--wait", "60s"); r.Status != term.StatusDone {
			t.Errorf("%d left: %s", left, r.Stderr)
		}
		if got := clitest.Run(t, brokers, "", "consume", "orders", "-e", "-f", "value").Stdout; strings.Count(got, "\n") != 100 {
			t.Errorf("%d left: %d records", left, strings.Count(got, "\n"))
		}
		if left == 2 { // the one controller that votes must be the one that stays
			if last = c.All[1]; soleVoter(t, brokers) == int32(last.ID) {
				last = c.All[0]
			}
		}
	}
}

// soleVoter waits until one controller votes, and returns which.
func soleVoter(t *testing.T, brokers []string) int32 {
	t.Helper()
	client, err := kafka.DialBrokers(t.Context(), brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic, topic.Partitions = "__cluster_metadata", []kmsg.DescribeQuorumRequestTopicPartition{{}}
	req.Topics = append(req.Topics, topic)
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(50 * time.Millisecond) {
		resp, err := req.RequestWith(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		if voters := resp.Topics[0].Partitions[0].CurrentVoters; len(voters) == 1 {
			return voters[0].ReplicaID
		}
	}
	t.Fatal("more than one controller votes")
	return 0
}
