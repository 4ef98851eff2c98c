package replication

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/segment/record/recordtest"
)

// A smallDisk is an ext4 file system of its own, which can be filled to its last block.
type smallDisk struct {
	t  *testing.T
	at string
	n  int // files of ballast
}

func newSmallDisk(t *testing.T, megabytes int64) *smallDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system of its own: not run")
	}
	d := &smallDisk{t: t, at: filepath.Join(t.TempDir(), "disk")}
	image := d.at + ".img"
	if err := errors.Join(os.Mkdir(d.at, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, megabytes<<20)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", image}, {"mount", "-o", "loop", image, d.at}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v: %s: not run", args, err, out)
		}
	}
	t.Cleanup(func() {
		for range 1000 {
			if exec.Command("umount", d.at).Run() == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Error("the disk is still in use")
		exec.Command("umount", "-l", d.at).Run()
	})
	return d
}

// fill takes the last block. What was deleted becomes free once the file system's
// journal says so, so it tries again behind a sync.
func (d *smallDisk) fill() {
	d.t.Helper()
	zeros := make([]byte, 1<<20)
	for dry := 0; dry < 3; {
		d.n++
		f, err := os.Create(filepath.Join(d.at, fmt.Sprint("ballast-", d.n)))
		if err != nil {
			d.t.Fatal(err)
		}
		wrote := 0
		for size := len(zeros); size >= 4096; {
			n, err := f.Write(zeros[:size])
			wrote += n
			if errors.Is(err, syscall.ENOSPC) {
				size /= 4
			} else if err != nil {
				d.t.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			d.t.Fatal(err)
		}
		f.Close()
		syscall.Sync()
		if dry++; wrote > 0 {
			dry = 0
		}
	}
}

func (d *smallDisk) free() int64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.at, &st); err != nil {
		d.t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// TestAFullDiskTakesNothingButAppends: on a disk that is full to its last block a topic
// is created, altered, trimmed and deleted, the node starts again and leads what it
// led, and with the room that a deletion makes appends go on.
func TestAFullDiskTakesNothingButAppends(t *testing.T) {
	d := newSmallDisk(t, 64)
	c := startClusterOf(&testCluster{t: t, dir: filepath.Join(d.at, "data")}, 1)
	n := c.nodes[0]
	defer c.stop()
	within := func(what string, f func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := f(ctx); err != nil {
			t.Fatalf("%s, with %d bytes free: %v", what, d.free(), err)
		}
	}
	append1 := func(id idOf, value string) error {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			_, p := c.leader(id)
			_, err := appendWait(p, recordtest.Values(value))
			if err == nil || !errors.Is(err, partition.ErrNotLeader) || time.Now().After(deadline) {
				return err
			}
		}
	}
	big := strings.Repeat("x", 300<<10)
	small := map[string]string{"segment.bytes": "1048576"}
	a, b, groups := c.create("a", 1, 1, small), c.create("b", 1, 1, small), c.create("groups", 1, 1, nil)
	for i := range 12 {
		for _, id := range []idOf{a, b} {
			if err := append1(id, fmt.Sprint(i, big)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := append1(groups, "commit"); err != nil {
		t.Fatal(err)
	}
	d.fill()
	for i := range 100 { // what was taken ahead
		err := append1(b, fmt.Sprint(i, big))
		if errors.Is(err, partition.ErrNoSpace) {
			break
		}
		if err != nil || i == 99 {
			t.Fatal(err)
		}
	}
	d.fill()

	// The controller: many more changes than one free page would do.
	for i := range 40 {
		within("alter", func(ctx context.Context) error {
			return n.Change(ctx, metadata.SetTopicConfig{Topic: a.Topic, Set: map[string]string{"retention.ms": fmt.Sprint(1000000 + i)}})
		})
	}
	within("create", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second) // it waits for a leader, and need not have one
		defer cancel()
		_, err := n.CreateTopic(ctx, TopicRequest{Name: "late", Partitions: 1, Replicas: 1})
		return err
	})
	d.fill()

	// A restart, twice: the first may have freed something.
	for range 2 {
		n.stop()
		d.fill()
		n.start()
		c.leader(a)
		c.leader(groups)
	}
	if free := d.free(); free != 0 {
		t.Fatalf("%d bytes are free: the test is of nothing", free)
	}

	// A trim deletes what it covers.
	within("trim", func(ctx context.Context) error {
		_, p := c.leader(a)
		_, err := p.Trim(ctx, 11)
		return err
	})
	freed := func(what string, least int64) {
		t.Helper()
		for range 400 {
			syscall.Sync()
			if d.free() >= least {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("%s: %d bytes are free, want %d", what, d.free(), least)
	}
	n.upkeep.retainBy(1)
	freed("after a trim", 1<<20)
	if err := append1(groups, "commit"); err != nil {
		t.Fatalf("after a trim: %v", err)
	}
	d.fill()
	within("delete", func(ctx context.Context) error { return n.Change(ctx, metadata.DeleteTopic{Topic: b.Topic}) })
	freed("after a deletion", 2<<20)
	for _, id := range []idOf{a, groups} {
		if err := append1(id, "again"); err != nil {
			t.Fatalf("after a deletion: %v", err)
		}
	}
	// The topic that was created without room for it.
	late, ok := n.Image().Topic("late")
	if !ok {
		t.Fatal("a topic is gone")
	}
	if err := append1(metadata.PartitionID{Topic: late.ID}, "now"); err != nil {
		t.Fatalf("a topic made on a full disk: %v", err)
	}
}
