package journal

import (
	"errors"
	"testing"

	"millrace/replication"
	"millrace/replication/partition"
	"millrace/server/coordinator"
)

// What becomes of an append that was queued is told in the coordinator's words, as that of
// one that was not is: by them it knows whether the records may be stored all the same, and
// whether its partition is another node's.
func TestWhatBecameOfAnAppendIsToldInTheCoordinatorsWords(t *testing.T) {
	other := errors.New("other")
	for _, c := range []struct{ err, want error }{
		{nil, nil},
		{replication.ErrUnknown, coordinator.ErrUnknownOutcome},
		{partition.ErrNotLeader, coordinator.ErrNotLeader},
		{partition.ErrQuarantined, coordinator.ErrNotLeader},
		{replication.ErrNotHosted, coordinator.ErrNotLeader},
		{replication.ErrClosed, coordinator.ErrNotLeader},
		{other, other},
	} {
		told := errors.New("nothing")
		decision(func(err error) { told = err }).Appended(partition.Ack{}, c.err)
		if !errors.Is(told, c.want) || !errors.Is(told, c.err) {
			t.Errorf("%v is told as %v, want %v", c.err, told, c.want)
		}
	}
}
