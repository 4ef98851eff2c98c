package server

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/server/protocol"
)

// What Kafka answers without an authorizer, quotas and users (AclApis,
// ClientQuotasImage, ScramImage).
func TestNothingIsSecured(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	for version := int16(1); version <= 3; version++ {
		describe := kmsg.NewPtrDescribeACLsRequest()
		describe.SetVersion(version)
		if got := ask[*kmsg.DescribeACLsResponse](w, describe); got.ErrorCode != int16(protocol.SecurityDisabled) || str(got.ErrorMessage) != "No Authorizer is configured on the broker" || len(got.Resources) != 0 {
			t.Errorf("DescribeAcls %d: %+v", version, got)
		}
		create := kmsg.NewPtrCreateACLsRequest()
		create.SetVersion(version)
		create.Creations = make([]kmsg.CreateACLsRequestCreation, 2)
		if got := ask[*kmsg.CreateACLsResponse](w, create).Results; len(got) != 2 || got[1].ErrorCode != int16(protocol.SecurityDisabled) {
			t.Errorf("CreateAcls %d: %+v", version, got)
		}
		remove := kmsg.NewPtrDeleteACLsRequest()
		remove.SetVersion(version)
		remove.Filters = make([]kmsg.DeleteACLsRequestFilter, 2)
		if got := ask[*kmsg.DeleteACLsResponse](w, remove).Results; len(got) != 2 || got[1].ErrorCode != int16(protocol.SecurityDisabled) {
			t.Errorf("DeleteAcls %d: %+v", version, got)
		}
	}
	for version := int16(0); version <= 1; version++ {
		quotas := kmsg.NewPtrDescribeClientQuotasRequest()
		quotas.SetVersion(version)
		if got := ask[*kmsg.DescribeClientQuotasResponse](w, quotas); got.ErrorCode != 0 || got.Entries == nil || len(got.Entries) != 0 {
			t.Errorf("DescribeClientQuotas %d: %+v", version, got)
		}
	}
	users := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	if got := ask[*kmsg.DescribeUserSCRAMCredentialsResponse](w, users); got.ErrorCode != 0 || len(got.Results) != 0 {
		t.Errorf("all users: %+v", got)
	}
	users.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: "a"}, {Name: "b"}, {Name: "a"}}
	var got []string
	for _, r := range ask[*kmsg.DescribeUserSCRAMCredentialsResponse](w, users).Results {
		got = append(got, fmt.Sprintf("%s %d", r.User, r.ErrorCode))
	}
	if !slices.Equal(got, []string{"a 92", "b 91"}) {
		t.Errorf("users by name: %v", got)
	}
}

// A client that would authenticate is told that it cannot, as often as it asks, and the
// connection goes on without (KIP-43).
func TestNobodyAuthenticates(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	for version := int16(0); version <= 1; version++ {
		req := kmsg.NewPtrSASLHandshakeRequest()
		req.SetVersion(version)
		req.Mechanism = "PLAIN"
		if got := ask[*kmsg.SASLHandshakeResponse](w, req); got.ErrorCode != int16(protocol.UnsupportedSASLMechanism) || len(got.SupportedMechanisms) != 0 {
			t.Errorf("SaslHandshake %d: %+v", version, got)
		}
	}
	if got := ask[*kmsg.MetadataResponse](w, metadataRequest(9)); len(got.Brokers) != 1 {
		t.Errorf("afterwards: %+v", got)
	}
}

// KIP-460: nothing is to elect where who should lead does.
func TestElectLeaders(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 2, nil)
	w := b.dial()
	for version := int16(0); version <= 2; version++ {
		for kind := range int8(2) {
			req := kmsg.NewPtrElectLeadersRequest()
			req.SetVersion(version)
			req.ElectionType = kind
			req.TimeoutMillis = 1000
			if got := ask[*kmsg.ElectLeadersResponse](w, req); got.ErrorCode != 0 || len(got.Topics) != 0 {
				t.Errorf("version %d, type %d, all: %+v", version, kind, got)
			}
			for _, name := range []string{"t", "nobody"} {
				rt := kmsg.NewElectLeadersRequestTopic()
				rt.Topic, rt.Partitions = name, []int32{1, 2}
				req.Topics = append(req.Topics, rt)
			}
			var got []int16
			for _, st := range ask[*kmsg.ElectLeadersResponse](w, req).Topics {
				for _, sp := range st.Partitions {
					got = append(got, sp.ErrorCode)
				}
			}
			if want := []int16{84, 3, 3, 3}; !slices.Equal(got, want) {
				t.Errorf("version %d, type %d: errors %v, want %v", version, kind, got, want)
			}
		}
	}
}

// KIP-500: a broker that has gone for good, and holds nothing, is forgotten.
func TestUnregisterBroker(t *testing.T) {
	all := startCluster(t, 3)
	w := all[0].dial()
	if got := ask[*kmsg.CreateTopicsResponse](w, createRequest(7, assigned("t", []int32{1, 3}))).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	unregister := func(id int32) (int16, string) {
		req := kmsg.NewPtrUnregisterBrokerRequest()
		req.BrokerID = id
		resp := ask[*kmsg.UnregisterBrokerResponse](w, req)
		return resp.ErrorCode, str(resp.ErrorMessage)
	}
	if code, text := unregister(9); code != 102 || text != "Broker ID 9 is not currently registered" {
		t.Errorf("one that never was: error %d, %s", code, text)
	}
	if code, text := unregister(3); code != 42 || text != "Broker 3 is there; stop it before the cluster forgets it." {
		t.Errorf("one that is there: error %d, %s", code, text)
	}
	all[0].peers.isolate(all[2].addr)
	waitFor(t, "node 3 to be gone", func() bool { return !all[0].node.Live(3) })
	if code, text := unregister(3); code != 42 || text != "broker 3 still holds 1 replicas; `millrace cluster remove 3` moves them to other brokers first" {
		t.Errorf("one that holds a replica: error %d, %s", code, text)
	}
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.SetVersion(5)
	remove.TopicNames, remove.TimeoutMillis = []string{"t"}, 20_000
	if got := ask[*kmsg.DeleteTopicsResponse](w, remove).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	if code, text := unregister(3); code != 0 {
		t.Fatalf("one that has gone: error %d, %s", code, text)
	}
	if _, ok := all[0].node.Image().Broker(3); ok {
		t.Error("it is still registered")
	}
}

// A replica that cannot be opened is shown as a disk that failed is in Kafka, with
// its folder; the others stay where they are.
func TestDescribeLogDirsShowsWhatFailed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBrokerIn(t, dir, nil, nil)
	b.create("good", 1, nil)
	b.create("bad", 1, nil)
	b.produce("bad", 0, "x")
	p, err := b.node.Partition(partitionOf(b, "bad"))
	if err != nil {
		t.Fatal(err)
	}
	lost := p.Dir()
	ctx := testContext(t)
	if err := b.server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.node.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(lost); err != nil {
		t.Fatal(err)
	}
	b = startBrokerIn(t, dir, nil, nil)
	waitFor(t, "the replica to be set aside", func() bool {
		p, err := b.node.Partition(partitionOf(b, "bad"))
		return err == nil && p.Down() != nil
	})
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.SetVersion(4)
	dirs := ask[*kmsg.DescribeLogDirsResponse](b.dial(), req).Dirs
	if len(dirs) != 2 || dirs[0].ErrorCode != 0 || len(dirs[0].Topics) != 1 || dirs[0].Topics[0].Topic != "good" {
		t.Fatalf("%+v", dirs)
	}
	if d := dirs[1]; d.ErrorCode != int16(protocol.KafkaStorageError) || d.Dir != lost || len(d.Topics) != 1 || d.Topics[0].Topic != "bad" || d.Topics[0].Partitions[0].Partition != 0 {
		t.Errorf("%+v, want %s", d, lost)
	}
}

func partitionOf(b *testBroker, topic string) metadata.PartitionID {
	t, _ := b.node.Image().Topic(topic)
	return metadata.PartitionID{Topic: t.ID}
}

// KIP-595: the controller group, as each of its members sees it.
func TestDescribeQuorum(t *testing.T) {
	all := startCluster(t, 3)
	for _, b := range all {
		for version := int16(0); version <= 2; version++ {
			req := kmsg.NewPtrDescribeQuorumRequest()
			req.SetVersion(version)
			rt := kmsg.NewDescribeQuorumRequestTopic()
			rt.Topic = metadataTopic
			rt.Partitions = []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}, {Partition: 1}}
			req.Topics = append(req.Topics, rt)
			var p, other kmsg.DescribeQuorumResponseTopicPartition
			var resp *kmsg.DescribeQuorumResponse
			waitFor(t, "three voters", func() bool {
				resp = ask[*kmsg.DescribeQuorumResponse](b.dial(), req)
				p, other = resp.Topics[0].Partitions[0], resp.Topics[0].Partitions[1]
				return len(p.CurrentVoters) == 3
			})
			own := 0
			for _, v := range p.CurrentVoters {
				if v.ReplicaID == b.node.ID() && v.LogEndOffset > 0 {
					own++
				} else if v.LogEndOffset != -1 {
					t.Errorf("node %d says how far %d is", b.node.ID(), v.ReplicaID)
				}
			}
			if leader, _ := b.node.Controller(); p.ErrorCode != 0 || p.LeaderID != leader || p.LeaderEpoch < 1 || p.HighWatermark < 1 || own != 1 {
				t.Errorf("node %d, version %d: %+v", b.node.ID(), version, p)
			}
			if other.ErrorCode != int16(protocol.UnknownTopicOrPartition) || version >= 2 && len(resp.Nodes) != 3 {
				t.Errorf("partition 1: error %d; %d nodes", other.ErrorCode, len(resp.Nodes))
			}
		}
	}
}
