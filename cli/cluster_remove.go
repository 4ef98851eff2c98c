package cli

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/replication/removal"
	"millrace/server"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func clusterRemoveCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "remove",
		Usage:     "forget a broker that never comes back",
		ArgsUsage: "N",
		Description: `   Broker N is stopped, or gone with its disk. Its replicas are moved to brokers that do
   not have them yet; where there is none left, a partition has one replica less from
   then on. The broker leaves all groups, the controllers' too, and the cluster forgets
   it. Its certificate opens nothing any more: it is refused, and comes back as a new node
   does, with an empty folder and a join token. But its data folder holds the key of the cluster's authority: whoever
   has that can make a certificate for any node. Unless the folder is destroyed, rotate
   the authority: millrace cluster ca rotate.

   Partitions that only broker N holds would be lost: then nothing is done, and they are
   named. Start it again and move them, or delete their topics.

   Of two replicas one is left: it is no majority, but has all that was acknowledged, for
   that took both. Such partitions go on with it. Of more replicas a majority must be
   there, and so must a majority of the controllers; where it is gone for good, see
   millrace cluster rescue --help.

   The command waits until every partition has all its replicas in sync, and says what is
   left to do meanwhile; it goes on without the command, too.

EXAMPLES:
   $ millrace cluster remove 3 --dry-run
   $ millrace cluster remove 3 --yes`,
		Flags: kafka.Flags([]urfave.Flag{
			&urfave.DurationFlag{Name: "wait", Value: 10 * time.Minute, Usage: "wait for the replicas to be in sync, at most `DURATION`"},
		}, term.DestructiveFlags()),
		Action: clusterRemove,
	}
}

func clusterRemove(c *urfave.Context) error {
	if c.NArg() != 1 {
		return term.Usage("cluster remove which broker? say its number; see `millrace cluster remove --help`")
	}
	id, err := strconv.ParseInt(c.Args().First(), 10, 32)
	if err != nil || id < 1 {
		return term.Usage("%q is no number of a broker; `millrace cluster status` lists them", c.Args().First())
	}
	brokers, err := kafka.BrokersNamed(c)
	if err != nil {
		return err
	}
	err = kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, _ *kadm.Client) error {
		means, err := askRemoval(ctx, client, int32(id), server.RemovalForeseen)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("remove broker %d%s", id, meaning(means))
		if c.Bool("dry-run") {
			_, err := fmt.Fprintln(c.App.Writer, "would", what)
			return err
		}
		if err := term.Confirm(c, what); err != nil {
			return err
		}
		// Asking a person may have taken longer than the time for the request.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if means, err = askRemoval(ctx, client, int32(id), server.RemovalDone); err != nil {
			return err
		}
		if _, err = fmt.Fprintf(c.App.Writer, "removed broker %d%s\n", id, meaning(means)); err != nil {
			return err
		}
		fmt.Fprintf(c.App.ErrWriter, "millrace: its data folder holds the key of the cluster's authority: whoever has it can pass for any node; unless the folder is destroyed, `millrace cluster ca rotate` on a node's machine shuts them out\n")
		return nil
	})
	if err != nil || c.Bool("dry-run") {
		return err
	}
	return awaitRemoval(c, brokers, int32(id))
}

// askRemoval has a broker removed, or asks what that would mean.
func askRemoval(ctx context.Context, client *kgo.Client, id int32, how byte) (means removal.Meaning, err error) {
	req := kmsg.NewPtrUnregisterBrokerRequest()
	req.BrokerID = -1 // a release that does not know the tag removes nobody
	req.UnknownTags.Set(server.RemovalTag, append(binary.BigEndian.AppendUint32(nil, uint32(id)), how))
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return means, fmt.Errorf("remove broker %d: %w", id, err)
	}
	known := false
	resp.UnknownTags.Each(func(key uint32, p []byte) {
		known = known || key == server.RemovalTag && json.Unmarshal(p, &means) == nil
	})
	err = kerr.ErrorForCode(resp.ErrorCode)
	detail := ""
	if resp.ErrorMessage != nil {
		detail = *resp.ErrorMessage
	}
	switch {
	case err == nil && known:
		return means, nil
	case known || err != nil && resp.ErrorCode != kerr.BrokerIDNotRegistered.Code:
		hint := ""
		if resp.ErrorCode == kerr.RequestTimedOut.Code {
			hint = "; if a majority of the controllers is gone for good, see `millrace cluster rescue --help`"
		}
		return means, term.Explain(err, "broker %d was not removed: %s%s", id, strings.TrimSuffix(kafka.BrokerSaid(err, detail), "."), hint)
	}
	return means, term.Fail(term.StatusFailed, "broker %d was not removed: the broker that was asked is of an older release, which cannot do that; upgrade all brokers first", id)
}

// meaning says what a removal means, "" for nothing.
func meaning(means removal.Meaning) string {
	var parts []string
	say := func(n int, one, text string) {
		if n > 0 {
			parts = append(parts, term.Count(n, one)+text)
		}
	}
	say(means.Moved, "replica", " moved to other brokers")
	say(means.Lowered, "partition", " with one replica less, since no broker is left for it")
	say(len(means.Alone), "partition", " left with one of two replicas, which goes on with what it has: "+term.Some(means.Alone))
	say(len(means.Stuck), "partition", " without a majority, and so without a leader until others of its brokers are back (see millrace cluster rescue --help): "+term.Some(means.Stuck))
	if len(parts) == 0 {
		return ", which holds nothing"
	}
	return ": " + strings.Join(parts, "; ")
}

// awaitRemoval waits until the broker is in no group any more and all partitions have leaders
// and all replicas, and says what is left to do as that changes.
func awaitRemoval(c *urfave.Context, brokers []string, id int32) error {
	deadline, said := time.Now().Add(c.Duration("wait")), ""
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(c.Context, 10*time.Second)
		state, err := readCluster(ctx, brokers)
		var groups []string
		if err == nil {
			groups, err = leaving(ctx, state, id)
		}
		cancel()
		left := ""
		switch {
		case c.Context.Err() != nil:
			return term.Fail(term.StatusFailed, "interrupted; the brokers go on by themselves")
		case err != nil:
			left = term.OneLine(err)
		case len(state.Leaderless) > 0:
			left = fmt.Sprintf("%s without a leader: %s", term.Count(len(state.Leaderless), "partition"), term.Some(state.Leaderless))
		case len(state.UnderReplicated) > 0:
			left = fmt.Sprintf("%s without all replicas in sync: %s", term.Count(len(state.UnderReplicated), "partition"), term.Some(state.UnderReplicated))
		case len(groups) > 0:
			left = fmt.Sprintf("broker %d to leave %s: %s", id, term.Count(len(groups), "group"), term.Some(groups))
		default:
			return nil
		}
		if time.Now().After(deadline) {
			return term.Fail(term.StatusUnhealthy, "the broker is removed, and this is left to do, by the brokers themselves: %s", left)
		}
		if left != said {
			fmt.Fprintf(c.App.ErrWriter, "millrace: waiting for %s\n", left)
			said = left
		}
		select {
		case <-time.After(kafka.Backoff(attempt)):
		case <-c.Context.Done():
		}
	}
}

// leaving lists the groups that a broker has still to leave, as those say who lead them.
func leaving(ctx context.Context, state *clusterState, id int32) (groups []string, err error) {
	for _, b := range state.Brokers {
		if !b.Up {
			continue // it leads nothing
		}
		client, err := soleClient(ctx, b.Address)
		if err != nil {
			return nil, err
		}
		means, err := askRemoval(ctx, client, id, server.RemovalLeft)
		client.Close()
		if err != nil {
			return nil, err
		}
		groups = append(groups, means.Left...)
	}
	slices.Sort(groups) // what is left is said again as it changes
	return groups, nil
}
