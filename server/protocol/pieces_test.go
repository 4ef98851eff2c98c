package protocol

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol/protocoltest"
)

// Every request of every version is decoded in pieces to what it is decoded to in one,
// however many elements it has.
func TestRequestsInPiecesAreTheSame(t *testing.T) {
	t.Parallel()
	atOnce := readElements
	if testing.Short() {
		atOnce = 20 // it is what is given
	}
	everyLayout(t, func(t *testing.T, key kmsg.Key, version int16, l *layout) {
		for seed, n := range []int{atOnce, 2*atOnce + atOnce/2} {
			f := protocoltest.NewFiller(uint64(seed))
			f.Most, f.Tags = 1, 0 // the guard does not let many pass
			req := f.Request(key, version)
			list := longestList(req)
			if !list.IsValid() {
				return
			}
			all := reflect.MakeSlice(list.Type(), n, n)
			for i := range n {
				f.Fill(all.Index(i))
			}
			list.Set(all)
			body := req.AppendTo(nil)
			whole, pieces := kmsg.RequestForKey(int16(key)), kmsg.RequestForKey(int16(key))
			whole.SetVersion(version)
			pieces.SetVersion(version)
			if err := whole.ReadFrom(body); err != nil {
				t.Fatal(err)
			}
			steps := 0
			if err := decodeInPieces(pieces, l, body, atOnce, func() { steps++ }); err != nil {
				t.Fatalf("version %d, %d elements: %v", version, n, err)
			}
			if !reflect.DeepEqual(pieces, whole) {
				t.Errorf("version %d, %d elements: it is not what it is in one", version, n)
			}
			if steps != 0 && steps != n {
				t.Errorf("version %d, %d elements: %d steps", version, n, steps)
			}
			if n > atOnce && key == kmsg.Metadata && steps == 0 {
				t.Errorf("version %d, %d elements: it is not in pieces", version, n)
			}
		}
	})
}

// The last piece may have fewer elements than another list of the request has in all.
func TestTheLastPieceMayBeTheShorterList(t *testing.T) {
	states := kmsg.NewPtrListGroupsRequest()
	states.StatesFilter, states.TypesFilter = make([]string, readElements+1), []string{"classic", "consumer"}
	types := kmsg.NewPtrListGroupsRequest()
	types.StatesFilter, types.TypesFilter = states.TypesFilter, states.StatesFilter
	subscribed := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	subscribed.SubscribedTopicNames, subscribed.Topics = make([]string, readElements+1), make([]kmsg.ConsumerGroupHeartbeatRequestTopic, 2)
	owned := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	owned.SubscribedTopicNames, owned.Topics = make([]string, readElements-100), make([]kmsg.ConsumerGroupHeartbeatRequestTopic, 2*readElements+1)
	for i, req := range []kmsg.Request{states, types, subscribed, owned} {
		req.SetVersion(req.MaxVersion())
		if req.Key() == int16(kmsg.ListGroups) {
			req.SetVersion(5)
		}
		body := req.AppendTo(nil)
		whole, pieces := kmsg.RequestForKey(req.Key()), kmsg.RequestForKey(req.Key())
		whole.SetVersion(req.GetVersion())
		pieces.SetVersion(req.GetVersion())
		if err := whole.ReadFrom(body); err != nil {
			t.Fatal(err)
		}
		steps := 0
		if err := decodeInPieces(pieces, layoutOf(kmsg.Key(req.Key()), req.GetVersion()), body, readElements, func() { steps++ }); err != nil || steps == 0 {
			t.Fatalf("request %d: %d steps, %v", i, steps, err)
		}
		if !reflect.DeepEqual(pieces, whole) {
			t.Errorf("request %d: it is not what it is in one", i)
		}
	}

	// With two long lists it is decoded at once.
	both := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	both.SubscribedTopicNames, both.Topics = make([]string, 2*readElements), make([]kmsg.ConsumerGroupHeartbeatRequestTopic, 2*readElements)
	both.SetVersion(1)
	body := both.AppendTo(nil)
	whole, pieces := kmsg.NewPtrConsumerGroupHeartbeatRequest(), kmsg.NewPtrConsumerGroupHeartbeatRequest()
	whole.SetVersion(1)
	pieces.SetVersion(1)
	if err := whole.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	if err := decodeInPieces(pieces, layoutOf(kmsg.ConsumerGroupHeartbeat, 1), body, readElements, func() {}); err != nil || !reflect.DeepEqual(pieces, whole) {
		t.Errorf("two long lists: %v, or not what it is in one", err)
	}
}

// Every answer of every version is the same bytes in pieces as it is in one, however
// many elements it has.
func TestAnswersInPiecesAreTheSame(t *testing.T) {
	t.Parallel()
	lengths := []int{10, pieceElements - 1, pieceElements, pieceElements + 1, 2*pieceElements + 50}
	filled := 20 // the others are empty
	if !testing.Short() {
		lengths, filled = append(lengths, 20_000), 300
	}
	for key := range layouts {
		if key == kmsg.Produce || key == kmsg.Fetch || key == kmsg.ApiVersions {
			continue // encoded in their own ways, or never with a turn
		}
		t.Run(key.Name(), func(t *testing.T) {
			for version := range kmsg.RequestForKey(int16(key)).MaxVersion() + 1 {
				for seed, n := range lengths {
					f := protocoltest.NewFiller(uint64(seed))
					resp := kmsg.ResponseForKey(int16(key))
					f.Fill(reflect.ValueOf(resp).Elem())
					list := longestList(resp)
					if !list.IsValid() {
						return
					}
					f.Most = 1
					all := reflect.MakeSlice(list.Type(), n, n)
					for i := range min(n, filled) {
						f.Fill(all.Index(i))
					}
					list.Set(all)
					resp.SetVersion(version)
					want := resp.AppendTo([]byte("head"))
					steps := 0
					pieces := encodeInPieces([]byte("head"), resp, longestList(resp), func() { steps++ })
					if steps != n && steps != 0 { // 0: it has no such list in this version
						t.Errorf("version %d, %d elements: %d steps", version, n, steps)
					}
					if got := bytes.Join(pieces, nil); !bytes.Equal(got, want) {
						t.Fatalf("version %d, %d elements: %d bytes in %d pieces, %d in one", version, n, len(got), len(pieces), len(want))
					}
					for _, p := range pieces {
						if len(p) > pieceBytes {
							t.Errorf("version %d, %d elements: a piece of %d bytes", version, n, len(p))
						}
					}
				}
			}
		})
	}
}
