package certificate

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Rules make a principal's name of a certificate's subject; the first that fits does. They
// are Kafka's ssl.principal.mapping.rules: DEFAULT, which is the subject as it is, or
// RULE:PATTERN/REPLACEMENT/, with an L or U behind for lower or upper case. A pattern fits
// the whole subject. It is one of Go's (RE2), which lack what Java's do by trying: look-around
// and references to groups within the pattern.
type Rules []rule

type rule struct {
	pattern     *regexp.Regexp // nil: DEFAULT
	replacement string         // in the words of regexp.Expand
	letters     byte           // 'L', 'U' or 0
}

// ruleText is one rule: what stands between slashes may hold \/.
var ruleText = regexp.MustCompile(`\A(?:DEFAULT|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?))\z`)

// ParseRules reads rules, which commas separate. Empty text is DEFAULT.
func ParseRules(text string) (Rules, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	var all Rules
	for _, one := range split(text) {
		m := ruleText.FindStringSubmatch(one)
		if m == nil {
			return nil, fmt.Errorf("%q is no rule: a rule is DEFAULT or RULE:PATTERN/REPLACEMENT/, with L or U behind it for lower or upper case", one)
		}
		if one == "DEFAULT" {
			all = append(all, rule{})
			continue
		}
		pattern, err := regexp.Compile(`\A(?:` + unescape(m[1]) + `)\z`)
		if err != nil {
			return nil, fmt.Errorf("the pattern of %q: %w", one, err)
		}
		r := rule{pattern: pattern, replacement: expandable(unescape(m[2]))}
		if m[3] != "" {
			r.letters = m[3][0]
		}
		all = append(all, r)
	}
	return all, nil
}

// split takes rules apart at the commas between them: those before DEFAULT or RULE:.
func split(text string) (all []string) {
	for {
		end := len(text)
		for i := 0; i < len(text); i++ {
			if rest := strings.TrimLeft(text[i+1:], " \t\n"); text[i] == ',' && (strings.HasPrefix(rest, "RULE:") || rest == "DEFAULT" || strings.HasPrefix(rest, "DEFAULT,")) {
				end = i
				break
			}
		}
		all = append(all, strings.TrimSpace(text[:end]))
		if end == len(text) {
			return all
		}
		text = text[end+1:]
	}
}

func unescape(s string) string { return strings.ReplaceAll(s, `\/`, "/") }

// reference is one to a group in a replacement.
var reference = regexp.MustCompile(`\$(\d)`)

// expandable writes a replacement of Kafka's for regexp.Expand, which would take $1x for a
// group called 1x.
func expandable(s string) string { return reference.ReplaceAllString(s, `$${$1}`) }

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
		m := r.pattern.FindStringSubmatchIndex(subject)
		if m == nil {
			continue
		}
		name := string(r.pattern.ExpandString(nil, r.replacement, subject, m))
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

// Subject is a certificate's subject in the order and the letters of RFC 2253, the last part
// first: CN=alice,OU=clients,O=Example.
func Subject(cert *x509.Certificate) (string, error) {
	var parts pkix.RDNSequence
	if rest, err := asn1.Unmarshal(cert.RawSubject, &parts); err != nil || len(rest) > 0 {
		return "", errors.New("the certificate's subject cannot be read")
	}
	if len(parts) == 0 {
		return "", errors.New("the certificate has no subject")
	}
	return parts.String(), nil
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
