package server

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/security/acl"
)

// A right is what a request needs who makes it: an operation on the resources that it
// names, or on the cluster.
type right struct {
	operation acl.Operation
	on        acl.ResourceType
	instead   acl.Operation // on the cluster, which does in its place; 0: none does
	whole     bool          // without it the whole request is refused
	of        string        // which resources, and what for
}

// each is what most rights are about.
const each = "each that is named"

// onWhole is a right to a request as a whole.
func onWhole(op acl.Operation) []right {
	return []right{{operation: op, on: acl.Cluster, whole: true, of: "for all of it"}}
}

// rights says what each kind of request needs, as Kafka's KafkaApis and ControllerApis ask
// for it. Handlers ask for what stands here: call.admit for the whole request, call.may
// for the first right of a type of resources. A kind without a row fails a test, and
// docs/authorization.md is written from the rows.
var rights = map[kmsg.Key][]right{
	kmsg.Produce: {
		{operation: acl.Write, on: acl.Topic, of: each},
		{operation: acl.Write, on: acl.TransactionalID, of: "if one is given; without one, batches of transactions refuse the request"},
	},
	kmsg.Fetch:       {{operation: acl.Read, on: acl.Topic, of: each + ", and in every fetch of a session"}},
	kmsg.ListOffsets: {{operation: acl.Describe, on: acl.Topic, of: each}},
	kmsg.Metadata: {
		{operation: acl.Describe, on: acl.Topic, of: each + "; of all that there are, others are left out"},
		{operation: acl.Create, on: acl.Topic, instead: acl.Create, of: "each that is created because it is asked for"},
		{operation: acl.Describe, on: acl.Cluster, of: "to be told the operations that are allowed on it"},
	},
	kmsg.OffsetCommit: {
		{operation: acl.Read, on: acl.Group, of: each},
		{operation: acl.Read, on: acl.Topic, of: each},
	},
	kmsg.OffsetFetch: {
		{operation: acl.Describe, on: acl.Group, of: each},
		{operation: acl.Describe, on: acl.Topic, of: each + "; of all that there are, others are left out"},
	},
	kmsg.FindCoordinator: {
		{operation: acl.Describe, on: acl.Group, of: each},
		{operation: acl.Describe, on: acl.TransactionalID, of: each},
	},
	kmsg.JoinGroup:      {{operation: acl.Read, on: acl.Group, of: each}},
	kmsg.Heartbeat:      {{operation: acl.Read, on: acl.Group, of: each}},
	kmsg.LeaveGroup:     {{operation: acl.Read, on: acl.Group, of: each}},
	kmsg.SyncGroup:      {{operation: acl.Read, on: acl.Group, of: each}},
	kmsg.DescribeGroups: {{operation: acl.Describe, on: acl.Group, of: each}},
	kmsg.ListGroups:     {{operation: acl.Describe, on: acl.Group, instead: acl.Describe, of: "each; others are left out"}},
	kmsg.SASLHandshake:  {},
	kmsg.ApiVersions:    {},
	kmsg.CreateTopics: {
		{operation: acl.Create, on: acl.Topic, instead: acl.Create, of: each},
		{operation: acl.DescribeConfigs, on: acl.Topic, of: "each, to be told its settings, partitions and replicas"},
	},
	kmsg.DeleteTopics: {
		{operation: acl.Delete, on: acl.Topic, instead: acl.Delete, of: each},
		{operation: acl.Describe, on: acl.Topic, instead: acl.Delete, of: "each; without it one does not learn whether a topic of the name is there, nor which one has the id"},
	},
	kmsg.DeleteRecords: {{operation: acl.Delete, on: acl.Topic, of: each}},
	kmsg.InitProducerID: {
		{operation: acl.Write, on: acl.TransactionalID, of: "if one is given"},
		{operation: acl.IdempotentWrite, on: acl.Cluster, of: "if none is given; Write on any topic does in its place"},
	},
	kmsg.OffsetForLeaderEpoch: {{operation: acl.Describe, on: acl.Topic, instead: acl.ClusterAction, of: each}},
	kmsg.DescribeACLs:         onWhole(acl.Describe),
	kmsg.CreateACLs:           onWhole(acl.Alter),
	kmsg.DeleteACLs:           onWhole(acl.Alter),
	kmsg.DescribeConfigs: {
		{operation: acl.DescribeConfigs, on: acl.Topic, of: each},
		{operation: acl.DescribeConfigs, on: acl.Group, of: each},
		{operation: acl.DescribeConfigs, on: acl.Cluster, of: "for brokers, their loggers, and subscriptions to clients' metrics"},
	},
	kmsg.AlterConfigs:     configRights,
	kmsg.DescribeLogDirs:  onWhole(acl.Describe),
	kmsg.SASLAuthenticate: {},
	kmsg.CreatePartitions: {{operation: acl.Alter, on: acl.Topic, of: each}},
	kmsg.CreateDelegationToken: {
		{operation: acl.CreateTokens, on: acl.User, of: "the owner, if that is somebody else"},
	},
	kmsg.RenewDelegationToken:  {},
	kmsg.ExpireDelegationToken: {},
	kmsg.DescribeDelegationToken: {
		{operation: acl.Describe, on: acl.DelegationToken, of: "each that one neither owns nor may renew; others are left out"},
		{operation: acl.DescribeTokens, on: acl.User, of: "the owner, in place of the right to the token"},
	},
	kmsg.DeleteGroups:               {{operation: acl.Delete, on: acl.Group, of: each}},
	kmsg.ElectLeaders:               onWhole(acl.Alter),
	kmsg.IncrementalAlterConfigs:    configRights,
	kmsg.ListPartitionReassignments: onWhole(acl.Describe),
	kmsg.OffsetDelete: {
		{operation: acl.Delete, on: acl.Group, of: each},
		{operation: acl.Read, on: acl.Topic, of: each},
	},
	kmsg.DescribeClientQuotas:         onWhole(acl.DescribeConfigs),
	kmsg.AlterClientQuotas:            onWhole(acl.AlterConfigs),
	kmsg.DescribeUserSCRAMCredentials: onWhole(acl.Describe),
	kmsg.AlterUserSCRAMCredentials:    onWhole(acl.Alter),
	kmsg.DescribeQuorum:               onWhole(acl.Describe),
	kmsg.DescribeCluster: {
		{operation: acl.Describe, on: acl.Cluster, of: "to be told the operations that are allowed on it"},
	},
	kmsg.DescribeProducers: {{operation: acl.Read, on: acl.Topic, of: each}},
	kmsg.UnregisterBroker:  onWhole(acl.Alter),
	kmsg.ConsumerGroupHeartbeat: {
		{operation: acl.Read, on: acl.Group, of: each},
		{operation: acl.Describe, on: acl.Topic, of: "each that is subscribed to by its name; of those that an expression matches, others are left out"},
	},
	kmsg.ConsumerGroupDescribe: {
		{operation: acl.Describe, on: acl.Group, of: each},
		{operation: acl.Describe, on: acl.Topic, of: "all that its members are assigned, or the group is not described"},
	},
	kmsg.ListConfigResources:     onWhole(acl.DescribeConfigs),
	kmsg.DescribeTopicPartitions: {{operation: acl.Describe, on: acl.Topic, of: each + "; of all that there are, others are left out"}},
}

// configRights are those of the two requests that alter settings.
var configRights = []right{
	{operation: acl.AlterConfigs, on: acl.Topic, of: each},
	{operation: acl.AlterConfigs, on: acl.Group, of: each},
	{operation: acl.AlterConfigs, on: acl.Cluster, of: "for brokers, their loggers, and subscriptions to clients' metrics; `super.users` and `allow.everyone.if.no.acl.found`, which Kafka takes from files, take Alter besides"},
}

// wholeRight is the right to requests of a kind as a whole, nil if there is none.
func wholeRight(key kmsg.Key) *right {
	if r := rights[key]; len(r) == 1 && r[0].whole {
		return &r[0]
	}
	return nil
}
