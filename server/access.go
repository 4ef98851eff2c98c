package server

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// accessControl is a node's authorizer: what its image and its settings say.
//
// It is in force as soon as the cluster has users, entries or super users, or the node is
// told so by authorizer.class.name. Before that everybody may do everything.
//
// A request costs one look at whether the image is still the one that rules were made for.
type accessControl struct {
	*broker
	current atomic.Pointer[inForce]
	mu      sync.Mutex // held while rules are made
}

// inForce are the rules under one image.
type inForce struct {
	image *metadata.Image
	rules *acl.Rules // nil: everybody may do everything
}

// nobody lets nobody do anything: rules for a node that does not know its cluster.
var nobody acl.Rules

// Rules implements authorizer.
//
// A node that does not know its cluster cannot tell whether there are users: nobody may do
// anything. (Its connections are closed besides, see Server.serve.)
func (a *accessControl) Rules() *acl.Rules {
	image := a.node.Image()
	if c := a.current.Load(); c != nil && c.image == image {
		return c.rules
	}
	if image.ClusterID == "" {
		return &nobody
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	resolved := a.settings()
	before := a.current.Load()
	if before == nil {
		before = &inForce{image: &metadata.Image{}}
	}
	next := &inForce{image: resolved.image, rules: a.rulesOf(resolved, before.rules)}
	a.current.Store(next)
	return next.rules
}

// rulesOf makes the rules under an image from those before.
func (a *accessControl) rulesOf(resolved *resolvedSettings, before *acl.Rules) *acl.Rules {
	image, access := resolved.image, &resolved.broker.Access
	entries := image.ACLs()
	superUsers, _ := acl.ParseSuperUsers(access.SuperUsers)
	if len(image.Users()) == 0 && len(entries) == 0 && len(superUsers) == 0 && access.Authorizer == "" {
		return nil
	}
	set := new(acl.Set)
	if before != nil {
		set = before.Entries
	}
	set = set.With(entries)
	if before != nil && before.Entries == set && before.AllowEveryone == access.AllowEveryone && maps.Equal(before.SuperUsers, superUsers) {
		return before
	}
	return &acl.Rules{Entries: set, SuperUsers: superUsers, AllowEveryone: access.AllowEveryone}
}

// accessSettings are the settings that say who may do what.
var accessSettings = []string{"super.users", "allow.everyone.if.no.acl.found"}

// mayAlterAccess decides whether who asks may change them: who may change entries. The
// right to alter the cluster's settings would be a right to everything otherwise.
func (c *call) mayAlterAccess() (protocol.Code, error) {
	if c.allowed(acl.Alter, acl.Cluster, acl.ClusterName) {
		return protocol.None, nil
	}
	return protocol.ClusterAuthorizationFailed, sentence("Cluster authorization failed: to change super.users or allow.everyone.if.no.acl.found takes ALTER on the cluster.")
}

// altersAccess reports whether settings that take the place of all that were set for the
// whole cluster would change one of them.
func altersAccess(before, after map[string]string) bool {
	return slices.ContainsFunc(accessSettings, func(name string) bool {
		was, had := before[name]
		is, has := after[name]
		return had != has || was != is
	})
}
