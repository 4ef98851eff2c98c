// Package admission is how a node comes to be a member of a cluster: it reads its folder,
// and founds a cluster or asks the nodes of one to take it in (Candidate), whose controller
// does so (Admit), and has the cluster's image say what it is (Registrar).
//
// An empty folder says nothing about whether its node is new or has lost its disk. Who
// founds a cluster in the second case serves clients that look for the first one, under
// an address that they know. Three things tell:
//
//   - the file "joining": a join was begun here, and not finished;
//   - nodes of another cluster that look for this one at its address, before it founds
//     (Config.FoundAfter): they dial a peer that is away at least once a second;
//   - the same within foundDoubt of founding, while the cluster has no other node.
package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
	"millrace/replication/roster"
	"millrace/replication/transport"
)

// foundDoubt is how long after its start a node that founded a cluster still ends for the
// nodes of another that look for it. Later it is they who are wrong.
const foundDoubt = 30 * time.Second

// A Config says who asks for a place, and how. See package replication's for what the
// fields of the same name mean.
type Config struct {
	Folder      folder.Folder
	NodeID      int32
	Advertise   string
	Rack        string
	Join        []string
	Found       bool
	FoundAfter  time.Duration
	MaxLevel    int32            // the highest feature level that the node reads
	Dialer      transport.Dialer // nil: TCP
	Keyring     *keyring.Keyring
	CallTimeout time.Duration
	Logger      *slog.Logger
}

// A Candidate is a node on its way into a cluster. One goroutine calls its methods, but
// for Overhear, Asks and Doubtful, which any may.
type Candidate struct {
	cfg      Config
	began    time.Time
	identity folder.Identity
	others   map[int32]string // where they are; nil if the folder has that
	token    *identity.Token  // that it was given; nil: none

	founded atomic.Bool                         // this process founded the cluster
	asks    atomic.Bool                         // for a cluster that takes it in, and has nothing to say to others
	ears    atomic.Pointer[transport.Transport] // while it listens for nodes of other clusters
	looking atomic.Pointer[listener]            // at the same time
}

// Identify loads the node's identity, or makes up what it can.
func Identify(cfg Config) (*Candidate, error) {
	c := &Candidate{cfg: cfg, began: time.Now()}
	if err := c.takeToken(); err != nil {
		return nil, err
	}
	id, ok, err := cfg.Folder.Load()
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return c, c.beginNew()
	}
	c.prove(id)
	return c, c.goOn(id)
}

// prove has the node prove who it is, or is about to be, by the certificate in its folder, or
// by one that it makes with the authority in its last image. One that comes back as another
// incarnation has that image among what it set aside, perhaps.
func (c *Candidate) prove(id folder.Identity) {
	was, image := c.cfg.Keyring.Was(), new(metadata.Image)
	if was != id.Name() || c.cfg.Keyring.Old() {
		for _, name := range []string{folder.MetaName, folder.MetaName + "-" + was.Incarnation} {
			last, err := controller.LastImage(c.cfg.Folder.Path(name))
			if err == nil && last.ClusterID == id.Cluster {
				image = last
				break
			}
		}
	}
	c.cfg.Keyring.Belongs(id.Name(), still{image})
}

// still is an image that nothing changes any more.
type still struct{ image *metadata.Image }

// Image implements keyring.Images.
func (s still) Image() *metadata.Image { return s.image }

// takeToken has a token among the addresses to join replaced by those it holds.
func (c *Candidate) takeToken() error {
	if len(c.cfg.Join) != 1 || !identity.IsToken(c.cfg.Join[0]) {
		return nil
	}
	token, err := identity.ParseToken(c.cfg.Join[0])
	if err != nil {
		return err
	}
	c.token, c.cfg.Join = &token, token.Nodes
	return nil
}

// beginNew makes up who a node is whose folder does not say it.
func (c *Candidate) beginNew() error {
	f := c.cfg.Folder
	partitions, err := os.ReadDir(f.Path(folder.PartitionsName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(partitions) > 0 {
		return ofKind(ErrNoIdentity, "%s holds partitions but no %s, so nobody knows whose they are", f.Dir, folder.IdentityName)
	}
	if others := folder.Strange(f.Dir); len(others) > 0 {
		return ofKind(ErrStrangeFolder, "%s holds %s and no %s: it is no node's, and a node keeps its files apart", f.Dir, strings.Join(others, ", "), folder.IdentityName)
	}
	c.identity = folder.Identity{Node: c.cfg.NodeID, Incarnation: folder.NewIncarnation()}
	if c.cfg.Found || len(c.cfg.Join) > 0 {
		return nil
	}
	join, err := f.Joining()
	if err != nil {
		return ofKind(ErrJoinUnread, "%w", err)
	}
	if len(join) > 0 {
		c.cfg.Logger.Info("going on with a join that was not finished", "through", join)
		c.cfg.Join = join
	}
	return nil
}

// goOn is as the folder says, if that is what was asked for.
func (c *Candidate) goOn(id folder.Identity) error {
	f, logger := c.cfg.Folder, c.cfg.Logger
	switch {
	case id.Doubted != "" && !c.cfg.Found:
		return fmt.Errorf("%s founded cluster %s by mistake, it seems, and must be empty to join another: %w", f.Dir, id.Cluster, Elsewhere(id.Doubted))
	case id.Doubted != "":
		id.Doubted = ""
		if err := f.Save(id); err != nil {
			return err
		}
	}
	if c.cfg.NodeID != 0 && c.cfg.NodeID != id.Node {
		return ofKind(ErrOtherNode, "%s belongs to node %d, not %d", f.Dir, id.Node, c.cfg.NodeID)
	}
	if id.Rejoin {
		logger.Warn("this node's votes or metadata log are gone, or its folder was an old copy: it comes back as a new incarnation and catches up; its old partitions are set aside",
			"incarnation", id.Incarnation, "folder", f.Dir)
	}
	if len(c.cfg.Join) > 0 && id.Cluster != "" && !id.Rejoin {
		logger.Info("the folder belongs to a cluster already: the nodes to join are only asked where its nodes are", "cluster", id.Cluster, "node", id.Node, "join", c.cfg.Join, "folder", f.Dir)
	}
	c.identity = id
	return nil
}

// Identity is who the node is: with a cluster from the start, or once Enter has returned.
func (c *Candidate) Identity() folder.Identity { return c.identity }

// Join lists whom it was given to ask, or whom a join asked that was not finished.
func (c *Candidate) Join() []string { return c.cfg.Join }

// Belongs tells whether the node is a member of a cluster already.
func (c *Candidate) Belongs() bool { return c.identity.Cluster != "" && !c.identity.Rejoin }

// Enter founds a cluster or joins one, unless the node belongs to one. ctx's cause is what
// it returns when that ends. Settle keeps what came of it.
func (c *Candidate) Enter(ctx context.Context) error {
	switch rejoins := c.identity.Rejoin; {
	case len(c.cfg.Join) == 0 && !rejoins:
		if err := c.nobodyLooks(ctx); err != nil {
			return err
		}
		c.founded.Store(true)
		c.identity.Cluster, c.identity.Founder = folder.NewClusterID(), true
		c.identity.Node = max(c.identity.Node, 1)
		c.others = make(map[int32]string)
		return nil
	case !rejoins:
		if err := c.cfg.Folder.BeginJoin(c.cfg.Join); err != nil {
			return err
		}
	}
	return c.join(ctx)
}

// Settle keeps who the node is from now on. The files that Folder.Load looks for must be
// there by then.
func (c *Candidate) Settle() error {
	f := c.cfg.Folder
	if err := f.SavePeers(c.others); err != nil {
		return err
	}
	if err := f.Save(c.identity); err != nil {
		return err
	}
	return f.EndJoin()
}

// A listener hears which other cluster looks for this node, if one does.
type listener struct {
	transport.NopObserver
	foreign chan string // has room for the first
}

// Foreign implements transport.Observer. What is no cluster's id is no node's word.
func (l listener) Foreign(cluster string) {
	if !folder.IsClusterID(cluster) {
		return
	}
	select {
	case l.foreign <- cluster:
	default:
	}
}

// nobodyLooks waits, before a cluster is founded, whether nodes of another look for this
// one.
func (c *Candidate) nobodyLooks(ctx context.Context) error {
	if c.cfg.Found || c.cfg.FoundAfter <= 0 {
		return nil
	}
	looking := listener{foreign: make(chan string, 1)}
	ears := transport.New(transport.Config{
		Local:    transport.Peer{Node: max(c.identity.Node, 1), Incarnation: c.identity.Incarnation},
		Observer: looking,
		Logger:   c.cfg.Logger,
	})
	c.ears.Store(ears)
	c.looking.Store(&looking)
	defer func() {
		c.ears.Store(nil)
		c.looking.Store(nil)
		ears.Close()
	}()
	select {
	case cluster := <-looking.foreign:
		return Elsewhere(cluster)
	case <-time.After(c.cfg.FoundAfter):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Overhear gives a connection that comes before the node is ready to who listens for
// other clusters. It tells whether there is somebody.
func (c *Candidate) Overhear(conn net.Conn) bool {
	ears := c.ears.Load()
	if ears != nil {
		ears.Serve(conn)
	}
	return ears != nil
}

// Foreign hears of a node of another cluster that looks for this one, before there is a
// transport that would. It tells whether that is so.
func (c *Candidate) Foreign(cluster string) bool {
	looking := c.looking.Load()
	if looking != nil {
		looking.Foreign(cluster)
	}
	return looking != nil
}

// Asks tells whether the node is asking for a cluster that takes it in, and so has nothing
// to say to others.
func (c *Candidate) Asks() bool { return c.asks.Load() }

// Doubtful tells whether a cluster that consists of this node alone may have been founded
// by mistake, should the nodes of another look for it: just after this process founded it,
// unasked. It is its folder then that was empty and should not have been. Which of their
// nodes they look for says nothing: the id of one that founds is 1 if nobody gave it one.
func (c *Candidate) Doubtful() bool {
	return c.founded.Load() && !c.cfg.Found && time.Since(c.began) <= foundDoubt
}

// maxStrange is how many rounds of asking a candidate with a token meets other clusters alone
// before it gives up.
const maxStrange = 20

// join asks the nodes of a cluster, in turn, to take this one in: those given,
// and those it knew before its disk was lost.
func (c *Candidate) join(ctx context.Context) error {
	through := slices.Clone(c.cfg.Join)
	if c.identity.Rejoin {
		through = slices.AppendSeq(through, maps.Values(c.cfg.Folder.Peers()))
	}
	if len(through) == 0 {
		return ofKind(ErrNobodyKnown, "node %d lost its votes or its metadata log and knows no other node", c.identity.Node)
	}
	host, port, err := roster.SplitAddress(c.cfg.Advertise)
	if err != nil {
		return err
	}
	ways, err := c.ways(Request{
		Node: c.identity.Node, Incarnation: c.identity.Incarnation, Host: host, Port: port, Rack: c.cfg.Rack,
		MinLevel: metadata.MinLevel, MaxLevel: c.cfg.MaxLevel,
	})
	if err != nil {
		return err
	}
	for _, w := range ways {
		defer w.transport.Close()
	}
	c.asks.Store(true)
	defer c.asks.Store(false)
	// Nodes that start together need some tries; later somebody waits and wonders.
	complain := time.Now().Add(2 * time.Second)
	var last error
	for strange := 0; ; { // rounds in which nobody was of the token's cluster
		others := true
		for _, addr := range through {
			for _, w := range ways {
				if !w.leads(addr) {
					continue
				}
				answer, err := c.ask(ctx, w, addr)
				if err == nil {
					err = c.become(w, answer)
				}
				if err == nil {
					return nil
				}
				if answer.final() || w.last(addr, err) {
					return err
				}
				others = others && errors.Is(err, identity.ErrOtherAuthority)
				if ctx.Err() == nil || last == nil { // not that the time was over
					last = fmt.Errorf("%s: %w", w.name, err)
				}
			}
		}
		if strange++; !others {
			strange = 0
		} else if strange == maxStrange { // nodes take a moment each to show a new authority
			return last
		}
		if now := time.Now(); now.After(complain) {
			complain = now.Add(10 * time.Second)
			c.cfg.Logger.Warn("not a member of a cluster yet: no node to join takes this one in, it goes on asking", "through", through, "error", last)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// final tells whether there is no use in asking again.
func (a Answer) final() bool { return (a.Refused != "" || a.Cluster != "") && !a.Retry }

// ask asks the node at an address. An error comes with the answer, if there was one.
func (c *Candidate) ask(ctx context.Context, w *way, addr string) (answer Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	p, err := w.transport.CallAddr(ctx, addr, CallJoin, w.request)
	if err == nil {
		err = json.Unmarshal(p, &answer)
	}
	switch {
	case err != nil:
		return Answer{}, err // it names the address
	case strings.HasSuffix(answer.Refused, IDTaken):
		return answer, ofKind(ErrIDTaken, "join through %s: %s", addr, answer.Refused)
	case answer.Refused != "":
		return answer, fmt.Errorf("join through %s: %s", addr, answer.Refused)
	case c.identity.Rejoin && answer.Cluster != c.identity.Cluster:
		return answer, fmt.Errorf("join through %s: it is of cluster %s, this node of %s", addr, answer.Cluster, c.identity.Cluster)
	}
	return answer, nil
}
