package sasl

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xdg-go/scram"
)

// Iterations that a verifier may have: fewer are found out too soon, and more cost whoever
// checks them. They are Kafka's bounds.
const (
	MinIterations     = 4096
	MaxIterations     = 16384
	DefaultIterations = 4096
)

// hasher is the hash of one of SCRAM's mechanisms.
func hasher(m Mechanism) func() hash.Hash {
	if m == SCRAMSHA256 {
		return sha256.New
	}
	return sha512.New
}

// NewVerifier makes one of SCRAM's verifiers of a password, under a random salt. Iterations are
// MinIterations to MaxIterations.
func NewVerifier(m Mechanism, password []byte, iterations int) Verifier {
	salt := make([]byte, hasher(m)().Size())
	rand.Read(salt) // it cannot fail
	v := Verifier{Mechanism: m, Iterations: iterations, Salt: salt}
	v.StoredKey, v.ServerKey = v.keys(password)
	return v
}

// VerifierOf makes a verifier of a password that has been salted elsewhere: what PBKDF2 makes
// of it, as clients send it that let no broker read the password (KIP-554).
func VerifierOf(m Mechanism, salted, salt []byte, iterations int) Verifier {
	v := Verifier{Mechanism: m, Iterations: iterations, Salt: salt}
	v.StoredKey, v.ServerKey = v.finish(salted)
	return v
}

// keys derives what is kept of a password: RFC 5802, section 3.
func (v Verifier) keys(password []byte) (stored, server []byte) {
	h := hasher(v.Mechanism)
	salted, err := pbkdf2.Key(h, string(password), v.Salt, v.Iterations, h().Size())
	if err != nil {
		panic("sasl: " + err.Error()) // only of key lengths and modes that this is not
	}
	return v.finish(salted)
}

func (v Verifier) finish(salted []byte) (stored, server []byte) {
	h := hasher(v.Mechanism)
	sum := h()
	sum.Write(mac(h, salted, "Client Key"))
	return sum.Sum(nil), mac(h, salted, "Server Key")
}

func mac(h func() hash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// Fits reports whether the password is the verifier's. How long it takes depends on the
// verifier's iterations and on nothing else.
func (v Verifier) Fits(password []byte) bool {
	stored, _ := v.keys(password)
	return hmac.Equal(stored, v.StoredKey)
}

// scramming is a log-in by SCRAM, of which the library speaks the protocol.
type scramming struct {
	conversation *scram.ServerConversation
	mechanism    Mechanism
	name         string
	known        bool
	verifier     Verifier
	delegated    bool // the name is a delegation token's id
	until        time.Time
	owner        string // of the token
	begun        string // both first messages, as a proof is of them: without the client's header
	nonce        string
	steps        int
}

func newSCRAM(of *Server, m Mechanism) (Exchange, error) {
	s := &scramming{mechanism: m}
	server, err := scram.HashGeneratorFcn(hasher(m)).NewServer(func(name string) (scram.StoredCredentials, error) {
		s.name = name
		if s.delegated = s.delegated && of.Delegations != nil; s.delegated {
			d, known := of.Delegations.Delegation(name, m)
			s.known, s.verifier, s.owner, s.until = known, d.Verifier, d.Owner, d.Until
		} else {
			s.verifier, s.known = of.Users.Verifier(name, m)
		}
		v := s.verifier
		return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations}, StoredKey: v.StoredKey, ServerKey: v.ServerKey}, nil
	})
	if err != nil {
		return nil, err
	}
	s.conversation = server.NewConversation()
	return s, nil
}

// Name implements Exchange.
func (s *scramming) Name() string { return s.name }

// Step implements Exchange.
func (s *scramming) Step(message []byte) ([]byte, *Identity, error) {
	if len(message) > maxMessage || !utf8.Valid(message) || strings.ContainsRune(string(message), 0) {
		return nil, nil, &malformedError{s.mechanism, "it is too long, or no text"}
	}
	if s.steps++; s.steps == 1 {
		s.delegated = NamesDelegation(message)
	}
	answer, err := s.conversation.Step(string(message))
	switch {
	case err != nil && s.steps == 1:
		return nil, nil, &malformedError{s.mechanism, "the first message cannot be read"}
	case err != nil:
		if final, ok := s.doubled(string(message)); ok {
			return final, s.identity(), nil
		}
		return nil, nil, ErrCredentials
	case s.steps == 1 && s.name == "":
		return nil, nil, &malformedError{s.mechanism, "it names nobody"}
	case s.steps == 1:
		if id := s.conversation.AuthzID(); id != "" && id != s.name {
			return nil, nil, refused("Authentication failed: Client requested an authorization id that is different from username")
		}
		s.begin(string(message), answer)
		return []byte(answer), nil, nil
	case !s.conversation.Valid() || !s.known:
		return nil, nil, ErrCredentials
	}
	return []byte(answer), s.identity(), nil
}

// identity is who has logged in.
func (s *scramming) identity() *Identity {
	if s.delegated {
		return &Identity{Name: s.owner, Until: s.until, Delegated: true}
	}
	return &Identity{Name: s.name}
}

// NamesDelegation reports whether a first message of SCRAM's has the extension by which a client
// says that it has a delegation token (KIP-48). Such a log-in costs the server a password's
// work, since no verifier of a token is kept.
func NamesDelegation(first []byte) bool {
	parts := strings.Split(string(first), ",") // the header's two, the name and the nonce, and what may follow
	for i := 4; i < len(parts); i++ {
		if key, value, _ := strings.Cut(parts[i], "="); key == "tokenauth" {
			return strings.EqualFold(value, "true")
		}
	}
	return false
}

// DelegationOf makes what a delegation token is checked against: its password is its HMAC in
// base64.
func DelegationOf(m Mechanism, hmac, salt []byte) Verifier {
	v := Verifier{Mechanism: m, Iterations: MinIterations, Salt: salt}
	v.StoredKey, v.ServerKey = v.keys([]byte(base64.StdEncoding.EncodeToString(hmac)))
	return v
}

// begin keeps what the proof will be of.
func (s *scramming) begin(first, answer string) {
	bare, plain := strings.CutPrefix(first, "n,,") // the header that they send, which c=biws repeats
	if !plain {
		return
	}
	s.begun = bare + "," + answer
	s.nonce, _, _ = strings.Cut(strings.TrimPrefix(answer, "r="), ",")
}

// doubled judges a last message whose nonce is the client's own part twice and then the
// broker's: librdkafka up to 2.6.0, and with it kcat and Python's client of many
// distributions, put its own in front of a nonce that begins with it. Kafka looks at the end
// of the nonce alone and lets them in; the library, which goes by RFC 5802, does not. The proof
// is of the messages as they were sent, with the broker's part in them, and as hard to make.
func (s *scramming) doubled(last string) (final []byte, ok bool) {
	at := strings.LastIndex(last, ",p=")
	if s.steps != 2 || at < 0 || s.begun == "" {
		return nil, false
	}
	proof, err := base64.StdEncoding.DecodeString(last[at+len(",p="):])
	h := hasher(s.verifier.Mechanism)
	own, isDoubled := strings.CutSuffix(strings.TrimPrefix(last[:at], "c=biws,r="), s.nonce)
	if err != nil || len(proof) != h().Size() || !strings.HasPrefix(last, "c=biws,r=") || !isDoubled || own == "" || !strings.HasPrefix(s.nonce, own) {
		return nil, false
	}
	signed := s.begun + "," + last[:at]
	key := make([]byte, len(proof))
	subtle.XORBytes(key, proof, mac(h, s.verifier.StoredKey, signed))
	sum := h()
	sum.Write(key)
	if !hmac.Equal(sum.Sum(nil), s.verifier.StoredKey) || !s.known {
		return nil, false
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(mac(h, s.verifier.ServerKey, signed))), true
}
