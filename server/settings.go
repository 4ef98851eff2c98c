package server

import (
	"maps"
	"strconv"
	"sync"
	"time"

	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/replication/partition"
	"millrace/server/protocol"
)

// resolvedSettings are what the configuration says under one image. They are resolved
// once an image, topics when they are first asked for.
type resolvedSettings struct {
	image  *metadata.Image
	layers settings.Layers // of this node
	broker settings.Broker
	room   int      // for connections, by descriptors
	topics sync.Map // *metadata.Topic to *settings.Topic
}

// settings returns those of the current image.
func (h *broker) settings() *resolvedSettings {
	image := h.node.Image()
	if c := h.resolved.Load(); c != nil && c.image == image {
		return c
	}
	id := int32(0)
	if image.ClusterID != "" { // before that the node has no number to ask for
		id = h.node.ID()
	}
	// What the node was started with, and the id it has since.
	static := maps.Clone(h.node.Settings())
	if id != 0 {
		if static == nil {
			static = map[string]string{}
		}
		static["node.id"], static["broker.id"] = strconv.Itoa(int(id)), strconv.Itoa(int(id))
	}
	c := &resolvedSettings{image: image, layers: image.Settings(id, static)}
	c.broker = c.layers.Broker()
	replicas := 0
	h.node.Partitions(func(*partition.Partition) { replicas++ })
	c.room = roomFor(descriptors(), replicas)
	h.resolved.Store(c)
	return c
}

// layers are where this node's settings come from under an image that may not be the
// current one.
func (h *broker) layers(image *metadata.Image) settings.Layers {
	now := h.settings()
	if image == now.image {
		return now.layers
	}
	return image.Settings(h.node.ID(), now.layers.Static)
}

// topic returns a topic's settings; the topic is one of the image's.
func (c *resolvedSettings) topic(t *metadata.Topic) *settings.Topic {
	if v, ok := c.topics.Load(t); ok {
		return v.(*settings.Topic)
	}
	ts := c.layers.Topic(t.Config)
	c.topics.Store(t, &ts)
	return &ts
}

func (h *broker) maxRequestBytes() int {
	if n := h.settings().broker.Connections.MaxRequestBytes; n > 0 {
		return int(n)
	}
	return 100 << 20
}

func (h *broker) maxFetchBytes() int {
	if n := h.settings().broker.Connections.MaxFetchBytes; n > 0 {
		return int(n)
	}
	return 55 << 20
}

// maxConnections is max.connections, or 50,000 if that says more: a connection
// costs about 10 KB, and more than that are an attack. Or it is what descriptors
// there are room for beside the logs'.
func (h *broker) maxConnections() int {
	c := h.settings()
	return min(max(int(c.broker.Connections.Max), 1), 50_000, c.room)
}

const (
	// eachReplica descriptors are a replica's: the file that is written, and one more
	// while it rolls or is compacted.
	eachReplica = 2
	// otherFiles are the listener's, the databases', connections to other nodes,
	// files that are copied to them, and connections that wait to be known as such.
	otherFiles = 256
	// fewest connections are let in whatever there is room for.
	fewest = 64
)

// roomFor is for how many connections there are descriptors, so that a flood of
// them leaves the logs theirs.
func roomFor(descriptors, replicas int) int {
	return max(descriptors-eachReplica*replicas-otherFiles, fewest)
}

// idleTimeout is connections.max.idle.ms; a negative one means for ever, which
// is a year here.
func (h *broker) idleTimeout() time.Duration {
	const year = 365 * 24 * time.Hour
	n := h.settings().broker.Connections.MaxIdleMillis
	if n < 0 || n > int64(year/time.Millisecond) {
		return year
	}
	return max(time.Duration(n)*time.Millisecond, time.Second)
}

// findTopic finds a topic by name, or by id.
func findTopic(image *metadata.Image, name string, id metadata.TopicID, byID bool) (*metadata.Topic, protocol.Code) {
	if byID {
		if t, ok := image.TopicByID(id); ok {
			return t, protocol.None
		}
		return nil, protocol.UnknownTopicID
	}
	if t, ok := image.Topic(name); ok {
		return t, protocol.None
	}
	return nil, protocol.UnknownTopicOrPartition
}

// clamp turns a client's timeout in milliseconds into one we keep to.
func clamp(millis int32) time.Duration {
	return min(max(time.Duration(millis)*time.Millisecond, time.Second), maxWait)
}
