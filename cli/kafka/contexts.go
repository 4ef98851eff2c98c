package kafka

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"millrace/cli/term"
)

// A Note is how one cluster is reached, under a name: a context.
type Note struct {
	Brokers      string            `json:"brokers"` // HOST:PORT,…
	User         string            `json:"user,omitempty"`
	PasswordFile string            `json:"password_file,omitempty"`
	Password     string            `json:"password,omitempty"` // instead of a file
	TLSCA        string            `json:"tls_ca,omitempty"`   // a path, as those below
	TLSCert      string            `json:"tls_cert,omitempty"`
	TLSKey       string            `json:"tls_key,omitempty"`
	Properties   map[string]string `json:"properties,omitempty"` // of Kafka's clients
}

// Contexts is the file of contexts, which lies in the user's folder for configuration and
// which nobody else may read: there may be passwords in it.
type Contexts struct {
	Current string          `json:"current,omitempty"` // which is used when none is named
	Notes   map[string]Note `json:"contexts"`
}

// contextsFile is where they lie.
func contextsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("look for contexts: %w", err)
	}
	return filepath.Join(dir, "millrace", "contexts.json"), nil
}

// ReadContexts reads the file; without one there are no contexts.
func ReadContexts() (*Contexts, error) {
	all := &Contexts{Notes: make(map[string]Note)}
	name, err := contextsFile()
	if err != nil {
		return all, nil // nobody has a home, and so no contexts
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	if info, err := os.Stat(name); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, term.Fail(term.StatusNotAllowed, "others may read %s, where passwords may be: `chmod 600 %[1]s`", name)
	}
	if err := json.Unmarshal(b, all); err != nil {
		return nil, term.Fail(term.StatusFailed, "%s holds no contexts, as JSON: mend or remove it", name)
	}
	if all.Notes == nil {
		all.Notes = make(map[string]Note)
	}
	return all, nil
}

// Write replaces the file.
func (c *Contexts) Write() error {
	name, err := contextsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "contexts-*") // for nobody but its owner
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	defer os.Remove(f.Name()) // it is gone if all went well
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	return nil
}

// Names are those of all contexts, in order.
func (c *Contexts) Names() []string { return slices.Sorted(maps.Keys(c.Notes)) }

// Find returns the context of a name.
func (c *Contexts) Find(name string) (Note, error) {
	n, ok := c.Notes[name]
	if !ok {
		return n, term.Fail(term.StatusNotFound, "context %q does not exist%s", name, term.DidYouMean(name, c.Names()))
	}
	return n, nil
}

// properties is the note as a layer of properties.
func (n Note) properties(name string) (layer, error) {
	l := layer{}
	for _, key := range slices.Sorted(maps.Keys(n.Properties)) {
		if _, err := l.take("context "+name, key, n.Properties[key]); err != nil {
			return nil, err
		}
	}
	for prop, value := range map[string]string{
		propBrokers: n.Brokers, propUser: n.User, propPassword: n.Password, propSecretFile: n.PasswordFile,
		propRoots: n.TLSCA, propCert: n.TLSCert, propKey: n.TLSKey,
	} {
		if value != "" {
			l[prop] = value
		}
	}
	return l, nil
}

// noteFor returns the properties of the context of a name, or, for "", of the one in use, if
// that is wanted: who names brokers means those, and not the password for others.
func noteFor(name string, inUse bool) (layer, error) {
	if name == "" && !inUse {
		return layer{}, nil
	}
	all, err := ReadContexts()
	if err != nil {
		return nil, err
	}
	if name == "" {
		if name = all.Current; name == "" {
			return layer{}, nil
		}
	}
	n, err := all.Find(name)
	if err != nil {
		return nil, err
	}
	return n.properties(name)
}

// Check says what is wrong with a note, before it is kept.
func (n Note) Check() error {
	if n.Brokers != "" {
		if _, err := ParseBrokers("--brokers", n.Brokers); err != nil {
			return err
		}
	}
	l, err := n.properties("")
	if err != nil {
		return err
	}
	_, err = accessOf(l, func(string) (string, error) { return "asked for each time", nil })
	return err
}

// ParseProperties reads -X flags, for a context to keep.
func ParseProperties(pairs []string) (map[string]string, error) {
	all := make(map[string]string)
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if is, err := (layer{}).take("-X", key, value); err != nil {
			return nil, err
		} else if !ok || !is || key == propPassword || key == propLogin {
			return nil, term.Usage("-X %s: it is KEY=VALUE, a property that says how a cluster is reached, and no secret", key)
		}
		all[key] = value
	}
	return all, nil
}
