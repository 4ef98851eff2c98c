//go:build faults

package faults

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// labTopic is what the crowd of a lab produces to and reads.
const (
	labTopic      = "lab"
	labPartitions = 6
)

// A crowdAtWork is several producers and consumers of one topic, each of all its
// partitions, and how long any of them went without an answer.
type crowdAtWork struct {
	l         *lab
	ledger    *ledger
	producers []*load
	consumers []*pulse
	stop      []func() int
}

// work starts so many producers and as many consumers. They are as impatient as
// clients are that want to go on: two seconds a request.
func (l *lab) work(clients int) *crowdAtWork {
	l.t.Helper()
	l.createTopic(labTopic, labPartitions)
	l.awaitPreferred(labTopic)
	w := &crowdAtWork{l: l, ledger: newLedger(l.cluster, labTopic, labPartitions)}
	for range clients {
		w.producers = append(w.producers, w.ledger.produce(20*time.Millisecond,
			kgo.ProduceRequestTimeout(time.Second), kgo.RequestTimeoutOverhead(time.Second)))
		p := new(pulse)
		w.consumers = append(w.consumers, p)
		w.stop = append(w.stop, w.ledger.tailWith(p))
	}
	w.ledger.awaitAcknowledged(500)
	w.listen()
	return w
}

// listen begins to count how long clients go without an answer.
func (w *crowdAtWork) listen() {
	for i, p := range w.producers {
		p.pulse.start(labPartitions)
		w.consumers[i].start(labPartitions)
	}
}

// awaitAnswers waits until every client has had an answer of every partition
// since now.
func (w *crowdAtWork) awaitAnswers(what string) {
	w.l.t.Helper()
	since := time.Now()
	eventually(w.l.t, patience, what, func() error {
		for i, p := range w.producers {
			if silent := p.pulse.silent(since); len(silent) > 0 {
				return fmt.Errorf("producer %d was acknowledged nothing on partitions %v", i, silent)
			}
			if silent := w.consumers[i].silent(since); len(silent) > 0 {
				return fmt.Errorf("consumer %d read nothing of partitions %v", i, silent)
			}
		}
		return nil
	})
}

// keepAnswering holds that for a time every client goes on to be answered.
func (w *crowdAtWork) keepAnswering(d time.Duration, what string) {
	w.l.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		w.awaitAnswers(what)
	}
}

// worst returns the longest time that any client went without an answer of any
// partition since listen.
func (w *crowdAtWork) worst() string {
	var producers, consumers time.Duration
	for i, p := range w.producers {
		producers = max(producers, p.pulse.worst())
		consumers = max(consumers, w.consumers[i].worst())
	}
	return fmt.Sprintf("longest without an acknowledgement %.1f s, without a record %.1f s", producers.Seconds(), consumers.Seconds())
}

// finish ends the work and compares.
func (w *crowdAtWork) finish() tally {
	w.l.t.Helper()
	for _, p := range w.producers {
		p.finish()
	}
	for _, stop := range w.stop {
		stop()
	}
	y := w.ledger.check()
	w.l.AwaitHealthy()
	w.l.awaitInSync(labTopic)
	return y
}

// epochs returns in how many leader epochs records of each partition that were
// sent since a moment were stored, by the worst partition.
func (w *crowdAtWork) epochs(since time.Time) (most int) {
	w.l.t.Helper()
	for _, all := range w.ledger.readAll() {
		found := make(map[int32]bool)
		for _, r := range all {
			producer, seq, ok := 0, 0, false
			func() {
				w.ledger.mu.Lock()
				defer w.ledger.mu.Unlock()
				if producer, seq, ok = w.ledger.sawLocked(r); ok {
					ok = w.ledger.producers[producer][r.Partition][seq].at.After(since)
				}
			}()
			if ok {
				found[r.LeaderEpoch] = true
			}
		}
		most = max(most, len(found))
	}
	return most
}

// S26. A node that leads partitions and the controller group is cut off from the
// others, and reached by every client. All clients go on with the others,
// whomever they ask.
func TestIsolatedNodeTrapsNoClient(t *testing.T) {
	l := startLab(t, 3)
	w := l.work(6)
	l.isolate(l.controller())
	w.awaitAnswers("after the cut")
	w.keepAnswering(time.Duration(setting("FAULTS_ISOLATION_SECONDS", 40))*time.Second, "while a node is isolated")
	worst := w.worst()
	w.listen()
	l.heal()
	w.awaitAnswers("after the heal")
	figure(t, "a node isolated: %s; after the heal: %s; %v", worst, w.worst(), w.finish())
}

// S27. What one node sends is lost, or what is sent to it.
func TestOneWayLossTrapsNoClient(t *testing.T) {
	for _, way := range []string{"out", "in"} {
		t.Run(way, func(t *testing.T) {
			l := startLab(t, 3)
			w := l.work(3)
			victim := l.controller()
			l.others(victim, func(other *node) {
				if way == "out" {
					l.drop(victim, other)
				} else {
					l.drop(other, victim)
				}
			})
			w.keepAnswering(20*time.Second, "while packets are lost")
			worst := w.worst()
			w.listen()
			l.heal()
			w.awaitAnswers("after the heal")
			figure(t, "%s: %s; after the heal: %s; %v", way, worst, w.worst(), w.finish())
		})
	}
}

// S28. Two of three nodes cannot reach each other, the third reaches both: no
// partition changes its leader more than once, whether the link is cut or loses
// what goes one way, and metadata changes go on.
func TestBrokenLinkChangesLeadersOnce(t *testing.T) {
	for _, how := range []string{"cut", "one-way"} {
		t.Run(how, func(t *testing.T) {
			l := startLab(t, 3)
			w := l.work(3)
			a := l.controller()
			b := l.node(a.ID%3 + 1)
			began := time.Now()
			if how == "cut" {
				l.cut(a, b)
			} else {
				l.drop(a, b)
			}
			bridge := l.node(6 - a.ID - b.ID)
			created := 0
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); created++ {
				eventually(t, patience, "a topic can be created through the node that reaches both", func() error {
					out, errs, status := l.exec(nil, binary, "topic", "create", fmt.Sprintf("t%d", created), "-p", "1", "-b", bridge.Address)
					if status != 0 && !strings.Contains(errs, "exists") {
						return fmt.Errorf("%s%s", out, errs)
					}
					return nil
				})
				w.awaitAnswers("while a link is broken")
				time.Sleep(300 * time.Millisecond)
			}
			worst := w.worst()
			l.heal()
			w.awaitAnswers("after the heal")
			healed := w.finish()
			epochs := w.epochs(began)
			if epochs > 2 {
				t.Errorf("a partition was led in %d epochs, want at most two: one change", epochs)
			}
			figure(t, "%s: %s, %d topics created, at most %d leader epochs a partition; %v", how, worst, created, epochs, healed)
		})
	}
}

// S29. A link that comes and goes.
func TestFlappingLink(t *testing.T) {
	l := startLab(t, 3)
	w := l.work(3)
	a, b := l.node(1), l.node(2)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		l.cut(a, b)
		time.Sleep(1500 * time.Millisecond)
		l.heal()
		time.Sleep(1500 * time.Millisecond)
	}
	worst := w.worst()
	w.awaitAnswers("after the last heal")
	figure(t, "a link flaps every 1.5 s: %s; %v", worst, w.finish())
}

// One node is killed and the other two cannot reach each other: nothing is
// acknowledged by less than a majority, and the majority that returns serves.
func TestKillAndCut(t *testing.T) {
	l := startLab(t, 3)
	w := l.work(3)
	l.cut(l.node(2), l.node(3))
	l.node(1).Kill()
	time.Sleep(20 * time.Second)
	w.listen()
	l.heal()
	w.awaitAnswers("after the heal, one of three dead")
	worst := w.worst()
	l.restart(l.node(1))
	figure(t, "one killed, the others cut for 20 s; after the heal: %s; %v", worst, w.finish())
}

// A controller whose followers are dead, with an entry that nobody else has, is
// led again as soon as one of them returns: it alone can be elected.
func TestControllerWithTheOnlyLogIsElected(t *testing.T) {
	l := startLab(t, 3)
	l.awaitVoters(3)
	first := l.controller()
	other := l.node(first.ID%3 + 1)
	l.others(first, (*node).Kill)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(first.Address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	createThrough(ctx, client, "uncommitted") // unknown, as it should be
	time.Sleep(16 * time.Second)              // longer than a leader keeps its lease
	other.Start()
	began := time.Now()
	eventually(t, patience/2, "a topic can be created by two of three", func() error {
		_, errs, status := l.exec(nil, binary, "topic", "create", "after", "-p", "1", "-r", "3", "-b", other.Address+","+first.Address)
		if status != 0 && !strings.Contains(errs, "exists") {
			return fmt.Errorf("%s", errs)
		}
		return nil
	})
	figure(t, "%.1f s from the start of the second of three nodes to a new topic", time.Since(began).Seconds())
}

// A node that was wiped joins again while another is down and entries of the
// controller group hang; when that one returns with its data, everything is led.
func TestWipedNodeJoinsWhileAnotherIsDown(t *testing.T) {
	l := startLab(t, 3)
	l.awaitVoters(3)
	l.createTopic(labTopic, labPartitions)
	ledger := newLedger(l.cluster, labTopic, labPartitions)
	p := ledger.produce(20 * time.Millisecond)
	ledger.awaitAcknowledged(300)
	first := l.controller()
	wiped, away := l.node(first.ID%3+1), l.node((first.ID+1)%3+1)
	way := l.Way(wiped.Node) // made while there is a majority
	away.Kill()
	wiped.Kill()
	if err := os.RemoveAll(wiped.Data); err != nil {
		t.Fatal(err)
	}
	wiped.Start("--node-id", fmt.Sprint(wiped.ID), "--join", way)
	time.Sleep(16 * time.Second) // longer than a leader keeps its lease
	began := time.Now()
	away.Start()
	ledger.awaitAcknowledged(300)
	figure(t, "%.1f s from the return of the second of three to 300 acknowledged records", time.Since(began).Seconds())
	wiped.AwaitReady()
	away.AwaitReady()
	p.finish()
	l.AwaitHealthy()
	l.awaitInSync(labTopic)
	t.Log(ledger.check())
}

// Machines get other addresses, all of a cluster's or two of three; --join says
// where they are now.
func TestNodesMoveToOtherAddresses(t *testing.T) {
	for _, moved := range []int{3, 2} {
		t.Run(fmt.Sprintf("%d of 3", moved), func(t *testing.T) {
			l := startLab(t, 3)
			l.createTopic(labTopic, labPartitions)
			ledger := newLedger(l.cluster, labTopic, labPartitions)
			before := ledger.produce(20 * time.Millisecond)
			ledger.awaitAcknowledged(300)
			before.finish()
			movers := l.nodes[3-moved:]
			if moved == 3 {
				l.Stop()
			} else {
				for _, n := range movers {
					n.Stop()
				}
			}
			for _, n := range movers {
				n.host.move(fmt.Sprintf("%s%d", labNet, 100+n.ID))
				n.Address = n.host.address + ":9092"
			}
			began := time.Now()
			for _, n := range movers {
				join := slices.DeleteFunc(l.Addresses(), func(a string) bool { return a == n.Address })
				n.Start("--join", strings.Join(join, ","))
			}
			for _, n := range movers {
				n.AwaitReady()
			}
			l.AwaitHealthy()
			figure(t, "healthy %.1f s after the start at new addresses", time.Since(began).Seconds())
			after := ledger.produce(20 * time.Millisecond)
			ledger.awaitAcknowledged(300)
			after.finish()
			l.awaitInSync(labTopic)
			t.Log(ledger.check())
		})
	}
}

// A member's folder is lost, and its unit file starts it again as it did when it
// founded the cluster, without --join. It must not found another cluster on an
// address that members of this one dial: what it took there would be lost to all.
func TestEmptyFolderOnAMembersAddressFoundsNothing(t *testing.T) {
	l := startLab(t, 3)
	l.createTopic(labTopic, labPartitions)
	before, err := l.admin().BrokerMetadata(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	founder := l.node(1)
	founder.Kill()
	if err := os.RemoveAll(founder.Data); err != nil {
		t.Fatal(err)
	}
	founder.Start()
	eventually(t, patience, "the founder ends, or belongs to its cluster", func() error {
		if !founder.Running() {
			return nil
		}
		client, err := kgo.NewClient(kgo.SeedBrokers(founder.Address))
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		m, err := kadm.NewClient(client).BrokerMetadata(ctx)
		if err == nil && m.Cluster != before.Cluster {
			err = fmt.Errorf("it serves cluster %s, which nobody else knows", m.Cluster)
		}
		return err
	})
	figure(t, "started without --join in an empty folder: %d lines of its log name the cluster it found; it runs: %v",
		len(founder.GrepLog(before.Cluster)), founder.Running())
	// As the message says, it comes back by joining.
	founder.Kill()
	if err := os.RemoveAll(founder.Data); err != nil {
		t.Fatal(err)
	}
	founder.Start("--node-id", "1", "--join", l.Way(founder.Node))
	founder.AwaitReady()
	l.AwaitHealthy()
	l.awaitInSync(labTopic)
}
