package replication

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"millrace/replication/admission"
	"millrace/replication/keyring"
)

// A security is how a node comes into its cluster, and shows that it belongs there.
type security struct {
	n       *Node
	entry   *admission.Candidate
	keyring *keyring.Keyring
	door    *admission.Door
}

// NodeTLS is how the node answers a handshake in which another asks for a protocol of
// nodes: package server/mux, which accepts connections for Serve, asks it.
func (s *security) NodeTLS(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if s.entry.Asks() {
		return nil, fmt.Errorf("this node asks to be taken into a cluster: %w", net.ErrClosed)
	}
	cluster := s.keyring.Foreign(hello)
	if cluster == "" {
		return s.keyring.Server(hello)
	}
	select {
	case <-s.n.ready:
		peers{s.n}.Foreign(cluster)
	default:
		s.entry.Foreign(cluster)
	}
	return nil, fmt.Errorf("a node of cluster %s looks for one here", cluster)
}

// RotateAuthority gives the cluster another certificate authority: see keyring.Rotate.
func (s *security) RotateAuthority(ctx context.Context) error {
	return keyring.Rotate(ctx, s.n, s.n.identity.Node, s.n.transport)
}
