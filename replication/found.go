package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"millrace/replication/folder"
	"millrace/replication/transport"
)

// An empty folder says nothing about whether its node is new or has lost its disk. Who
// founds a cluster in the second case serves clients that look for the first one, under
// an address that they know. Three things tell:
//
//   - the file "joining": a join was begun here, and not finished;
//   - nodes of another cluster that look for this one at its address, before it founds
//     (Config.FoundAfter): they dial a peer that is away at least once a second;
//   - the same within foundDoubt of founding, while the cluster has no other node.

// foundDoubt is how long after founding a cluster a node still ends for the nodes of
// another that look for it. Later it is they who are wrong.
const foundDoubt = 30 * time.Second

// ErrFoundElsewhere ends a node that would found a cluster, or just has, at an address
// where the nodes of another look for it.
var ErrFoundElsewhere = errors.New("replication: nodes of another cluster look for this one")

// resumeJoin reads whom a join that was not finished asked, if there was one and nobody
// else is named.
func (n *Node) resumeJoin() error {
	if n.cfg.Found || len(n.cfg.Join) > 0 {
		return nil
	}
	join, err := n.folder.Joining()
	if err != nil {
		return fmt.Errorf("%w; name a node of the cluster with --join", err)
	}
	if len(join) > 0 {
		n.logger.Info("going on with a join that was not finished", "through", join)
		n.cfg.Join = join
	}
	return nil
}

// elsewhere is the error for a cluster whose nodes look for this one.
func elsewhere(cluster string) error {
	return fmt.Errorf("%w: they are of cluster %s; if this node lost its disk, start it in an empty folder with --node-id and --join; if a new cluster is meant, with --found", ErrFoundElsewhere, cluster)
}

// A listener hears which other cluster looks for this node, if one does.
type listener struct {
	transport.NopObserver
	foreign chan string // has room for the first
}

// Foreign implements transport.Observer.
func (l listener) Foreign(cluster string) {
	select {
	case l.foreign <- cluster:
	default:
	}
}

// nobodyLooks waits, before a cluster is founded, whether nodes of another look for this
// one.
func (n *Node) nobodyLooks(ctx context.Context) error {
	if n.cfg.Found || n.cfg.FoundAfter <= 0 {
		return nil
	}
	looking := listener{foreign: make(chan string, 1)}
	ears := transport.New(transport.Config{
		Local:    transport.Peer{Node: max(n.identity.Node, 1), Incarnation: n.identity.Incarnation},
		Observer: looking,
		Logger:   n.logger,
	})
	n.ears.Store(ears)
	defer func() {
		n.ears.Store(nil)
		ears.Close()
	}()
	select {
	case cluster := <-looking.foreign:
		return elsewhere(cluster)
	case <-time.After(n.cfg.FoundAfter):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.closing:
		return ErrClosed
	}
}

// foreign hears of a handshake from another cluster. Just after this node has founded its
// own, alone, it is its folder that was empty and should not have been. Which of their
// nodes they look for says nothing: the id of one that founds is 1 if nobody gave it one.
func (n *Node) foreign(cluster string) {
	if !n.founding || n.cfg.Found || time.Since(n.start) > foundDoubt || len(n.Image().Brokers()) > 1 {
		return
	}
	n.standing.fail(elsewhere(cluster), n.Image().Level(), func(id *folder.Identity) { id.Doubted = cluster })
}

// overhear gives a connection that comes before the node is ready to who listens for
// other clusters. It tells whether there is somebody.
func (n *Node) overhear(conn net.Conn) bool {
	ears := n.ears.Load()
	if ears != nil {
		ears.Serve(conn)
	}
	return ears != nil
}
