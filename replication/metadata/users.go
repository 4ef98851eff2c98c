package metadata

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"millrace/replication/metadata/settings"
	"millrace/security/acl"
)

// SuperUsers is the cluster's setting that names principals who may do everything.
const SuperUsers = "super.users"

// A Mechanism is one of SCRAM's, under the number Kafka has for it.
type Mechanism int8

// The mechanisms.
const (
	ScramSHA256 Mechanism = 1
	ScramSHA512 Mechanism = 2
)

// String is its name in SASL.
func (m Mechanism) String() string {
	switch m {
	case ScramSHA256:
		return "SCRAM-SHA-256"
	case ScramSHA512:
		return "SCRAM-SHA-512"
	}
	return "UNKNOWN"
}

// KeyBytes is how long its keys are, and what PBKDF2 makes of a password.
func (m Mechanism) KeyBytes() int {
	if m == ScramSHA512 {
		return 64
	}
	return 32
}

// MinIterations and MaxIterations bound the iterations of a credential (Kafka's
// ScramMechanism.minIterations and maxIterations).
const (
	MinIterations = 4096
	MaxIterations = 16384
)

// A User is who may log in, and how that is checked: PLAIN too, by any of the credentials.
type User struct {
	Name        string
	Credentials []Credential // by mechanism, one or more, one a mechanism
}

// Credential finds the user's credential for a mechanism.
func (u *User) Credential(m Mechanism) (*Credential, bool) {
	for i := range u.Credentials {
		if u.Credentials[i].Mechanism == m {
			return &u.Credentials[i], true
		}
	}
	return nil, false
}

// A Credential is what is kept of a password for one mechanism (RFC 5802, section 3).
type Credential struct {
	Mechanism  Mechanism
	Iterations int32
	Salt       []byte
	StoredKey  []byte
	ServerKey  []byte
}

// AlterUsers adds users, gives known ones other credentials, and deletes others.
//
// The first user that a cluster gets becomes a super user, the first of Upsert if there are
// several: unless the cluster's setting super.users is set, it then names that user.
//
// Errors: ErrNoCluster, ErrLevel, ErrInvalidUser, ErrUnknownUser, ErrConfigChanged, ErrLimit.
type AlterUsers struct {
	Upsert []User   `json:",omitempty"` // all of each user: credentials that are not in it are gone
	Delete []string `json:",omitempty"` // names
	// Judged, if it is not 0, is the Index of the image by which Upsert was computed: the
	// change is refused on any other as ErrConfigChanged. Who gives a user one more credential needs it.
	Judged uint64 `json:",omitempty"`
}

func (AlterUsers) kind() string { return "AlterUsers" }
func (AlterUsers) level() int32 { return 4 }

func (c AlterUsers) apply(next *Image) error {
	if err := next.needsLevel4("users"); err != nil {
		return err
	}
	if c.Judged != 0 && c.Judged != next.Index {
		return refuse(ErrConfigChanged, "the users were judged by the image at change %d, and it is at %d now", c.Judged, next.Index)
	}
	touched := make(map[string]*User, len(c.Upsert)+len(c.Delete)) // nil: it is deleted
	for _, name := range c.Delete {
		if _, ok := next.user(name); !ok {
			return refuse(ErrUnknownUser, "There is no user %s.", settings.Shown(name))
		}
		touched[name] = nil
	}
	for i := range c.Upsert {
		if _, twice := touched[c.Upsert[i].Name]; twice {
			return refuse(ErrInvalidUser, "User %s is in the change twice.", settings.Shown(c.Upsert[i].Name))
		}
		u := c.Upsert[i].clone()
		if err := validUser(u); err != nil {
			return err
		}
		touched[u.Name] = u
	}
	if len(touched) == 0 {
		return nil
	}
	if len(next.users) == 0 && len(c.Upsert) > 0 {
		if err := crown(next, c.Upsert[0].Name); err != nil {
			return err
		}
	}
	users := make([]*User, 0, len(next.users)+len(c.Upsert))
	more := 0
	for _, u := range next.users {
		if _, changed := touched[u.Name]; changed {
			more -= u.size()
		} else {
			users = append(users, u)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(touched)) {
		if u := touched[name]; u != nil {
			users = append(users, u)
			more += u.size()
		}
	}
	slices.SortFunc(users, func(a, b *User) int { return cmp.Compare(a.Name, b.Name) })
	if len(users) > MaxUsers && len(users) > len(next.users) {
		return refuse(ErrLimit, "The cluster would have %d users; it may have at most %d.", len(users), MaxUsers)
	}
	if len(users) == 0 {
		users = nil
	}
	next.users = users
	if err := keepDelegations(next, func(t *DelegationToken) bool {
		name, isUser := strings.CutPrefix(t.Owner, "User:")
		_, changed := touched[name]
		return !isUser || !changed || touched[name] != nil
	}); err != nil {
		return err
	}
	if next.userBytes += more; more > 0 && next.userBytes > MaxUserBytes {
		return refuse(ErrLimit, "All users would take %d bytes; they may take at most %d.", next.userBytes, MaxUserBytes)
	}
	return next.grow(more)
}

// crown makes the cluster's first user a super user, if nobody was named as one.
func crown(next *Image, name string) error {
	if _, set := next.BrokerConfig(0)[SuperUsers]; set {
		return nil
	}
	if strings.Contains(name, ";") {
		return refuse(ErrInvalidUser, "The first user becomes a super user, and %s, where these are listed, ends a name at a semicolon: choose another name than %s.", SuperUsers, settings.Shown(name))
	}
	return SetBrokerConfig{Set: map[string]string{SuperUsers: "User:" + name}}.apply(next)
}

// check holds new credentials to Kafka's bounds of iterations, which say nothing of old ones.
func (c AlterUsers) check(_, _ *Image) error {
	for _, u := range c.Upsert {
		for _, cr := range u.Credentials {
			if cr.Iterations < MinIterations || cr.Iterations > MaxIterations {
				return refuse(ErrInvalidUser, "User %s: %d iterations of %s; there must be %d to %d.", settings.Shown(u.Name), cr.Iterations, cr.Mechanism, MinIterations, MaxIterations)
			}
		}
	}
	return nil
}

// ValidateUserName refuses names that no user may have. The error is ErrInvalidUser.
func ValidateUserName(name string) error {
	switch {
	case name == "":
		return refuse(ErrInvalidUser, "Username must not be empty")
	case !text(name):
		return refuse(ErrInvalidUser, "The name of user %s is not a text of at most %d bytes without control characters.", settings.Shown(name), maxText)
	case strings.TrimSpace(name) != name:
		return refuse(ErrInvalidUser, "The name of user %q begins or ends with a space.", settings.Shown(name))
	case "User:"+name == acl.AnyPrincipal || "User:"+name == acl.Anonymous:
		return refuse(ErrInvalidUser, "No user can be called %s: User:%s means others.", name, name)
	}
	return nil
}

// validUser reports what is wrong with a user, and sorts its credentials.
func validUser(u *User) error {
	if err := ValidateUserName(u.Name); err != nil {
		return err
	}
	name := settings.Shown(u.Name)
	if len(u.Credentials) == 0 {
		return refuse(ErrInvalidUser, "User %s has no credentials.", name)
	}
	slices.SortFunc(u.Credentials, func(a, b Credential) int { return cmp.Compare(a.Mechanism, b.Mechanism) })
	for i, c := range u.Credentials {
		switch {
		case c.Mechanism != ScramSHA256 && c.Mechanism != ScramSHA512:
			return refuse(ErrInvalidUser, "User %s: Unknown SCRAM mechanism %d", name, c.Mechanism)
		case i > 0 && c.Mechanism == u.Credentials[i-1].Mechanism:
			return refuse(ErrInvalidUser, "User %s has two credentials of %s.", name, c.Mechanism)
		case c.Iterations < 1:
			return refuse(ErrInvalidUser, "User %s: %d iterations of %s.", name, c.Iterations, c.Mechanism)
		case len(c.Salt) == 0 || len(c.Salt) > maxSalt:
			return refuse(ErrInvalidUser, "User %s: a salt has 1 to %d bytes, not %d.", name, maxSalt, len(c.Salt))
		case len(c.StoredKey) != c.Mechanism.KeyBytes() || len(c.ServerKey) != c.Mechanism.KeyBytes():
			return refuse(ErrInvalidUser, "User %s: the keys of %s have %d bytes.", name, c.Mechanism, c.Mechanism.KeyBytes())
		}
	}
	return nil
}

func (u User) clone() *User {
	u.Credentials = slices.Clone(u.Credentials)
	for i := range u.Credentials {
		c := &u.Credentials[i]
		c.Salt, c.StoredKey, c.ServerKey = slices.Clone(c.Salt), slices.Clone(c.StoredKey), slices.Clone(c.ServerKey)
	}
	return &u
}

// size bounds what Encode writes for a user.
func (u *User) size() int {
	size := 40 + jsonLen(u.Name)
	for _, c := range u.Credentials {
		size += 40 + base64Len(c.Salt) + base64Len(c.StoredKey) + base64Len(c.ServerKey)
	}
	return size
}

func base64Len(b []byte) int { return 2 + (len(b)+2)/3*4 }

// As written: {"name":…,"credentials":[[mechanism,iterations,salt,storedKey,serverKey],…]}.
type userBody struct {
	Name        string           `json:"name"`
	Credentials []credentialBody `json:"credentials"`
}

type credentialBody Credential

// MarshalJSON writes an array, without names that 10,000 users would repeat.
func (c credentialBody) MarshalJSON() ([]byte, error) {
	return compact([]any{c.Mechanism, c.Iterations, c.Salt, c.StoredKey, c.ServerKey}), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *credentialBody) UnmarshalJSON(b []byte) error {
	return array(b, "a credential", &c.Mechanism, &c.Iterations, &c.Salt, &c.StoredKey, &c.ServerKey)
}

func (m *access) userBodies() (bodies []userBody) {
	for _, u := range m.users {
		b := userBody{Name: u.Name}
		for _, c := range u.Credentials {
			b.Credentials = append(b.Credentials, credentialBody(c))
		}
		bodies = append(bodies, b)
	}
	return bodies
}
