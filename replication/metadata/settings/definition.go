package settings

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Type is Kafka's type of a setting, under the number DescribeConfigs uses. (KIP-569)
type Type int8

// The types of settings.
const (
	Boolean  Type = 1
	String   Type = 2
	Int      Type = 3
	Short    Type = 4
	Long     Type = 5
	Double   Type = 6
	List     Type = 7
	Class    Type = 8
	Password Type = 9
)

// String is Kafka's name of the type, "LONG".
func (t Type) String() string {
	names := [...]string{1: "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD"}
	if t < 1 || int(t) >= len(names) {
		return "UNKNOWN"
	}
	return names[t]
}

// A Definition says what a setting is. Definitions are shared and must not be written to.
type Definition struct {
	Name    string
	Type    Type
	Default string // "" also when Null
	Null    bool   // the default is null: other settings decide
	Doc     string // one line

	// ReadOnly settings of brokers are fixed while a node runs: they come from
	// its flags or configuration file. Settings of topics never are.
	ReadOnly bool
	// PerNode settings of brokers may differ from node to node. The others
	// hold for the whole cluster, because whichever node is asked must give the
	// same answer; they may not be set for one broker at run time.
	PerNode bool
	// Hidden settings may be set but are only described where they are. They are for tests.
	Hidden bool
	// Synonyms of a topic's setting are the brokers' settings that give its
	// default, the one that wins first. A broker's setting has none.
	Synonyms []Synonym

	valid rule
}

// A Synonym is another setting that gives a value.
type Synonym struct {
	Name  string
	Scale int64 // what the other's value is multiplied by: 3,600,000 from hours to milliseconds
}

// Sensitive reports whether the value is a secret, which is stored but never shown.
func (d *Definition) Sensitive() bool { return d.Type == Password }

// Validate checks a value, in the form it has on the wire, and returns it
// trimmed. The error is ErrInvalid with Kafka's text. What is stored is
// what the client sent; it is trimmed again wherever it is read.
func (d *Definition) Validate(value string) (string, error) {
	trimmed := strings.TrimSpace(value)
	if wrong := d.wrong(trimmed); wrong != "" {
		return "", invalid("Invalid value %s for configuration %s: %s", Shown(trimmed), d.Name, wrong)
	}
	return trimmed, nil
}

func (d *Definition) wrong(value string) string {
	if !utf8.ValidString(value) {
		return "Expected value to be UTF-8"
	}
	var err error
	switch d.Type {
	case Boolean:
		if !strings.EqualFold(value, "true") && !strings.EqualFold(value, "false") {
			return "Expected value to be either true or false"
		}
	case Int:
		_, err = strconv.ParseInt(value, 10, 32)
	case Short:
		_, err = strconv.ParseInt(value, 10, 16)
	case Long:
		_, err = strconv.ParseInt(value, 10, 64)
	case Double:
		var f float64
		if f, err = strconv.ParseFloat(value, 64); err == nil && math.IsNaN(f) {
			return "Value must be a number"
		}
	}
	if err != nil {
		return "Not a number of type " + d.Type.String()
	}
	if d.valid.wrong != nil {
		return d.valid.wrong(value)
	}
	return ""
}

// Append adds the elements of values to the list current, both separated by
// commas, leaving out what is there already: IncrementalAlterConfigs' APPEND.
// (KIP-339) current is the value in force, which may be the default. The error
// is ErrInvalid if the setting is not a list; the result is not validated.
func (d *Definition) Append(current, values string) (string, error) {
	if d.Type != List {
		return "", invalid("Can't APPEND to key %s because its type is not LIST.", d.Name)
	}
	list := elements(current)
	for _, v := range elements(values) {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return strings.Join(list, ","), nil
}

// Subtract removes the elements of values from the list current:
// IncrementalAlterConfigs' SUBTRACT. What is not there is no error.
func (d *Definition) Subtract(current, values string) (string, error) {
	if d.Type != List {
		return "", invalid("Can't SUBTRACT to key %s because its type is not LIST.", d.Name)
	}
	gone := elements(values)
	list := slices.DeleteFunc(elements(current), func(v string) bool { return slices.Contains(gone, v) })
	return strings.Join(list, ","), nil
}

// elements of a list; empty ones are left out.
func elements(list string) []string {
	var all []string
	for v := range strings.SplitSeq(list, ",") {
		if v = strings.TrimSpace(v); v != "" {
			all = append(all, v)
		}
	}
	return all
}

// TopicDefinitions lists the settings a topic has, by name. Hidden ones are left out.
func TopicDefinitions() []*Definition { return visible(topicSettings) }

// TopicDefinition finds a topic's setting, hidden or not.
func TopicDefinition(name string) (*Definition, bool) { return find(topicSettings, name) }

// BrokerDefinitions lists the settings a broker has, by name.
func BrokerDefinitions() []*Definition { return visible(brokerSettings) }

// BrokerDefinition finds a broker's setting.
func BrokerDefinition(name string) (*Definition, bool) { return find(brokerSettings, name) }

func visible(all []*Definition) []*Definition {
	var list []*Definition
	for _, d := range all {
		if !d.Hidden {
			list = append(list, d)
		}
	}
	return list
}

func find(all []*Definition, name string) (*Definition, bool) {
	i, ok := slices.BinarySearchFunc(all, name, func(d *Definition, name string) int { return cmp.Compare(d.Name, name) })
	if !ok {
		return nil, false
	}
	return all[i], true
}

// sorted is a table as find needs it.
func sorted(all []*Definition) []*Definition {
	slices.SortFunc(all, func(a, b *Definition) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(all); i++ {
		if all[i].Name == all[i-1].Name {
			panic(fmt.Sprintf("settings: %s is defined twice", all[i].Name))
		}
	}
	return all
}
