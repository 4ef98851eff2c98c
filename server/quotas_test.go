package server

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/mux"
	"millrace/server/protocol"
)

// quotaEntry is an entry of AlterClientQuotas of words: "user=alice client-id=
// producer_byte_rate:5 request_percentage:-", where a name of nothing is the default and a
// value of "-" is taken out.
func quotaEntry(words string) kmsg.AlterClientQuotasRequestEntry {
	e := kmsg.NewAlterClientQuotasRequestEntry()
	for _, word := range strings.Fields(words) {
		if key, value, ok := strings.Cut(word, ":"); ok && !strings.Contains(key, "=") {
			op := kmsg.AlterClientQuotasRequestEntryOp{Key: key, Remove: value == "-"}
			if !op.Remove {
				fmt.Sscan(value, &op.Value)
			}
			e.Ops = append(e.Ops, op)
			continue
		}
		kind, name, _ := strings.Cut(word, "=")
		part := kmsg.AlterClientQuotasRequestEntryEntity{Type: kind, Name: &name}
		if name == "" {
			part.Name = nil
		}
		e.Entity = append(e.Entity, part)
	}
	return e
}

// setQuotas changes quotas, and returns what was answered to each entry.
func (w *wire) setQuotas(validateOnly bool, entries ...kmsg.AlterClientQuotasRequestEntry) (answers []string) {
	w.t.Helper()
	req := kmsg.NewPtrAlterClientQuotasRequest()
	req.SetVersion(1)
	req.Entries, req.ValidateOnly = entries, validateOnly
	for _, e := range ask[*kmsg.AlterClientQuotasResponse](w, req).Entries {
		answers = append(answers, answerOf(e.ErrorCode, e.ErrorMessage))
	}
	return answers
}

// quotaFilter asks for quotas of words: "user=alice" by name, "client-id=" the default,
// "ip" any, "strict".
func quotaFilter(words string) *kmsg.DescribeClientQuotasRequest {
	req := kmsg.NewPtrDescribeClientQuotasRequest()
	req.SetVersion(1)
	for _, word := range strings.Fields(words) {
		if word == "strict" {
			req.Strict = true
			continue
		}
		kind, name, named := strings.Cut(word, "=")
		c := kmsg.DescribeClientQuotasRequestComponent{EntityType: kind, MatchType: kmsg.QuotasMatchTypeAny}
		if named && name == "" {
			c.MatchType = kmsg.QuotasMatchTypeDefault
		} else if named {
			c.MatchType, c.Match = kmsg.QuotasMatchTypeExact, &name
		}
		req.Components = append(req.Components, c)
	}
	return req
}

func (w *wire) quotas(filter string) (found []string) {
	w.t.Helper()
	resp := ask[*kmsg.DescribeClientQuotasResponse](w, quotaFilter(filter))
	if resp.ErrorCode != 0 {
		return []string{answerOf(resp.ErrorCode, resp.ErrorMessage)}
	}
	for _, e := range resp.Entries {
		var words []string
		for _, p := range e.Entity {
			name := ""
			if p.Name != nil {
				name = *p.Name
			}
			words = append(words, p.Type+"="+name)
		}
		for _, v := range e.Values {
			words = append(words, fmt.Sprint(v.Key, ":", v.Value))
		}
		found = append(found, strings.Join(words, " "))
	}
	return found
}

// KIP-546: quotas are set, shown by every filter, and taken out.
func TestQuotasAreSetAndShown(t *testing.T) {
	w := startBroker(t, nil).dial()
	all := []string{
		"ip= connection_creation_rate:7",
		"ip=10.0.0.1 connection_creation_rate:5",
		"client-id= consumer_byte_rate:3",
		"client-id=app producer_byte_rate:2",
		"user= request_percentage:12.5",
		"user=alice controller_mutation_rate:0.5 producer_byte_rate:1",
		"user=alice client-id= producer_byte_rate:4",
		"user=alice client-id=app producer_byte_rate:6",
	}
	var entries []kmsg.AlterClientQuotasRequestEntry
	for _, words := range all {
		entries = append(entries, quotaEntry(words))
	}
	fine := make([]string, len(all))
	if got := w.setQuotas(true, entries...); !slices.Equal(got, fine) {
		t.Errorf("validate only: %q", got)
	}
	if got := w.quotas(""); len(got) != 0 {
		t.Errorf("after validate only there is %q", got)
	}
	if got := w.setQuotas(false, entries...); !slices.Equal(got, fine) {
		t.Errorf("set: %q", got)
	}
	for filter, want := range map[string][]string{
		"":                            all,
		"ip":                          all[:2],
		"ip=":                         all[:1],
		"ip=10.0.0.1":                 all[1:2],
		"client-id":                   {all[2], all[3], all[6], all[7]},
		"client-id strict":            all[2:4],
		"client-id=":                  {all[2], all[6]},
		"client-id= strict":           all[2:3],
		"user":                        all[4:],
		"user strict":                 all[4:6],
		"user=alice":                  all[5:],
		"user=alice strict":           all[5:6],
		"user=alice client-id":        all[6:],
		"user=alice client-id=app":    all[7:],
		"user= strict":                all[4:5],
		"user=bob":                    nil,
		"strict":                      nil,
		"user user":                   {"42 Entity type user cannot appear more than once in the filter."},
		"ip user":                     {"42 Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component."},
		"group":                       {"35 Unsupported entity type group"},
		"user=alice client-id strict": all[6:],
	} {
		if got := w.quotas(filter); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", filter, got, want)
		}
	}
	odd := quotaFilter("user")
	odd.Components[0].MatchType = 7
	if got := ask[*kmsg.DescribeClientQuotasResponse](w, odd); got.ErrorCode != int16(protocol.InvalidRequest) {
		t.Errorf("a match type of 7: %+v", got)
	}

	if got := w.setQuotas(false, quotaEntry("user=alice producer_byte_rate:- consumer_byte_rate:9"), quotaEntry("user= request_percentage:-")); !slices.Equal(got, []string{"", ""}) {
		t.Errorf("taken out: %q", got)
	}
	if got, want := w.quotas("user strict"), []string{"user=alice consumer_byte_rate:9 controller_mutation_rate:0.5"}; !slices.Equal(got, want) {
		t.Errorf("then there is %q, want %q", got, want)
	}
}

// What means nothing is refused by itself, in the words of ClientQuotaControlManager.
func TestQuotasThatMeanNothing(t *testing.T) {
	w := startBroker(t, nil).dial()
	empty, twice, notANumber := quotaEntry("user=a"), quotaEntry("user=a producer_byte_rate:1"), quotaEntry("user=a request_percentage:1")
	none := ""
	empty.Entity[0].Name = &none
	twice.Ops = append(twice.Ops, twice.Ops[0])
	notANumber.Ops[0].Value = math.NaN()
	for _, bad := range []struct {
		entry  kmsg.AlterClientQuotasRequestEntry
		answer string
	}{
		{quotaEntry("producer_byte_rate:1"), "42 Invalid empty client quota entity"},
		{quotaEntry("group=g producer_byte_rate:1"), "42 Unhandled client quota entity type: group"},
		{quotaEntry("user=a user=b producer_byte_rate:1"), "42 Invalid client quota entity, duplicate entity entry user"},
		{quotaEntry("user=a ip=10.0.0.1 producer_byte_rate:1"), "42 Invalid quota entity combination, IP entity should not be combined with User or ClientId"},
		{quotaEntry("ip=nowhere connection_creation_rate:1"), "42 nowhere is not a valid IP."},
		{quotaEntry("ip=10.0.0.1 producer_byte_rate:1"), "42 Invalid configuration key producer_byte_rate"},
		{quotaEntry("user=a connection_creation_rate:1"), "42 Invalid configuration key connection_creation_rate"},
		{quotaEntry("user=a producer_byte_rate:0"), "42 Quota producer_byte_rate must be greater than 0"},
		{quotaEntry("user=a producer_byte_rate:1.5"), "42 producer_byte_rate cannot be a fractional value."},
		{quotaEntry("ip=10.0.0.1 connection_creation_rate:3e9"), "42 Proposed value for connection_creation_rate is too large for a INT."},
		{empty, "42 Empty user not supported"},
		{twice, "42 Duplicate quota key producer_byte_rate not updating quota for this entity user-principal 'a'"},
		{notANumber, "42 Quota request_percentage must be greater than 0"},
	} {
		good := quotaEntry("user=good producer_byte_rate:5")
		if got := w.setQuotas(false, bad.entry, good); !slices.Equal(got, []string{bad.answer, ""}) {
			t.Errorf("%q, want %q", got, bad.answer)
		}
	}
	if got := w.setQuotas(false, quotaEntry("user=b producer_byte_rate:1"), quotaEntry("user=b producer_byte_rate:2")); len(got) != 2 || got[0] != "" || !strings.HasPrefix(got[1], "42 Ignoring duplicate entity") {
		t.Errorf("twice: %q", got)
	}
	if got, want := w.quotas(""), []string{"user=b producer_byte_rate:1", "user=good producer_byte_rate:5"}; !slices.Equal(got, want) {
		t.Errorf("then there is %q, want %q", got, want)
	}
}

// as sends a request under a client id.
func (w *wire) as(client string, req kmsg.Request) kmsg.Response {
	w.t.Helper()
	w.next++
	w.write(kmsg.NewRequestFormatter(kmsg.FormatterClientID(client)).AppendRequest(nil, req, w.next))
	return w.receive(req, w.next)
}

// KIP-219: who goes beyond its quota is answered at once, told how long to wait, and not
// read from for as long; others go on meanwhile.
func TestAProducerBeyondItsQuotaIsMuted(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w, other := b.dial(), b.dial()
	if got := w.setQuotas(false, quotaEntry("client-id=fast producer_byte_rate:20000")); got[0] != "" {
		t.Fatal(got)
	}
	batch := batchOf(t, record.None, nil, strings.Repeat("x", 12_000))
	told, began := time.Duration(0), time.Now()
	for range 3 {
		// The first is answered though it is beyond half a window's worth, and so are all.
		resp := w.as("fast", produceRequest(9, "t", id, batch)).(*kmsg.ProduceResponse)
		if p := producedPartition(t, resp); p.ErrorCode != 0 || resp.ThrottleMillis <= 0 {
			t.Fatalf("error %d, told to wait %d ms", p.ErrorCode, resp.ThrottleMillis)
		}
		told += time.Duration(resp.ThrottleMillis) * time.Millisecond
		if got := other.as("slow", produceRequest(9, "t", id, batch)).(*kmsg.ProduceResponse); got.ThrottleMillis != 0 {
			t.Errorf("another client is told to wait %d ms", got.ThrottleMillis)
		}
	}
	w.as("fast", metadataRequest(9))
	if took := time.Since(began); took < told-50*time.Millisecond {
		t.Errorf("read from again after %v, told to wait %v in all", took, told)
	}
	// What went in is the rate over the time that it took, and the burst.
	if most := 3*float64(len(batch)+100) - 20_000*told.Seconds(); most > 10_000+1000 {
		t.Errorf("%.0f bytes at once", most)
	}
}

// A consumer that owes something gets nothing, in a session or without, until it has waited.
func TestAConsumerBeyondItsQuotaGetsNothing(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	for range 4 {
		ask[*kmsg.ProduceResponse](w, produceRequest(9, "t", id, batchOf(t, record.None, nil, strings.Repeat("x", 20_000))))
	}
	w.setQuotas(false, quotaEntry("client-id= consumer_byte_rate:10000"))
	second := b.dial()
	first := w.as("c", fetchRequest(12, "t", id, 0, 0)).(*kmsg.FetchResponse)
	if p := fetchedPartition(t, first); len(p.RecordBatches) < 20_000 || len(p.RecordBatches) > 21_000 || first.ThrottleMillis < 1000 {
		t.Fatalf("%d bytes, told to wait %d ms; one batch is more than the quota has at once", len(p.RecordBatches), first.ThrottleMillis)
	}
	began := time.Now()
	resp := second.as("c", fetchRequest(12, "t", id, 0, 0)).(*kmsg.FetchResponse)
	if len(resp.Topics) != 0 || resp.ErrorCode != 0 || resp.SessionID != 0 || resp.ThrottleMillis <= 0 {
		t.Errorf("by another connection: %d topics, session %d, told to wait %d ms", len(resp.Topics), resp.SessionID, resp.ThrottleMillis)
	}
	again := second.as("c", fetchRequest(12, "t", id, 0, 0)).(*kmsg.FetchResponse)
	if took := time.Since(began); len(fetchedPartition(t, again).RecordBatches) == 0 || took < time.Duration(resp.ThrottleMillis)*time.Millisecond-50*time.Millisecond {
		t.Errorf("after %v of %d ms: %d topics", took, resp.ThrottleMillis, len(again.Topics))
	}
	// The session of the first goes on, whatever it is told.
	req := fetchRequest(12, "t", id, 0)
	req.SessionID, req.SessionEpoch = first.SessionID, 1
	if got := w.as("c", req).(*kmsg.FetchResponse); got.ErrorCode != 0 || got.ThrottleMillis <= 0 || len(got.Topics) != 0 {
		t.Errorf("in a session: error %d, %d topics, told to wait %d ms", got.ErrorCode, len(got.Topics), got.ThrottleMillis)
	}
	req.SessionEpoch = 2
	if got := w.as("c", req).(*kmsg.FetchResponse); got.ErrorCode != 0 || len(got.Topics) != 1 {
		t.Errorf("then: error %d, %d topics", got.ErrorCode, len(got.Topics))
	}
}

// KIP-599: who created more partitions than the quota allows is refused more, and in the
// versions before that waits.
func TestMutationsBeyondTheQuota(t *testing.T) {
	b := startBroker(t, map[string]string{"controller.quota.window.num": "1"})
	w, setter := b.dial(), b.dial()
	setter.setQuotas(false, quotaEntry("client-id=admin controller_mutation_rate:4"))
	resp := w.as("admin", createRequest(6, newTopic("a", 6, 1), newTopic("b", 1, 1))).(*kmsg.CreateTopicsResponse)
	if a, second := resp.Topics[0], resp.Topics[1]; a.ErrorCode != 0 || second.ErrorCode != int16(protocol.ThrottlingQuotaExceeded) || resp.ThrottleMillis <= 0 {
		t.Errorf("%d, %d, told to wait %d ms", a.ErrorCode, second.ErrorCode, resp.ThrottleMillis)
	}
	if _, ok := b.node.Image().Topic("b"); ok {
		t.Error("what was refused is there")
	}
	old := w.as("admin", createRequest(5, newTopic("c", 9, 1), newTopic("d", 1, 1))).(*kmsg.CreateTopicsResponse)
	if old.Topics[0].ErrorCode != 0 || old.Topics[1].ErrorCode != 0 || old.ThrottleMillis <= 0 {
		t.Errorf("version 5: %+v", old)
	}
}

// A connection that is muted holds nobody up who ends the server.
func TestShutdownDoesNotWaitForTheMuted(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	w.setQuotas(false, quotaEntry("client-id=fast producer_byte_rate:1"))
	resp := w.as("fast", produceRequest(9, "t", id, batchOf(t, record.None, nil, strings.Repeat("x", 10_000)))).(*kmsg.ProduceResponse)
	if resp.ThrottleMillis != 300_000 {
		t.Errorf("told to wait %d ms", resp.ThrottleMillis)
	}
	w.conn.Close()
	if err := b.server.Shutdown(testContext(t)); err != nil {
		t.Error(err)
	}
}

// Time is counted for who has a quota of it, and not that in which it waits for records.
func TestTimeIsCounted(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	w.setQuotas(false, quotaEntry("client-id=busy request_percentage:0.0001"), quotaEntry("client-id=idle request_percentage:50"))
	w.as("busy", metadataRequest(9)) // uses up what it may at once
	if got := w.as("busy", metadataRequest(9)).(*kmsg.MetadataResponse); got.ThrottleMillis != 1000 {
		t.Errorf("told to wait %d ms", got.ThrottleMillis)
	}
	idle := b.dial()
	req := fetchRequest(12, "t", id, 0, 0)
	req.MaxWaitMillis = 600 // more than half a window of 50 %
	for range 2 {
		if got := idle.as("idle", req).(*kmsg.FetchResponse); got.ThrottleMillis != 0 {
			t.Errorf("told to wait %d ms", got.ThrottleMillis)
		}
	}
}

// An address connects as fast as its quota says, or the default; other addresses and other
// nodes are none of its business. The clock stands still, so that nothing drains.
func TestConnectionsComeNoFasterThanTheQuota(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := startBrokerWith(t, nil, func(s *Server) { s.Quotas().Now = func() time.Time { return now } })
	w := b.dial()
	if got := w.setQuotas(false, quotaEntry("ip= connection_creation_rate:100"), quotaEntry("ip=127.0.0.1 connection_creation_rate:2")); !slices.Equal(got, []string{"", ""}) {
		t.Fatal(got)
	}
	for range 2 {
		ask[*kmsg.ApiVersionsResponse](b.dial(), &kmsg.ApiVersionsRequest{})
	}
	b.dial().closed()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range 3 {
		conn, err := dialer.Dial("tcp4", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ask[*kmsg.ApiVersionsResponse](&wire{t: t, conn: conn}, &kmsg.ApiVersionsRequest{})
	}
}

// What mux.Quotas ask for is what settings and quotas say, the more specific first.
func TestLimitsOfAnAddress(t *testing.T) {
	t.Parallel()
	b := startBroker(t, map[string]string{
		"max.connections": "50", "max.connections.per.ip": "0", "max.connection.creation.rate": "30",
		"max.connections.per.ip.overrides": "10.0.0.1:7, [::1]:0,fe80::1:9",
	})
	setter := b.dial() // the only one that its address may have
	for _, quotas := range []string{"ip= connection_creation_rate:100", "ip=10.0.0.1 connection_creation_rate:2"} {
		if got := setter.setQuotas(false, quotaEntry(quotas)); !slices.Equal(got, []string{""}) {
			t.Fatal(got)
		}
	}
	for address, want := range map[string]mux.Limits{
		"10.0.0.1":     {Connections: 50, PerIP: 7, Rate: 30, RatePerIP: 2},
		"10.0.0.2":     {Connections: 50, PerIP: 1, Rate: 30, RatePerIP: 100},
		"::1":          {Connections: 50, PerIP: 1, Rate: 30, RatePerIP: 100},
		"fe80::1%eth0": {Connections: 50, PerIP: 9, Rate: 30, RatePerIP: 100},
	} {
		if got := (bounds{&b.server.broker}).Limits(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %+v, want %+v", address, got, want)
		}
	}
	open := startBroker(t, nil)
	if got := (bounds{&open.server.broker}).Limits(netip.MustParseAddr("::1")); got.Rate != 0 || got.RatePerIP != 0 {
		t.Errorf("without settings and quotas there are rates: %+v", got)
	}
	w := open.dial()
	for value, why := range map[string]string{
		"localhost:5": "Expected addresses",
		"10.0.0.1":    "Expected a list of ADDRESS:NUMBER",
		"10.0.0.1:-1": "Expected a number of connections",
	} {
		if got := w.alterBroker("max.connections.per.ip.overrides", value); !strings.Contains(got, why) {
			t.Errorf("%s: %q, want %s", value, got, why)
		}
	}
}

// alterBroker sets one of the broker's settings, and returns what was answered.
func (w *wire) alterBroker(name, value string) string {
	w.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.SetVersion(1)
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeBroker, "1"
	rr.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Value: &value}}
	req.Resources = append(req.Resources, rr)
	got := ask[*kmsg.IncrementalAlterConfigsResponse](w, req).Resources[0]
	return answerOf(got.ErrorCode, got.ErrorMessage)
}
