package kafka

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// say writes a span so that a table can hold it.
func (p Point) say() string {
	switch p.Kind {
	case AtStart:
		return fmt.Sprintf("start+%d", p.Offset)
	case AtEnd:
		return fmt.Sprintf("end-%d", p.Offset)
	case AtOffset:
		return fmt.Sprint(p.Offset)
	}
	return p.Time.UTC().Format(time.RFC3339Nano)
}

func (s Span) say() string {
	if s.To == nil {
		return s.From.say() + " …"
	}
	return s.From.say() + " … " + s.To.say()
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
		s, err := ParseSpan("-o", test.in, spanNow)
		if err == nil {
			got = s.say()
		} else if term.StatusOf(err) != term.StatusUsage {
			t.Errorf("-o %q: status %d", test.in, term.StatusOf(err))
		}
		if got != test.want {
			t.Errorf("-o %q: %s, want %s (%v)", test.in, got, test.want, err)
		}
	}
}

// Whatever is accepted has offsets that exist and does not end before it begins.
func FuzzParseSpan(f *testing.F) {
	for _, test := range spanTests {
		f.Add(test.in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSpan("-o", in, spanNow)
		if err != nil {
			return
		}
		if s.From.Offset < 0 || s.To != nil && s.To.Offset < 0 {
			t.Fatalf("-o %q: a negative offset: %s", in, s.say())
		}
		if s.To == nil || s.From.Kind != s.To.Kind {
			return
		}
		if s.From.Kind == AtOffset && s.To.Offset < s.From.Offset || s.From.Kind == AtTime && s.To.Time.Before(s.From.Time) {
			t.Fatalf("-o %q: it ends before it begins: %s", in, s.say())
		}
	})
}

// TestWhoIsBetweenLeadersIsAskedAgain: what settle is given says in our words what
// the broker said, and is known as that.
func TestWhoIsBetweenLeadersIsAskedAgain(t *testing.T) {
	list := func(err error) error {
		_, err = Listed(kadm.ListedOffsets{"orders": {4: {Topic: "orders", Partition: 4, Err: err}}}, nil)
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
		{TopicError("orders", kerr.LeaderNotAvailable, ""), true, `topic "orders": `},
		{GroupError("billing", kerr.NotCoordinator), true, `group "billing": `},
		{GroupError("billing", kerr.NonEmptyGroup), false, `group "billing" has members`},
	} {
		if test.err != nil && !strings.HasPrefix(test.err.Error(), test.said) || test.said == "" && test.err != nil {
			t.Errorf("says %q, want %q", test.err, test.said)
		}
		asked := 0
		err := Settle(t.Context(), func(context.Context) error {
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
