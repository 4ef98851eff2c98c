package server

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// An api is one kind of request: the versions we answer and what answers them.
type api struct {
	key      kmsg.Key
	min, max int16
	serve    func(*Server, *call) error

	// early is set if the answer tells nobody which topics there are, or what is set for
	// them, or is taken as passing: it does not wait for the image that the node had
	// when it ended, as all others do. See Server.awaitImage.
	early bool
}

// apis says what is served. It drives dispatch and the answer to ApiVersions,
// and a test holds it against the ranges of Kafka 4.1: clients infer the
// release, and features, from combinations of them. A key listed here is a
// promise; keys of transactions are not listed until they are kept. SaslHandshake is
// listed for what it refuses.
//
// It is filled in by init because the handler of ApiVersions reads it.
var apis []api

func init() {
	apis = []api{
		// Produce 0–2 are advertised for librdkafka, which takes their absence
		// for lack of compression (KAFKA-18659), and refused, as Kafka does.
		{key: kmsg.Produce, early: true, min: 0, max: 13}, // served by connection.produce
		{key: kmsg.Fetch, early: true, min: 4, max: 18, serve: (*Server).fetch},
		{key: kmsg.ListOffsets, min: 1, max: 10, serve: answer((*Server).listOffsets)},
		{key: kmsg.Metadata, min: 0, max: 13, serve: answer((*Server).metadata)},
		{key: kmsg.OffsetCommit, early: true, min: 2, max: 9, serve: answer((*Server).offsetCommit)},
		{key: kmsg.OffsetFetch, early: true, min: 1, max: 9, serve: answer((*Server).offsetFetch)},
		{key: kmsg.FindCoordinator, early: true, min: 0, max: 6, serve: answer((*Server).findCoordinator)},
		{key: kmsg.JoinGroup, early: true, min: 0, max: 9, serve: answer((*Server).joinGroup)},
		{key: kmsg.Heartbeat, early: true, min: 0, max: 4, serve: answer((*Server).heartbeat)},
		{key: kmsg.LeaveGroup, early: true, min: 0, max: 5, serve: answer((*Server).leaveGroup)},
		{key: kmsg.SyncGroup, early: true, min: 0, max: 5, serve: answer((*Server).syncGroup)},
		{key: kmsg.DescribeGroups, early: true, min: 0, max: 6, serve: answer((*Server).describeGroups)},
		{key: kmsg.ListGroups, early: true, min: 0, max: 5, serve: answer((*Server).listGroups)},
		{key: kmsg.SASLHandshake, early: true, min: 0, max: 1, serve: answer((*Server).saslHandshake)},
		{key: kmsg.ApiVersions, early: true, min: 0, max: 4, serve: answer((*Server).apiVersions)},
		{key: kmsg.CreateTopics, min: 2, max: 7, serve: answer((*Server).createTopics)},
		{key: kmsg.DeleteTopics, min: 1, max: 6, serve: answer((*Server).deleteTopics)},
		{key: kmsg.DeleteRecords, min: 0, max: 2, serve: answer((*Server).deleteRecords)},
		{key: kmsg.InitProducerID, early: true, min: 0, max: 5, serve: answer((*Server).initProducerID)},
		{key: kmsg.OffsetForLeaderEpoch, min: 2, max: 4, serve: answer((*Server).offsetForLeaderEpoch)},
		{key: kmsg.DescribeACLs, early: true, min: 1, max: 3, serve: answer((*Server).describeACLs)},
		{key: kmsg.CreateACLs, early: true, min: 1, max: 3, serve: answer((*Server).createACLs)},
		{key: kmsg.DeleteACLs, early: true, min: 1, max: 3, serve: answer((*Server).deleteACLs)},
		{key: kmsg.DescribeConfigs, min: 1, max: 4, serve: answer((*Server).describeConfigs)},
		{key: kmsg.AlterConfigs, min: 0, max: 2, serve: answer((*Server).alterConfigs)},
		{key: kmsg.DescribeLogDirs, min: 1, max: 4, serve: answer((*Server).describeLogDirs)},
		{key: kmsg.CreatePartitions, min: 0, max: 3, serve: answer((*Server).createPartitions)},
		{key: kmsg.DeleteGroups, early: true, min: 0, max: 2, serve: answer((*Server).deleteGroups)},
		{key: kmsg.ElectLeaders, min: 0, max: 2, serve: answer((*Server).electLeaders)},
		{key: kmsg.IncrementalAlterConfigs, min: 0, max: 1, serve: answer((*Server).incrementalAlterConfigs)},
		{key: kmsg.ListPartitionReassignments, min: 0, max: 0, serve: answer((*Server).listPartitionReassignments)},
		{key: kmsg.DescribeClientQuotas, early: true, min: 0, max: 1, serve: answer((*Server).describeClientQuotas)},
		{key: kmsg.DescribeUserSCRAMCredentials, early: true, min: 0, max: 0, serve: answer((*Server).describeUserSCRAM)},
		{key: kmsg.DescribeQuorum, early: true, min: 0, max: 2, serve: answer((*Server).describeQuorum)},
		{key: kmsg.OffsetDelete, early: true, min: 0, max: 0, serve: answer((*Server).offsetDelete)},
		{key: kmsg.DescribeCluster, early: true, min: 0, max: 2, serve: answer((*Server).describeCluster)},
		{key: kmsg.DescribeProducers, min: 0, max: 0, serve: answer((*Server).describeProducers)},
		{key: kmsg.UnregisterBroker, early: true, min: 0, max: 0, serve: answer((*Server).unregisterBroker)},
		{key: kmsg.ConsumerGroupHeartbeat, early: true, min: 0, max: 1, serve: answer((*Server).consumerGroupHeartbeat)},
		{key: kmsg.ConsumerGroupDescribe, early: true, min: 0, max: 1, serve: answer((*Server).consumerGroupDescribe)},
		{key: kmsg.ListConfigResources, min: 0, max: 1, serve: answer((*Server).listConfigResources)},
		{key: kmsg.DescribeTopicPartitions, min: 0, max: 0, serve: answer((*Server).describeTopicPartitions)},
	}
	for i := range apis {
		a := &apis[i]
		guard.Serve(a.key, a.min, a.max)
		byKey[a.key] = a
	}
}

// guard lets through what apis has.
var guard protocol.Guard

var byKey [kmsg.MaxKey + 1]*api

// lookup finds a kind of request, or nil.
func lookup(key kmsg.Key) *api {
	if key < 0 || int(key) >= len(byKey) {
		return nil
	}
	return byKey[key]
}

// decode reads the body into req.
func (c *call) decode(req kmsg.Request) error {
	if c.conn.turn.has() {
		return guard.DecodeInPieces(req, c.body, c.step)
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
func answer[R any, P request[R], A kmsg.Response](handle func(*Server, *call, P) A) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		req := P(new(R))
		req.SetVersion(c.Version)
		if err := c.decode(req); err != nil {
			return protocol.Malformed("%s version %d: %v", c.Key.Name(), c.Version, err)
		}
		resp := handle(s, c, req)
		if c.failed != nil {
			return c.failed
		}
		return c.conn.respond(c.Header, resp, c.answer)
	}
}
