// Package roster is what a node knows of the others of its cluster: whom it speaks with,
// by what they say about themselves (Members), and where they listen (Book).
//
// Both are safe for any number of goroutines. What they ask of the node that they work
// for and of the network are interfaces here.
package roster

import (
	"context"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
)

// A Cluster is what the node knows of its cluster by now.
type Cluster interface {
	// Image is the cluster's metadata as it is known here; it has no ClusterID before there
	// is one.
	Image() *metadata.Image
	// Live tells whether this node has a connection to a broker; to itself it always has.
	Live(broker int32) bool
}

// A Node is what Members asks of the node that it works for.
type Node interface {
	Cluster
	// Controllers are the servers of the controllers' group as it is known here; none
	// before it is open.
	Controllers() []raft.Server
	// Outdated ends the node: others say that its folder is an old copy. It may be called
	// more than once.
	Outdated(reason string)
}

// A Network is what a Book asks of the connections. *transport.Transport implements it.
type Network interface {
	// SetPeers says whom to stay connected to.
	SetPeers(nodes []int32)
	// CallAddr asks whoever is at an address.
	CallAddr(ctx context.Context, addr string, kind uint8, req []byte) ([]byte, error)
}

// Views are what the others are told of what a Book knows.
type Views interface {
	// ShowViews tells them, soon. It does not block.
	ShowViews()
}
