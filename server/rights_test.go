package server

import (
	"testing"

	"millrace/security/acl"
)

// allOf are the bits of all operations there are on a type of resources.
func allOf(on acl.ResourceType) (bits int32) {
	for _, op := range acl.Operations(on) {
		bits |= 1 << op
	}
	return bits
}

// Every kind of request that is served has a row in the table of rights, which handlers ask
// and the documentation is written from.
func TestEveryRequestHasItsRights(t *testing.T) {
	for _, a := range new(handlers).table() {
		if _, ok := rights[a.key]; !ok {
			t.Errorf("%s has no row in the table of rights", a.key.Name())
		}
	}
}
