package metadata

import "fmt"

// What is secret is not shown by fmt, in whatever struct or verb, nor by log/slog as text:
// only what it belongs to is. JSON is for the controllers' log and the snapshot, and has it
// all: nothing of this package is to be printed or logged so.

const redacted = "[redacted]"

// String names the mechanism.
func (c Credential) String() string {
	return fmt.Sprintf("%s, %d iterations, %s", c.Mechanism, c.Iterations, redacted)
}

// String says that it is one.
func (a Authority) String() string { return "authority " + redacted }

// String says that it is one.
func (s Secret) String() string { return "secret " + redacted }

// String names the token.
func (t JoinToken) String() string {
	return fmt.Sprintf("join token %s, %d uses until %d, %s", t.ID, t.Uses, t.Expires, redacted)
}

// String names the token and its owner.
func (t DelegationToken) String() string {
	return fmt.Sprintf("delegation token %s of %s, until %d, %s", t.ID, t.Owner, t.Expires, redacted)
}

// String names the user.
func (u User) String() string {
	return fmt.Sprintf("user %s, %d credentials", u.Name, len(u.Credentials))
}

// Format writes the String of it, whatever the verb.
func (u User) Format(f fmt.State, _ rune) { fmt.Fprint(f, u.String()) }

// Format writes the String of it, whatever the verb.
func (c Credential) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// Format writes the String of it, whatever the verb.
func (a Authority) Format(f fmt.State, _ rune) { fmt.Fprint(f, a.String()) }

// Format writes the String of it, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// Format writes the String of it, whatever the verb.
func (t JoinToken) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// Format writes the String of it, whatever the verb.
func (t DelegationToken) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// Format writes what identifies the image: fmt would go through its tables, where it asks no
// String of anything.
func (m Image) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "image of cluster %s at change %d", m.ClusterID, m.Index)
}
