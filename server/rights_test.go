package server

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Every kind of request that is served has a row in the table of rights, which handlers ask
// and the documentation is written from.
func TestEveryRequestHasItsRights(t *testing.T) {
	for _, a := range new(handlers).table() {
		if _, ok := rights[a.key]; !ok {
			t.Errorf("%s has no row in the table of rights", a.key.Name())
		}
	}
}

var rewrite = flag.Bool("rewrite", false, "write docs/authorization.md anew from the table of rights")

// TestRightsAreDocumented holds docs/authorization.md to the table. go test -run
// TestRightsAreDocumented ./server -rewrite writes it.
func TestRightsAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Authorization

Written from the table in server/rights.go by ` + "`go test -run TestRightsAreDocumented ./server -rewrite`" + `.

What each request of Kafka's protocol needs who makes it: an operation on the resources that it names. It is Kafka's table,
as Kafka 4.1 keeps to it. Who may Read, Write, Delete or Alter may Describe; who may AlterConfigs may DescribeConfigs. What
one entry denies no other allows, and a super user may do everything.

A right that is missing is answered for the topic, the group or whatever it is missing for, and not for all of a request, but
where the right is to the cluster "for all of it":

| on | error |
|---|---|
| Topic | TOPIC_AUTHORIZATION_FAILED (29) |
| Group | GROUP_AUTHORIZATION_FAILED (30) |
| Cluster | CLUSTER_AUTHORIZATION_FAILED (31) |
| TransactionalId | TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53) |
| User, DelegationToken | DELEGATION_TOKEN_AUTHORIZATION_FAILED (65) |

A topic that one may not describe is answered the same whether it is there or not.

| request | key | operation | on | which |
|---|---|---|---|---|
`)
	for key := range kmsg.Key(kmsg.MaxKey + 1) {
		row, ok := rights[key]
		if ok && len(row) == 0 {
			fmt.Fprintf(&b, "| %s | %d | none | | |\n", key.Name(), int16(key))
		}
		for i, r := range row {
			name, number := key.Name(), fmt.Sprint(int16(key))
			if i > 0 {
				name, number = "", ""
			}
			operation := camel(r.operation.String())
			if r.instead != 0 {
				operation += ", or " + camel(r.instead.String()) + " on the cluster"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, number, operation, camel(r.on.String()), r.of)
		}
	}
	const name = "../docs/authorization.md"
	if *rewrite {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if doc, err := os.ReadFile(name); err != nil || string(doc) != b.String() {
		t.Errorf("%s does not say what the table of rights says (%v); run go test -run TestRightsAreDocumented ./server -rewrite", name, err)
	}
}

// camel is a name in capitals, DESCRIBE_CONFIGS, as Kafka's documentation has it.
func camel(name string) (words string) {
	for word := range strings.SplitSeq(name, "_") {
		words += word[:1] + strings.ToLower(word[1:])
	}
	return words
}
