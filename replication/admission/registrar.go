package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"millrace/replication/folder"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/roster"
	"millrace/replication/transport"
)

// A Registration is what a node registers itself as.
type Registration struct {
	Node      transport.Peer
	Cluster   string // its id
	Advertise string // HOST:PORT, for other nodes
	Rack      string
	Listeners []metadata.Listener
	MaxLevel  int32           // the highest feature level that it reads
	Run       string          // random, of this process
	Age       *folder.Age     // of the data folder
	Founder   bool            // it founded the cluster
	Users     []metadata.User // with whom that begins
	Logger    *slog.Logger
	Keyring   *keyring.Keyring
}

// A Cluster is what is known here of the cluster, and how that is changed. See package
// replication's Node, which is one.
type Cluster interface {
	Image() *metadata.Image
	// Changed is closed at the next image.
	Changed() <-chan struct{}
	Change(ctx context.Context, change metadata.Change) error
}

// A Registrar has the image say what a node is: where it listens, which feature levels it
// reads, which start of which folder it is. Any goroutine may call its methods.
type Registrar struct {
	self     Registration
	cluster  Cluster
	standing *folder.Standing
}

// NewRegistrar returns one that gives up when the node must end.
func NewRegistrar(self Registration, cluster Cluster, standing *folder.Standing) *Registrar {
	return &Registrar{self: self, cluster: cluster, standing: standing}
}

// Run is what tells this process from the node's others.
func (r *Registrar) Run() string { return r.self.Run }

// broker is this node as it registers at a feature level.
func (r *Registrar) broker(level int32) (metadata.Broker, error) {
	host, port, err := roster.SplitAddress(r.self.Advertise)
	b := metadata.Broker{ID: r.self.Node.Node, Incarnation: r.self.Node.Incarnation, Host: host, Port: port, Rack: r.self.Rack}
	if level >= 2 {
		b.MinLevel, b.MaxLevel, b.Starts, b.Run = metadata.MinLevel, r.self.MaxLevel, r.self.Age.Now(), r.self.Run
	}
	if level >= 3 {
		b.Listeners = metadata.JoinListeners(r.self.Listeners)
	}
	if level >= keyring.SecureLevel {
		b.Secured = r.self.Keyring.Certified()
	}
	return b, err
}

// sameRegistration reports whether b, as the image has it, is what self says. The age moves on
// in one run, and is registered where that begins.
func sameRegistration(b, self metadata.Broker) bool {
	if b.Run == self.Run {
		self.Starts = b.Starts
	}
	return b == self
}

// Register makes the image say what this node is: it registers the broker if the
// image does not know it, or knows it otherwise.
func (r *Registrar) Register(ctx context.Context) error {
	// The cluster's level as far as this node knows; who founds one sets it.
	level, refusals := r.self.MaxLevel, 0
	if known := r.cluster.Image().Level(); known > 0 {
		level = known
	}
	for {
		changed := r.cluster.Changed()
		self, err := r.broker(level)
		if err != nil {
			return err
		}
		image := r.cluster.Image()
		var change metadata.Change = metadata.RegisterBroker{Broker: self, ClusterID: r.self.Cluster}
		registered := false
		if b, ok := image.Broker(self.ID); ok && sameRegistration(*b, self) {
			authority, lacks, err := keyring.First(image)
			if err != nil || !lacks {
				return err
			}
			change, registered = authority, true // then it has a certificate to register with
		}
		// What another node committed may still be on its way here; a change
		// waits for the group's leader, so it finds out.
		trying, cancel := r.standing.WhileSound(ctx)
		err = r.cluster.Change(trying, change)
		cancel()
		switch {
		case err == nil:
			continue
		case registered && ctx.Err() == nil && r.standing.Failure() == nil && !errors.Is(err, raftgroup.ErrClosed):
			// Another node was faster, or the image has moved on: it is looked at again.
		case r.standing.Failure() != nil:
			return fmt.Errorf("register with the cluster: %w", r.standing.Failure())
		case ctx.Err() != nil, errors.Is(err, raftgroup.ErrClosed):
			return fmt.Errorf("register with the cluster: %w", err)
		case (errors.Is(err, metadata.ErrLevel) || errors.Is(err, metadata.ErrVersion)) && refusals < int(r.self.MaxLevel):
			// It is not at that level, or its controller's release does not read that.
			refusals++
			if level--; level < 1 {
				level = r.self.MaxLevel
			}
			continue
		case !errors.Is(err, raftgroup.ErrUnknown):
			return fmt.Errorf("register with the cluster: %w", err)
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Known reports whether the image has this node where it is, whatever start it was.
func (r *Registrar) Known() bool {
	self, err := r.broker(1)
	b, ok := r.cluster.Image().Broker(self.ID)
	if err != nil || !ok {
		return false
	}
	was := *b
	was.MinLevel, was.MaxLevel, was.Starts, was.Run, was.Listeners, was.Secured = 0, 0, 0, "", "", false
	return was == self
}

// Current reports whether an image says what this node is, at its feature level, and has
// what it takes for that.
func (r *Registrar) Current(image *metadata.Image) bool {
	self, err := r.broker(image.Level())
	b, ok := image.Broker(self.ID)
	return err != nil || ok && sameRegistration(*b, self) && (image.Level() < keyring.SecureLevel || len(image.Authorities()) > 0)
}
