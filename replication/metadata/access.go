package metadata

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"millrace/security/acl"
)

// access is what an image knows since feature level 4 of who may come and what they may
// do. Its tables are sorted, are never written to, and are the same memory in two images
// if nothing changed between them: see SameUsers and those beside it.
type access struct {
	users  []*User     // by name
	acls   []acl.Entry // by acl.Compare
	quotas []*Quota    // by entity

	authorities []Authority // newest first
	secret      Secret
	joins       []JoinToken        // by id
	delegations []*DelegationToken // by id

	// How many bytes of Image.size are theirs.
	userBytes, aclBytes, quotaBytes, delegationBytes int
}

// same reports whether two tables are one. Tables of images that came of each other are, or
// something is different; those of images that were decoded never are, but empty ones.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Users lists the users by name.
func (m *access) Users() []*User { return m.users }

// User finds a user.
func (m *access) User(name string) (*User, bool) {
	i, ok := m.user(name)
	if !ok {
		return nil, false
	}
	return m.users[i], true
}

// SameUsers reports whether no step from before to m touched a user. It compares two
// pointers, and says no of an image that was decoded unless both have none.
func (m *access) SameUsers(before *Image) bool { return same(m.users, before.users) }

// ACLs lists the entries that say who may do what, sorted by [acl.Compare].
func (m *access) ACLs() []acl.Entry { return m.acls }

// SameACLs is to ACLs what SameUsers is to users.
func (m *access) SameACLs(before *Image) bool { return same(m.acls, before.acls) }

// Quotas lists the quotas by entity.
func (m *access) Quotas() []*Quota { return m.quotas }

// SameQuotas is to quotas what SameUsers is to users.
func (m *access) SameQuotas(before *Image) bool { return same(m.quotas, before.quotas) }

func (m *access) user(name string) (int, bool) {
	return slices.BinarySearchFunc(m.users, name, func(u *User, name string) int { return cmp.Compare(u.Name, name) })
}

// needsLevel4 refuses what belongs to feature level 4 where the cluster is not there yet.
func (m *Image) needsLevel4(what string) error {
	switch {
	case m.ClusterID == "":
		return refuse(ErrNoCluster, "there is no cluster yet that could have %s", what)
	case m.level < 4:
		return refuse(ErrLevel, "%s need feature level 4, and the cluster is at %d until all its brokers are upgraded", what, m.level)
	}
	return nil
}

// shown reports whether s can be kept and shown: UTF-8 of at most so many bytes, without control characters.
func shown(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
