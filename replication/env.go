package replication

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
	"millrace/replication/vote"
	"millrace/segment"
)

// An env is all that a partition knows of the node that hosts it. It is made once, when
// the node has its transport, and partitions share it.
type env struct {
	cluster    string        // the cluster's id
	self       raft.ServerID // this node's name in groups
	fs         segment.FS
	now        func() time.Time
	cache      *log.Cache
	votes      *vote.Store
	transport  *transport.Transport
	raftLimits *raftgroup.LogLimits
	budget     *budget
	ctx        context.Context // ends with the node
	closing    <-chan struct{} // closed when that begins

	host   host
	events events
}

// A host is what a partition asks of its node. *Node implements it.
type host interface {
	// Image is the cluster's metadata as it is known here.
	Image() *metadata.Image
	// serverOf returns a node's name in groups, as the image has it.
	serverOf(node int32) (raft.ServerID, bool)
	// mayLead tells whether a server is connected and has said that it has a group open.
	mayLead(id raft.ServerID, group uint64) bool
	// callBulk asks another node for what may be long.
	callBulk(node int32, kind uint8, req []byte) ([]byte, error)

	// goTracked starts a goroutine that the node's end waits for.
	goTracked(f func())
	// wantSnapshot queues a replica for a snapshot. It does not block.
	wantSnapshot(r *replica)
	// retainBy asks for a pass of retention at a time, ms since 1970, or earlier.
	retainBy(due int64)
	// spared tells until when nothing of a partition is deleted, if that is not over.
	spared(p *Partition, now time.Time) (until int64, spared bool)
	// full says that a full disk took no records.
	full(p *Partition, err error)
}

// events are what the node is told of its partitions. None blocks.
type events interface {
	// Opened says that a group is open here.
	Opened(group uint64)
	// Closed says that it is open here no longer.
	Closed(group uint64)
	// NotOpen says that a group that was closed stays so, or was led from here until then.
	NotOpen()
	// Noticed says that Raft has another leader than before, before that is looked at.
	Noticed()
	// Leads says that this node serves as the leader of a group, since a term.
	Leads(group, term uint64)
	// Ended says that it serves as such no more.
	Ended(group uint64)
	raftgroup.Elections
}

// A budget is what the partitions of a node share, counted.
type budget struct {
	appending       atomic.Int64  // appenders that run
	concurrentSyncs atomic.Int64  // see logStore.StoreLogs
	writes          atomic.Uint64 // to logs, begun
	producers       atomic.Int64  // remembered by all partitions, when that was last counted
	removing        chan struct{} // has a place for each folder that may be removed at the same time
}

// maxProducers is how many producers a partition may remember now.
func (b *budget) maxProducers() int {
	if b.producers.Load() > crowdedProducers {
		return sureProducers
	}
	return maxProducers
}

// newEnv returns what the node's partitions know of it.
func (n *Node) newEnv() *env {
	return &env{
		cluster: n.identity.Cluster, self: n.serverID(),
		fs: n.cfg.FS, now: n.now, cache: n.cache, votes: n.votes, transport: n.transport, raftLimits: n.raftLimits,
		budget: &n.budget, ctx: n.ctx, closing: n.closing,
		host: n, events: n.events,
	}
}

// mayLead implements host.
func (n *Node) mayLead(id raft.ServerID, group uint64) bool {
	return n.connected(id) && n.failover.HasOpen(id, group)
}
