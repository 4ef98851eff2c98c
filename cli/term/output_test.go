package term

import (
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/cli/term/termtest"
)

type row struct {
	Name string `json:"name"`
	Size int    `json:"size"`
	Note string `json:"note"`
}

func TestListsInEveryFormat(t *testing.T) {
	rows := []row{{"orders", 3, ""}, {"größer", 12, "yes: <really>"}}
	columns := []Column[row]{
		{"NAME", func(r row) string { return r.Name }},
		{"SIZE", func(r row) string { return Number(r.Size) }},
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
		c := termtest.Context(t, OutputFlags(true), strings.Fields(test.flags)...)
		c.App.Writer = &out
		if err := PrintList(c, test.rows, columns); err != nil {
			t.Fatal(err)
		}
		if out.String() != test.want {
			t.Errorf("%s\ngot\n%swant\n%s", test.flags, out.String(), test.want)
		}
	}
	c := termtest.Context(t, OutputFlags(true), "--output=xml")
	if err := PrintList(c, rows, columns); StatusOf(err) != StatusUsage {
		t.Errorf("--output=xml: %v", err)
	}
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
		left := Fit(names, rows, test.width)
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
	if err := Confirm(termtest.Context(t, DestructiveFlags()), "delete everything"); StatusOf(err) != StatusUsage ||
		!strings.Contains(err.Error(), "--yes") {
		t.Errorf("without --yes: %v", err)
	}
	if err := Confirm(termtest.Context(t, DestructiveFlags(), "--yes"), "delete everything"); err != nil {
		t.Errorf("with --yes: %v", err)
	}
}

func TestFiguresForPeople(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Number(0), "0"}, {Number(999), "999"}, {Number(1000), "1,000"}, {Number(-1234567), "-1,234,567"}, {Number(-999), "-999"},
		{Count(1, "record"), "1 record"}, {Count(20000, "record"), "20,000 records"}, {Count(0, "record"), "0 records"},
		{Size(0), "0 B"}, {Size(999), "999 B"}, {Size(1000), "1.00 kB"}, {Size(1784866), "1.78 MB"}, {Size(99_960), "100 kB"}, {Size(999_600), "1.00 MB"},
		{Seconds(2500 * time.Microsecond), "2 ms"}, {Seconds(410 * time.Millisecond), "0.41 s"}, {Seconds(12340 * time.Millisecond), "12.3 s"},
		{Tally(1, 3, time.Second), "1 record, 3 B in 1.00 s"},
		{Tally(20000, 2_000_000, 999*time.Millisecond), "20,000 records, 2.00 MB in 1.00 s"},
		{Tally(999, 2_000_000, 2*time.Second), "999 records, 2.00 MB in 2.00 s"},
		{Tally(20000, 2_000_000, 2*time.Second), "20,000 records, 2.00 MB in 2.00 s, 10,000 records/s, 1.00 MB/s"},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
}
