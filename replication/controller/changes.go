package controller

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// The calls by which nodes send changes to the leader, among the calls of nodes.
const (
	CallChange  uint8 = 3
	CallForward uint8 = 9
)

// While there is no controller a change is tried again after pauseFirst, then after twice as
// long each time. The one that ends a node's start waits for an election that is over in a
// moment where the node is alone.
const (
	pauseFirst = time.Millisecond
	pauseMost  = 20 * time.Millisecond
)

// Change commits a change through the controller group, wherever its leader
// is, and waits until this node's image holds it. A refusal is metadata's own
// error. While the group has no leader Change waits for one, until ctx ends.
func (c *Controller) Change(ctx context.Context, change metadata.Change) error {
	data, err := metadata.EncodeChange(change)
	if err != nil {
		return err
	}
	for pause := pauseFirst; ; pause = min(2*pause, pauseMost) {
		index, err := c.commit(ctx, change, data)
		switch {
		case err == nil:
			return c.awaitIndex(ctx, index)
		case !errors.Is(err, ErrNoController):
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoController, ctx.Err())
		case <-c.cfg.Closing:
			return raftgroup.ErrClosed
		case <-time.After(pause):
		}
	}
}

// commit makes one attempt at a change.
func (c *Controller) commit(ctx context.Context, change metadata.Change, data []byte) (uint64, error) {
	leader, ok := c.cfg.Elections.Controller()
	switch {
	case !ok:
		through, ok := c.cfg.Elections.ControllerHearer()
		if !ok {
			return 0, ErrNoController
		}
		return c.ask(ctx, through, CallForward, append([]byte{0}, data...))
	case leader == c.cfg.Self.Node:
		return c.Propose(ctx, change)
	}
	return c.ask(ctx, leader, CallChange, data)
}

// ask sends a change to another node.
func (c *Controller) ask(ctx context.Context, node int32, kind uint8, data []byte) (uint64, error) {
	answer, err := c.cfg.Peers.Call(ctx, node, kind, data)
	if err != nil {
		if ctx.Err() != nil || !sentNothing(err) {
			return 0, fmt.Errorf("%w: %v", raftgroup.ErrUnknown, err)
		}
		return 0, ErrNoController
	}
	return decodeOutcome(answer)
}

// ReceiveChange commits a change that another node sent, if this one leads, and returns the
// outcome. Only the broker itself registers a broker.
func (c *Controller) ReceiveChange(ctx context.Context, from transport.Peer, req []byte) ([]byte, error) {
	change, err := metadata.DecodeChange(req)
	if err != nil {
		return encodeOutcome(0, err), nil
	}
	if err := registersItself(from, change); err != nil {
		return nil, err
	}
	return encodeOutcome(c.Propose(ctx, change)), nil
}

// registersItself refuses to register a broker for another.
func registersItself(from transport.Peer, change metadata.Change) error {
	r, registers := change.(metadata.RegisterBroker)
	if registers && (r.Broker.ID != from.Node || r.Broker.Incarnation != from.Incarnation) {
		return fmt.Errorf("controller: node %s registers broker %s; a node registers itself", from, r.Broker.ServerID())
	}
	return nil
}

// ReceiveForward passes a change on to the controller, if that is heard here, and returns
// what it answered. It is passed on once only, and a broker that it registers must be
// the one who sent it, as where it is sent to the controller itself.
func (c *Controller) ReceiveForward(ctx context.Context, from transport.Peer, req []byte) ([]byte, error) {
	if len(req) == 0 || req[0] > 1 {
		return nil, fmt.Errorf("controller: a change to pass on, of %d bytes, says not how often it was", len(req))
	}
	hops, data := req[0], req[1:]
	change, err := metadata.DecodeChange(data)
	if err != nil {
		return encodeOutcome(0, err), nil
	}
	if hops == 0 {
		if err := registersItself(from, change); err != nil {
			return nil, err
		}
	}
	leader, ok := c.cfg.Elections.Controller()
	switch {
	case !ok || hops > 0 && leader != c.cfg.Self.Node:
		return encodeOutcome(0, ErrNoController), nil
	case leader == c.cfg.Self.Node:
		return encodeOutcome(c.Propose(ctx, change)), nil
	}
	return encodeOutcome(c.ask(ctx, leader, CallForward, append([]byte{1}, data...))), nil
}

// awaitIndex waits until this node's image has reached index.
func (c *Controller) awaitIndex(ctx context.Context, index uint64) error {
	for {
		changed := c.Changed()
		if c.Image().Index >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.cfg.Closing:
			return raftgroup.ErrClosed
		}
	}
}

// errOutcomeLength says that an answer cannot be an outcome.
var errOutcomeLength = errors.New("controller: a peer's message ends early")

// outcomeNoController and outcomeUnknown stand beside metadata's error codes.
const (
	outcomeNoController = 0xfffe
	outcomeUnknown      = 0xfffd
)

// encodeOutcome: index u64 · code u16 · text.
func encodeOutcome(index uint64, err error) []byte {
	p := binary.BigEndian.AppendUint64(nil, index)
	code, text := uint16(0), ""
	switch {
	case err == nil:
	case errors.Is(err, ErrNoController):
		code = outcomeNoController
	case errors.Is(err, raftgroup.ErrUnknown):
		code, text = outcomeUnknown, err.Error()
	default:
		code, text = metadata.ErrorCode(err), err.Error()
	}
	return append(binary.BigEndian.AppendUint16(p, code), text...)
}

func decodeOutcome(p []byte) (index uint64, err error) {
	if len(p) < 10 {
		return 0, fmt.Errorf("%w: %w", raftgroup.ErrUnknown, errOutcomeLength)
	}
	code, text := binary.BigEndian.Uint16(p[8:]), string(p[10:])
	switch code {
	case outcomeNoController:
		return 0, ErrNoController
	case outcomeUnknown:
		return 0, fmt.Errorf("%w: %s", raftgroup.ErrUnknown, text)
	}
	return binary.BigEndian.Uint64(p), metadata.ErrorFrom(code, text)
}

// sentNothing tells errors after which a call was certainly not carried out.
func sentNothing(err error) bool {
	return errors.Is(err, transport.ErrUnreachable) || errors.Is(err, transport.ErrBusy)
}
