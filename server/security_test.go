package server

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What Kafka answers without an authorizer, quotas and users (AclApis,
// ClientQuotasImage, ScramImage).
func TestNothingIsSecured(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	for version := int16(1); version <= 3; version++ {
		describe := kmsg.NewPtrDescribeACLsRequest()
		describe.SetVersion(version)
		if got := ask[*kmsg.DescribeACLsResponse](w, describe); got.ErrorCode != int16(securityDisabled) || str(got.ErrorMessage) != "No Authorizer is configured." || len(got.Resources) != 0 {
			t.Errorf("DescribeAcls %d: %+v", version, got)
		}
		create := kmsg.NewPtrCreateACLsRequest()
		create.SetVersion(version)
		create.Creations = make([]kmsg.CreateACLsRequestCreation, 2)
		if got := ask[*kmsg.CreateACLsResponse](w, create).Results; len(got) != 2 || got[1].ErrorCode != int16(securityDisabled) {
			t.Errorf("CreateAcls %d: %+v", version, got)
		}
		remove := kmsg.NewPtrDeleteACLsRequest()
		remove.SetVersion(version)
		remove.Filters = make([]kmsg.DeleteACLsRequestFilter, 2)
		if got := ask[*kmsg.DeleteACLsResponse](w, remove).Results; len(got) != 2 || got[1].ErrorCode != int16(securityDisabled) {
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
	if code, text := unregister(3); code != 42 || text != "broker 3 still holds 1 replicas; move them to other brokers first" {
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
