package transport

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Call sends req to another node's Handle over the control connection and returns
// its answer, which the caller owns. Request and answer may have 1 MiB. Without a
// deadline ctx gets Timers.Timeout. req must not change, not even after a call
// that failed.
//
// What Handle returned as an error comes as a *RemoteError; any other error may
// mean that Handle has run, or runs still.
func (t *Transport) Call(ctx context.Context, node int32, kind uint8, req []byte) ([]byte, error) {
	return t.callPeer(ctx, node, kindControl, kind, req)
}

// CallBulk is Call for large messages, over the bulk connection: 16 MiB, and
// 64 KiB for what describes them.
func (t *Transport) CallBulk(ctx context.Context, node int32, kind uint8, req []byte) ([]byte, error) {
	return t.callPeer(ctx, node, kindBulk, kind, req)
}

func (t *Transport) callPeer(ctx context.Context, node int32, conn, kind uint8, req []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := t.peers.of(node).connect(conn, "", ctx.Done())
	if err != nil {
		return nil, callError(ctx, node, err)
	}
	resp, err := t.call(ctx, c, kind, req)
	if err != nil {
		return nil, callError(ctx, node, err)
	}
	return resp, nil
}

// CallAddr is Call to whoever answers at an address, over a connection of its own.
// It needs no cluster id and no node id: it is how a node joins.
func (t *Transport) CallAddr(ctx context.Context, addr string, kind uint8, req []byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.running.ctx, cancel)()
	c, err := t.dial(ctx, addr, kindOnce, Peer{})
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", addr, err)
	}
	if !t.running.spawn(func() { c.read() }) {
		c.close(ErrClosed)
		t.leave(c.conn)
		return nil, ErrClosed
	}
	defer c.close(ErrClosed)
	resp, err := t.call(ctx, c, kind, req)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", addr, err)
	}
	return resp, nil
}

func (t *Transport) call(ctx context.Context, c *client, kind uint8, req []byte) ([]byte, error) {
	limit := maxControlCall
	if c.conn.kind == kindBulk {
		limit = maxBulkCall
	}
	if len(req) > limit {
		return nil, fmt.Errorf("%w: a request of %d bytes, at most %d", ErrTooLarge, len(req), limit)
	}
	timeout := t.cfg.Timers.Timeout
	end, limited := ctx.Deadline()
	if limited {
		if timeout = time.Until(end); timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	_, resp, err := c.do(callFrame(kind, req), [][]byte{req}, timeout, ctx.Done())
	if err != nil && limited && time.Until(end) <= 0 {
		err = context.DeadlineExceeded // whoever's timer was the first to say so
	}
	return resp, err
}

// callError says whom a failed call was for, and that it was the caller who gave
// up, if so.
func callError(ctx context.Context, node int32, err error) error {
	if ended := ctx.Err(); ended != nil && (errors.Is(err, ErrTimeout) || errors.Is(err, ErrClosed)) {
		err = ended
	}
	return fmt.Errorf("call node %d: %w", node, err)
}
