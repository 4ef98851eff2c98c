package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

const (
	tokenPrefix = "millrace-join-1."
	maxToken    = 4096 // bytes
	secretSize  = 32
	idSize      = 8
)

// A Token lets whoever has it become a node of a cluster: where its nodes are, what authority
// they show, and a secret that they know the hash of. Its text is
//
//	millrace-join-1. and base64url of {"id", "secret", "authority", "nodes"}
//
// with the id in hex, the secret and the SHA-256 of the authority's certificate in base64.
type Token struct {
	ID        string            // by which the cluster finds the hash, 16 hex digits
	Secret    []byte            // 32 random bytes
	Authority [sha256.Size]byte // Authority.Fingerprint of the cluster's
	Nodes     []string          // HOST:PORT
}

type tokenJSON struct {
	ID        string   `json:"id"`
	Secret    []byte   `json:"secret"`
	Authority []byte   `json:"authority"`
	Nodes     []string `json:"nodes"`
}

// ErrToken is that of a text which is no token. It never shows the text.
var ErrToken = errors.New("identity: this is no join token, or only a part of one")

// NewToken makes a token for an authority's cluster, whose nodes are at addresses.
func NewToken(a Authority, nodes []string) Token {
	t := Token{Secret: make([]byte, secretSize), Authority: a.Fingerprint(), Nodes: nodes}
	rand.Read(t.Secret)
	id := make([]byte, idSize)
	rand.Read(id)
	t.ID = hex.EncodeToString(id)
	return t
}

// Encode returns the token's text. It is no Stringer, so that no log shows it by mistake.
func (t Token) Encode() string {
	p, _ := json.Marshal(tokenJSON{t.ID, t.Secret, t.Authority[:], t.Nodes}) // of strings and bytes: no error
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(p)
}

// IsToken reports whether a text means to be one, and not an address.
func IsToken(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), tokenPrefix) }

// ParseToken reads a token's text. ErrToken.
func ParseToken(text string) (t Token, err error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok || len(text) > maxToken {
		return t, ErrToken
	}
	p, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return t, ErrToken
	}
	var j tokenJSON
	if json.Unmarshal(p, &j) != nil {
		return t, ErrToken
	}
	id, err := hex.DecodeString(j.ID)
	if err != nil || len(id) != idSize || len(j.Secret) != secretSize || len(j.Authority) != sha256.Size || len(j.Nodes) == 0 {
		return t, ErrToken
	}
	for _, node := range j.Nodes {
		if _, _, err := net.SplitHostPort(node); err != nil {
			return t, fmt.Errorf("%w: it names a node at %.100q, which is not HOST:PORT", ErrToken, node)
		}
	}
	return Token{ID: j.ID, Secret: j.Secret, Authority: [sha256.Size]byte(j.Authority), Nodes: j.Nodes}, nil
}

// HashSecret is what the cluster keeps of a token's secret: it is random and as long as the
// hash, so that to try secrets is hopeless and no slow hash is needed.
func HashSecret(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

// SecretIs reports whether a hash is that of a secret, in a time that does not tell how much
// of it is right.
func SecretIs(secret, hash []byte) bool {
	return subtle.ConstantTimeCompare(HashSecret(secret), hash) == 1
}

// ErrOtherAuthority is that of a handshake with a node that is not of the token's cluster, or
// not any more.
var ErrOtherAuthority = errors.New("identity: the node shows another authority than the token names: it is of another cluster, or the cluster's authority has been changed since, and it takes a new token")

// Client is how whoever has a token dials a node: with Join, and only one that shows a
// certificate of the token's authority, and that authority's own.
func (t Token) Client(now func() time.Time) *tls.Config {
	cfg := base(now)
	cfg.NextProtos = []string{Join}
	cfg.VerifyConnection = pinned{t, now}.connection
	return cfg
}

// A pinned judges the server of a handshake by a token.
type pinned struct {
	Token
	now func() time.Time
}

// connection implements tls.Config.VerifyConnection.
func (p pinned) connection(state tls.ConnectionState) error {
	for _, shown := range state.PeerCertificates {
		a := Authority{Certificate: shown}
		if a.Fingerprint() != p.Authority {
			continue
		}
		if !shown.IsCA {
			break
		}
		_, _, err := (&Credentials{Trusted: []Authority{a}}).verify(state.PeerCertificates[:1], clock(p.now))
		return err
	}
	return ErrOtherAuthority
}

// Unpinned is how a node without a token dials one at a loopback address: with Join, and
// whoever answers there. What it is given is judged by what it says.
func Unpinned(now func() time.Time) *tls.Config {
	cfg := base(now)
	cfg.NextProtos = []string{Join}
	return cfg
}

// NewRequest asks for a certificate for a key: PKCS #10, DER. It shows that whoever asks has
// the key.
func NewRequest(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
}

// Grant issues the certificate, PEM, that a request asks for. What the request says beside
// the key is not looked at.
func (a Authority) Grant(name Name, request []byte, now time.Time) ([]byte, error) {
	r, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = r.CheckSignature()
	}
	if err == nil {
		if _, ok := r.PublicKey.(*ecdsa.PublicKey); !ok {
			err = fmt.Errorf("a key of type %T", r.PublicKey)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("identity: request for a certificate: %w", err)
	}
	der, err := a.Issue(name, r.PublicKey, now)
	if err != nil {
		return nil, err
	}
	return encodeCertificate(der), nil
}
