package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/identity"
)

// A stranger speaks the protocol by hand to one node.
type stranger struct {
	t    *testing.T
	conn net.Conn
	in   *intake
}

// alone starts node 1.a of cluster "test" without peers.
func alone(t *testing.T, adjust func(*Config)) *node {
	c := newCluster(t, &loopback{}, 1, adjust)
	t.Cleanup(c.close)
	return c.nodes[0]
}

// connect says hello to n as node 9.z.
func connect(t *testing.T, n *node, kind uint8) *stranger {
	t.Helper()
	s := rawConn(t, n)
	if _, err := s.conn.Write(hello{kind: kind, low: 1, high: 1, session: 99, from: Peer{9, "z"}, target: Peer{Node: 1}, cluster: "test"}.encode()); err != nil {
		t.Fatal(err)
	}
	if a := s.ack(); a.status != statusWelcome {
		t.Fatalf("refused: %s", a.reason)
	}
	s.in = &intake{r: newReader(s.conn), kind: kind, answers: true}
	return s
}

func rawConn(t *testing.T, n *node) *stranger {
	conn, err := n.cfg.Dialer.DialContext(context.Background(), "tcp", n.cfg.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute)) // only a broken test waits so long
	return &stranger{t: t, conn: conn}
}

func (s *stranger) ack() ack {
	s.t.Helper()
	v, status, body, err := readHello(s.conn)
	if err != nil {
		s.t.Fatal(err)
	}
	a, err := decodeAck(v, status, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *stranger) send(frame []byte, request uint64, payload ...[]byte) {
	s.t.Helper()
	seal(frame, request, 10*time.Second)
	s.raw(append(frame, bytes.Join(payload, nil)...))
}

func (s *stranger) raw(b []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

// answer reads the next frame. Its head is the caller's.
func (s *stranger) answer() (header, []byte, []byte) {
	s.t.Helper()
	h, head, err := s.in.next()
	if err != nil {
		s.t.Fatalf("no answer: %v", err)
	}
	payload, err := s.in.payload(h.payloadLen)
	if err != nil {
		s.t.Fatal(err)
	}
	return h, bytes.Clone(head), payload
}

// failure reads a failure frame.
func (s *stranger) failure() (request uint64, code uint8, text string) {
	s.t.Helper()
	h, head, _ := s.answer()
	if h.typ != typeFailure {
		s.t.Fatalf("answer of type %d, want a failure", h.typ)
	}
	return h.request, head[0], string(head[failureHead:])
}

// closed waits for the connection's end.
func (s *stranger) closed() {
	s.t.Helper()
	if _, err := io.Copy(io.Discard, s.conn); err != nil && errors.Is(err, context.DeadlineExceeded) {
		s.t.Fatal("the connection was not closed")
	}
}

// consume receives one request as Raft would.
func consume(t *testing.T, p *Port) raft.RPC {
	t.Helper()
	select {
	case rpc := <-p.Consumer():
		return rpc
	case <-time.After(time.Minute):
		t.Fatal("no request reached the group")
		panic("unreachable")
	}
}

func nothingWaits(t *testing.T, p *Port) {
	t.Helper()
	select {
	case rpc := <-p.Consumer():
		t.Fatalf("%#v reached the group", rpc.Command)
	default:
	}
	in := &p.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.slots != 0 || in.bytes != 0 || len(in.queue) != 0 {
		t.Fatalf("%d slots, %d bytes and %d requests are still taken", in.slots, in.bytes, len(in.queue))
	}
}

func TestHandshakeIsRefusedWithAReason(t *testing.T) {
	n := alone(t, nil)
	good := hello{kind: kindControl, low: 1, high: 1, session: 5, from: Peer{2, "b"}, target: Peer{1, "a"}, cluster: "test"}
	for _, c := range []struct {
		name   string
		change func(h *hello)
		status uint8
		reason string
	}{
		{"all right", func(h *hello) {}, statusWelcome, ""},
		{"any target", func(h *hello) { h.target = Peer{} }, statusWelcome, ""},
		{"wrong cluster", func(h *hello) { h.cluster = "other" }, statusCluster, `this is cluster "test", not "other"`},
		{"wrong node", func(h *hello) { h.target.Node = 3 }, statusNode, "this is node 1, not 3"},
		{"wrong incarnation", func(h *hello) { h.target.Incarnation = "wiped" }, statusIncarnation, "this is another incarnation of node 1 than wiped"},
		{"my own id", func(h *hello) { h.from.Node = 1 }, statusNode, "node 1 is me"},
		{"myself", func(h *hello) { h.session = n.session }, statusSelf, "this is yourself"},
		{"no cluster id", func(h *hello) { h.cluster = "" }, statusMalformed, "no cluster id"},
		{"no cluster id, one call", func(h *hello) { h.kind, h.cluster = kindOnce, "" }, statusWelcome, ""},
		{"nobody, one call", func(h *hello) { h.kind, h.cluster, h.from = kindOnce, "", Peer{} }, statusWelcome, ""},
		{"wrong cluster, one call", func(h *hello) { h.kind, h.cluster = kindOnce, "other" }, statusCluster, "this is cluster"},
		{"nobody", func(h *hello) { h.from = Peer{} }, statusMalformed, "from node 0"},
		{"node -1", func(h *hello) { h.from.Node = -1 }, statusMalformed, "from node -1"},
		{"no incarnation", func(h *hello) { h.from.Incarnation = "" }, statusMalformed, "incarnation"},
		{"bad incarnation", func(h *hello) { h.from.Incarnation = "a.b" }, statusMalformed, "incarnation"},
		{"long incarnation", func(h *hello) { h.from.Incarnation = strings.Repeat("x", 65) }, statusMalformed, "run past"},
		{"kind 0", func(h *hello) { h.kind = 0 }, statusMalformed, "kind 0"},
		{"kind 5", func(h *hello) { h.kind = 5 }, statusMalformed, "kind 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := good
			c.change(&h)
			s := rawConn(t, n)
			s.raw(h.encode())
			a := s.ack()
			if a.status != c.status || !strings.Contains(a.reason, c.reason) {
				t.Fatalf("status %d (%s), want %d (%s)", a.status, a.reason, c.status, c.reason)
			}
			// Only who knows the cluster, and is let in, is told what members know each
			// other by.
			want := Peer{Node: 1}
			if c.status == statusWelcome && h.kind != kindOnce {
				want = n.peer
			}
			if a.from != want || a.cluster != "test" || (a.session != 0) != (want == n.peer) {
				t.Errorf("answered as %s of %q, session %x", a.from, a.cluster, a.session)
			}
			if c.status != statusWelcome {
				s.closed()
			}
		})
	}
	t.Run("another version", func(t *testing.T) {
		s := rawConn(t, n)
		h := good
		h.low, h.high = 2, 5
		s.raw(h.encode())
		if a := s.ack(); a.status != statusVersion || a.reason != "versions 2 to 5 are not spoken here, 1 to 1 are" {
			t.Fatalf("status %d (%s), want %d", a.status, a.reason, statusVersion)
		}
	})
	t.Run("not a member yet", func(t *testing.T) {
		n := alone(t, func(cfg *Config) { cfg.Cluster = "" })
		s := rawConn(t, n)
		s.raw(good.encode())
		if a := s.ack(); a.status != statusCluster {
			t.Fatalf("status %d, want %d", a.status, statusCluster)
		}
	})
}

// Every byte of a handshake matters: with any one changed nobody is let in as
// somebody else.
func TestDamagedHandshakeIsRefused(t *testing.T) {
	n := alone(t, nil)
	good := hello{kind: kindControl, low: 1, high: 1, session: 5, from: Peer{2, "b"}, target: Peer{1, "a"}, cluster: "test", address: "h:1"}.encode()
	for i := range good {
		s := rawConn(t, n)
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		s.raw(bad)
		s.conn.(*net.TCPConn).CloseWrite()
		v, status, body, err := readHello(s.conn)
		if err == nil && v == minVersion && status == statusWelcome {
			t.Errorf("byte %d changed: welcome, %x", i, body)
		}
	}
	if got := n.Connected(); len(got) != 0 {
		t.Errorf("connected to %v", got)
	}
}

func TestDialerJudgesTheAnswer(t *testing.T) {
	right := ack{low: 1, high: 1, session: 7, from: Peer{2, "b"}, cluster: "test"}
	for _, c := range []struct {
		name   string
		target Peer
		change func(*ack)
		want   error
	}{
		{"all right", Peer{Node: 2}, func(a *ack) {}, nil},
		{"all right with incarnation", Peer{2, "b"}, func(a *ack) {}, nil},
		{"another cluster", Peer{Node: 2}, func(a *ack) { a.cluster = "other" }, ErrWrongCluster},
		{"no cluster", Peer{Node: 2}, func(a *ack) { a.cluster = "" }, ErrWrongCluster},
		{"another node", Peer{Node: 2}, func(a *ack) { a.from.Node = 3 }, ErrWrongNode},
		{"another incarnation", Peer{2, "b"}, func(a *ack) { a.from.Incarnation = "wiped" }, ErrWrongIncarnation},
		{"no incarnation", Peer{Node: 2}, func(a *ack) { a.from.Incarnation = "" }, ErrWrongNode},
		{"refused for its cluster", Peer{Node: 2}, func(a *ack) { a.status, a.reason = statusCluster, "no" }, ErrWrongCluster},
		{"refused while closing", Peer{Node: 2}, func(a *ack) { a.status, a.reason = statusClosed, "no" }, ErrUnreachable},
		{"refused for no reason known here", Peer{Node: 2}, func(a *ack) { a.status = 200 }, ErrUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := alone(t, nil)
			near, far := net.Pipe()
			defer near.Close()
			go func() {
				defer far.Close()
				readHello(far)
				a := right
				c.change(&a)
				far.Write(a.encode())
			}()
			_, err := n.handshake(near, identity.Proof{}, kindControl, c.target)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
}

// A peer opens a second connection of a kind when it has given up the first, which
// may be half open here.
func TestNewConnectionReplacesTheOldOfItsKind(t *testing.T) {
	n := alone(t, nil)
	control, data := connect(t, n, kindControl), connect(t, n, kindData)
	again := connect(t, n, kindControl)
	control.closed()
	for _, s := range []*stranger{data, again} {
		frame, _ := newFrame(typePing, 0)
		s.send(frame, 5)
		if h, _, _ := s.answer(); h.typ != typePong || h.request != 5 {
			t.Errorf("answer of type %d to %d", h.typ, h.request)
		}
	}
	if up, down := n.heard("up 9.z"), n.heard("down 9.z"); up > 1 || down != 0 {
		t.Errorf("up %d times, down %d", up, down)
	}
}

// Connections that do not say hello may take a part of the room, not all of it.
func TestMuteConnectionsLeaveRoomForPeers(t *testing.T) {
	n := alone(t, func(cfg *Config) {
		cfg.Limits.MaxConnections = 16
		cfg.Timers.DialTimeout = time.Hour
	})
	s := connect(t, n, kindData)
	eventually(t, "the handshake with the peer is done", func() bool {
		n.connections.mu.Lock()
		defer n.connections.mu.Unlock()
		return n.connections.strangers.Len() == 0
	})
	for range 16 {
		rawConn(t, n)
	}
	eventually(t, "all are served or closed", func() bool {
		n.connections.mu.Lock()
		defer n.connections.mu.Unlock()
		return n.connections.strangers.Len() == 4 && len(n.connections.conns) == 5 && n.Stats().Refused == 12
	})
	connect(t, n, kindControl) // who says hello takes the place of one that does not
	frame, _ := newFrame(typePing, 0)
	s.send(frame, 1)
	if h, _, _ := s.answer(); h.typ != typePong {
		t.Errorf("answer of type %d", h.typ)
	}
}

// A node that comes back with a wiped disk must not be taken for the one it was.
func TestWipedNodeIsNotTakenForItsFormerSelf(t *testing.T) {
	c := newCluster(t, &loopback{}, 1, nil)
	defer c.close()
	wiped := c.start(Peer{2, "wiped"}, nil)
	stop := answerer(wiped.Group(1, wiped.peer.ServerID()))
	defer stop()
	port := c.nodes[0].Group(1, c.nodes[0].peer.ServerID())
	former := Peer{2, "b"}.ServerID()

	err := port.RequestVote(former, "", &raft.RequestVoteRequest{Term: 2}, &raft.RequestVoteResponse{})
	if !errors.Is(err, ErrWrongIncarnation) {
		t.Errorf("vote: %v", err)
	}
	err = port.AppendEntries(former, "", appendOf(0, 1, 10), &raft.AppendEntriesResponse{})
	if !errors.Is(err, ErrWrongIncarnation) {
		t.Errorf("append: %v", err)
	}
	err = port.AppendEntries(former, "", &raft.AppendEntriesRequest{Term: 2}, &raft.AppendEntriesResponse{})
	if !errors.Is(err, ErrWrongIncarnation) {
		t.Errorf("heartbeat: %v", err)
	}
	err = port.RequestVote(wiped.peer.ServerID(), "", &raft.RequestVoteRequest{Term: 2}, &raft.RequestVoteResponse{})
	if err != nil {
		t.Errorf("under its new name: %v", err)
	}
}

// What a message says of its sender is what the connection's handshake said.
func TestRequestsCarryTheNameOfTheHandshake(t *testing.T) {
	n := alone(t, nil)
	p := n.Group(1, n.peer.ServerID())
	s := connect(t, n, kindControl)
	s.send(vote{group: 1, term: 2, lastIndex: 1, lastTerm: 1, transfer: true}.frame(typeVote), 1)
	rpc := consume(t, p)
	req := rpc.Command.(*raft.RequestVoteRequest)
	if string(req.ID) != "9.z" || string(req.Addr) != "9.z" || string(req.Candidate) != "9.z" || req.ProtocolVersion != 3 {
		t.Errorf("header %+v, candidate %s", req.RPCHeader, req.Candidate)
	}
	if req.Term != 2 || req.LastLogIndex != 1 || req.LastLogTerm != 1 || !req.LeadershipTransfer {
		t.Errorf("%+v", req)
	}
	rpc.Respond(&raft.RequestVoteResponse{Term: 2, Granted: true}, nil)
	h, head, _ := s.answer()
	if term, granted, err := getVoteAnswer(head); h.typ != typeVoteAnswer || h.request != 1 || term != 2 || !granted || err != nil {
		t.Errorf("answer of type %d to %d: term %d, granted %v, %v", h.typ, h.request, term, granted, err)
	}
}

// frameOf is one good request of each type, with its payload, for group 1.
func frameOf(typ uint8) (frame []byte, payload [][]byte) {
	switch typ {
	case typePing:
		frame, _ = newFrame(typePing, 0)
	case typeHeartbeats:
		frame = putBeats([]*waitingBeat{{beat: beat{1, 3, 5, 2, 5}}, {beat: beat{group: 1, term: 3}}})
	case typeAppend:
		config := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}}})
		return putAppend(beat{1, 3, 5, 2, 6}, []*raft.Log{
			{Index: 6, Term: 2, Data: []byte("data"), Extensions: []byte{1}},
			{Index: 7, Term: 3, Type: raft.LogNoop},
			{Index: 8, Term: 3, Type: raft.LogConfiguration, Data: config},
			{Index: 9, Term: 3, Type: raft.LogBarrier},
		}, plainEntries{})
	case typeVote, typePreVote:
		frame = vote{group: 1, term: 3, lastIndex: 5, lastTerm: 2}.frame(typ)
	case typeTimeoutNow:
		var head []byte
		frame, head = newFrame(typeTimeoutNow, timeoutNowHead)
		binary.BigEndian.PutUint64(head, 1)
	case typeSnapshot:
		return putSnapshot(1, &raft.InstallSnapshotRequest{
			SnapshotVersion: 1, Term: 3, LastLogIndex: 9, LastLogTerm: 2, ConfigurationIndex: 4,
			Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}}}),
		}, []byte("snapshot"))
	case typeCall:
		return callFrame(7, []byte("request")), [][]byte{[]byte("request")}
	}
	return frame, nil
}

var kindOf = map[uint8]uint8{
	typePing: kindControl, typeHeartbeats: kindControl, typeAppend: kindData, typeVote: kindControl,
	typePreVote: kindControl, typeTimeoutNow: kindControl, typeSnapshot: kindBulk, typeCall: kindOnce,
}

// Each byte of each request in turn is changed on its way: nothing reaches a
// group, the connection ends.
func TestDamagedFrameReachesNobody(t *testing.T) {
	n := alone(t, func(cfg *Config) {
		cfg.Handler = handler(func(context.Context, Peer, uint8, []byte) ([]byte, error) {
			t.Error("a call was handled")
			return nil, nil
		})
	})
	p := n.Group(1, n.peer.ServerID())
	p.Attach(member{install: func(raft.RPC, *raft.InstallSnapshotRequest, []byte) { t.Error("a snapshot was installed") }})
	for typ, kind := range kindOf {
		frame, payload := frameOf(typ)
		seal(frame, 1, time.Second)
		good := append(frame, bytes.Join(payload, nil)...)
		for i := range good {
			s := connect(t, n, kind)
			bad := bytes.Clone(good)
			bad[i] ^= 0x10
			s.raw(bad)
			s.conn.(*net.TCPConn).CloseWrite() // a length made larger would wait for more
			s.closed()
			s.conn.Close()
		}
	}
	nothingWaits(t, p)
	if got := n.room.taken.Load(); got != 0 {
		t.Errorf("%d bytes still admitted", got)
	}
}

// Requests with right checksums and wrong contents (B24) are answered as invalid,
// do not reach Raft, and leave the connection as it was.
func TestAbsurdRequestsAreInvalid(t *testing.T) {
	n := alone(t, nil)
	p := n.Group(1, n.peer.ServerID())
	p.Attach(member{install: func(raft.RPC, *raft.InstallSnapshotRequest, []byte) { t.Error("a snapshot was installed") }})
	put64 := func(at int, v uint64) func([]byte) {
		return func(head []byte) { binary.BigEndian.PutUint64(head[at:], v) }
	}
	entry := func(i, at int) int { return appendHead + i*entrySize + at }
	for _, c := range []struct {
		name   string
		typ    uint8
		damage func(head []byte)
		want   string
	}{
		{"append in term 0", typeAppend, put64(8, 0), "term 0"},
		{"append in the last term", typeAppend, put64(8, 1<<64-1), "term 18446744073709551615"},
		{"append above the epochs", typeAppend, put64(8, 1<<31), "term 2147483648"},
		{"append with a commit index it does not reach", typeAppend, put64(32, 10), "commit index 10 above last entry 9"},
		{"append with a previous term of its future", typeAppend, put64(24, 4), "previous term 4"},
		{"append behind an index without term", typeAppend, put64(24, 0), "previous index 5 of term 0"},
		{"append behind the last index", typeAppend, put64(16, 1<<64-2), "previous index"},
		{"entry of a falling term", typeAppend, put64(entry(1, 0), 1), "term 1 after term 2"},
		{"entry of a later term than its request", typeAppend, put64(entry(3, 0), 4), "term 4"},
		{"entry of an unknown type", typeAppend, func(h []byte) { h[entry(1, 14)] = 6 }, "type 6"},
		{"entry that adds a peer as of old", typeAppend, func(h []byte) { h[entry(1, 14)] = 2 }, "type 2"},
		{"garbage for a configuration", typeAppend, func(h []byte) { h[entry(0, 14)] = uint8(raft.LogConfiguration) }, "configuration at entry 6"},
		{"nothing for a configuration", typeAppend, func(h []byte) { h[entry(1, 14)] = uint8(raft.LogConfiguration) }, "configuration at entry 7"},
		{"entries longer than the payload", typeAppend, func(h []byte) { h[entry(0, 10)]++ }, "bytes in a payload"},
		{"entries shorter than the payload", typeAppend, func(h []byte) { h[entry(0, 11)]-- }, "bytes in a payload"},
		{"more entries than the head has", typeAppend, func(h []byte) { h[43]++ }, "5 entries"},
		{"fewer", typeAppend, func(h []byte) { h[43]-- }, "3 entries"},
		{"2^32-1 entries", typeAppend, func(h []byte) { copy(h[40:], "\xff\xff\xff\xff") }, "4294967295 entries"},
		{"vote in term 0", typeVote, put64(8, 0), "term 0"},
		{"vote in the last term", typeVote, put64(8, 1<<64-1), "term"},
		{"vote by who has entries of the future", typeVote, put64(24, 3), "last entry"},
		{"pre-vote in the last term", typePreVote, put64(8, 1<<63), "term"},
		{"snapshot in the last term", typeSnapshot, put64(8, 1<<40), "term"},
		{"snapshot of nothing", typeSnapshot, put64(16, 0), "last entry 0"},
		{"snapshot of the future", typeSnapshot, put64(24, 4), "of term 4 in term 3"},
		{"snapshot with a configuration behind it", typeSnapshot, put64(32, 10), "configuration of entry 10"},
		{"snapshot with a configuration longer than all", typeSnapshot, func(h []byte) { h[41] = 0xff }, "configuration of"},
		{"snapshot with half a configuration", typeSnapshot, func(h []byte) { h[43]-- }, "configuration"},
		{"snapshot of version 0", typeSnapshot, func(h []byte) { h[44] = 0 }, "version 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connect(t, n, kindOf[c.typ])
			frame, payload := frameOf(c.typ)
			c.damage(frame[headerSize:])
			s.send(frame, 41, payload...)
			if request, code, text := s.failure(); request != 41 || code != codeInvalid || !strings.Contains(text, c.want) {
				t.Errorf("request %d: code %d (%s), want 41: %d (%s)", request, code, text, codeInvalid, c.want)
			}
			nothingWaits(t, p)
			frame, payload = frameOf(c.typ)
			binary.BigEndian.PutUint64(frame[headerSize:], 2)
			s.send(frame, 42, payload...)
			if request, code, _ := s.failure(); request != 42 || code != codeUnknownGroup {
				t.Errorf("afterwards: request %d, code %d, want 42 and %d", request, code, codeUnknownGroup)
			}
		})
	}
}

// Frames that break the framing end the connection.
func TestForeignFramesEndTheConnection(t *testing.T) {
	n := alone(t, nil)
	n.Group(1, n.peer.ServerID())
	reseal := func(b []byte) []byte { seal(b, 1, 0); return b }
	for _, c := range []struct {
		name string
		kind uint8
		make func() []byte
	}{
		{"type 0", kindControl, func() []byte { f, _ := newFrame(0, 0); return reseal(f) }},
		{"unknown type", kindControl, func() []byte { f, _ := newFrame(types, 0); return reseal(f) }},
		{"append on control", kindControl, func() []byte { f, _ := frameOf(typeAppend); return reseal(f) }},
		{"vote on data", kindData, func() []byte { f, _ := frameOf(typeVote); return reseal(f) }},
		{"vote on a single call's", kindOnce, func() []byte { f, _ := frameOf(typeVote); return reseal(f) }},
		{"an answer for a request", kindControl, func() []byte { return reseal(putVoteAnswer(typeVoteAnswer, 3, true)) }},
		{"payload on a vote", kindControl, func() []byte { f, _ := frameOf(typeVote); setPayload(f, []byte("x")); return reseal(f) }},
		{"large call on control", kindControl, func() []byte {
			f, _ := newFrame(typeCall, callHead)
			binary.BigEndian.PutUint32(f[4:], maxControlCall+1)
			return reseal(f)
		}},
		{"payload of 4 GiB", kindData, func() []byte {
			f, _ := frameOf(typeAppend)
			binary.BigEndian.PutUint32(f[4:], 1<<32-1)
			return reseal(f)
		}},
		{"head of 4 GiB", kindControl, func() []byte {
			f, _ := newFrame(typeHeartbeats, heartbeatsHead)
			binary.BigEndian.PutUint32(f, 1<<32-1)
			return reseal(f)
		}},
		{"a million heartbeats", kindControl, func() []byte { // B25
			f, head := newFrame(typeHeartbeats, heartbeatsHead+1_000_000*heartbeatSize)
			binary.BigEndian.PutUint32(head, 1_000_000)
			return reseal(f)[:headerSize+100]
		}},
		{"a million heartbeats in the head of one", kindControl, func() []byte {
			f, head := newFrame(typeHeartbeats, heartbeatsHead+heartbeatSize)
			binary.BigEndian.PutUint32(head, 1_000_000)
			return reseal(f)
		}},
		{"reserved bytes", kindControl, func() []byte { f, _ := frameOf(typePing); f[10] = 1; return reseal(f) }},
		{"HTTP", kindControl, func() []byte { return []byte("GET / HTTP/1.1\r\nHost: here, there and everywhere\r\n\r\n") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := n.Stats().Malformed
			s := connect(t, n, c.kind)
			s.raw(c.make())
			s.closed()
			eventually(t, "the end is counted", func() bool { return n.Stats().Malformed > before })
		})
	}
}

// A frame may declare what it likes: memory follows what arrives.
func TestMemoryFollowsWhatArrived(t *testing.T) {
	n := alone(t, nil)
	n.Group(1, n.peer.ServerID())
	for _, sent := range []int{0, 100, 200 << 10} {
		s := connect(t, n, kindData)
		frame, head := newFrame(typeAppend, appendHead+entrySize)
		beat{1, 3, 5, 2, 5}.put(head)
		binary.BigEndian.PutUint32(head[40:], 1)
		binary.BigEndian.PutUint64(head[appendHead:], 3)
		binary.BigEndian.PutUint32(head[appendHead+8:], maxPayload)
		binary.BigEndian.PutUint32(frame[4:], maxPayload)
		seal(frame, 1, time.Second)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s.raw(frame)
		s.raw(make([]byte, sent))
		s.conn.(*net.TCPConn).CloseWrite()
		s.closed()
		runtime.ReadMemStats(&after)
		// What else runs allocates too: buffers of the connection, logging.
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(8*sent+1<<20) {
			t.Errorf("%d of %d bytes arrived, %d allocated", sent, maxPayload, got)
		}
		if got := n.room.taken.Load(); got != 0 {
			t.Errorf("%d bytes still admitted", got)
		}
	}
}

func TestAnswersToNobodyAreSkipped(t *testing.T) {
	// A peer that answers everything twice and things never asked.
	c := newCluster(t, &loopback{}, 1, nil)
	defer c.close()
	c.addrs[2] = c.listen(2, func(conn net.Conn) {
		defer conn.Close()
		readHello(conn)
		conn.Write(ack{low: 1, high: 1, session: 7, from: Peer{2, "b"}, cluster: "test"}.encode())
		in := &intake{r: newReader(conn), kind: kindControl}
		for {
			h, _, err := in.next()
			if err != nil {
				return
			}
			if h.typ == typePing {
				continue
			}
			for _, id := range []uint64{h.request + 1000, h.request, h.request} {
				f := putVoteAnswer(typeVoteAnswer, 2, true)
				seal(f, id, 0)
				conn.Write(f)
			}
		}
	})
	p := c.nodes[0].Group(1, c.nodes[0].peer.ServerID())
	for range 100 {
		var resp raft.RequestVoteResponse
		if err := p.RequestVote("2.b", "", &raft.RequestVoteRequest{Term: 2}, &resp); err != nil || !resp.Granted || string(resp.ID) != "2.b" {
			t.Fatalf("%+v, %v", resp, err)
		}
	}
}

// Terms of answers are bounded too: a leader believes a higher one.
func TestAbsurdAnswersAreErrors(t *testing.T) {
	var resp raft.AppendEntriesResponse
	head := make([]byte, appendAnswerHead)
	binary.BigEndian.PutUint64(head, 1<<31)
	if err := getAppendAnswer(Peer{2, "b"}, head, &resp); err == nil {
		t.Error("append answer of term 2^31")
	}
	if _, _, err := getVoteAnswer(head); err == nil {
		t.Error("vote answer of term 2^31")
	}
	if err := getSnapshotAnswer(Peer{2, "b"}, head, &raft.InstallSnapshotResponse{}); err == nil {
		t.Error("snapshot answer of term 2^31")
	}
	binary.BigEndian.PutUint64(head, 1)
	binary.BigEndian.PutUint64(head[8:], 1<<63)
	if err := getAppendAnswer(Peer{2, "b"}, head, &resp); err == nil {
		t.Error("append answer with last index 2^63")
	}
}

func TestConfigurationMustNameServersOfOurs(t *testing.T) {
	server := func(suffrage raft.ServerSuffrage, id, addr string) raft.Server {
		return raft.Server{Suffrage: suffrage, ID: raft.ServerID(id), Address: raft.ServerAddress(addr)}
	}
	for _, c := range []struct {
		name    string
		servers []raft.Server
		ok      bool
	}{
		{"one voter", []raft.Server{server(raft.Voter, "1.a", "1.a")}, true},
		{"voter and nonvoter", []raft.Server{server(raft.Voter, "1.a", "1.a"), server(raft.Nonvoter, "2.b", "2.b")}, true},
		{"nobody", nil, false},
		{"no voter", []raft.Server{server(raft.Nonvoter, "1.a", "1.a")}, false},
		{"one twice", []raft.Server{server(raft.Voter, "1.a", "1.a"), server(raft.Voter, "1.a", "1.a")}, false},
		{"address that is no id", []raft.Server{server(raft.Voter, "1.a", "host:9092")}, false},
		{"id without incarnation", []raft.Server{server(raft.Voter, "1", "1")}, false},
		{"suffrage 9", []raft.Server{server(raft.Voter, "1.a", "1.a"), server(9, "2.b", "2.b")}, false},
		{"suffrage -1", []raft.Server{server(raft.Voter, "1.a", "1.a"), server(-1, "2.b", "2.b")}, false},
	} {
		err := checkConfiguration(raft.EncodeConfiguration(raft.Configuration{Servers: c.servers}))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, garbage := range []string{"", "x", "\x81\xa7Servers\xdd\xff\xff\xff\xff", "\xc1", strings.Repeat("\x91", 5000)} {
		if checkConfiguration([]byte(garbage)) == nil {
			t.Errorf("%.20q is a configuration", garbage)
		}
	}
}

func TestServerIDs(t *testing.T) {
	for _, p := range []Peer{{1, "a"}, {2147483647, "A-z_0"}, {7, strings.Repeat("x", 64)}} {
		if got, err := ParseServerID(p.ServerID()); got != p || err != nil {
			t.Errorf("%s: %v, %v", p, got, err)
		}
	}
	for _, id := range []string{"", ".", "1", "1.", ".a", "0.a", "-1.a", "+1.a", "01.a", "2147483648.a", "1.a.b", "1.a b", "x.a", "1." + strings.Repeat("x", 65)} {
		if p, err := ParseServerID(raft.ServerID(id)); err == nil {
			t.Errorf("%q is %v", id, p)
		}
	}
}
