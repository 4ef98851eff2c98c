package admission

import (
	"context"
	"errors"
	"fmt"

	"millrace/replication/controller"
	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/roster"
)

// A Host is the controller that takes nodes in.
type Host interface {
	Cluster
	// Live reports whether a broker is connected.
	Live(node int32) bool
	// AddNonvoter adds a broker to the controller group, without a vote.
	AddNonvoter(ctx context.Context, broker *metadata.Broker) error
}

// Admit takes a node into a cluster of this id, on its controller: it registers the broker,
// and adds it to the controller group without a vote.
func Admit(ctx context.Context, h Host, cluster string, req Request) Answer {
	refused := func(err error) Answer {
		// A founder that has not registered itself yet is about to.
		retry := errors.Is(err, controller.ErrNoController) || errors.Is(err, raftgroup.ErrUnknown) || errors.Is(err, metadata.ErrNoCluster)
		return Answer{Refused: err.Error(), Retry: retry}
	}
	if level := h.Image().Level(); max(req.MaxLevel, 1) < level || req.MinLevel > max(level, 1) {
		return refused(fmt.Errorf("the cluster is at feature level %d, the node reads %d to %d: run a release on it that reads that", level, max(req.MinLevel, 1), max(req.MaxLevel, 1)))
	}
	if known, ok := h.Image().Broker(req.Node); ok && h.Live(req.Node) &&
		(known.Incarnation != req.Incarnation || known.Host != req.Host || known.Port != req.Port) {
		return refused(fmt.Errorf("node %d is in the cluster and alive at %s:%d%s", req.Node, known.Host, known.Port, IDTaken))
	}
	joiner := metadata.Broker{ID: req.Node, Incarnation: req.Incarnation, Host: req.Host, Port: req.Port, Rack: req.Rack}
	if h.Image().Level() >= 2 {
		joiner.MinLevel, joiner.MaxLevel = req.MinLevel, req.MaxLevel
	}
	err := h.Change(ctx, metadata.RegisterBroker{Broker: joiner})
	if err != nil {
		return refused(err)
	}
	broker, ok := h.Image().BrokerOf(req.Incarnation)
	if !ok {
		return refused(fmt.Errorf("%w: the registration was replaced at once", raftgroup.ErrUnknown))
	}
	if err := h.AddNonvoter(ctx, broker); err != nil {
		return refused(fmt.Errorf("%w: %v", controller.ErrNoController, err))
	}
	answer := Answer{Cluster: cluster, Node: broker.ID, Peers: make(map[int32]string)}
	for _, b := range h.Image().Brokers() {
		if b.ID != broker.ID {
			answer.Peers[b.ID] = roster.Address(b)
		}
	}
	return answer
}
