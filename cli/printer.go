package cli

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A printer appends a record, as text, to b.
type printer func(b []byte, r *kgo.Record) []byte

// newPrinter returns the printer a --format names.
func newPrinter(format string) (printer, error) {
	switch format {
	case "text", "":
		return printText, nil
	case "json", "jsonl":
		return printJSON, nil
	case "value":
		return func(b []byte, r *kgo.Record) []byte { return append(append(b, r.Value...), '\n') }, nil
	}
	if !strings.Contains(format, "%") {
		return nil, term.Usage("--format %q: it is text, json, value, or a percent format such as '%%k %%v\\n'", format)
	}
	f, err := kgo.NewRecordFormatter(format)
	if err != nil {
		return nil, term.Usage("--format %q: %v", format, err)
	}
	return f.AppendRecord, nil
}

// printText is for eyes:
//
//	orders/2@1041  2026-01-02T03:04:05.678Z  table-4  one espresso  [waiter=ada]
//
// A missing key or value is a dash.
func printText(b []byte, r *kgo.Record) []byte {
	b = append(b, r.Topic...)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(r.Partition), 10)
	return appendRecord(append(b, '@'), r)
}

// appendRecord appends what printText says behind the "@".
func appendRecord(b []byte, r *kgo.Record) []byte {
	b = strconv.AppendInt(b, r.Offset, 10)
	b = append(b, "  "...)
	b = r.Timestamp.UTC().AppendFormat(b, isoMillis)
	b = append(b, "  "...)
	b = appendPlain(b, r.Key)
	b = append(b, "  "...)
	b = appendPlain(b, r.Value)
	for i, h := range r.Headers {
		b = append(b, ", "...)
		if i == 0 {
			b = append(b[:len(b)-2], "  ["...)
		}
		b = appendPlain(b, []byte(h.Key))
		b = append(b, '=')
		b = appendPlain(b, h.Value)
	}
	if len(r.Headers) > 0 {
		b = append(b, ']')
	}
	return append(b, '\n')
}

// appendPlain appends text as it is, and quotes what a terminal would act upon
// or could not show.
func appendPlain(b, text []byte) []byte {
	if text == nil {
		return append(b, '-')
	}
	for rest := text; len(rest) > 0; {
		c, n := utf8.DecodeRune(rest)
		if c == utf8.RuneError && n == 1 || !unicode.IsPrint(c) && c != '\t' {
			return strconv.AppendQuote(b, string(text))
		}
		rest = rest[n:]
	}
	return append(b, text...)
}

// printJSON is for programs, and for produce --jsonl.
func printJSON(b []byte, r *kgo.Record) []byte {
	j := jsonRecord{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: jsonTime{r.Timestamp}}
	j.Key, j.KeyBase64 = asText(r.Key)
	j.Value, j.ValueBase64 = asText(r.Value)
	for _, h := range r.Headers {
		header := jsonHeader{Key: h.Key}
		header.Value, header.ValueBase64 = asText(h.Value)
		j.Headers = append(j.Headers, header)
	}
	var w appender
	w.b = b
	e := json.NewEncoder(&w)
	e.SetEscapeHTML(false)
	if err := e.Encode(j); err != nil {
		panic("cli: a record is always JSON: " + err.Error())
	}
	return w.b
}

// asText returns bytes as text, or in base64 when they are not UTF-8; both nil for null.
func asText(b []byte) (*jsonText, *string) {
	switch {
	case b == nil:
		return nil, nil
	case utf8.Valid(b):
		t := jsonText(b)
		return &t, nil
	}
	s := base64.StdEncoding.EncodeToString(b)
	return nil, &s
}

// appender is an io.Writer at the end of a slice.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}
