package transport

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
)

// maxIncarnation is the longest incarnation, in bytes.
const maxIncarnation = 64

// A Peer names one node for as long as it keeps its data: a node whose disk was
// wiped comes back under its old id with another incarnation and is another Peer.
type Peer struct {
	Node        int32  // 1 or more
	Incarnation string // 1 to 64 letters, digits, '-' and '_'
}

// ServerID is the name Raft knows the peer by, "<node>.<incarnation>". It is the
// peer's raft.ServerAddress too: the transport resolves the node's id whenever it
// dials, so host and port may change without a change of membership.
func (p Peer) ServerID() raft.ServerID {
	return raft.ServerID(strconv.Itoa(int(p.Node)) + "." + p.Incarnation)
}

// String returns the ServerID.
func (p Peer) String() string { return string(p.ServerID()) }

// ParseServerID is the inverse of Peer.ServerID. It accepts only what ServerID
// writes for a valid peer.
func ParseServerID(id raft.ServerID) (Peer, error) {
	node, incarnation, ok := strings.Cut(string(id), ".")
	n, err := strconv.ParseInt(node, 10, 32)
	if !ok || err != nil || n < 1 || node[0] == '+' || node[0] == '0' || !validIncarnation(incarnation) {
		return Peer{}, fmt.Errorf("transport: %.80q is not a server id, want <node>.<incarnation>", string(id))
	}
	return Peer{Node: int32(n), Incarnation: incarnation}, nil
}

func validIncarnation(s string) bool {
	if s == "" || len(s) > maxIncarnation {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
