package cli

import (
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A laggard is a cluster whose last broker hears of a change later than the others: it has to
// be asked a few times until then.
type laggard struct {
	*kfake.Cluster
	keys []kmsg.ApiVersionsResponseApiKey

	mu      sync.Mutex
	missing bool  // the last broker does not know the topic
	change  int64 // the number of the last change
	asked   int   // how often the last broker was asked about that change
	told    int64 // what it said last
}

// held is how often the last broker has not heard of a change yet.
const held = 3

func newLaggard(t *testing.T, options ...kfake.Opt) *laggard {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(1, "there")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	l := &laggard{Cluster: cluster, change: 1}
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	all, err := kmsg.NewPtrApiVersionsRequest().RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	l.keys = all.ApiKeys
	cluster.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		l.mu.Lock()
		defer l.mu.Unlock()
		last := cluster.CurrentNode() == 2
		switch req := r.(type) {
		case *kmsg.ApiVersionsRequest:
			resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
			resp.ApiKeys, resp.FinalizedFeaturesEpoch = l.keys, l.change
			if last && l.change > 1 && req.ClientSoftwareName == "kadm" { // not of a connection that begins
				if l.asked++; l.asked <= held {
					resp.FinalizedFeaturesEpoch = 1
				}
				l.told = resp.FinalizedFeaturesEpoch
			}
			return resp, nil, true
		case *kmsg.MetadataRequest:
			// Whoever is asked may be the one that has not heard of it: let it be everybody.
			if l.missing && l.asked <= held {
				resp := req.ResponseKind().(*kmsg.MetadataResponse)
				for i, address := range cluster.ListenAddrs() {
					b := kmsg.NewMetadataResponseBroker()
					b.NodeID = int32(i)
					host, port, _ := net.SplitHostPort(address)
					n, _ := strconv.Atoi(port)
					b.Host, b.Port = host, int32(n)
					resp.Brokers = append(resp.Brokers, b)
				}
				for _, asked := range req.Topics {
					missing := kmsg.NewMetadataResponseTopic()
					missing.Topic, missing.ErrorCode = asked.Topic, 3
					resp.Topics = append(resp.Topics, missing)
				}
				return resp, nil, true
			}
		case *kmsg.CreateTopicsRequest, *kmsg.DeleteTopicsRequest, *kmsg.CreatePartitionsRequest:
			l.change = 2
		case *kmsg.IncrementalAlterConfigsRequest:
			if !req.ValidateOnly {
				l.change = 2
			}
		}
		return nil, nil, false
	})
	return l
}

// A command that changes what all brokers know ends when all of them know it: the next one
// may ask another broker.
func TestAChangeIsKnownToEveryBrokerWhenItsCommandEnds(t *testing.T) {
	for _, line := range []string{
		"topic create new", "topic alter there -p 2", "topic alter there -c max.message.bytes=2000000", "topic delete there --yes",
		"topic list", "topic describe there", "topic alter there -c max.message.bytes=2000000 --dry-run",
	} {
		t.Run(line, func(t *testing.T) {
			l := newLaggard(t)
			r := runInProcess(t, append(strings.Fields(line), "-b", strings.Join(l.ListenAddrs(), ","))...)
			if r.Status != term.StatusDone || r.Stderr != "" && !strings.HasPrefix(r.Stderr, "1 partition") {
				t.Fatalf("status %d, %q", r.Status, r.Stderr)
			}
			switch {
			case l.change == 1 && l.asked != 0:
				t.Errorf("nothing was changed, and a broker was asked %d times whether it knows", l.asked)
			case l.change == 2 && (l.asked <= held || l.told != 2):
				t.Errorf("it ended when a broker had been asked %d times and still knew only change %d, not 2", l.asked, l.told)
			}
		})
	}
}

// What another client has just created is there, also where a broker is asked that has not
// heard of it; and who writes to it has not created it.
func TestATopicThatABrokerHasNotHeardOfIsThere(t *testing.T) {
	for _, line := range []string{"topic describe there -o json", "produce there hello", "consume there -e"} {
		t.Run(line, func(t *testing.T) {
			l := newLaggard(t)
			l.change, l.missing = 2, true
			r := runInProcess(t, append(strings.Fields(line), "-b", strings.Join(l.ListenAddrs(), ","))...)
			if r.Status != term.StatusDone || strings.Contains(r.Stderr, "created") {
				t.Errorf("status %d, %q", r.Status, r.Stderr)
			}
			if l.asked <= held {
				t.Errorf("it went on when the broker that knew nothing had been asked %d times", l.asked)
			}
		})
	}
}
