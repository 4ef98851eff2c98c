package cli

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every partition of a topic that a group reads counts in its lag, committed or not, and
// every member is there, whether it has a partition or not.
func TestTheLagLeavesNothingOut(t *testing.T) {
	c := startCluster(t, 1)
	c.do("", "topic", "create", "flights", "-p3")
	for p, n := range []int{10, 20, 30} {
		c.do(strings.Repeat("x\n", n), "produce", "flights", "-q", "-p", string(rune('0'+p)))
	}
	c.do("", "topic", "trim", "flights", "-p2", "-o", "5", "--yes")
	c.do("", "group", "seek", "audit", "--to", "4", "--topics", "flights") // makes the group
	c.do("", "group", "delete", "audit", "--yes")
	describe := func() groupDescription {
		t.Helper()
		var d groupDescription
		if err := json.Unmarshal([]byte(c.do("", "group", "describe", "audit", "-o", "json").stdout), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	c.do("", "consume", "flights", "-g", "audit", "-n1")
	if d := describe(); d.TotalLag != 54 || d.NotCommitted != 2 || d.Unknown != 0 || len(d.Partitions) != 3 {
		t.Errorf("after 1 of 55 records: %+v", d)
	}
	r := millrace(t, c.addresses(), "", "group", "describe", "audit", "--max-lag", "53")
	if r.status != StatusLag || !strings.Contains(r.stdout, "TOTAL-LAG    54 (2 partitions not committed, from the start of the log)\n") || strings.Count(r.stdout, "uncommitted") != 2 {
		t.Errorf("status %d, %s", r.status, r.stdout)
	}
	c.do("", "group", "describe", "audit", "--max-lag", "54")
	// The lists have the same figures.
	if got := c.do("", "group", "list", "--no-headers").stdout; strings.Join(strings.Fields(got), " ") != "audit classic 0 54 Empty 1" {
		t.Errorf("group list: %q", got)
	}
	if got := c.do("", "topic", "list", "--no-headers").stdout; !regexp.MustCompile(`^flights +3 +1 +55 +[\d.]+kB +0\.9/s\n$`).MatchString(got) {
		t.Errorf("topic list: %q", got)
	}
	if got := c.do("", "group", "delete", "audit", "--dry-run").stdout; got != "would delete group audit with what it committed for 1 partition\n" {
		t.Errorf("%q", got)
	}
	// Seeking moves them too, and says what that means.
	if got, want := c.do("", "group", "seek", "audit", "--to", "1", "--dry-run").stderr, "would move group audit: 0 records again, 0 skipped; nothing was committed of 2 partitions\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := c.do("", "group", "seek", "audit", "--to", "end", "-o", "name").stdout; strings.Count(got, "flights") != 3 {
		t.Errorf("seek moves %q", got)
	}
	if d := describe(); d.TotalLag != 0 || d.NotCommitted != 0 {
		t.Errorf("at the end: %+v", d)
	}
	// Four members of three partitions: one has none.
	for range 4 {
		member := command(t, c.addresses(), "consume", "flights", "-g", "audit")
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
	d := groupDescription{}
	d.count(&groupLine{CurrentOffset: 5, LogStartOffset: -1, LogEndOffset: -1}, true)
	d.count(&groupLine{CurrentOffset: 5, LogStartOffset: -1, LogEndOffset: -1}, false) // of a deleted topic
	d.count(&groupLine{CurrentOffset: 5, LogStartOffset: 8, LogEndOffset: 10}, true)   // three were deleted unread
	d.count(&groupLine{CurrentOffset: -1, LogStartOffset: 1, LogEndOffset: 4}, true)
	if d.TotalLag != 5 || d.Unknown != 1 || d.NotCommitted != 1 {
		t.Errorf("%+v", d)
	}
	if got, want := d.notes(), " (1 partition not committed, from the start of the log; without 1 partition that cannot tell)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
