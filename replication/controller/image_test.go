package controller

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
)

// A snapshot of the controller group stands where Raft is, so none is taken while the
// image is ahead of that.
func TestNoSnapshotWhileChangesAreAppliedAgain(t *testing.T) {
	c := New()
	c.loaded = 7
	c.image.Store(&metadata.Image{Index: 7})
	for index := uint64(5); index <= 7; index++ {
		if _, err := c.Snapshot(); !errors.Is(err, errReplays) {
			t.Errorf("before change %d: a snapshot was taken (%v)", index, err)
		}
		if !c.applied(index) {
			t.Errorf("change %d is applied twice", index)
		}
	}
	if _, err := c.Snapshot(); err != nil {
		t.Error(err)
	}
	if c.applied(8) {
		t.Error("change 8 is not applied")
	}
}

func TestLastImageIsReadOrRefused(t *testing.T) {
	image := &metadata.Image{}
	for i, change := range []metadata.Change{
		metadata.RegisterBroker{Broker: metadata.Broker{ID: 1, Incarnation: "0123abcd", Host: "a", Port: 1}, ClusterID: "0123456789abcdefghijkl"},
	} {
		next, err := image.Apply(uint64(i+1), change)
		if err != nil {
			t.Fatal(err)
		}
		image = next
	}
	p := encodeLastImage(image)
	back, err := decodeLastImage(p)
	if err != nil || string(back.Encode()) != string(image.Encode()) {
		t.Fatalf("read back: %v", err)
	}
	for i := range p {
		damaged := slices.Clone(p)
		damaged[i] ^= 1
		if _, err := decodeLastImage(damaged); !errors.Is(err, errImageDamaged) {
			t.Errorf("byte %d damaged: %v", i, err)
		}
	}
	for n := range p {
		if _, err := decodeLastImage(p[:n]); !errors.Is(err, errImageDamaged) {
			t.Errorf("cut at byte %d: %v", n, err)
		}
	}
}

// An image that the log does not reach is of a log that was lost: what follows in the
// one that is there is not what made it.
func TestALastImageBeyondTheLogIsNotUsed(t *testing.T) {
	c := alone(t, Config{})
	image := c.Image()
	if err := os.WriteFile(c.imagePath(), encodeLastImage(image), 0o644); err != nil {
		t.Fatal(err)
	}
	for last, used := range map[uint64]bool{image.Index - 1: false, image.Index: true, image.Index + 1: true} {
		fresh := New()
		fresh.cfg = c.cfg
		fresh.loadImage(last, raft.NewInmemSnapshotStore())
		if got := fresh.Image().Index == image.Index; got != used {
			t.Errorf("an image at change %d, a log that ends at %d: used %t", image.Index, last, got)
		}
	}
}
