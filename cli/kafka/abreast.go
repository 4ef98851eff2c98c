package kafka

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

// A change of the cluster is done when a majority has it. Every other broker hears of it
// within milliseconds, or, on a machine that is busy, later than somebody asks it who was
// told that the change is done. What follows keeps the two apart for the command line.
//
// The brokers do not do it for all clients, as Kafka's do not: a change that is answered
// only when every broker has it lasts as long as the slowest of them, and while one hangs,
// as long as the others need to miss it. A program can ask again; a script would have to.

// abreastTimeout bounds how long a command waits for brokers that have not heard of its change.
const abreastTimeout = 5 * time.Second

// Abreast waits until every broker has heard of all changes that any of them knows of at the
// beginning, for some seconds at most. A broker that has gone is not waited for, and one
// that hangs only as long as the others count it among them. Brokers that do not say how
// far they are hold up nobody.
func Abreast(ctx context.Context, admin *kadm.Client) {
	ctx, cancel := context.WithTimeout(ctx, abreastTimeout)
	defer cancel()
	newest, heard := int64(-1), make(map[int32]bool)
	for attempt := 1; ; attempt++ {
		// A broker that was asked and then stopped is asked anew, or is no longer listed.
		one, done := context.WithTimeout(ctx, time.Second)
		all, err := admin.ApiVersions(one)
		done()
		behind := err != nil
		for _, b := range all {
			if b.Err == nil && !heard[b.NodeID] {
				heard[b.NodeID] = true
				newest = max(newest, b.Raw().FinalizedFeaturesEpoch)
			}
		}
		for _, b := range all {
			switch epoch := int64(-1); {
			case b.Err == nil:
				// The epoch of a broker's features is the number of the last change it has
				// applied, of Kafka's as of ours.
				epoch = b.Raw().FinalizedFeaturesEpoch
				behind = behind || epoch >= 0 && epoch < newest
			case WhyNoAnswer(b.Err) == NoAnswer:
				behind = true
			}
		}
		if !behind {
			return
		}
		select {
		case <-time.After(Backoff(attempt)):
		case <-ctx.Done():
			return
		}
	}
}

// Everywhere returns an action that ends when what it has changed of the cluster is known to
// every broker, so that whichever is asked next does not contradict it.
func Everywhere(action urfave.ActionFunc) urfave.ActionFunc {
	return func(c *urfave.Context) error {
		noted := &changes{}
		c.Context = context.WithValue(c.Context, changesKey{}, noted)
		err := action(c)
		if !noted.some.Load() || c.Bool("dry-run") || c.Context.Err() != nil {
			return err
		}
		if client, failed := Dial(c); failed == nil {
			Abreast(c.Context, kadm.NewClient(client))
			client.Close()
		}
		return err
	}
}

// Reading is the context of clients that only ask, even if by requests that can change
// something: whether a change would be allowed.
func Reading(ctx context.Context) context.Context {
	return context.WithValue(ctx, changesKey{}, nil)
}

// Changed notes that a command has changed the cluster without a request of that kind: the
// first record for a topic has it made.
func Changed(ctx context.Context) {
	if noted, ok := ctx.Value(changesKey{}).(*changes); ok {
		noted.some.Store(true)
	}
}

// changesKey is the key of the changes of a command in its context.
type changesKey struct{}

// A changes is told of the requests of a command's clients, and notes those that change what
// every broker knows. Whether they are answered is no matter: they may have been carried out.
type changes struct{ some atomic.Bool }

var _ kgo.HookBrokerE2E = (*changes)(nil)

// OnBrokerE2E is called by the client for each request, from several goroutines.
func (n *changes) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, _ kgo.BrokerE2E) {
	switch kmsg.Key(key) {
	case kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.CreatePartitions,
		kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs,
		kmsg.AlterPartitionAssignments, kmsg.ElectLeaders,
		kmsg.CreateACLs, kmsg.DeleteACLs,
		kmsg.CreateDelegationToken, kmsg.RenewDelegationToken, kmsg.ExpireDelegationToken,
		kmsg.AlterClientQuotas, kmsg.AlterUserSCRAMCredentials,
		kmsg.UpdateFeatures, kmsg.UnregisterBroker:
		n.some.Store(true)
	}
}

// noting is the option of clients whose requests are noted in a context, if there is one.
func noting(ctx context.Context) []kgo.Opt {
	if noted, ok := ctx.Value(changesKey{}).(*changes); ok {
		return []kgo.Opt{kgo.WithHooks(noted)}
	}
	return nil
}
