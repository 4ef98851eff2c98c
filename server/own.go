package server

import (
	"maps"
	"strconv"

	"millrace/replication"
)

// Topics of the cluster's own; offsetsTopic is named where its users are.
const (
	transactionsTopic = "__transaction_state"
	shareTopic        = "__share_group_state"
	metadataTopic     = "__cluster_metadata" // never there: metadata is the controller group's, in no topic
)

// standardReplicas is how many replicas the cluster's own topics have where there
// are as many brokers; with fewer they grow.
const standardReplicas = 3

// ownTopic says how a topic of the cluster's own is made, by whoever is first to
// need it, with the settings Kafka gives it; false for other topics.
func (h *broker) ownTopic(name string) (want replication.TopicRequest, ok bool) {
	set := h.settings().broker
	want = replication.TopicRequest{Name: name, Internal: true}
	config := map[string]string{"compression.type": "producer"}
	var replicas int
	switch name {
	case offsetsTopic:
		want.Partitions, replicas = set.Offsets.TopicPartitions, set.Offsets.TopicReplication
		config["cleanup.policy"] = "compact"
		config["segment.bytes"] = strconv.Itoa(int(set.Offsets.TopicSegmentBytes))
	case transactionsTopic:
		want.Partitions, replicas = set.Transactions.TopicPartitions, set.Transactions.TopicReplication
		config["cleanup.policy"] = "compact"
		config["segment.bytes"] = strconv.Itoa(int(set.Transactions.TopicSegmentBytes))
	case shareTopic: // ShareCoordinatorConfig's defaults: nobody can set them here
		want.Partitions, replicas = 50, standardReplicas
		config["cleanup.policy"], config["retention.ms"] = "delete", "-1"
		config["segment.bytes"] = strconv.Itoa(100 << 20)
	default:
		return replication.TopicRequest{}, false
	}
	// An even number bears no more losses than the odd one below it, and two
	// none at all: then every group would stand still with either broker.
	if replicas > 0 && replicas%2 == 0 {
		replicas++
	}
	if replicas < 1 || replicas == standardReplicas {
		replicas, want.Grow = standardReplicas, true
	}
	want.Replicas = int16(min(replicas, len(h.node.Image().Brokers())))
	want.Config = config
	return want, true
}

// completed is what a client asks for a topic of the cluster's own, with the
// cluster's own ideas in the place of what it leaves open.
func completed(want, own replication.TopicRequest) replication.TopicRequest {
	want.Internal = true
	maps.Copy(own.Config, want.Config)
	want.Config = own.Config
	if want.Assignment != nil {
		return want
	}
	if want.Partitions == -1 {
		want.Partitions = own.Partitions
	}
	if want.Replicas == -1 {
		want.Replicas, want.Grow = own.Replicas, own.Grow
	}
	return want
}
