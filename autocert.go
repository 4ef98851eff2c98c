package millrace

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"

	"millrace/replication/identity"
	"millrace/replication/keyring"
)

// An ownCertificate is what a listener shows clients that is Auto: issued by the cluster's
// authority, and issued again when that is another one or a third of its life is left. It
// implements server.Certificates.
type ownCertificate struct {
	broker   *Broker
	listener int

	mu   sync.Mutex
	by   *x509.Certificate // the authority that issued it
	cert *tls.Certificate
}

// TLS implements server.Certificates.
func (o *ownCertificate) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.current(time.Now()) },
	}
}

// Principal implements server.Certificates: clients are not asked for certificates.
func (o *ownCertificate) Principal(tls.ConnectionState) (string, error) { return "", nil }

var errNoAuthority = errors.New("the cluster has no certificate authority yet: not all of its nodes are upgraded")

// current returns the certificate.
func (o *ownCertificate) current(now time.Time) (*tls.Certificate, error) {
	all, err := keyring.Parse(o.broker.node.Image().Authorities())
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errNoAuthority
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cert != nil && o.by.Equal(all[0].Certificate) && o.cert.Leaf.NotAfter.Sub(now) > identity.Life/3 {
		return o.cert, nil
	}
	cert, err := all[0].IssueServer(o.hosts(), now)
	if err != nil {
		return nil, err
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, err
		}
	}
	o.by, o.cert = all[0].Certificate, &cert
	return o.cert, nil
}

// hosts are the names and addresses by which clients reach the broker.
func (o *ownCertificate) hosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	l := o.broker.listeners[o.listener]
	for _, address := range []string{l.Advertise, l.Listen} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}
