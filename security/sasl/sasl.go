// Package sasl is the server's side of the ways in which a client of Kafka's protocol says who
// it is: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER. It neither reads connections nor
// knows where users are kept.
//
// One user works with every mechanism: what is kept of a password are SCRAM's verifiers, and
// PLAIN is checked against one of them. Users is asked for a name's verifier whether there is
// such a user or not, and answers alike: a client learns neither from what it is told nor from
// how long that takes whether it was the name that is wrong, or the password.
package sasl

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Mechanism is one of SASL's, by the name that clients call it.
type Mechanism string

// The mechanisms.
const (
	Plain       Mechanism = "PLAIN"         // RFC 4616
	SCRAMSHA256 Mechanism = "SCRAM-SHA-256" // RFC 7677
	SCRAMSHA512 Mechanism = "SCRAM-SHA-512"
	OAuthBearer Mechanism = "OAUTHBEARER" // RFC 7628
)

// A Verifier is what is kept of a password: enough to check one, and not to make one.
type Verifier struct {
	Mechanism  Mechanism // SCRAMSHA256 or SCRAMSHA512
	Iterations int
	Salt       []byte
	StoredKey  []byte
	ServerKey  []byte
}

// Users are those who can log in with a password. They are asked by many goroutines at once.
type Users interface {
	// Verifier returns a user's verifier for a mechanism: of the two of SCRAM its own, for
	// PLAIN either. known says whether there is one. If there is none the verifier is one
	// that no password fits, the same each time for the same name, whose salt and iterations
	// look like those of others.
	Verifier(name string, m Mechanism) (v Verifier, known bool)
}

// A Delegation is what is kept of a delegation token (KIP-48): who has it is its owner, until
// it ends.
type Delegation struct {
	Verifier
	Owner string // a user's name
	Until time.Time
}

// Delegations are the delegation tokens that clients can log in by, which they do by SCRAM.
// They are asked by many goroutines at once.
type Delegations interface {
	// Delegation returns a token by its id. If there is none it is one that nobody has, as
	// Users has them of users.
	Delegation(id string, m Mechanism) (d Delegation, known bool)
}

// An Identity is who a client has shown to be.
type Identity struct {
	Name string
	// Until is when it has to show it again; zero: never.
	Until time.Time
	// Delegated is set of who has shown a delegation token.
	Delegated bool
}

// ErrCredentials is why a log-in is refused when what the client says is not so. It says no
// more than that.
var ErrCredentials = errors.New("invalid credentials")

// A RefusedError is why a log-in is refused, in words that the client may be told.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

func refused(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// A malformedError is about a message that its mechanism does not have.
type malformedError struct {
	mechanism Mechanism
	why       string
}

func (e *malformedError) Error() string {
	return fmt.Sprintf("malformed %s message: %s", e.mechanism, e.why)
}

// An Exchange is one log-in under way. One goroutine uses it.
type Exchange interface {
	// Step takes a message of the client and returns what it is answered. who is set when
	// the client has shown who it is; then, and after an error, the exchange is over.
	//
	// A RefusedError may be told to the client; of any other error it is told nothing but
	// that its credentials are not valid.
	Step(message []byte) (answer []byte, who *Identity, err error)
	// Name is the user's name as the client says it, for logs; "" while it has not said one.
	Name() string
}

// maxMessage bounds a client's message, bytes: a token with many claims is a few KiB.
const maxMessage = 64 << 10

// A Server has what it takes to begin exchanges. It is safe for concurrent use, and its fields
// must not change once it is used.
type Server struct {
	Users Users
	// Delegations are looked up for clients that say they have one. nil: there are none.
	Delegations Delegations
	// Tokens checks the tokens of OAUTHBEARER. nil: it is not among the mechanisms.
	Tokens *Tokens
}

// Begin starts a log-in by a mechanism, which has to be one of the four.
func (s *Server) Begin(m Mechanism) (Exchange, error) {
	switch {
	case m == Plain:
		return &plain{users: s.Users}, nil
	case m == SCRAMSHA256, m == SCRAMSHA512:
		return newSCRAM(s, m)
	case m == OAuthBearer && s.Tokens != nil:
		return &bearer{tokens: s.Tokens}, nil
	}
	return nil, fmt.Errorf("mechanism %q is not served", string(m))
}

// Known lists the mechanisms there are, in the order in which clients are told of them.
func Known() []Mechanism { return []Mechanism{SCRAMSHA512, SCRAMSHA256, Plain, OAuthBearer} }

// Parse finds a mechanism by its name.
func Parse(name string) (Mechanism, bool) {
	return Mechanism(name), slices.Contains(Known(), Mechanism(name))
}
