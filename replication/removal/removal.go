// Package removal takes a broker that has left for good out of its cluster: plans what
// becomes of its replicas, has that committed, and says what is left to do.
package removal

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// A Cluster is what is known here of the cluster that a broker is removed from.
type Cluster interface {
	Image() *metadata.Image
	// Change commits a change, and returns once it is in Image.
	Change(ctx context.Context, change metadata.Change) error
	// Heard reports whether a broker is there, as far as this node knows.
	Heard(broker int32) bool
	// Members calls f for this node's member of each group, by what people call the group.
	Members(f func(group string, m *raftgroup.Member))
}

// ErrAlive refuses to remove a broker that is there.
var ErrAlive = errors.New("removal: the broker is there")

// A Meaning is what it means to remove a broker. Partitions are topic/number.
type Meaning struct {
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

// Remove removes a broker that has left for good: its replicas are moved to the
// brokers that are there, as far as there are enough, and then it is forgotten; the groups
// follow. With validateOnly it only says what it would do. What it means is told with a
// refusal as well.
func Remove(ctx context.Context, c Cluster, id int32, validateOnly bool) (Meaning, error) {
	for try := 1; ; try++ {
		image := c.Image()
		if _, registered := image.Broker(id); registered && c.Heard(id) {
			return Meaning{}, fmt.Errorf("%w: stop broker %d first, for good", ErrAlive, id)
		}
		var there []*metadata.Broker
		for _, b := range image.Brokers() {
			if c.Heard(b.ID) {
				there = append(there, b)
			}
		}
		change, err := metadata.PlanRemoval(image, id, there)
		if err != nil {
			return Meaning{}, err
		}
		means := meaning(c, image, change)
		if validateOnly {
			return means, image.Check(change)
		}
		if err = c.Change(ctx, change); !errors.Is(err, metadata.ErrConfigChanged) || try == removalTries {
			return means, err
		}
	}
}

// Leaving lists the groups that this node leads of which a broker is a member that shall be
// none: what is left to do after its removal.
func Leaving(c Cluster, id int32) (left []string) {
	if _, registered := c.Image().Broker(id); registered {
		return nil
	}
	c.Members(func(group string, m *raftgroup.Member) {
		if m.Raft.State() != raft.Leader {
			return
		}
		if slices.ContainsFunc(m.Raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool {
			peer, err := transport.ParseServerID(s.ID)
			return err == nil && peer.Node == id
		}) {
			left = append(left, group)
		}
	})
	return left
}

func meaning(c Cluster, image *metadata.Image, change metadata.RemoveBroker) (means Meaning) {
	moved := make(map[metadata.PartitionID]bool, len(change.Moves))
	for _, move := range change.Moves {
		moved[move.Partition] = true
	}
	means.Moved = len(change.Moves)
	for _, t := range metadata.HeldBy(image, change.ID) {
		for i := range t.Partitions {
			replicas := t.Partitions[i].Replicas
			if !slices.Contains(replicas, change.ID) {
				continue
			}
			there := 0
			for _, id := range replicas {
				if id != change.ID && c.Heard(id) {
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
