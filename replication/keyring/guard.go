package keyring

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"millrace/replication/identity"
	"millrace/replication/metadata"
	"millrace/replication/transport"
)

var _ transport.Guard = Guard{}

// SecureLevel is the feature level from which on a cluster has authorities.
const SecureLevel = 4

// A Guard has a node's connections proved as far as its cluster has come. One that was
// founded at SecureLevel proves all of them. In one that came there later a broker that is
// not registered as secured has no certificate yet, or had none when it was last here: it is
// dialled with one and, if it cannot answer that, without, and is heard without. That is all
// over when the last broker is secured.
type Guard struct {
	Keyring *Keyring
	Images  Images
}

// ErrBare is why a connection is refused that begins without a handshake.
var ErrBare = errors.New("keyring: nodes of this cluster prove who they are, and who joins it has a token: `millrace cluster token` makes one, `millrace serve --join TOKEN` takes it")

// Dial implements transport.Guard.
func (g Guard) Dial(p transport.Peer) (cfg *tls.Config, orBare bool) {
	own := g.Keyring.Credentials()
	if own == nil {
		return nil, true
	}
	image := g.Images.Image()
	if p.Node == 0 {
		orBare = image.ClusterID != "" && !Secured(image)
	} else if b, known := image.Broker(p.Node); known {
		orBare = !b.Secured
	}
	return own.Client(nil), orBare
}

// Bare implements transport.Guard.
func (g Guard) Bare(p transport.Peer, once bool) error {
	image := g.Images.Image()
	switch {
	case image.ClusterID == "" && !g.Keyring.Certified(): // it has joined through a node of an earlier release
		return nil
	case image.ClusterID == "":
		return ErrBare
	case image.Level() < SecureLevel:
		return nil
	case once && !Secured(image): // what it asks is judged by who hears it
		return nil
	case once:
		return ErrBare
	}
	if b, known := image.Broker(p.Node); known && b.Incarnation == p.Incarnation && !b.Secured {
		return nil
	}
	return fmt.Errorf("%w; it says that it is node %s, which has a certificate", ErrBare, p)
}

// Secured reports whether all brokers of a cluster have certificates.
func Secured(image *metadata.Image) bool {
	for _, b := range image.Brokers() {
		if !b.Secured {
			return false
		}
	}
	return len(image.Brokers()) > 0 && image.Level() >= SecureLevel
}

// First is the change that gives a cluster its first authority and its secret; ok is false if it has one, or
// is not at the level for it.
func First(image *metadata.Image) (change metadata.SetAuthorities, ok bool, err error) {
	if image.ClusterID == "" || image.Level() < SecureLevel || len(image.Authorities()) > 0 {
		return change, false, nil
	}
	change.Authorities, err = withNew(image)
	change.Secret = metadata.NewSecret()
	change.Judged = image.Index
	return change, err == nil, err
}

// withNew are the authorities of an image, and a new one behind them, which is later than
// they are by the second at least that certificates count in.
func withNew(image *metadata.Image) ([]metadata.Authority, error) {
	all, err := Parse(image.Authorities())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, a := range all {
		if next := a.Made().Add(time.Second); now.Before(next) {
			now = next
		}
	}
	a, err := identity.NewAuthority(image.ClusterID, now)
	if err != nil {
		return nil, err
	}
	return list(append(all, a))
}
