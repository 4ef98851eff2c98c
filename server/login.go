package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/security/sasl"
	"millrace/server/protocol"
)

// An Access is whether a listener's clients have to log in.
type Access int

// The kinds of access.
const (
	// AccessAuto asks for a log-in as soon as the cluster has a user. Before, clients come
	// in as nobody.
	AccessAuto Access = iota
	// AccessOpen takes clients that do not log in, as acl.Anonymous, whatever users there are.
	AccessOpen
	// AccessAuthenticated asks for a log-in, also while the cluster has no user.
	AccessAuthenticated
)

// maxLoginBytes bounds a request of a client that has to log in and has not. It has
// Server.StallTimeout to do so, whatever else it asks.
const maxLoginBytes = 64 << 10

// A login is how a client says who it is: SaslHandshake names a mechanism, and then messages
// go to and fro until its exchange is over, in SaslAuthenticate or, after a handshake of
// version 0, in frames of their own. A client that has logged in may do so again (KIP-368),
// by the same mechanism, as the same principal. It belongs to the connection's goroutine.
type login struct {
	done      bool            // it has logged in
	delegated bool            // by a delegation token
	account   string          // of the user, or the token, that has to be there for as long; "": none
	seen      *metadata.Image // in which it was
	mechanism sasl.Mechanism  // by which it did, or does
	exchange  sasl.Exchange   // under way; nil: none
	bare      bool            // messages come without a request around them
	again     bool            // the exchange is another one than the first
	mismatch  bool            // and its mechanism another than the first one's
	until     time.Time       // when it has to have logged in again; zero: never
	by        time.Time       // when it has to have logged in; zero: it has, or need not
	refused   error           // why nothing more is read from it, once its answer is written
	told      bool            // that answer says that it is refused: it is not in want of an end
}

// outside reports whether the client has to log in, and has not.
func (c *connection) outside() bool {
	if c.login.done {
		return false
	}
	access := AccessAuto
	if l := c.origin.listener; l != nil {
		access = l.Access
	}
	switch access {
	case AccessOpen:
		return false
	case AccessAuthenticated:
		return true
	}
	return len(c.server.broker.node.Image().Users()) > 0
}

// enter holds a new connection to what its listener asks for besides a log-in, and takes its
// client for who its certificate says.
func (c *connection) enter() error {
	l := c.origin.listener
	if l == nil {
		return nil
	}
	over, _ := c.conn.(overTLS)
	var state tls.ConnectionState
	secure := false
	if over != nil {
		state, secure = over.TLS()
	}
	switch {
	case !secure && l.OnlyTLS:
		return errors.New("it speaks no TLS, which this listener asks for")
	case secure && l.Certificates != nil && l.Access != AccessAuthenticated:
		who, err := l.Certificates.Principal(state)
		if err != nil {
			return fmt.Errorf("its certificate: %w", err)
		}
		if who != "" {
			c.principal, c.login.done = who, true
		}
	}
	if l.Access == AccessAuto && !l.Remote && !c.login.done && !c.local() && len(c.server.broker.node.Image().Users()) == 0 {
		return errors.New("it comes from another machine, and the cluster has no user whom it could log in as: `millrace user create` on this machine makes the first; --insecure lets everybody in")
	}
	return nil
}

// local reports whether both ends are on this machine.
func (c *connection) local() bool { return isLocal(c.origin.local) && isLocal(c.origin.remote) }

// admitted reports whether a request may be served, or why its connection ends: what comes
// from outside is about logging in, and so is what comes while that goes on.
func (c *connection) admitted(key kmsg.Key) error {
	l := &c.login
	switch {
	case key == kmsg.SASLAuthenticate, l.exchange == nil && key == kmsg.SASLHandshake:
		return nil
	case l.exchange != nil:
		return fmt.Errorf("%s in the middle of a log-in", key.Name())
	case key == kmsg.ApiVersions:
		return nil
	case c.outside():
		return fmt.Errorf("%s before a log-in, which this listener asks for (SASL)", key.Name())
	case !l.until.IsZero() && !time.Now().Before(l.until):
		return fmt.Errorf("%s after its log-in has ended: the client was to log in again by %s", key.Name(), l.until.UTC().Format(time.RFC3339))
	case !l.stands(c.server.broker.node.Image()):
		return fmt.Errorf("%s of %s, who was deleted after the log-in", key.Name(), c.principal)
	}
	return nil
}

// stands reports whether the user, or the delegation token, by which the client has logged in
// has not been deleted. It is looked for when the metadata are others than before.
func (l *login) stands(image *metadata.Image) bool {
	if l.account == "" || image == l.seen {
		return true
	}
	l.seen = image
	if l.delegated {
		_, is := image.DelegationToken(l.account)
		return is
	}
	_, is := image.User(l.account)
	return is
}

// serveBare serves a message of a log-in that comes as a frame of its own.
func (c *connection) serveBare() error {
	c.deadline(c.server.stallTimeout())
	var prefix [4]byte
	if _, err := io.ReadFull(c.r, prefix[:]); err != nil {
		return c.readError(err, true)
	}
	size := int(int32(binary.BigEndian.Uint32(prefix[:])))
	if size < 0 || size > maxLoginBytes {
		return protocol.Malformed("a message of %d bytes to log in with; at most %d are read", size, maxLoginBytes)
	}
	message, err := readSlowly(c.r, size)
	if err != nil {
		return c.readError(err, true)
	}
	answer, err := c.loginStep(message)
	if err != nil {
		return c.login.refused // without a word: there is no room for one in this form
	}
	return c.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...), nil, &c.share.client)
}

// readSlowly reads n bytes into memory that grows as they come: who says that there are many
// and sends none costs nothing.
func readSlowly(r io.Reader, n int) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.CopyN(&b, r, int64(n))
	return b.Bytes(), err
}

// loginStep goes on with the exchange that is under way. After an error the connection has to
// end, and is why: that is in the log.
func (c *connection) loginStep(message []byte) (answer []byte, err error) {
	l := &c.login
	who, answer, err := c.step(message)
	switch {
	case err != nil:
	case who == nil:
		return answer, nil
	case l.again && c.principal != "User:"+who.Name:
		err = &sasl.RefusedError{Reason: fmt.Sprintf("Cannot change principals during re-authentication from %s to User:%s", bounded(c.principal), bounded(who.Name))}
	}
	account := l.exchange.Name()
	name := bounded(account)
	l.exchange, l.bare = nil, false
	if err != nil {
		l.refused = errBye
		c.server.stats.refused.Add(1)
		c.server.broker.warn("a log-in failed", "remote", c.origin.remote, "mechanism", l.mechanism, "user", name, "error", err)
		c.audit(AuditEvent{Kind: AuditLogin, Principal: "User:" + name, Subject: string(l.mechanism), Outcome: "failed"})
		c.pauseFailed()
		return nil, err
	}
	c.principal, l.done, l.delegated = "User:"+who.Name, true, who.Delegated
	if l.account, l.seen = account, nil; l.mechanism == sasl.OAuthBearer {
		l.account = "" // its issuer answers for it
	}
	l.until = c.server.broker.sessionEnd(who.Until)
	c.audit(AuditEvent{Kind: AuditLogin, Subject: string(l.mechanism), Outcome: AuditSucceeded})
	c.known()
	return answer, nil
}

// step gives a message to the exchange. Where that has to check a password it waits for its
// turn: SCRAM leaves that work to the client, but for delegation tokens, and a token of
// OAUTHBEARER may wait for its issuer's keys.
func (c *connection) step(message []byte) (who *sasl.Identity, answer []byte, err error) {
	l, turns := &c.login, c.server.shared.logins
	if l.mismatch {
		return nil, nil, &sasl.RefusedError{Reason: "SASL mechanism changed during re-authentication"}
	}
	if costly(l.mechanism, message) {
		if err := turns.enter(c.ctx); err != nil {
			return nil, nil, err
		}
		defer turns.leave()
	}
	answer, who, err = l.exchange.Step(message)
	return who, answer, err
}

// costly reports whether a message has the broker check a password, which takes a processor
// milliseconds.
func costly(m sasl.Mechanism, message []byte) bool {
	switch m {
	case sasl.Plain:
		return true
	case sasl.SCRAMSHA256, sasl.SCRAMSHA512:
		return sasl.NamesDelegation(message)
	}
	return false
}

// audit tells the auditor of something that the connection's client did.
func (c *connection) audit(e AuditEvent) {
	a := c.server.Auditor
	if a == nil {
		return
	}
	if e.Host = c.origin.host; e.Principal == "" {
		e.Principal = c.principal
	}
	a.Audit(e)
}

// pauseFailed waits before somebody is told that a log-in failed, so that guessing takes
// time: connection.failed.authentication.delay.ms.
func (c *connection) pauseFailed() {
	select {
	case <-time.After(time.Duration(c.server.broker.settings().broker.Login.FailedDelayMillis) * time.Millisecond):
	case <-c.ctx.Done():
	}
}

// sessionEnd is when a client that has just logged in has to do so again, which is when its
// token ends or after connections.max.reauth.ms; zero: never.
func (h *broker) sessionEnd(until time.Time) time.Time {
	if most := h.settings().broker.Login.MaxSessionMillis; most > 0 {
		if end := time.Now().Add(time.Duration(most) * time.Millisecond); until.IsZero() || end.Before(until) {
			return end
		}
	}
	return until
}

// A turnstile lets so many through at a time: a password costs a processor some
// milliseconds to check, and those who guess do not take it from those who produce.
type turnstile chan struct{}

func newTurnstile(n int) turnstile { return make(turnstile, n) }

func (t turnstile) enter(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turnstile) leave() { <-t }

// mechanisms lists what this client may log in by: what sasl.enabled.mechanisms names, of
// the listener or else of the broker, and there is something to check against, and PLAIN only where nobody else reads the password.
func (c *connection) mechanisms() (all []sasl.Mechanism) {
	h := &c.server.broker
	image := h.node.Image()
	users, delegations := len(image.Users()) > 0, len(image.DelegationTokens()) > 0
	names := h.settings().broker.Login.Mechanisms
	if l := c.origin.listener; l != nil && l.Mechanisms != nil {
		names = l.Mechanisms
	}
	for _, name := range names {
		m, ok := sasl.Parse(name)
		switch {
		case !ok:
		case m == sasl.OAuthBearer:
			ok = h.logins().Tokens != nil
		case m == sasl.Plain:
			ok = users && c.private()
		default:
			ok = users || delegations
		}
		if ok {
			all = append(all, m)
		}
	}
	return all
}

// private reports whether what the client sends is read by nobody on the way.
func (c *connection) private() bool {
	if l := c.origin.listener; l != nil && l.Insecure {
		return true
	}
	if over, ok := c.conn.(overTLS); ok {
		if _, is := over.TLS(); is {
			return true
		}
	}
	return c.local()
}

// overTLS is a connection that may be one over TLS: mux's are.
type overTLS interface {
	TLS() (tls.ConnectionState, bool)
}

// isLocal reports whether an address is this machine's alone.
func isLocal(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return true // no network at all
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	return ok && ip.Unmap().IsLoopback()
}

// refusal is what a failed step of a log-in is answered with.
func (l *login) refusal(err error) string {
	var told *sasl.RefusedError
	if errors.As(err, &told) {
		return told.Reason
	}
	return fmt.Sprintf("Authentication failed during authentication due to invalid credentials with SASL mechanism %s", l.mechanism)
}

// lifetimeMillis is how long the log-in holds, 0 while it goes on or if it has no end.
func (l *login) lifetimeMillis() int64 {
	if l.exchange != nil || l.until.IsZero() {
		return 0
	}
	return max(1, time.Until(l.until).Milliseconds())
}
