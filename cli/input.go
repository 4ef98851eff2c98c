package cli

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

// A source returns the next record to produce, io.EOF after the last. The record
// and its bytes belong to the caller.
type source func() (*kgo.Record, error)

// A fill completes a record whose value is known with what the flags say about
// every record: topic, key, headers, partition, timestamp.
type fill func(*kgo.Record) error

// filler reads the flags that concern every record.
func filler(c *urfave.Context, topic string) (fill, error) {
	keyField, timeField := c.String("key-field"), c.String("timestamp-field")
	if c.IsSet("key") && keyField != "" {
		return nil, term.Usage("-k and --key-field exclude each other")
	}
	nulls := c.Bool("null-value")
	if nulls && (keyField != "" || timeField != "") {
		return nil, term.Usage("-Z has no value to take a field from")
	}
	var headers []kgo.RecordHeader
	for _, h := range c.StringSlice("header") {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return nil, term.Usage("-H %q: it is NAME=VALUE", h)
		}
		headers = append(headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	var key []byte
	if c.IsSet("key") {
		key = []byte(c.String("key"))
	}
	return func(r *kgo.Record) error {
		r.Topic = topic
		if key != nil {
			r.Key = key
		}
		r.Headers = append(r.Headers, headers...)
		if nulls && len(r.Value) == 0 {
			r.Value = nil
		}
		if c.IsSet("partition") {
			r.Partition = int32(c.Int("partition"))
		}
		if keyField != "" {
			raw, err := field(r.Value, keyField)
			if err != nil {
				return err
			}
			r.Key = text(raw)
		}
		if timeField != "" {
			raw, err := field(r.Value, timeField)
			if err != nil {
				return err
			}
			t, err := fieldTime(raw)
			if err != nil {
				return fmt.Errorf("field %q: %w", timeField, err)
			}
			r.Timestamp = t
		}
		return nil
	}, nil
}

// arguments yields a record a value.
func arguments(values []string, fill fill) source {
	n := 0
	return func() (*kgo.Record, error) {
		if n == len(values) {
			return nil, io.EOF
		}
		r := &kgo.Record{Value: []byte(values[n])}
		n++
		if err := fill(r); err != nil {
			return nil, fmt.Errorf("value %s: %w", term.Number(n), err)
		}
		return r, nil
	}
}

// tombstone yields one record without a value.
func tombstone(fill fill) source {
	done := false
	return func() (*kgo.Record, error) {
		if done {
			return nil, io.EOF
		}
		done = true
		r := &kgo.Record{}
		return r, fill(r)
	}
}

// maxLine bounds a line of input: what no broker takes need not be held in memory.
const maxLine = 256 << 20

// eachLine calls f with every line of in, without its "\n", as often as the
// returned source is asked. The last line may lack its "\n". f may keep the line.
func eachLine(in io.Reader, f func(line []byte) (*kgo.Record, error)) source {
	b := bufio.NewReaderSize(in, 256<<10)
	n := 0
	return func() (*kgo.Record, error) {
		var line []byte
		for {
			part, err := b.ReadSlice('\n')
			line = append(line, part...)
			if err == bufio.ErrBufferFull {
				if len(line) > maxLine {
					return nil, fmt.Errorf("line %d is longer than %s", n+1, term.Size(maxLine))
				}
				continue
			}
			if err == io.EOF && len(line) > 0 {
				break
			}
			if err != nil {
				return nil, err
			}
			line = line[:len(line)-1]
			break
		}
		n++
		r, err := f(line)
		if err != nil {
			return nil, fmt.Errorf("line %s: %w", term.Number(n), err)
		}
		return r, nil
	}
}

// lines yields a record a line: its value is the line.
func lines(in io.Reader, fill fill) source {
	return eachLine(in, func(line []byte) (*kgo.Record, error) {
		if line == nil {
			line = []byte{} // an empty value, not a missing one
		}
		r := &kgo.Record{Value: line}
		return r, fill(r)
	})
}

// formatted yields records read in kgo's percent language, which is rpk's.
func formatted(in io.Reader, layout string, fill fill) (source, error) {
	reader, err := kgo.NewRecordReader(bufio.NewReaderSize(in, 256<<10), layout)
	if err != nil {
		return nil, term.Usage("-f %q: %v", layout, err)
	}
	n := 0
	return func() (*kgo.Record, error) {
		r, err := reader.ReadRecord()
		if err == io.EOF {
			return nil, err
		}
		n++
		if err != nil {
			return nil, fmt.Errorf("record %s does not fit -f: %w", term.Number(n), err)
		}
		topic := r.Topic
		if err := fill(r); err != nil {
			return nil, fmt.Errorf("record %s: %w", term.Number(n), err)
		}
		if topic != "" {
			r.Topic = topic
		}
		return r, nil
	}, nil
}

// jsonLines yields records as `consume --format json` prints them. Topic,
// partition and offset are where they were, not where they go. A line of another
// form is refused: what of it has no place in a record would be lost.
func jsonLines(in io.Reader, fill fill) source {
	return eachLine(in, func(line []byte) (*kgo.Record, error) {
		j, err := decodeRecord(line)
		if err != nil {
			return nil, fmt.Errorf("not a record as `consume --format json` prints it, {\"key\":\"k\",\"value\":\"v\"}: %w; without --jsonl each line is a value", err)
		}
		r := &kgo.Record{Timestamp: j.Timestamp.Time}
		if r.Key, err = j.Key.bytes(j.KeyBase64); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		if r.Value, err = j.Value.bytes(j.ValueBase64); err != nil {
			return nil, fmt.Errorf("value: %w", err)
		}
		for _, h := range j.Headers {
			value, err := h.Value.bytes(h.ValueBase64)
			if err != nil {
				return nil, fmt.Errorf("header %q: %w", h.Key, err)
			}
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: value})
		}
		return r, fill(r)
	})
}

// decodeRecord reads a line of JSON that is a record and nothing else: a field that
// records do not have is refused, and so is a line that says neither key nor value.
func decodeRecord(line []byte) (j jsonRecord, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	err = d.Decode(&j)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind) && kind.Field != "":
		return j, fmt.Errorf("%s is of the wrong type, %s", kind.Field, kind.Value)
	case errors.As(err, &kind):
		return j, fmt.Errorf("it is of the type %s, not an object", kind.Value)
	case errors.Is(err, io.EOF):
		return j, errors.New("it is empty")
	case err != nil:
		return j, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return j, errors.New("something follows the object")
	}
	if j.Key != nil || j.Value != nil || j.KeyBase64 != nil || j.ValueBase64 != nil {
		return j, nil
	}
	// Either may be there as null, which the struct does not tell from one that is absent.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return j, err
	}
	for name := range fields {
		if strings.EqualFold(name, "key") || strings.EqualFold(name, "value") { // as the decoder takes them
			return j, nil
		}
	}
	return j, errors.New("it has neither key nor value")
}

// field returns a field of the JSON object in value; path is a name, or names
// joined by dots for an object within an object.
func field(value []byte, path string) (json.RawMessage, error) {
	raw := json.RawMessage(value)
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, errors.New("not a JSON object")
		}
		var ok bool
		if raw, ok = object[name]; !ok {
			return nil, fmt.Errorf("no field %q", path)
		}
	}
	return raw, nil
}

// text is a JSON value as a key: a string without its quotes, null as no key,
// anything else as it is written.
func text(raw json.RawMessage) []byte {
	var s string
	switch {
	case bytes.Equal(raw, []byte("null")):
		return nil
	case len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil:
		return []byte(s)
	}
	return raw
}

// timeLayouts are the ways a time is written in data. Without a zone it is UTC.
var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04",
	"2006/01/02 15:04:05.999999999", "2006/01/02 15:04", "2006-01-02", "2006/01/02",
	time.RFC1123Z, time.RFC1123,
}

// fieldTime reads a JSON value as a time: text in one of timeLayouts, or a number
// since 1970, in seconds below 100,000,000,000 (the year 5138) and else in milliseconds.
func fieldTime(raw json.RawMessage) (time.Time, error) {
	s := string(text(raw))
	if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) && math.Abs(f) < 1e17 {
		if math.Abs(f) < 1e11 {
			f *= 1000
		}
		return time.UnixMilli(int64(f)).UTC(), nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time", s)
}

// jsonRecord is a record as `consume --format json` prints it and `produce
// --jsonl` reads it. Bytes that are not UTF-8 stand in the base64 field instead.
type jsonRecord struct {
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	Timestamp   jsonTime     `json:"timestamp"`
	Key         *jsonText    `json:"key"`
	KeyBase64   *string      `json:"key_base64,omitempty"`
	Value       *jsonText    `json:"value"`
	ValueBase64 *string      `json:"value_base64,omitempty"`
	Headers     []jsonHeader `json:"headers,omitempty"`
}

type jsonHeader struct {
	Key         string    `json:"key"`
	Value       *jsonText `json:"value"`
	ValueBase64 *string   `json:"value_base64,omitempty"`
}

type jsonText string

func (t *jsonText) bytes(encoded *string) ([]byte, error) {
	switch {
	case encoded != nil && t != nil:
		return nil, errors.New("given as text and as base64; it is one of them")
	case encoded != nil:
		return base64.StdEncoding.DecodeString(*encoded)
	case t != nil:
		return []byte(*t), nil
	}
	return nil, nil
}

// jsonTime is a time in UTC with milliseconds, all that a record keeps.
type jsonTime struct{ time.Time }

const isoMillis = "2006-01-02T15:04:05.000Z"

func (t jsonTime) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + isoMillis + `"`)), nil
}

func (t *jsonTime) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	var err error
	t.Time, err = fieldTime(b)
	return err
}
