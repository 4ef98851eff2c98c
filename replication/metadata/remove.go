package metadata

import (
	"fmt"
	"slices"
)

// RemoveBroker forgets a broker that has left for good, and with it the replicas that it
// held: those of Moves are with others from now on, and of the rest there is one less. A
// broker that is the only one to hold a partition is not removed.
//
// Errors: ErrUnknownBroker, ErrStaleBroker, ErrBrokerInUse, ErrInvalidAssignment, ErrConfigChanged, ErrLevel.
type RemoveBroker struct {
	ID          int32
	Incarnation string `json:",omitempty"` // "": whichever is registered
	Moves       []Move `json:",omitempty"`
	Judged      uint64 `json:",omitempty"` // the Index of the image by which Moves were chosen; 0: any
}

// A Move says which brokers hold a partition from now on, instead of those that did.
type Move struct {
	Partition PartitionID
	Replicas  []int32 // not more than there were
}

func (RemoveBroker) kind() string { return "RemoveBroker" }
func (RemoveBroker) level() int32 { return 4 }

func (RemoveBroker) check(_, _ *Image) error { return nil }

func (c RemoveBroker) apply(next *Image) error {
	if err := next.needsLevel4("removals of brokers with their replicas"); err != nil {
		return err
	}
	if c.Judged != 0 && c.Judged != next.Index {
		return refuse(ErrConfigChanged, "the removal of broker %d was judged by the image at change %d, and it is at %d now", c.ID, c.Judged, next.Index)
	}
	if _, ok := next.broker(c.ID); !ok {
		return refuse(ErrUnknownBroker, "Broker ID %d is not currently registered", c.ID)
	}
	moves := make(map[PartitionID][]int32, len(c.Moves))
	for _, move := range c.Moves {
		t, p, ok := next.Partition(move.Partition)
		switch {
		case !ok || !slices.Contains(p.Replicas, c.ID):
			return refuse(ErrInvalidAssignment, "broker %d does not hold partition %d of topic %s", c.ID, move.Partition.Index, move.Partition.Topic)
		case slices.Contains(move.Replicas, c.ID) || len(move.Replicas) > len(p.Replicas):
			return refuse(ErrInvalidAssignment, "partition %d of topic '%s' cannot move from broker %d to %v", move.Partition.Index, t.Name, c.ID, move.Replicas)
		}
		if err := next.validReplicas(move.Replicas); err != nil {
			return err
		}
		moves[move.Partition] = move.Replicas
	}
	var only []string
	for _, t := range HeldBy(next, c.ID) {
		changed := *t
		changed.Partitions = slices.Clone(t.Partitions)
		for i := range changed.Partitions {
			p := &changed.Partitions[i]
			if !slices.Contains(p.Replicas, c.ID) {
				continue
			}
			had := len(p.Replicas)
			if to, ok := moves[PartitionID{t.ID, int32(i)}]; ok {
				p.Replicas = slices.Clone(to)
			} else if p.Replicas = without(p.Replicas, c.ID); len(p.Replicas) == 0 {
				only = append(only, fmt.Sprintf("%s/%d", t.Name, i))
			}
			next.replicas += len(p.Replicas) - had
		}
		next.replace(&changed)
		if err := next.grow(topicSize(&changed) - topicSize(t)); err != nil {
			return err
		}
	}
	if n := len(only); n > 0 {
		return refuse(ErrBrokerInUse, "broker %d is the only one that holds %d partitions (%s): they would be lost; start it again, or delete their topics first", c.ID, n, some(only))
	}
	return UnregisterBroker{ID: c.ID, Incarnation: c.Incarnation}.apply(next)
}

// some names a few.
func some(names []string) string {
	text := ""
	for i, name := range names {
		switch {
		case i == 5:
			return text + ", …"
		case i > 0:
			text += ", "
		}
		text += name
	}
	return text
}

func without(replicas []int32, broker int32) []int32 {
	return slices.DeleteFunc(slices.Clone(replicas), func(id int32) bool { return id == broker })
}

// HeldBy lists the topics of which a broker holds partitions.
func HeldBy(m *Image, broker int32) (topics []*Topic) {
	for _, t := range m.topics {
		if slices.ContainsFunc(t.Partitions, func(p Partition) bool { return slices.Contains(p.Replicas, broker) }) {
			topics = append(topics, t)
		}
	}
	return topics
}

// PlanRemoval is the removal of a broker by which its replicas move to others of those that
// are given, as far as there are such that do not hold the partition yet; each partition
// keeps the replicas that it has elsewhere, and their order. A partition that nobody else
// holds is left alone, and the change is refused for it.
func PlanRemoval(m *Image, broker int32, onto []*Broker) (RemoveBroker, error) {
	b, ok := m.Broker(broker)
	if !ok {
		return RemoveBroker{}, refuse(ErrUnknownBroker, "Broker ID %d is not currently registered", broker)
	}
	c := RemoveBroker{ID: broker, Incarnation: b.Incarnation, Judged: m.Index}
	onto = slices.DeleteFunc(slices.Clone(onto), func(b *Broker) bool { return b.ID == broker })
	if len(onto) == 0 {
		return c, nil
	}
	var all []Partition // what the others hold now
	for _, t := range m.topics {
		all = append(all, t.Partitions...)
	}
	p := newPlacer(onto, all, 0)
	for _, t := range HeldBy(m, broker) {
		for i := range t.Partitions {
			replicas := without(t.Partitions[i].Replicas, broker)
			set := p.known(replicas)
			if len(replicas) == len(t.Partitions[i].Replicas) || len(set) == 0 || len(set) == len(onto) {
				continue
			}
			next := p.follower(set)
			p.load[next]++
			c.Moves = append(c.Moves, Move{PartitionID{t.ID, int32(i)}, append(replicas, p.brokers[next].ID)})
		}
	}
	return c, nil
}

// WasRegistered reports whether a broker of the id may have been registered, now or once: it
// is not above all that were.
func (m *Image) WasRegistered(id int32) bool { return id <= m.lastBroker }
