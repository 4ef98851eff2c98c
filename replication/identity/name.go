package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// A Name is who a node is: one incarnation of one node of one cluster.
type Name struct {
	Cluster     string
	Node        int32
	Incarnation string
}

const scheme = "millrace"

// ErrNoNode is that of a certificate which names no node.
var ErrNoNode = errors.New("identity: the certificate names no node")

// String returns NODE.INCARNATION of CLUSTER.
func (n Name) String() string {
	return fmt.Sprintf("%d.%s of cluster %s", n.Node, n.Incarnation, n.Cluster)
}

// uri is the name as a certificate has it.
func (n Name) uri() *url.URL {
	return &url.URL{Scheme: scheme, Opaque: fmt.Sprintf("%s/%d/%s", n.Cluster, n.Node, n.Incarnation)}
}

// NameOf reads who a certificate names. ErrNoNode.
func NameOf(c *x509.Certificate) (Name, error) {
	var name Name
	for _, u := range c.URIs {
		if u.Scheme != scheme {
			continue
		}
		if name != (Name{}) {
			return Name{}, fmt.Errorf("%w, but several: %v", ErrNoNode, c.URIs)
		}
		parts := strings.Split(u.Opaque, "/")
		if len(parts) != 3 || parts[0] == "" || parts[2] == "" {
			return Name{}, fmt.Errorf("%w: %.100q is not millrace:CLUSTER/NODE/INCARNATION", ErrNoNode, u)
		}
		node, err := strconv.ParseInt(parts[1], 10, 32)
		if err != nil || node < 1 || strconv.FormatInt(node, 10) != parts[1] {
			return Name{}, fmt.Errorf("%w: %.100q has no node's id", ErrNoNode, u)
		}
		name = Name{Cluster: parts[0], Node: int32(node), Incarnation: parts[2]}
	}
	if name == (Name{}) {
		return Name{}, ErrNoNode
	}
	return name, nil
}
