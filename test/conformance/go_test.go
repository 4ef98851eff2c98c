//go:build conformance

package conformance

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// goClients are programs in Go, in a module of their own. kcat is a program of
// Debian's, which one of them drives.
var goClients = []*client{
	{name: "kcat", setUp: setUpKcat, lacks: map[string]string{
		"admin-*":        "kcat has no administration",
		"delete-records": "kcat has no administration",
		"next-protocol":  "its librdkafka is older than KIP-848",
		"roll-*":         "its librdkafka is older than KIP-848",
		"login-token*":   "kcat has no way to be given a token, nor Debian's librdkafka one to fetch it",
	}},
	{name: "franz-go", setUp: func(t *testing.T) ([]string, string) { return setUpGo(t, "franz-go", "github.com/twmb/franz-go") }},
	{name: "sarama", setUp: func(t *testing.T) ([]string, string) { return setUpGo(t, "sarama", "github.com/IBM/sarama") }, lacks: map[string]string{
		"next-protocol": "the library has no KIP-848",
		"roll-*":        "the library has no KIP-848",
	}},
	{name: "kafka-go", setUp: func(t *testing.T) ([]string, string) { return setUpGo(t, "kafka-go", "github.com/segmentio/kafka-go") }, lacks: map[string]string{
		"produce-idempotent": "the library's producer is not idempotent",
		"login-token*":       "the library does not have OAUTHBEARER",
		"delete-records":     "the library does not have DeleteRecords",
		"next-protocol":      "the library has no KIP-848",
		"roll-*":             "the library has no KIP-848",
	}},
}

// setUpGo builds a program of the module test/conformance/clients: Go's own cache
// keeps that from taking long.
func setUpGo(t *testing.T, name, module string) (command []string, version string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), name)
	if _, err := call(absolute(t, ""), "go", "build", "-o", binary, "./"+name); err != nil {
		t.Fatal(err)
	}
	if module == "" {
		return []string{binary}, ""
	}
	version, err := call(absolute(t, ""), "go", "list", "-m", "-f", "{{.Version}}", module)
	if err != nil {
		t.Fatal(err)
	}
	return []string{binary}, strings.TrimPrefix(version, "v")
}

func setUpKcat(t *testing.T) (command []string, version string) {
	t.Helper()
	need(t, "kcat", "apt-get install kcat")
	command, _ = setUpGo(t, "kcat", "")
	out, err := call("", "kcat", "-V")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`Version (\S+) .*librdkafka (\S+)`).FindStringSubmatch(out); m != nil {
		version = m[1] + " (" + m[2] + ")"
	}
	return command, version
}
