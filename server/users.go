package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/security/sasl"
	"millrace/server/protocol"
)

// A loginDesk is where clients log in, made when the first does.
type loginDesk struct {
	once   sync.Once
	server *sasl.Server
}

// logins returns what clients log in at.
func (h *broker) logins() *sasl.Server {
	h.desk.once.Do(func() { h.desk.server = h.newLogins() })
	return h.desk.server
}

// newLogins makes it. An issuer whose address cannot be read is none:
// the settings of a node are checked before it starts.
func (h *broker) newLogins() *sasl.Server {
	s := &sasl.Server{Users: users{h}, Delegations: users{h}}
	t := h.settings().broker.Login.Tokens
	if t.KeysURL == "" {
		return s
	}
	keys, err := sasl.NewKeys(t.KeysURL, time.Duration(t.KeysRefreshMillis)*time.Millisecond)
	if err != nil {
		h.logger.Error("tokens are not taken: sasl.oauthbearer.jwks.endpoint.url is not the address of an issuer's keys", "error", err)
		return s
	}
	s.Tokens = &sasl.Tokens{Keys: keys, Issuer: t.Issuer, Audience: t.Audience, Subject: t.Subject, Skew: time.Duration(t.SkewSeconds) * time.Second}
	return s
}

// users are those of the cluster, and its delegation tokens. They implement sasl.Users and
// sasl.Delegations.
type users struct{ *broker }

// Verifier implements sasl.Users. For a name that nobody has it makes a verifier up, after
// that of a user whom the name chooses. It does so for all others as well, and throws it
// away: that takes longer than to look a name up, and would be seen.
func (u users) Verifier(name string, m sasl.Mechanism) (sasl.Verifier, bool) {
	image := u.node.Image()
	user, known := image.User(name)
	if user == nil {
		user = new(metadata.User)
	}
	if all := image.Users(); len(all) > 0 {
		other := all[binary.BigEndian.Uint64(secretOf(image, "stands for", name))%uint64(len(all))]
		if !known {
			user = other
		}
	}
	of := metadata.ScramSHA512
	if m == sasl.SCRAMSHA256 {
		of = metadata.ScramSHA256
	}
	c, ok := user.Credential(of)
	if !ok && m == sasl.Plain {
		of = metadata.ScramSHA256
		c, ok = user.Credential(of)
	}
	v := made(image, name, of, c)
	if !known || !ok {
		return v, false
	}
	v.Iterations, v.Salt, v.StoredKey, v.ServerKey = int(c.Iterations), c.Salt, c.StoredKey, c.ServerKey
	return v, true
}

// made makes up a verifier for a name that nobody has. It looks like another user's, or with
// nil as this program makes them.
func made(image *metadata.Image, name string, m metadata.Mechanism, like *metadata.Credential) sasl.Verifier {
	v := sasl.Verifier{Mechanism: sasl.Mechanism(m.String()), Iterations: sasl.DefaultIterations}
	saltBytes := m.KeyBytes()
	if like != nil {
		v.Iterations, saltBytes = int(like.Iterations), len(like.Salt)
	}
	stretch := func(what string, n int) (out []byte) {
		for i := byte(0); len(out) < n; i++ {
			out = append(out, secretOf(image, what+string(rune('0'+i)), name)...)
		}
		return out[:n]
	}
	v.Salt = stretch("salt of "+m.String(), saltBytes)
	v.StoredKey, v.ServerKey = stretch("stored key of "+m.String(), m.KeyBytes()), stretch("server key of "+m.String(), m.KeyBytes())
	return v
}

// secretOf is a number that a name has in this cluster, at whichever broker, and that nobody
// can compute from outside. It stays when the authorities change: a salt that is another one
// afterwards would tell names that nobody has.
func secretOf(image *metadata.Image, what, name string) []byte {
	secret := []byte(image.Secret())
	if all := image.Users(); len(secret) == 0 && len(all) > 0 { // between the first user and the first authority
		secret = all[0].Credentials[0].ServerKey
	}
	sum := hmac.New(sha256.New, secret)
	sum.Write([]byte(what + "\x00" + name))
	return sum.Sum(nil)
}

// DescribeUserScramCredentials, version 0 (KIP-554).
//
//   - Which mechanisms each has, and how many iterations; never more.
//   - Who is asked for by name and is not there is RESOURCE_NOT_FOUND, named twice
//     DUPLICATE_RESOURCE.
func (h *security) describeUserSCRAM(c *call, req *kmsg.DescribeUserSCRAMCredentialsRequest) *kmsg.DescribeUserSCRAMCredentialsResponse {
	resp := kmsg.NewPtrDescribeUserSCRAMCredentialsResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode = int16(code)
		return resp
	}
	image := h.node.Image()
	named := map[string]int{}
	names := make([]string, 0, len(req.Users))
	for _, u := range req.Users {
		c.step()
		if named[u.Name]++; named[u.Name] == 1 {
			names = append(names, u.Name)
		}
	}
	if len(req.Users) == 0 {
		for _, u := range image.Users() {
			names = append(names, u.Name)
		}
	}
	resp.Results = make([]kmsg.DescribeUserSCRAMCredentialsResponseResult, 0, len(names))
	for _, name := range names {
		c.step()
		r := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		r.User = name
		user, known := image.User(name)
		switch {
		case named[name] > 1:
			r.ErrorCode, r.ErrorMessage = int16(protocol.DuplicateResource), message(sentencef("Cannot describe SCRAM credentials for the same user twice in a single request: %s", name))
		case !known:
			r.ErrorCode, r.ErrorMessage = int16(protocol.ResourceNotFound), message(sentencef("Attempt to describe a user credential that does not exist: %s", name))
		default:
			for _, have := range user.Credentials {
				info := kmsg.NewDescribeUserSCRAMCredentialsResponseResultCredentialInfo()
				info.Mechanism, info.Iterations = int8(have.Mechanism), have.Iterations
				r.CredentialInfos = append(r.CredentialInfos, info)
			}
		}
		resp.Results = append(resp.Results, r)
	}
	return resp
}

// A userAlteration is what one request asks of one user.
type userAlteration struct {
	removed  []metadata.Mechanism
	added    []metadata.Credential
	failed   bool
	code     protocol.Code
	sentence error
}

// said is what is asked, for an audit log.
func (a *userAlteration) said() string {
	var said []string
	for _, c := range a.added {
		said = append(said, "set "+c.Mechanism.String())
	}
	for _, m := range a.removed {
		said = append(said, "delete "+m.String())
	}
	return strings.Join(said, ", ") + " of"
}

func (a *userAlteration) fail(code protocol.Code, err error) {
	if !a.failed {
		a.failed, a.code, a.sentence = true, code, err
	}
}

// take notes one mechanism of a user, each at most once in a request.
func (a *userAlteration) take(name string, m metadata.Mechanism) bool {
	err := metadata.ValidateUserName(name)
	switch {
	case slices.Contains(a.removed, m) || slices.ContainsFunc(a.added, func(c metadata.Credential) bool { return c.Mechanism == m }):
		a.failed = false
		a.fail(protocol.DuplicateResource, sentence("A user credential cannot be altered twice in the same request"))
	case name == "":
		a.fail(protocol.UnacceptableCredential, sentence("Username must not be empty"))
	case err != nil:
		a.fail(protocol.UnacceptableCredential, err)
	case m != metadata.ScramSHA256 && m != metadata.ScramSHA512:
		a.fail(protocol.UnsupportedSASLMechanism, sentence("Unknown SCRAM mechanism"))
	}
	return !a.failed
}

// AlterUserScramCredentials, version 0 (KIP-554).
//
//   - All of a user's alterations are made, or none; one user's do not stop another's.
//   - UNACCEPTABLE_CREDENTIAL of fewer iterations than 4096, more than 16384, or a name that
//     no user may have; UNSUPPORTED_SASL_MECHANISM; RESOURCE_NOT_FOUND of what is to be
//     deleted; DUPLICATE_RESOURCE of what is altered twice. Kafka refuses two mechanisms of
//     one user in a request, which is how a user gets a password for both here.
//   - Who makes the cluster's first user makes a super user: see metadata.AlterUsers.
func (h *security) alterUserSCRAM(c *call, req *kmsg.AlterUserSCRAMCredentialsRequest) *kmsg.AlterUserSCRAMCredentialsResponse {
	resp := kmsg.NewPtrAlterUserSCRAMCredentialsResponse()
	asked := make(map[string]*userAlteration)
	var names []string
	of := func(name string) *userAlteration {
		if asked[name] == nil {
			asked[name] = new(userAlteration)
			names = append(names, name)
		}
		return asked[name]
	}
	for _, d := range req.Deletions {
		c.step()
		if a, m := of(d.Name), metadata.Mechanism(d.Mechanism); a.take(d.Name, m) {
			a.removed = append(a.removed, m)
		}
	}
	for _, u := range req.Upsertions {
		c.step()
		a, m := of(u.Name), metadata.Mechanism(u.Mechanism)
		if !a.take(u.Name, m) {
			continue
		}
		switch {
		case u.Iterations < sasl.MinIterations:
			a.fail(protocol.UnacceptableCredential, sentence("Too few iterations"))
			continue
		case u.Iterations > sasl.MaxIterations:
			a.fail(protocol.UnacceptableCredential, sentence("Too many iterations"))
			continue
		case len(u.SaltedPassword) != m.KeyBytes():
			a.fail(protocol.UnacceptableCredential, sentencef("A salted password of %s has %d bytes, not %d", m, m.KeyBytes(), len(u.SaltedPassword)))
			continue
		}
		v := sasl.VerifierOf(sasl.Mechanism(m.String()), u.SaltedPassword, u.Salt, int(u.Iterations))
		a.added = append(a.added, metadata.Credential{Mechanism: m, Iterations: u.Iterations, Salt: u.Salt, StoredKey: v.StoredKey, ServerKey: v.ServerKey})
	}
	refused := c.admit()
	resp.Results = make([]kmsg.AlterUserSCRAMCredentialsResponseResult, 0, len(names))
	for _, name := range names {
		c.step()
		a := asked[name]
		switch {
		case refused != protocol.None:
			a.failed = false
			a.fail(refused, nil)
		case !a.failed:
			if err := h.alterUser(c.ctx, name, a); err != nil {
				a.fail(userCodeOf(err), err)
			}
			outcome := AuditSucceeded
			if a.failed {
				outcome = "failed"
			}
			c.conn.audit(AuditEvent{Kind: AuditUsers, Client: c.Client, Request: c.Key.Name(), Subject: a.said() + " User:" + name, Outcome: outcome})
		}
		r := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		r.User, r.ErrorCode, r.ErrorMessage = name, int16(a.code), message(a.sentence)
		resp.Results = append(resp.Results, r)
	}
	return resp
}

// errNoCredential is of what is to be deleted and is not there.
const errNoCredential = sentence("Attempt to delete a user credential that does not exist")

func userCodeOf(err error) protocol.Code {
	switch {
	case errors.Is(err, errNoCredential):
		return protocol.ResourceNotFound
	case errors.Is(err, metadata.ErrInvalidUser):
		return protocol.UnacceptableCredential
	}
	return adminCodeOf(err)
}

// alterUser commits what is asked of a user, computed from what is there: again if somebody
// else was quicker.
func (h *security) alterUser(ctx context.Context, name string, a *userAlteration) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	for {
		changed := h.node.Changed()
		image := h.node.Image()
		change := metadata.AlterUsers{Judged: image.Index}
		var have []metadata.Credential
		if user, known := image.User(name); known {
			have = slices.Clone(user.Credentials)
		}
		for _, m := range a.removed {
			i := slices.IndexFunc(have, func(c metadata.Credential) bool { return c.Mechanism == m })
			if i < 0 {
				return errNoCredential
			}
			have = slices.Delete(have, i, i+1)
		}
		for _, add := range a.added {
			have = append(slices.DeleteFunc(have, func(c metadata.Credential) bool { return c.Mechanism == add.Mechanism }), add)
		}
		if len(have) == 0 {
			change.Delete = []string{name}
		} else {
			change.Upsert = []metadata.User{{Name: name, Credentials: have}}
		}
		err := h.node.Change(ctx, change)
		if !errors.Is(err, metadata.ErrConfigChanged) || ctx.Err() != nil {
			return err
		}
		select { // this node knows less than the controller: the same again would be refused again
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}
