package server

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/security/sasl"
	"millrace/segment/record"
)

// A trial is a request of a kind, and what Kafka answers to who may not make it, by
// KafkaApis and ControllerApis of 4.1.2. Its topic is t, its group g, its transactional id x.
type trial struct {
	build func(version int16, topic string, id [16]byte) kmsg.Request

	none, describe []int16 // the denials of somebody without rights, and with Describe on everything

	byID  int16                   // the first version that names topics by their ids; 0: none does
	names bool                    // it names a topic
	shows func(kmsg.Response) any // where answers leave out what may not be known of: what of it is told
	loose []acl.ResourceType      // rights that this request does without, in the row's order from the end
}

// set fills a request in and gives it its version.
func set[P kmsg.Request](version int16, req P, fill func(P)) kmsg.Request {
	req.SetVersion(version)
	fill(req)
	return req
}

// trials has one for each kind of request that is served.
func trials(t *testing.T) map[kmsg.Key]trial {
	batch := batchOf(t, record.None, nil, "value")
	group := func(build func(int16) kmsg.Request, none, describe []int16) trial {
		return trial{build: func(v int16, _ string, _ [16]byte) kmsg.Request { return build(v) }, none: none, describe: describe}
	}
	whole := group
	tokens := func(build func(int16) kmsg.Request) trial {
		tr := whole(build, nil, nil)
		tr.loose = []acl.ResourceType{acl.User, acl.DelegationToken}
		return tr
	}
	configs := []struct {
		kind kmsg.ConfigResourceType
		name string
	}{{kmsg.ConfigResourceTypeTopic, "t"}, {kmsg.ConfigResourceTypeGroupConfig, "g"}, {kmsg.ConfigResourceTypeBroker, "1"},
		{kmsg.ConfigResourceTypeClientMetrics, "m"}, {kmsg.ConfigResourceTypeBrokerLogger, "1"}}
	return map[kmsg.Key]trial{
		kmsg.Produce: {names: true, byID: 13, none: is(noTopic), describe: is(noTopic), loose: []acl.ResourceType{acl.TransactionalID},
			build: func(v int16, topic string, id [16]byte) kmsg.Request {
				return produceRequest(v, topic, id, batch)
			}},
		kmsg.Fetch: {names: true, byID: 13, none: is(noTopic), describe: is(noTopic), build: func(v int16, topic string, id [16]byte) kmsg.Request {
			req := fetchRequest(v, topic, id, 0, 0)
			req.SessionEpoch = finalEpoch
			return req
		}},
		kmsg.ListOffsets: {names: true, none: is(noTopic), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrListOffsetsRequest(), func(r *kmsg.ListOffsetsRequest) {
				rt := kmsg.NewListOffsetsRequestTopic()
				rp := kmsg.NewListOffsetsRequestTopicPartition()
				rp.Timestamp = latestOffset
				rt.Topic, rt.Partitions = topic, append(rt.Partitions, rp)
				r.Topics = append(r.Topics, rt)
			})
		}},
		kmsg.Metadata: {names: true, none: is(noTopic), loose: []acl.ResourceType{acl.Cluster, acl.Topic}, build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			req := metadataRequest(v, topic)
			req.AllowAutoTopicCreation = true
			return req
		}},
		kmsg.OffsetCommit: {names: true, none: is(noGroup), describe: is(noGroup), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrOffsetCommitRequest(), func(r *kmsg.OffsetCommitRequest) {
				rt := kmsg.NewOffsetCommitRequestTopic()
				rt.Topic, rt.Partitions = topic, []kmsg.OffsetCommitRequestTopicPartition{kmsg.NewOffsetCommitRequestTopicPartition()}
				r.Group, r.Generation, r.Topics = "g", -1, append(r.Topics, rt)
			})
		}},
		kmsg.OffsetFetch: {names: true, none: is(noGroup), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrOffsetFetchRequest(), func(r *kmsg.OffsetFetchRequest) {
				r.Group, r.Topics = "g", []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: []int32{0}}}
				r.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{0}}}}}
			})
		}},
		kmsg.FindCoordinator: func() trial {
			tr := group(func(v int16) kmsg.Request { return findRequest(v, 0, "g") }, is(noGroup), nil)
			tr.loose = []acl.ResourceType{acl.TransactionalID}
			return tr
		}(),
		kmsg.JoinGroup: group(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrJoinGroupRequest(), func(r *kmsg.JoinGroupRequest) { r.Group = "g" })
		}, is(noGroup), is(noGroup)),
		kmsg.Heartbeat: group(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrHeartbeatRequest(), func(r *kmsg.HeartbeatRequest) { r.Group, r.MemberID = "g", "m" })
		}, is(noGroup), is(noGroup)),
		kmsg.LeaveGroup: group(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrLeaveGroupRequest(), func(r *kmsg.LeaveGroupRequest) { r.Group, r.MemberID = "g", "m" })
		}, is(noGroup), is(noGroup)),
		kmsg.SyncGroup: group(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrSyncGroupRequest(), func(r *kmsg.SyncGroupRequest) { r.Group, r.MemberID = "g", "m" })
		}, is(noGroup), is(noGroup)),
		kmsg.DescribeGroups: group(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeGroupsRequest(), func(r *kmsg.DescribeGroupsRequest) { r.Groups = []string{"g"} })
		}, is(noGroup), nil),
		kmsg.ListGroups: {build: func(v int16, _ string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrListGroupsRequest(), func(*kmsg.ListGroupsRequest) {})
		}, loose: []acl.ResourceType{acl.Group}, shows: func(resp kmsg.Response) any {
			if groups := resp.(*kmsg.ListGroupsResponse).Groups; len(groups) > 0 {
				return groups
			}
			return nil
		}},
		kmsg.SASLHandshake: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrSASLHandshakeRequest(), func(r *kmsg.SASLHandshakeRequest) { r.Mechanism = "none" })
		}, nil, nil),
		kmsg.ApiVersions: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrApiVersionsRequest(), func(r *kmsg.ApiVersionsRequest) {
				r.ClientSoftwareName, r.ClientSoftwareVersion = "c", "1"
			})
		}, nil, nil),
		kmsg.CreateTopics: {names: true, none: is(noTopic), describe: is(noTopic), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrCreateTopicsRequest(), func(r *kmsg.CreateTopicsRequest) {
				r.TimeoutMillis, r.ValidateOnly = 20_000, true
				r.Topics = []kmsg.CreateTopicsRequestTopic{newTopic(topic, 1, 1)}
				if topic == "t" {
					r.Topics[0].Topic = "new" // for who may, the settings are told of one that is not there yet
				}
			})
		}},
		kmsg.DeleteTopics: {names: true, byID: 6, none: is(noTopic), describe: is(noTopic), loose: []acl.ResourceType{acl.Topic}, build: func(v int16, topic string, id [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrDeleteTopicsRequest(), func(r *kmsg.DeleteTopicsRequest) {
				r.TopicNames, r.Topics, r.TimeoutMillis = []string{topic}, []kmsg.DeleteTopicsRequestTopic{{TopicID: id}}, 20_000
			})
		}},
		kmsg.DeleteRecords: {names: true, none: is(noTopic), describe: is(noTopic), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrDeleteRecordsRequest(), func(r *kmsg.DeleteRecordsRequest) {
				r.TimeoutMillis = 20_000
				r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 0}}}}
			})
		}},
		kmsg.InitProducerID: func() trial {
			tr := whole(func(v int16) kmsg.Request {
				return set(v, kmsg.NewPtrInitProducerIDRequest(), func(r *kmsg.InitProducerIDRequest) {})
			}, is(noCluster), is(noCluster))
			return tr
		}(),
		kmsg.OffsetForLeaderEpoch: {names: true, none: is(noTopic), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrOffsetForLeaderEpochRequest(), func(r *kmsg.OffsetForLeaderEpochRequest) {
				rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
				rp.CurrentLeaderEpoch, rp.LeaderEpoch = -1, 1
				r.ReplicaID = -1
				r.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{rp}}}
			})
		}},
		kmsg.DescribeACLs: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeACLsRequest(), func(r *kmsg.DescribeACLsRequest) {
				r.ResourceType, r.ResourcePatternType, r.Operation, r.PermissionType = 1, 1, 1, 1
			})
		}, is(noCluster), nil),
		kmsg.CreateACLs: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrCreateACLsRequest(), func(r *kmsg.CreateACLsRequest) {
				r.Creations = []kmsg.CreateACLsRequestCreation{{ResourceType: 2, ResourceName: "z", ResourcePatternType: 3, Principal: "User:z", Host: "*", Operation: 3, PermissionType: 3}}
			})
		}, is(noCluster), is(noCluster)),
		kmsg.DeleteACLs: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDeleteACLsRequest(), func(r *kmsg.DeleteACLsRequest) {
				r.Filters = []kmsg.DeleteACLsRequestFilter{{ResourceType: 2, ResourceName: kmsg.StringPtr("z"), ResourcePatternType: 3, Operation: 3, PermissionType: 3}}
			})
		}, is(noCluster), is(noCluster)),
		kmsg.DescribeConfigs: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeConfigsRequest(), func(r *kmsg.DescribeConfigsRequest) {
				for _, c := range configs {
					r.Resources = append(r.Resources, kmsg.DescribeConfigsRequestResource{ResourceType: c.kind, ResourceName: c.name})
				}
			})
		}, []int16{noTopic, noGroup, noCluster}, []int16{noTopic, noGroup, noCluster}),
		kmsg.AlterConfigs: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrAlterConfigsRequest(), func(r *kmsg.AlterConfigsRequest) {
				r.ValidateOnly = true
				for _, c := range configs {
					r.Resources = append(r.Resources, kmsg.AlterConfigsRequestResource{ResourceType: c.kind, ResourceName: c.name})
				}
			})
		}, []int16{noTopic, noGroup, noCluster}, []int16{noTopic, noGroup, noCluster}),
		kmsg.IncrementalAlterConfigs: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrIncrementalAlterConfigsRequest(), func(r *kmsg.IncrementalAlterConfigsRequest) {
				r.ValidateOnly = true
				for _, c := range configs {
					r.Resources = append(r.Resources, kmsg.IncrementalAlterConfigsRequestResource{ResourceType: c.kind, ResourceName: c.name})
				}
			})
		}, []int16{noTopic, noGroup, noCluster}, []int16{noTopic, noGroup, noCluster}),
		kmsg.DescribeLogDirs: {build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeLogDirsRequest(), func(*kmsg.DescribeLogDirsRequest) {})
		}, none: is(noCluster), shows: func(resp kmsg.Response) any {
			if dirs := resp.(*kmsg.DescribeLogDirsResponse).Dirs; len(dirs) > 0 {
				return dirs
			}
			return nil
		}},
		kmsg.CreatePartitions: {names: true, none: is(noTopic), describe: is(noTopic), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrCreatePartitionsRequest(), func(r *kmsg.CreatePartitionsRequest) {
				r.ValidateOnly, r.TimeoutMillis, r.Topics = true, 20_000, []kmsg.CreatePartitionsRequestTopic{{Topic: topic, Count: 2}}
			})
		}},
		kmsg.DeleteGroups: group(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDeleteGroupsRequest(), func(r *kmsg.DeleteGroupsRequest) { r.Groups = []string{"g"} })
		}, is(noGroup), is(noGroup)),
		kmsg.ElectLeaders: {names: true, none: is(noCluster), describe: is(noCluster), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrElectLeadersRequest(), func(r *kmsg.ElectLeadersRequest) {
				r.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: topic, Partitions: []int32{0}}}
			})
		}},
		kmsg.ListPartitionReassignments: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrListPartitionReassignmentsRequest(), func(*kmsg.ListPartitionReassignmentsRequest) {})
		}, is(noCluster), nil),
		kmsg.DescribeClientQuotas: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeClientQuotasRequest(), func(*kmsg.DescribeClientQuotasRequest) {})
		}, is(noCluster), is(noCluster)),
		kmsg.AlterClientQuotas: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrAlterClientQuotasRequest(), func(r *kmsg.AlterClientQuotasRequest) {
				r.ValidateOnly = true
				r.Entries = []kmsg.AlterClientQuotasRequestEntry{{
					Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "user", Name: kmsg.StringPtr("z")}},
					Ops:    []kmsg.AlterClientQuotasRequestEntryOp{{Key: "producer_byte_rate", Value: 1 << 20}},
				}}
			})
		}, is(noCluster), is(noCluster)),
		kmsg.AlterUserSCRAMCredentials: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrAlterUserSCRAMCredentialsRequest(), func(r *kmsg.AlterUserSCRAMCredentialsRequest) {
				r.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: "z", Mechanism: 1}}
			})
		}, is(noCluster), is(noCluster)),
		kmsg.SASLAuthenticate: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrSASLAuthenticateRequest(), func(*kmsg.SASLAuthenticateRequest) {})
		}, nil, nil),
		// Tokens have rules of their own, and are tested with these: whoever asks for its own
		// needs no right.
		kmsg.CreateDelegationToken: tokens(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrCreateDelegationTokenRequest(), func(*kmsg.CreateDelegationTokenRequest) {})
		}),
		kmsg.RenewDelegationToken: tokens(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrRenewDelegationTokenRequest(), func(*kmsg.RenewDelegationTokenRequest) {})
		}),
		kmsg.ExpireDelegationToken: tokens(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrExpireDelegationTokenRequest(), func(*kmsg.ExpireDelegationTokenRequest) {})
		}),
		kmsg.DescribeDelegationToken: tokens(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeDelegationTokenRequest(), func(*kmsg.DescribeDelegationTokenRequest) {})
		}),
		kmsg.DescribeUserSCRAMCredentials: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeUserSCRAMCredentialsRequest(), func(*kmsg.DescribeUserSCRAMCredentialsRequest) {})
		}, is(noCluster), nil),
		kmsg.DescribeQuorum: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeQuorumRequest(), func(r *kmsg.DescribeQuorumRequest) {
				r.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: metadataTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
			})
		}, is(noCluster), nil),
		kmsg.OffsetDelete: {names: true, none: is(noGroup), describe: is(noGroup), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrOffsetDeleteRequest(), func(r *kmsg.OffsetDeleteRequest) {
				r.Group, r.Topics = "g", []kmsg.OffsetDeleteRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}}}
			})
		}},
		kmsg.DescribeCluster: {build: func(v int16, _ string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeClusterRequest(), func(r *kmsg.DescribeClusterRequest) {
				r.IncludeClusterAuthorizedOperations, r.EndpointType = true, 1
			})
		}, loose: []acl.ResourceType{acl.Cluster}, shows: func(resp kmsg.Response) any {
			if ops := resp.(*kmsg.DescribeClusterResponse).ClusterAuthorizedOperations; ops != 0 {
				return ops
			}
			return nil
		}},
		kmsg.DescribeProducers: {names: true, none: is(noTopic), describe: is(noTopic), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeProducersRequest(), func(r *kmsg.DescribeProducersRequest) {
				r.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: topic, Partitions: []int32{0}}}
			})
		}},
		kmsg.UnregisterBroker: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrUnregisterBrokerRequest(), func(r *kmsg.UnregisterBrokerRequest) { r.BrokerID = 99 })
		}, is(noCluster), is(noCluster)),
		kmsg.ConsumerGroupHeartbeat: {none: is(noGroup), describe: is(noGroup), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrConsumerGroupHeartbeatRequest(), func(r *kmsg.ConsumerGroupHeartbeatRequest) {
				r.Group, r.MemberID, r.RebalanceTimeoutMillis, r.SubscribedTopicNames = "g", "m", 60_000, []string{topic}
				r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			})
		}},
		kmsg.ConsumerGroupDescribe: func() trial {
			tr := group(func(v int16) kmsg.Request {
				return set(v, kmsg.NewPtrConsumerGroupDescribeRequest(), func(r *kmsg.ConsumerGroupDescribeRequest) { r.Groups = []string{"g"} })
			}, is(noGroup), nil)
			tr.loose = []acl.ResourceType{acl.Topic}
			return tr
		}(),
		kmsg.ListConfigResources: whole(func(v int16) kmsg.Request {
			return set(v, kmsg.NewPtrListConfigResourcesRequest(), func(*kmsg.ListConfigResourcesRequest) {})
		}, is(noCluster), is(noCluster)),
		kmsg.DescribeTopicPartitions: {names: true, none: is(noTopic), build: func(v int16, topic string, _ [16]byte) kmsg.Request {
			return set(v, kmsg.NewPtrDescribeTopicPartitionsRequest(), func(r *kmsg.DescribeTopicPartitionsRequest) {
				r.ResponsePartitionLimit, r.Topics = 100, []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: topic}}
			})
		}},
	}
}

// resource is the name of the resource that trials are about.
func resourceOf(key kmsg.Key, on acl.ResourceType) string {
	switch on {
	case acl.Topic:
		if key == kmsg.CreateTopics {
			return "new"
		}
		return "t"
	case acl.Group:
		return "g"
	case acl.TransactionalID:
		return "x"
	}
	return acl.ClusterName
}

// A gated broker has users, who log in, and entries that are its cluster's.
type gated struct {
	*testBroker
	entries []acl.Entry
	wires   map[string]*wire // by who logged in over them
}

// set has these entries be all there are, but for what trials make.
func (g *gated) set(entries ...acl.Entry) {
	g.t.Helper()
	var change metadata.AlterACLs
	for _, e := range g.entries {
		if !slices.Contains(entries, e) {
			change.Remove = append(change.Remove, e)
		}
	}
	for _, e := range entries {
		if !slices.Contains(g.entries, e) {
			change.Add = append(change.Add, e)
		}
	}
	if len(change.Add)+len(change.Remove) > 0 {
		if err := g.node.Change(testContext(g.t), change); err != nil {
			g.t.Fatal(err)
		}
	}
	g.entries = slices.Clone(entries)
}

// as returns a connection over which somebody has logged in, the same for one trial.
func (g *gated) as(principal string) *wire {
	g.t.Helper()
	w := g.wires[principal]
	if w == nil {
		w = g.dial()
		g.wires[principal] = w
		name := strings.TrimPrefix(principal, "User:")
		w.handshake(1, sasl.Plain)
		if got := w.authenticate(1, "\x00"+name+"\x00"+name); got.ErrorCode != 0 {
			g.t.Fatalf("%s logs in: %+v", principal, got)
		}
	}
	w.conn.SetDeadline(time.Now().Add(30 * time.Second))
	return w
}

// Every kind of request that is served, in every version, over real connections, by
// somebody without rights, somebody who may describe everything, and somebody with exactly the
// rights of the table, who have logged in: what is denied is Kafka's. A kind without a row, or
// without a trial, fails.
func TestEveryRequestNeedsItsRights(t *testing.T) {
	t.Parallel()
	b := startBroker(t, map[string]string{"offsets.topic.num.partitions": "1", "auto.create.topics.enable": "true", "group.initial.rebalance.delay.ms": "0"})
	id := b.create("t", 1, nil)
	b.create("name-of-t", 1, nil)
	b.coordinates("g")
	all := trials(t)
	commit := all[kmsg.OffsetCommit].build(9, "t", id)
	if got := ask[*kmsg.OffsetCommitResponse](b.dial(), commit).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	b.user("root", "root") // the first one is a super user
	for _, name := range []string{"alice", "bob", "carol", "dan", "erin"} {
		b.user(name, name, as(sasl.Plain, "root", "root"))
	}
	g := &gated{testBroker: b}
	last := []kmsg.Key{kmsg.DeleteGroups, kmsg.DeleteTopics} // what others are about
	keys := slices.Clone(last)
	for _, a := range b.server.handlers.apis {
		if !slices.Contains(last, a.key) {
			keys = append(keys, a.key)
		}
	}
	for _, key := range append(keys[len(last):], last...) {
		row, ok := rights[key]
		tr, tried := all[key]
		if !ok || !tried {
			t.Errorf("%s: in the table of rights: %v; among the trials: %v", key.Name(), ok, tried)
			continue
		}
		t.Run(key.Name(), func(t *testing.T) { tr.run(t, g, *b.server.handlers.lookup(key), row, id) })
	}
}

func (tr trial) run(t *testing.T, g *gated, a api, row []right, id [16]byte) {
	g.t, g.wires = t, map[string]*wire{}
	const alice, bob = "User:alice", "User:bob"
	describes := []acl.Entry{let(bob, acl.Describe, acl.Cluster, acl.ClusterName)}
	for _, on := range []acl.ResourceType{acl.Topic, acl.Group, acl.TransactionalID} {
		describes = append(describes, let(bob, acl.Describe, on, acl.AnyName))
	}
	first := a.min
	if a.key == kmsg.Produce {
		first = 3 // earlier ones are refused whoever asks
	}
	answer := func(version int16, who string, entries []acl.Entry) kmsg.Response {
		t.Helper()
		g.set(entries...)
		w := g.as(who)
		if a.key == kmsg.SASLHandshake || a.key == kmsg.SASLAuthenticate {
			delete(g.wires, who) // which it may end
		}
		return ask[kmsg.Response](w, tr.build(version, "t", id))
	}
	for version := first; version <= a.max; version++ {
		for _, who := range []struct {
			name    string
			entries []acl.Entry
			want    []int16
		}{{alice, nil, tr.none}, {bob, describes, tr.describe}} {
			resp := answer(version, who.name, who.entries)
			got := codesOf(resp)
			if a.key == kmsg.DescribeLogDirs && version < 3 {
				who.want = nil // there is no place for it
			}
			if !slices.Equal(got, who.want) {
				t.Errorf("version %d, %s: denials %v, Kafka's are %v", version, who.name, got, who.want)
			}
			if tr.shows != nil && (tr.shows(resp) != nil) != (who.name == bob) {
				t.Errorf("version %d: %s is shown %v", version, who.name, tr.shows(resp))
			}
		}
		if tr.names && (tr.byID == 0 || version < tr.byID) {
			tr.hides(t, g, version, id)
		}
	}
	var exact []acl.Entry
	for _, r := range row {
		exact = append(exact, let("User:carol", r.operation, r.on, resourceOf(a.key, r.on)))
	}
	for version := first; version <= a.max; version++ {
		if got := codesOf(answer(version, "User:carol", exact)); len(got) > 0 {
			t.Errorf("version %d, with exactly the rights of the table: denials %v", version, got)
		}
	}
	if a.key == kmsg.DeleteTopics {
		return // it is gone
	}
	// Each right is asked for: without it something is denied, but for what does in its place.
	loose := slices.Clone(tr.loose)
	for i := len(row) - 1; i >= 0; i-- {
		r := row[i]
		var others []acl.Entry
		for j, o := range row {
			if j != i {
				others = append(others, let("User:dan", o.operation, o.on, resourceOf(a.key, o.on)))
			}
		}
		if n := slices.Index(loose, r.on); n >= 0 {
			loose = slices.Delete(loose, n, n+1)
		} else if want := map[acl.ResourceType]int16{acl.Topic: noTopic, acl.Group: noGroup, acl.Cluster: noCluster, acl.TransactionalID: noTransactional}[r.on]; !(a.key == kmsg.InitProducerID && r.on == acl.TransactionalID) {
			if got := codesOf(answer(a.max, "User:dan", others)); !slices.Contains(got, want) {
				t.Errorf("without %v on %v: denials %v, want %d", r.operation, r.on, got, want)
			}
		}
		if r.instead != 0 {
			others = append(others, let("User:erin", r.instead, acl.Cluster, acl.ClusterName))
			for j := range others {
				others[j].Principal = "User:erin"
			}
			resp := answer(a.max, "User:erin", others)
			if got := codesOf(resp); len(got) > 0 {
				t.Errorf("with %v on the cluster in place of %v: denials %v", r.instead, r.operation, got)
			}
			if tr.shows != nil && tr.shows(resp) == nil {
				t.Errorf("with %v on the cluster nothing is shown", r.instead)
			}
		}
	}
}

// hides compares what somebody without rights is told of a topic that is there, and of
// one that is not: nothing but its name differs.
func (tr trial) hides(t *testing.T, g *gated, version int16, id [16]byte) {
	t.Helper()
	g.set()
	told := func(topic string) []byte {
		w := g.as("User:alice")
		w.send(tr.build(version, topic, id))
		_, body := w.read()
		return body
	}
	if there, not := told("name-of-t"), told("name-of-u"); !bytes.Equal(bytes.ReplaceAll(not, []byte("name-of-u"), []byte("name-of-t")), there) {
		t.Errorf("version %d: of a topic that is there one is told %x, of one that is not %x", version, there, not)
	}
}
