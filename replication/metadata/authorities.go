package metadata

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"slices"

	"millrace/replication/metadata/settings"
)

// An Authority is one of the cluster's own: what it signs is trusted by the cluster's
// nodes. Both are PEM. Whoever has the image can sign.
type Authority struct {
	Certificate string
	Key         string
}

// A Secret is what the nodes of a cluster know and nobody else does: 32 bytes in base64, which
// outlive the authorities.
type Secret string

const secretBytes = 32

// NewSecret makes one at random.
func NewSecret() Secret {
	p := make([]byte, secretBytes)
	rand.Read(p) // never fails
	return Secret(base64.StdEncoding.EncodeToString(p))
}

// A JoinToken lets nodes join that know its secret.
type JoinToken struct {
	ID      string
	Hash    []byte   // of the secret
	Expires int64    // unix milliseconds
	Uses    int32    // left
	By      []string `json:",omitempty"` // incarnations that used it: once for each, however often it asks
}

// SetAuthorities gives the cluster its authorities, the newest first. A node signs with the
// first, and trusts what any of them signed.
//
// Errors: ErrNoCluster, ErrLevel, ErrInvalidAuthority, ErrConfigChanged.
type SetAuthorities struct {
	Authorities []Authority
	// Secret becomes the cluster's if it has none yet.
	Secret Secret `json:",omitempty"`
	Judged uint64 `json:",omitempty"` // the Index of the image that it was judged by; 0: any
}

// PutJoinToken adds a token, and forgets those that have expired.
//
// Errors: ErrNoCluster, ErrLevel, ErrInvalidToken, ErrLimit.
type PutJoinToken struct {
	Token JoinToken
	At    int64 // unix milliseconds: the time it is judged by
}

// UseJoinToken uses a token once. It is for the caller to compare the secret.
//
// Errors: ErrNoCluster, ErrLevel, ErrUnknownToken, ErrTokenSpent.
type UseJoinToken struct {
	ID string
	At int64
	// By, if not empty, is the incarnation that joins: it may ask again, for an answer that
	// was lost, without another use.
	By string `json:",omitempty"`
}

// RemoveJoinToken forgets a token.
//
// Errors: ErrNoCluster, ErrLevel, ErrUnknownToken.
type RemoveJoinToken struct {
	ID string
}

func (SetAuthorities) kind() string  { return "SetAuthorities" }
func (PutJoinToken) kind() string    { return "PutJoinToken" }
func (UseJoinToken) kind() string    { return "UseJoinToken" }
func (RemoveJoinToken) kind() string { return "RemoveJoinToken" }

func (SetAuthorities) level() int32  { return 4 }
func (PutJoinToken) level() int32    { return 4 }
func (UseJoinToken) level() int32    { return 4 }
func (RemoveJoinToken) level() int32 { return 4 }

func (PutJoinToken) check(_, _ *Image) error    { return nil }
func (UseJoinToken) check(_, _ *Image) error    { return nil }
func (RemoveJoinToken) check(_, _ *Image) error { return nil }

// check looks into the PEM no further than to see that each is what it is called.
func (c SetAuthorities) check(_, _ *Image) error {
	for i, a := range c.Authorities {
		certificate, rest := pem.Decode([]byte(a.Certificate))
		if certificate == nil || certificate.Type != "CERTIFICATE" || len(rest) > 0 {
			return refuse(ErrInvalidAuthority, "the certificate of authority %d is not one of PEM", i+1)
		}
		if key, rest := pem.Decode([]byte(a.Key)); key == nil || key.Type != "PRIVATE KEY" || len(rest) > 0 {
			return refuse(ErrInvalidAuthority, "the key of authority %d is not one of PEM", i+1)
		}
	}
	return nil
}

func (c SetAuthorities) apply(next *Image) error {
	if err := next.needsLevel4("authorities"); err != nil {
		return err
	}
	if c.Judged != 0 && c.Judged != next.Index {
		return refuse(ErrConfigChanged, "the authorities were judged by the image at change %d, and it is at %d now", c.Judged, next.Index)
	}
	if err := validAuthorities(c.Authorities); err != nil {
		return err
	}
	if err := validSecret(c.Secret); err != nil {
		return err
	}
	more := 0
	if next.secret == "" {
		next.secret = c.Secret
		more += len(c.Secret)
	}
	if !slices.Equal(next.authorities, c.Authorities) {
		more += authoritiesSize(c.Authorities) - authoritiesSize(next.authorities)
		next.authorities = slices.Clone(c.Authorities)
	}
	if more == 0 {
		return nil
	}
	return next.grow(more)
}

func validSecret(s Secret) error {
	if p, err := base64.StdEncoding.Strict().DecodeString(string(s)); s != "" && (err != nil || len(p) != secretBytes) {
		return refuse(ErrInvalidAuthority, "the secret of a cluster is %d bytes in base64", secretBytes)
	}
	return nil
}

// validAuthorities refuses none at all: a cluster that has had one would be without.
func validAuthorities(all []Authority) error {
	if len(all) == 0 || len(all) > MaxAuthorities {
		return refuse(ErrInvalidAuthority, "a cluster has 1 to %d authorities, not %d", MaxAuthorities, len(all))
	}
	for i, a := range all {
		for _, p := range []string{a.Certificate, a.Key} {
			if p == "" || len(p) > maxPEM || !isASCII(p) {
				return refuse(ErrInvalidAuthority, "authority %d is not PEM of at most %d bytes", i+1, maxPEM)
			}
		}
		if slices.Contains(all[:i], a) {
			return refuse(ErrInvalidAuthority, "authority %d is there twice", i+1)
		}
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] > 0x7e {
			return false
		}
	}
	return true
}

func authoritiesSize(all []Authority) (size int) {
	for _, a := range all {
		size += 40 + jsonLen(a.Certificate) + jsonLen(a.Key)
	}
	return size
}

func (c PutJoinToken) apply(next *Image) error {
	if err := next.needsLevel4("join tokens"); err != nil {
		return err
	}
	t := c.Token
	t.Hash, t.By = slices.Clone(t.Hash), nil
	if len(c.Token.By) > 0 {
		return refuse(ErrInvalidToken, "join token %s is new, and was used", settings.Shown(t.ID))
	}
	if err := validJoin(&t); err != nil {
		return err
	}
	if t.Uses == 0 || t.Expires <= c.At {
		return refuse(ErrInvalidToken, "join token %s would have expired, or have no uses", settings.Shown(t.ID))
	}
	var kept []JoinToken
	more := t.size()
	for _, o := range next.joins {
		switch {
		case o.ID == t.ID:
			return refuse(ErrInvalidToken, "there is a join token %s already", settings.Shown(t.ID))
		case o.Expires <= c.At:
			more -= o.size()
		default:
			kept = append(kept, o)
		}
	}
	if len(kept) >= MaxJoinTokens {
		return refuse(ErrLimit, "There are %d join tokens that have not expired, the most there may be", MaxJoinTokens)
	}
	i, _ := joinAt(kept, t.ID)
	next.joins = slices.Insert(kept, i, t)
	return next.grow(more)
}

func (c UseJoinToken) apply(next *Image) error {
	if err := next.needsLevel4("join tokens"); err != nil {
		return err
	}
	i, ok := joinAt(next.joins, c.ID)
	if !ok {
		return unknownToken(c.ID)
	}
	t := next.joins[i]
	switch {
	case t.Expires <= c.At:
		return refuse(ErrTokenSpent, "join token %s has expired; make another with millrace cluster token", settings.Shown(c.ID))
	case c.By != "" && slices.Contains(t.By, c.By):
		return nil
	case t.Uses == 0:
		return refuse(ErrTokenSpent, "join token %s was used as often as it may be; make another with millrace cluster token", settings.Shown(c.ID))
	case len(c.By) > maxIncarnation || !text(c.By):
		return refuse(ErrInvalidToken, "incarnation %q is too long or no text", settings.Shown(c.By))
	}
	before := t.size()
	t.Uses--
	if c.By != "" {
		t.By = inserted(t.By, len(t.By), c.By)
	}
	next.joins = replaced(next.joins, i, t)
	return next.grow(t.size() - before)
}

func (c RemoveJoinToken) apply(next *Image) error {
	if err := next.needsLevel4("join tokens"); err != nil {
		return err
	}
	i, ok := joinAt(next.joins, c.ID)
	if !ok {
		return unknownToken(c.ID)
	}
	size := next.joins[i].size()
	next.joins = removed(next.joins, i)
	return next.grow(-size)
}

func validJoin(t *JoinToken) error {
	switch {
	case t.ID == "" || len(t.ID) > maxTokenID || !text(t.ID):
		return refuse(ErrInvalidToken, "the id of a token is a text of 1 to %d bytes", maxTokenID)
	case len(t.Hash) == 0 || len(t.Hash) > maxHash:
		return refuse(ErrInvalidToken, "join token %s: the hash of its secret has %d bytes, not 1 to %d", settings.Shown(t.ID), len(t.Hash), maxHash)
	case t.Expires < 1 || t.Uses < 0 || int(t.Uses)+len(t.By) > MaxBrokers:
		return refuse(ErrInvalidToken, "join token %s expires at %d and has %d uses; it may have %d", settings.Shown(t.ID), t.Expires, t.Uses, MaxBrokers)
	}
	for i, by := range t.By {
		if by == "" || len(by) > maxIncarnation || !text(by) || slices.Contains(t.By[:i], by) {
			return refuse(ErrInvalidToken, "join token %s was used by %q", settings.Shown(t.ID), settings.Shown(by))
		}
	}
	return nil
}

// size bounds what Encode writes for a token.
func (t *JoinToken) size() int {
	size := 80 + jsonLen(t.ID) + base64Len(t.Hash)
	for _, by := range t.By {
		size += 1 + jsonLen(by)
	}
	return size
}

func joinAt(all []JoinToken, id string) (int, bool) {
	return slices.BinarySearchFunc(all, id, func(t JoinToken, id string) int { return cmp.Compare(t.ID, id) })
}

// Authorities lists the cluster's authorities, the newest first.
func (m *access) Authorities() []Authority { return m.authorities }

// SameAuthorities is to authorities what SameUsers is to users.
func (m *access) SameAuthorities(before *Image) bool { return same(m.authorities, before.authorities) }

// Secret returns what SetAuthorities gave the cluster with its first authorities; empty if
// there have been none yet.
func (m *access) Secret() Secret { return m.secret }

// JoinTokens lists the join tokens by id, among them such as have expired or were used up.
func (m *access) JoinTokens() []JoinToken { return m.joins }

// JoinToken finds a join token.
func (m *access) JoinToken(id string) (JoinToken, bool) {
	i, ok := joinAt(m.joins, id)
	if !ok {
		return JoinToken{}, false
	}
	return m.joins[i], true
}

type authorityBody struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

type joinBody struct {
	ID      string   `json:"id"`
	Hash    []byte   `json:"hash"`
	Expires int64    `json:"expires"`
	Uses    int32    `json:"uses,omitempty"`
	By      []string `json:"by,omitempty"`
}
