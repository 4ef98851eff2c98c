package certificate

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Rules make a principal's name of a certificate's subject; the first that fits does. They
// are Kafka's ssl.principal.mapping.rules: DEFAULT, which is the subject as it is, or
// RULE:PATTERN/REPLACEMENT/, with an L or U behind for lower or upper case. A pattern fits
// the whole subject. It is one of Go's (RE2), which lack what Java's do by trying: look-around
// and references to groups within the pattern.
type Rules []rule

type rule struct {
	pattern     *regexp.Regexp // nil: DEFAULT
	replacement []piece
	letters     byte // 'L', 'U' or 0
}

// A piece of a replacement is text, or what a group of the pattern has found.
type piece struct {
	text  string
	group int // -1: text
}

// ruleText is one rule and the comma behind it: what stands between slashes may hold \/, and
// commas.
var ruleText = regexp.MustCompile(`\A(?:DEFAULT|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?))\s*(?:,|\z)`)

// ParseRules reads rules, which commas separate. Empty text is DEFAULT.
func ParseRules(text string) (Rules, error) {
	var all Rules
	for {
		if text = strings.TrimLeft(text, ", \t\r\n\f\v"); text == "" { // Kafka passes over empty ones, too
			return all, nil
		}
		m := ruleText.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("%q is no rule: a rule is DEFAULT or RULE:PATTERN/REPLACEMENT/, with L or U behind it for lower or upper case", text)
		}
		text = text[len(m[0]):]
		if strings.HasPrefix(m[0], "DEFAULT") {
			all = append(all, rule{})
			continue
		}
		if _, err := regexp.Compile(m[1]); err != nil { // by itself: a)|(b would end the parentheses around it
			return nil, fmt.Errorf("the pattern of %q: %w", m[0], err)
		}
		pattern, err := regexp.Compile(`\A(?:` + m[1] + `)\z`)
		if err != nil {
			return nil, fmt.Errorf("the pattern of %q: %w", m[0], err)
		}
		r := rule{pattern: pattern}
		if r.replacement, err = pieces(m[2], pattern); err != nil {
			return nil, fmt.Errorf("the replacement of %q: %w", m[0], err)
		}
		if m[3] != "" {
			r.letters = m[3][0]
		}
		all = append(all, r)
	}
}

// pieces takes a replacement apart as Java does: a backslash makes the letter behind it plain,
// $1 and ${name} are groups. $12 is the twelfth, or the first and a 2 where there are not as
// many. As in Kafka $4 of three groups is a dollar and a 4.
func pieces(text string, pattern *regexp.Regexp) (all []piece, err error) {
	groups := pattern.NumSubexp()
	var plain strings.Builder
	group := func(n int) {
		if plain.Len() > 0 {
			all = append(all, piece{plain.String(), -1})
			plain.Reset()
		}
		all = append(all, piece{"", n})
	}
	digit := func(i int) (int, bool) {
		if i < len(text) && '0' <= text[i] && text[i] <= '9' {
			return int(text[i] - '0'), true
		}
		return 0, false
	}
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if i++; i < len(text) {
				plain.WriteByte(text[i])
			}
			continue
		case '$':
		default:
			plain.WriteByte(text[i])
			continue
		}
		if name, ok := strings.CutPrefix(text[i+1:], "{"); ok {
			name, _, _ = strings.Cut(name, "}")
			n := pattern.SubexpIndex(name)
			if n < 0 {
				return nil, fmt.Errorf("the pattern has no group called %q", name)
			}
			group(n)
			i += len("{}") + len(name)
			continue
		}
		n, ok := digit(i + 1)
		switch {
		case !ok:
			return nil, errors.New(`a $ is followed by the number of a group; \$ is a dollar`)
		case n > groups && groups == 0:
			return nil, fmt.Errorf("$%d: the pattern has no groups, which are in parentheses", n)
		case n > groups:
			plain.WriteByte('$')
			continue
		}
		for i++; ; i++ {
			next, ok := digit(i + 1)
			if !ok || 10*n+next > groups {
				break
			}
			n = 10*n + next
		}
		group(n)
	}
	if plain.Len() > 0 {
		all = append(all, piece{plain.String(), -1})
	}
	return all, nil
}

// errNoRule is of a subject that no rule fits.
var errNoRule = errors.New("no rule of ssl.principal.mapping.rules fits the certificate's subject")

// Name is what the rules make of a subject.
func (all Rules) Name(subject string) (string, error) {
	if len(all) == 0 {
		return subject, nil
	}
	for _, r := range all {
		if r.pattern == nil {
			return subject, nil
		}
		m := r.pattern.FindStringSubmatch(subject)
		if m == nil {
			continue
		}
		var b strings.Builder
		for _, p := range r.replacement {
			if b.WriteString(p.text); p.group >= 0 {
				b.WriteString(m[p.group])
			}
		}
		name := b.String()
		switch r.letters {
		case 'L':
			name = strings.ToLower(name)
		case 'U':
			name = strings.ToUpper(name)
		}
		if name == "" {
			return "", errNoRule
		}
		return name, nil
	}
	return "", errNoRule
}

// Subject is a certificate's subject as Java writes it by RFC 2253, the last part first:
// CN=alice,OU=clients,O=Example. Rules and ACLs that were written for Kafka go by that.
func Subject(cert *x509.Certificate) (string, error) {
	var parts []subjectPartSET
	if rest, err := asn1.Unmarshal(cert.RawSubject, &parts); err != nil || len(rest) > 0 {
		return "", errors.New("the certificate's subject cannot be read")
	}
	if len(parts) == 0 {
		return "", errors.New("the certificate has no subject")
	}
	if slices.ContainsFunc(parts, func(part subjectPartSET) bool { return len(part) == 0 }) {
		return "", errors.New("the certificate's subject has a part that says nothing")
	}
	var b strings.Builder
	for i, part := range slices.Backward(parts) {
		if i < len(parts)-1 {
			b.WriteByte(',')
		}
		for j, a := range part {
			if j > 0 {
				b.WriteByte('+')
			}
			a.write(&b)
		}
	}
	return b.String(), nil
}

// A subjectPartSET is one part of a subject, mostly of one attribute. By the end of its name
// package asn1 knows that it is a SET.
type subjectPartSET []attribute

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributeNames are the types that have a name in RFC 2253. Others, such as that of an
// e-mail address, are written as numbers, with their value in hexadecimal digits.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.9": "STREET", "2.5.4.10": "O", "2.5.4.11": "OU",
	"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

func (a attribute) write(b *strings.Builder) {
	text, ok := a.text()
	name := attributeNames[a.Type.String()]
	if name == "" {
		name, ok = a.Type.String(), false
	}
	b.WriteString(name)
	b.WriteByte('=')
	if !ok {
		b.WriteByte('#')
		b.WriteString(hex.EncodeToString(a.Value.FullBytes))
		return
	}
	blanks := len(text) - len(strings.TrimLeft(text, " ")) // those before and behind are escaped
	behind := len(strings.TrimRight(text, " "))
	for i, c := range text {
		switch {
		case c == 0:
			b.WriteString(`\00`)
			continue
		case strings.ContainsRune(`,=+<>#;"\`, c), c == ' ' && (i < blanks || i >= behind):
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
}

// tagGeneralString is a kind of text that package asn1 has no name for.
const tagGeneralString = 27

// text is the value, if it is text that can be read in one way only. Java makes something of
// what is not, such as the halves of the letters of a BMPString.
func (a attribute) text() (string, bool) {
	text := string(a.Value.Bytes)
	if a.Value.Class != asn1.ClassUniversal || a.Value.IsCompound {
		return "", false
	}
	switch a.Value.Tag {
	case asn1.TagUTF8String:
		return text, utf8.ValidString(text)
	case asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String, tagGeneralString:
		return text, strings.IndexFunc(text, func(c rune) bool { return c > unicode.MaxASCII }) < 0
	}
	return "", false
}

// Principal is who shows a certificate that has been verified: "User:" and the name that the
// rules make of its subject.
func (all Rules) Principal(cert *x509.Certificate) (string, error) {
	subject, err := Subject(cert)
	if err != nil {
		return "", err
	}
	name, err := all.Name(subject)
	if err != nil {
		return "", err
	}
	return "User:" + name, nil
}
