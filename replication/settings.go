package replication

import (
	"math"
	"time"

	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
)

// resolvedSettings are a node's settings under one image.
type resolvedSettings struct {
	image    *metadata.Image
	settings settings.Broker
}

// settings returns the node's own settings as they are now. They are resolved
// once an image.
func (n *Node) settings() settings.Broker {
	image := n.Image()
	if r := n.resolved.Load(); r != nil && r.image == image {
		return r.settings
	}
	r := &resolvedSettings{image, image.Settings(n.identity.Node, n.cfg.Settings).Broker()}
	n.resolved.Store(r)
	return r.settings
}

// milliseconds is what a setting says in them, at most some 292 years.
func milliseconds(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}
