package millrace

import (
	"encoding/json"
	"fmt"

	"millrace/replication/metadata"
	"millrace/security/sasl"
)

// A UserSecret is a user with the password. Neither fmt nor JSON shows the password.
type UserSecret struct {
	Name     string
	Password string
}

// Format writes the name, whatever the verb.
func (u UserSecret) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "user %s [redacted]", u.Name) }

// MarshalJSON writes the name alone.
func (u UserSecret) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct{ Name string }{u.Name})
}

// takeUsers checks the first users and makes of each password what is kept of it. They may
// log in by every mechanism.
func (b *Broker) takeUsers() error {
	taken := make(map[string]bool)
	for _, u := range b.cfg.Users {
		if err := metadata.ValidateUserName(u.Name); err != nil {
			return fmt.Errorf("millrace: Config.Users: %w", err)
		}
		if taken[u.Name] {
			return fmt.Errorf("millrace: Config.Users has user %s twice", u.Name)
		}
		taken[u.Name] = true
		if err := sasl.ValidatePassword(u.Password); err != nil {
			return fmt.Errorf("millrace: Config.Users: the password of %s: %w", u.Name, err)
		}
	}
	return nil
}

// firstUsers are those with whom the cluster begins, as it keeps them.
func (b *Broker) firstUsers() (all []metadata.User) {
	for _, u := range b.cfg.Users {
		user := metadata.User{Name: u.Name}
		for _, m := range []metadata.Mechanism{metadata.ScramSHA256, metadata.ScramSHA512} {
			v := sasl.NewVerifier(sasl.Mechanism(m.String()), []byte(u.Password), sasl.DefaultIterations)
			user.Credentials = append(user.Credentials, metadata.Credential{
				Mechanism: m, Iterations: int32(v.Iterations), Salt: v.Salt, StoredKey: v.StoredKey, ServerKey: v.ServerKey,
			})
		}
		all = append(all, user)
	}
	return all
}
