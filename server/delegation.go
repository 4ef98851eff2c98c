package server

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/security/sasl"
	"millrace/server/protocol"
)

// hmacBytes is the size of what proves a delegation token, Kafka's.
const hmacBytes = 64

// userType is the one type of principals that have delegation tokens.
const userType = "User"

// Delegation implements sasl.Delegations. No verifier is kept of a token: it is made for each
// log-in, and of a token that is not there or has expired as well.
func (u users) Delegation(id string, m sasl.Mechanism) (sasl.Delegation, bool) {
	image := u.node.Image()
	t, known := image.DelegationToken(id)
	secret := append(secretOf(image, "token 0", id), secretOf(image, "token 1", id)...)
	if known = known && time.Now().UnixMilli() < t.Expires; known {
		secret = t.HMAC
	}
	d := sasl.Delegation{Verifier: sasl.DelegationOf(m, secret, secretOf(image, "salt of token, "+string(m), id))}
	if known {
		d.Owner, d.Until = strings.TrimPrefix(t.Owner, userType+":"), time.UnixMilli(t.Expires)
	}
	return d, known
}

// mayHandleTokens reports whether who asks may ask for anything about delegation tokens: it
// has shown who it is, and not by such a token.
func (c *call) mayHandleTokens() bool {
	return c.conn.principal != acl.Anonymous && !c.conn.login.delegated
}

// principal splits a principal's type from its name.
func principal(p string) (kind, name string) {
	kind, name, _ = strings.Cut(p, ":")
	return kind, name
}

// CreateDelegationToken, versions 1–3 (KIP-48, KIP-373).
//
//   - DELEGATION_TOKEN_REQUEST_NOT_ALLOWED to who has not logged in, or has by such a token.
//   - The token is of who asks, or of the owner that is named, for whom one needs CreateTokens;
//     without it DELEGATION_TOKEN_AUTHORIZATION_FAILED.
//   - INVALID_PRINCIPAL_TYPE of an owner or a renewer that is no user. Kafka does not say so of
//     an owner, and lets who has the token act as the user of that name.
//   - It holds for delegation.token.expiry.time.ms, and with renewals for as long as is asked
//     for, delegation.token.max.lifetime.ms at most.
//
// v2 is flexible; v3 has the owner.
func (h *security) createDelegationToken(c *call, req *kmsg.CreateDelegationTokenRequest) *kmsg.CreateDelegationTokenResponse {
	resp := kmsg.NewPtrCreateDelegationTokenResponse()
	resp.TokenRequesterPrincipalType, resp.TokenRequesterPrincipalName = principal(c.conn.principal)
	resp.PrincipalType, resp.PrincipalName = resp.TokenRequesterPrincipalType, resp.TokenRequesterPrincipalName
	if req.OwnerPrincipalName != nil && *req.OwnerPrincipalName != "" {
		resp.PrincipalName, resp.PrincipalType = *req.OwnerPrincipalName, ""
		if req.OwnerPrincipalType != nil {
			resp.PrincipalType = *req.OwnerPrincipalType
		}
	}
	resp.IssueTimestamp, resp.ExpiryTimestamp, resp.MaxTimestamp, resp.HMAC = -1, -1, -1, []byte{}
	refuse := func(code protocol.Code) *kmsg.CreateDelegationTokenResponse {
		resp.ErrorCode = int16(code)
		return resp
	}
	owner := resp.PrincipalType + ":" + resp.PrincipalName
	if !c.mayHandleTokens() {
		return refuse(protocol.DelegationTokenRequestNotAllowed)
	}
	if owner != c.conn.principal && !c.may(acl.User, owner) {
		return refuse(protocol.DelegationTokenAuthorizationFailed)
	}
	token := metadata.DelegationToken{ID: rand.Text(), Owner: owner, Requester: c.conn.principal, Issued: time.Now().UnixMilli(), HMAC: make([]byte, hmacBytes)}
	rand.Read(token.HMAC) // never fails
	for _, r := range req.Renewers {
		c.step()
		if r.PrincipalType != userType {
			return refuse(protocol.InvalidPrincipalType)
		}
		if renewer := r.PrincipalType + ":" + r.PrincipalName; !slices.Contains(token.Renewers, renewer) {
			token.Renewers = append(token.Renewers, renewer)
		}
	}
	if resp.PrincipalType != userType {
		return refuse(protocol.InvalidPrincipalType)
	}
	login := h.settings().broker.Login
	token.Ends = after(token.Issued, shorter(login.MaxDelegationMillis, req.MaxLifetimeMillis))
	token.Expires = min(token.Ends, after(token.Issued, login.DelegationMillis))
	if err := h.changeTokens(c.ctx, metadata.PutDelegationToken{Token: token}); err != nil {
		return refuse(tokenCodeOf(err))
	}
	resp.IssueTimestamp, resp.ExpiryTimestamp, resp.MaxTimestamp = token.Issued, token.Expires, token.Ends
	resp.TokenID, resp.HMAC = token.ID, token.HMAC
	return resp
}

// shorter is the time that is asked for if that is less than the most there is; 0 or less asks
// for the most.
func shorter(most, asked int64) int64 {
	if asked > 0 {
		return min(most, asked)
	}
	return most
}

// after is a time so many milliseconds later.
func after(at, millis int64) int64 {
	if at > math.MaxInt64-millis {
		return math.MaxInt64
	}
	return at + millis
}

// changeTokens commits a change of a token.
func (h *security) changeTokens(ctx context.Context, change metadata.Change) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return h.node.Change(ctx, change)
}

func tokenCodeOf(err error) protocol.Code {
	switch {
	case errors.Is(err, metadata.ErrUnknownToken):
		return protocol.DelegationTokenNotFound
	case errors.Is(err, metadata.ErrInvalidToken):
		return protocol.InvalidRequest
	}
	return adminCodeOf(err)
}

// heldToken finds the token that a request proves to have and who asks may renew. What has
// expired may be wanted no more, whoever asks.
func (h *security) heldToken(c *call, proof []byte, expired bool) (*metadata.DelegationToken, protocol.Code) {
	if !c.mayHandleTokens() {
		return nil, protocol.DelegationTokenRequestNotAllowed
	}
	var found *metadata.DelegationToken
	for _, t := range h.node.Image().DelegationTokens() {
		c.step()
		if hmac.Equal(t.HMAC, proof) {
			found = t
		}
	}
	switch {
	case found == nil:
		return nil, protocol.DelegationTokenNotFound
	case !expired && found.Expires <= time.Now().UnixMilli():
		return nil, protocol.DelegationTokenExpired
	case !ownsOrRenews(found, c.conn.principal):
		return nil, protocol.DelegationTokenOwnerMismatch
	}
	return found, protocol.None
}

func ownsOrRenews(t *metadata.DelegationToken, principal string) bool {
	return t.Owner == principal || slices.Contains(t.Renewers, principal)
}

// RenewDelegationToken, versions 1–2 (KIP-48).
//
//   - DELEGATION_TOKEN_NOT_FOUND of an HMAC that is no token's, and DELEGATION_TOKEN_OWNER_MISMATCH
//     to who neither owns nor may renew it; DELEGATION_TOKEN_EXPIRED once that is so.
//   - It holds for as long as is asked for, delegation.token.expiry.time.ms at most, and not
//     beyond its end.
//
// v2 is flexible.
func (h *security) renewDelegationToken(c *call, req *kmsg.RenewDelegationTokenRequest) *kmsg.RenewDelegationTokenResponse {
	resp := kmsg.NewPtrRenewDelegationTokenResponse()
	code, until := h.moveExpiry(c, req.HMAC, shorter(h.settings().broker.Login.DelegationMillis, req.RenewTimeMillis))
	resp.ErrorCode, resp.ExpiryTimestamp = int16(code), until
	return resp
}

// moveExpiry has a token that a request proves to have expire so many milliseconds from now.
func (h *security) moveExpiry(c *call, proof []byte, millis int64) (code protocol.Code, until int64) {
	held, code := h.heldToken(c, proof, false)
	if code != protocol.None {
		return code, -1
	}
	next := *held
	next.Expires = min(held.Ends, after(time.Now().UnixMilli(), millis))
	if err := h.changeTokens(c.ctx, metadata.PutDelegationToken{Token: next, Renews: true}); err != nil {
		return tokenCodeOf(err), -1
	}
	return protocol.None, next.Expires
}

// ExpireDelegationToken, versions 1–2 (KIP-48).
//
//   - As RenewDelegationToken; a negative period ends the token at once, also one that has
//     expired.
//   - Who has logged in by one that ends at once is closed with its next request. Of another time
//     it learns with its next log-in.
//
// v2 is flexible.
func (h *security) expireDelegationToken(c *call, req *kmsg.ExpireDelegationTokenRequest) *kmsg.ExpireDelegationTokenResponse {
	resp := kmsg.NewPtrExpireDelegationTokenResponse()
	if req.ExpiryPeriodMillis >= 0 {
		code, until := h.moveExpiry(c, req.HMAC, req.ExpiryPeriodMillis)
		resp.ErrorCode, resp.ExpiryTimestamp = int16(code), until
		return resp
	}
	resp.ExpiryTimestamp = -1
	held, code := h.heldToken(c, req.HMAC, true)
	if code == protocol.None {
		code = tokenCodeOf(h.changeTokens(c.ctx, metadata.RemoveDelegationToken{ID: held.ID}))
	}
	if resp.ErrorCode = int16(code); code == protocol.None {
		resp.ExpiryTimestamp = time.Now().UnixMilli()
	}
	return resp
}

// DescribeDelegationToken, versions 1–3 (KIP-48, KIP-373).
//
//   - Tokens that one owns or may renew, and those that one may describe, or whose owners' tokens.
//     Of those the ones that an owner who is named owns or may renew; with an empty list none.
//   - Those that have expired are left out.
//
// v2 is flexible; v3 has who asked for each.
func (h *security) describeDelegationToken(c *call, req *kmsg.DescribeDelegationTokenRequest) *kmsg.DescribeDelegationTokenResponse {
	resp := kmsg.NewPtrDescribeDelegationTokenResponse()
	resp.TokenDetails = []kmsg.DescribeDelegationTokenResponseTokenDetail{}
	if !c.mayHandleTokens() {
		resp.ErrorCode = int16(protocol.DelegationTokenRequestNotAllowed)
		return resp
	}
	now := time.Now().UnixMilli()
	for _, t := range h.node.Image().DelegationTokens() {
		c.step()
		wanted := req.Owners == nil || slices.ContainsFunc(req.Owners, func(o kmsg.DescribeDelegationTokenRequestOwner) bool {
			return ownsOrRenews(t, o.PrincipalType+":"+o.PrincipalName)
		})
		if !wanted || t.Expires <= now {
			continue
		}
		if !ownsOrRenews(t, c.conn.principal) && !c.sees(acl.DelegationToken, t.ID) && !c.sees(acl.User, t.Owner) {
			continue
		}
		d := kmsg.NewDescribeDelegationTokenResponseTokenDetail()
		d.PrincipalType, d.PrincipalName = principal(t.Owner)
		d.TokenRequesterPrincipalType, d.TokenRequesterPrincipalName = principal(t.Requester)
		d.IssueTimestamp, d.ExpiryTimestamp, d.MaxTimestamp = t.Issued, t.Expires, t.Ends
		d.TokenID, d.HMAC = t.ID, t.HMAC
		d.Renewers = []kmsg.DescribeDelegationTokenResponseTokenDetailRenewer{}
		for _, renewer := range t.Renewers {
			kind, name := principal(renewer)
			d.Renewers = append(d.Renewers, kmsg.DescribeDelegationTokenResponseTokenDetailRenewer{PrincipalType: kind, PrincipalName: name})
		}
		if !c.fits(&d) {
			resp.ErrorCode, resp.TokenDetails = int16(protocol.PolicyViolation), []kmsg.DescribeDelegationTokenResponseTokenDetail{}
			return resp
		}
		resp.TokenDetails = append(resp.TokenDetails, d)
	}
	return resp
}
