package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"millrace/replication/controller"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// ErrBrokerAlive refuses to remove a broker that is there.
var ErrBrokerAlive = errors.New("replication: the broker is there")

// A Removal is what it means to remove a broker. Partitions are topic/number.
type Removal struct {
	// Moved counts the replicas that others take, and Lowered those that nobody can take: the
	// partitions have one less from then on.
	Moved   int `json:"moved"`
	Lowered int `json:"lowered"`
	// Alone are partitions of which one of two replicas is left, which goes on with what it has.
	Alone []string `json:"alone,omitempty"`
	// Stuck are partitions that have no majority without it, and have none after: others
	// of their replicas are down.
	Stuck []string `json:"stuck,omitempty"`
	// Only are those that nobody else holds: the broker cannot be removed.
	Only []string `json:"only,omitempty"`
	// Left are groups led by the node that is asked of which the broker is a member yet:
	// see Leaving.
	Left []string `json:"left,omitempty"`
}

// removalTries bounds how often a removal is judged anew, as something else changed meanwhile.
const removalTries = 5

// RemoveBroker has a node remove a broker that has left for good: its replicas are moved to the
// brokers that are there, as far as there are enough, and then it is forgotten; the groups
// follow. With validateOnly it only says what it would do. What it means is told with a
// refusal as well.
func RemoveBroker(ctx context.Context, n *Node, id int32, validateOnly bool) (Removal, error) {
	for try := 1; ; try++ {
		image := n.Image()
		if _, registered := image.Broker(id); registered && n.failover.Heard(id) {
			return Removal{}, fmt.Errorf("%w: stop broker %d first, for good", ErrBrokerAlive, id)
		}
		var there []*metadata.Broker
		for _, b := range image.Brokers() {
			if n.failover.Heard(b.ID) {
				there = append(there, b)
			}
		}
		change, err := metadata.PlanRemoval(image, id, there)
		if err != nil {
			return Removal{}, err
		}
		means := removal(n, image, change)
		if validateOnly {
			return means, image.Check(change)
		}
		if err = n.Change(ctx, change); !errors.Is(err, metadata.ErrConfigChanged) || try == removalTries {
			return means, err
		}
	}
}

// Leaving lists the groups that a node leads of which a broker is a member that shall be
// none: what is left to do after its removal.
func Leaving(n *Node, id int32) (left []string) {
	has := func(m *raftgroup.Member) bool {
		return m.Raft.State() == raft.Leader && slices.ContainsFunc(m.Raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool {
			peer, err := transport.ParseServerID(s.ID)
			return err == nil && peer.Node == id
		})
	}
	if _, registered := n.Image().Broker(id); registered {
		return nil
	}
	if m := n.memberOf(controller.Group); m != nil && has(m) {
		left = append(left, "the controllers")
	}
	n.eachReplica(func(r *partition.Replica) {
		if has(&r.Member) {
			left = append(left, r.Name())
		}
	})
	return left
}

func removal(n *Node, image *metadata.Image, c metadata.RemoveBroker) (means Removal) {
	moved := make(map[metadata.PartitionID]bool, len(c.Moves))
	for _, move := range c.Moves {
		moved[move.Partition] = true
	}
	means.Moved = len(c.Moves)
	for _, t := range metadata.HeldBy(image, c.ID) {
		for i := range t.Partitions {
			replicas := t.Partitions[i].Replicas
			if !slices.Contains(replicas, c.ID) {
				continue
			}
			there := 0
			for _, id := range replicas {
				if id != c.ID && n.failover.Heard(id) {
					there++
				}
			}
			name := fmt.Sprintf("%s/%d", t.Name, i)
			switch {
			case len(replicas) == 1:
				means.Only = append(means.Only, name)
				continue
			case len(replicas) == 2 && there == 1:
				means.Alone = append(means.Alone, name)
			case there < len(replicas)/2+1:
				means.Stuck = append(means.Stuck, name)
			}
			if !moved[metadata.PartitionID{Topic: t.ID, Index: int32(i)}] {
				means.Lowered++
			}
		}
	}
	return means
}
