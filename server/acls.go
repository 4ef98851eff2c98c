package server

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// acls are the requests that show and change who may do what (KIP-140, KIP-290).
type acls struct{ *broker }

// errNoAuthorizer is Kafka's message where access is not controlled.
const errNoAuthorizer = sentence("No Authorizer is configured.")

// disabled says, as Kafka does, that nothing is controlled here that entries could be about.
func (h *acls) disabled() bool { return h.authorizer.Rules() == nil }

// DescribeAcls, versions 1–3.
//
//   - Describe on the cluster is needed.
//   - SECURITY_DISABLED where access is not controlled: see accessControl.
//   - Of a filter each member may be for any; the pattern type Match is for all that
//     mean a resource.
//   - A number of a filter that means nothing matches nothing, as with Kafka, but for 0,
//     at which Kafka closes the connection: that is INVALID_REQUEST.
//
// v2 adds tagged fields, v3 user principals.
func (h *acls) describe(c *call, req *kmsg.DescribeACLsRequest) *kmsg.DescribeACLsResponse {
	resp := kmsg.NewPtrDescribeACLsResponse()
	refuse := func(code protocol.Code, err error) *kmsg.DescribeACLsResponse {
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(err)
		return resp
	}
	if code := c.admit(); code != protocol.None {
		return refuse(code, errClusterDenied)
	}
	if h.disabled() {
		return refuse(protocol.SecurityDisabled, sentence("No Authorizer is configured on the broker"))
	}
	if req.ResourceType == 0 || req.ResourcePatternType == 0 || req.Operation == 0 || req.PermissionType == 0 {
		return refuse(protocol.InvalidRequest, sentence("DescribeAclsRequest contains UNKNOWN elements"))
	}
	filter := acl.Filter{
		Type: acl.ResourceType(req.ResourceType), Name: req.ResourceName, Pattern: acl.PatternType(req.ResourcePatternType),
		Principal: req.Principal, Host: canonical(req.Host),
		Operation: acl.Operation(req.Operation), Permission: acl.Permission(req.PermissionType),
	}
	// Sorted by who it is for, and asked for by what it is about.
	found := matching(c, h.node.Image().ACLs(), &filter)
	slices.SortStableFunc(found, func(a, b *acl.Entry) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name), cmp.Compare(a.Pattern, b.Pattern))
	})
	for len(found) > 0 {
		r := kmsg.NewDescribeACLsResponseResource()
		first := found[0]
		r.ResourceType, r.ResourceName, r.ResourcePatternType = kmsg.ACLResourceType(first.Type), first.Name, kmsg.ACLResourcePatternType(first.Pattern)
		for len(found) > 0 && found[0].Type == first.Type && found[0].Name == first.Name && found[0].Pattern == first.Pattern {
			c.step()
			e := kmsg.NewDescribeACLsResponseResourceACL()
			e.Principal, e.Host, e.Operation, e.PermissionType = found[0].Principal, found[0].Host, kmsg.ACLOperation(found[0].Operation), kmsg.ACLPermissionType(found[0].Permission)
			r.ACLs = append(r.ACLs, e)
			found = found[1:]
		}
		if !c.fits(&r) {
			resp.Resources = nil
			return refuse(protocol.PolicyViolation, errNoPlace)
		}
		resp.Resources = append(resp.Resources, r)
	}
	return resp
}

// matching are the entries that a filter is for.
func matching(c *call, entries []acl.Entry, filter *acl.Filter) (found []*acl.Entry) {
	for i := range entries {
		if i%1000 == 0 {
			c.step()
		}
		if filter.Matches(&entries[i]) {
			found = append(found, &entries[i])
		}
	}
	return found
}

// canonical is a filter's host as entries have theirs.
func canonical(host *string) *string {
	if host == nil {
		return nil
	}
	h := acl.CanonicalHost(*host)
	return &h
}

// CreateAcls, versions 1–3.
//
//   - Alter on the cluster is needed.
//   - SECURITY_DISABLED for each where access is not controlled.
//   - Each is answered by itself, with INVALID_REQUEST where it means nothing. Those that
//     do become one change; one that is there already, or that is given twice, succeeds.
//   - Hosts are kept in one spelling, and are not looked up.
//
// v2 adds tagged fields, v3 user principals.
func (h *acls) create(c *call, req *kmsg.CreateACLsRequest) *kmsg.CreateACLsResponse {
	resp := kmsg.NewPtrCreateACLsResponse()
	resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
	set := func(i int, code protocol.Code, err error) {
		resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = int16(code), message(err)
	}
	code, err := h.mayAlter(c)
	var change metadata.AlterACLs
	var valid []int
	given := make(map[acl.Entry]bool, len(req.Creations))
	for i := range req.Creations {
		c.step()
		rc := &req.Creations[i]
		if code != protocol.None {
			set(i, code, err)
			continue
		}
		e := acl.Entry{
			Type: acl.ResourceType(rc.ResourceType), Name: rc.ResourceName, Pattern: acl.PatternType(rc.ResourcePatternType),
			Principal: rc.Principal, Host: acl.CanonicalHost(rc.Host),
			Operation: acl.Operation(rc.Operation), Permission: acl.Permission(rc.PermissionType),
		}
		if wrong := checkEntry(&e); wrong != nil {
			set(i, protocol.InvalidRequest, wrong)
			continue
		}
		valid = append(valid, i)
		if !given[e] {
			given[e] = true
			change.Add = append(change.Add, e)
		}
	}
	if len(change.Add) == 0 {
		return resp
	}
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	err = h.node.Change(ctx, change)
	for _, i := range valid {
		set(i, adminCodeOf(err), err)
	}
	return resp
}

// mayAlter says why who asks may not change entries, if so.
func (h *acls) mayAlter(c *call) (protocol.Code, error) {
	if code := c.admit(); code != protocol.None {
		return code, errClusterDenied
	}
	if h.disabled() {
		return protocol.SecurityDisabled, errNoAuthorizer
	}
	return protocol.None, nil
}

// checkEntry says what is wrong with an entry that would be made, in Kafka's words and in
// the order in which it looks.
func checkEntry(e *acl.Entry) error {
	switch {
	case e.Type == acl.Cluster && e.Name != acl.ClusterName:
		return sentence("The only valid name for the CLUSTER resource is " + acl.ClusterName)
	case e.Name == "":
		return sentence("Invalid empty resource name")
	}
	return metadata.CheckACL(e)
}

// DeleteAcls, versions 1–3.
//
//   - Alter on the cluster is needed.
//   - SECURITY_DISABLED for each where access is not controlled.
//   - Each filter is answered with the entries that it is for, in one change for all of
//     them; one that two filters are for is named by both.
//   - What any node has answered before is found: it is waited for. INVALID_REQUEST where
//     a filter's numbers mean nothing.
//
// v2 adds tagged fields, v3 user principals.
func (h *acls) remove(c *call, req *kmsg.DeleteACLsRequest) *kmsg.DeleteACLsResponse {
	resp := kmsg.NewPtrDeleteACLsResponse()
	resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	code, err := h.mayAlter(c)
	if code == protocol.None {
		// A change of nothing comes after all that was changed, by whichever node.
		err = h.node.Change(ctx, metadata.AlterACLs{})
		code = adminCodeOf(err)
	}
	entries := h.node.Image().ACLs()
	var change metadata.AlterACLs
	given := make(map[acl.Entry]bool)
	for i := range req.Filters {
		c.step()
		rf, r := &req.Filters[i], &resp.Results[i]
		r.Default()
		code, err := code, err
		filter := acl.Filter{
			Type: acl.ResourceType(rf.ResourceType), Name: rf.ResourceName, Pattern: acl.PatternType(rf.ResourcePatternType),
			Principal: rf.Principal, Host: canonical(rf.Host),
			Operation: acl.Operation(rf.Operation), Permission: acl.Permission(rf.PermissionType),
		}
		switch {
		case code != protocol.None:
		case filter.Type < acl.AnyType || filter.Type > acl.User || filter.Pattern < acl.AnyPattern || filter.Pattern > acl.Prefixed:
			code, err = protocol.InvalidRequest, sentence("Unknown patternFilter.")
		case filter.Operation < acl.AnyOperation || filter.Operation > acl.TwoPhaseCommit || filter.Permission < acl.AnyPermission || filter.Permission > acl.Allow:
			code, err = protocol.InvalidRequest, sentence("Unknown entryFilter.")
		}
		if r.ErrorCode, r.ErrorMessage = int16(code), message(err); code != protocol.None {
			continue
		}
		found := matching(c, entries, &filter)
		for _, e := range found {
			c.step()
			m := kmsg.NewDeleteACLsResponseResultMatchingACL()
			m.ResourceType, m.ResourceName, m.ResourcePatternType = kmsg.ACLResourceType(e.Type), e.Name, kmsg.ACLResourcePatternType(e.Pattern)
			m.Principal, m.Host, m.Operation, m.PermissionType = e.Principal, e.Host, kmsg.ACLOperation(e.Operation), kmsg.ACLPermissionType(e.Permission)
			r.MatchingACLs = append(r.MatchingACLs, m)
		}
		if !c.fits(r) {
			r.MatchingACLs = nil
			r.ErrorCode, r.ErrorMessage = int16(protocol.PolicyViolation), message(errNoPlace)
			continue
		}
		for _, e := range found {
			if !given[*e] {
				given[*e] = true
				change.Remove = append(change.Remove, *e)
			}
		}
	}
	if len(change.Remove) == 0 {
		return resp
	}
	if err := h.node.Change(ctx, change); err != nil {
		for i := range resp.Results {
			if r := &resp.Results[i]; r.ErrorCode == 0 {
				r.MatchingACLs = nil
				r.ErrorCode, r.ErrorMessage = int16(adminCodeOf(err)), message(err)
			}
		}
	}
	return resp
}
