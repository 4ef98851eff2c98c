package keyring

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// A Cluster is what a rotation asks of the node that it runs on.
type Cluster interface {
	Images
	// Change commits a change, and returns once it is in Image.
	Change(ctx context.Context, change metadata.Change) error
}

// Peers are who makes calls to other nodes; a transport.Transport.
type Peers interface {
	Call(ctx context.Context, node int32, kind uint8, req []byte) ([]byte, error)
}

// The calls of a rotation.
const (
	CallIndex  uint8 = 10 // how far a node's image has come: nothing, answered by its index, u64
	CallRotate uint8 = 12 // asks a node to Rotate: nothing, answered by nothing
)

// Index answers CallIndex: what it tells of, the keyring has taken up. An error is why it has
// not, which holds a rotation up: the next step would shut this node out.
func (k *Keyring) Index() ([]byte, error) {
	k.mu.Lock()
	images := k.images
	k.mu.Unlock()
	index := uint64(0)
	if images != nil {
		index = images.Image().Index // before it is taken up, which may be a later one
	}
	if _, err := k.current(); err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint64(nil, index), nil
}

// Operates reports whether a call comes from who can read the folder of a broker: over a
// connection for one call, with its certificate. See Ask.
func Operates(o transport.Origin, image *metadata.Image) bool {
	b, known := image.Broker(o.Proof.Name.Node)
	return o.Once && o.Proof.Certified() && known && b.Incarnation == o.Proof.Name.Incarnation
}

// Rotate gives a cluster another authority. It takes three steps, and with each waits until
// every registered broker knows of it, so that no two ever differ by more than one:
//
//	old, new    all believe both, and issue by the old one
//	new, old    all issue by the new one: whoever has not done so yet is believed
//	new         nobody has a certificate of the old one any more
//
// Certificates that were issued before the last step are good on connections that are open.
// A broker that is down is waited for, until ctx ends: it would believe nobody afterwards. A
// rotation that was left half done is gone on with, and of two at once each takes the steps
// that the other has not taken.
func Rotate(ctx context.Context, c Cluster, self int32, peers Peers) error {
	r := rotation{c, self, peers}
	begun := false
	for {
		image := c.Image()
		listed := image.Authorities()
		if len(listed) == 0 {
			return fmt.Errorf("keyring: the cluster has no authority yet: it is at feature level %d, from %d on it makes one", image.Level(), SecureLevel)
		}
		all, err := Parse(listed)
		if err != nil {
			return err
		}
		next := listed
		last := false
		switch {
		case len(all) == 1 && begun:
			return r.everywhere(ctx) // another one took the last step
		case len(all) == 1:
			if next, err = withNew(image); err != nil {
				return err
			}
		case all[0].Made().Before(all[1].Made()):
			next = []metadata.Authority{listed[1], listed[0]}
		default:
			next, last = listed[:1], true
		}
		if err := r.everywhere(ctx); err != nil {
			return err
		}
		begun = begun || len(all) > 1
		// A rotation that was begun elsewhere may have taken the step meanwhile: this one is
		// judged by the image that it is made for, and is looked at again if another is there.
		now := c.Image()
		if !now.SameAuthorities(image) {
			continue
		}
		err = c.Change(ctx, metadata.SetAuthorities{Authorities: next, Judged: now.Index})
		switch {
		case errors.Is(err, metadata.ErrConfigChanged):
			select {
			case <-time.After(askEvery / 10):
			case <-ctx.Done():
				return fmt.Errorf("keyring: change the cluster's authorities: %w", err)
			}
			continue
		case err != nil:
			return fmt.Errorf("keyring: change the cluster's authorities: %w", err)
		case last:
			return r.everywhere(ctx)
		}
		begun = true
	}
}

// A rotation is one run of Rotate.
type rotation struct {
	Cluster
	self  int32
	peers Peers
}

// index asks a broker how far its image has come.
func (r rotation) index(ctx context.Context, broker int32) (uint64, error) {
	if broker == r.self {
		return r.Image().Index, nil
	}
	p, err := r.peers.Call(ctx, broker, CallIndex, nil)
	if err == nil && len(p) != 8 {
		err = fmt.Errorf("it answers %d bytes", len(p))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(p), nil
}

// askEvery is how long Rotate waits before it asks a broker again.
const askEvery = 200 * time.Millisecond

// everywhere waits until all registered brokers have what this node's image has.
func (r rotation) everywhere(ctx context.Context) error {
	index := r.Image().Index
	var behind int32
	var why error
	for {
		was := why
		why = nil
		for _, b := range r.Image().Brokers() {
			at, err := r.index(ctx, b.ID)
			if err == nil && at < index {
				err = fmt.Errorf("it has the metadata up to change %d, not %d", at, index)
			}
			if errors.Is(err, context.DeadlineExceeded) && was != nil {
				why = was // and not that the time was over
				break
			}
			if err != nil {
				behind, why = b.ID, err
				break
			}
		}
		if why == nil {
			return nil
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return fmt.Errorf("keyring: broker %d has not taken up the change of authorities, and all must, or be taken out of the cluster; ask again when it is there, and the change goes on: %w", behind, why)
		}
	}
}
