package server

import (
	"fmt"

	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// An authorizer knows by which rules it is decided what clients may do. It is asked by
// many goroutines at once.
type authorizer interface {
	// Rules returns those now in force, nil where everybody may do everything. As long as it
	// returns the same, so does every decision.
	Rules() *acl.Rules
}

// A standing is who asks, and by what is decided what they may do: all that decisions
// need of a connection, so that they can be made after a request, and apart from it.
type standing struct {
	authorizer authorizer
	principal  string
	host       string
}

// standing is that of who asks now.
func (c *connection) standing() standing {
	return standing{c.server.broker.authorizer, c.principal, c.origin.host}
}

func (s standing) may(op acl.Operation, on acl.ResourceType, name string) bool {
	r := s.authorizer.Rules()
	return r == nil || r.Decide(acl.Request{Principal: s.principal, Host: s.host, Operation: op, Type: on, Name: name}).Allowed
}

// Sees implements group.Sight.
func (s standing) Sees(topic string) bool { return s.may(acl.Describe, acl.Topic, topic) }

// guarded reports whether there is anything that somebody may not do.
func (c *call) guarded() bool { return c.conn.server.broker.authorizer.Rules() != nil }

// allowed decides whether who asks may do something with a resource, by its name. That
// they may not is told to the auditor, since they will be told so. Where an answer only
// leaves out what they may not know of, ask with hidden.
func (c *call) allowed(op acl.Operation, on acl.ResourceType, name string) bool {
	if !c.hidden(op, on, name) {
		return true
	}
	c.denied(op, on, name)
	return false
}

// hidden is the contrary of allowed, and nobody is told.
func (c *call) hidden(op acl.Operation, on acl.ResourceType, name string) bool {
	return !c.conn.standing().may(op, on, name)
}

// may decides by the table of rights whether the request, which is about a resource, may
// go on with it.
func (c *call) may(on acl.ResourceType, name string) bool {
	if !c.guarded() {
		return true
	}
	r := c.right(on)
	return r.instead != 0 && c.onCluster(r.instead) || c.allowed(r.operation, on, name)
}

// sees is may for what is left out of an answer where it may not be known of.
func (c *call) sees(on acl.ResourceType, name string) bool {
	if !c.guarded() {
		return true
	}
	r := c.right(on)
	return r.instead != 0 && c.onCluster(r.instead) || !c.hidden(r.operation, on, name)
}

// right is what the request's row in the table says of a type of resources.
func (c *call) right(on acl.ResourceType) right {
	for _, r := range rights[c.Key] {
		if r.on == on {
			return r
		}
	}
	panic(fmt.Sprintf("server: the table of rights has none of %s on %v", c.Key.Name(), on))
}

// onCluster decides once a request whether it may do something with the cluster, in
// place of a right to each resource: nobody is told that it may not.
func (c *call) onCluster(op acl.Operation) bool {
	if c.cluster == 0 {
		c.cluster = 1
		if c.hidden(op, acl.Cluster, acl.ClusterName) {
			c.cluster = -1
		}
	}
	return c.cluster > 0
}

// admit returns CLUSTER_AUTHORIZATION_FAILED if who asks lacks the right to the request as
// a whole.
func (c *call) admit() protocol.Code {
	r := wholeRight(c.Key)
	if r == nil || c.allowed(r.operation, r.on, acl.ClusterName) {
		return protocol.None
	}
	return protocol.ClusterAuthorizationFailed
}

// findTopic finds a topic that the request names, if it may do with it what it is about. If
// not, it is not looked for: nobody learns, by the answer or by how long it took, whether it
// is there.
func (c *call) findTopic(image *metadata.Image, name string) (*metadata.Topic, protocol.Code) {
	if !c.may(acl.Topic, name) {
		return nil, protocol.TopicAuthorizationFailed
	}
	return findTopic(image, name, metadata.TopicID{}, false)
}

// conceals reports whether who asks to delete a topic may not even know of it. It is
// no refusal of the right to delete, which comes after.
func (c *call) conceals(topic string) bool {
	if !c.guarded() || c.onCluster(acl.Delete) {
		return false
	}
	return !c.allowed(acl.Describe, acl.Topic, topic)
}

// mayHaveProducerID decides whether who asks may be an idempotent producer: by a right of
// its own, or that to write to any topic (KIP-679).
func (c *call) mayHaveProducerID() bool {
	r := c.conn.server.broker.authorizer.Rules()
	if r == nil || r.Decide(acl.Request{Principal: c.conn.principal, Host: c.conn.origin.host, Operation: acl.IdempotentWrite, Type: acl.Cluster, Name: acl.ClusterName}).Allowed {
		return true
	}
	if r.DecideAnywhere(c.conn.principal, c.conn.origin.host, acl.Write, acl.Topic).Allowed {
		return true
	}
	c.denied(acl.IdempotentWrite, acl.Cluster, acl.ClusterName)
	return false
}

// denied tells the auditor.
func (c *call) denied(op acl.Operation, on acl.ResourceType, name string) {
	a := c.conn.server.Auditor
	if a == nil {
		return
	}
	a.Audit(AuditEvent{
		Kind: AuditDenied, Principal: c.conn.principal, Host: c.conn.origin.host, Client: c.Client,
		Request: c.Key.Name(), Subject: fmt.Sprintf("%v on %v %s", op, on, name), Outcome: "denied",
	})
}

// operations are the bits of what who asks may do with a resource (KIP-430).
func (c *call) operations(on acl.ResourceType, name string) int32 {
	if r := c.conn.server.broker.authorizer.Rules(); r != nil {
		return int32(r.Allowed(c.conn.principal, c.conn.origin.host, on, name))
	}
	bits := int32(0)
	for _, op := range acl.Operations(on) {
		bits |= 1 << op
	}
	return bits
}

// clusterOperations is operations for the cluster: none where not even those may be known.
func (c *call) clusterOperations() int32 {
	if !c.allowed(acl.Describe, acl.Cluster, acl.ClusterName) {
		return 0
	}
	return c.operations(acl.Cluster, acl.ClusterName)
}

// permitted remembers what one client was allowed on the way of every batch, so that rules
// cost a lookup there and not a decision. What was denied is not remembered: it takes as
// long for a topic that is there as for one that is not. It belongs to a connection's
// goroutine, and its zero value is ready.
type permitted struct {
	by        *acl.Rules // all else is for these
	principal string     // and for who this is
	topics    map[permission]struct{}
}

// A permission is one operation on one topic.
type permission struct {
	operation acl.Operation
	topic     metadata.TopicID
}

// maxPermitted bounds what is remembered for a connection: some 20 KB.
const maxPermitted = 512

// mayUse is allowed for a topic that is there, which is asked for every batch.
func (c *call) mayUse(by *acl.Rules, op acl.Operation, topic *metadata.Topic) bool {
	p := &c.conn.permitted
	if p.by != by || p.principal != c.conn.principal {
		p.by, p.principal = by, c.conn.principal
		clear(p.topics)
	}
	key := permission{op, topic.ID}
	if _, ok := p.topics[key]; ok {
		return true
	}
	if !c.allowed(op, acl.Topic, topic.Name) {
		return false
	}
	switch {
	case p.topics == nil:
		p.topics = make(map[permission]struct{}, 1)
	case len(p.topics) >= maxPermitted:
		clear(p.topics)
	}
	p.topics[key] = struct{}{}
	return true
}

// usable finds a topic on the way of every batch, by id or by name, for who may use it.
// by are the rules in force, nil for none.
func (c *call) usable(by *acl.Rules, op acl.Operation, image *metadata.Image, name string, id metadata.TopicID, byID bool) (*metadata.Topic, protocol.Code) {
	topic, code := findTopic(image, name, id, byID)
	switch {
	case by == nil || code == protocol.UnknownTopicID:
		return topic, code
	case topic != nil && c.mayUse(by, op, topic), topic == nil && c.allowed(op, acl.Topic, name):
		return topic, code
	}
	return nil, protocol.TopicAuthorizationFailed
}
