package partition

import (
	"context"
	"log/slog"
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

// An Env is all that partitions know of the node that hosts them. The node makes one, when it
// has its transport, and they share it. All fields are set.
type Env struct {
	Cluster   string        // the cluster's id
	Self      raft.ServerID // this node's name in groups
	FS        segment.FS
	Now       func() time.Time
	Cache     *log.Cache
	Votes     *vote.Store
	Transport *transport.Transport
	LogLimits *raftgroup.LogLimits
	Budget    *Budget
	Logger    *slog.Logger
	Ctx       context.Context // ends with the node
	Closing   <-chan struct{} // closed when that begins

	Host   Host
	Events Events
}

// A Host is what a partition asks of its node.
type Host interface {
	// Image is the cluster's metadata as it is known here.
	Image() *metadata.Image
	// Connected tells whether a server's node is there.
	Connected(id raft.ServerID) bool
	// HasOpen tells whether a server has said that it has a group open.
	HasOpen(id raft.ServerID, group uint64) bool
	// HeardOf returns when a server was heard last, and whether it is connected, which is now.
	HeardOf(id raft.ServerID, now time.Time) (at time.Time, connected bool)
	// CallBulk asks another node for what may be long.
	CallBulk(node int32, kind uint8, req []byte) ([]byte, error)

	// GoTracked starts a goroutine that the node's end waits for.
	GoTracked(f func())
	// QueueSnapshot has a replica's TakeSnapshot called, unless too many are queued. It does
	// not block.
	QueueSnapshot(r *Replica) bool
	// RetainBy asks for a pass of retention at a time, ms since 1970, or earlier.
	RetainBy(due int64)
	// LacksRoom tells whether the disk has no room for the node's own files: nothing that may
	// be deleted is kept then.
	LacksRoom() bool
	// Full says that a full disk took no records. to is the partition's logger.
	Full(to *slog.Logger, err error)
	// MembersChanged says that a step was taken to the members that a group shall have, what
	// was done and to whom.
	MembersChanged(group uint64, what, who string)
}

// Events are what the node is told of its partitions. None blocks.
type Events interface {
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

// mayLead tells whether a server is connected and has said that it has a group open.
func (e *Env) mayLead(id raft.ServerID, group uint64) bool {
	return e.Host.Connected(id) && e.Host.HasOpen(id, group)
}

// A Budget is what the partitions of a node share, counted.
type Budget struct {
	appending       atomic.Int64  // appenders that run
	concurrentSyncs atomic.Int64  // see logStore.StoreLogs
	writes          atomic.Uint64 // to logs, begun
	producers       atomic.Int64  // remembered by all partitions, when that was last counted
	removing        chan struct{} // has a place for each folder that may be removed at the same time
}

// NewBudget returns the budget of a node.
func NewBudget() *Budget { return &Budget{removing: make(chan struct{}, removeAtOnce)} }

// Begun returns how many writes to logs have begun.
func (b *Budget) Begun() uint64 { return b.writes.Load() }

// Remember says how many producers all partitions remember.
func (b *Budget) Remember(producers int) { b.producers.Store(int64(producers)) }

// maxProducers is how many producers a partition may remember now.
func (b *Budget) maxProducers() int {
	if b.producers.Load() > crowdedProducers {
		return sureProducers
	}
	return maxProducers
}
