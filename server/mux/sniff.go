package mux

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"millrace/replication/identity"
	"millrace/replication/transport"
)

// A caller is who speaks on a connection, told by its first four bytes.
type caller int

const (
	callerKafka caller = iota // a frame's length, below 2³¹: the first byte is 0 to 6 with the default limit
	callerNode                // transport.Magic
	callerHTTP                // a verb
	callerTLS                 // a handshake record: 0x16, 3
	callerSSH
)

func callerOf(first [4]byte) caller {
	switch string(first[:]) {
	case transport.Magic:
		return callerNode
	case "GET ", "POST", "PUT ", "HEAD", "DELE", "OPTI", "PATC", "CONN", "TRAC", "PRI ":
		return callerHTTP
	case "SSH-":
		return callerSSH
	}
	if first[0] == 0x16 && first[1] == 3 {
		return callerTLS
	}
	return callerKafka
}

// leastRequest is the shortest frame there is: key, version, correlation id.
const leastRequest = 8

// A called connection is one of which it is known who calls.
type called struct {
	net.Conn // as it was accepted, or what TLS makes of it
	who      caller
	proof    identity.Proof // of a node
	secure   *tls.Conn      // what a client's TLS makes of it; nil: it speaks none
}

// sniff finds out who calls by the first bytes, which stay unread, or by what a handshake
// of TLS asks for. It waits for those bytes for patience.
func (m *Mux) sniff(conn net.Conn, patience time.Duration) (called, error) {
	conn.SetDeadline(time.Now().Add(patience))
	first, whole, err := peek(conn)
	if err != nil {
		return called{}, err
	}
	who := callerOf(first)
	var secure *tls.Conn
	if who == callerTLS {
		if m.cfg.TLS == nil && m.cfg.Nodes == nil {
			return called{}, errors.New("a TLS handshake, but no certificate is configured")
		}
		records := &identity.Records{Conn: whole}
		secure = tls.Server(records, m.tls)
		if err := secure.Handshake(); err != nil { // Close closes conn
			return called{}, &handshakeError{err}
		}
		if identity.IsNode([]string{secure.ConnectionState().NegotiatedProtocol}) {
			whole, proof, err := identity.Accept(secure, records)
			if err != nil {
				return called{}, fmt.Errorf("TLS handshake: %w", err)
			}
			return called{Conn: whole, who: callerNode, proof: proof}, conn.SetDeadline(time.Time{})
		}
		records.Open()
		if first, whole, err = peek(secure); err != nil {
			return called{}, err
		}
		who = callerOf(first)
	}
	most := m.cfg.Quotas.Broker.MaxRequest()
	switch n := binary.BigEndian.Uint32(first[:]); {
	case who == callerSSH:
		return called{}, fmt.Errorf("it speaks SSH")
	case who == callerTLS:
		return called{}, fmt.Errorf("TLS within TLS")
	case who == callerKafka && (n < leastRequest || int64(n) > int64(most)):
		return called{}, fmt.Errorf("it begins with % x, which is no request of at most %d bytes", first, most)
	}
	return called{Conn: whole, who: who, secure: secure}, conn.SetDeadline(time.Time{})
}

// A handshakeError is why TLS with a client, or a node, did not come about. TLS has told it.
type handshakeError struct{ why error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.why.Error() }

// Unwrap returns what TLS says.
func (e *handshakeError) Unwrap() error { return e.why }

// configFor is how the server of a handshake shows who it is and whom it lets in, which is
// another matter for nodes than for clients: it is tls.Config.GetConfigForClient.
func (m *Mux) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if identity.IsNode(hello.SupportedProtos) {
		if m.cfg.Nodes == nil {
			return nil, errors.New("it asks for the protocol of nodes, and there is no node here")
		}
		return m.cfg.Nodes.NodeTLS(hello)
	}
	clients := m.cfg.TLS
	if clients == nil {
		return nil, errors.New("no certificate is configured")
	}
	if clients.GetConfigForClient != nil {
		return clients.GetConfigForClient(hello)
	}
	return clients, nil
}

// peek returns the first four bytes of conn and a connection from which they
// are still to be read.
//
// A TCP connection is looked at in the kernel's buffer (MSG_PEEK), so that
// its next owner gets the *net.TCPConn itself: writev works on nothing else.
func peek(conn net.Conn) (first [4]byte, whole net.Conn, err error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || !kernelPeeks {
		r := bufio.NewReaderSize(conn, 16)
		p, err := r.Peek(len(first))
		copy(first[:], p)
		return first, &peeked{Conn: conn, first: r}, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return first, nil, err
	}
	var n int
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		n, peekErr = peekKernel(fd, first[:])
		// With one to three bytes wait for the rest, until the deadline.
		return peekErr != syscall.EAGAIN && (peekErr != nil || n == 0 || n == len(first))
	})
	switch {
	case err != nil:
		return first, nil, err
	case peekErr != nil:
		return first, nil, peekErr
	case n == 0:
		return first, nil, io.EOF
	}
	return first, conn, nil
}

// A peeked connection yields what was looked at before what follows.
type peeked struct {
	net.Conn
	first *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) {
	if p.first == nil {
		return p.Conn.Read(b)
	}
	if p.first.Buffered() == 0 {
		p.first = nil
		return p.Conn.Read(b)
	}
	return p.first.Read(b[:min(len(b), p.first.Buffered())])
}

// CloseWrite ends one direction, where that can be done: it can over TLS.
func (p *peeked) CloseWrite() error {
	if half, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// refuseHTTP answers an HTTP request on an address that serves none. whole is conn, or
// what TLS makes of it.
func (m *Mux) refuseHTTP(conn, whole net.Conn) {
	m.cfg.Quotas.refuse(conn, "an HTTP request, but this address serves Kafka only")
	whole.SetDeadline(time.Now().Add(5 * time.Second))
	const body = "This is a Kafka broker; HTTP is not served here.\n"
	fmt.Fprintf(whole, "HTTP/1.1 421 Misdirected Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	linger(whole)
}

// linger ends a connection whose caller has been told something: unread bytes would turn
// the close into a reset, which may overtake that. It lasts until the caller ends it too, or
// its deadline.
func linger(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
	io.Copy(io.Discard, io.LimitReader(conn, 64<<10))
}
