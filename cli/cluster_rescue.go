package cli

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"millrace/cli/local"
	"millrace/cli/term"
	"millrace/replication/rescue"
)

func clusterRescueCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "rescue",
		Usage: "go on with one node when a majority is gone for good",
		Description: `   Nodes that were restored from a backup are refused by those that know
   better, and come back empty. When a majority of the nodes is restored, or
   lost, what is left elects no leader and takes in nobody. Nothing that the
   others still have is lost then, as long as nothing is done.

   First look whether the newest folders of the others, or later backups of
   them, exist after all: a majority of such, put back, needs no rescue. Else
   stop every node, look at each folder that is left with --dry-run, and rescue
   the one whose offsets end last. It is made the only voter of the controllers
   and of each partition that it has; started again it goes on with all that it
   has, in higher leader epochs. The other nodes start with empty folders,
   --node-id and --join, and are filled from it.

   What is lost: of each partition the records behind END, if the others
   acknowledged some without this node; and partitions of which it has nothing,
   which stay without a leader. Records between COMMITTED and END are kept,
   though some of them may never have been acknowledged. COMMITTED is what the
   last snapshot covers, and - where there is none: a node that was stopped
   does not know more for certain.

   It is run as the user whose folder it is. Every log is read from end to end
   first, and nothing is changed with --dry-run. The folders of the other nodes
   must not be started again as they are: they would go on as the cluster that
   this one leaves. Keep copies.

   JSON: a list of {topic, partition, start, committed, end, lost}.

EXAMPLES:
   $ millrace cluster rescue --dir ./millrace-data --dry-run
   $ millrace cluster rescue --dir ./millrace-data --yes`,
		Flags: append(append([]urfave.Flag{
			&urfave.StringFlag{Name: "dir", Usage: "`DIR`: the data folder of a node that is stopped"},
		}, term.DestructiveFlags()...), term.OutputFlags(true)...),
		Action: clusterRescue,
	}
}

type rescueItem struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`
	Committed int64  `json:"committed"`
	End       int64  `json:"end"`
	Lost      string `json:"lost,omitempty"`
}

func clusterRescue(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("cluster rescue takes no arguments, but %q was given", c.Args().First())
	}
	dir := c.String("dir")
	if dir == "" {
		return term.Usage("cluster rescue which node? say --dir DIR; see `millrace cluster rescue --help`")
	}
	if nodes, _ := filepath.Glob(filepath.Join(dir, "node-*", local.NodeFile)); len(nodes) > 0 {
		for i := range nodes {
			nodes[i] = filepath.Dir(nodes[i])
		}
		return term.Usage("%s holds the nodes of `millrace up`; name the one to go on with: %s", dir, strings.Join(nodes, ", "))
	}
	s, err := rescue.Survey(dir)
	if err != nil {
		return term.Fail(term.StatusFailed, "%w", err)
	}
	var items []rescueItem
	lost, unsure := 0, int64(0)
	for _, p := range s.Partitions {
		items = append(items, rescueItem{p.Topic, p.Partition, p.Start, p.Committed, p.End, p.Lost})
		if p.Lost != "" {
			lost++
		} else {
			unsure += p.End - p.Committed
		}
	}
	if err := term.PrintList(c, items, []term.Column[rescueItem]{
		{Header: "TOPIC", Cell: func(p rescueItem) string { return p.Topic }},
		{Header: "PARTITION", Cell: func(p rescueItem) string { return strconv.Itoa(int(p.Partition)) }},
		{Header: "START", Cell: func(p rescueItem) string { return strconv.FormatInt(p.Start, 10) }},
		{Header: "COMMITTED", Cell: func(p rescueItem) string {
			if p.Committed <= p.Start && p.End > p.Start {
				return "" // nothing that this folder knows of for certain
			}
			return strconv.FormatInt(p.Committed, 10)
		}},
		{Header: "END", Cell: func(p rescueItem) string { return strconv.FormatInt(p.End, 10) }},
		{Header: "LOST", Cell: func(p rescueItem) string { return p.Lost }},
	}); err != nil {
		return err
	}
	var others []string
	for _, b := range s.Brokers {
		others = append(others, fmt.Sprintf("node %d at %s:%d", b.ID, b.Host, b.Port))
	}
	if len(others) == 0 {
		return term.Fail(term.StatusFailed, "node %d is the only one of cluster %s: there is no majority to do without; start it", s.Node, s.Cluster)
	}
	w := c.App.ErrWriter
	fmt.Fprintf(w, "millrace: node %d of cluster %s, with the metadata up to change %d; the others are given up: %s\n", s.Node, s.Cluster, s.Change, strings.Join(others, ", "))
	fmt.Fprintf(w, "millrace: lost: what only they have of %s, which this folder cannot tell, and %s; kept, acknowledged or not: %s\n",
		term.Count(len(items)-lost, "partition"), term.Count(lost, "whole partition"), term.Count(int(unsure), "record"))
	if s.Outdated {
		fmt.Fprintf(w, "millrace: this folder is a copy of one that had gone on: what was acknowledged since is lost\n")
	}
	if c.Bool("dry-run") {
		return nil
	}
	if user, foreign := foreignFolder(dir); foreign {
		return term.Usage("%s belongs to user %d, who could not read what root would write there: give the command as that user", dir, user)
	}
	if err := term.Confirm(c, fmt.Sprintf("go on with %s alone and give up %s", s.Dir, strings.Join(others, ", "))); err != nil {
		return err
	}
	if err := s.Rescue(); err != nil {
		err = local.Advised(err)
		return term.Fail(term.StatusFailed, "%s was not rescued, and the same command may be given again: %w", s.Dir, err)
	}
	fmt.Fprintf(w, "millrace: rescued; start the node as before, and the others with empty folders, --node-id and --join\n")
	return nil
}
