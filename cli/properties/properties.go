// Package properties reads files of Kafka's: server.properties, and the client.properties
// of its tools.
package properties

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

// A Property is one of a file.
type Property struct {
	Key, Value string
	Line       int // where it begins, from 1 on
}

// A Mistake is a line that is no property. Its text repeats nothing of the line, which may
// hold a password.
type Mistake struct {
	Line int
	Text string
}

// Read reads the file format of Kafka's server.properties as Java's
// Properties.load does: a key ends at the first =, : or white space that has no
// backslash before it; comments begin with # or !; a line that ends with a
// backslash goes on in the next; \uXXXX, \t, \n, \r and \f are escapes, and any
// other character behind a backslash is itself.
//
// A key may be given twice: they are all returned, in their order. One thing is
// otherwise: the file is UTF-8, with a mark of that before it or none; in Java it is Latin-1.
func Read(r io.Reader) (all []Property, wrong []Mistake, err error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, nil, err
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, nil, errors.New("it is no text")
	}
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(string(b), "\ufeff")), "\n")
	for n := 0; n < len(lines); n++ {
		first := n + 1
		line := strings.TrimLeft(lines[n], blanks)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for goesOn(line) {
			line = line[:len(line)-1]
			if n+1 == len(lines) {
				break
			}
			n++
			line += strings.TrimLeft(lines[n], blanks)
		}
		p, err := parseProperty(line)
		switch {
		case err != nil:
			wrong = append(wrong, Mistake{first, err.Error()})
			continue
		case p.Key == "":
			wrong = append(wrong, Mistake{first, "no key before the value"})
			continue
		}
		p.Line = first
		all = append(all, p)
	}
	return all, wrong, nil
}

const blanks = " \t\f"

// goesOn reports whether a line ends with a backslash that is not itself escaped.
func goesOn(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

func parseProperty(line string) (p Property, err error) {
	end := len(line)
	for i := 0; i < len(line); i++ {
		if line[i] == '\\' {
			i++
		} else if strings.IndexByte(blanks+"=:", line[i]) >= 0 {
			end = i
			break
		}
	}
	value := strings.TrimLeft(line[end:], blanks)
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], blanks)
	}
	if p.Key, err = unescape(line[:end]); err == nil {
		p.Value, err = unescape(value)
	}
	return p, err
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			n, err := uint64(0), strconv.ErrSyntax
			if i+5 <= len(s) {
				n, err = strconv.ParseUint(s[i+1:i+5], 16, 16)
			}
			if err != nil {
				return "", errors.New(`malformed \uXXXX: four hexadecimal digits follow \u; \\ is a backslash`)
			}
			b.WriteRune(rune(n))
			i += 4
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}
