package replication

import (
	"millrace/replication/bulletin"
	"millrace/replication/controller"
	"millrace/replication/metadata"
)

var _ controller.Observer = decisions{}

// decisions is what the controllers' group tells a node. It has no state: it says which part
// of the node each piece of news is for.
type decisions struct{ n *Node }

// Dropped implements controller.Observer.
func (d decisions) Dropped(topic metadata.TopicID) { d.n.dropped.add(topic) }

// ImageChanged implements controller.Observer.
func (d decisions) ImageChanged() {
	d.n.upkeep.hints.Add(1)
	select {
	case d.n.reconcileWake <- struct{}{}:
	default:
	}
}

// Decided implements controller.Observer.
func (d decisions) Decided(was, now *metadata.Image, change metadata.Change) {
	bulletin.Change(d.n.logger, was, now, change)
}
