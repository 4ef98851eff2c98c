package replication

import (
	"errors"
	"testing"

	"millrace/log"
)

func TestCatchUpRefusesSegmentsThatLeaveAGap(t *testing.T) {
	segments := func(first ...uint64) (infos []log.SegmentInfo) {
		for _, f := range first {
			infos = append(infos, log.SegmentInfo{FirstIndex: f})
		}
		return infos
	}
	for _, tt := range []struct {
		name  string
		plan  log.Plan
		index uint64
		ok    bool
	}{
		{"from the beginning", log.Plan{Segments: segments(1, 50), EndIndex: 100}, 99, true},
		{"right behind the snapshot", log.Plan{Segments: segments(51), EndIndex: 100}, 50, true},
		{"nothing but the snapshot", log.Plan{EndIndex: 51}, 50, true},
		{"dropped since the snapshot", log.Plan{Segments: segments(52), EndIndex: 100}, 50, false},
		{"all dropped since the snapshot", log.Plan{EndIndex: 52}, 50, false},
		{"end before the snapshot", log.Plan{Segments: segments(1), EndIndex: 50}, 50, false},
	} {
		if err := covers(tt.plan, tt.index); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// What is acknowledged while segments are pulled must not go with the old log.
func TestCatchUpKeepsWhatCameInMeanwhile(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	id := c.create("orders", 1, 1, nil)
	_, p := c.leader(id)
	r := p.current.Load()
	writes := r.store.writes.Load()
	if _, err := appendWait(p, batchOf("acknowledged")); err != nil {
		t.Fatal(err)
	}
	if err := p.install(r, &snapshot{index: 1, term: 1}, writes); !errors.Is(err, errOvertaken) {
		t.Fatalf("the log was replaced: %v", err)
	}
	c.check("after the catch-up", id, []string{"acknowledged"})
}
