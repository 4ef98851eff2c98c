package server

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/security/sasl"
	"millrace/server/protocol"
)

// holding is what a client logs in by that has a delegation token.
func holding(id string, hmac []byte, m sasl.Mechanism) kgo.Opt {
	auth := scram.Auth{User: id, Pass: base64.StdEncoding.EncodeToString(hmac), IsToken: true}
	if m == sasl.SCRAMSHA256 {
		return kgo.SASL(auth.AsSha256Mechanism())
	}
	return kgo.SASL(auth.AsSha512Mechanism())
}

// A tokenDesk asks for delegation tokens, as one user.
type tokenDesk struct {
	t  *testing.T
	cl *kgo.Client
}

func (d tokenDesk) create(lifetime time.Duration, owner string, renewers ...string) *kmsg.CreateDelegationTokenResponse {
	d.t.Helper()
	req := kmsg.NewPtrCreateDelegationTokenRequest()
	req.MaxLifetimeMillis = lifetime.Milliseconds()
	if kind, name, ok := strings.Cut(owner, ":"); ok {
		req.OwnerPrincipalType, req.OwnerPrincipalName = &kind, &name
	}
	for _, r := range renewers {
		kind, name, _ := strings.Cut(r, ":")
		req.Renewers = append(req.Renewers, kmsg.CreateDelegationTokenRequestRenewer{PrincipalType: kind, PrincipalName: name})
	}
	resp, err := req.RequestWith(testContext(d.t), d.cl)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp
}

func (d tokenDesk) renew(hmac []byte, by time.Duration) *kmsg.RenewDelegationTokenResponse {
	d.t.Helper()
	req := kmsg.NewPtrRenewDelegationTokenRequest()
	req.HMAC, req.RenewTimeMillis = hmac, by.Milliseconds()
	resp, err := req.RequestWith(testContext(d.t), d.cl)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp
}

func (d tokenDesk) expire(hmac []byte, in time.Duration) *kmsg.ExpireDelegationTokenResponse {
	d.t.Helper()
	req := kmsg.NewPtrExpireDelegationTokenRequest()
	req.HMAC, req.ExpiryPeriodMillis = hmac, in.Milliseconds()
	resp, err := req.RequestWith(testContext(d.t), d.cl)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp
}

// described are the ids of the tokens that a user is shown; of owners, if any are named.
func (d tokenDesk) described(owners ...string) map[string]kmsg.DescribeDelegationTokenResponseTokenDetail {
	d.t.Helper()
	req := kmsg.NewPtrDescribeDelegationTokenRequest()
	for _, o := range owners {
		req.Owners = append(req.Owners, kmsg.DescribeDelegationTokenRequestOwner{PrincipalType: "User", PrincipalName: o})
	}
	resp, err := req.RequestWith(testContext(d.t), d.cl)
	if err != nil || resp.ErrorCode != 0 {
		d.t.Fatalf("%+v, %v", resp, err)
	}
	all := make(map[string]kmsg.DescribeDelegationTokenResponseTokenDetail)
	for _, one := range resp.TokenDetails {
		all[one.TokenID] = one
	}
	return all
}

// guardedDesks is a broker whose admin may do everything, and where alice and bob may not.
func guardedDesks(t *testing.T) (b *testBroker, admin, alice, bob tokenDesk) {
	b = startBroker(t, impatient)
	desk := func(name string) tokenDesk {
		b.makeUser(name, "sesame", metadata.ScramSHA256, metadata.ScramSHA512)
		cl := b.client(as(sasl.SCRAMSHA512, name, "sesame"))
		t.Cleanup(cl.Close)
		return tokenDesk{t, cl}
	}
	return b, desk("admin"), desk("alice"), desk("bob")
}

// Who has a token is its owner until it ends, by both mechanisms, and can be given no other.
func TestATokenIsItsOwner(t *testing.T) {
	b, admin, alice, _ := guardedDesks(t)
	if _, err := kadm.NewClient(admin.cl).CreateTopic(testContext(t), 1, 1, nil, "jobs"); err != nil {
		t.Fatal(err)
	}
	entry := kadm.NewACLs().Allow("User:alice").AllowHosts("*").Topics("jobs").Operations(kadm.OpWrite).ResourcePatternType(kadm.ACLPatternLiteral)
	if _, err := kadm.NewClient(admin.cl).CreateACLs(testContext(t), entry); err != nil {
		t.Fatal(err)
	}
	made := alice.create(time.Hour, "")
	if made.ErrorCode != 0 || made.PrincipalName != "alice" || len(made.HMAC) != hmacBytes || made.MaxTimestamp != made.IssueTimestamp+time.Hour.Milliseconds() || made.ExpiryTimestamp != made.MaxTimestamp {
		t.Fatalf("%+v", made)
	}
	for _, m := range []sasl.Mechanism{sasl.SCRAMSHA256, sasl.SCRAMSHA512} {
		cl := b.client(holding(made.TokenID, made.HMAC, m))
		if err := cl.ProduceSync(testContext(t), &kgo.Record{Topic: "jobs", Value: []byte("x")}).FirstErr(); err != nil {
			t.Errorf("%s: %v", m, err)
		}
		if got := (tokenDesk{t, cl}).create(time.Hour, ""); got.ErrorCode != int16(protocol.DelegationTokenRequestNotAllowed) {
			t.Errorf("%s: who has a token makes another: %+v", m, got)
		}
		if got := (tokenDesk{t, cl}).renew(made.HMAC, time.Hour); got.ErrorCode != int16(protocol.DelegationTokenRequestNotAllowed) {
			t.Errorf("%s: who has a token renews it: %+v", m, got)
		}
		cl.Close()
	}
	// The id with another's password, and the password of the token without saying that it is one.
	for what, option := range map[string]kgo.Opt{
		"another secret":    holding(made.TokenID, make([]byte, hmacBytes), sasl.SCRAMSHA512),
		"no such token":     holding("nobody", made.HMAC, sasl.SCRAMSHA512),
		"a user's name":     holding("alice", []byte("sesame"), sasl.SCRAMSHA512),
		"no word of tokens": as(sasl.SCRAMSHA512, made.TokenID, base64.StdEncoding.EncodeToString(made.HMAC)),
		"PLAIN":             as(sasl.Plain, made.TokenID, base64.StdEncoding.EncodeToString(made.HMAC)),
	} {
		cl := b.client(option)
		if err := cl.Ping(testContext(t)); !errors.Is(err, kerr.SaslAuthenticationFailed) {
			t.Errorf("%s: %v", what, err)
		}
		cl.Close()
	}
	if got := alice.expire(made.HMAC, -time.Millisecond); got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	cl := b.client(holding(made.TokenID, made.HMAC, sasl.SCRAMSHA512))
	defer cl.Close()
	if err := cl.Ping(testContext(t)); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("a token that was ended: %v", err)
	}
}

// A log-in by a token holds as long as the token: it says so, and what comes later is closed, or
// once the token is gone.
func TestALoginEndsWithItsToken(t *testing.T) {
	b, _, alice, _ := guardedDesks(t)
	var made *kmsg.CreateDelegationTokenResponse
	enter := func(w *wire) *kmsg.SASLAuthenticateResponse {
		w.handshake(1, sasl.SCRAMSHA256)
		auth := scram.Auth{User: made.TokenID, Pass: base64.StdEncoding.EncodeToString(made.HMAC), IsToken: true}
		session, first, err := auth.AsSha256Mechanism().Authenticate(testContext(t), "")
		if err != nil {
			t.Fatal(err)
		}
		_, final, err := session.Challenge(w.authenticate(2, string(first)).SASLAuthBytes)
		if err != nil {
			t.Fatal(err)
		}
		return w.authenticate(2, string(final))
	}
	var w *wire
	for life := time.Second; ; life *= 2 { // a machine may take longer to log in than a token holds
		made, w = alice.create(life, ""), b.dial()
		got := enter(w)
		if got.ErrorCode == 0 && (got.SessionLifetimeMillis <= 0 || got.SessionLifetimeMillis > life.Milliseconds()) {
			t.Fatalf("%+v", got)
		}
		if got.ErrorCode == 0 && time.Now().Add(life/2).UnixMilli() < made.ExpiryTimestamp {
			break
		}
	}
	if got := ask[*kmsg.MetadataResponse](w, metadataRequest(9)); len(got.Brokers) != 1 {
		t.Errorf("%+v", got)
	}
	time.Sleep(time.Until(time.UnixMilli(made.ExpiryTimestamp)) + time.Millisecond) // a token's end is a time of day
	w.send(metadataRequest(9))
	w.closed()

	made = alice.create(time.Hour, "")
	w = b.dial()
	if got := enter(w); got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	if err := b.node.Change(testContext(t), metadata.RemoveDelegationToken{ID: made.TokenID}); err != nil {
		t.Fatal(err)
	}
	w.send(metadataRequest(9))
	w.closed()
}

// A token that has expired logs nobody in, is shown to nobody and cannot be renewed, and goes
// with the next one.
func TestExpiredTokensAreNone(t *testing.T) {
	b, _, alice, bob := guardedDesks(t)
	made := alice.create(time.Millisecond, "")
	for time.Now().UnixMilli() <= made.ExpiryTimestamp {
		time.Sleep(time.Millisecond)
	}
	cl := b.client(holding(made.TokenID, made.HMAC, sasl.SCRAMSHA256))
	defer cl.Close()
	if err := cl.Ping(testContext(t)); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("it logs in: %v", err)
	}
	if got := alice.described(); len(got) != 0 {
		t.Errorf("it is shown: %+v", got)
	}
	for name, d := range map[string]tokenDesk{"alice": alice, "bob": bob} {
		if got := d.renew(made.HMAC, time.Hour); got.ErrorCode != int16(protocol.DelegationTokenExpired) {
			t.Errorf("%s renews it: %+v", name, got)
		}
	}
	next := alice.create(time.Hour, "")
	if all := b.node.Image().DelegationTokens(); len(all) != 1 || all[0].ID != next.TokenID {
		t.Errorf("there are %v", all)
	}
}

// Owners and renewers renew and end tokens, and nobody else does; who may see whose tokens is
// a right.
func TestTokensAreTheirOwnersBusiness(t *testing.T) {
	b, admin, alice, bob := guardedDesks(t)
	const day = 24 * time.Hour
	made := alice.create(0, "", "User:carol")
	if got := made.MaxTimestamp - made.IssueTimestamp; got != (7 * day).Milliseconds() {
		t.Errorf("it can be renewed for %d ms", got)
	}
	if got := made.ExpiryTimestamp - made.IssueTimestamp; got != day.Milliseconds() {
		t.Errorf("it holds for %d ms", got)
	}
	refused := func(what string, got int16, want protocol.Code) {
		t.Helper()
		if got != int16(want) {
			t.Errorf("%s: error %d, want %d", what, got, want)
		}
	}
	refused("bob renews it", bob.renew(made.HMAC, time.Hour).ErrorCode, protocol.DelegationTokenOwnerMismatch)
	refused("bob ends it", bob.expire(made.HMAC, -1).ErrorCode, protocol.DelegationTokenOwnerMismatch)
	refused("a proof of nothing", alice.renew([]byte("x"), time.Hour).ErrorCode, protocol.DelegationTokenNotFound)
	refused("no proof", alice.expire(nil, -time.Millisecond).ErrorCode, protocol.DelegationTokenNotFound)
	refused("bob for alice", bob.create(0, "User:alice").ErrorCode, protocol.DelegationTokenAuthorizationFailed)
	refused("a renewer who is no user", alice.create(0, "", "Group:x").ErrorCode, protocol.InvalidPrincipalType)
	refused("an owner who is no user", admin.create(0, "Group:alice").ErrorCode, protocol.InvalidPrincipalType)
	if got := alice.renew(made.HMAC, 1000*day); got.ErrorCode != 0 || got.ExpiryTimestamp > time.Now().Add(day).UnixMilli() {
		t.Errorf("renewed for longer than there is: %+v", got)
	}
	if got := alice.expire(made.HMAC, 1000*day); got.ErrorCode != 0 || got.ExpiryTimestamp != made.MaxTimestamp {
		t.Errorf("to expire after its end: %+v", got)
	}

	bobs := admin.create(0, "User:bob", "User:alice", "User:alice")
	if bobs.ErrorCode != 0 || bobs.PrincipalName != "bob" || bobs.TokenRequesterPrincipalName != "admin" {
		t.Fatalf("%+v", bobs)
	}
	if got := alice.renew(bobs.HMAC, time.Hour); got.ErrorCode != 0 {
		t.Errorf("a renewer renews: %+v", got)
	}
	if got := alice.described(); len(got) != 2 || len(got[bobs.TokenID].Renewers) != 1 || got[bobs.TokenID].TokenRequesterPrincipalName != "admin" {
		t.Errorf("alice is shown %+v", got)
	}
	if got := bob.described(); len(got) != 1 || got[bobs.TokenID].PrincipalName != "bob" {
		t.Errorf("bob is shown %+v", got)
	}
	if got := admin.described("bob"); len(got) != 1 {
		t.Errorf("of bob's, admin is shown %+v", got)
	}
	none := kmsg.NewPtrDescribeDelegationTokenRequest()
	none.Owners = []kmsg.DescribeDelegationTokenRequestOwner{}
	if got, err := none.RequestWith(testContext(t), admin.cl); err != nil || got.ErrorCode != 0 || len(got.TokenDetails) != 0 {
		t.Errorf("of nobody's: %+v, %v", got, err)
	}
	toOne := kadm.NewACLs().Allow("User:bob").AllowHosts("*").DelegationTokens(made.TokenID).Operations(kadm.OpDescribe).ResourcePatternType(kadm.ACLPatternLiteral)
	if _, err := kadm.NewClient(admin.cl).CreateACLs(testContext(t), toOne); err != nil {
		t.Fatal(err)
	}
	if got := bob.described(); len(got) != 2 {
		t.Errorf("with the right to one, bob is shown %+v", got)
	}

	if err := b.node.Change(testContext(t), metadata.AlterACLs{Remove: []acl.Entry{{Principal: "User:bob", Host: "*", Type: acl.DelegationToken, Pattern: acl.Literal, Name: made.TokenID, Operation: acl.Describe, Permission: acl.Allow}}}); err != nil {
		t.Fatal(err)
	}
	if got := bob.described(); len(got) != 1 {
		t.Errorf("without it, bob is shown %+v", got)
	}
	if err := b.node.Change(testContext(t), metadata.AlterACLs{Add: []acl.Entry{{Principal: "User:bob", Host: "*", Type: acl.User, Pattern: acl.Literal, Name: "User:alice", Operation: acl.DescribeTokens, Permission: acl.Allow}}}); err != nil {
		t.Fatal(err)
	}
	if got := bob.described(); len(got) != 2 {
		t.Errorf("with the right to alice's, bob is shown %+v", got)
	}

	// With a user go its tokens, and not with its password.
	b.makeUser("alice", "another", metadata.ScramSHA512)
	if err := b.node.Change(testContext(t), metadata.AlterUsers{Delete: []string{"bob"}}); err != nil {
		t.Fatal(err)
	}
	if got := admin.described(); len(got) != 1 || got[made.TokenID].TokenID == "" {
		t.Errorf("without bob there are %+v", got)
	}
}

// Who has not logged in has nobody's token.
func TestTokensAreForThoseWhoLoggedIn(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	create, describe := kmsg.NewPtrCreateDelegationTokenRequest(), kmsg.NewPtrDescribeDelegationTokenRequest()
	create.Version, describe.Version = 3, 3
	if got := ask[*kmsg.CreateDelegationTokenResponse](w, create); got.ErrorCode != int16(protocol.DelegationTokenRequestNotAllowed) || got.TokenID != "" || len(got.HMAC) != 0 {
		t.Errorf("%+v", got)
	}
	if got := ask[*kmsg.DescribeDelegationTokenResponse](w, describe); got.ErrorCode != int16(protocol.DelegationTokenRequestNotAllowed) {
		t.Errorf("%+v", got)
	}
}
