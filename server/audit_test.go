package server

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/security/acl"
)

// The auditor is told of each change with its outcome, of no value of a setting, and of
// nothing that only asked what would happen.
func TestChangesAreAudited(t *testing.T) {
	auditor := &heard{}
	b := startBrokerWith(t, map[string]string{"super.users": acl.Anonymous}, func(s *Server) { s.Auditor = auditor })
	w := b.dial()
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	create.TimeoutMillis, create.Topics = 20_000, []kmsg.CreateTopicsRequestTopic{newTopic("orders", 1, 1), newTopic("..", 1, 1)}
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.SetVersion(5)
	remove.TimeoutMillis, remove.TopicNames = 20_000, []string{"orders"}
	delACLs := kmsg.NewPtrDeleteACLsRequest()
	delACLs.SetVersion(3)
	f := kmsg.NewDeleteACLsRequestFilter()
	f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	delACLs.Filters = append(delACLs.Filters, f)
	for _, c := range []struct {
		do   func()
		want []string
	}{
		{func() {
			create.ValidateOnly = true
			ask[*kmsg.CreateTopicsResponse](w, create)
		}, nil},
		{func() {
			create.ValidateOnly = false
			ask[*kmsg.CreateTopicsResponse](w, create)
		}, []string{"create topic orders: succeeded", "create topic ..: error 17"}},
		{func() { ask[*kmsg.MetadataResponse](w, metadataRequest(12, "orders")) }, nil},
		{func() {
			w.alter(kmsg.ConfigResourceTypeTopic, "orders", false, alteration{opSet, "retention.ms", "70000"}, alteration{opDelete, "segment.ms", ""})
		}, []string{`alter settings of TOPIC "orders": retention.ms,segment.ms: succeeded`}},
		{func() {
			w.alter(kmsg.ConfigResourceTypeTopic, "orders", true, alteration{opSet, "retention.ms", "70000"})
		}, nil},
		{func() { w.replace(kmsg.ConfigResourceTypeBroker, "", map[string]string{"super.users": acl.Anonymous}) },
			[]string{`replace settings of BROKER "" by super.users: succeeded`}},
		{func() { w.createACLs(creation("allow User:alice read topic orders")) }, []string{`create ACL: ALLOW User:alice from * READ on LITERAL TOPIC "orders": succeeded`}},
		{func() { ask[*kmsg.DeleteACLsResponse](w, delACLs) }, []string{`delete ACL: ALLOW User:alice from * READ on LITERAL TOPIC "orders": succeeded`}},
		{func() { ask[*kmsg.DeleteTopicsResponse](w, remove) }, []string{"delete topic orders: succeeded"}},
	} {
		auditor.take()
		c.do()
		var got []string
		for _, e := range auditor.take() {
			if e.Kind != AuditChanged || e.Principal != acl.Anonymous || e.Host != "127.0.0.1" || e.Client != "test" || e.Request == "" {
				t.Errorf("%+v", e)
			}
			got = append(got, e.Subject+": "+e.Outcome)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("the auditor is told\n%q\nwant\n%q", got, c.want)
		}
	}
	// One request fills no disk.
	var many []kmsg.CreateACLsRequestCreation
	for i := range 3 * maxAudited {
		many = append(many, creation(fmt.Sprintf("allow User:alice read topic t%d", i)))
	}
	w.createACLs(many...)
	if got := auditor.take(); len(got) != maxAudited+1 || got[maxAudited].Subject != "200 more of the request" {
		t.Errorf("%d events, the last %+v", len(got), got[len(got)-1])
	}
}

// A user that was made is a change that succeeded: an audit log writes each of those, and
// withholds what it takes for failed.
func TestUsersAreAudited(t *testing.T) {
	auditor := &heard{}
	b := startBrokerWith(t, map[string]string{"super.users": acl.Anonymous}, func(s *Server) { s.Auditor = auditor })
	alter := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	for _, name := range []string{"alice", "bob"} {
		u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		u.Name, u.Mechanism, u.Iterations, u.Salt, u.SaltedPassword = name, 1, 4096, make([]byte, 32), make([]byte, 32)
		alter.Upsertions = append(alter.Upsertions, u)
	}
	none := kmsg.NewAlterUserSCRAMCredentialsRequestDeletion()
	none.Name, none.Mechanism = "nobody", 1
	alter.Deletions = append(alter.Deletions, none)
	ask[*kmsg.AlterUserSCRAMCredentialsResponse](b.dial(), alter)
	var got []string
	for _, e := range auditor.take() {
		if e.Kind == AuditUsers {
			got = append(got, e.Subject+": "+e.Outcome)
		}
	}
	slices.Sort(got)
	if want := []string{"delete SCRAM-SHA-256 of User:nobody: failed", "set SCRAM-SHA-256 of User:alice: succeeded", "set SCRAM-SHA-256 of User:bob: succeeded"}; !slices.Equal(got, want) {
		t.Errorf("the auditor is told\n%q\nwant\n%q", got, want)
	}
}
