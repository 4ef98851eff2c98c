package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

// A need is what of a cluster a command cannot do without, besides a majority.
type need struct {
	topics []string // none: all, of those that wanted takes
	wanted wanter   // nil: no partition
	group  string   // "": no coordinator
}

// A wanter says which partitions are needed.
type wanter interface {
	wants(topic string, partition int32) bool
}

// anyPartition wants all.
type anyPartition struct{}

func (anyPartition) wants(string, int32) bool { return true }

// These partitions are wanted, by topic.
type thesePartitions map[string][]int32

func (p thesePartitions) wants(topic string, partition int32) bool {
	return slices.Contains(p[topic], partition)
}

// An outage is what keeps a cluster from doing what it was asked, as its brokers tell it.
type outage struct {
	unreached  error        // why no broker answers at all, nil if one does
	leaderless []string     // partitions that are needed and have no leader: TOPIC/PARTITION
	group      string       // the group that has no coordinator, ""
	brokers    int          // that are registered
	away       []registered // those of them that do not answer, by id
	headless   bool         // no controller leads, as all say that answer
}

// A missing is what one broker says of a need: what of it has no leader.
type missing struct {
	partitions  []string // TOPIC/PARTITION
	coordinator bool
}

// askOne asks one broker what of a need has no leader; a need for a coordinator has wanted
// partitions as well. An error means that the broker does not answer.
func (n need) askOne(ctx context.Context, b *kgo.Broker) (m missing, err error) {
	if n.wanted != nil {
		ctx, cancel := context.WithTimeout(ctx, viewTimeout)
		defer cancel()
		req := kmsg.NewPtrMetadataRequest() // without topics it is for all of them
		for _, name := range n.topics {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = kmsg.StringPtr(name)
			req.Topics = append(req.Topics, t)
		}
		resp, err := b.Request(ctx, req)
		if err != nil {
			return missing{}, err
		}
		for _, t := range resp.(*kmsg.MetadataResponse).Topics {
			if t.Topic == nil || t.IsInternal && len(n.topics) == 0 {
				continue
			}
			for _, p := range t.Partitions {
				if p.Leader < 0 && n.wanted.wants(*t.Topic, p.Partition) {
					m.partitions = append(m.partitions, fmt.Sprintf("%s/%d", *t.Topic, p.Partition))
				}
			}
		}
		slices.SortFunc(m.partitions, byPartition)
	}
	if n.group != "" {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey, req.CoordinatorKeys = n.group, []string{n.group}
		one, cancel := context.WithTimeout(ctx, viewTimeout)
		defer cancel()
		resp, err := b.Request(one, req)
		if err != nil {
			// It has just answered: it looks for a coordinator, or wants to make the topic of
			// committed offsets, and cannot.
			m.coordinator = true
			return m, nil
		}
		found := resp.(*kmsg.FindCoordinatorResponse)
		code := found.ErrorCode
		for _, c := range found.Coordinators {
			code = c.ErrorCode
		}
		m.coordinator = errors.Is(kerr.ErrorForCode(code), kerr.CoordinatorNotAvailable)
	}
	return m, nil
}

// byPartition orders TOPIC/PARTITION by the topic and then by the number.
func byPartition(a, b string) int {
	i, j := strings.LastIndexByte(a, '/'), strings.LastIndexByte(b, '/')
	return cmp.Or(cmp.Compare(a[:i], b[:j]), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// standstill tells, from a question or two to one broker, whether something that is needed
// has no leader: what a command may ask now and then that has no reason yet to complain.
//
// All are asked at once, since some may hang, and the first answer counts.
func (n need) standstill(ctx context.Context, client *kgo.Client) bool {
	type answer struct {
		missing
		err error
	}
	brokers := append(client.DiscoveredBrokers(), client.SeedBrokers()...)
	answers := make(chan answer, len(brokers))
	for _, b := range brokers {
		go func() { // ends with the answer, which has a limit
			m, err := n.askOne(ctx, b)
			answers <- answer{m, err}
		}()
	}
	for range brokers {
		if a := <-answers; a.err == nil {
			return len(a.partitions) > 0 || a.coordinator
		}
	}
	return false
}

// outageTimeout bounds how long is asked what is wrong.
const outageTimeout = 8 * time.Second

// findOutage asks all brokers of a cluster what is wrong with it: which of them do not
// answer, and what is needed and has no leader, as all say that do. It is done by clients
// of its own, since those of who waits are busy trying again.
func findOutage(ctx context.Context, named []string, n need) *outage {
	ctx, cancel := context.WithTimeout(ctx, outageTimeout)
	defer cancel()
	client, err := kafka.DialBrokers(ctx, named)
	if err != nil {
		return &outage{unreached: err}
	}
	defer client.Close()
	first := client.SeedBrokers()[0] // which has answered
	all := registeredBrokers(ctx, first)
	if resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, first); len(all) == 0 && err == nil {
		for _, b := range resp.Brokers { // of a cluster that does not tell all of them
			all = append(all, registered{node: b.NodeID, address: net.JoinHostPort(b.Host, fmt.Sprint(b.Port))})
		}
	}
	o := &outage{brokers: len(all)}
	var asked sync.WaitGroup
	var mu sync.Mutex
	told, led := false, false
	var said []missing
	for _, b := range all {
		asked.Go(func() { // ends with the answers, each of which has a limit
			m, leader, tells, err := n.askAt(ctx, b.address)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				o.away = append(o.away, b)
				return
			}
			said = append(said, m)
			told, led = told || tells, led || tells && leader >= 0
		})
	}
	asked.Wait()
	o.headless = told && !led
	slices.SortFunc(o.away, func(a, b registered) int { return cmp.Compare(a.node, b.node) })
	for i, m := range said {
		if i == 0 {
			o.leaderless, o.group = m.partitions, n.group
		}
		o.leaderless = slices.DeleteFunc(o.leaderless, func(p string) bool { return !slices.Contains(m.partitions, p) })
		if !m.coordinator {
			o.group = ""
		}
	}
	return o
}

// askAt asks the broker at an address what of a need has no leader, and who leads the
// controllers, as controllerLeader does. An error means that it does not answer.
func (n need) askAt(ctx context.Context, address string) (m missing, leader int32, tells bool, err error) {
	client, err := soleClient(ctx, address)
	if err != nil {
		return missing{}, -1, false, err
	}
	defer client.Close()
	b := client.SeedBrokers()[0]
	one, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	if _, err := b.Request(one, kmsg.NewPtrApiVersionsRequest()); err != nil {
		return missing{}, -1, false, err
	}
	if m, err = n.askOne(ctx, b); err != nil {
		return missing{}, -1, false, err
	}
	one, cancel = context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	leader, tells = controllerLeader(one, b)
	return m, leader, tells, nil
}

// majority reports whether more than half of the brokers answer.
func (o *outage) majority() bool { return o.brokers == 0 || o.brokers > 2*len(o.away) }

// found reports whether anything is wrong.
func (o *outage) found() bool {
	return len(o.leaderless) > 0 || o.group != "" || len(o.away) > 0 || o.headless
}

// String is a sentence, of what has no leader, why, and what to do; "" if nothing is wrong.
func (o *outage) String() string {
	switch {
	case o.unreached != nil:
		return term.OneLine(o.unreached)
	case !o.found():
		return ""
	}
	var without []string
	switch n := len(o.leaderless); {
	case n == 1:
		without = append(without, o.leaderless[0]+" has no leader")
	case n > 1:
		without = append(without, term.Some(o.leaderless)+" have no leader")
	}
	if o.group != "" {
		without = append(without, fmt.Sprintf("group %q has no coordinator", o.group))
	}
	parts := []string{strings.Join(without, ", and ")}
	switch {
	case o.majority():
	case parts[0] == "":
		parts = append(parts, "no majority")
	default:
		parts[0] += " for want of a majority"
	}
	next := "see `millrace cluster health`"
	switch n := len(o.away); {
	case n == 1:
		parts = append(parts, fmt.Sprintf("broker %d at %s does not answer, one of %d", o.away[0].node, o.away[0].address, o.brokers))
		next = "start it, or " + next
	case n > 1:
		names := make([]string, n)
		for i, b := range o.away {
			names[i] = fmt.Sprintf("%d at %s", b.node, b.address)
		}
		parts = append(parts, fmt.Sprintf("brokers %s do not answer, %d of %d", term.Some(names), n, o.brokers))
		next = "start them, or " + next
	case o.headless:
		parts = append(parts, "the controllers have no leader")
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ") + "; " + next
}

// whyNot is the error of a command that asks a cluster, in words of ours: where a library
// only says that it got no answer, or a broker that there is no leader, the cluster is asked
// what is wrong, and that is said in its place.
func whyNot(c *urfave.Context, err error) error {
	if err == nil || !wanting(err) {
		return err
	}
	cause := ""
	if brokers, named := kafka.BrokersNamed(c); named == nil && c.Context.Err() == nil {
		cause = findOutage(c.Context, brokers, needOf(err)).String()
	}
	return term.Explain(err, "%s", inOurWords(err, cause))
}

// notMade is the error of who wrote to a topic that was missing, and that the cluster would
// have made: where it could not, for want of a majority, the topic is not what is wrong.
func notMade(c *urfave.Context, topic string, err error) error {
	brokers, named := kafka.BrokersNamed(c)
	if term.StatusOf(err) != term.StatusNotFound || named != nil {
		return err
	}
	o := findOutage(c.Context, brokers, need{})
	if o.unreached == nil && o.majority() && !o.headless {
		return err
	}
	return term.Fail(term.StatusFailed, "topic %q does not exist and cannot be created now: %s", topic, o)
}

// needing is an error of something that could not be had for want of a need.
type needing struct {
	error
	need need
}

func (n *needing) Unwrap() error { return n.error }

// needOf is what a command that failed could not do without, as far as the error tells:
// the partitions whose leaders it asked in vain.
func needOf(err error) need {
	var n *needing
	if errors.As(err, &n) {
		return n.need
	}
	asked := make(map[string][]int32)
	var shards *kadm.ShardErrors
	if errors.As(err, &shards) {
		for _, s := range shards.Errs {
			switch r := s.Req.(type) {
			case *kmsg.ListOffsetsRequest:
				for _, t := range r.Topics {
					for _, p := range t.Partitions {
						asked[t.Topic] = append(asked[t.Topic], p.Partition)
					}
				}
			case *kmsg.DeleteRecordsRequest:
				for _, t := range r.Topics {
					for _, p := range t.Partitions {
						asked[t.Topic] = append(asked[t.Topic], p.Partition)
					}
				}
			}
		}
	}
	if len(asked) == 0 {
		return need{}
	}
	return need{topics: slices.Collect(maps.Keys(asked)), wanted: thesePartitions(asked)}
}

// ofTopics is the need of who reads or writes any partition of some topics.
func ofTopics(topics ...string) need {
	return need{topics: topics, wanted: anyPartition{}}
}

// wanting reports whether an error may come from brokers that do not answer, or from
// partitions, groups or controllers that nobody leads.
func wanting(err error) bool {
	var f *term.Failure
	if errors.As(err, &f) && f.Status == term.StatusNotFound {
		return false
	}
	var code *kerr.Error
	if !errors.As(err, &code) {
		var timeout net.Error
		return errors.Is(err, term.ErrnoRefused) || kgo.IsRetryableBrokerErr(err) || errors.Is(err, kgo.ErrRecordTimeout) ||
			errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout)
	}
	return slices.Contains(nobodyThere, error(code)) || slices.Contains([]error{
		kerr.RequestTimedOut, kerr.NetworkException, kerr.ReplicaNotAvailable, kerr.CoordinatorLoadInProgress,
		kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend,
	}, error(code))
}

// nobodyThere are the codes that only say that somebody is missing; who, an outage says.
var nobodyThere = []error{
	kerr.LeaderNotAvailable, kerr.NotLeaderForPartition, kerr.BrokerNotAvailable,
	kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.NotController,
}

// inOurWords puts a cause in the place of what a library says in an error, behind what
// the error is about; where a broker said something of its own, behind that. Without a
// cause it is the library's reason, as short as it can be said.
func inOurWords(err error, cause string) string {
	text := term.OneLine(err)
	for e := err; e != nil; e = within(e) {
		if !outsider(e) {
			continue
		}
		for _, said := range []string{e.Error(), kafka.BrokerSaid(e, "")} {
			about, ok := strings.CutSuffix(text, said)
			if !ok {
				continue
			}
			about = strings.TrimSuffix(about, "unable to dial: ") // the client's own
			switch code, answered := e.(*kerr.Error); {
			case cause == "":
				return about + kafka.BrokerSaid(e, "")
			case answered && !slices.Contains(nobodyThere, error(code)):
				return about + kafka.BrokerSaid(e, "") + "; " + cause
			}
			return about + cause
		}
	}
	if cause == "" {
		return text
	}
	return strings.TrimSuffix(strings.TrimSuffix(text, kafka.HealthSays), ".") + "; " + cause
}

// outsider reports whether an error's text is of somebody who knows nothing of what was
// asked: the system, the client library, or the protocol.
func outsider(err error) bool {
	switch err.(type) {
	case *kadm.ShardErrors, *net.OpError, *kerr.Error:
		return true
	}
	return within(err) == nil
}

// within is the error that another wraps, the first if there are several; nil if none.
func within(err error) error {
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return e.Unwrap()
	case interface{ Unwrap() []error }:
		if all := e.Unwrap(); len(all) > 0 {
			return all[0]
		}
	}
	return nil
}

// A vigil says on standard error what a command waits for, when for some seconds nothing
// comes of it, and again every ten while that lasts. Where all is well it says nothing.
type vigil struct {
	awaited

	mu   sync.Mutex
	last string // what was said last, "" after anything has come
}

// An awaited thing is what a vigil is kept over, from a goroutine of its own.
type awaited interface {
	progress() (waits bool, done int64) // done grows with whatever comes
	look(context.Context) string        // what is wrong, "" for nothing
	say(why string)
}

const (
	vigilPatience = 5 * time.Second  // before the first word
	vigilPause    = 10 * time.Second // before the next
)

// keep is the vigil's goroutine: it ends with ctx.
func (v *vigil) keep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	_, before := v.progress()
	due := time.Now().Add(vigilPatience)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		waits, done := v.progress()
		if !waits || done != before {
			before, due = done, time.Now().Add(vigilPatience)
			v.remember("")
			continue
		}
		if time.Now().Before(due) {
			continue
		}
		why := v.look(ctx)
		if _, done := v.progress(); done == before && ctx.Err() == nil {
			if v.remember(why); why != "" {
				v.say(why)
			}
		}
		due = time.Now().Add(vigilPause)
	}
}

// settle is kafka.Settle for a command at a terminal, which is told meanwhile what is wrong.
func (v *vigil) settle(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go v.keep(ctx)
	return kafka.Settle(ctx, f)
}

// vigilOver is the vigil of a question to a cluster, of which nothing comes but the answer.
func vigilOver(c *urfave.Context) *vigil {
	return &vigil{awaited: awaitedAnswer{c}}
}

// An awaitedAnswer is one of a whole cluster.
type awaitedAnswer struct{ c *urfave.Context }

func (a awaitedAnswer) progress() (waits bool, done int64) { return true, 0 }

func (a awaitedAnswer) look(ctx context.Context) string {
	brokers, err := kafka.BrokersNamed(a.c)
	if err != nil {
		return ""
	}
	return findOutage(ctx, brokers, need{}).String()
}

func (a awaitedAnswer) say(why string) {
	fmt.Fprintf(a.c.App.ErrWriter, "millrace: waiting: %s\n", why)
}

func (v *vigil) remember(why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = why
}

// because is what the vigil has found, as the end of a sentence.
func (v *vigil) because() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.last == "" {
		return ""
	}
	return ": " + v.last
}
