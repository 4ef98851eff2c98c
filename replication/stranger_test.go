package replication

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/folder"
	"millrace/replication/identity"
)

// Kinds of connection between nodes, as FORMAT.md has them.
const (
	controlConn = 1
	dataConn    = 2
	bulkConn    = 3
	onceConn    = 4
)

// A stranger speaks the protocol between nodes without being one: it builds handshakes
// and frames from FORMAT.md, byte by byte, and so can say what no transport of ours
// would.
type stranger struct {
	t    testing.TB
	conn net.Conn
	ack  strangerAck
}

// A strangerAck is what a node answered a handshake with.
type strangerAck struct {
	status      byte
	session     uint64
	node        int32
	cluster     string
	incarnation string
	reason      string
}

// A strangerHello is what a stranger says it is.
type strangerHello struct {
	kind        byte
	session     uint64 // 0: a new one
	node        int32
	incarnation string
	cluster     string
	address     string
	more        []byte // behind the fields of version 1

	own  *identity.Credentials // that it shakes hands with; nil: not at all
	join bool                  // it shakes hands as one that comes to join
}

// castagnoli is the polynomial of the checksums between nodes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// handshake is how it shakes hands; nil: not at all.
func (g strangerHello) handshake() *tls.Config {
	switch {
	case g.own != nil:
		return g.own.Client(nil)
	case g.join:
		return identity.Unpinned(nil)
	}
	return nil
}

// credentials are what lies in a node's folder, whether it runs or not.
func (n *testNode) credentials() *identity.Credentials {
	n.c.t.Helper()
	p, err := os.ReadFile(n.dataFolder().Path(folder.CredentialsName))
	if err != nil {
		n.c.t.Fatal(err)
	}
	own, err := identity.DecodeCredentials(p)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return own
}

// knock dials a node and says hello. The connection is closed with the test.
func (c *testCluster) knock(n *testNode, g strangerHello) *stranger {
	c.t.Helper()
	var conn net.Conn
	var err error
	if c.net != nil {
		conn, err = c.net.Dial(context.Background(), "stranger", n.addr)
	} else {
		conn, err = net.DialTimeout("tcp", n.addr, 5*time.Second)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	if cfg := g.handshake(); cfg != nil {
		if conn, _, err = identity.Dial(context.Background(), conn, cfg); err != nil {
			c.t.Fatal(err)
		}
	}
	return sayHello(c.t, conn, g)
}

// sayHello says hello on a fresh connection and reads the answer.
func sayHello(t testing.TB, conn net.Conn, g strangerHello) *stranger {
	t.Helper()
	s, err := trySayHello(t, conn, g)
	if err != nil {
		t.Fatalf("no answer to a handshake: %v", err)
	}
	return s
}

// trySayHello is sayHello to who may end the connection instead.
func trySayHello(t testing.TB, conn net.Conn, g strangerHello) (*stranger, error) {
	t.Helper()
	if g.session == 0 {
		g.session = rand.Uint64()
	}
	str := func(b []byte, s string) []byte { return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...) }
	body := binary.BigEndian.AppendUint64(nil, g.session)
	body = binary.BigEndian.AppendUint32(body, uint32(g.node))
	body = binary.BigEndian.AppendUint32(body, 0)
	body = str(str(str(str(body, g.cluster), g.incarnation), ""), g.address)
	body = append(body, g.more...)
	head := append([]byte("MLRC\x01"), g.kind)
	head = binary.BigEndian.AppendUint16(head, uint16(len(body)))
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, body)
	s := &stranger{t: t, conn: conn}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(head, sum), body...)); err != nil {
		return s, err
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	fixed := make([]byte, 12)
	if _, err := io.ReadFull(conn, fixed); err != nil {
		return s, err
	}
	p := make([]byte, binary.BigEndian.Uint16(fixed[6:]))
	if _, err := io.ReadFull(conn, p); err != nil {
		return s, err
	}
	s.ack = strangerAck{status: fixed[5], session: binary.BigEndian.Uint64(p), node: int32(binary.BigEndian.Uint32(p[8:]))}
	p = p[12:]
	for _, field := range []*string{&s.ack.cluster, &s.ack.incarnation, &s.ack.reason} {
		n := 2 + int(binary.BigEndian.Uint16(p))
		*field, p = string(p[2:n]), p[n:]
	}
	return s, nil
}

// ask sends one request and returns the type, head and payload of the answer, or an
// error if the connection ended instead.
func (s *stranger) ask(typ byte, head, payload []byte) (byte, []byte, []byte, error) {
	s.t.Helper()
	f := make([]byte, 24)
	binary.BigEndian.PutUint32(f, uint32(len(head)))
	binary.BigEndian.PutUint32(f[4:], uint32(len(payload)))
	f[8] = typ
	binary.BigEndian.PutUint32(f[12:], 10000)
	binary.BigEndian.PutUint64(f[16:], 7)
	f = binary.BigEndian.AppendUint32(f, crc32.Update(crc32.Checksum(f, castagnoli), castagnoli, head))
	f = binary.BigEndian.AppendUint32(f, crc32.Checksum(payload, castagnoli))
	if _, err := s.conn.Write(append(append(f, head...), payload...)); err != nil {
		return 0, nil, nil, err
	}
	s.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	h := make([]byte, 32)
	if _, err := io.ReadFull(s.conn, h); err != nil {
		return 0, nil, nil, err
	}
	head, payload = make([]byte, binary.BigEndian.Uint32(h)), make([]byte, binary.BigEndian.Uint32(h[4:]))
	if _, err := io.ReadFull(s.conn, head); err != nil {
		return 0, nil, nil, err
	}
	_, err := io.ReadFull(s.conn, payload)
	return h[8], head, payload, err
}

func u64s(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return b
}

// appendFrame is the head and the payload of an append of entries behind prev.
func appendFrame(group, term, prev, prevTerm, commit uint64, entries ...*raft.Log) (head, payload []byte) {
	head = u64s(group, term, prev, prevTerm, commit)
	head = binary.BigEndian.AppendUint32(head, uint32(len(entries)))
	head = binary.BigEndian.AppendUint32(head, 0)
	for _, l := range entries {
		head = binary.BigEndian.AppendUint64(head, l.Term)
		head = binary.BigEndian.AppendUint32(head, uint32(len(l.Data)))
		head = binary.BigEndian.AppendUint16(head, uint16(len(l.Extensions)))
		head = append(head, byte(l.Type), 0)
		payload = append(append(payload, l.Data...), l.Extensions...)
	}
	return head, payload
}

// describe is an answer in words, for failures.
func describe(typ byte, head, payload []byte, err error) string {
	if typ == 17 && len(head) >= 8 {
		return fmt.Sprintf("failure %d: %s", head[0], head[8:])
	}
	return fmt.Sprintf("type %d, head %x, %d bytes, %v", typ, head, len(payload), err)
}
