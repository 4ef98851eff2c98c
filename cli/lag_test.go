package cli

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Every partition of a topic that a group reads counts in its lag, committed or not, and
// every member is there, whether it has a partition or not.
func TestTheLagLeavesNothingOut(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "flights", "-p3")
	for p, n := range []int{10, 20, 30} {
		c.Do(strings.Repeat("x\n", n), "produce", "flights", "-q", "-p", string(rune('0'+p)))
	}
	c.Do("", "topic", "trim", "flights", "-p2", "-o", "5", "--yes")
	c.Do("", "group", "seek", "audit", "--to", "4", "--topics", "flights") // makes the group
	c.Do("", "group", "delete", "audit", "--yes")
	describe := func() groupDescription {
		t.Helper()
		var d groupDescription
		if err := json.Unmarshal([]byte(c.Do("", "group", "describe", "audit", "-o", "json").Stdout), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	c.Do("", "consume", "flights", "-g", "audit", "-n1")
	if d := describe(); d.lag() != 54 || d.NotCommitted != 2 || d.Unknown != 0 || len(d.Partitions) != 3 {
		t.Errorf("after 1 of 55 records: %+v", d)
	}
	r := clitest.Run(t, c.Addresses(), "", "group", "describe", "audit", "--max-lag", "53")
	if r.Status != term.StatusLag || !strings.Contains(r.Stdout, "TOTAL-LAG    54 (2 partitions not committed, from the start of the log)\n") || strings.Count(r.Stdout, "uncommitted") != 2 {
		t.Errorf("status %d, %s", r.Status, r.Stdout)
	}
	c.Do("", "group", "describe", "audit", "--max-lag", "54")
	// The lists have the same figures.
	if got := c.Do("", "group", "list", "--no-headers").Stdout; strings.Join(strings.Fields(got), " ") != "audit classic 0 54 Empty 1" {
		t.Errorf("group list: %q", got)
	}
	if got := c.Do("", "topic", "list", "--no-headers").Stdout; !regexp.MustCompile(`^flights +3 +1 +55 +[\d.]+kB +0\.9/s\n$`).MatchString(got) {
		t.Errorf("topic list: %q", got)
	}
	if got := c.Do("", "group", "delete", "audit", "--dry-run").Stdout; got != "would delete group audit with what it committed for 1 partition\n" {
		t.Errorf("%q", got)
	}
	// Seeking moves them too, and says what that means.
	if got, want := c.Do("", "group", "seek", "audit", "--to", "1", "--dry-run").Stderr, "would move group audit: 0 records again, 0 skipped; nothing was committed of 2 partitions\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := c.Do("", "group", "seek", "audit", "--to", "end", "-o", "name").Stdout; strings.Count(got, "flights") != 3 {
		t.Errorf("seek moves %q", got)
	}
	if d := describe(); d.lag() != 0 || d.NotCommitted != 0 {
		t.Errorf("at the end: %+v", d)
	}
	// Four members of three partitions: one has none.
	for range 4 {
		member := clitest.Command(t, c.Addresses(), "consume", "flights", "-g", "audit")
		if err := member.Start(); err != nil {
			t.Fatal(err)
		}
		defer member.Wait()
		defer member.Process.Kill()
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		d := describe()
		if d.Members == 4 && len(d.Idle) == 1 && d.Idle[0].ClientID == "millrace" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", d)
		}
	}
}

// A group whose only member left before its first commit has everything before it, and
// nobody knows of what: that is no lag of 0.
func TestTheLagOfWhoCommittedNothingIsUnknown(t *testing.T) {
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "orders", "-p2")
	c.Do("", "produce", "orders", "-q", "one", "two", "three", "four", "five")
	member, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()...), kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	if fetches := member.PollRecords(t.Context(), 1); fetches.Err() != nil || fetches.NumRecords() != 1 {
		t.Fatal(fetches.Err())
	}
	if got := c.Do("", "group", "describe", "billing", "--max-lag", "5").Stdout; !strings.Contains(got, "TOTAL-LAG    5 (2 partitions not committed, from the start of the log)\n") {
		t.Errorf("while the member is there: %s", got)
	}
	member.Close() // and so leaves the group
	r := clitest.Run(t, c.Addresses(), "", "group", "describe", "billing")
	if r.Status != term.StatusDone || !strings.Contains(r.Stdout, "TOTAL-LAG    - (nothing was committed, and no member says what the group reads)\n") || r.Stderr != whereConsumersBegin+"\n" {
		t.Errorf("status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	r = clitest.Run(t, c.Addresses(), "", "group", "describe", "billing", "--max-lag", "1000000")
	if r.Status != term.StatusFailed || !strings.Contains(r.Stderr, `group "billing": its lag is not known`) {
		t.Errorf("--max-lag: status %d\n%s", r.Status, r.Stderr)
	}
	if got := c.Do("", "group", "describe", "billing", "-o", "json").Stdout; !strings.Contains(got, `"total_lag": null,`) {
		t.Errorf("%s", got)
	}
	if got := c.Do("", "group", "list", "-o", "jsonl").Stdout; !strings.Contains(got, `"members":0,"total_lag":null,`) {
		t.Errorf("%s", got)
	}
	if got := c.Do("", "group", "list", "--no-headers").Stdout; strings.Join(strings.Fields(got), " ") != "billing classic 0 - Empty 1" {
		t.Errorf("%q", got)
	}
	// As soon as one partition is committed, the topic is known, and all of it counts.
	client, err := kafka.DialBrokers(t.Context(), c.Addresses())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	at := make(kadm.Offsets)
	at.AddOffset("orders", 0, 0, -1)
	if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), "billing", at); err != nil {
		t.Fatal(err)
	}
	if got := c.Do("", "group", "list", "--no-headers").Stdout; strings.Join(strings.Fields(got), " ") != "billing classic 0 5 Empty 1" {
		t.Errorf("%q", got)
	}
}

// What is about to be done to many partitions is summed up; what is not known of one is said.
func TestSumsBeforeSomethingIsDone(t *testing.T) {
	for want, got := range map[string]string{
		" and 5 records": countedRecords(5, 0),
		" and at least 1 record, since 1 partition does not tell":          countedRecords(1, 1),
		" and at least 1,000 records, since 2 partitions do not tell":      countedRecords(1000, 2),
		"0 records again, 0 skipped":                                       moved(nil),
		"7 records again, 4 skipped; nothing was committed of 1 partition": moved([]seek{{From: 9, To: 2}, {From: 1, To: 5}, {From: -1, To: 3}}),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What cannot be asked is not counted as nothing.
func TestAnUnknownLagIsSaid(t *testing.T) {
	d := groupDescription{TotalLag: new(int64)}
	d.count(&groupLine{CurrentOffset: 5, LogStartOffset: -1, LogEndOffset: -1}, true)
	d.count(&groupLine{CurrentOffset: 5, LogStartOffset: -1, LogEndOffset: -1}, false) // of a deleted topic
	d.count(&groupLine{CurrentOffset: 5, LogStartOffset: 8, LogEndOffset: 10}, true)   // three were deleted unread
	d.count(&groupLine{CurrentOffset: -1, LogStartOffset: 1, LogEndOffset: 4}, true)
	d.count(&groupLine{CurrentOffset: -1, LogStartOffset: 1, LogEndOffset: 4, untold: true}, true) // the coordinator did not tell
	if d.lag() != 5 || d.Unknown != 2 || d.NotCommitted != 1 {
		t.Errorf("%+v", d)
	}
	if got, want := d.notes(), " (1 partition not committed, from the start of the log; without 2 partitions that cannot tell)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
