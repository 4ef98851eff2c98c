package settings

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A rule is for values of a setting of the right type.
type rule struct {
	// allowed are the values in words that follow "it is", or for a number its range.
	allowed string
	// wrong says in the words of Kafka's ConfigDef what is wrong with a value,
	// trimmed; "" if nothing is.
	wrong func(value string) string
}

func atLeast(low float64) rule { return between(low, math.Inf(1)) }

func between(low, high float64) rule {
	allowed := fmt.Sprintf("%s to %s", decimal(low), decimal(high))
	if math.IsInf(high, 1) {
		allowed = decimal(low) + " or more"
	}
	return rule{allowed, func(value string) string {
		f, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
			return "Value must be a number"
		case f < low:
			return "Value must be at least " + decimal(low)
		case f > high:
			return "Value must be no more than " + decimal(high)
		}
		return ""
	}}
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func oneOf(allowed ...string) rule {
	return rule{"one of " + strings.Join(allowed, ", "), func(value string) string {
		if slices.Contains(allowed, value) {
			return ""
		}
		return "String must be one of: " + strings.Join(allowed, ", ")
	}}
}

func eachOneOf(allowed ...string) rule {
	return rule{"any of " + strings.Join(allowed, ", ") + ", with commas between them", func(value string) string {
		for _, v := range elements(value) {
			if !slices.Contains(allowed, v) {
				return "String must be one of: " + strings.Join(allowed, ", ")
			}
		}
		return ""
	}}
}

var gzipLevel = rule{"1 to 9, or -1", func(value string) string {
	if n, err := strconv.Atoi(value); err != nil || n != -1 && (n < 1 || n > 9) {
		return "Value must be between 1 and 9 or equal to -1"
	}
	return ""
}}

var throttled = regexp.MustCompile(`^(\*|[0-9]+:[0-9]+(\s*,\s*[0-9]+:[0-9]+)*)?$`)

var throttledReplicas = rule{"* or PARTITION:BROKER,…", func(value string) string {
	if throttled.MatchString(value) {
		return ""
	}
	return "Value must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
}}

// authorizers are the values of authorizer.class.name: none, and the two that Kafka has had.
var authorizers = rule{"empty, or one of Kafka's own: " + strings.Join(kafkasAuthorizers, ", "), func(value string) string {
	if value == "" || slices.Contains(kafkasAuthorizers, value) {
		return ""
	}
	return "String must be one of: " + strings.Join(kafkasAuthorizers, ", ")
}}

var kafkasAuthorizers = []string{"org.apache.kafka.metadata.authorizer.StandardAuthorizer", "kafka.security.authorizer.AclAuthorizer"}

// principals are those of super.users. Each is a type, a colon and a name, in which only a
// semicolon means something.
var principals = rule{"TYPE:NAME;…, such as User:alice;User:bob", func(value string) string {
	for p := range strings.SplitSeq(value, ";") {
		if p = strings.TrimSpace(p); p != "" && strings.Index(p, ":") < 1 {
			return "Expected a list of principals with semicolons between them, each principalType:principalName"
		}
	}
	return ""
}}

// keySet refuses a password in an address: everybody who may see a broker's settings would.
var keySet = rule{"a file:, http: or https: URL without a user name or password", func(value string) string {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.User != nil:
	case u.Scheme == "file" && u.Path != "", (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "":
		return ""
	}
	return "String must be a file:, http: or https: URL without a user name or password"
}}

var ipOverrides = rule{"ADDRESS:NUMBER,…, such as 10.0.0.1:200,[::1]:100", func(value string) string {
	_, wrong := parseOverrides(value)
	return wrong
}}

// overridesOf are those of a value that ipOverrides found valid.
func overridesOf(value string) map[netip.Addr]int32 {
	overrides, _ := parseOverrides(value)
	return overrides
}

// parseOverrides reads numbers for addresses, as Kafka does by the last colon, since there
// are others in IPv6's addresses.
func parseOverrides(value string) (overrides map[netip.Addr]int32, wrong string) {
	for one := range strings.SplitSeq(value, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		colon := strings.LastIndex(one, ":")
		if colon < 0 {
			return nil, "Expected a list of ADDRESS:NUMBER with commas between them"
		}
		host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(one[:colon]), "["), "]")
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return nil, "Expected addresses: names of hosts are not looked up"
		}
		most, err := strconv.ParseInt(strings.TrimSpace(one[colon+1:]), 10, 32)
		if err != nil || most < 0 {
			return nil, "Expected a number of connections after the last colon of each address"
		}
		if overrides == nil {
			overrides = map[netip.Addr]int32{}
		}
		overrides[ip.Unmap().WithZone("")] = int32(most)
	}
	return overrides, ""
}

func never(why string) rule {
	return rule{"false", func(value string) string {
		if strings.EqualFold(value, "false") {
			return ""
		}
		return why
	}}
}
