package metadata

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// five is a cluster of five brokers.
func five(t testing.TB) *Image {
	var all []Change
	for i := range int32(5) {
		all = append(all, upgraded(i+1, 4, 1, "abc"))
	}
	return grown(t, all...)
}

// What a broker held is with others afterwards, as often as before while there are others, and
// who held it besides holds it still, in the same order; the broker is forgotten.
func TestABrokerIsRemovedWithItsReplicas(t *testing.T) {
	m := five(t)
	for i, replicas := range []int{3, 1, 2, 5} {
		brokers := slices.DeleteFunc(slices.Clone(m.Brokers()), func(b *Broker) bool { return replicas == 1 && b.ID == 2 })
		placed, err := Place(brokers, 20, replicas, 0)
		if err != nil {
			t.Fatal(err)
		}
		m = apply(t, m, CreateTopic{ID: topicID(byte(i + 1)), Name: fmt.Sprint("t", i), Assignment: placed, Grow: i == 0})
	}
	m = apply(t, m, SetBrokerConfig{Broker: 2, Set: map[string]string{"log.cleaner.threads": "2"}})
	m = apply(t, m, AllocateProducerIDs{Broker: 2, Count: 10})
	c, err := PlanRemoval(m, 2, m.Brokers())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Check(c); err != nil {
		t.Fatal(err)
	}
	next := apply(t, m, c)
	consistent(t, next)
	if _, ok := next.Broker(2); ok || len(next.Brokers()) != 4 || len(next.BrokerConfig(2)) != 0 {
		t.Errorf("brokers %v", next.Brokers())
	}
	load := make(map[int32]int)
	for _, before := range m.Topics() {
		after, _ := next.TopicByID(before.ID)
		if after.Grow != before.Grow {
			t.Errorf("topic %s grows: %v", after.Name, after.Grow)
		}
		for i := range before.Partitions {
			was, is := before.Partitions[i].Replicas, after.Partitions[i].Replicas
			if kept := without(was, 2); !slices.Equal(is[:len(kept)], kept) {
				t.Errorf("%s/%d was on %v and is on %v", after.Name, i, was, is)
			}
			if want := min(len(was), 4); len(is) != want {
				t.Errorf("%s/%d was on %v and is on %v", after.Name, i, was, is)
			}
			for _, id := range is {
				load[id]++
			}
		}
	}
	for id, n := range load {
		if each := next.Replicas() / 4; n < each-each/4 || n > each+each/4 {
			t.Errorf("broker %d holds %d of %d replicas", id, n, next.Replicas())
		}
	}
	read, err := DecodeImage(next.Encode())
	if err != nil || !reflect.DeepEqual(read, next) {
		t.Errorf("the image is read as another: %v", err)
	}
	if _, err := next.Apply(next.Index+1, c); !errors.Is(err, ErrConfigChanged) {
		t.Errorf("removed twice: %v", err)
	}
}

// Who alone holds a partition is not removed, and those that would be lost are named.
func TestTheOnlyHolderIsNotRemoved(t *testing.T) {
	m := grown(t, upgraded(1, 4, 1, "a"), upgraded(2, 4, 1, "b"),
		CreateTopic{ID: topicID(1), Name: "both", Assignment: [][]int32{{2, 1}}},
		CreateTopic{ID: topicID(2), Name: "one", Assignment: [][]int32{{2}, {1}, {2}}})
	c, err := PlanRemoval(m, 2, m.Brokers())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Check(c); !errors.Is(err, ErrBrokerInUse) || !strings.Contains(err.Error(), "broker 2 is the only one that holds 2 partitions (one/0, one/2)") {
		t.Fatalf("%v", err)
	}
	m = apply(t, m, DeleteTopic{topicID(2)})
	if c, err = PlanRemoval(m, 2, m.Brokers()); err != nil || c.Moves != nil {
		t.Fatalf("%v, %v", c, err)
	}
	m = apply(t, m, c)
	if both, _ := m.Topic("both"); !slices.Equal(both.Partitions[0].Replicas, []int32{1}) || m.Replicas() != 1 {
		t.Errorf("replicas %v", both.Partitions[0].Replicas)
	}
}

func TestBadRemovalsAreRefused(t *testing.T) {
	m := apply(t, five(t), CreateTopic{ID: topicID(1), Name: "t", Assignment: [][]int32{{1, 2}, {3, 4}}})
	first, second := PartitionID{topicID(1), 0}, PartitionID{topicID(1), 1}
	for what, c := range map[string]struct {
		change RemoveBroker
		reason error
	}{
		"a broker that is not there":     {RemoveBroker{ID: 9}, ErrUnknownBroker},
		"another incarnation":            {RemoveBroker{ID: 2, Incarnation: "x"}, ErrStaleBroker},
		"a partition that it has not":    {RemoveBroker{ID: 2, Moves: []Move{{second, []int32{3, 5}}}}, ErrInvalidAssignment},
		"a partition that is not there":  {RemoveBroker{ID: 2, Moves: []Move{{PartitionID{topicID(1), 2}, []int32{3, 5}}}}, ErrInvalidAssignment},
		"a move to itself":               {RemoveBroker{ID: 2, Moves: []Move{{first, []int32{1, 2}}}}, ErrInvalidAssignment},
		"a move to nobody":               {RemoveBroker{ID: 2, Moves: []Move{{first, nil}}}, ErrInvalidAssignment},
		"a move to a stranger":           {RemoveBroker{ID: 2, Moves: []Move{{first, []int32{1, 9}}}}, ErrInvalidAssignment},
		"more replicas":                  {RemoveBroker{ID: 2, Moves: []Move{{first, []int32{1, 3, 4}}}}, ErrInvalidAssignment},
		"one that was judged by another": {RemoveBroker{ID: 2, Judged: m.Index - 1}, ErrConfigChanged},
	} {
		if err := m.Check(c.change); !errors.Is(err, c.reason) {
			t.Errorf("%s: %v, want %v", what, err, c.reason)
		}
	}
}
