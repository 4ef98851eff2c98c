package replication

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"millrace/replication/metadata"
)

// A TopicRequest asks for a topic.
type TopicRequest struct {
	Name string
	// Partitions to make; -1 means num.partitions.
	Partitions int32
	// Replicas of each; -1 means default.replication.factor, or 3 where there
	// are as many brokers, and then the topic grows with the cluster.
	Replicas int16
	// Grow makes do with fewer replicas while there are fewer brokers, and lets
	// the topic grow with the cluster, up to three.
	Grow bool
	// Assignment, if not nil, names the replicas of each partition, the
	// preferred leader first; Partitions and Replicas are -1 then.
	Assignment   [][]int32
	Config       map[string]string
	Internal     bool
	ValidateOnly bool
	// LeaderWait bounds how long CreateTopic waits for leaders once the topic is
	// there; 0: as long as its context.
	LeaderWait time.Duration
}

// CreateTopic places replicas, commits the topic and waits until its
// partitions have leaders, LeaderWait is over or ctx ends. With ValidateOnly it only says what it
// would do. A refusal is metadata's own error.
func (n *Node) CreateTopic(ctx context.Context, req TopicRequest) (*metadata.Topic, error) {
	image := n.Image()
	topicID, err := metadata.NewTopicID(rand.Reader)
	if err != nil {
		return nil, err
	}
	change := metadata.CreateTopic{
		ID: topicID, Name: req.Name, Assignment: req.Assignment, Config: req.Config, Internal: req.Internal,
	}
	if req.Assignment == nil {
		partitions, replicas := int(req.Partitions), int(req.Replicas)
		topics := n.settings().Topics
		if partitions == -1 {
			partitions = int(topics.Partitions)
		}
		if replicas == -1 {
			replicas, change.Grow = topics.Replication, topics.Grows
		} else if req.Grow {
			replicas = min(replicas, len(image.Brokers()))
			change.Grow = true
		}
		change.Assignment, err = metadata.Place(n.placeable(image, replicas), partitions, replicas, int(image.LastGroup()%1024))
		if err != nil {
			return nil, err
		}
	}
	if req.ValidateOnly {
		if err := image.Check(change); err != nil {
			return nil, err
		}
		next, err := image.Apply(image.Index+1, change)
		if err != nil {
			return nil, err
		}
		t, _ := next.TopicByID(change.ID)
		return t, nil
	}
	if err := n.Change(ctx, change); err != nil {
		return nil, err
	}
	t, ok := n.Image().TopicByID(change.ID)
	if !ok {
		return nil, fmt.Errorf("%w: topic %q was deleted at once", ErrUnknown, req.Name)
	}
	if req.LeaderWait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.LeaderWait)
		defer cancel()
	}
	n.awaitLeaders(ctx, t, 0)
	return t, nil
}

// AddPartitions makes a topic have count partitions in total. assignment, if
// not nil, names the replicas of each new one.
func (n *Node) AddPartitions(ctx context.Context, topic string, count int32, assignment [][]int32, validateOnly bool) error {
	image := n.Image()
	t, ok := image.Topic(topic)
	if !ok {
		return metadata.ErrUnknownTopic
	}
	change := metadata.CreatePartitions{Topic: t.ID, Count: count, Assignment: assignment}
	if assignment == nil && int(count) > len(t.Partitions) {
		var err error
		replicas := len(t.Partitions[0].Replicas)
		change.Assignment, err = metadata.PlaceFor(n.placeable(image, replicas), t.Partitions, int(count)-len(t.Partitions), replicas, 0)
		if err != nil {
			return err
		}
	}
	if validateOnly {
		return image.Check(change)
	}
	had := len(t.Partitions)
	if err := n.Change(ctx, change); err != nil {
		return err
	}
	if t, ok = n.Image().TopicByID(t.ID); ok {
		n.awaitLeaders(ctx, t, had)
	}
	return nil
}

// placeable lists the brokers that may get new replicas, so many of each partition:
// those that are there, or all when these are too few. A topic of two replicas, one of
// them on a broker that is down, would have no quorum.
func (n *Node) placeable(image *metadata.Image, replicas int) []*metadata.Broker {
	all := image.Brokers()
	var there []*metadata.Broker
	for _, b := range all {
		if n.Present(b.ID) {
			there = append(there, b)
		}
	}
	if len(there) >= replicas {
		return there
	}
	return all
}

// awaitLeaders waits until the partitions from first on have leaders.
func (n *Node) awaitLeaders(ctx context.Context, t *metadata.Topic, first int) {
	for i := first; i < len(t.Partitions); i++ {
		id := metadata.PartitionID{Topic: t.ID, Index: int32(i)}
		for {
			if _, _, ok := n.Leader(id); ok {
				break
			}
			if _, ok := n.Image().TopicByID(t.ID); !ok {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-n.closing:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}
