package server

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"millrace/internal/slowlog"
	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// A broker is what all handlers answer from: the node with the settings now in force, its
// clock and its log. It is safe for concurrent use.
type broker struct {
	node       *replication.Node
	advertised string // Server.Advertised
	clock      coordinator.Clock
	logger     *slog.Logger
	authorizer authorizer
	desk       loginDesk

	image    imageGate
	resolved atomic.Pointer[resolvedSettings]
	slow     slowlog.Limit // of warnings
}

// leading returns the replica of a partition if it is here, leads, and leads in
// the epoch the client knows, which -1 leaves open (KIP-320).
func (h *broker) leading(topic *metadata.Topic, index, known int32) (p *partition.Partition, epoch int32, c protocol.Code) {
	if index < 0 || int(index) >= len(topic.Partitions) {
		return nil, -1, protocol.UnknownTopicOrPartition
	}
	p, err := h.node.Partition(metadata.PartitionID{Topic: topic.ID, Index: index})
	if err != nil {
		return nil, -1, codeOf(err)
	}
	epoch, err = p.Serving()
	switch {
	case err != nil:
		return nil, -1, codeOf(err)
	case known >= 0 && known < epoch:
		return nil, -1, protocol.FencedLeaderEpoch
	case known > epoch:
		return nil, -1, protocol.UnknownLeaderEpoch
	}
	return p, epoch, protocol.None
}

// awaitImage waits, after a start, until the node's image is there: see imageGate.
func (h *broker) awaitImage(ctx context.Context) { h.image.await(ctx, h.node.Replayed()) }

// warn logs what clients cause, once a second for each message, so that a bad client
// cannot fill the log. Messages are constants.
func (h *broker) warn(message string, args ...any) {
	h.slow.Warn(h.logger, message, message, args...)
}

func stack() string { return string(debug.Stack()) }
