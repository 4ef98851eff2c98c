package ability

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// A Login says how to speak to brokers; the zero value is without TLS, as nobody.
type Login struct {
	Mechanism      string // of SASL; "": none
	User, Password string
	Token          string
	CA             string // the file of the authority of the brokers' certificates; "": no TLS
	Cert, Key      string // the files of the client's own; "": none
}

// TLS is the configuration of TLS, nil for none.
func (l Login) TLS() (*tls.Config, error) {
	if l.CA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(l.CA)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", l.CA)
	}
	if l.Cert != "" {
		own, err := tls.LoadX509KeyPair(l.Cert, l.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c, nil
}

// loginsOfEnvironment is how the environment says to log in, and how not to: the second is
// the first with another password, token, or certificate.
func loginsOfEnvironment() (right, wrong Login) {
	right = Login{
		Mechanism: os.Getenv("LOGIN_MECHANISM"), User: os.Getenv("LOGIN_USER"), Password: os.Getenv("LOGIN_PASSWORD"),
		Token: content(os.Getenv("LOGIN_TOKEN")), CA: os.Getenv("LOGIN_CA"), Cert: os.Getenv("LOGIN_CERT"), Key: os.Getenv("LOGIN_KEY"),
	}
	wrong = right
	wrong.Password, wrong.Token = os.Getenv("LOGIN_WRONG_PASSWORD"), content(os.Getenv("LOGIN_WRONG_TOKEN"))
	wrong.Cert, wrong.Key = os.Getenv("LOGIN_WRONG_CERT"), os.Getenv("LOGIN_WRONG_KEY")
	return right, wrong
}

// content is that of a file, "" without one.
func content(path string) string {
	p, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(p))
}

// A Guest is a Client that can tell that it was kept out.
type Guest interface {
	// Enter asks the cluster for something about a topic, once.
	Enter(topic string) error
	// KeptOut reports whether an error is the library's for a log-in that was refused or, of
	// who has no mechanism, for a handshake of TLS that was.
	KeptOut(error) bool
}

// RefusedByTLS reports whether an error is that of Go's TLS for a client whose certificate
// the other side does not believe.
func RefusedByTLS(err error) bool {
	return err != nil && strings.Contains(err.Error(), "remote error: tls: unknown certificate authority")
}

// logIn is refused with what is wrong, and with what is right produces, reads it back in a
// group, and commits.
func logIn(c Client, open func() (Client, error), topic string) error {
	if err := keptOut(open, topic); err != nil {
		return err
	}
	want := numbered(99, short)
	if err := produce(c, topic, Producing{}, want); err != nil {
		return err
	}
	m, err := c.Join(topic+"-group", topic, Joining{Limit: len(want)})
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	got, err := collect(m, len(want))
	if err != nil {
		return err
	}
	if err := m.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := m.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return compare(got, want)
}

// keptOut expects the library to say that it was not let in, in one word or another.
func keptOut(open func() (Client, error), topic string) error {
	c, err := open()
	g, ok := c.(Guest)
	if !ok {
		return errors.New("no way to tell that it was kept out")
	}
	entered := make(chan error, 1)
	if err == nil {
		go func() { entered <- g.Enter(topic) }() // the guest: ends with the process
		select {
		case err = <-entered:
		case <-time.After(quiet):
			return fmt.Errorf("the wrong log-in is not refused within %v", quiet)
		}
	}
	switch {
	case err == nil:
		return errors.New("the wrong log-in is not refused")
	case !g.KeptOut(err):
		return fmt.Errorf("the wrong log-in ends with: %w", err)
	}
	return nil
}
