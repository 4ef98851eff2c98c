package metadata

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// fleet makes brokers 1 to n; racks, if given, are taken in turn.
func fleet(n int, racks ...string) []*Broker {
	all := make([]*Broker, n)
	for i := range all {
		all[i] = &Broker{ID: int32(i + 1)}
		if len(racks) > 0 {
			all[i].Rack = racks[i%len(racks)]
		}
	}
	return all
}

// spread is the difference between the most and the least that any broker has.
func spread(brokers []*Broker, placed [][]int32, count func(set []int32, id int32) int) int {
	least, most := 1<<30, 0
	for _, b := range brokers {
		n := 0
		for _, set := range placed {
			n += count(set, b.ID)
		}
		least, most = min(least, n), max(most, n)
	}
	return most - least
}

func leads(set []int32, id int32) int {
	if set[0] == id {
		return 1
	}
	return 0
}

func holds(set []int32, id int32) int {
	if slices.Contains(set, id) {
		return 1
	}
	return 0
}

func partitionsOf(placed [][]int32) []Partition {
	var all []Partition
	for _, set := range placed {
		all = append(all, Partition{Replicas: set})
	}
	return all
}

func distinct(t *testing.T, placed [][]int32, replicas int) {
	t.Helper()
	for i, set := range placed {
		sorted := slices.Sorted(slices.Values(set))
		if len(set) != replicas || len(slices.Compact(sorted)) != replicas {
			t.Fatalf("partition %d is on %v, want %d brokers", i, set, replicas)
		}
	}
}

func TestLeadersAndReplicasAreSpreadEvenly(t *testing.T) {
	for n := 1; n <= 12; n++ {
		for replicas := 1; replicas <= min(n, 5); replicas++ {
			for _, partitions := range []int{1, 2, 3, 7, 12, 50, 101} {
				for _, start := range []int{0, 1, n, 1000003, -1} {
					brokers := fleet(n)
					placed, err := Place(brokers, partitions, replicas, start)
					if err != nil {
						t.Fatal(err)
					}
					distinct(t, placed, replicas)
					if len(placed) != partitions || spread(brokers, placed, leads) > 1 || spread(brokers, placed, holds) > 3 {
						t.Fatalf("%d brokers, %d partitions, %d replicas, start %d: %v", n, partitions, replicas, start, placed)
					}
				}
			}
		}
	}
}

func TestReplicasAreInDifferentRacks(t *testing.T) {
	for _, c := range []struct {
		name     string
		brokers  []*Broker
		replicas int
		racks    int // that each partition must be in
		uneven   int // replicas a broker may have more than another
	}{
		{"as many racks as replicas", fleet(6, "a", "b", "c"), 3, 3, 2},
		{"more racks than replicas", fleet(10, "a", "b", "c", "d", "e"), 3, 3, 2},
		{"fewer racks than replicas", fleet(6, "a", "b"), 3, 2, 2},
		{"one rack", fleet(5, "a"), 3, 1, 2},
		{"no racks", fleet(5), 3, 1, 2},
		// b has one broker for a quarter of the brokers but half of the replicas: racks come first.
		{"a lonely rack", fleet(4, "a", "b", "a", "a"), 2, 2, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			rack := make(map[int32]string)
			for _, b := range c.brokers {
				rack[b.ID] = b.Rack
			}
			placed, err := Place(c.brokers, 60, c.replicas, 0)
			if err != nil {
				t.Fatal(err)
			}
			distinct(t, placed, c.replicas)
			for _, set := range placed {
				in := make(map[string]bool)
				for _, id := range set {
					in[rack[id]] = true
				}
				if len(in) != c.racks {
					t.Fatalf("%v is in %d racks, want %d", set, len(in), c.racks)
				}
			}
			if n := spread(c.brokers, placed, leads); n > 1 {
				t.Errorf("leaders differ by %d", n)
			}
			if n := spread(c.brokers, placed, holds); n > c.uneven {
				t.Errorf("replicas differ by %d", n)
			}
		})
	}
}

func TestABrokersPartitionsAreTakenOverByAllOthers(t *testing.T) {
	for _, n := range []int{3, 5, 9} {
		brokers := fleet(n)
		placed, err := Place(brokers, n*(n-1)*4, 3, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, failed := range brokers {
			next := make(map[int32]int)
			for _, set := range placed {
				if set[0] == failed.ID {
					next[set[1]]++
				}
			}
			for _, b := range brokers {
				if b != failed && (next[b.ID] < 2 || next[b.ID] > 6) {
					t.Errorf("%d brokers: of broker %d's partitions broker %d takes over %d, want about 4", n, failed.ID, b.ID, next[b.ID])
				}
			}
		}
	}
}

func TestTopicsOfOnePartitionAreSpreadByStart(t *testing.T) {
	brokers := fleet(5)
	var all [][]int32
	pairs := make(map[[2]int32]int)
	for start := range 200 {
		placed, err := Place(brokers, 1, 3, start)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, placed...)
		pairs[[2]int32{placed[0][0], placed[0][1]}]++
	}
	if n := spread(brokers, all, leads); n > 1 {
		t.Errorf("leaders differ by %d", n)
	}
	if n := spread(brokers, all, holds); n > 12 {
		t.Errorf("replicas differ by %d of 120", n)
	}
	if len(pairs) != 20 {
		t.Errorf("%d pairs of leader and successor, want all 20", len(pairs))
	}
}

func TestGrowingTopicStaysSpread(t *testing.T) {
	brokers := fleet(6, "a", "b", "c")
	var placed [][]int32
	for _, n := range []int{1, 2, 5, 1, 11} {
		more, err := PlaceFor(brokers, partitionsOf(placed), n, 3, 4)
		if err != nil {
			t.Fatal(err)
		}
		placed = append(placed, more...)
		distinct(t, placed, 3)
		if leads, holds := spread(brokers, placed, leads), spread(brokers, placed, holds); leads > 1 || holds > 2 {
			t.Errorf("%d partitions: leaders differ by %d, replicas by %d", len(placed), leads, holds)
		}
	}
	// A broker that joined takes what comes until it has as much as the others.
	brokers = fleet(7, "a", "b", "c")
	more, err := PlaceFor(brokers, partitionsOf(placed), 2, 3, 4)
	if err != nil || more[0][0] != 7 || more[1][0] != 7 {
		t.Errorf("new broker 7 should lead %v: %v", more, err)
	}
	// One that left, taking nothing with it, is in nobody's way.
	if _, err := PlaceFor(fleet(3), partitionsOf(placed), 5, 3, 0); err != nil {
		t.Errorf("after brokers left: %v", err)
	}
}

func TestMoreReplicasKeepTheOnesThereAre(t *testing.T) {
	before := [][]int32{{1}, {1}, {1}, {2, 1}, {9}}
	after, err := PlaceMore(fleet(3), partitionsOf(before), 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, set := range after {
		if !slices.Equal(set[:len(before[i])], before[i]) {
			t.Errorf("%v became %v", before[i], set)
		}
	}
	distinct(t, after, 3)
	even, err := PlaceMore(fleet(4), partitionsOf(slices.Repeat([][]int32{{1}}, 6)), 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := spread(fleet(4)[1:], even, holds); n != 0 {
		t.Errorf("the new replicas of %v differ by %d", even, n)
	}
	if same, err := PlaceMore(fleet(3), partitionsOf([][]int32{{3, 2, 1}}), 2, 0); err != nil || !reflect.DeepEqual(same, [][]int32{{3, 2, 1}}) {
		t.Errorf("a partition that has enough became %v: %v", same, err)
	}
}

func TestPlacementDependsOnItsArgumentsAlone(t *testing.T) {
	brokers := fleet(9, "a", "b")
	want, err := Place(brokers, 40, 3, 5)
	if err != nil {
		t.Fatal(err)
	}
	mixed := slices.Clone(brokers)
	slices.Reverse(mixed)
	if got, err := Place(mixed, 40, 3, 5); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("brokers in another order: %v, want %v: %v", got, want, err)
	}
	if got, err := Place(brokers, 40, 3, 6); err != nil || reflect.DeepEqual(got, want) {
		t.Errorf("another start makes no difference: %v", err)
	}
}

func TestImpossiblePlacementIsRefused(t *testing.T) {
	for _, c := range []struct {
		brokers, existing, partitions, replicas int
		reason                                  error
		text                                    string
	}{
		{3, 0, 1, 4, ErrNotEnoughBrokers, "Unable to replicate the partition 4 time(s): The target replication factor of 4 cannot be reached because only 3 broker(s) are registered."},
		{0, 0, 1, 1, ErrNotEnoughBrokers, ""},
		{3, 0, 1, 100, ErrInvalidReplication, "Replication factor 100 is larger than 15, the most a partition may have."},
		{3, 0, 1, 0, ErrInvalidReplication, "Replication factor must be larger than 0, or -1 to use the default value."},
		{3, 0, 1, -2, ErrInvalidReplication, ""},
		{3, 0, 0, 1, ErrInvalidPartitions, "Number of partitions was set to an invalid non-positive value."},
		{3, 0, -5, 1, ErrInvalidPartitions, ""},
		{3, 0, 100_000, 1, ErrInvalidPartitions, "The topic would have 100000 partitions; a topic may have at most 10000."},
		{3, 1, 1<<31 - 1, 1, ErrInvalidPartitions, ""},
		{3, 9_999, 2, 1, ErrInvalidPartitions, ""},
	} {
		_, err := PlaceFor(fleet(c.brokers), make([]Partition, c.existing), c.partitions, c.replicas, 0)
		if !errors.Is(err, c.reason) || c.text != "" && err.Error() != c.text {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if !errors.Is(ErrNotEnoughBrokers, ErrInvalidReplication) {
		t.Error("too few brokers is a kind of invalid replication")
	}
}

func TestLargestTopicIsPlacedAndCreated(t *testing.T) {
	var joins []Change
	for i := range int32(12) {
		joins = append(joins, register(i+1, fmt.Sprint(i%3)))
	}
	m := grown(t, joins...)
	placed, err := Place(m.Brokers(), MaxTopicPartitions, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := CreateTopic{ID: topicID(1), Name: "large", Assignment: placed}
	p, err := EncodeChange(c)
	if err != nil || len(p) > 300<<10 {
		t.Errorf("the change takes %d bytes: %v", len(p), err)
	}
	m = apply(t, m, c)
	if n := len(m.Encode()); n > 400<<10 {
		t.Errorf("the image takes %d bytes", n)
	}
	if id, ok := m.Group(MaxTopicPartitions); !ok || id.Index != MaxTopicPartitions-1 {
		t.Errorf("last group is %v, %v", id, ok)
	}
}
