package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

func clusterHealthCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "health",
		Usage: "exit 0 when all is well, 10 when not",
		Description: `   Healthy: every registered broker answers, has room on its disk and the newest metadata; the
   controllers have a leader; no replica is down; every partition has its leader and all its
   replicas in sync. Every broker that -b names is one of them, there are as many as --nodes
   says, and all know each other: what needs three brokers finds three. Prints "healthy", or
   a line of what is wrong.

   JSON: {healthy, troubles: [TEXT]}.

EXAMPLES:
   $ millrace cluster health
   $ millrace cluster health --wait 30s
   $ millrace cluster health --wait 30s --nodes 3`,
		Flags: kafka.Flags([]urfave.Flag{
			&urfave.DurationFlag{Name: "wait", Usage: "wait for the cluster to be healthy, at most `DURATION`", DefaultText: "do not wait"},
			&urfave.IntFlag{Name: "nodes", Usage: "unhealthy with fewer brokers than `N`", DefaultText: "those that have joined"},
		}, term.OutputFlags(true)),
		Action: clusterHealth,
	}
}

func clusterHealth(c *urfave.Context) error {
	brokers, err := kafka.BrokersNamed(c)
	if err != nil {
		return err
	}
	if c.IsSet("nodes") && c.Int("nodes") < 1 {
		return term.Usage("--nodes %d: it is 1 or more", c.Int("nodes"))
	}
	deadline := time.Now().Add(c.Duration("wait"))
	for attempt := 1; ; attempt++ {
		var troubles []string
		ctx, cancel := context.WithTimeout(c.Context, 10*time.Second)
		state, err := readCluster(ctx, brokers)
		if err == nil {
			troubles = append(state.missing(ctx, brokers, c.Int("nodes")), state.troubles()...)
		}
		cancel()
		if c.Context.Err() != nil {
			return term.Fail(term.StatusFailed, "interrupted")
		}
		if err != nil {
			troubles = []string{term.OneLine(err)}
		}
		if len(troubles) == 0 {
			return printHealth(c, troubles)
		}
		if time.Now().After(deadline) {
			if err := printHealth(c, troubles); err != nil {
				return err
			}
			return &term.Silent{Status: term.StatusUnhealthy}
		}
		select {
		case <-time.After(kafka.Backoff(attempt)):
		case <-c.Context.Done():
		}
	}
}

func printHealth(c *urfave.Context, troubles []string) error {
	answer := struct {
		Healthy  bool     `json:"healthy"`
		Troubles []string `json:"troubles"`
	}{len(troubles) == 0, append([]string{}, troubles...)}
	word := "healthy"
	if !answer.Healthy {
		word = "unhealthy"
	}
	err := term.PrintObject(c, answer, word, func() error {
		if answer.Healthy {
			_, err := fmt.Fprintln(c.App.Writer, word)
			return err
		}
		return nil
	})
	if !answer.Healthy && (c.String("output") == "table" || c.String("output") == "") {
		// The one line of an error, on standard error like every other.
		fmt.Fprintf(c.App.ErrWriter, "millrace: unhealthy: %s\n", strings.Join(troubles, "; "))
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
