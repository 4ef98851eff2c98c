package kafka

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Span says which part of every partition to read: [from, to). It is what
// rpk's offset grammar describes:
//
//	start           from the beginning
//	end             from the end on
//	:end            up to the end as it is now
//	N  N:           from offset N on
//	:N  N:M         up to offset N, from N up to M
//	+N              from N after the start
//	-N              from N before the end
//	@T  @T:         from the first record at or after time T on
//	@:T  @T:U       up to time T, from T up to U; @:@T and @T:@U are the same
//
// A time is a number of seconds (to 10 digits) or milliseconds (13) since 1970,
// a day, an RFC 3339 time, or a duration before now, "-1h30m"; as the second of
// two also "end", or a duration after the first, "1h".
type Span struct {
	From Point
	To   *Point // nil: no end
}

// A Point is a place in every partition.
type Point struct {
	Kind   pointKind
	Offset int64     // exact: the offset; start: after it; end: before it
	Time   time.Time // AtTime
}

type pointKind int

const (
	AtStart pointKind = iota
	AtEnd
	AtOffset
	AtTime
)

// Reset is where a group begins in a partition it has never committed.
func (p Point) Reset() (kgo.Offset, error) {
	switch p.Kind {
	case AtStart:
		return kgo.NewOffset().AtStart().Relative(p.Offset), nil
	case AtEnd:
		return kgo.NewOffset().AtEnd().Relative(-p.Offset), nil
	case AtTime:
		return kgo.NewOffset().AfterMilli(p.Time.UnixMilli()), nil
	}
	return kgo.NewOffset().At(p.Offset), nil
}

// ParseSpan reads an offset in rpk's grammar, which flag, as errors name it, has. now is
// what durations count from.
func ParseSpan(flag, s string, now time.Time) (Span, error) {
	wrong := func(why string) (Span, error) {
		return Span{}, term.Usage("%s %q: %s; it is start, end, OFFSET, +N, -N, START:END, @TIME or @FROM:TO", flag, s, why)
	}
	end := &Point{Kind: AtEnd}
	switch s {
	case "start", "oldest", "beginning", "earliest":
		return Span{}, nil
	case "end", "newest", "latest":
		return Span{From: *end}, nil
	case ":end":
		return Span{To: end}, nil
	case "", ":":
		return wrong("empty")
	}
	if s[0] == '@' {
		return parseTimes(s, now, wrong)
	}
	if s[0] == '+' || s[0] == '-' {
		n, err := strconv.ParseInt(s[1:], 10, 64)
		if err != nil || n < 0 {
			return wrong("not a number")
		}
		if s[0] == '+' {
			return Span{From: Point{Kind: AtStart, Offset: n}}, nil
		}
		return Span{From: Point{Kind: AtEnd, Offset: n}}, nil
	}
	first, second, two := strings.Cut(s, ":")
	var result Span
	if first != "" && first != "start" || !two {
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil || n < 0 {
			return wrong("not an offset")
		}
		result.From = Point{Kind: AtOffset, Offset: n}
	}
	switch {
	case second == "end":
		result.To = end
	case second != "":
		n, err := strconv.ParseInt(second, 10, 64)
		if err != nil || n < 0 {
			return wrong("not an offset")
		}
		if n < result.From.Offset {
			return wrong("it ends before it begins")
		}
		result.To = &Point{Kind: AtOffset, Offset: n}
	}
	return result, nil
}

func parseTimes(s string, now time.Time, wrong func(string) (Span, error)) (Span, error) {
	rest := s[1:]
	if rest == "" || rest == ":" {
		return wrong("no time")
	}
	var result Span
	base := now
	if !strings.HasPrefix(rest, ":") {
		t, n, err := parseTime(rest, now)
		if err != nil {
			return wrong(err.Error())
		}
		result.From = Point{Kind: AtTime, Time: t}
		base = t
		rest = rest[n:]
	}
	if rest == "" {
		return result, nil
	}
	if rest[0] != ':' {
		return wrong(fmt.Sprintf("%q follows the time", rest))
	}
	// "@FROM:@TO" is what everybody types first.
	switch rest = strings.TrimPrefix(rest[1:], "@"); rest {
	case "":
		return result, nil
	case "end":
		result.To = &Point{Kind: AtEnd}
		return result, nil
	}
	// A negative duration counts from now, as in the first place; a positive one
	// from the first time.
	t, n, err := parseTime(rest, now)
	if err != nil {
		var d time.Duration
		if d, err = time.ParseDuration(rest); err == nil {
			t, n = base.Add(d), len(rest)
		}
	}
	switch {
	case err != nil:
		return wrong(err.Error())
	case n != len(rest):
		return wrong(fmt.Sprintf("%q follows the time", rest[n:]))
	case t.Before(base) && result.From.Kind == AtTime:
		return wrong("it ends before it begins")
	}
	result.To = &Point{Kind: AtTime, Time: t}
	return result, nil
}

var (
	millisPattern   = regexp.MustCompile(`^\d{13}(?:\D|$)`)
	secondsPattern  = regexp.MustCompile(`^\d{9,10}(?:\D|$)`)
	timePattern     = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})?`)
	dayPattern      = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}`)
	durationPattern = regexp.MustCompile(`^-(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d))+`)
)

// parseTime reads the time s begins with, and says how many bytes it took.
func parseTime(s string, now time.Time) (t time.Time, n int, err error) {
	if millisPattern.MatchString(s) {
		ms, err := strconv.ParseInt(s[:13], 10, 64)
		return time.UnixMilli(ms).UTC(), 13, err
	}
	if secondsPattern.MatchString(s) {
		n := 9
		if len(s) > 9 && s[9] >= '0' && s[9] <= '9' {
			n = 10
		}
		sec, err := strconv.ParseInt(s[:n], 10, 64)
		return time.Unix(sec, 0).UTC(), n, err
	}
	if m := timePattern.FindString(s); m != "" {
		iso := strings.Replace(m, " ", "T", 1)
		t, err := time.Parse(time.RFC3339, iso)
		if err != nil {
			t, err = time.Parse("2006-01-02T15:04:05", iso) // no zone: UTC
		}
		return t.UTC(), len(m), err
	}
	if m := dayPattern.FindString(s); m != "" {
		t, err := time.Parse(time.DateOnly, m)
		return t, len(m), err
	}
	if m := durationPattern.FindString(s); m != "" {
		d, err := parseDays(m[1:])
		return now.Add(-d).UTC(), len(m), err
	}
	return time.Time{}, 0, fmt.Errorf("%q is not a time", s)
}

var daysPattern = regexp.MustCompile(`(\d+(?:\.\d+)?)d`)

// parseDays is time.ParseDuration that also knows days of 24 hours.
func parseDays(s string) (time.Duration, error) {
	s = daysPattern.ReplaceAllStringFunc(s, func(m string) string {
		days, _ := strconv.ParseFloat(m[:len(m)-1], 64)
		return strconv.FormatFloat(days*24, 'f', -1, 64) + "h"
	})
	return time.ParseDuration(s)
}

// Bounds are the offsets a span means in one partition, [from, to), and where that
// ends now. from may lie beyond the end.
type Bounds struct{ From, To, End int64 }

// Unbounded is the end of a partition that is followed for ever.
const Unbounded int64 = math.MaxInt64

// Resolve asks the cluster what a span means in each partition of some topics,
// as things are now. With untilEnd no bound lies beyond the present end;
// committed makes that the end of what committed transactions wrote.
func (s Span) Resolve(ctx context.Context, admin *kadm.Client, topics []string, untilEnd, committed bool) (map[string]map[int32]Bounds, error) {
	if len(topics) == 0 {
		return nil, nil // no topics would mean all topics
	}
	starts, err := Listed(admin.ListStartOffsets(ctx, topics...))
	if err != nil {
		return nil, err
	}
	list := admin.ListEndOffsets
	if committed {
		list = admin.ListCommittedOffsets
	}
	ends, err := Listed(list(ctx, topics...))
	if err != nil {
		return nil, err
	}
	at := func(p Point) (func(topic string, partition int32) int64, error) {
		switch p.Kind {
		case AtStart:
			return func(t string, i int32) int64 { return starts[t][i].Offset + p.Offset }, nil
		case AtEnd:
			return func(t string, i int32) int64 { return max(ends[t][i].Offset-p.Offset, starts[t][i].Offset) }, nil
		case AtOffset:
			return func(t string, i int32) int64 { return max(p.Offset, starts[t][i].Offset) }, nil
		}
		// kadm answers the end where no record is that young.
		times, err := Listed(admin.ListOffsetsAfterMilli(ctx, p.Time.UnixMilli(), topics...))
		return func(t string, i int32) int64 {
			if o, ok := times[t][i]; ok && o.Offset >= 0 {
				return o.Offset
			}
			return ends[t][i].Offset
		}, err
	}
	from, err := at(s.From)
	if err != nil {
		return nil, err
	}
	to := func(string, int32) int64 { return Unbounded }
	if s.To != nil {
		if to, err = at(*s.To); err != nil {
			return nil, err
		}
	}
	result := make(map[string]map[int32]Bounds, len(starts))
	for topic, partitions := range starts {
		result[topic] = make(map[int32]Bounds, len(partitions))
		for i := range partitions {
			b := Bounds{From: from(topic, i), To: to(topic, i), End: ends[topic][i].Offset}
			if untilEnd {
				b.To = min(b.To, ends[topic][i].Offset)
			}
			result[topic][i] = b
		}
	}
	return result, nil
}

// Beyond refuses to begin at an offset that no partition has reached: whoever asks
// for it is mistaken, and a client that fetched there would be sent elsewhere. wanted
// says which partitions count, flag where the offset is from.
func Beyond(flag string, all map[string]map[int32]Bounds, wanted func(int32) bool) error {
	type partition struct {
		topic string
		index int32
	}
	var short []partition
	from := int64(0)
	for topic, partitions := range all {
		for i, b := range partitions {
			if !wanted(i) {
				continue
			}
			if b.From <= b.End {
				return nil
			}
			short, from = append(short, partition{topic, i}), max(from, b.From)
		}
	}
	if len(short) == 0 {
		return nil
	}
	slices.SortFunc(short, func(a, b partition) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.index, b.index))
	})
	var ends []string
	for i, p := range short {
		topic := ""
		if i == 0 || short[i-1].topic != p.topic {
			topic = "topic " + p.topic + ": "
		}
		ends = append(ends, fmt.Sprintf("%spartition %d ends at %s", topic, p.index, term.Number(all[p.topic][p.index].End)))
	}
	return term.Fail(term.StatusNotFound, "%s %s is beyond the end of %s; %[1]s end is what comes next, %[1]s -10 the last ten", flag, term.Number(from), term.Some(ends))
}

// Listed refuses an answer in which any partition is missing.
func Listed(offsets kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	offsets.Each(func(o kadm.ListedOffset) {
		if o.Err != nil && err == nil {
			if o.Partition < 0 {
				err = TopicError(o.Topic, o.Err, "")
			} else {
				err = term.Explain(o.Err, "list offsets of %s/%d: %s", o.Topic, o.Partition, BrokerSaid(o.Err, ""))
			}
		}
	})
	return offsets, err
}
