package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

const (
	authorityLife = 20 * 365 * 24 * time.Hour
	// Life is how long a certificate is good that an authority issues. It is renewed when a
	// third of that is left: a node issues it to itself, so that a short life costs nothing.
	Life = 30 * 24 * time.Hour
	// backdated is how far the clocks of nodes may be apart.
	backdated = 24 * time.Hour
)

// An Authority is a cluster's: whoever shows a certificate that it issued is what that says.
// Several may hold at once while one takes the place of another.
type Authority struct {
	Certificate *x509.Certificate
	Key         crypto.Signer // nil: it is known by its certificate alone, and issues none
}

// NewKey returns a new private key: ECDSA on P-256, which clients of any age can check.
func NewKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// NewAuthority makes a cluster's authority.
func NewAuthority(cluster string, now time.Time) (Authority, error) {
	key, err := NewKey()
	if err != nil {
		return Authority{}, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Millrace cluster " + cluster},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Authority{}, fmt.Errorf("make an authority: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	return Authority{Certificate: c, Key: key}, err
}

// ParseAuthority reads an authority from PEM. key may be empty: see Authority.Key.
func ParseAuthority(certificate, key []byte) (a Authority, err error) {
	if a.Certificate, err = parseCertificate(certificate); err != nil {
		return Authority{}, fmt.Errorf("authority: %w", err)
	}
	if !a.Certificate.IsCA {
		return Authority{}, errors.New("authority: the certificate is no authority's")
	}
	if len(key) == 0 {
		return a, nil
	}
	if a.Key, err = parseKey(key); err != nil {
		return Authority{}, fmt.Errorf("authority: %w", err)
	}
	if public, ok := a.Key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(a.Certificate.PublicKey) {
		return Authority{}, errors.New("authority: the key is not that of the certificate")
	}
	return a, nil
}

// PEM returns the authority's certificate and, if it is known, its key.
func (a Authority) PEM() (certificate, key []byte, err error) {
	if a.Key != nil {
		if key, err = encodeKey(a.Key); err != nil {
			return nil, nil, err
		}
	}
	return encodeCertificate(a.Certificate.Raw), key, nil
}

// Fingerprint is the SHA-256 of the authority's certificate.
func (a Authority) Fingerprint() [sha256.Size]byte { return sha256.Sum256(a.Certificate.Raw) }

// Made is when the authority was made, to the second.
func (a Authority) Made() time.Time { return a.Certificate.NotBefore.Add(backdated) }

// Is reports whether two are the same.
func (a Authority) Is(other Authority) bool {
	return a.Certificate != nil && other.Certificate != nil && bytes.Equal(a.Certificate.Raw, other.Certificate.Raw)
}

// bothSides are the sides of a connection, for which a node's certificate is.
var bothSides = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

// Issue makes a node's certificate, DER, for whoever has the private key of public.
func (a Authority) Issue(name Name, public crypto.PublicKey, now time.Time) ([]byte, error) {
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: fmt.Sprintf("Millrace node %d", name.Node)},
		URIs:        []*url.URL{name.uri()},
		ExtKeyUsage: bothSides,
	}, public, now)
}

// IssueServer makes the certificate by which a broker shows clients that it is at one of
// hosts, names or addresses. It is no node's. It comes with its key, and the authority
// behind it.
func (a Authority) IssueServer(hosts []string, now time.Time) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, errors.New("identity: a server's certificate names no host")
	}
	key, err := NewKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: hosts[0]},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := a.issue(template, key.Public(), now)
	if err != nil {
		return tls.Certificate{}, err
	}
	return chain(der, a, key)
}

func (a Authority) issue(template *x509.Certificate, public crypto.PublicKey, now time.Time) ([]byte, error) {
	if a.Key == nil {
		return nil, errors.New("identity: the authority's key is not known here")
	}
	now = a.since(now)
	template.NotBefore, template.NotAfter = a.Certificate.NotBefore, now.Add(Life)
	if template.NotAfter.After(a.Certificate.NotAfter) {
		template.NotAfter = a.Certificate.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, public, a.Key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	return der, nil
}

// since is now, but for a clock that stands before the authority was made, such as that of a
// machine without a battery until it has been told the time: it is wrong, and its node would
// be kept out for it.
func (a Authority) since(now time.Time) time.Time {
	if now.Before(a.Made()) {
		return a.Made()
	}
	return now
}

// chain is a certificate as a server shows it: with its authority, by which whoever has a
// token knows it.
func chain(der []byte, a Authority, key crypto.Signer) (tls.Certificate, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der, a.Certificate.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// Blocks of PEM.
const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY"
)

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

func parseCertificate(p []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(p)
	if block == nil || block.Type != certificateBlock {
		return nil, errors.New("there is no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(p []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(p)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New("there is no private key in PEM") // whose text is in no error
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the private key cannot be read")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key is of no kind that signs")
	}
	return signer, nil
}
