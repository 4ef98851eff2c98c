package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Credentials are what a node proves who it is by, and whom it believes. They do not change:
// what takes their place is made anew.
type Credentials struct {
	Name    Name
	Trusted []Authority // whose certificates it believes; the one that issued its own is among them
	own     tls.Certificate
}

// NewCredentials issues a node's certificate from the first of some authorities, with a new
// key.
func NewCredentials(name Name, authorities []Authority, now time.Time) (*Credentials, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	return issued(name, authorities, key, now)
}

func issued(name Name, authorities []Authority, key crypto.Signer, now time.Time) (*Credentials, error) {
	if len(authorities) == 0 {
		return nil, errors.New("identity: the cluster has no authority")
	}
	der, err := authorities[0].Issue(name, key.Public(), now)
	if err != nil {
		return nil, err
	}
	own, err := chain(der, authorities[0], key)
	return &Credentials{Name: name, Trusted: authorities, own: own}, err
}

// NewMember makes the credentials of a node that was taken in: key is its own, certificate
// and authorities, PEM, are what it was given.
func NewMember(key crypto.Signer, certificate []byte, authorities [][]byte, now time.Time) (*Credentials, error) {
	c := new(Credentials)
	for _, p := range authorities {
		a, err := ParseAuthority(p, nil)
		if err != nil {
			return nil, err
		}
		c.Trusted = append(c.Trusted, a)
	}
	leaf, err := parseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	return c, c.adopt(leaf, key, now)
}

// adopt makes a certificate the node's own, if it is good.
func (c *Credentials) adopt(leaf *x509.Certificate, key crypto.Signer, now time.Time) error {
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return errors.New("identity: the certificate is not for the key that is here")
	}
	issuer, name, err := c.verify([]*x509.Certificate{leaf}, now)
	if err != nil {
		return err
	}
	c.Name = name
	c.own, err = chain(leaf.Raw, issuer, key)
	return err
}

// Renewed returns credentials as the cluster has them now: issued by the first of its
// authorities, whose key must be known, believing all of them. It returns c itself if
// that is what they are, and less than two thirds of their life have passed.
func (c *Credentials) Renewed(authorities []Authority, now time.Time) (*Credentials, error) {
	if len(authorities) == 0 {
		return c, nil
	}
	first := authorities[0]
	if first.Key == nil || c.issuedBy(first) && !c.Old(first.since(now)) {
		if sameAuthorities(c.Trusted, authorities) {
			return c, nil
		}
		renewed := *c
		renewed.Trusted = authorities
		return &renewed, nil
	}
	key := c.own.PrivateKey.(crypto.Signer) // the node's, which NewCredentials or adopt put there
	return issued(c.Name, authorities, key, now)
}

func sameAuthorities(a, b []Authority) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Is(b[i]) || (a[i].Key == nil) != (b[i].Key == nil) {
			return false
		}
	}
	return true
}

func (c *Credentials) issuedBy(a Authority) bool {
	return bytes.Equal(c.own.Certificate[1], a.Certificate.Raw)
}

// Old reports whether a third or less of the certificate's life is left.
func (c *Credentials) Old(now time.Time) bool { return c.own.Leaf.NotAfter.Sub(now) <= Life/3 }

// Ends is when the certificate does.
func (c *Credentials) Ends() time.Time { return c.own.Leaf.NotAfter }

// Issuer is the authority that issued the certificate.
func (c *Credentials) Issuer() Authority {
	for _, a := range c.Trusted {
		if c.issuedBy(a) {
			return a
		}
	}
	leaf, _ := x509.ParseCertificate(c.own.Certificate[1]) // chain was given it parsed
	return Authority{Certificate: leaf}
}

// verify finds the authority that a certificate was issued by and whom it names. It must be
// good for both sides of a connection, at the time.
func (c *Credentials) verify(shown []*x509.Certificate, now time.Time) (issuer Authority, name Name, err error) {
	if len(shown) == 0 {
		return issuer, name, errors.New("identity: no certificate was shown")
	}
	leaf := shown[0]
	if name, err = NameOf(leaf); err != nil {
		return issuer, name, err
	}
	for _, usage := range bothSides {
		if !slices.Contains(leaf.ExtKeyUsage, usage) {
			return issuer, name, fmt.Errorf("identity: the certificate of node %s is not for both sides of a connection", name)
		}
	}
	err = errors.New("the cluster has no authority")
	for _, a := range c.Trusted {
		roots := x509.NewCertPool()
		roots.AddCert(a.Certificate)
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: a.since(now), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			continue
		}
		if err != nil {
			err = fmt.Errorf("identity: the certificate of node %s: %w", name, err)
		}
		return a, name, err
	}
	return issuer, name, fmt.Errorf("identity: the certificate of node %s: %w", name, err)
}

// Encode returns the credentials as they are kept in a file: the private key, the node's
// certificate, and those of the authorities that it believes, all PEM. No authority's key is
// among them.
func (c *Credentials) Encode() ([]byte, error) {
	p, err := encodeKey(c.own.PrivateKey.(crypto.Signer))
	if err != nil {
		return nil, err
	}
	p = append(p, encodeCertificate(c.own.Certificate[0])...)
	for _, a := range c.Trusted {
		p = append(p, encodeCertificate(a.Certificate.Raw)...)
	}
	return p, nil
}

// DecodeCredentials reads what Encode wrote. That the certificate has ended is no error:
// whoever has an authority's key renews it. No error shows what is in p.
func DecodeCredentials(p []byte) (*Credentials, error) {
	keyPEM, rest := pem.Decode(p)
	leafPEM, rest := pem.Decode(rest)
	if keyPEM == nil || leafPEM == nil {
		return nil, errors.New("it does not hold a private key and a certificate in PEM")
	}
	key, err := parseKey(pem.EncodeToMemory(keyPEM))
	if err != nil {
		return nil, err
	}
	leaf, err := parseCertificate(pem.EncodeToMemory(leafPEM))
	if err != nil {
		return nil, err
	}
	c := new(Credentials)
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		a, err := ParseAuthority(pem.EncodeToMemory(block), nil)
		if err != nil {
			return nil, err
		}
		c.Trusted = append(c.Trusted, a)
	}
	now := leaf.NotBefore // at which it is good, if it ever was
	return c, c.adopt(leaf, key, now)
}
