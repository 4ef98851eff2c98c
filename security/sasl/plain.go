package sasl

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxPassword bounds a password, bytes. The work of checking one does not grow with it.
const maxPassword = 1024

// ValidatePassword reports what speaks against a password: that some mechanism could not
// carry it. The error does not have it.
func ValidatePassword(password string) error {
	switch {
	case password == "":
		return errors.New("it is empty")
	case len(password) > maxPassword:
		return fmt.Errorf("it has %d bytes; it may have at most %d", len(password), maxPassword)
	case !utf8.ValidString(password), strings.ContainsRune(password, 0):
		return errors.New("it is no text in UTF-8 without a NUL")
	}
	return nil
}

// plain is PLAIN: one message, [authorization id] NUL name NUL password.
type plain struct {
	users Users
	name  string
}

// Name implements Exchange.
func (p *plain) Name() string { return p.name }

// Step implements Exchange.
func (p *plain) Step(message []byte) ([]byte, *Identity, error) {
	if len(message) > maxMessage {
		return nil, nil, &malformedError{Plain, "it is too long"}
	}
	parts := bytes.Split(message, []byte{0})
	if len(parts) != 3 {
		return nil, nil, refused("Invalid SASL/PLAIN response: expected 3 tokens, got %d", len(parts))
	}
	authorize, name, password := string(parts[0]), string(parts[1]), parts[2]
	switch {
	case name == "":
		return nil, nil, refused("Authentication failed: username not specified")
	case len(password) == 0:
		return nil, nil, refused("Authentication failed: password not specified")
	case !utf8.Valid(message):
		return nil, nil, &malformedError{Plain, "it is not UTF-8"}
	}
	p.name = name
	v, known := p.users.Verifier(name, Plain)
	fits := len(password) <= maxPassword && v.Fits(password)
	switch {
	case !known || !fits: // both have been looked at: it takes as long for a name that nobody has
		return nil, nil, refused("Authentication failed: Invalid username or password")
	case authorize != "" && authorize != name:
		return nil, nil, refused("Authentication failed: Client requested an authorization id that is different from username")
	}
	return nil, &Identity{Name: name}, nil
}
