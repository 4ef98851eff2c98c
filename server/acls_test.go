package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/security/acl"
	"millrace/server/protocol"
)

// startGuarded starts a broker whose clients, which are anonymous, may do everything and
// say who else may do what.
func startGuarded(t *testing.T) *testBroker {
	return startBroker(t, map[string]string{"super.users": acl.Anonymous})
}

// creation is an entry as CreateAcls has it, of the words of its strings: "allow User:alice
// read topic orders", with "literal" or "prefixed" and a host behind, if others than all.
func creation(words string) kmsg.CreateACLsRequestCreation {
	c := kmsg.NewCreateACLsRequestCreation()
	c.ResourcePatternType, c.Host = kmsg.ACLResourcePatternTypeLiteral, "*"
	f := strings.Fields(words)
	c.PermissionType, _ = kmsg.ParseACLPermissionType(f[0])
	c.Principal = f[1]
	c.Operation, _ = kmsg.ParseACLOperation(f[2])
	c.ResourceType, _ = kmsg.ParseACLResourceType(f[3])
	c.ResourceName = f[4]
	if len(f) > 5 {
		c.ResourcePatternType, _ = kmsg.ParseACLResourcePatternType(f[5])
	}
	if len(f) > 6 {
		c.Host = f[6]
	}
	return c
}

// createACLs creates entries, each of which must be answered so: "" for success, or a code
// and the beginning of a message.
func (w *wire) createACLs(creations ...kmsg.CreateACLsRequestCreation) (answers []string) {
	w.t.Helper()
	req := kmsg.NewPtrCreateACLsRequest()
	req.SetVersion(3)
	req.Creations = creations
	for _, r := range ask[*kmsg.CreateACLsResponse](w, req).Results {
		answers = append(answers, answerOf(r.ErrorCode, r.ErrorMessage))
	}
	return answers
}

func answerOf(code int16, message *string) string {
	if code == 0 && message == nil {
		return ""
	}
	return fmt.Sprintf("%d %s", code, str(message))
}

// anyACL is a filter for all entries.
func anyACL() *kmsg.DescribeACLsRequest {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.SetVersion(3)
	req.ResourceType, req.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	return req
}

// describeACLs are the entries that a filter is for, in words.
func (w *wire) describeACLs(req *kmsg.DescribeACLsRequest) (found []string) {
	w.t.Helper()
	resp := ask[*kmsg.DescribeACLsResponse](w, req)
	if resp.ErrorCode != 0 {
		w.t.Fatalf("DescribeAcls: %d %s", resp.ErrorCode, str(resp.ErrorMessage))
	}
	for _, r := range resp.Resources {
		for _, e := range r.ACLs {
			found = append(found, entryWords(e.PermissionType, e.Principal, e.Operation, r.ResourceType, r.ResourceName, r.ResourcePatternType, e.Host))
		}
	}
	return found
}

func entryWords(permission kmsg.ACLPermissionType, principal string, operation kmsg.ACLOperation, kind kmsg.ACLResourceType, name string, pattern kmsg.ACLResourcePatternType, host string) string {
	return strings.ToLower(fmt.Sprint(permission)) + " " + principal + " " + strings.ToLower(fmt.Sprint(operation, " ", kind)) + " " + name + " " + strings.ToLower(fmt.Sprint(pattern)) + " " + host
}

// KIP-140: entries are created once however often they are asked for, and each by itself.
func TestCreateACLs(t *testing.T) {
	w := startGuarded(t).dial()
	good := []kmsg.CreateACLsRequestCreation{
		creation("allow User:alice read topic orders"),
		creation("deny User:* write topic orders prefixed 10.0.0.1"),
		creation("allow User:CN=x,O=y alter cluster kafka-cluster"),
		creation("allow User:alice read topic orders"), // again
		creation("allow User:alice all group * literal 0:0:0:0:0:0:0:1"),
		creation("allow User:alice create_tokens user User:bob"),
	}
	if got := w.createACLs(good...); !slices.Equal(got, make([]string, len(good))) {
		t.Errorf("created: %q", got)
	}
	want := []string{
		"allow User:alice read topic orders literal *",
		"deny User:* write topic orders prefixed 10.0.0.1",
		"allow User:alice all group * literal ::1",
		"allow User:CN=x,O=y alter cluster kafka-cluster literal *",
		"allow User:alice create_tokens user User:bob literal *",
	}
	if got := w.describeACLs(anyACL()); !slices.Equal(got, want) {
		t.Errorf("described:\n%q\nwant\n%q", got, want)
	}
	if got := w.createACLs(good...); !slices.Equal(got, make([]string, len(good))) {
		t.Errorf("created again: %q", got)
	}

	// What means nothing is refused by itself, in Kafka's words; what is beside it is created.
	change := func(f func(c *kmsg.CreateACLsRequestCreation)) kmsg.CreateACLsRequestCreation {
		c := creation("allow User:bob read topic t")
		f(&c)
		return c
	}
	for _, bad := range []struct {
		creation kmsg.CreateACLsRequestCreation
		answer   string
	}{
		{creation("allow User:bob alter cluster other"), "42 The only valid name for the CLUSTER resource is kafka-cluster"},
		{creation("allow User:bob alter cluster *"), "42 The only valid name for the CLUSTER resource is kafka-cluster"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.ResourceName = "" }), "42 Invalid empty resource name"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.ResourceType = 0 }), "42 Invalid resourceType UNKNOWN"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.ResourceType = 1 }), "42 Invalid resourceType ANY"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.ResourceType = 99 }), "42 Invalid resourceType UNKNOWN"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.ResourcePatternType = 1 }), "42 Invalid patternType ANY"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.ResourcePatternType = 2 }), "42 Invalid patternType MATCH"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.Operation = 1 }), "42 Invalid operation ANY"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.Operation = -1 }), "42 Invalid operation UNKNOWN"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.PermissionType = 1 }), "42 Invalid permissionType ANY"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.Principal = "bob" }), "42 Could not parse principal from `bob` (no colon is present separating the principal type from the principal name)"},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.Host = "" }), `42 The host "" is empty or not a text of at most 255 bytes.`},
		{change(func(c *kmsg.CreateACLsRequestCreation) { c.ResourceName = "\xff" }), `42 The resource name "?" is not a text of at most 1024 bytes without control characters.`},
	} {
		if got := w.createACLs(bad.creation, good[0]); !slices.Equal(got, []string{bad.answer, ""}) {
			t.Errorf("%+v: %q, want %q", bad.creation, got, bad.answer)
		}
	}
	if got := w.describeACLs(anyACL()); !slices.Equal(got, want) {
		t.Errorf("afterwards:\n%q\nwant\n%q", got, want)
	}
}

// KIP-290: filters are for any, for one pattern type, or for all that mean a resource.
func TestDescribeACLsByFilter(t *testing.T) {
	w := startGuarded(t).dial()
	w.createACLs(
		creation("allow User:alice read topic foo"),
		creation("allow User:bob read topic fo prefixed"),
		creation("deny User:alice write topic * literal ::1"),
		creation("allow User:alice read group foo"),
	)
	foo, fo, host := "foo", "fo", "0:0:0:0:0:0:0:1"
	for name, test := range map[string]struct {
		set  func(*kmsg.DescribeACLsRequest)
		want []string // the first words
	}{
		"any": {func(r *kmsg.DescribeACLsRequest) {}, []string{"* deny", "fo allow", "foo allow", "foo allow"}},
		"topics that mean foo": {func(r *kmsg.DescribeACLsRequest) {
			r.ResourceType, r.ResourceName, r.ResourcePatternType = kmsg.ACLResourceTypeTopic, &foo, kmsg.ACLResourcePatternTypeMatch
		}, []string{"* deny", "fo allow", "foo allow"}},
		"literal foo": {func(r *kmsg.DescribeACLsRequest) {
			r.ResourceName, r.ResourcePatternType = &foo, kmsg.ACLResourcePatternTypeLiteral
		}, []string{"foo allow", "foo allow"}},
		"any fo":        {func(r *kmsg.DescribeACLsRequest) { r.ResourceName = &fo }, []string{"fo allow"}},
		"prefixed":      {func(r *kmsg.DescribeACLsRequest) { r.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed }, []string{"fo allow"}},
		"by host":       {func(r *kmsg.DescribeACLsRequest) { r.Host = &host }, []string{"* deny"}},
		"by permission": {func(r *kmsg.DescribeACLsRequest) { r.PermissionType = kmsg.ACLPermissionTypeDeny }, []string{"* deny"}},
		"by operation":  {func(r *kmsg.DescribeACLsRequest) { r.Operation = kmsg.ACLOperationDelete }, nil},
		"unknown type":  {func(r *kmsg.DescribeACLsRequest) { r.ResourceType = 99 }, nil},
	} {
		req := anyACL()
		test.set(req)
		var got []string
		for _, words := range w.describeACLs(req) {
			f := strings.Fields(words)
			got = append(got, f[4]+" "+f[0])
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	req := anyACL()
	req.Operation = 0
	if got := ask[*kmsg.DescribeACLsResponse](w, req); got.ErrorCode != int16(protocol.InvalidRequest) {
		t.Errorf("a filter of 0: %+v", got)
	}
}

// Filters delete what they are for, one that is wrong spoils no other, and each names what
// it was for, though it may be deleted by another.
func TestDeleteACLs(t *testing.T) {
	w := startGuarded(t).dial()
	w.createACLs(
		creation("allow User:alice read topic foo"),
		creation("allow User:bob read topic foo"),
		creation("allow User:bob read topic bar"),
		creation("allow User:bob read group g"),
	)
	req := kmsg.NewPtrDeleteACLsRequest()
	req.SetVersion(3)
	filter := func(set func(*kmsg.DeleteACLsRequestFilter)) {
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		set(&f)
		req.Filters = append(req.Filters, f)
	}
	foo, bob := "foo", "User:bob"
	filter(func(f *kmsg.DeleteACLsRequestFilter) { f.ResourceName = &foo })
	filter(func(f *kmsg.DeleteACLsRequestFilter) { f.ResourcePatternType = 0 })
	filter(func(f *kmsg.DeleteACLsRequestFilter) { f.Operation = 99 })
	filter(func(f *kmsg.DeleteACLsRequestFilter) {
		f.ResourceType, f.Principal = kmsg.ACLResourceTypeTopic, &bob
	})
	filter(func(f *kmsg.DeleteACLsRequestFilter) { f.Host = &foo })
	deleted := func() (all []string) {
		t.Helper()
		for _, r := range ask[*kmsg.DeleteACLsResponse](w, req).Results {
			found := []string{answerOf(r.ErrorCode, r.ErrorMessage)}
			for _, m := range r.MatchingACLs {
				found = append(found, entryWords(m.PermissionType, m.Principal, m.Operation, m.ResourceType, m.ResourceName, m.ResourcePatternType, m.Host)+answerOf(m.ErrorCode, m.ErrorMessage))
			}
			slices.Sort(found)
			all = append(all, strings.Join(found, "; "))
		}
		return all
	}
	if got, want := deleted(), []string{
		"; allow User:alice read topic foo literal *; allow User:bob read topic foo literal *",
		"42 Unknown patternFilter.",
		"42 Unknown entryFilter.",
		"; allow User:bob read topic bar literal *; allow User:bob read topic foo literal *",
		"",
	}; !slices.Equal(got, want) {
		t.Errorf("deleted:\n%q\nwant\n%q", got, want)
	}
	if got, want := w.describeACLs(anyACL()), []string{"allow User:bob read group g literal *"}; !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
	if got, want := deleted(), []string{"", "42 Unknown patternFilter.", "42 Unknown entryFilter.", "", ""}; !slices.Equal(got, want) {
		t.Errorf("deleted again:\n%q\nwant\n%q", got, want)
	}
}

// Who may neither alter nor describe the cluster is refused whole, and each part is told so.
func TestACLsNeedARightToTheCluster(t *testing.T) {
	w := startBroker(t, map[string]string{"super.users": "User:root"}).dial()
	const denied = "31 Cluster authorization failed."
	if got := w.createACLs(creation("allow User:ANONYMOUS all cluster kafka-cluster"), creation("allow User:bob alter cluster *")); !slices.Equal(got, []string{denied, denied}) {
		t.Errorf("created: %q", got)
	}
	if got := ask[*kmsg.DescribeACLsResponse](w, anyACL()); answerOf(got.ErrorCode, got.ErrorMessage) != denied || len(got.Resources) > 0 {
		t.Errorf("described: %+v", got)
	}
	req := kmsg.NewPtrDeleteACLsRequest()
	req.SetVersion(3)
	req.Filters = make([]kmsg.DeleteACLsRequestFilter, 2)
	for _, r := range ask[*kmsg.DeleteACLsResponse](w, req).Results {
		if got := answerOf(r.ErrorCode, r.ErrorMessage); got != denied {
			t.Errorf("deleted: %q", got)
		}
	}
}
