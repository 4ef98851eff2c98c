package protocol

import "github.com/twmb/franz-go/pkg/kmsg"

// layouts says how the body of every request looks on the wire, so that the
// guard can walk one before kmsg decodes it. It repeats what Kafka's message
// schemas say (github.com/apache/kafka, clients/src/main/resources/common/message),
// and a test holds it against kmsg's encoders for every key and version.
//
// A layout lists the fields in wire order, separated by spaces:
//
//	1 2 4 8   an integer or boolean of so many bytes
//	u         a uuid, 16 bytes
//	s b       a string, bytes; null or not
//	[x]       an array of x, null or not
//	(x y)     a structure; from the flexible version on, tagged fields end it
//	?(x y)    a structure that may be null, after a byte that tells
//	3+:x      x from version 3 on
//	3-5:x     x in versions 3 to 5
//	<0=x>     the tagged fields that are known, last in their structure
//	~3        up to 3 bytes after the end, which nobody reads
//
// librdkafka up to at least 2.16 asks for all topics in Metadata from version 9 on
// with a count of four zero bytes where one is meant (rd_kafka_MetadataRequest0
// in its rdkafka_request.c): the request ends three bytes early. Kafka looks at
// nothing after the end of any request.
//
// flexible is the first version with compact lengths and tagged fields
// (KIP-482), or -1 when there is none.
var layouts = map[kmsg.Key]struct {
	flexible int16
	fields   string
}{
	kmsg.Produce:                      {9, "3+:s 2 4 [(0-12:s 13+:u [(4 b)])]"},
	kmsg.Fetch:                        {12, "0-14:4 4 4 3+:4 4+:1 7+:4 7+:4 [(0-12:s 13+:u [(4 9+:4 8 12+:4 5+:8 4 <0=u 1=8>)])] 7+:[(7-12:s 13+:u [4])] 11+:s <0=s 1=(4 8)>"},
	kmsg.ListOffsets:                  {6, "4 2+:1 [(s [(4 4+:4 8 0-0:4)])] 10+:4"},
	kmsg.Metadata:                     {9, "[(10+:u s)] 4+:1 8-10:1 8+:1 9+:~3"},
	kmsg.OffsetCommit:                 {8, "s 1+:4 1+:s 7+:s 2-4:8 [(0-9:s 10+:u [(4 8 1-1:8 6+:4 s)])]"},
	kmsg.OffsetFetch:                  {6, "0-7:s 0-7:[(s [4])] 8+:[(s 9+:s 9+:4 [(8-9:s 10+:u [4])])] 7+:1"},
	kmsg.FindCoordinator:              {3, "0-3:s 1+:1 4+:[s]"},
	kmsg.JoinGroup:                    {6, "s 4 1+:4 s 5+:s s [(s b)] 8+:s"},
	kmsg.Heartbeat:                    {4, "s 4 s 3+:s"},
	kmsg.LeaveGroup:                   {4, "s 0-2:s 3+:[(s s 5+:s)]"},
	kmsg.SyncGroup:                    {4, "s 4 s 3+:s 5+:s 5+:s [(s b)]"},
	kmsg.DescribeGroups:               {5, "[s] 3+:1"},
	kmsg.ListGroups:                   {3, "4+:[s] 5+:[s]"},
	kmsg.SASLHandshake:                {-1, "s"},
	kmsg.ApiVersions:                  {3, "3+:s 3+:s 5+:s 5+:4"},
	kmsg.CreateTopics:                 {5, "[(s 4 2 [(4 [4])] [(s s)])] 4 1+:1"},
	kmsg.DeleteTopics:                 {4, "0-5:[s] 6+:[(s u)] 4"},
	kmsg.DeleteRecords:                {2, "[(s [(4 8)])] 4"},
	kmsg.InitProducerID:               {2, "s 4 3+:8 3+:2"},
	kmsg.OffsetForLeaderEpoch:         {4, "3+:4 [(s [(4 2+:4 4)])]"},
	kmsg.AddPartitionsToTxn:           {3, "0-3:s 0-3:8 0-3:2 0-3:[(s [4])] 4+:[(s 8 2 1 [(s [4])])]"},
	kmsg.AddOffsetsToTxn:              {3, "s 8 2 s"},
	kmsg.EndTxn:                       {3, "s 8 2 1"},
	kmsg.WriteTxnMarkers:              {1, "[(8 2 1 [(s [4])] 4 2+:1)]"},
	kmsg.TxnOffsetCommit:              {3, "s s 8 2 3+:4 3+:s 3+:s [(0-5:s 6+:u [(4 8 2+:4 s)])]"},
	kmsg.DescribeACLs:                 {2, "1 s 1+:1 s s 1 1"},
	kmsg.CreateACLs:                   {2, "[(1 s 1+:1 s s 1 1)]"},
	kmsg.DeleteACLs:                   {2, "[(1 s 1+:1 s s 1 1)]"},
	kmsg.DescribeConfigs:              {4, "[(1 s [s])] 1+:1 3+:1"},
	kmsg.AlterConfigs:                 {2, "[(1 s [(s s)])] 1"},
	kmsg.AlterReplicaLogDirs:          {2, "[(s [(s [4])])]"},
	kmsg.DescribeLogDirs:              {2, "[(s [4])]"},
	kmsg.SASLAuthenticate:             {2, "b"},
	kmsg.CreatePartitions:             {2, "[(s 4 [([4])])] 4 1"},
	kmsg.CreateDelegationToken:        {2, "3+:s 3+:s [(s s)] 8"},
	kmsg.RenewDelegationToken:         {2, "b 8"},
	kmsg.ExpireDelegationToken:        {2, "b 8"},
	kmsg.DescribeDelegationToken:      {2, "[(s s)]"},
	kmsg.DeleteGroups:                 {2, "[s]"},
	kmsg.ElectLeaders:                 {2, "1+:1 [(s [4])] 4"},
	kmsg.IncrementalAlterConfigs:      {1, "[(1 s [(s 1 s)])] 1"},
	kmsg.AlterPartitionAssignments:    {0, "4 1+:1 [(s [(4 [4])])]"},
	kmsg.ListPartitionReassignments:   {0, "4 [(s [4])]"},
	kmsg.OffsetDelete:                 {-1, "s [(s [(4)])]"},
	kmsg.DescribeClientQuotas:         {1, "[(s 1 s)] 1"},
	kmsg.AlterClientQuotas:            {1, "[([(s s)] [(s 8 1)])] 1"},
	kmsg.DescribeUserSCRAMCredentials: {0, "[(s)]"},
	kmsg.AlterUserSCRAMCredentials:    {0, "[(s 1)] [(s 1 4 b b)]"},
	kmsg.DescribeQuorum:               {0, "[(s [(4)])]"},
	kmsg.UpdateFeatures:               {0, "4 [(s 2 0-0:1 1+:1)] 1+:1"},
	kmsg.DescribeCluster:              {0, "1 1+:1 2+:1"},
	kmsg.DescribeProducers:            {0, "[(s [4])]"},
	kmsg.UnregisterBroker:             {0, "4"},
	kmsg.DescribeTransactions:         {0, "[s]"},
	kmsg.ListTransactions:             {0, "[s] [8] 1+:8 2+:s"},
	kmsg.ConsumerGroupHeartbeat:       {0, "s s 4 s s 4 [s] 1+:s s [(u [4])]"},
	kmsg.ConsumerGroupDescribe:        {0, "[s] 1"},
	kmsg.ListConfigResources:          {0, "1+:[1]"},
	kmsg.DescribeTopicPartitions:      {0, "[(s)] 4 ?(s 4)"},
	kmsg.ShareGroupHeartbeat:          {0, "s s 4 s [s]"},
	kmsg.ShareGroupDescribe:           {0, "[s] 1"},
	kmsg.ShareFetch:                   {0, "s s 4 4 4 4 1+:4 1+:4 2+:1 2+:1 [(u [(4 0-0:4 [(8 8 [1])])])] [(u [4])]"},
	kmsg.ShareAcknowledge:             {0, "s s 4 2+:1 [(u [(4 [(8 8 [1])])])]"},
	kmsg.DescribeShareGroupOffsets:    {0, "[(s [(s [4])])]"},
	kmsg.AlterShareGroupOffsets:       {0, "s [(s [(4 8)])]"},
	kmsg.DeleteShareGroupOffsets:      {0, "s [(s)]"},
}
