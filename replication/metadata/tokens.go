package metadata

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"millrace/replication/metadata/settings"
)

// A DelegationToken lets who has it act as its owner until it expires (KIP-48). Times are
// milliseconds since 1970.
type DelegationToken struct {
	ID        string
	Owner     string // a principal, "User:alice"
	Requester string // who asked for it, the owner or another principal
	Renewers  []string
	Issued    int64
	Expires   int64 // it ends then, if it is not renewed before
	Ends      int64 // it cannot be renewed beyond
	HMAC      []byte
}

// PutDelegationToken adds a token, and forgets those that had expired when it was issued; or it
// moves the time at which one expires.
//
// Errors: ErrNoCluster, ErrLevel, ErrInvalidToken, ErrUnknownToken, ErrLimit.
type PutDelegationToken struct {
	Token  DelegationToken
	Renews bool `json:",omitempty"` // the token is there, and is this one but for Expires
}

// RemoveDelegationToken forgets a token.
//
// Errors: ErrNoCluster, ErrLevel, ErrUnknownToken.
type RemoveDelegationToken struct {
	ID string
}

func (PutDelegationToken) kind() string    { return "PutDelegationToken" }
func (RemoveDelegationToken) kind() string { return "RemoveDelegationToken" }

func (PutDelegationToken) level() int32    { return 4 }
func (RemoveDelegationToken) level() int32 { return 4 }

func (PutDelegationToken) check(_, _ *Image) error    { return nil }
func (RemoveDelegationToken) check(_, _ *Image) error { return nil }

func (c PutDelegationToken) apply(next *Image) error {
	if err := next.needsLevel4("delegation tokens"); err != nil {
		return err
	}
	t := c.Token.clone()
	if err := validDelegation(t); err != nil {
		return err
	}
	i, known := next.delegation(t.ID)
	switch {
	case c.Renews && !known:
		return unknownToken(t.ID)
	case c.Renews:
		was := *next.delegations[i]
		if was.Expires = t.Expires; !was.equal(t) {
			return refuse(ErrInvalidToken, "delegation token %s has another owner, other renewers or times than the one there is", settings.Shown(t.ID))
		}
		next.delegations = replaced(next.delegations, i, t)
		return nil
	case known:
		return refuse(ErrInvalidToken, "there is a delegation token %s already", settings.Shown(t.ID))
	}
	if err := keepDelegations(next, func(o *DelegationToken) bool { return o.Expires > t.Issued }); err != nil {
		return err
	}
	if len(next.delegations) >= MaxDelegationTokens {
		return refuse(ErrLimit, "There are %d delegation tokens, the most there may be", MaxDelegationTokens)
	}
	i, _ = next.delegation(t.ID)
	next.delegations = inserted(next.delegations, i, t)
	if next.delegationBytes += t.size(); next.delegationBytes > MaxDelegationTokenBytes {
		return refuse(ErrLimit, "All delegation tokens would take %d bytes; they may take at most %d.", next.delegationBytes, MaxDelegationTokenBytes)
	}
	return next.grow(t.size())
}

// keepDelegations forgets the tokens of which keep is not true.
func keepDelegations(m *Image, keep func(*DelegationToken) bool) error {
	var kept []*DelegationToken
	gone := 0
	for _, t := range m.delegations {
		if keep(t) {
			kept = append(kept, t)
		} else {
			gone += t.size()
		}
	}
	if gone == 0 {
		return nil
	}
	m.delegations = kept
	m.delegationBytes -= gone
	return m.grow(-gone)
}

func (c RemoveDelegationToken) apply(next *Image) error {
	if err := next.needsLevel4("delegation tokens"); err != nil {
		return err
	}
	i, ok := next.delegation(c.ID)
	if !ok {
		return unknownToken(c.ID)
	}
	size := next.delegations[i].size()
	next.delegations = removed(next.delegations, i)
	next.delegationBytes -= size
	return next.grow(-size)
}

func unknownToken(id string) error {
	return refuse(ErrUnknownToken, "There is no token %s.", settings.Shown(id))
}

func validDelegation(t *DelegationToken) error {
	if t.ID == "" || len(t.ID) > maxTokenID || !text(t.ID) {
		return refuse(ErrInvalidToken, "the id of a token is a text of 1 to %d bytes", maxTokenID)
	}
	for _, p := range append([]string{t.Owner, t.Requester}, t.Renewers...) {
		if strings.IndexByte(p, ':') < 1 || !shown(p, maxACLName) {
			return refuse(ErrInvalidToken, "delegation token %s: %q is no principal", settings.Shown(t.ID), settings.Shown(p))
		}
	}
	switch {
	case len(t.Renewers) > maxRenewers:
		return refuse(ErrInvalidToken, "delegation token %s has %d renewers; it may have at most %d", settings.Shown(t.ID), len(t.Renewers), maxRenewers)
	case len(t.HMAC) == 0 || len(t.HMAC) > maxHash:
		return refuse(ErrInvalidToken, "delegation token %s: its HMAC has %d bytes, not 1 to %d", settings.Shown(t.ID), len(t.HMAC), maxHash)
	case t.Issued < 0 || t.Expires < t.Issued || t.Ends < t.Expires:
		return refuse(ErrInvalidToken, "delegation token %s is issued at %d, expires at %d and ends at %d", settings.Shown(t.ID), t.Issued, t.Expires, t.Ends)
	}
	return nil
}

func (t DelegationToken) clone() *DelegationToken {
	t.Renewers, t.HMAC = slices.Clone(t.Renewers), slices.Clone(t.HMAC)
	if len(t.Renewers) == 0 {
		t.Renewers = nil
	}
	return &t
}

func (t *DelegationToken) equal(o *DelegationToken) bool {
	return t.ID == o.ID && t.Owner == o.Owner && t.Requester == o.Requester && slices.Equal(t.Renewers, o.Renewers) &&
		t.Issued == o.Issued && t.Expires == o.Expires && t.Ends == o.Ends && slices.Equal(t.HMAC, o.HMAC)
}

// size bounds what Encode writes for a token.
func (t *DelegationToken) size() int {
	size := 80 + jsonLen(t.ID) + jsonLen(t.Owner) + jsonLen(t.Requester) + base64Len(t.HMAC)
	for _, r := range t.Renewers {
		size += 1 + jsonLen(r)
	}
	return size
}

// DelegationTokens lists the delegation tokens by id.
func (m *access) DelegationTokens() []*DelegationToken { return m.delegations }

// DelegationToken finds a delegation token.
func (m *access) DelegationToken(id string) (*DelegationToken, bool) {
	i, ok := m.delegation(id)
	if !ok {
		return nil, false
	}
	return m.delegations[i], true
}

// SameDelegationTokens is to delegation tokens what SameUsers is to users.
func (m *access) SameDelegationTokens(before *Image) bool {
	return same(m.delegations, before.delegations)
}

func (m *access) delegation(id string) (int, bool) {
	return slices.BinarySearchFunc(m.delegations, id, func(t *DelegationToken, id string) int { return cmp.Compare(t.ID, id) })
}

// As written: [id,owner,requester,[renewer,…],issued,expires,ends,hmac].
type delegationBody DelegationToken

// MarshalJSON writes an array.
func (t delegationBody) MarshalJSON() ([]byte, error) {
	renewers := t.Renewers
	if renewers == nil {
		renewers = []string{}
	}
	return compact([]any{t.ID, t.Owner, t.Requester, renewers, t.Issued, t.Expires, t.Ends, t.HMAC}), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *delegationBody) UnmarshalJSON(b []byte) error {
	err := array(b, "a delegation token", &t.ID, &t.Owner, &t.Requester, &t.Renewers, &t.Issued, &t.Expires, &t.Ends, &t.HMAC)
	if len(t.Renewers) == 0 {
		t.Renewers = nil
	}
	return err
}

// array reads a JSON array of exactly these parts.
func array(b []byte, what string, into ...any) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) != len(into) {
		return fmt.Errorf("%s has %d parts, must have %d", what, len(parts), len(into))
	}
	for i := range into {
		if err := json.Unmarshal(parts[i], into[i]); err != nil {
			return err
		}
	}
	return nil
}
