package server

import "millrace/security/acl"

// allowed decides whether who asks may do something with a resource, by its name. As long as
// there is no way to say who may do what, everybody may do everything.
func (c *call) allowed(op acl.Operation, kind acl.ResourceType, name string) bool {
	return c.conn.server.broker.authorizer.Allowed(acl.Request{
		Principal: c.conn.principal, Host: c.conn.origin.host(), Operation: op, Type: kind, Name: name,
	})
}

// An authorizer decides what clients may do. It is asked by many goroutines at once.
type authorizer interface {
	Allowed(acl.Request) bool
}

// everybody lets everybody do everything.
type everybody struct{}

// Allowed implements authorizer.
func (everybody) Allowed(acl.Request) bool { return true }
