// Package keyring is what a node proves who it is by: its key and its certificate, which lie
// in its data folder, and the authorities of its cluster, which are in the cluster's image.
//
// Whoever has the image has the authorities' keys, so that a node issues its certificate to
// itself: when the cluster gets its first authority, when the certificate has a third of its
// life left, when another authority comes first, and when the node comes back as a new
// incarnation. One that joins is given its first certificate, since it has no image yet.
//
// A keyring goes by what the image says at the moment in which it is asked, and so needs
// nobody to tell it of a change.
package keyring

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"millrace/internal/slowlog"
	"millrace/replication/folder"
	"millrace/replication/identity"
	"millrace/replication/metadata"
)

// ErrNoCertificate is that of a node which cannot prove who it is.
var ErrNoCertificate = errors.New("keyring: this node has no certificate of its cluster yet")

// Images is who knows the cluster's metadata.
type Images interface {
	Image() *metadata.Image
}

// A Keyring is one node's. Any goroutine may call its methods.
type Keyring struct {
	folder folder.Folder
	logger *slog.Logger

	mu          sync.Mutex
	images      Images        // nil: none is known yet
	name        identity.Name // zero: the node belongs to no cluster yet
	own         *identity.Credentials
	listed      []metadata.Authority // that authorities are, as the image has them
	authorities []identity.Authority
	unsaved     bool      // own is other than in the file
	saveAgain   time.Time // when it is tried next, if it is unsaved

	said slowlog.Limit // at each handshake there would be something to say
}

// saveEvery is how often a certificate is tried to be saved that could not be, and how often
// that is said: a keyring is asked at each handshake, which strangers begin.
const saveEvery = 10 * time.Second

// Open reads what is in the folder. That it cannot be read is logged, and is as if there were
// nothing: most often the image has what it takes to make it anew.
func Open(f folder.Folder, logger *slog.Logger) *Keyring {
	k := &Keyring{folder: f, logger: logger, said: slowlog.Limit{Every: saveEvery}}
	p, err := os.ReadFile(f.Path(folder.CredentialsName))
	if err == nil {
		k.own, err = identity.DecodeCredentials(p)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		logger.Warn("the node's certificate cannot be read, and is made anew if the cluster's metadata is here", "file", f.Path(folder.CredentialsName), "error", err)
		k.own = nil
	}
	return k
}

// Was is whom the certificate in the folder names, zero if there is none: the node's last
// incarnation, if it has another now.
func (k *Keyring) Was() identity.Name {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own == nil {
		return identity.Name{}
	}
	return k.own.Name
}

// Old reports whether the certificate has to be made anew, or there is none.
func (k *Keyring) Old() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.own == nil || k.own.Old(time.Now())
}

// Belongs says who the node is from now on, and who knows the cluster's metadata. A
// certificate in another name is of no use any more.
func (k *Keyring) Belongs(name identity.Name, images Images) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.name, k.images = name, images
	k.listed = nil
	if k.own != nil && k.own.Name != name {
		k.own = nil
	}
}

// Take makes what a node was given that joined its own.
func (k *Keyring) Take(own *identity.Credentials) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.name, k.own = own.Name, own
	return k.saveLocked()
}

// Credentials are what the node proves who it is by, as the image has it now. Nil: nothing.
func (k *Keyring) Credentials() *identity.Credentials {
	own, err := k.current()
	if err != nil {
		k.said.Error(k.logger, "current", "the node's certificate is not as the cluster has it", "error", err)
	}
	return own
}

// current is Credentials, and why they are not as the image has it.
func (k *Keyring) current() (*identity.Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.refreshLocked(time.Now())
	return k.own, err
}

// Certified reports whether the node can prove who it is.
func (k *Keyring) Certified() bool { return k.Credentials() != nil }

// refreshLocked brings own and authorities up to date, with mu held.
func (k *Keyring) refreshLocked(now time.Time) error {
	if k.name == (identity.Name{}) || k.images == nil {
		return nil
	}
	if listed := k.images.Image().Authorities(); !slices.Equal(listed, k.listed) {
		authorities, err := Parse(listed)
		if err != nil {
			return err
		}
		k.listed, k.authorities = listed, authorities
	}
	if len(k.authorities) == 0 { // there is none yet, or the image is not here yet
		return nil
	}
	// No node has a certificate of a later authority than the first, so that the image is from
	// before: the last one that was saved, of a node that was let in again or ended just after a
	// rotation. Nobody would believe what it could make by that one, nor it them.
	if k.own != nil && k.own.Issuer().Made().After(k.authorities[0].Made()) {
		return nil
	}
	before := k.own
	var err error
	if k.own == nil {
		k.own, err = identity.NewCredentials(k.name, k.authorities, now)
	} else {
		k.own, err = before.Renewed(k.authorities, now)
	}
	if err != nil {
		k.own = before
		return err
	}
	if k.own != before || k.unsaved && !now.Before(k.saveAgain) {
		if err := k.saveLocked(); err != nil { // it holds all the same, and is made again at the next start
			k.saveAgain = now.Add(saveEvery)
			k.said.Warn(k.logger, "save", "the node's certificate was not saved, trying again", "error", err)
		}
	}
	if before == nil || !before.Ends().Equal(k.own.Ends()) {
		k.logger.Info("issued a certificate to this node", "name", k.own.Name, "ends", k.own.Ends())
	}
	return nil
}

// saveLocked keeps own in the folder, with mu held.
func (k *Keyring) saveLocked() error {
	p, err := k.own.Encode()
	if err == nil {
		err = k.folder.SaveCredentials(p)
	}
	k.unsaved = err != nil
	return err
}

// Server is how the node answers a handshake that another begins.
func (k *Keyring) Server(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	own := k.Credentials()
	if own == nil {
		return nil, ErrNoCertificate
	}
	return own.Server(hello, nil), nil
}

// Foreign tells which other cluster a node is of that begins a handshake; "" if it is of this
// one, does not say, or is no member of one that looks for another. It is a word that nothing
// proves: a node cannot know the authorities of other clusters.
func (k *Keyring) Foreign(hello *tls.ClientHelloInfo) string {
	cluster := identity.ClusterOf(hello)
	if !folder.IsClusterID(cluster) || slices.Contains(hello.SupportedProtos, identity.Join) {
		return ""
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if cluster != k.name.Cluster {
		return cluster
	}
	return ""
}

// Parse reads authorities as an image has them.
func Parse(listed []metadata.Authority) (all []identity.Authority, err error) {
	for _, l := range listed {
		a, err := identity.ParseAuthority([]byte(l.Certificate), []byte(l.Key))
		if err != nil {
			return nil, fmt.Errorf("keyring: in the cluster's metadata: %w", err)
		}
		all = append(all, a)
	}
	return all, nil
}

// list is Parse's inverse.
func list(all []identity.Authority) (listed []metadata.Authority, err error) {
	for _, a := range all {
		certificate, key, err := a.PEM()
		if err != nil {
			return nil, err
		}
		listed = append(listed, metadata.Authority{Certificate: string(certificate), Key: string(key)})
	}
	return listed, nil
}
