package replication

import "millrace/replication/metadata"

// resolvedSettings are a node's settings under one image.
type resolvedSettings struct {
	image    *metadata.Image
	settings metadata.BrokerSettings
}

// settings returns the node's own settings as they are now. They are resolved
// once an image.
func (n *Node) settings() metadata.BrokerSettings {
	image := n.Image()
	if r := n.resolved.Load(); r != nil && r.image == image {
		return r.settings
	}
	r := &resolvedSettings{image, image.BrokerSettings(n.identity.Node, n.cfg.Settings)}
	n.resolved.Store(r)
	return r.settings
}
