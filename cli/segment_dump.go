package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"millrace/cli/term"
	"millrace/segment"
	"millrace/segment/record"

	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func segmentDumpCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "dump",
		Usage:     "print the entries of segment files, and their records",
		ArgsUsage: "FILE…",
		Description: `   A line an entry: index, term, type, the offsets it takes, where it lies in the file, its
   bytes; with -r a line a record below it. What is damaged is told on standard error, and what
   follows it is printed all the same; the exit status is 1 then.

   JSON, an object a line: {index, term, type, offset, next_offset, position, bytes, synced,
   timestamp, records: [as consume --format json prints them, without topic and partition]}.
   synced: all bytes before the entry had reached the disk when it was written.

EXAMPLES:
   $ millrace segment dump 00000000000000000000-00000001.log
   $ millrace segment dump -r -o jsonl 00000000000000000000-00000001.log`,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "records", Aliases: []string{"r"}, Usage: "the records of each entry too"},
			&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", DefaultText: "table", Usage: "`FORMAT`: table or jsonl"},
			&urfave.BoolFlag{Name: "no-headers", Usage: "leave out the headers of tables"},
		},
		Action: segmentDump,
	}
}

type entryItem struct {
	Index      uint64       `json:"index"`
	Term       uint64       `json:"term"`
	Type       string       `json:"type"`
	Offset     int64        `json:"offset"`
	NextOffset int64        `json:"next_offset"`
	Position   int64        `json:"position"`
	Bytes      int64        `json:"bytes"`
	Synced     bool         `json:"synced"`
	Timestamp  *jsonTime    `json:"timestamp"`
	Records    []recordItem `json:"records,omitempty"`
}

type recordItem struct {
	Offset      int64        `json:"offset"`
	Timestamp   jsonTime     `json:"timestamp"`
	Key         *jsonText    `json:"key"`
	KeyBase64   *string      `json:"key_base64,omitempty"`
	Value       *jsonText    `json:"value"`
	ValueBase64 *string      `json:"value_base64,omitempty"`
	Headers     []jsonHeader `json:"headers,omitempty"`
}

// dumpLine is a line of the table. A segment may hold millions of entries, so the
// columns are as wide as they usually need to be, not as wide as the widest cell.
const dumpLine = "%-10v  %-6v  %-13v  %-21v  %-12v  %-10v  %v\n"

func segmentDump(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("segment dump which file? see `millrace segment dump --help`")
	}
	format := c.String("output")
	if format != "table" && format != "jsonl" {
		return term.Usage("--output %q: a dump is a table or jsonl", format)
	}
	out := bufio.NewWriterSize(c.App.Writer, 64<<10)
	defer out.Flush()
	damage := 0
	for i, path := range c.Args().Slice() {
		header, err := segmentHeader(path)
		if err != nil {
			return err
		}
		if format == "table" && !c.Bool("no-headers") {
			if i > 0 {
				fmt.Fprintln(out)
			}
			fmt.Fprintf(out, "%s  cluster %s  topic %s  partition %d  from index %d, offset %d, written since %s\n\n", filepath.Base(path),
				header.Identity.Cluster, topicID(header.Identity.Topic), header.Identity.Partition, header.FirstIndex, header.BaseOffset,
				time.UnixMilli(header.Created).UTC().Format(isoMillis))
			fmt.Fprintf(out, dumpLine, "INDEX", "TERM", "TYPE", "OFFSETS", "POSITION", "BYTES", "TIMESTAMP")
		}
		n, err := dump(c, out, path)
		if err != nil {
			return err
		}
		damage += n
	}
	if damage > 0 {
		out.Flush()
		return &term.Silent{Status: term.StatusFailed}
	}
	return nil
}

// dump prints the entries of one file and counts what is damaged.
func dump(c *urfave.Context, out *bufio.Writer, path string) (damage int, err error) {
	found, err := segment.Walk(segment.OS, path, 0, func(f *segment.Frame) error {
		item := entryOf(f)
		if c.Bool("records") {
			var err error
			if item.Records, err = recordsOf(f); err != nil {
				damage++
				out.Flush()
				fmt.Fprintf(c.App.ErrWriter, "millrace: %s: index %d: %v\n", path, f.Index, err)
			}
		}
		if c.String("output") == "jsonl" {
			return json.NewEncoder(out).Encode(item)
		}
		return printEntry(out, item)
	}, func(e *segment.CorruptError) error {
		damage++
		out.Flush()
		fmt.Fprintf(c.App.ErrWriter, "millrace: %s\n", term.OneLine(e))
		return nil
	})
	if err == nil && found.Torn >= 0 {
		out.Flush()
		fmt.Fprintf(c.App.ErrWriter, "millrace: %s: a torn tail from position %d on, as a crash leaves it; it is cut when the log is opened\n", path, found.Torn)
	}
	return damage, err
}

// segmentHeader reads how a file begins, and refuses what is no segment.
func segmentHeader(path string) (segment.Header, error) {
	stop := fmt.Errorf("the header is all that is wanted")
	found, err := segment.Walk(segment.OS, path, 0, func(*segment.Frame) error { return stop }, func(e *segment.CorruptError) error {
		if e.Position < segment.HeaderSize {
			return e
		}
		return stop
	})
	if err == stop {
		err = nil
	}
	return found.Header, err
}

func entryOf(f *segment.Frame) *entryItem {
	item := &entryItem{
		Index: f.Index, Term: f.Term, Type: f.Type.String(), Offset: f.BaseOffset, NextOffset: f.NextOffset(),
		Position: f.Position, Bytes: segment.FrameSize(f.PayloadLen()), Synced: f.Synced,
	}
	if f.MaxTimestamp >= 0 {
		item.Timestamp = &jsonTime{time.UnixMilli(f.MaxTimestamp)}
	}
	return item
}

// recordsOf unpacks the batches of an entry. Keys and values are copied.
func recordsOf(f *segment.Frame) (items []recordItem, err error) {
	if f.Type != segment.Command {
		return nil, nil
	}
	for p := f.Payload; len(p) > 0; {
		b, rest, err := record.Split(p)
		if err != nil {
			return items, err
		}
		for r, err := range b.Records() {
			if err != nil {
				return items, err
			}
			item := recordItem{Offset: r.Offset, Timestamp: jsonTime{time.UnixMilli(r.Timestamp)}}
			item.Key, item.KeyBase64 = asText(r.Key)
			item.Value, item.ValueBase64 = asText(r.Value)
			for _, h := range r.Headers {
				header := jsonHeader{Key: h.Key}
				header.Value, header.ValueBase64 = asText(h.Value)
				item.Headers = append(item.Headers, header)
			}
			items = append(items, item)
		}
		p = rest
	}
	return items, nil
}

func printEntry(out *bufio.Writer, e *entryItem) error {
	offsets, at := "-", "-"
	if e.NextOffset > e.Offset {
		offsets = fmt.Sprintf("[%d,%d)", e.Offset, e.NextOffset)
	}
	if e.Timestamp != nil {
		at = e.Timestamp.UTC().Format(isoMillis)
	}
	if _, err := fmt.Fprintf(out, dumpLine, e.Index, e.Term, e.Type, offsets, e.Position, e.Bytes, at); err != nil {
		return err
	}
	for _, r := range e.Records {
		plain := kgo.Record{Offset: r.Offset, Timestamp: r.Timestamp.Time}
		plain.Key, _ = r.Key.bytes(r.KeyBase64)
		plain.Value, _ = r.Value.bytes(r.ValueBase64)
		for _, h := range r.Headers {
			value, _ := h.Value.bytes(h.ValueBase64)
			plain.Headers = append(plain.Headers, kgo.RecordHeader{Key: h.Key, Value: value})
		}
		b := append(out.AvailableBuffer(), "    @"...)
		if _, err := out.Write(appendRecord(b, &plain)); err != nil {
			return err
		}
	}
	return nil
}
