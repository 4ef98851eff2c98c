package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term/termtest"

	"github.com/twmb/franz-go/pkg/kgo"
)

// drain reads a source to its end.
func drain(s source) (records []*kgo.Record, err error) {
	for {
		r, err := s()
		if err == io.EOF {
			return records, nil
		}
		if err != nil {
			return records, err
		}
		records = append(records, r)
	}
}

// say writes a record so that a table can hold it.
func say(r *kgo.Record) string {
	value := func(b []byte) string {
		if b == nil {
			return "null"
		}
		return fmt.Sprintf("%q", b)
	}
	s := fmt.Sprintf("%s %s=%s", r.Topic, value(r.Key), value(r.Value))
	for _, h := range r.Headers {
		s += fmt.Sprintf(" %s:%s", h.Key, value(h.Value))
	}
	if !r.Timestamp.IsZero() {
		s += " " + r.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	return s
}

// notRecord is how the refusal of a line under --jsonl begins, after where it is.
const notRecord = "not a record as `consume --format json` prints it, {\"key\":\"k\",\"value\":\"v\"}: "

func TestInputsBecomeRecords(t *testing.T) {
	for _, test := range []struct {
		name, flags, in string
		args            []string
		want            []string
		wrong           string
	}{
		{name: "lines", in: "a\nb\n", want: []string{`t null="a"`, `t null="b"`}},
		{name: "a last line without its end", in: "a\nb", want: []string{`t null="a"`, `t null="b"`}},
		{name: "an empty line is an empty value", in: "\n\n", want: []string{`t null=""`, `t null=""`}},
		{name: "carriage returns are data", in: "a\r\n", want: []string{`t null="a\r"`}},
		{name: "nothing", in: ""},
		{name: "arguments", args: []string{"a", ""}, want: []string{`t null="a"`, `t null=""`}},
		{name: "key and headers", flags: "--key=k --header=a=1 --header=b=2=3", in: "v\n", want: []string{`t "k"="v" a:"1" b:"2=3"`}},
		{name: "an empty key is a key", flags: "--key=", in: "v\n", want: []string{`t ""="v"`}},
		{name: "tombstone", flags: "--key=k --null-value", in: "ignored", want: []string{`t "k"=null`}},
		{name: "key from a field", flags: "--key-field=o", in: `{"o":"DTW"}` + "\n" + `{"o":7}` + "\n" + `{"o":null}` + "\n" + `{"o":"\u00fc"}`,
			want: []string{`t "DTW"="{\"o\":\"DTW\"}"`, `t "7"="{\"o\":7}"`, `t null="{\"o\":null}"`, `t "ü"="{\"o\":\"\\u00fc\"}"`}},
		{name: "key from a field within a field", flags: "--key-field=a.b", in: `{"a":{"b":true}}`, want: []string{`t "true"="{\"a\":{\"b\":true}}"`}},
		{name: "a missing key field", flags: "--key-field=o", in: `{"o":"x"}` + "\n{}\n", wrong: `line 2: no field "o"`},
		{name: "a line that is not JSON", flags: "--key-field=o", in: "x\n", wrong: "line 1: not a JSON object"},
		{name: "timestamp from a field", flags: "--timestamp-field=t", in: `{"t":"2001/01/01 00:47"}` + "\n" + `{"t":1517363399650}` + "\n" + `{"t":1517363399}`,
			want: []string{`t null="{\"t\":\"2001/01/01 00:47\"}" 2001-01-01T00:47:00Z`,
				`t null="{\"t\":1517363399650}" 2018-01-31T01:49:59.65Z`, `t null="{\"t\":1517363399}" 2018-01-31T01:49:59Z`}},
		{name: "a field that is no time", flags: "--timestamp-field=t", in: `{"t":"soon"}`, wrong: `line 1: field "t": "soon" is not a time`},
		{name: "format", flags: `--format=%k:%v\n`, in: "a:1\nb:2\n", want: []string{`t "a"="1"`, `t "b"="2"`}},
		{name: "format with sizes", flags: "--format=%K{big16}%k%V{ascii}:%v", in: "\x00\x01a3:xyz", want: []string{`t "a"="xyz"`}},
		{name: "format with nulls", flags: `--format=%k:%v\n --null-value`, in: "a:\nb:2\n", want: []string{`t "a"=null`, `t "b"="2"`}},
		{name: "format says the topic", flags: `--format=%t:%v\n`, in: "other:1\n", want: []string{`other null="1"`}},
		{name: "what does not fit the format", flags: `--format=%k:%v\n`, in: "a:1\nb", wrong: "record 2 does not fit -f"},
		{name: "jsonl", flags: "--jsonl", in: `{"topic":"x","partition":9,"offset":7,"timestamp":"2026-01-02T03:04:05.678Z","key":"k","value":"v","headers":[{"key":"h","value":"w"},{"key":"n","value":null}]}`,
			want: []string{`t "k"="v" h:"w" n:null 2026-01-02T03:04:05.678Z`}},
		{name: "jsonl with bytes", flags: "--jsonl", in: `{"key":null,"value":null,"value_base64":"/wA="}`, want: []string{`t null="\xff\x00"`}},
		{name: "jsonl with a key of our own", flags: "--jsonl --key=mine", in: `{"key":"k","value":null}`, want: []string{`t "mine"=null`}},
		{name: "jsonl that is none", flags: "--jsonl", in: "{\"value\":null}\n[]\n", wrong: "line 2: " + notRecord + "it is of the type array, not an object"},
		{name: "jsonl of data that is not records", flags: "--jsonl", in: `{"value":"v"}` + "\n" + `{"date":"2001/01/01 00:47","origin":"DTW"}`,
			wrong: "line 2: " + notRecord + `unknown field "date"; without --jsonl each line is a value`},
		{name: "jsonl with a field too many", flags: "--jsonl", in: `{"key":"k","value":"v","payload":"lost"}`, wrong: "line 1: " + notRecord + `unknown field "payload"`},
		{name: "jsonl with a header's field too many", flags: "--jsonl", in: `{"value":"v","headers":[{"key":"h","vlaue":"w"}]}`, wrong: "line 1: " + notRecord + `unknown field "vlaue"`},
		{name: "jsonl without key and value", flags: "--jsonl", in: `{"topic":"x","offset":7}`, wrong: "line 1: " + notRecord + "it has neither key nor value"},
		{name: "jsonl of an empty object", flags: "--jsonl", in: "{}", wrong: "line 1: " + notRecord + "it has neither key nor value"},
		{name: "jsonl of null", flags: "--jsonl", in: "null", wrong: "line 1: " + notRecord + "it has neither key nor value"},
		{name: "jsonl with an empty line", flags: "--jsonl", in: "\n", wrong: "line 1: " + notRecord + "it is empty"},
		{name: "jsonl with two objects on a line", flags: "--jsonl", in: `{"value":"a"}{"value":"b"}`, wrong: "line 1: " + notRecord + "something follows the object"},
		{name: "jsonl with an object for a value", flags: "--jsonl", in: `{"value":{"a":1}}`, wrong: "line 1: " + notRecord + "value is of the wrong type, object"},
		{name: "jsonl with text and bytes", flags: "--jsonl", in: `{"value":"a","value_base64":"Yg=="}`, wrong: "line 1: value: given as text and as base64"},
		{name: "jsonl with a tombstone", flags: "--jsonl", in: `{"key":null,"value":null}`, want: []string{"t null=null"}},
		{name: "jsonl with wrong base64", flags: "--jsonl", in: `{"value_base64":"*"}`, wrong: "line 1: value:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			line := append(strings.Fields(test.flags), "--", "t")
			c := termtest.Context(t, produceCommand().Flags, append(line, test.args...)...)
			c.App.Reader = strings.NewReader(test.in)
			s, done, err := openInput(c, "t")
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			got, err := drain(s)
			switch {
			case test.wrong == "" && err != nil:
				t.Fatal(err)
			case test.wrong != "" && (err == nil || !strings.HasPrefix(err.Error(), test.wrong)):
				t.Fatalf("error %v, want %s", err, test.wrong)
			case test.wrong != "":
				return
			}
			var said []string
			for _, r := range got {
				said = append(said, say(r))
			}
			if strings.Join(said, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestLinesLongerThanAnyBufferStayWhole(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	got, err := drain(lines(strings.NewReader("a\n"+long+"\nb\n"), func(*kgo.Record) error { return nil }))
	if err != nil || len(got) != 3 || string(got[1].Value) != long || string(got[2].Value) != "b" {
		t.Fatalf("%d records, %v", len(got), err)
	}
}

func TestAnInputThatFailsIsNotAnEnd(t *testing.T) {
	broken := errors.New("cable cut")
	got, err := drain(lines(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), func(*kgo.Record) error { return nil }))
	if !errors.Is(err, broken) || len(got) != 1 {
		t.Errorf("%d records, %v; want the one that was whole, and %v", len(got), err, broken)
	}
}

// What consume prints as JSON, produce takes back byte for byte.
func FuzzJSONRoundTrip(f *testing.F) {
	f.Add([]byte("k"), []byte("v"), "h", []byte("w"), int64(0))
	f.Add([]byte(nil), []byte("\xff\x00"), "", []byte(nil), int64(1517363399650))
	f.Add([]byte("<&\u2028>"), []byte(`{"a":1}`), "\x7f", []byte("\n"), int64(-1))
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte, ms int64) {
		if ms < -62135596800000 || ms > 253402300799999 {
			ms = 0 // years a record may have but JSON's times may not
		}
		name = strings.ToValidUTF8(name, "?") // the protocol has it as text
		want := &kgo.Record{Topic: "t", Key: key, Value: value, Timestamp: time.UnixMilli(ms),
			Headers: []kgo.RecordHeader{{Key: name, Value: header}}}
		line := printJSON(nil, want)
		if n := bytes.Count(line, []byte("\n")); n != 1 {
			t.Fatalf("%d lines: %s", n, line)
		}
		got, err := drain(jsonLines(bytes.NewReader(line), func(r *kgo.Record) error { r.Topic = "t"; return nil }))
		if err != nil || len(got) != 1 {
			t.Fatalf("%d records, %v: %s", len(got), err, line)
		}
		if say(got[0]) != say(want) {
			t.Fatalf("got  %s\nwant %s\nline %s", say(got[0]), say(want), line)
		}
	})
}

func TestRates(t *testing.T) {
	for _, test := range []struct {
		in   string
		want float64
	}{{"", 0}, {"100", 100}, {"100/s", 100}, {"0.5/s", 0.5}, {"0", -1}, {"-1", -1}, {"x", -1}, {"100/m", -1}, {"NaN", -1}, {"Inf", -1}} {
		got, err := kafka.ParseRate(test.in)
		if err != nil {
			got = -1
		}
		if got != test.want {
			t.Errorf("--rate %q: %v, want %v", test.in, got, test.want)
		}
	}
}
