package partition

import "testing"

// A fullQueue takes no replica that wants a snapshot, until there is room.
type fullQueue struct {
	Host
	room  bool
	asked int
}

func (q *fullQueue) QueueSnapshot(*Replica) bool {
	q.asked++
	return q.room
}

// A replica that found no place in the queue for snapshots asks for one again, or its log
// would never get shorter; one that has a place does not ask for a second.
func TestAReplicaAsksAgainForASnapshotThatWasNotQueued(t *testing.T) {
	q := &fullQueue{}
	r := &Replica{p: &Partition{site: site{env: &Env{Host: q}}}}
	r.wantSnapshot()
	q.room = true
	for range 3 {
		r.wantSnapshot()
	}
	if q.asked != 2 {
		t.Errorf("it asked %d times, want 2", q.asked)
	}
}
