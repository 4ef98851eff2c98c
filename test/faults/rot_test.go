//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"millrace/segment"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A wound is one flipped bit in the payload of an entry of a sealed segment.
type wound struct {
	path     string
	position int64 // of the entry's frame
	bit      int64 // position of the byte flipped
	from, to int64 // the entry's offsets
}

// flipSealedBit flips one bit in the middle of the payload of an entry in the
// middle of the first segment of a log that has several.
func flipSealedBit(t *testing.T, dir string) wound {
	t.Helper()
	files := segmentFiles(t, dir)
	if len(files) < 3 {
		t.Fatalf("%s holds %d segments; the test needs sealed ones", dir, len(files))
	}
	w := wound{path: files[0]}
	var commands []segment.Frame
	_, err := segment.Walk(segment.OS, w.path, 0, func(f *segment.Frame) error {
		if f.Type == segment.Command {
			g := *f
			g.Payload = make([]byte, f.PayloadLen()) // the bytes are valid during the call only
			commands = append(commands, g)
		}
		return nil
	}, func(c *segment.CorruptError) error { return c })
	if err != nil || len(commands) == 0 { // few, if what waited was joined into large entries
		t.Fatalf("%s: %d entries: %v", w.path, len(commands), err)
	}
	f := commands[len(commands)/2]
	w.position, w.from, w.to = f.Position, f.BaseOffset, f.NextOffset()
	w.bit = f.Position + segment.FrameHeaderSize + int64(f.PayloadLen()) - 20 // in the last record's value
	file, err := os.OpenFile(w.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var b [1]byte
	if _, err := file.ReadAt(b[:], w.bit); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := file.WriteAt(b[:], w.bit); err != nil {
		t.Fatal(err)
	}
	t.Logf("flipped a bit at %d of %s, in the entry at %d, offsets [%d,%d)", w.bit, w.path, w.position, w.from, w.to)
	return w
}

// expectVerifyFinds has `millrace segment verify` find the wound: exit status 1,
// naming file and position.
func (c *cluster) expectVerifyFinds(w wound, dir string) {
	c.t.Helper()
	out, errs, status := c.exec(nil, binary, "segment", "verify", dir)
	said := out + errs
	if status != 1 {
		c.t.Errorf("segment verify %s: status %d, want 1: %s", dir, status, oneLine(said))
	}
	if !strings.Contains(said, w.path) || !strings.Contains(said, fmt.Sprint(w.position)) {
		c.t.Errorf("segment verify does not name %s and position %d: %s", w.path, w.position, oneLine(said))
	}
	figure(c.t, "segment verify: status %d, %s", status, oneLine(strings.ReplaceAll(said, dir+"/", "…/")))
}

// grow produces until a partition has several sealed segments.
func (l *ledger) grow(records int) {
	l.t.Helper()
	p := l.produce(time.Millisecond)
	l.awaitAcknowledged(records)
	p.finish()
}

// S13 on one node: with no peer to repair from, the partition does without the
// bad record, or is out of service, and the rest of the node runs on.
func TestFlippedBitOnTheOnlyReplicaIsNeverServed(t *testing.T) {
	c := startCluster(t, 1, nil)
	c.createTopic("rotten", 1, "segment.bytes=1048576")
	c.createTopic("sound", 1)
	l, other := newLedger(c, "rotten", 1), newLedger(c, "sound", 1)
	l.valueBytes = 10_000
	l.grow(500)
	other.grow(200)
	id := c.topicID("rotten")
	n := c.nodes[0]
	n.Stop()
	dir := n.folder(id, 0)
	w := flipSealedBit(t, dir)
	c.expectVerifyFinds(w, dir)
	c.restart(n)

	c.awaitLeaders("sound")
	p := other.produce(2 * time.Millisecond)
	other.awaitAcknowledged(100)
	p.finish()
	y := other.check()
	read, bad := l.readWhatIsServed(w, 5*time.Second)
	if bad {
		t.Errorf("I16 the record at offset %d was served", w.to-1)
	}
	if n.GrepLog("panic") != nil {
		t.Errorf("the node's log has a panic")
	}
	figure(t, "the node serves its other partition (%v); of the damaged one %d records can be read, the damaged one never", y, read)
}

// readWhatIsServed reads around a wound for a while: everything read must be as
// it was sent. It tells whether anything of the wounded entry was read.
func (l *ledger) readWhatIsServed(w wound, patience time.Duration) (read int, bad bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, from := range []int64{0, w.from, w.to} {
		client := l.c.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: {0: kgo.NewOffset().At(from)}}), kgo.FetchMaxWait(time.Second))
		sub, cancel := context.WithTimeout(ctx, patience/3)
		for sub.Err() == nil {
			fetches := client.PollFetches(sub)
			l.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) {
				read++
				l.sawLocked(r)
				if r.Offset >= w.from && r.Offset < w.to {
					bad = true
				}
			})
			fetches.EachError(func(_ string, _ int32, err error) {
				if !errors.Is(err, context.DeadlineExceeded) {
					l.t.Logf("reading from %d: %v", from, err)
				}
			})
			l.mu.Unlock()
		}
		cancel()
		client.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.troubles {
		l.t.Error(s)
	}
	l.troubles = nil
	return read, bad
}

// S13. A bit flips on one replica of three, of a node that is stopped: it is
// found, the node starts and serves its other partitions, and no reader sees
// anything but what was sent, whoever leads.
func TestFlippedBitOnOneReplicaIsNeverServed(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.createTopic("rotten", 1, "segment.bytes=1048576")
	c.createTopic("sound", 3)
	l, other := newLedger(c, "rotten", 1), newLedger(c, "sound", 3)
	l.valueBytes = 10_000
	l.grow(500)
	other.grow(200)
	id := c.topicID("rotten")
	victim := c.leader("rotten", 0)
	victim.Stop()
	dir := victim.folder(id, 0)
	w := flipSealedBit(t, dir)
	c.expectVerifyFinds(w, dir)
	c.restart(victim)
	c.awaitInSync("sound")

	l.check()
	other.check()
	// Whoever leads: end the leaders one after the other, and read.
	served := 0
	for range 3 {
		leader := c.leader("rotten", 0)
		leader.Kill()
		if read, _ := l.readWhatIsServed(w, 6*time.Second); read > 0 {
			served++
		}
		c.restart(leader)
		c.awaitLeaders("rotten")
		l.check()
	}
	p := l.produce(5 * time.Millisecond)
	l.awaitAcknowledged(50)
	p.finish()
	y := l.check()
	z := other.check()
	repaired := "not repaired by itself"
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if _, _, status := c.exec(nil, binary, "segment", "verify", dir); status == 0 {
			repaired = "repaired from a peer"
			break
		}
	}
	for _, line := range victim.GrepLog("quarantined") {
		t.Log(line)
	}
	c.Stop()
	if repaired == "repaired from a peer" {
		c.checkAtRest()
	} else {
		c.checkAtRest(c.except(victim)...)
	}
	figure(t, "flipped bit on one of three replicas: %v; other topic %v; served in %d of 3 rounds with one more node down; %s", y, z, served, repaired)
}

// S13, running: a bit flips under a leader that serves. Readers get the record
// from a whole replica, or an error, and never the damaged bytes.
func TestFlippedBitUnderARunningLeaderIsNeverServed(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.createTopic("rotten", 1, "segment.bytes=1048576")
	l := newLedger(c, "rotten", 1)
	l.valueBytes = 10_000
	l.grow(500)
	id := c.topicID("rotten")
	c.Stop()
	c.restart(c.nodes...) // nothing is cached now
	c.awaitInSync("rotten")
	leader := c.leader("rotten", 0)
	w := flipSealedBit(t, leader.folder(id, 0))
	began := time.Now()
	l.check()
	whole := time.Since(began)
	read, _ := l.readWhatIsServed(w, 3*time.Second)
	p := l.produce(5 * time.Millisecond)
	l.awaitAcknowledged(50)
	p.finish()
	y := l.check()
	after := c.leader("rotten", 0)
	for _, line := range leader.GrepLog("quarantined") {
		t.Log(line)
	}
	c.Stop()
	figure(t, "flipped bit under the running leader (node %d, afterwards node %d leads): all could be read after %s, %d records around it; %v",
		leader.ID, after.ID, millis(whole), read, y)
}

// except lists all nodes but one.
func (c *cluster) except(n *node) (others []*node) {
	for _, o := range c.nodes {
		if o != n {
			others = append(others, o)
		}
	}
	return others
}
