package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A coordinator that is not there is asked for again, since another takes over, and named
// if none does.
func TestACoordinatorThatIsAwayIsNamed(t *testing.T) {
	away := &kadm.ShardErrors{Name: "DescribeGroups", AllFailed: true, Errs: []kadm.ShardError{{
		Err:    fmt.Errorf("unable to dial: %w", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", term.ErrnoRefused)}),
		Broker: kadm.BrokerDetail{NodeID: 3, Host: "127.0.0.1", Port: 9493},
	}}}
	err := kafka.GroupError("audit", away)
	want := "group \"audit\": its coordinator, broker 3 at 127.0.0.1:9493, does not answer: connection refused; `millrace cluster health` says why"
	if err.Error() != want || !kafka.Passes(err) {
		t.Errorf("%v (passes: %t)\nwant %s", err, kafka.Passes(err), want)
	}
	away.Errs[0].Err = kerr.CoordinatorLoadInProgress
	if err := kafka.GroupError("audit", away); strings.Contains(err.Error(), "shard") || !kafka.Passes(err) {
		t.Errorf("%v (passes: %t)", err, kafka.Passes(err))
	}
	if err := kafka.TopicError("orders", kerr.LeaderNotAvailable, ""); err.Error() != "topic \"orders\": no leader now (LEADER_NOT_AVAILABLE); `millrace cluster health` says why" {
		t.Error(err)
	}
}

// A requestCounter counts what a client sends.
type requestCounter struct{ sent atomic.Int64 }

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (r *requestCounter) OnBrokerWrite(kgo.BrokerMetadata, int16, int, time.Duration, time.Duration, error) {
	r.sent.Add(1)
}

// Many groups take no more requests than a few.
func TestGroupsAreDescribedTogether(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "orders", "-p2")
	c.Do("", "produce", "orders", "-q", "-p1", "one", "two", "three")
	var sent requestCounter
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	client, err := kafka.DialBrokers(ctx, c.Addresses(), kgo.WithHooks(&sent))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprint("group-", i))
		at := make(kadm.Offsets)
		at.AddOffset("orders", 1, int64(i%4), -1)
		if err := admin.CommitAllOffsets(ctx, names[i], at); err != nil {
			t.Fatal(err)
		}
	}
	count := func(names ...string) int64 {
		before := sent.sent.Load()
		described := describeGroups(ctx, admin, names...)
		for i, name := range names {
			if d := described[name]; d.err != nil || d.State != "Empty" || d.lag() != int64(3-i%4) || len(d.Partitions) != 2 {
				t.Errorf("%s: %+v", name, d)
			}
		}
		return sent.sent.Load() - before
	}
	count(names[0]) // finds out who is where
	if one, all := count(names[0]), count(names...); all > one+2 {
		t.Errorf("%d requests for one group, %d for %d", one, all, len(names))
	}
	out := c.Do("", "group", "list", "--no-headers").Stdout
	if n := strings.Count(out, "\n"); n != 60 || !strings.Contains(out, "group-2  ") {
		t.Errorf("%d groups:\n%s", n, out)
	}
}
