package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Refused says why brokers do not let a client in, and what to do, nil if that is not what
// an error is about.
func Refused(ctx context.Context, brokers []string, err error) error {
	where := strings.Join(brokers, ", ")
	a := accessIn(ctx)
	no := func(format string, args ...any) error { return term.Fail(term.StatusNotAllowed, format, args...) }
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var early *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return notLetIn(where, a)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return no("the broker at %s does not take %s%s; choose another with -X sasl.mechanism=…", where, a.mechanism.Name(), butTakes(mechanismsOf(ctx, brokers)))
	case a.mechanism != nil && errors.Is(err, kerr.IllegalSaslState):
		return no("the broker at %s has nobody log in; leave out --user", where)
	case errors.As(err, &authority):
		return no("the certificate of the broker at %s is signed by an authority that is not known here: %s", where, trustIt(a))
	case errors.As(err, &name):
		return no("the certificate of the broker at %s is not for that name: %s; use a name that it has with --brokers", where, term.OneLine(name))
	case errors.As(err, &invalid):
		return no("the certificate of the broker at %s is not valid: %s; have it renewed, and look at this machine's clock", where, term.OneLine(invalid))
	case wordsOf(err, alertWords):
		_, alert, _ := strings.Cut(err.Error(), alertWords)
		return no("the broker at %s ended the TLS handshake (%s): if it wants a certificate of yours, give it with --tls-cert and --tls-key", where, alert)
	case errors.As(err, &record), a.secure != nil && timedOut(err) && answersInTheOpen(ctx, brokers):
		return no("the broker at %s speaks no TLS; leave out --tls-ca and the like, or name another of its listeners", where)
	case a.secure == nil && wordsOf(err, "tls alert record"):
		return wantsTLS(where)
	case errors.As(err, &early), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		// It takes a connection and ends it: what a listener does on which one logs in, or
		// speaks TLS.
		// The same port may take both, so what it says in the open goes first.
		takes := mechanismsOf(ctx, brokers)
		switch {
		case len(takes) > 0 && a.mechanism != nil:
			return notLetIn(where, a) // it ends the connection and does not say why
		case len(takes) > 0:
			return no("the broker at %s wants you to log in: say --user NAME and --password-file FILE; it takes %s", where, strings.Join(takes, ", "))
		case a.secure == nil && speaksTLS(ctx, brokers):
			return wantsTLS(where)
		}
	}
	return nil
}

func notLetIn(where string, a *access) error {
	return term.Fail(term.StatusNotAllowed, "the broker at %s does not let user %q in: the password is wrong, or there is no such user; look at --user and --password-file, or have `millrace user passwd` set another", where, a.user)
}

func wantsTLS(where string) error {
	return term.Fail(term.StatusNotAllowed, "the broker at %s wants TLS: say --tls-ca FILE; `millrace cluster ca` prints what belongs into it", where)
}

// trustIt says how the authority of a certificate becomes known.
func trustIt(a *access) string {
	if a.secure != nil && a.secure.RootCAs != nil {
		return "--tls-ca names another one; `millrace cluster ca`, run on a broker's machine, prints the cluster's"
	}
	return "have `millrace cluster ca` print it, on a broker's machine, and say --tls-ca FILE"
}

// alertWords begin what crypto/tls says, with no type, when the other side ends a handshake.
const alertWords = "remote error: tls: "

// timedOut reports whether an error is that nobody answered in time.
func timedOut(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// wordsOf reports whether an error, which a library has no type for, has some words.
func wordsOf(err error, words string) bool { return err != nil && strings.Contains(err.Error(), words) }

func butTakes(mechanisms []string) string {
	if len(mechanisms) == 0 {
		return ""
	}
	return ", but " + strings.Join(mechanisms, ", ")
}

// answersInTheOpen reports whether one of the brokers answers without TLS.
func answersInTheOpen(ctx context.Context, brokers []string) bool {
	ctx, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), accessKey{}, &access{}), lookTimeout)
	defer cancel()
	for _, b := range brokers {
		client, err := Sole(ctx, b, kgo.DialTimeout(lookTimeout))
		if err != nil {
			return false
		}
		_, err = client.SeedBrokers()[0].Request(ctx, kmsg.NewPtrApiVersionsRequest())
		client.Close()
		if err == nil {
			return true
		}
	}
	return false
}

// lookTimeout bounds how long it takes to find out why a broker refused.
const lookTimeout = 3 * time.Second

// mechanismsOf asks brokers how one may log in, and returns what the first says that does;
// none if nobody logs in there.
func mechanismsOf(ctx context.Context, brokers []string) []string {
	a := *accessIn(ctx)
	a.mechanism = nil
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, accessKey{}, &a), lookTimeout)
	defer cancel()
	for _, b := range brokers {
		client, err := Sole(ctx, b, kgo.DialTimeout(lookTimeout))
		if err != nil {
			return nil
		}
		req := kmsg.NewPtrSASLHandshakeRequest()
		req.Mechanism = "none" // there is no such mechanism: all that there are will be named
		resp, err := client.SeedBrokers()[0].Request(ctx, req)
		client.Close()
		if err == nil {
			return resp.(*kmsg.SASLHandshakeResponse).SupportedMechanisms
		}
	}
	return nil
}

// speaksTLS reports whether one of the brokers answers a handshake. Nothing is told it, and
// nothing of what it says is believed.
func speaksTLS(ctx context.Context, brokers []string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	for _, b := range brokers {
		dialer := &tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{InsecureSkipVerify: true}}
		conn, err := dialer.DialContext(ctx, "tcp", b)
		if err == nil {
			conn.Close()
			return true
		}
		if wordsOf(err, alertWords) {
			return true
		}
	}
	return false
}

// deniedTo says as whom somebody was who was not allowed to do something, and what an error
// means that says no more than that.
func deniedTo(user string, err error) error {
	who := ""
	if user != "" {
		who = fmt.Sprintf(" (as user %q)", user)
	}
	var f *term.Failure
	explained := errors.As(err, &f)
	switch {
	case err == nil:
		return nil
	case !explained && errors.Is(err, kerr.ClusterAuthorizationFailed):
		return term.Explain(err, "not allowed on the cluster itself%s; ask for the permission with an ACL", who)
	case !explained && errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return term.Explain(err, "not allowed on the transactional id%s; ask for the permission with an ACL", who)
	case !explained && errors.Is(err, kerr.DelegationTokenAuthorizationFailed):
		return term.Explain(err, "not allowed on the delegation token%s; ask for the permission with an ACL", who)
	case who != "" && explained && strings.HasPrefix(err.Error(), "not allowed on "):
		return term.Explain(err, "%s%s", term.OneLine(err), who)
	}
	return err
}
