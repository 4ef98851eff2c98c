// Package identitytest has tests answer the handshakes of nodes where there is no mux.
package identitytest

import (
	"crypto/tls"
	"io"
	"net"

	"millrace/replication/identity"
)

// Nodes is who answers; replication.Node, say. It is mux.Nodes.
type Nodes interface {
	NodeTLS(hello *tls.ClientHelloInfo) (*tls.Config, error)
}

// Accept looks at what a connection begins with and shakes hands if that is a handshake of
// TLS, as package mux does. After an error the connection is closed.
func Accept(conn net.Conn, nodes Nodes) (net.Conn, error) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); err != nil {
		conn.Close()
		return nil, err
	}
	whole := &peeked{Conn: conn, first: first}
	if first[0] != 0x16 {
		return whole, nil
	}
	records := &identity.Records{Conn: whole}
	secure := tls.Server(records, &tls.Config{GetConfigForClient: nodes.NodeTLS})
	err := secure.Handshake()
	if err != nil {
		conn.Close()
		return nil, err
	}
	over, proof, err := identity.Accept(secure, records)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &proven{over, proof}, nil
}

// A peeked connection yields what was read of it before what follows.
type peeked struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// A proven connection says what the other end has shown.
type proven struct {
	net.Conn
	proof identity.Proof
}

// Proof is what was shown.
func (p *proven) Proof() identity.Proof { return p.proof }
