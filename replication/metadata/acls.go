package metadata

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"millrace/replication/metadata/settings"
	"millrace/security/acl"
)

// AlterACLs takes out entries that say who may do what, and adds others. That one which is
// added is there, or one which is removed is not, is no error.
//
// Errors: ErrNoCluster, ErrLevel, ErrInvalidACL, ErrLimit.
type AlterACLs struct {
	Add    []acl.Entry
	Remove []acl.Entry // before Add
}

func (AlterACLs) kind() string { return "AlterACLs" }
func (AlterACLs) level() int32 { return 4 }

func (c AlterACLs) apply(next *Image) error {
	if err := next.needsLevel4("ACLs"); err != nil {
		return err
	}
	for _, list := range [][]acl.Entry{c.Remove, c.Add} {
		for i := range list {
			if err := validEntry(&list[i]); err != nil {
				return err
			}
		}
	}
	steps := make([]aclStep, 0, len(c.Remove)+len(c.Add))
	for _, e := range c.Remove {
		steps = append(steps, aclStep{entry: e})
	}
	for _, e := range c.Add {
		steps = append(steps, aclStep{entry: e, add: true})
	}
	// Stable: of one entry the last step counts, and those of Add come last.
	slices.SortStableFunc(steps, func(a, b aclStep) int { return acl.Compare(a.entry, b.entry) })
	entries, more := merged(next.acls, steps)
	if len(entries) > MaxACLs && len(entries) > len(next.acls) {
		return refuse(ErrLimit, "The cluster would have %d ACLs; it may have at most %d.", len(entries), MaxACLs)
	}
	next.acls = entries
	if next.aclBytes += more; more > 0 && next.aclBytes > MaxACLBytes {
		return refuse(ErrLimit, "All ACLs would take %d bytes; they may take at most %d.", next.aclBytes, MaxACLBytes)
	}
	return next.grow(more)
}

// An aclStep adds an entry or takes it out.
type aclStep struct {
	entry acl.Entry
	add   bool
}

// merged is old after sorted steps, and by how much the bound of what Encode writes for it
// grew. It costs one copy of old, and a search for each step; old itself if nothing changes.
func merged(old []acl.Entry, steps []aclStep) (entries []acl.Entry, more int) {
	at := 0 // in old: what is before it was copied or left out
	// copyTo takes over old entries. What the first of them costs depends on what is before it.
	copyTo := func(to int) {
		if to == at {
			return
		}
		if at > 0 || len(entries) > 0 {
			more += entrySize(last(entries), &old[at]) - entrySize(last(old[:at]), &old[at])
		}
		entries = append(entries, old[at:to]...)
		at = to
	}
	changed := false
	for k, s := range steps {
		if k+1 < len(steps) && steps[k+1].entry == s.entry {
			continue
		}
		i, has := slices.BinarySearchFunc(old[at:], s.entry, acl.Compare)
		i += at
		if has == s.add {
			continue
		}
		if !changed {
			entries, changed = make([]acl.Entry, 0, len(old)+len(steps)-k), true
		}
		copyTo(i)
		if s.add {
			more += entrySize(last(entries), &s.entry)
			entries = append(entries, s.entry)
		} else {
			more -= entrySize(last(old[:i]), &old[i])
			at = i + 1
		}
	}
	if !changed {
		return old, 0
	}
	copyTo(len(old))
	if len(entries) == 0 {
		return nil, more
	}
	return entries, more
}

func last(entries []acl.Entry) *acl.Entry {
	if len(entries) == 0 {
		return nil
	}
	return &entries[len(entries)-1]
}

// entrySize bounds what Encode writes for e when before, which may be nil, is the one before it.
func entrySize(before, e *acl.Entry) int {
	switch {
	case before == nil || !sameHolder(before, e):
		return 24 + jsonLen(e.Principal) + jsonLen(e.Host) + jsonLen(e.Name)
	case before.Name != e.Name:
		return 8 + jsonLen(e.Name)
	}
	return 4
}

// sameHolder reports whether two entries are of one list in aclList.
func sameHolder(a, b *acl.Entry) bool {
	return a.Principal == b.Principal && a.Host == b.Host && a.Type == b.Type && a.Pattern == b.Pattern
}

// validEntry refuses entries that no list may hold (AclControlManager.validateNewAcl).
func validEntry(e *acl.Entry) error {
	switch {
	case e.Type < acl.Topic || e.Type > acl.User:
		return refuse(ErrInvalidACL, "Invalid resourceType %s", e.Type)
	case e.Pattern != acl.Literal && e.Pattern != acl.Prefixed:
		return refuse(ErrInvalidACL, "Invalid patternType %s", e.Pattern)
	case e.Operation < acl.All || e.Operation > acl.TwoPhaseCommit:
		return refuse(ErrInvalidACL, "Invalid operation %s", e.Operation)
	case e.Permission != acl.Deny && e.Permission != acl.Allow:
		return refuse(ErrInvalidACL, "Invalid permissionType %s", e.Permission)
	case e.Name == "":
		return refuse(ErrInvalidACL, "Resource name should not be empty")
	case !shown(e.Name, maxACLName):
		return refuse(ErrInvalidACL, "The resource name %q is not a text of at most %d bytes without control characters.", settings.Shown(e.Name), maxACLName)
	case strings.IndexByte(e.Principal, ':') < 1:
		return refuse(ErrInvalidACL, "Could not parse principal from `%s` (no colon is present separating the principal type from the principal name)", settings.Shown(e.Principal))
	case !shown(e.Principal, maxACLName):
		return refuse(ErrInvalidACL, "The principal %q is not a text of at most %d bytes without control characters.", settings.Shown(e.Principal), maxACLName)
	case e.Host == "" || !text(e.Host):
		return refuse(ErrInvalidACL, "The host %q is empty or not a text of at most %d bytes.", settings.Shown(e.Host), maxText)
	}
	return nil
}

// check looks at what entries mean: a release that knows more of it may allow more.
func (c AlterACLs) check(_, _ *Image) error {
	for i := range c.Add {
		if err := CheckACL(&c.Add[i]); err != nil {
			return err
		}
	}
	return nil
}

// CheckACL is what Check says of one entry that AlterACLs would add. Like Kafka it takes
// operations that the type of resources does not know, which allow nothing.
func CheckACL(e *acl.Entry) error {
	if err := validEntry(e); err != nil {
		return err
	}
	switch {
	case e.Type == acl.Cluster && e.Name != acl.ClusterName:
		return refuse(ErrInvalidACL, "The only valid name for the CLUSTER resource is %s", acl.ClusterName)
	case e.Host != acl.CanonicalHost(e.Host):
		return refuse(ErrInvalidACL, "The host %q must be written %q", settings.Shown(e.Host), acl.CanonicalHost(e.Host))
	}
	return nil
}

// MarshalJSON writes both lists as the image has them.
func (c AlterACLs) MarshalJSON() ([]byte, error) {
	return compact(alterACLsBody{c.Add, c.Remove}), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *AlterACLs) UnmarshalJSON(b []byte) error {
	var body alterACLsBody
	err := strict(b, &body)
	c.Add, c.Remove = body.Add, body.Remove
	return err
}

type alterACLsBody struct {
	Add    aclList `json:",omitempty"`
	Remove aclList `json:",omitempty"`
}

// An aclList is entries as written. Those in a row that are of one principal, host and type
// of resource and pattern are one array, and in it those of one name are one: it ends with
// numbers, each 4 times the operation and the permission. 100,000 entries take some 4 MB so.
// The order of [acl.Compare] and package acl's numbers are part of the format.
//
//	[[principal,host,type,pattern,[name,number,…],…],…]
type aclList []acl.Entry

// MarshalJSON appends by itself: reflection would take many times as long.
func (l aclList) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i := range l {
		e := &l[i]
		before := last(l[:i])
		switch {
		case before == nil || !sameHolder(before, e):
			if before != nil {
				b = append(b, "]],"...)
			}
			b = append(b, '[')
			b = appendString(b, e.Principal)
			b = append(b, ',')
			b = appendString(b, e.Host)
			b = append(b, ',')
			b = strconv.AppendInt(b, int64(e.Type), 10)
			b = append(b, ',')
			b = strconv.AppendInt(b, int64(e.Pattern), 10)
			b = append(b, ",["...)
			b = appendString(b, e.Name)
		case before.Name != e.Name:
			b = append(b, "],["...)
			b = appendString(b, e.Name)
		}
		b = append(b, ',')
		b = strconv.AppendInt(b, int64(e.Operation)*4+int64(e.Permission), 10)
	}
	if len(l) > 0 {
		b = append(b, "]]"...)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (l *aclList) UnmarshalJSON(b []byte) error {
	var lists [][]json.RawMessage
	if err := json.Unmarshal(b, &lists); err != nil {
		return err
	}
	for _, list := range lists {
		if len(list) < 5 {
			return fmt.Errorf("a list of ACLs has %d parts, must have 5 at least", len(list))
		}
		var e acl.Entry
		for i, into := range []any{&e.Principal, &e.Host, &e.Type, &e.Pattern} {
			if err := json.Unmarshal(list[i], into); err != nil {
				return err
			}
		}
		for _, named := range list[4:] {
			var parts []json.RawMessage
			if err := json.Unmarshal(named, &parts); err != nil {
				return err
			}
			if len(parts) < 2 {
				return fmt.Errorf("ACLs of a name have %d parts, must have 2 at least", len(parts))
			}
			e.Name = ""
			if err := json.Unmarshal(parts[0], &e.Name); err != nil {
				return err
			}
			for _, part := range parts[1:] {
				var n int16
				if err := json.Unmarshal(part, &n); err != nil {
					return err
				}
				if n < 0 || n > 4*127 {
					return fmt.Errorf("%d is no operation and permission", n)
				}
				e.Operation, e.Permission = acl.Operation(n/4), acl.Permission(n%4)
				*l = append(*l, e)
			}
		}
	}
	return nil
}

// appendString appends s as JSON.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return append(b, compact(s)...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
