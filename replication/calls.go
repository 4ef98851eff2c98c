package replication

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"millrace/replication/admission"
	"millrace/replication/controller"
	"millrace/replication/failover"
	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// What nodes ask of each other, besides Raft; see calls.handle.
const (
	callStatus   uint8 = 4
	callSegments uint8 = partition.CallSegments
	callSegment  uint8 = partition.CallSegment
	callSeek     uint8 = 8
)

func (n *Node) callContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(n.ctx, callTimeout)
}

// calls are what other nodes ask of this one. It has no state.
type calls struct{ *Node }

// handle answers the calls of other nodes:
//
//	kind          request                                   answer
//	1 gossip      first, open, leads: see gossip.encode     nothing
//	2 join        admission.Request, JSON                   admission.Answer, JSON
//	3 change      a change, as in the controller's log      index u64 · code u16 · text
//	4 status      group u64                                 last applied index u64
//	5 segments    group u64 · snapshot's index u64          log.Plan, JSON
//	6 segment     group u64 · first index u64 ·             bytes of that sealed segment
//	              position u64 · bytes u32, at most 1 MiB
//	7 view        whom the sender hears, JSON: see view     nothing
//	8 seek        nothing                                   addresses known here, JSON
//	9 forward     hops u8 · a change, as in the             as of change
//	              controller's log; 0: for the controller
//	              that the receiver hears, 1: for it
//	10 image      nothing                                   index u64 of the image that is here
//	11 mint       admission.MintRequest, JSON               a join token
//	12 rotate     nothing                                   nothing
//
// Of these 2, 8, 11 and 12 are heard on a connection for one call: see admission.Door.
func (n calls) handle(ctx context.Context, from transport.Peer, kind uint8, req []byte) ([]byte, error) {
	select {
	case <-n.ready:
	default:
		return nil, ErrNoController // starting
	}
	if answer, heard, err := n.door.Answer(ctx, from, kind, req); heard {
		return answer, err
	}
	if kind == callSeek && transport.OriginOf(ctx).Proof.Protocol != identity.Join {
		return json.Marshal(n.book.Hints())
	}
	if from.Node == 0 {
		return nil, fmt.Errorf("replication: call %d is for members of the cluster", kind)
	}
	switch kind {
	case failover.CallGossip:
		return nil, n.failover.ReceiveGossip(from, req)
	case failover.CallView:
		return nil, n.failover.ReceiveView(from, req)
	case controller.CallForward:
		return n.controller.ReceiveForward(ctx, from, req)
	case controller.CallChange:
		return n.controller.ReceiveChange(ctx, from, req)
	case keyring.CallIndex:
		return n.keyring.Index()
	case callStatus:
		if len(req) != 8 {
			return nil, errMessageLength
		}
		return n.status(binary.BigEndian.Uint64(req))
	case callSegments:
		if len(req) != 16 {
			return nil, errMessageLength
		}
		r := n.replicaOf(binary.BigEndian.Uint64(req))
		if r == nil {
			return nil, ErrNotHosted
		}
		return r.Segments(binary.BigEndian.Uint64(req[8:]))
	case callSegment:
		if len(req) != 28 {
			return nil, errMessageLength
		}
		r := n.replicaOf(binary.BigEndian.Uint64(req))
		if r == nil {
			return nil, ErrNotHosted
		}
		first, position := binary.BigEndian.Uint64(req[8:]), binary.BigEndian.Uint64(req[16:])
		return r.SegmentBytes(first, int64(position), int(binary.BigEndian.Uint32(req[24:])))
	}
	return nil, fmt.Errorf("%w %d", errUnknownCall, kind)
}

// errMessageLength is the answer to a call that is not as long as its kind is.
var errMessageLength = errors.New("replication: a peer's message ends early or goes on too long")

// errUnknownCall is what a node answers to a call of a later version.
var errUnknownCall = errors.New(failover.UnknownCall)

// AskController implements admission.Host.
func (n calls) AskController(ctx context.Context, node int32, req []byte) ([]byte, error) {
	return n.transport.Call(ctx, node, admission.CallJoin, req)
}

// AddNonvoter implements admission.Host.
func (n calls) AddNonvoter(ctx context.Context, broker *metadata.Broker) error {
	id := raft.ServerID(broker.ServerID())
	return raftgroup.Await(ctx, n.closing, n.controller.Raft.AddNonvoter(id, raft.ServerAddress(id), 0, callTimeout))
}

// status answers how far a group has come here. Nodes of the first release ask it before
// they give a member of the controller group its vote.
func (n calls) status(group uint64) ([]byte, error) {
	m := n.memberOf(group)
	if m == nil {
		return nil, ErrNotHosted
	}
	return binary.BigEndian.AppendUint64(nil, m.Raft.AppliedIndex()), nil
}
