package server

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// kafka41 is what Apache Kafka 4.1 answers to ApiVersions: clients infer
// releases and features from it.
const kafka41 = `
0:(0,13) 1:(4,18) 2:(1,10) 3:(0,13) 8:(2,9) 9:(1,9) 10:(0,6) 11:(0,9) 12:(0,4) 13:(0,5) 14:(0,5) 15:(0,6) 16:(0,5) 17:(0,1)
18:(0,4) 19:(2,7) 20:(1,6) 21:(0,2) 22:(0,5) 23:(2,4) 24:(0,5) 25:(0,4) 26:(0,5) 27:(1,1) 28:(0,5) 29-31:(1,3) 32:(1,4)
33:(0,2) 34:(1,2) 35:(1,4) 36:(0,2) 37:(0,3) 38:(1,3) 39,40:(1,2) 41:(1,3) 42,43:(0,2) 44,45:(0,1) 46,47:(0,0) 48,49:(0,1)
50,51:(0,0) 55,57:(0,2) 60:(0,2) 61:(0,0) 64,65:(0,0) 66:(0,2) 68,69:(0,1) 74:(0,1) 75:(0,0) 76-79:(1,1) 90-92:(0,0)
`

type versions struct{ min, max int16 }

func parseVersions(t *testing.T, line string) map[kmsg.Key]versions {
	all := map[kmsg.Key]versions{}
	number := func(s string) int16 {
		n, err := strconv.ParseInt(s, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		return int16(n)
	}
	for _, m := range regexp.MustCompile(`([\d,-]+):\((\d+),(\d+)\)`).FindAllStringSubmatch(line, -1) {
		v := versions{number(m[2]), number(m[3])}
		for _, keys := range strings.Split(m[1], ",") {
			from, to, ranged := strings.Cut(keys, "-")
			if !ranged {
				to = from
			}
			for k := number(from); k <= number(to); k++ {
				all[kmsg.Key(k)] = v
			}
		}
	}
	if len(all) != 66 {
		t.Fatalf("read %d keys", len(all))
	}
	return all
}

func TestTableIsThatOfKafka41(t *testing.T) {
	want := parseVersions(t, kafka41)
	for _, a := range new(handlers).table() {
		if w, ok := want[a.key]; !ok || w != (versions{a.min, a.max}) {
			t.Errorf("%s: versions %d–%d, Kafka 4.1 has %d–%d", a.key.Name(), a.min, a.max, w.min, w.max)
		}
	}
	var all protocol.Guard
	for key, v := range want {
		all.Serve(key, v.min, v.max) // it panics where there is no layout
	}
}

// librdkafka up to 2.10 switches a feature on when these versions lie
// within the broker's ranges.
func TestLibrdkafkaFindsItsFeatures(t *testing.T) {
	var h handlers
	h.init(new(broker))
	for _, c := range []struct {
		feature string
		key     kmsg.Key
		version int16
	}{
		{"MSGVER2", kmsg.Produce, 3}, {"MSGVER2", kmsg.Fetch, 4},
		{"ZSTD", kmsg.Produce, 7}, {"ZSTD", kmsg.Fetch, 10},
		{"compression", kmsg.Produce, 0},
		{"APIVERSION", kmsg.ApiVersions, 0},
		{"time to offset", kmsg.ListOffsets, 1},
		{"BROKER_GROUP_COORD", kmsg.FindCoordinator, 0},
		{"BROKER_BALANCED_CONSUMER", kmsg.OffsetCommit, 2}, {"BROKER_BALANCED_CONSUMER", kmsg.OffsetFetch, 1},
		{"BROKER_BALANCED_CONSUMER", kmsg.JoinGroup, 0}, {"BROKER_BALANCED_CONSUMER", kmsg.SyncGroup, 0},
		{"BROKER_BALANCED_CONSUMER", kmsg.Heartbeat, 0}, {"BROKER_BALANCED_CONSUMER", kmsg.LeaveGroup, 0},
		{"IDEMPOTENT_PRODUCER", kmsg.InitProducerID, 0},
		{"offset for leader epoch", kmsg.OffsetForLeaderEpoch, 2},
	} {
		a := h.lookup(c.key)
		if a == nil || c.version < a.min || c.version > a.max {
			t.Errorf("%s needs %s version %d", c.feature, c.key.Name(), c.version)
		}
	}
}
