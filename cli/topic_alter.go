package cli

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/server"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func topicAlterCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "alter",
		Usage:        "change a topic's settings, or give it more partitions",
		ArgsUsage:    "TOPIC",
		BashComplete: completeTopics,
		Description: `   Settings that are not named stay as they are. More partitions move keys: records
   of one key may lie in two partitions afterwards, old and new.

   A change that deletes records says how many and asks first, as topic delete does.
   What it deletes goes when file.delete.delay.ms is over, a minute by default: altering
   back until then saves it. How many records compaction would delete it finds out by
   reading the topic, for 10 seconds at most.

EXAMPLES:
   $ millrace topic alter orders -c retention.ms=86400000 -c max.message.bytes=2000000
   $ millrace topic alter orders -c retention.ms=1000 --dry-run
   $ millrace topic alter orders --unset retention.ms
   $ millrace topic alter orders -p 6 --dry-run`,
		Flags: kafka.Flags([]urfave.Flag{
			kafka.ConfigFlag(),
			&urfave.StringSliceFlag{Name: "unset", Usage: "`KEY`: return this setting to its default; may be repeated"},
			&urfave.IntFlag{Name: "partitions", Aliases: []string{"p"}, DefaultText: "unchanged", Usage: "`N`: number of partitions, more than now"},
		}, term.DestructiveFlags()),
		Action: topicAlter,
	}
}

func topicAlter(c *urfave.Context) error {
	topic, err := oneTopic(c)
	if err != nil {
		return err
	}
	set, err := kafka.GivenSettings(c)
	if err != nil {
		return err
	}
	a := alteration{topic: topic}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		value := set[key]
		a.changes = append(a.changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value})
	}
	for _, key := range c.StringSlice("unset") {
		a.changes = append(a.changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: key})
	}
	if c.IsSet("partitions") {
		n := c.Int("partitions")
		a.grow = &n
	}
	if len(a.changes) == 0 && a.grow == nil {
		return term.Usage("topic alter: nothing to change; say -c KEY=VALUE, --unset KEY or -p N")
	}
	if a.brokers, err = kafka.BrokersNamed(c); err != nil {
		return err
	}
	if a.client, err = kafka.DialBrokers(c.Context, a.brokers); err != nil {
		return err
	}
	defer a.client.Close()
	a.admin = kadm.NewClient(a.client)
	a.admin.SetTimeoutMillis(15_000)
	ctx, cancel := context.WithTimeout(c.Context, 30*time.Second)
	defer cancel()
	grown, gone, err := a.foresee(ctx)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		if gone != "" {
			grown += "; it deletes " + gone
		}
		_, err := fmt.Fprintf(c.App.Writer, "could alter topic %s%s\n", topic, grown)
		return err
	}
	if gone != "" {
		if err := term.Confirm(c, fmt.Sprintf("alter topic %s (it deletes %s)", topic, gone)); err != nil {
			return err
		}
	}
	// Asking a person may have taken longer than the time for the request.
	ctx, cancel = context.WithTimeout(c.Context, 30*time.Second)
	defer cancel()
	if err := a.do(ctx); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "altered topic %s%s\n", topic, grown)
	tellWithoutEffect(ctx, c.App.ErrWriter, a.client, topic, slices.Sorted(maps.Keys(set)))
	if wait := a.delay(ctx); gone != "" && wait != "" {
		fmt.Fprintf(c.App.ErrWriter, "millrace: it deletes %s, from %s on; altered back before then, it keeps what is there\n", gone, wait)
	}
	return nil
}

// An alteration of a topic's settings and number of partitions, before it is done.
type alteration struct {
	brokers    []string
	client     *kgo.Client
	admin      *kadm.Client
	topic      string
	changes    []kadm.AlterConfig
	grow       *int // to so many partitions; nil: it keeps those it has
	partitions int  // that it has

	// What the leaders said, by partition.
	answered map[int32]retained
}

// foresee asks about all of the alteration before any of it is done, and says how the
// topic grows and what it loses, "" for nothing.
func (a *alteration) foresee(ctx context.Context) (grown, gone string, err error) {
	before, err := kafka.DescribeTopic(ctx, a.admin, a.topic)
	if err != nil {
		return "", "", err
	}
	a.partitions = len(before.Partitions)
	if err := a.knows(ctx); err != nil {
		return "", "", err
	}
	if len(a.changes) > 0 {
		if err := a.ask(ctx); err != nil {
			return "", "", err
		}
		lost, err := a.consequences(ctx)
		if err != nil {
			return "", "", err
		}
		gone = strings.Join(lost, ", and ")
	}
	if a.grow != nil {
		if err := a.growBy(ctx, a.admin.ValidateUpdatePartitions); err != nil {
			return "", "", err
		}
		grown = fmt.Sprintf(", %s instead of %d", term.Count(*a.grow, "partition"), a.partitions)
	}
	return grown, gone, nil
}

// do does it, the settings first.
func (a *alteration) do(ctx context.Context) error {
	if len(a.changes) > 0 {
		answers, err := a.admin.AlterTopicConfigs(ctx, a.changes, a.topic)
		if err != nil {
			return err
		}
		for _, answer := range answers {
			if answer.Err != nil {
				return kafka.TopicError(a.topic, answer.Err, answer.ErrMessage)
			}
		}
	}
	if a.grow != nil {
		return a.growBy(ctx, a.admin.UpdatePartitions)
	}
	return nil
}

// growBy gives the topic more partitions, or asks whether it could get them.
func (a *alteration) growBy(ctx context.Context, how func(context.Context, int, ...string) (kadm.CreatePartitionsResponses, error)) error {
	answers, err := how(ctx, *a.grow, a.topic)
	if err != nil {
		return err
	}
	for _, answer := range answers {
		if answer.Err != nil {
			return kafka.TopicError(a.topic, answer.Err, answer.ErrMessage)
		}
	}
	return nil
}

// retained is where a partition's log would start: with the settings as they are, and
// with those that are asked about; and up to where it is deleted next, if nothing is
// altered or written, and when: ms since 1970, 0 is never.
type retained struct{ before, after, next, at int64 }

// ask asks every broker whether the settings could be altered, and what that would
// delete of the partitions it leads: no other knows. It is an error if one refuses.
func (a *alteration) ask(ctx context.Context) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, a.topic
	for _, change := range a.changes {
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Value, rc.Op = change.Name, change.Value, kmsg.IncrementalAlterConfigOp(change.Op)
		rr.Configs = append(rr.Configs, rc)
	}
	req.Resources, req.ValidateOnly = append(req.Resources, rr), true
	metadata, err := a.admin.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("ask for the brokers: %w", err)
	}
	answers := make([]kmsg.Response, len(metadata.Brokers))
	errs := make([]error, len(metadata.Brokers))
	one, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	var asked sync.WaitGroup
	for i, b := range metadata.Brokers {
		asked.Go(func() { // ends with the answer, or with one
			own := *req // the client notes in it what it sends
			answers[i], errs[i] = a.client.Broker(int(b.NodeID)).RetriableRequest(one, &own)
		})
	}
	asked.Wait()
	a.answered = make(map[int32]retained)
	var unanswered error
	heard := false
	for i, b := range metadata.Brokers {
		if errs[i] != nil {
			unanswered = fmt.Errorf("ask broker %d whether topic %q could be altered: %w", b.NodeID, a.topic, errs[i])
			continue
		}
		heard = true
		for _, sr := range answers[i].(*kmsg.IncrementalAlterConfigsResponse).Resources {
			if err := kerr.ErrorForCode(sr.ErrorCode); err != nil {
				detail := ""
				if sr.ErrorMessage != nil {
					detail = *sr.ErrorMessage
				}
				return kafka.TopicError(a.topic, err, detail)
			}
			sr.UnknownTags.Each(func(key uint32, b []byte) {
				for ; key == server.RetainedTag && len(b) >= server.RetainedBytes; b = b[server.RetainedBytes:] {
					a.answered[int32(binary.BigEndian.Uint32(b))] = retained{
						before: int64(binary.BigEndian.Uint64(b[4:])), after: int64(binary.BigEndian.Uint64(b[12:])),
						next: int64(binary.BigEndian.Uint64(b[20:])), at: int64(binary.BigEndian.Uint64(b[28:])),
					}
				}
			})
		}
	}
	if !heard {
		return unanswered
	}
	return nil
}

// shortens reports whether one of the changes may delete something: what a broker that
// does not count it is to be asked about all the same.
func (a *alteration) shortens() bool {
	return slices.ContainsFunc(a.changes, func(c kadm.AlterConfig) bool {
		return c.Name == "cleanup.policy" || strings.HasPrefix(c.Name, "retention.") || strings.HasPrefix(c.Name, "segment.")
	})
}

// consequences says what the alteration deletes, a phrase for each way in which it
// does; none if it deletes nothing.
func (a *alteration) consequences(ctx context.Context) (phrases []string, err error) {
	if !a.shortens() {
		return nil, nil
	}
	starts, err := a.admin.ListStartOffsets(ctx, a.topic)
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	ends, err := a.admin.ListEndOffsets(ctx, a.topic)
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	deleted, all, unknown := int64(0), int64(0), 0
	for i := range int32(a.partitions) {
		start, ok1 := starts.Lookup(a.topic, i)
		end, ok2 := ends.Lookup(a.topic, i)
		r, ok := a.answered[i]
		if !ok || !ok1 || !ok2 || start.Err != nil || end.Err != nil {
			unknown++
			continue
		}
		all += end.Offset - start.Offset
		deleted += max(0, r.after-max(r.before, start.Offset))
	}
	if len(a.answered) == 0 && a.partitions > 0 && unknown == a.partitions {
		return []string{"perhaps records: the brokers do not say how many"}, nil
	}
	if some := deletedOf(deleted, all, unknown); some != "" {
		phrases = append(phrases, some)
	}
	compacted, err := a.compacted(ctx)
	if err != nil {
		return nil, err
	}
	if compacted != "" {
		phrases = append(phrases, compacted)
	}
	return phrases, nil
}

// deletedOf says how many of all records are deleted, "" if none are; of some partitions it
// is unknown, since nobody leads them.
func deletedOf(deleted, all int64, unknown int) string {
	switch {
	case unknown > 0 && deleted == 0:
		return fmt.Sprintf("perhaps records of %s without a leader", term.Count(unknown, "partition"))
	case unknown > 0:
		return fmt.Sprintf("at least %s, and perhaps some of %s without a leader", term.Count(deleted, "record"), term.Count(unknown, "partition"))
	case deleted == 0:
		return ""
	case deleted == 1 && all == 1:
		return "the only record"
	case deleted == all:
		return term.Count(deleted, "record") + ", all of them"
	}
	return fmt.Sprintf("%s of %s", term.Count(deleted, "record"), term.Number(all))
}

// knows refuses to return a setting to its default that the topic does not have: brokers
// say nothing of that.
func (a *alteration) knows(ctx context.Context) error {
	var unset []string
	for _, change := range a.changes {
		if change.Op == kadm.DeleteConfig {
			unset = append(unset, change.Name)
		}
	}
	if len(unset) == 0 {
		return nil
	}
	has, err := a.settings(ctx)
	if err != nil {
		return err
	}
	for _, name := range unset {
		if _, ok := has[name]; !ok {
			return term.Usage("--unset %s: topic %s has no such setting%s; see `millrace topic config %[2]s`",
				name, a.topic, term.DidYouMean(name, slices.Sorted(maps.Keys(has))))
		}
	}
	return nil
}

// settings are the topic's, with their values.
func (a *alteration) settings(ctx context.Context) (map[string]*string, error) {
	resources, err := a.admin.DescribeTopicConfigs(ctx, a.topic)
	if err != nil {
		return nil, fmt.Errorf("ask for the settings of topic %q: %w", a.topic, err)
	}
	has := make(map[string]*string)
	for _, r := range resources {
		if r.Err != nil {
			return nil, kafka.TopicError(a.topic, r.Err, r.ErrMessage)
		}
		for _, s := range r.Configs {
			has[s.Key] = s.Value
		}
	}
	return has, nil
}

// setting returns what a setting of the topic is, "" if it is not there.
func (a *alteration) setting(ctx context.Context, name string) (is string, err error) {
	has, err := a.settings(ctx)
	if value := has[name]; value != nil {
		is = *value
	}
	return is, err
}

const fileDeleteDelay = "file.delete.delay.ms"

// delay is how long deletion waits now, "" if it does not or nobody says.
func (a *alteration) delay(ctx context.Context) string {
	value, err := a.setting(ctx, fileDeleteDelay)
	for _, change := range a.changes { // the broker asked may not have applied it yet
		if change.Name == fileDeleteDelay && change.Value != nil {
			value = *change.Value
		}
	}
	ms, e := strconv.ParseInt(value, 10, 64)
	if err != nil || e != nil || ms <= 0 {
		return ""
	}
	return lasting(float64(ms) / 1000)
}

// countingTime bounds how long a topic is read to count what compaction would delete.
const countingTime = 10 * time.Second

// compacted says what compaction would delete if the alteration brings it: all but
// the last record of each key, and what has no key. "" if it brings none.
func (a *alteration) compacted(ctx context.Context) (string, error) {
	brings := slices.ContainsFunc(a.changes, func(c kadm.AlterConfig) bool {
		return c.Name == "cleanup.policy" && c.Value != nil && strings.Contains(*c.Value, "compact")
	})
	if !brings {
		return "", nil
	}
	policy, err := a.setting(ctx, "cleanup.policy")
	if err != nil || strings.Contains(policy, "compact") {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, countingTime)
	defer cancel()
	// Keys by their hash: 64 bits are never the same for two of so few.
	seed := maphash.MakeSeed()
	latest := make(map[uint64]struct{})
	read := int64(0)
	whole, err := kafka.EachRecord(ctx, a.brokers, a.topic, kafka.Span{}, func(r *kgo.Record) {
		read++
		if r.Key != nil {
			latest[maphash.Bytes(seed, r.Key)^uint64(r.Partition)*0x9e3779b97f4a7c15] = struct{}{}
		}
	})
	goes := read - int64(len(latest))
	switch {
	case err != nil:
		return "", err
	case !whole:
		return fmt.Sprintf("by compaction, as segments end, at least %s of the first %s read: all but the last of each key, and what has no key", term.Count(goes, "record"), term.Number(read)), nil
	case goes == 0:
		return "", nil
	}
	return fmt.Sprintf("by compaction, as segments end, %s of %s: all but the last of each key, and what has no key", term.Count(goes, "record"), term.Number(read)), nil
}
