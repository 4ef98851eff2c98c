package cli

import (
	"testing"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestRecordsAreWrittenInEveryFormat(t *testing.T) {
	at := time.Date(2026, 1, 2, 4, 4, 5, 678_000_000, time.FixedZone("somewhere", 3600))
	plain := &kgo.Record{Topic: "orders", Partition: 2, Offset: 1041, Timestamp: at, Key: []byte("table-4"), Value: []byte("one espresso"),
		Headers: []kgo.RecordHeader{{Key: "waiter", Value: []byte("ada")}, {Key: "x"}}}
	bare := &kgo.Record{Topic: "orders", Timestamp: time.UnixMilli(0)}
	odd := &kgo.Record{Topic: "orders", Timestamp: time.UnixMilli(0), Key: []byte{}, Value: []byte("\x1b[2J\xff")}
	for _, test := range []struct {
		format string
		record *kgo.Record
		want   string
	}{
		{"text", plain, "orders/2@1041  2026-01-02T03:04:05.678Z  table-4  one espresso  [waiter=ada, x=-]\n"},
		{"text", bare, "orders/0@0  1970-01-01T00:00:00.000Z  -  -\n"},
		{"text", odd, "orders/0@0  1970-01-01T00:00:00.000Z    \"\\x1b[2J\\xff\"\n"},
		{"json", plain, `{"topic":"orders","partition":2,"offset":1041,"timestamp":"2026-01-02T03:04:05.678Z","key":"table-4","value":"one espresso",` +
			`"headers":[{"key":"waiter","value":"ada"},{"key":"x","value":null}]}` + "\n"},
		{"json", bare, `{"topic":"orders","partition":0,"offset":0,"timestamp":"1970-01-01T00:00:00.000Z","key":null,"value":null}` + "\n"},
		{"json", odd, `{"topic":"orders","partition":0,"offset":0,"timestamp":"1970-01-01T00:00:00.000Z","key":"","value":null,"value_base64":"G1sySv8="}` + "\n"},
		{"value", plain, "one espresso\n"},
		{"value", bare, "\n"},
		{"value", odd, "\x1b[2J\xff\n"},
		{`%t %p %o %k %v\n`, plain, "orders 2 1041 table-4 one espresso\n"},
		{`%d %K %V %H %h{%k=%v }`, plain, "1767323045678 7 12 2 waiter=ada x= "},
		{`%d{go#2006-01-02T15:04:05Z07:00#}\t%k{base64}%%`, plain, "2026-01-02T03:04:05Z\tdGFibGUtNA==%"},
	} {
		print, err := newPrinter(test.format)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(print(nil, test.record)); got != test.want {
			t.Errorf("%s\ngot  %q\nwant %q", test.format, got, test.want)
		}
	}
	for _, format := range []string{"xml", "%Q", "%", "%v{nonsense}"} {
		if _, err := newPrinter(format); term.StatusOf(err) != term.StatusUsage {
			t.Errorf("--format %s: %v, want a usage error", format, err)
		}
	}
}
