package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func FuzzHello(f *testing.F) {
	f.Add(hello{kind: kindControl, low: 1, high: 3, about: "a", session: 5, from: Peer{2, "b"}, target: Peer{1, "a"}, cluster: "test", address: "h:1"}.encode())
	f.Add(hello{kind: kindOnce, low: 1, high: 1}.encode())
	f.Add(ack{status: statusCluster, low: 1, high: 1, session: 1, from: Peer{1, "a"}, cluster: "c", reason: "no"}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		// Whoever damages a handshake can also repair its checksum.
		if len(b) > helloFixed {
			b = sealHello(bytes.Clone(b), b[4], b[5])
		}
		v, kind, body, err := readHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		if h, err := decodeHello(v, kind, body); err == nil {
			v, kind, body, err := readHello(bytes.NewReader(h.encode()))
			if again, err2 := decodeHello(v, kind, body); err != nil || err2 != nil || again != h {
				t.Errorf("%+v became %+v (%v, %v)", h, again, err, err2)
			}
		}
		if a, err := decodeAck(v, kind, body); err == nil {
			v, status, body, err := readHello(bytes.NewReader(a.encode()))
			if again, err2 := decodeAck(v, status, body); err != nil || err2 != nil || again != a {
				t.Errorf("%+v became %+v (%v, %v)", a, again, err, err2)
			}
		}
	})
}

// FuzzFrames reads any bytes as frames of any kind of connection.
func FuzzFrames(f *testing.F) {
	for typ, kind := range kindOf {
		frame, payload := frameOf(typ)
		seal(frame, 1, time.Second)
		f.Add(kind, false, append(frame, bytes.Join(payload, nil)...))
	}
	f.Add(kindControl, true, putVoteAnswer(typeVoteAnswer, 3, true))
	f.Fuzz(func(t *testing.T, kind uint8, answers bool, b []byte) {
		in := &intake{r: newReader(bytes.NewReader(b)), kind: kind % uint8(kinds), answers: answers}
		for {
			h, head, err := in.next()
			if err != nil {
				break
			}
			if len(head) != h.headLen || len(head) < limits[h.typ].minHead || h.payloadLen > limits[h.typ].maxPayload {
				t.Fatalf("type %d: head of %d, payload of %d", h.typ, len(head), h.payloadLen)
			}
			if err := in.discard(h); err != nil {
				break
			}
		}
	})
}

// FuzzRequests lets requests with good framing and any contents in, and stands for
// Raft behind them: nothing it would panic on or wrongly believe may come through.
func FuzzRequests(f *testing.F) {
	for typ, kind := range kindOf {
		frame, payload := frameOf(typ)
		f.Add(kind, typ, frame[headerSize:], bytes.Join(payload, nil))
	}
	f.Fuzz(func(t *testing.T, kind, typ uint8, head, payload []byte) {
		tr := New(Config{
			Local: Peer{1, "a"}, Cluster: "test",
			Handler: handler(func(_ context.Context, _ Peer, _ uint8, req []byte) ([]byte, error) { return req, nil }),
		})
		defer tr.Close()
		p := tr.Group(1, "1.a")
		p.Attach(member{install: func(rpc raft.RPC, req *raft.InstallSnapshotRequest, data []byte) {
			err := checkConfiguration(req.Configuration)
			if err != nil || req.Term > maxTerm || req.LastLogTerm > req.Term || int64(len(data)) != req.Size {
				t.Errorf("snapshot %+v, %v", req, err)
			}
			rpc.Respond(&raft.InstallSnapshotResponse{Term: 1}, nil)
		}})
		done := make(chan struct{})
		go func() {
			for {
				select {
				case rpc := <-p.Consumer():
					if err := believable(rpc.Command); err != nil {
						t.Error(err)
					}
					rpc.Respond(nil, errors.New("fuzzing"))
				case <-done:
					return
				}
			}
		}()
		defer close(done)

		frame, h := newFrame(typ, len(head))
		copy(h, head)
		setPayload(frame, payload)
		seal(frame, 1, time.Minute)
		kind %= uint8(kinds)
		conn := &tracked{Conn: nowhere{}, start: tr.start, kind: kind}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s := &served{t: tr, from: Peer{9, "z"}, conn: conn, ctx: ctx, cancel: cancel, w: newWriter(nowhere{}, 0)}
		in := &intake{r: newReader(bytes.NewReader(append(frame, payload...))), kind: kind}
		if s.readOne(in) == nil {
			if _, err := in.r.ReadByte(); err != io.EOF {
				t.Error("the frame was not read to its end")
			}
		}
	})
}

// believable reports whether Raft may be given a command.
func believable(command any) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%T: "+format, append([]any{command}, args...)...)
	}
	switch r := command.(type) {
	case *raft.AppendEntriesRequest:
		last, term := r.PrevLogEntry, r.PrevLogTerm
		for _, e := range r.Entries {
			if e.Index != last+1 || e.Term < term || e.Term > r.Term {
				return bad("entry %d of term %d after %d of term %d", e.Index, e.Term, last, term)
			}
			last, term = e.Index, e.Term
			switch e.Type {
			case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
			case raft.LogConfiguration:
				raft.DecodeConfiguration(e.Data) // panics on what it cannot take
			default:
				return bad("entry of type %d", e.Type)
			}
		}
		if r.Term == 0 || r.Term > maxTerm || r.LeaderCommitIndex > last {
			return bad("term %d, commit index %d, last entry %d", r.Term, r.LeaderCommitIndex, last)
		}
	case *raft.RequestVoteRequest:
		if r.Term == 0 || r.Term > maxTerm || r.LastLogTerm >= r.Term {
			return bad("term %d, last %d", r.Term, r.LastLogTerm)
		}
	case *raft.RequestPreVoteRequest:
		if r.Term == 0 || r.Term > maxTerm || r.LastLogTerm >= r.Term {
			return bad("term %d, last %d", r.Term, r.LastLogTerm)
		}
	case *raft.TimeoutNowRequest:
	default:
		return bad("unexpected")
	}
	if h := command.(raft.WithRPCHeader).GetRPCHeader(); string(h.ID) != "9.z" || string(h.Addr) != "9.z" || h.ProtocolVersion != 3 {
		return bad("header %+v", h)
	}
	return nil
}

// FuzzAnswers gives any answer to requests of every type that wait for one.
func FuzzAnswers(f *testing.F) {
	f.Add(typeVote, typeVoteAnswer, putVoteAnswer(typeVoteAnswer, 3, true)[headerSize:], []byte(nil))
	f.Add(typeAppend, typeAppendAnswer, putAppendAnswer(&raft.AppendEntriesResponse{Term: 3, LastLog: 8, Success: true})[headerSize:], []byte(nil))
	f.Add(typeSnapshot, typeSnapshotAnswer, putSnapshotAnswer(&raft.InstallSnapshotResponse{Term: 3, Success: true})[headerSize:], []byte(nil))
	f.Add(typeCall, typeCallAnswer, []byte(nil), []byte("answer"))
	f.Add(typeCall, typeFailure, putFailure(codeHandler, "no")[headerSize:], []byte(nil))
	f.Add(typeHeartbeats, typeFailure, putFailure(codeBusy, "")[headerSize:], []byte(nil))
	f.Add(typeHeartbeats, typeHeartbeatAnswers, putBeatAnswers([]beatAnswer{{0, 0, flagSuccess, 3, 5}, {2, codeBusy, 0, 0, 0}, {1, 0, 0, 3, 5}})[headerSize:], []byte(nil))
	f.Fuzz(func(t *testing.T, asked, typ uint8, head, payload []byte) {
		frame, h := newFrame(typ, len(head))
		copy(h, head)
		setPayload(frame, payload)
		seal(frame, 1, 0)
		for kind := kindControl; kind <= kindOnce; kind++ {
			in := &intake{r: newReader(bytes.NewReader(append(frame, payload...))), kind: kind, answers: true}
			h, head, err := in.next()
			if err != nil {
				continue
			}
			body, err := in.payload(h.payloadLen)
			if err != nil {
				t.Fatal(err)
			}
			from := Peer{2, "b"}
			beats := make([]*waitingBeat, 3)
			for i := range beats {
				beats[i] = &waitingBeat{done: make(chan struct{})}
			}
			beat := &beatFrame{from: from, beats: beats[:3:3], left: 3}
			if more, err := beat.answerLocked(h, head, body); err == nil && more {
				beat.failLocked(ErrTimeout) // whatever was answered must not be finished twice
			}
			r := &request{want: asked + 1, from: from, done: make(chan struct{})}
			if _, err := r.answerLocked(h, head, body); err != nil || r.err != nil {
				continue
			}
			switch r.want {
			case typeVoteAnswer, typePreVoteAnswer:
				if term, _, err := getVoteAnswer(r.head); err == nil && term > maxTerm {
					t.Errorf("term %d", term)
				}
			case typeAppendAnswer:
				var resp raft.AppendEntriesResponse
				if err := getAppendAnswer(from, r.head, &resp); err == nil && (resp.Term > maxTerm || resp.LastLog > maxIndex) {
					t.Errorf("%+v", resp)
				}
			case typeSnapshotAnswer:
				var resp raft.InstallSnapshotResponse
				if err := getSnapshotAnswer(from, r.head, &resp); err == nil && resp.Term > maxTerm {
					t.Errorf("%+v", resp)
				}
			}
		}
	})
}

func FuzzConfiguration(f *testing.F) {
	f.Add(raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "1.a", Address: "1.a"}, {Suffrage: raft.Nonvoter, ID: "2.b", Address: "2.b"}}}))
	f.Add([]byte("\x81\xa7Servers\xdd\xff\xff\xff\xff"))
	f.Add([]byte("\x81\xa7Servers\xdc\xff\xff\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkConfiguration(b) != nil {
			return
		}
		c := raft.DecodeConfiguration(b)
		if again := raft.DecodeConfiguration(raft.EncodeConfiguration(c)); fmt.Sprint(again) != fmt.Sprint(c) {
			t.Errorf("%v became %v", c, again)
		}
	})
}

// nowhere is a connection nobody is at the other end of.
type nowhere struct{ net.Conn }

func (nowhere) Close() error                     { return nil }
func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }
