package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// say writes a span so that a table can hold it.
func (p point) say() string {
	switch p.kind {
	case atStart:
		return fmt.Sprintf("start+%d", p.offset)
	case atEnd:
		return fmt.Sprintf("end-%d", p.offset)
	case atOffset:
		return fmt.Sprint(p.offset)
	}
	return p.time.UTC().Format(time.RFC3339Nano)
}

func (s span) say() string {
	if s.to == nil {
		return s.from.say() + " …"
	}
	return s.from.say() + " … " + s.to.say()
}

var spanNow = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// The grammar is that of `rpk topic consume --offset`.
var spanTests = []struct{ in, want string }{
	{"start", "start+0 …"},
	{"oldest", "start+0 …"},
	{"end", "end-0 …"},
	{":end", "start+0 … end-0"},
	{"0", "0 …"},
	{"1041", "1041 …"},
	{"1041:", "1041 …"},
	{":1041", "start+0 … 1041"},
	{"7:1041", "7 … 1041"},
	{"7:7", "7 … 7"},
	{"7:end", "7 … end-0"},
	{"start:7", "start+0 … 7"},
	{"start:end", "start+0 … end-0"},
	{"+5", "start+5 …"},
	{"-5", "end-5 …"},
	{"-0", "end-0 …"},
	{"@1622505600", "2021-06-01T00:00:00Z …"},
	{"@999999999", "2001-09-09T01:46:39Z …"},
	{"@1622505600123", "2021-06-01T00:00:00.123Z …"},
	{"@1622505600:", "2021-06-01T00:00:00Z …"},
	{"@1622505600:1622505660", "2021-06-01T00:00:00Z … 2021-06-01T00:01:00Z"},
	{"@2021-06-01", "2021-06-01T00:00:00Z …"},
	{"@2021-06-01:2021-06-02", "2021-06-01T00:00:00Z … 2021-06-02T00:00:00Z"},
	{"@2021-06-01T10:20:30Z", "2021-06-01T10:20:30Z …"},
	{"@2021-06-01T10:20:30.5Z", "2021-06-01T10:20:30.5Z …"},
	{"@2021-06-01T10:20:30+02:00", "2021-06-01T08:20:30Z …"},
	{"@2021-06-01T10:20:30Z:2021-06-01T10:20:31Z", "2021-06-01T10:20:30Z … 2021-06-01T10:20:31Z"},
	{"@2021-06-01T10:20:30Z:1h", "2021-06-01T10:20:30Z … 2021-06-01T11:20:30Z"},
	{"@2021-06-01:end", "2021-06-01T00:00:00Z … end-0"},
	{"@:2021-06-01", "start+0 … 2021-06-01T00:00:00Z"},
	{"@:end", "start+0 … end-0"},
	{"@:-1h", "start+0 … 2026-07-01T11:00:00Z"},
	{"@-1h", "2026-07-01T11:00:00Z …"},
	{"@-1h30m", "2026-07-01T10:30:00Z …"},
	{"@-2d", "2026-06-29T12:00:00Z …"},
	{"@-1h:", "2026-07-01T11:00:00Z …"},
	{"@-1h:end", "2026-07-01T11:00:00Z … end-0"},
	{"@-48h:-24h", "2026-06-29T12:00:00Z … 2026-06-30T12:00:00Z"},
	{"@2021-06-01:@2021-06-02", "2021-06-01T00:00:00Z … 2021-06-02T00:00:00Z"},
	{"@-2h:@-1h", "2026-07-01T10:00:00Z … 2026-07-01T11:00:00Z"},
	{"@:@2021-06-01", "start+0 … 2021-06-01T00:00:00Z"},
	{"@-1h:@end", "2026-07-01T11:00:00Z … end-0"},
	{"@-48h:24h", "2026-06-29T12:00:00Z … 2026-06-30T12:00:00Z"},

	{"", "error"},
	{"-", "error"},
	{"+", "error"},
	{"--5", "error"},
	{"+-5", "error"},
	{"x", "error"},
	{":", "error"},
	{"5:x", "error"},
	{"7:6", "error"},
	{"5:-1", "error"},
	{"9223372036854775808", "error"},
	{"@", "error"},
	{"@:", "error"},
	{"@x", "error"},
	{"@1h", "error"},
	{"@2021-13-01", "error"},
	{"@2021-06-01x", "error"},
	{"@2021-06-02:2021-06-01", "error"},
	{"@-1h:-2h", "error"},
	{"@-1h:@-2h", "error"},
	{"@-1h:@@-2h", "error"},
	{"@-2h:@-1h:", "error"},
	{"@12345", "error"},
	{"@16225056001234567", "error"},
}

func TestSpansFollowTheGrammarOfRpk(t *testing.T) {
	for _, test := range spanTests {
		got := "error"
		s, err := parseSpan("-o", test.in, spanNow)
		if err == nil {
			got = s.say()
		} else if statusOf(err) != StatusUsage {
			t.Errorf("-o %q: status %d", test.in, statusOf(err))
		}
		if got != test.want {
			t.Errorf("-o %q: %s, want %s (%v)", test.in, got, test.want, err)
		}
	}
}

// An offset that nobody has reached is no place to begin. Where some partitions have, it
// is one, and what the others get until then is not asked for.
func TestAnOffsetBeyondTheEndIsRefused(t *testing.T) {
	t.Parallel()
	c := startBroker(t)
	c.do("", "topic", "create", "jobs", "-p2")
	c.do(strings.Repeat("x\n", 4), "produce", "jobs", "-q", "-p0")
	c.do(strings.Repeat("x\n", 2), "produce", "jobs", "-q", "-p1")
	for _, test := range []struct{ line, want string }{
		{"consume jobs -o 9999 -e", "-o 9,999 is beyond the end of topic jobs: partition 0 ends at 4, partition 1 ends at 2; -o end is what comes next, -o -10 the last ten"},
		{"consume jobs -o 9999", "-o 9,999 is beyond the end of topic jobs: partition 0 "},
		{"consume jobs -o 9999:10000 -p1", "-o 9,999 is beyond the end of topic jobs: partition 1 "},
		{"consume jobs -o +5 -e", "-o 5 is beyond the end of topic jobs: partition 0 "},
		{"consume jobs -g workers -o 9999", "-o 9,999 is beyond the end of topic jobs: partition 0 "},
		{"group seek workers --topics jobs --to 9999", "--to 9,999 is beyond the end of topic jobs: partition 0 ends at 4, partition 1 ends at 2; --to end is "},
	} {
		if r := runMillrace(t, c.addresses(), "", strings.Fields(test.line)...); r.status != StatusNotFound || !strings.HasPrefix(r.stderr, "millrace: "+test.want) {
			t.Errorf("millrace %s: status %d, %s", test.line, r.status, r.stderr)
		}
	}
	if got := c.do("", "consume", "jobs", "-o", "3", "-e", "-f", "%p/%o\n").stdout; got != "0/3\n" {
		t.Errorf("from offset 3 on: %q", got)
	}
	follower := command(t, c.addresses(), "consume", "jobs", "-o", "3", "-n2", "-f", "%p/%o ")
	var out strings.Builder
	follower.Stdout = &out
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	c.do(strings.Repeat("x\n", 2), "produce", "jobs", "-q", "-p1")
	if err := follower.Wait(); err != nil || !strings.Contains(out.String(), "0/3 ") || !strings.Contains(out.String(), "1/3 ") {
		t.Errorf("followed from offset 3 on: %q, %v", out.String(), err)
	}
}

// Whatever is accepted has offsets that exist and does not end before it begins.
func FuzzParseSpan(f *testing.F) {
	for _, test := range spanTests {
		f.Add(test.in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := parseSpan("-o", in, spanNow)
		if err != nil {
			return
		}
		if s.from.offset < 0 || s.to != nil && s.to.offset < 0 {
			t.Fatalf("-o %q: a negative offset: %s", in, s.say())
		}
		if s.to == nil || s.from.kind != s.to.kind {
			return
		}
		if s.from.kind == atOffset && s.to.offset < s.from.offset || s.from.kind == atTime && s.to.time.Before(s.from.time) {
			t.Fatalf("-o %q: it ends before it begins: %s", in, s.say())
		}
	})
}

func TestPartitionsAreListsAndRanges(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"", "0 1 2 3 4 5 6 7 8 9"},
		{"3", "3"},
		{"0,2,5-7", "0 2 5 6 7"},
		{" 1 , 2 ", "1 2"},
		{"x", "error"},
		{"-1", "error"},
		{"3-1", "error"},
		{"1,,2", "error"},
		{"99999999999", "error"},
	} {
		set, err := parsePartitions(test.in)
		got := ""
		if err != nil {
			got = " error"
		} else {
			for i := range int32(10) {
				if set(i) {
					got += fmt.Sprintf(" %d", i)
				}
			}
		}
		if got != " "+test.want {
			t.Errorf("-p %q:%s, want %s", test.in, got, test.want)
		}
	}
}

// TestWhoIsBetweenLeadersIsAskedAgain: what settle is given says in our words what
// the broker said, and is known as that.
func TestWhoIsBetweenLeadersIsAskedAgain(t *testing.T) {
	list := func(err error) error {
		_, err = listed(kadm.ListedOffsets{"orders": {4: {Topic: "orders", Partition: 4, Err: err}}}, nil)
		return err
	}
	for _, test := range []struct {
		err   error
		again bool
		said  string
	}{
		{list(nil), false, ""},
		{list(kerr.NotLeaderForPartition), true, "list offsets of orders/4: This server is not the leader for that topic-partition (NOT_LEADER_FOR_PARTITION)"},
		{list(kerr.UnknownTopicOrPartition), false, "list offsets of orders/4: "},
		{list(kerr.TopicAuthorizationFailed), false, "list offsets of orders/4: "},
		{topicError("orders", kerr.LeaderNotAvailable, ""), true, `topic "orders": `},
		{groupError("billing", kerr.NotCoordinator), true, `group "billing": `},
		{groupError("billing", kerr.NonEmptyGroup), false, `group "billing" has members`},
	} {
		if test.err != nil && !strings.HasPrefix(test.err.Error(), test.said) || test.said == "" && test.err != nil {
			t.Errorf("says %q, want %q", test.err, test.said)
		}
		asked := 0
		err := settle(t.Context(), func(context.Context) error {
			if asked++; asked > 1 {
				return nil
			}
			return test.err
		})
		if again := asked > 1; again != test.again || (err == nil) != (test.err == nil || test.again) {
			t.Errorf("%v: asked %d times, and then %v", test.err, asked, err)
		}
	}
}
