package replication

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/admission"
	"millrace/replication/controller"
	"millrace/replication/failover"
	"millrace/replication/identity"
	"millrace/replication/keyring"
)

// A frame of the protocol between nodes, as somebody sends it who is none.
type frameOf struct {
	name          string
	typ           byte
	head, payload []byte
}

// everyFrame is one of each type that FORMAT.md has, and one of each call, of which each would
// do what its name says if a member's connection brought it: in the name of node as, to group.
func everyFrame(cluster string, as int32, incarnation string, group, term uint64) (all []frameOf) {
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(fmt.Sprintf("%d.%s", as, incarnation)), Address: "x"}}})
	image := fmt.Sprintf(`{"v":4,"image":{"index":1000000,"cluster":%q,"lastBroker":3,"lastGroup":1000000000,"nextProducer":0,"level":4}}`, cluster)
	snapshot := append(binary.BigEndian.AppendUint32(u64s(group, term, 1000000, term, 1000000), uint32(len(conf))), 1)
	vote := func(transfer byte) []byte {
		return append(u64s(group, term, 1<<40, term-1), transfer, 0, 0, 0, 0, 0, 0, 0)
	}
	noop, nothing := appendFrame(group, term, 0, 0, 0, &raft.Log{Term: term, Type: raft.LogNoop})
	crash, one := appendFrame(group, term, 0, 0, 0, &raft.Log{Term: term, Type: raft.LogCommand, Data: []byte{1}})
	all = []frameOf{
		{"ping", 1, nil, nil}, {"pong", 2, nil, nil},
		{"heartbeats", 3, append(u64s(1<<32, group, term), u64s(0, 0, 0)...), nil},
		{"heartbeat answers", 4, append(u64s(1<<32), make([]byte, 24)...), nil},
		{"append that cuts", 5, noop, nothing}, {"append of a byte", 5, crash, one},
		{"append answer", 6, make([]byte, 24), nil},
		{"vote", 7, vote(1), nil}, {"vote answer", 8, make([]byte, 16), nil},
		{"pre-vote", 9, vote(0), nil}, {"pre-vote answer", 10, make([]byte, 16), nil},
		{"timeout now", 11, u64s(group), nil}, {"timeout now answer", 12, nil, nil},
		{"snapshot", 13, append(snapshot, make([]byte, 19)...), append(bytes.Clone(conf), image...)},
		{"snapshot answer", 14, make([]byte, 16), nil},
		{"call answer", 16, nil, nil}, {"failure", 17, make([]byte, 8), nil},
	}
	register := fmt.Sprintf(`{"v":1,"change":"RegisterBroker","body":{"Broker":{"ID":%d,"Incarnation":%q,"Host":"elsewhere","Port":1,"Rack":""}}}`, as, incarnation)
	join := `{"node":7,"incarnation":"ghost","host":"10.0.0.9","port":1,"minLevel":1,"maxLevel":4,"forwarded":true,"vouched":"certificate","token":"0123456789abcdef","secret":"AAAA"}`
	for _, call := range []struct {
		name string
		kind uint8
		req  []byte
	}{
		{"gossip", failover.CallGossip, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0}}, {"join", admission.CallJoin, []byte(join)},
		{"change", controller.CallChange, []byte(register)}, {"status", callStatus, u64s(group)},
		{"segments", callSegments, u64s(group, 0)}, {"segment", callSegment, append(u64s(group, 1, 0), 0, 0, 1, 0)},
		{"view", failover.CallView, []byte(`{"addresses":[{"node":2,"address":"10.0.0.9:1","epoch":9000000000000000}]}`)},
		{"seek", callSeek, nil}, {"forward", controller.CallForward, append([]byte{1}, register...)},
		{"image", keyring.CallIndex, nil}, {"mint", admission.CallMint, []byte(`{"uses":1,"expires":60000000000}`)},
		{"rotate", keyring.CallRotate, nil}, {"no call", 99, nil},
	} {
		all = append(all, frameOf{"call " + call.name, 15, []byte{call.kind, 0, 0, 0, 0, 0, 0, 0}, call.req})
	}
	return all
}

// A state is what no stranger may change.
type state struct {
	term, log, index uint64
	brokers          int
	authority        string
	addresses        string
}

func (n *testNode) state(group uint64) state {
	m := n.memberOf(group)
	image := n.Image()
	s := state{m.Raft.CurrentTerm(), m.Raft.LastIndex(), image.Index, len(image.Brokers()), image.Authorities()[0].Certificate, ""}
	for _, e := range n.book.Entries() {
		s.addresses += fmt.Sprintln(e.Node, e.Address)
	}
	return s
}

// No frame that a member sends has an effect when somebody sends it who has no key of the
// cluster's, whatever he says that he is and by whichever of the ways that are open to him: on
// a connection without a handshake, and on one on which a node asks to join. He hears a refusal,
// or nothing.
func TestFramesOfStrangersHaveNoEffect(t *testing.T) {
	c := startCluster(t, 3, nil)
	defer c.stop()
	c.secured()
	id := c.create("orders", 1, 3, nil)
	c.append(id, "kept")
	n, p := c.leader(id)
	member := c.nodes[n.id%3].identity // another node, whose name and incarnation are known to him
	eventually(t, "nothing is under way", func() bool {
		before := n.state(0)
		time.Sleep(50 * time.Millisecond)
		return before == n.state(0)
	})
	for _, group := range []uint64{0, p.Group()} {
		before := n.state(group)
		sent := 0
		for _, as := range []identity.Name{member.Name(), {Cluster: n.ClusterID(), Node: 77, Incarnation: "x"}, {}} {
			for _, f := range everyFrame(n.ClusterID(), member.Node, member.Incarnation, group, before.term+5) {
				for kind := byte(controlConn); kind <= onceConn; kind++ {
					for _, joins := range []bool{false, true} {
						if heard := n.hears(t, as, kind, joins, f); heard && !(kind == onceConn && joins) {
							t.Errorf("%s, as %v, kind %d, to join %v: it is let in", f.name, as, kind, joins)
						}
						sent++
					}
				}
			}
		}
		if after := n.state(group); after != before {
			t.Errorf("group %d was %+v, and is %+v after %d frames", group, before, after, sent)
		}
	}
	c.stillWorks(id)
}

// hears sends a node a hello and, whether that is refused or not, a frame. It reports whether
// the hello was taken; what is answered to the frame then must be a refusal.
func (n *testNode) hears(t *testing.T, as identity.Name, kind byte, joins bool, f frameOf) (taken bool) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", n.addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	over := conn
	if joins {
		if over, _, err = identity.Dial(context.Background(), conn, identity.Unpinned(nil)); err != nil {
			t.Fatal(err)
		}
	}
	s := sayHello(t, over, strangerHello{kind: kind, node: as.Node, incarnation: as.Incarnation, cluster: as.Cluster})
	typ, head, payload, err := s.ask(f.typ, f.head, f.payload)
	switch {
	case s.ack.status != 0 && err == nil:
		t.Errorf("%s behind a hello that was refused is answered: %s", f.name, describe(typ, head, payload, err))
	case err == nil && typ == 16 && f.name == "call join":
		if !bytes.Contains(payload, []byte("refused")) {
			t.Errorf("%s: %s", f.name, payload)
		}
	case err == nil && typ != 17:
		t.Errorf("%s is answered: %s", f.name, describe(typ, head, payload, err))
	case err != nil && err != io.EOF:
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("%s: the connection stays open", f.name)
		}
	}
	return s.ack.status == 0
}
