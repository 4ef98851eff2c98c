package local

import (
	"io"
	"regexp"

	"millrace/cli/properties"
	"millrace/replication/metadata/settings"
)

// A property is one line of a configuration file, or a variable of the environment.
type property struct {
	key, value string
	line       int    // where it begins, from 1 on
	written    string // the key as it was written: a variable has another name
	where      string // "server.properties:7" or "environment"
}

// shown is the value as an error or a warning may repeat it: secrets are not, nor what is no
// setting of ours, such as sasl.jaas.config, of which nobody knows that it is none.
func (p property) shown() string {
	key := p.key
	if _, rest, ok := listenerSetting(key); ok {
		key = rest
	}
	d, known := settings.BrokerDefinition(key)
	_, plugIn := forbidding[key]
	if !known && !plugIn || known && d.Sensitive() {
		return "…"
	}
	return userinfo.ReplaceAllString(p.value, "://…@")
}

// userinfo is a user's name and password in a URL, also in one that cannot be read.
var userinfo = regexp.MustCompile(`://[^/]*@`)

// A wrongLine is one that is no property.
type wrongLine struct {
	line int
	text string
}

// readProperties reads a configuration file.
func readProperties(r io.Reader) (all []property, wrong []wrongLine, err error) {
	read, mistakes, err := properties.Read(r)
	for _, p := range read {
		all = append(all, property{key: p.Key, value: p.Value, line: p.Line, written: p.Key})
	}
	for _, m := range mistakes {
		wrong = append(wrong, wrongLine{m.Line, m.Text})
	}
	return all, wrong, err
}
