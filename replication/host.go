package replication

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/bulletin"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
)

// env returns what the node's partitions know of it.
func (h hosting) env() *partition.Env {
	n := h.n
	return &partition.Env{
		Cluster: n.identity.Cluster, Self: n.serverID(),
		FS: n.cfg.FS, Now: n.cfg.Now, Cache: log.NewCache(cacheBytes), Votes: n.votes, Transport: n.transport, LogLimits: raftgroup.NewLogLimits(),
		Budget: partition.NewBudget(), Logger: n.logger, Ctx: n.ctx, Closing: n.closing,
		Host: h, Events: n.events,
	}
}

// hosting is a node as its partitions see it: what they ask of it, and tell it.
type hosting struct{ n *Node }

func (h hosting) Image() *metadata.Image { return h.n.Image() }

func (h hosting) Connected(id raft.ServerID) bool { return h.n.connected(id) }

func (h hosting) HasOpen(id raft.ServerID, group uint64) bool {
	return h.n.failover.HasOpen(id, group)
}

func (h hosting) HeardOf(id raft.ServerID, now time.Time) (at time.Time, connected bool) {
	return h.n.failover.HeardOf(id, now)
}

func (h hosting) CallBulk(node int32, kind uint8, req []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(h.n.ctx, 2*callTimeout)
	defer cancel()
	return h.n.transport.CallBulk(ctx, node, kind, req)
}

func (h hosting) GoTracked(f func()) { h.n.goTracked(f) }

func (h hosting) QueueSnapshot(r *partition.Replica) bool {
	select {
	case h.n.upkeep.snapshots <- r:
		return true
	default:
		return false
	}
}

func (h hosting) RetainBy(due int64) { h.n.upkeep.retainBy(due) }

func (h hosting) LacksRoom() bool { return h.n.upkeep.lacksRoom.Load() }

func (h hosting) Full(to *slog.Logger, err error) { h.n.upkeep.full(to, err) }

func (h hosting) MembersChanged(group uint64, what, who string) {
	h.n.news.groups.Add(bulletin.Headline{Text: "membership of partitions changed", What: what, Who: who}, group)
}
