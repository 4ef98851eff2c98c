package sasl

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// signatures are those that a token may have. None is symmetric: who can check a token must
// not be able to make one.
var signatures = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// Tokens checks the JSON Web Tokens of OAUTHBEARER: that one of the issuer's keys signed them,
// for whom, and until when. It is safe for concurrent use, and its fields must not change once
// it is used.
type Tokens struct {
	Keys *Keys
	// Issuer is what a token's iss has to be. "": anything.
	Issuer string
	// Audience are those of which a token's aud has to name one. None: anybody.
	Audience []string
	// Subject is the claim that names the user. "": sub.
	Subject string
	// Skew is how far the clocks of issuer and broker may be apart.
	Skew time.Duration
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Check returns whom a token is about. The error says what is wrong with it, in words for the
// broker's log: it may quote the token's claims, and never the token.
func (t *Tokens) Check(token string) (*Identity, error) {
	now := time.Now
	if t.Now != nil {
		now = t.Now
	}
	parsed, err := jwt.ParseSigned(token, signatures)
	if err != nil {
		return nil, errors.New("it is no signed token that is accepted here (unsigned ones and those of a shared secret are not)")
	}
	if len(parsed.Headers) != 1 {
		return nil, errors.New("it has more than one signature")
	}
	var claims jwt.Claims
	all := make(map[string]any)
	if err := t.Keys.verify(parsed, now(), &claims, &all); err != nil {
		return nil, err
	}
	if claims.Expiry == nil {
		return nil, errors.New("it never ends: the claim exp is missing")
	}
	expected := jwt.Expected{Issuer: t.Issuer, AnyAudience: t.Audience, Time: now()}
	if err := claims.ValidateWithLeeway(expected, t.Skew); err != nil {
		return nil, fmt.Errorf("its claims: %w", err)
	}
	claim := t.Subject
	if claim == "" {
		claim = "sub"
	}
	name, _ := all[claim].(string)
	if name == "" {
		return nil, fmt.Errorf("the claim %s, which is to name the user, is missing or no text", claim)
	}
	return &Identity{Name: name, Until: claims.Expiry.Time()}, nil
}

// bearer is OAUTHBEARER: a message with a token; if that is no good an answer that says so, and
// a message that means nothing.
type bearer struct {
	tokens *Tokens
	name   string
	failed error
}

// Name implements Exchange.
func (b *bearer) Name() string { return b.name }

// invalidToken is what a client is answered whose token is no good: RFC 7628, section 3.2.2.
// Java's client parses it.
var invalidToken, _ = json.Marshal(map[string]string{"status": "invalid_token"})

// A BadTokenError is why a token was refused, for the broker's log alone.
type BadTokenError struct{ Reason error }

func (e *BadTokenError) Error() string { return "token refused: " + e.Reason.Error() }

// Unwrap returns the reason.
func (e *BadTokenError) Unwrap() error { return e.Reason }

// Step implements Exchange.
func (b *bearer) Step(message []byte) ([]byte, *Identity, error) {
	if b.failed != nil {
		return nil, nil, &BadTokenError{b.failed}
	}
	authorize, token, err := parseBearer(message)
	if err != nil {
		return nil, nil, err
	}
	who, err := b.tokens.Check(token)
	if err != nil {
		b.failed = err
		return invalidToken, nil, nil
	}
	b.name = who.Name
	if authorize != "" && authorize != who.Name {
		return nil, nil, refused("Authentication failed: Client requested an authorization id that is different from the token's principal name")
	}
	return nil, who, nil
}

// names undoes the two escapes of a name: RFC 5802, section 5.1.
var names = strings.NewReplacer("=2C", ",", "=3D", "=")

// parseBearer takes the first message apart, RFC 7628, section 3.1: n,[a=NAME], then pairs
// KEY=VALUE, each between two bytes 1, and two of those at the end. One key is auth, and its
// value "Bearer TOKEN"; the others are extensions, which mean nothing here.
func parseBearer(message []byte) (authorize, token string, err error) {
	bad := func(why string) (string, string, error) { return "", "", &malformedError{OAuthBearer, why} }
	if len(message) > maxMessage || !utf8.Valid(message) {
		return bad("it is too long, or no text")
	}
	header, pairs, _ := strings.Cut(string(message), "\x01")
	parts := strings.Split(header, ",")
	if len(parts) != 3 || parts[0] != "n" || parts[2] != "" || parts[1] != "" && !strings.HasPrefix(parts[1], "a=") {
		return bad("it does not begin with n,[a=NAME],")
	}
	pairs, ended := strings.CutSuffix(pairs, "\x01\x01")
	if !ended {
		return bad("it does not end with two bytes 1")
	}
	for pair := range strings.SplitSeq(pairs, "\x01") {
		key, value, ok := strings.Cut(pair, "=")
		switch {
		case !ok:
			return bad("something in it is no KEY=VALUE")
		case key != "auth":
		case token != "":
			return bad("it has two tokens")
		default:
			scheme, rest, _ := strings.Cut(value, " ")
			if token = strings.TrimSpace(rest); !strings.EqualFold(scheme, "Bearer") || token == "" {
				return bad("auth is not Bearer TOKEN")
			}
		}
	}
	if token == "" {
		return bad("it has no token")
	}
	return names.Replace(strings.TrimPrefix(parts[1], "a=")), token, nil
}
