package cli

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	urfave "github.com/urfave/cli/v2"
)

type row struct {
	Name string `json:"name"`
	Size int    `json:"size"`
	Note string `json:"note"`
}

func TestListsInEveryFormat(t *testing.T) {
	rows := []row{{"orders", 3, ""}, {"größer", 12, "yes: <really>"}}
	columns := []column[row]{
		{"NAME", func(r row) string { return r.Name }},
		{"SIZE", func(r row) string { return number(r.Size) }},
		{"NOTE", func(r row) string { return r.Note }},
	}
	for _, test := range []struct {
		flags string
		rows  []row
		want  string
	}{
		{"", rows, "NAME    SIZE  NOTE\norders  3     -\ngrößer  12    yes: <really>\n"},
		{"--no-headers", rows, "orders  3   -\ngrößer  12  yes: <really>\n"},
		{"", nil, "NAME  SIZE  NOTE\n"},
		{"--output=name", rows, "orders\ngrößer\n"},
		{"--output=jsonl", rows, `{"name":"orders","size":3,"note":""}` + "\n" + `{"name":"größer","size":12,"note":"yes: <really>"}` + "\n"},
		{"--output=json", rows[:1], "[\n  {\n    \"name\": \"orders\",\n    \"size\": 3,\n    \"note\": \"\"\n  }\n]\n"},
		{"--output=json", nil, "[]\n"},
		{"--output=yaml", rows, "- name: orders\n  size: 3\n  note: \"\"\n- name: größer\n  size: 12\n  note: 'yes: <really>'\n"},
	} {
		var out strings.Builder
		c := contextFor(t, outputFlags(true), strings.Fields(test.flags)...)
		c.App.Writer = &out
		if err := printList(c, test.rows, columns); err != nil {
			t.Fatal(err)
		}
		if out.String() != test.want {
			t.Errorf("%s\ngot\n%swant\n%s", test.flags, out.String(), test.want)
		}
	}
	c := contextFor(t, outputFlags(true), "--output=xml")
	if err := printList(c, rows, columns); statusOf(err) != StatusUsage {
		t.Errorf("--output=xml: %v", err)
	}
}

// contextFor is the context of a command with some flags, run with some words.
func contextFor(t *testing.T, flags []urfave.Flag, words ...string) *urfave.Context {
	t.Helper()
	set := flag.NewFlagSet("", flag.ContinueOnError)
	for _, f := range flags {
		if err := f.Apply(set); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Parse(words); err != nil {
		t.Fatal(err)
	}
	c := urfave.NewContext(&urfave.App{Reader: strings.NewReader(""), Writer: new(strings.Builder), ErrWriter: new(strings.Builder)}, set, nil)
	c.Context = t.Context()
	return c
}

// Columns stand under each other whatever characters take two places, or none.
func TestColumnsAlignAsTheTerminalCounts(t *testing.T) {
	var out strings.Builder
	if err := printRows(&out, [][]string{{"订单", "x"}, {"ordersss", "y"}, {"e\u0301", "z"}, {"\x1b[31mred\x1b[0m", "r"}}); err != nil {
		t.Fatal(err)
	}
	if want := "订单      x\nordersss  y\ne\u0301         z\n\x1b[31mred\x1b[0m       r\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// A table that is too wide has its ids shortened, then loses the columns that are least
// wanted, and never the first.
func TestWideTablesAreMadeToFit(t *testing.T) {
	const member = "millrace-3cf8b95c-425b-47cf-a98c-3a2a7a6f1632"
	for _, test := range []struct {
		width int
		want  string
		left  string
	}{
		{0, "TOPIC|LAG|MEMBER-ID|HOST t|5|" + member + "|h", ""},
		{64, "TOPIC|LAG|MEMBER-ID|HOST t|5|" + member + "|h", ""},
		{60, "TOPIC|LAG|MEMBER-ID|HOST t|5|millrace…7a6f1632|h", ""},
		{31, "TOPIC|LAG|MEMBER-ID t|5|millrace…7a6f1632", "HOST"},
		{12, "TOPIC|LAG t|5", "HOST MEMBER-ID"},
		{3, "TOPIC|LAG t|5", "HOST MEMBER-ID"},
	} {
		names := []string{"TOPIC", "LAG", "MEMBER-ID", "HOST"}
		rows := [][]string{slices.Clone(names), {"t", "5", member, "h"}}
		left := fit(names, rows, test.width)
		var got []string
		for _, row := range rows {
			got = append(got, strings.Join(row, "|"))
		}
		if strings.Join(got, " ") != test.want || strings.Join(left, " ") != test.left {
			t.Errorf("in %d columns: %q without %q, want %q without %q", test.width, got, left, test.want, test.left)
		}
	}
}

func TestDestructionInAPipeNeedsYes(t *testing.T) {
	if err := confirm(contextFor(t, destructiveFlags()), "delete everything"); statusOf(err) != StatusUsage ||
		!strings.Contains(err.Error(), "--yes") {
		t.Errorf("without --yes: %v", err)
	}
	if err := confirm(contextFor(t, destructiveFlags(), "--yes"), "delete everything"); err != nil {
		t.Errorf("with --yes: %v", err)
	}
}

func TestFiguresForPeople(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{number(0), "0"}, {number(999), "999"}, {number(1000), "1,000"}, {number(-1234567), "-1,234,567"}, {number(-999), "-999"},
		{count(1, "record"), "1 record"}, {count(20000, "record"), "20,000 records"}, {count(0, "record"), "0 records"},
		{size(0), "0 B"}, {size(999), "999 B"}, {size(1000), "1.00 kB"}, {size(1784866), "1.78 MB"}, {size(99_960), "100 kB"}, {size(999_600), "1.00 MB"},
		{seconds(2500 * time.Microsecond), "2 ms"}, {seconds(410 * time.Millisecond), "0.41 s"}, {seconds(12340 * time.Millisecond), "12.3 s"},
		{tally(1, 3, time.Second), "1 record, 3 B in 1.00 s"},
		{tally(20000, 2_000_000, 999*time.Millisecond), "20,000 records, 2.00 MB in 1.00 s"},
		{tally(999, 2_000_000, 2*time.Second), "999 records, 2.00 MB in 2.00 s"},
		{tally(20000, 2_000_000, 2*time.Second), "20,000 records, 2.00 MB in 2.00 s, 10,000 records/s, 1.00 MB/s"},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
}
