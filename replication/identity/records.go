package identity

import (
	"encoding/binary"
	"net"
)

// recordHead is the length of what a record of TLS begins with: a type, a version, the
// length of what follows.
const recordHead = 5

// Records is a connection under a tls.Conn. No Read goes beyond the record that is being
// read, so that a tls.Conn, which reads ahead, has nothing of what follows its last record.
// It costs a system call for each record's head, until Open.
type Records struct {
	net.Conn
	open bool
	head [recordHead]byte
	have int // bytes of head that have been read
	left int // bytes of the record that have not been
}

// Open lets reads go as far as they like. Nothing may be reading.
func (r *Records) Open() { r.open = true }

// NetConn is what the records come by.
func (r *Records) NetConn() net.Conn { return r.Conn }

// Read implements net.Conn.
func (r *Records) Read(p []byte) (int, error) {
	switch {
	case r.open && r.left == 0 && r.have == 0, len(p) == 0:
		return r.Conn.Read(p)
	case r.left > 0:
		n, err := r.Conn.Read(p[:min(len(p), r.left)])
		r.left -= n
		return n, err
	}
	n, err := r.Conn.Read(p[:min(len(p), recordHead-r.have)])
	copy(r.head[r.have:], p[:n])
	if r.have += n; r.have == recordHead {
		r.have, r.left = 0, int(binary.BigEndian.Uint16(r.head[3:]))
	}
	return n, err
}
