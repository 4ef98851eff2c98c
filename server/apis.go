package server

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// An api is one kind of request: the versions we answer and what answers them.
type api struct {
	key      kmsg.Key
	min, max int16
	serve    func(*call) error

	// early is set if the answer tells nobody which topics there are, or what is set for
	// them, or is taken as passing: it does not wait for the image that the node had
	// when it ended, as all others do. See imageGate. Where access is controlled none is
	// that needs rights, and nowhere one that needs a right to the cluster: the image may
	// lack that they were taken away.
	early bool
	needy bool // it needs rights
}

// table says what is served. It drives dispatch and the answer to ApiVersions,
// and a test holds it against the ranges of Kafka 4.1: clients infer the
// release, and features, from combinations of them. A key listed here is a
// promise; keys of transactions are not listed until they are kept.
//
// Handlers are grouped by what they are about, each group with what it needs.
func (h *handlers) table() []api {
	return []api{
		// Produce 0–2 are advertised for librdkafka, which takes their absence
		// for lack of compression (KAFKA-18659), and refused, as Kafka does.
		{key: kmsg.Produce, early: true, min: 0, max: 13, serve: h.producers.produce},
		{key: kmsg.Fetch, early: true, min: 4, max: 18, serve: h.fetches.fetch},
		{key: kmsg.ListOffsets, min: 1, max: 10, serve: answer(h.positions.listOffsets)},
		{key: kmsg.Metadata, min: 0, max: 13, serve: answer(h.cluster.metadata)},
		{key: kmsg.OffsetCommit, early: true, min: 2, max: 9, serve: answer(h.groups.offsetCommit)},
		{key: kmsg.OffsetFetch, early: true, min: 1, max: 9, serve: answer(h.groups.offsetFetch)},
		{key: kmsg.FindCoordinator, early: true, min: 0, max: 6, serve: answer(h.groups.findCoordinator)},
		{key: kmsg.JoinGroup, early: true, min: 0, max: 9, serve: answer(h.groups.joinGroup)},
		{key: kmsg.Heartbeat, early: true, min: 0, max: 4, serve: answer(h.groups.heartbeat)},
		{key: kmsg.LeaveGroup, early: true, min: 0, max: 5, serve: answer(h.groups.leaveGroup)},
		{key: kmsg.SyncGroup, early: true, min: 0, max: 5, serve: answer(h.groups.syncGroup)},
		{key: kmsg.DescribeGroups, early: true, min: 0, max: 6, serve: answer(h.groups.describeGroups)},
		{key: kmsg.ListGroups, early: true, min: 0, max: 5, serve: answer(h.groups.listGroups)},
		{key: kmsg.SASLHandshake, early: true, min: 0, max: 1, serve: answer(h.security.saslHandshake)},
		{key: kmsg.ApiVersions, early: true, min: 0, max: 4, serve: answer(h.apiVersions)},
		{key: kmsg.CreateTopics, min: 2, max: 7, serve: answer(h.topics.createTopics)},
		{key: kmsg.DeleteTopics, min: 1, max: 6, serve: answer(h.topics.deleteTopics)},
		{key: kmsg.DeleteRecords, min: 0, max: 2, serve: answer(h.topics.deleteRecords)},
		{key: kmsg.InitProducerID, early: true, min: 0, max: 5, serve: answer(h.producers.initProducerID)},
		{key: kmsg.OffsetForLeaderEpoch, min: 2, max: 4, serve: answer(h.positions.offsetForLeaderEpoch)},
		{key: kmsg.DescribeACLs, early: true, min: 1, max: 3, serve: answer(h.acls.describe)},
		{key: kmsg.CreateACLs, early: true, min: 1, max: 3, serve: answer(h.acls.create)},
		{key: kmsg.DeleteACLs, early: true, min: 1, max: 3, serve: answer(h.acls.remove)},
		{key: kmsg.DescribeConfigs, min: 1, max: 4, serve: answer(h.configs.describeConfigs)},
		{key: kmsg.AlterConfigs, min: 0, max: 2, serve: answer(h.configs.alterConfigs)},
		{key: kmsg.DescribeLogDirs, min: 1, max: 4, serve: answer(h.cluster.describeLogDirs)},
		{key: kmsg.SASLAuthenticate, early: true, min: 0, max: 2, serve: answer(h.security.saslAuthenticate)},
		{key: kmsg.CreatePartitions, min: 0, max: 3, serve: answer(h.topics.createPartitions)},
		{key: kmsg.CreateDelegationToken, early: true, min: 1, max: 3, serve: answer(h.security.createDelegationToken)},
		{key: kmsg.RenewDelegationToken, early: true, min: 1, max: 2, serve: answer(h.security.renewDelegationToken)},
		{key: kmsg.ExpireDelegationToken, early: true, min: 1, max: 2, serve: answer(h.security.expireDelegationToken)},
		{key: kmsg.DescribeDelegationToken, early: true, min: 1, max: 3, serve: answer(h.security.describeDelegationToken)},
		{key: kmsg.DeleteGroups, early: true, min: 0, max: 2, serve: answer(h.groups.deleteGroups)},
		{key: kmsg.ElectLeaders, min: 0, max: 2, serve: answer(h.cluster.electLeaders)},
		{key: kmsg.IncrementalAlterConfigs, min: 0, max: 1, serve: answer(h.configs.incrementalAlterConfigs)},
		{key: kmsg.ListPartitionReassignments, min: 0, max: 0, serve: answer(h.cluster.listPartitionReassignments)},
		{key: kmsg.DescribeClientQuotas, early: true, min: 0, max: 1, serve: answer(h.quotas.describe)},
		{key: kmsg.AlterClientQuotas, early: true, min: 0, max: 1, serve: answer(h.quotas.alter)},
		{key: kmsg.DescribeUserSCRAMCredentials, early: true, min: 0, max: 0, serve: answer(h.security.describeUserSCRAM)},
		{key: kmsg.AlterUserSCRAMCredentials, early: true, min: 0, max: 0, serve: answer(h.security.alterUserSCRAM)},
		{key: kmsg.DescribeQuorum, early: true, min: 0, max: 2, serve: answer(h.cluster.describeQuorum)},
		{key: kmsg.OffsetDelete, early: true, min: 0, max: 0, serve: answer(h.groups.offsetDelete)},
		{key: kmsg.DescribeCluster, early: true, min: 0, max: 2, serve: answer(h.cluster.describeCluster)},
		{key: kmsg.DescribeProducers, min: 0, max: 0, serve: answer(h.producers.describeProducers)},
		{key: kmsg.UnregisterBroker, early: true, min: 0, max: 0, serve: answer(h.cluster.unregisterBroker)},
		{key: kmsg.ConsumerGroupHeartbeat, early: true, min: 0, max: 1, serve: answer(h.groups.consumerGroupHeartbeat)},
		{key: kmsg.ConsumerGroupDescribe, early: true, min: 0, max: 1, serve: answer(h.groups.consumerGroupDescribe)},
		{key: kmsg.ListConfigResources, min: 0, max: 1, serve: answer(h.configs.listConfigResources)},
		{key: kmsg.DescribeTopicPartitions, min: 0, max: 0, serve: answer(h.cluster.describeTopicPartitions)},
	}
}

// handlers are all that answer requests, and the table of them.
type handlers struct {
	acls      acls
	cluster   cluster
	configs   configs
	fetches   fetches
	groups    groups
	positions positions
	producers producers
	quotas    quotas
	security  security
	topics    topics

	apis  []api
	byKey [kmsg.MaxKey + 1]*api
	guard protocol.Guard // lets through what apis has
}

// init makes the table, and b the broker of all handlers.
func (h *handlers) init(b *broker) {
	h.acls.broker = b
	h.cluster.broker, h.configs.broker, h.fetches.broker, h.groups.broker = b, b, b, b
	h.positions.broker, h.producers.broker, h.security.broker, h.topics.broker = b, b, b, b
	h.quotas.broker = b
	h.apis = h.table()
	for i := range h.apis {
		a := &h.apis[i]
		a.early = a.early && wholeRight(a.key) == nil
		a.needy = len(rights[a.key]) > 0
		h.guard.Serve(a.key, a.min, a.max)
		h.byKey[a.key] = a
	}
}

// lookup finds a kind of request, or nil.
func (h *handlers) lookup(key kmsg.Key) *api {
	if key < 0 || int(key) >= len(h.byKey) {
		return nil
	}
	return h.byKey[key]
}

// decode reads the body into req, in pieces if the request has a turn: it pauses between
// them. Fetch and Produce, which clients send all the time, are decoded at once and
// encode their own answers.
func (c *call) decode(req kmsg.Request) error {
	if c.conn.turn.has() {
		return c.conn.server.handlers.guard.DecodeInPieces(req, c.body, c.step)
	}
	return req.ReadFrom(c.body)
}

// A request is a pointer to one of kmsg's request types.
type request[R any] interface {
	*R
	kmsg.Request
}

// answer makes a handler of a request type into one of the table: it decodes
// the body, which the guard has walked, and writes what the handler returns.
func answer[R any, P request[R], A kmsg.Response](handle func(*call, P) A) func(*call) error {
	return func(c *call) error {
		req := P(new(R))
		req.SetVersion(c.Version)
		if err := c.decode(req); err != nil {
			return protocol.Malformed("%s version %d: %v", c.Key.Name(), c.Version, err)
		}
		since := c.conn.throttle.pause(c.Key)
		resp := handle(c, req)
		c.conn.throttle.resume(since)
		c.auditChanges(req, resp)
		if c.failed != nil {
			return c.failed
		}
		return c.conn.respond(c.Header, resp, c.answer)
	}
}
