package replication

import (
	"errors"
	"net"
	"runtime/debug"
	"sync"
)

// Serve accepts connections of other nodes from l until l is closed, and returns when
// all of them have ended: nil if it was closed in order. It must have been called when
// Start is: who founds a cluster listens for others that look for it. Shutdown ends the
// connections, and leaves l open.
func (n *Node) Serve(l net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		open.Go(func() { // a peer's connection: ends with it
			defer func() {
				conn.Close()
				if r := recover(); r != nil {
					n.cfg.Logger.Error("a connection was closed after a panic", "remote", conn.RemoteAddr(), "panic", r, "stack", string(debug.Stack()))
				}
			}()
			n.serveConn(conn)
		})
	}
}

// serveConn takes an inbound connection of another node, by whichever handshake, and
// returns when it is done with it. One that comes while Start opens the node waits for
// that.
func (n *Node) serveConn(conn net.Conn) {
	if n.entry.Overhear(conn) {
		return
	}
	if n.entry.Asks() {
		conn.Close() // it may be another that looks for one to join: it asks the next sooner
		return
	}
	select {
	case <-n.ready:
		n.transport.Serve(conn)
	case <-n.closing:
		conn.Close()
	}
}
