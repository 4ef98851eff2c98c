package kafka

import (
	"errors"
	"slices"
	"strings"
	"unicode"
)

// jaasOptions reads Kafka's sasl.jaas.config: a class, a flag such as required, options and a
// semicolon. Texts are quoted as Java's StreamTokenizer has them; a value without quotes goes to
// the next white space, which Java does not take of all that a password may have.
func jaasOptions(value string) (map[string]string, error) {
	r := jaasReader{rest: value}
	class, _ := r.word("")
	switch class[strings.LastIndexByte(class, '.')+1:] {
	case "PlainLoginModule", "ScramLoginModule":
	default:
		return nil, errors.New("begins with org.apache.kafka.common.security.scram.ScramLoginModule or …plain.PlainLoginModule: other modules this command does not have")
	}
	const form = `says username="…" and password="…", and ends with a semicolon`
	if flag, _ := r.word("=;"); !slices.Contains([]string{"required", "requisite", "sufficient", "optional"}, strings.ToLower(flag)) {
		return nil, errors.New("says required after the class, then " + form[len("says "):])
	}
	options := make(map[string]string)
	for !r.take(';') {
		key, ok := r.word("=;")
		if !ok || !r.take('=') {
			return nil, errors.New(form)
		}
		if options[key], ok = r.word(";"); !ok {
			return nil, errors.New(form)
		}
	}
	if r.space(); r.rest != "" || options["username"] == "" || options["password"] == "" {
		return nil, errors.New(form)
	}
	return options, nil
}

// A jaasReader takes a text apart.
type jaasReader struct{ rest string }

// space goes over white space and comments.
func (r *jaasReader) space() {
	for {
		r.rest = strings.TrimLeftFunc(r.rest, unicode.IsSpace)
		switch {
		case strings.HasPrefix(r.rest, "//"):
			_, r.rest, _ = strings.Cut(r.rest, "\n")
		case strings.HasPrefix(r.rest, "/*"):
			_, r.rest, _ = strings.Cut(r.rest, "*/")
		default:
			return
		}
	}
}

// take goes over a character, if it is the next one.
func (r *jaasReader) take(c byte) bool {
	r.space()
	if r.rest == "" || r.rest[0] != c {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

// word reads a text in quotes, or up to white space, a quote or one of the ends. ok is false if
// there is none, or its quote is not closed.
func (r *jaasReader) word(ends string) (text string, ok bool) {
	r.space()
	if r.rest == "" {
		return "", false
	}
	quote := r.rest[0]
	if quote != '"' && quote != '\'' {
		end := strings.IndexFunc(r.rest, func(c rune) bool { return unicode.IsSpace(c) || strings.ContainsRune(ends+`"'`, c) })
		if end < 0 {
			end = len(r.rest)
		}
		text, r.rest = r.rest[:end], r.rest[end:]
		return text, text != ""
	}
	var b strings.Builder
	for i := 1; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == quote:
			r.rest = r.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(r.rest):
			i++
			if at := strings.IndexByte("abfnrtv", r.rest[i]); at >= 0 {
				b.WriteByte("\a\b\f\n\r\t\v"[at])
			} else {
				b.WriteByte(r.rest[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}
