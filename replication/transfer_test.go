package replication

import (
	"millrace/segment/record/recordtest"
	"testing"
)

// KIP-320: consumers know the epochs of leaderships in which nothing was
// appended, from ListOffsets, and ask for their end after the next change.
func TestEpochWithoutRecordsEndsWhereTheOneBeforeDid(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	id := c.create("orders", 1, 1, nil)
	var terms []int32
	for i := range 3 {
		if i > 0 {
			c.nodes[0].stop()
			c.nodes[0].start()
		}
		_, p := c.leader(id)
		if i == 0 {
			if _, err := appendWait(p, recordtest.Values("a", "b", "c")); err != nil {
				t.Fatal(err)
			}
		}
		epoch, err := p.Serving()
		if err != nil {
			t.Fatal(err)
		}
		terms = append(terms, epoch)
	}
	_, p := c.leader(id)
	for _, asked := range []int32{terms[0], terms[1]} {
		if e, end := p.EpochEnd(asked); e != terms[0] || end != 3 {
			t.Errorf("epoch %d of %v ended as %d at %d, want %d at 3", asked, terms, e, end, terms[0])
		}
	}
	for _, asked := range []int32{-1, terms[2] + 1} {
		if e, end := p.EpochEnd(asked); e != -1 || end != -1 {
			t.Errorf("epoch %d of %v ended as %d at %d", asked, terms, e, end)
		}
	}
}
