package server

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// Access is controlled as soon as anything says so, and not before.
func TestAccessIsControlledOnceThereIsSomebodyToControl(t *testing.T) {
	t.Run("by nothing", func(t *testing.T) {
		b := startBroker(t, nil)
		if rules := b.server.broker.authorizer.Rules(); rules != nil {
			t.Errorf("%+v", rules)
		}
	})
	for name, settings := range map[string]map[string]string{
		"super.users":           {"super.users": "User:root"},
		"authorizer.class.name": {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"},
	} {
		t.Run("by "+name, func(t *testing.T) {
			b := startBroker(t, settings)
			rules := b.server.broker.authorizer.Rules()
			if rules == nil || rules.Decide(acl.Request{Principal: acl.Anonymous, Host: "127.0.0.1", Operation: acl.Describe, Type: acl.Topic, Name: "a"}).Allowed {
				t.Errorf("anonymous may: %+v", rules)
			}
		})
	}
}

// Rules follow settings and entries as they change, and stay the same ones while those do.
func TestRulesFollowSettingsAndEntries(t *testing.T) {
	b := startBroker(t, map[string]string{"authorizer.class.name": "kafka.security.authorizer.AclAuthorizer"})
	change := func(c metadata.Change) {
		t.Helper()
		if err := b.node.Change(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	rules := func() *acl.Rules { return b.server.broker.authorizer.Rules() }
	ask := acl.Request{Principal: "User:alice", Host: "127.0.0.1", Operation: acl.Read, Type: acl.Topic, Name: "orders"}
	expect := func(want acl.Decision) {
		t.Helper()
		if got := rules().Decide(ask); got != want {
			t.Errorf("%s: %+v, want %+v", ask, got, want)
		}
	}
	set := func(name, value string) {
		t.Helper()
		change(metadata.SetBrokerConfig{Set: map[string]string{name: value}})
	}
	expect(acl.Decision{Because: acl.NoEntry})
	before := rules()
	set("log.retention.ms", "100000")
	if rules() != before {
		t.Error("a setting of something else made other rules")
	}
	entry := acl.Entry{Type: acl.Topic, Name: "orders", Pattern: acl.Literal, Principal: "User:alice", Host: acl.AnyHost, Operation: acl.Read, Permission: acl.Allow}
	change(metadata.AlterACLs{Add: []acl.Entry{entry}})
	expect(acl.Decision{Allowed: true, Because: acl.EntryAllows})
	with := rules()
	change(metadata.SetResourceConfig{Kind: settings.Group, Name: "g", Set: map[string]string{"consumer.session.timeout.ms": "46000"}})
	if rules() != with {
		t.Error("a group's setting made other rules")
	}
	set("super.users", "User:bob;User:alice")
	expect(acl.Decision{Allowed: true, Because: acl.SuperUser})
	set("super.users", "")
	set("allow.everyone.if.no.acl.found", "true")
	expect(acl.Decision{Allowed: true, Because: acl.EntryAllows})
	ask.Name = "others"
	expect(acl.Decision{Allowed: true, Because: acl.NoEntries})
	set("allow.everyone.if.no.acl.found", "false")
	change(metadata.AlterACLs{Remove: []acl.Entry{entry}})
	expect(acl.Decision{Because: acl.NoEntry})
}

// A node that knows nothing of its cluster cannot tell who may do what in it. It says so to
// nobody as a denial, which clients take for good: it ends connections.
func TestAnAuthorizerThatCannotDecideSaysNo(t *testing.T) {
	b := serveBroker(t, t.TempDir(), nil, nil)
	w := b.dial()
	w.send(kmsg.NewPtrApiVersionsRequest())
	w.closed()
	if rules := b.server.broker.authorizer.Rules(); rules == nil || rules.Decide(acl.Request{Principal: "User:root"}).Allowed {
		t.Errorf("somebody may do something: %+v", rules)
	}
	b.start()
	if rules := b.server.broker.authorizer.Rules(); rules != nil {
		t.Errorf("once the node knows: %+v", rules)
	}
}

// Who may alter the cluster's settings may not make themselves a super user by one: it takes
// the right to change entries, which is a right to everything anyhow.
func TestSuperUsersAreMadeByWhoMayChangeEntries(t *testing.T) {
	b := startBroker(t, map[string]string{"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"})
	change := func(c metadata.Change) {
		t.Helper()
		if err := b.node.Change(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	change(metadata.AlterACLs{Add: []acl.Entry{let(acl.Anonymous, acl.AlterConfigs, acl.Cluster, acl.ClusterName)}})
	change(metadata.SetBrokerConfig{Set: map[string]string{"super.users": "User:root"}})
	w := b.dial()
	const denied = "Cluster authorization failed: to change super.users or allow.everyone.if.no.acl.found takes ALTER on the cluster."
	for _, a := range []alteration{
		{opSet, "super.users", acl.Anonymous},
		{opDelete, "super.users", ""},
		{opSet, "allow.everyone.if.no.acl.found", "true"},
	} {
		if got := w.alter(kmsg.ConfigResourceTypeBroker, "", false, a); got.ErrorCode != int16(protocol.ClusterAuthorizationFailed) || str(got.ErrorMessage) != denied {
			t.Errorf("%+v: %d %s", a, got.ErrorCode, str(got.ErrorMessage))
		}
	}
	for _, values := range []map[string]string{{}, {"super.users": "User:root;" + acl.Anonymous}, {"super.users": "User:root", "allow.everyone.if.no.acl.found": "true"}} {
		if got := w.replace(kmsg.ConfigResourceTypeBroker, "", values); got.ErrorCode != int16(protocol.ClusterAuthorizationFailed) || str(got.ErrorMessage) != denied {
			t.Errorf("%v: %d %s", values, got.ErrorCode, str(got.ErrorMessage))
		}
	}
	// What is something else, or leaves them as they are, goes on.
	if got := w.alter(kmsg.ConfigResourceTypeBroker, "", false, alteration{opSet, "log.retention.ms", "100000"}); got.ErrorCode != 0 {
		t.Errorf("%+v", got)
	}
	if got := w.replace(kmsg.ConfigResourceTypeBroker, "", map[string]string{"super.users": "User:root", "log.retention.ms": "200000"}); got.ErrorCode != 0 {
		t.Errorf("%+v", got)
	}
	change(metadata.AlterACLs{Add: []acl.Entry{let(acl.Anonymous, acl.Alter, acl.Cluster, acl.ClusterName)}})
	if got := w.alter(kmsg.ConfigResourceTypeBroker, "", false, alteration{opSet, "super.users", acl.Anonymous}); got.ErrorCode != 0 {
		t.Errorf("with the right to change entries: %+v", got)
	}
}
