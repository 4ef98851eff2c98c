package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"millrace/cli/local"
	"millrace/cli/term"
	"millrace/log"
	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/segment"

	urfave "github.com/urfave/cli/v2"
)

func segmentVerifyCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "verify",
		Usage:     "read logs from end to end and say what is damaged",
		ArgsUsage: "DIR…",
		Description: `   DIR is a node's data folder, the folder of several nodes, the folder of one partition, or
   a segment file. Every frame, every batch and every checksum is read; nothing is changed, and
   nobody needs to run. A tail torn by a crash is no damage: opening the log cuts it.

   A line for each damage on standard error: path, position, what was found, what was expected;
   and a last line with the verdict. Internal topics are read too, and are rows with -i, or
   when they are damaged. The exit status is 1 if there is any damage, 3 if there is no log.

   JSON: a list of {log, node, topic, topic_id, internal, partition, segments, entries, start_offset,
   end_offset, bytes, torn, damaged}; a topic is "" where the node's metadata does not have it,
   a node 0 where the log is not in a node's folder.

EXAMPLES:
   $ millrace segment verify ./millrace-data
   $ millrace segment verify -o json ./millrace-data/node-1 ./millrace-data/node-2`,
		Flags:  append(term.OutputFlags(true), internalFlag()...),
		Action: segmentVerify,
	}
}

type logItem struct {
	Log         string `json:"log"`
	Node        int32  `json:"node"` // that has it; 0 where no node's folder is around it
	Topic       string `json:"topic"`
	TopicID     string `json:"topic_id"`
	Internal    bool   `json:"internal"`
	Partition   int32  `json:"partition"`
	Segments    int    `json:"segments"`
	Entries     int64  `json:"entries"`
	StartOffset int64  `json:"start_offset"`
	EndOffset   int64  `json:"end_offset"`
	Bytes       int64  `json:"bytes"`
	Torn        bool   `json:"torn"`
	Damaged     int    `json:"damaged"`
}

// manifestFile is in the folder of every log.
const manifestFile = "manifest"

func segmentVerify(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("segment verify which folder? see `millrace segment verify --help`")
	}
	var items []logItem
	var names topicNames
	damaged, damages, bytes, all, hidden := 0, 0, int64(0), 0, 0
	for _, root := range c.Args().Slice() {
		logs, err := logsUnder(root)
		if err != nil {
			return err
		}
		if len(logs) == 0 {
			return term.Fail(term.StatusNotFound, "there is no log in %s; name a data folder, the folder of a partition or a segment file", root)
		}
		for _, path := range logs {
			if c.Context.Err() != nil {
				return term.Fail(term.StatusFailed, "interrupted")
			}
			problem := func(e *segment.CorruptError) error {
				fmt.Fprintf(c.App.ErrWriter, "millrace: %s\n", term.OneLine(e))
				return nil
			}
			item, err := verify(path, problem)
			if err != nil {
				return err
			}
			names.of(path, item)
			all, bytes, damages = all+1, bytes+item.Bytes, damages+item.Damaged
			if item.Damaged > 0 {
				damaged++
			} else if item.Internal && !c.Bool("internal") {
				hidden++
				continue
			}
			items = append(items, *item)
		}
	}
	err := term.PrintList(c, items, []term.Column[logItem]{
		{Header: "LOG", Cell: func(l logItem) string { return l.Log }},
		{Header: "NODE", Cell: func(l logItem) string {
			if l.Node == 0 {
				return ""
			}
			return strconv.Itoa(int(l.Node))
		}},
		{Header: "TOPIC", Cell: func(l logItem) string { return cmp.Or(l.Topic, l.TopicID) }},
		{Header: "PARTITION", Cell: func(l logItem) string { return strconv.Itoa(int(l.Partition)) }},
		{Header: "SEGMENTS", Cell: func(l logItem) string { return strconv.Itoa(l.Segments) }},
		{Header: "ENTRIES", Cell: func(l logItem) string { return term.CellNumber(c.App.Writer, l.Entries) }},
		{Header: "OFFSETS", Cell: func(l logItem) string { return fmt.Sprintf("[%d,%d)", l.StartOffset, l.EndOffset) }},
		{Header: "BYTES", Cell: func(l logItem) string { return term.CellNumber(c.App.Writer, l.Bytes) }},
		{Header: "STATE", Cell: func(l logItem) string {
			switch {
			case l.Damaged > 0:
				return term.Red(c.App.Writer, "damaged")
			case l.Torn:
				return "ok, torn tail"
			}
			return "ok"
		}},
	})
	if err != nil {
		return err
	}
	if damaged > 0 {
		return term.Fail(term.StatusFailed, "%s of %s damaged, in %s; a replica on another node may be whole: a damaged one is quarantined when it is opened",
			term.Number(damaged), term.Count(all, "log"), term.Count(damages, "place"))
	}
	fmt.Fprintf(c.App.ErrWriter, "%s, %s: no damage\n", term.Count(all, "log"), term.Size(bytes))
	if hidden > 0 {
		fmt.Fprintf(c.App.ErrWriter, "%s of them, of internal topics, %s not listed: -i\n", term.Number(hidden), map[bool]string{true: "is", false: "are"}[hidden == 1])
	}
	return nil
}

// topicNames finds the names of topics in the metadata of the nodes that have their logs.
type topicNames struct {
	images map[string]*metadata.Image // by data folder; nil: it has none that can be read
}

// of completes an item with what its node calls the topic. A log that was copied away
// from its node has an id and no name.
func (n *topicNames) of(path string, item *logItem) {
	path, err := filepath.Abs(path)
	if err != nil {
		return
	}
	if n.images == nil {
		n.images = make(map[string]*metadata.Image)
	}
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		image, known := n.images[dir]
		if !known {
			image, _ = replication.LastImage(dir) // without it there is no name
			n.images[dir] = image
		}
		if image == nil {
			continue
		}
		item.Node = nodeIn(dir)
		for _, t := range image.Topics() {
			if topicID(t.ID) == item.TopicID {
				item.Topic, item.Internal = t.Name, t.Internal
			}
		}
		return
	}
}

// nodeIn is the node whose data folder dir is, 0 if it is none's.
func nodeIn(dir string) int32 {
	var id struct{ Node int32 }
	p, err := os.ReadFile(filepath.Join(dir, local.NodeFile))
	if err != nil || json.Unmarshal(p, &id) != nil {
		return 0
	}
	return id.Node
}

// logsUnder finds the folders of logs below root; root may be one, or a segment file.
func logsUnder(root string) (logs []string, err error) {
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		if err == nil && !strings.HasSuffix(root, ".log") {
			return nil, nil
		}
		return []string{root}, err
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == manifestFile && d.Type().IsRegular() {
			logs = append(logs, filepath.Dir(path))
		}
		return nil
	})
	return logs, err
}

// verify reads one log, or one segment file, from end to end.
func verify(path string, problem func(*segment.CorruptError) error) (*logItem, error) {
	item := &logItem{Log: path}
	count := func(e *segment.CorruptError) error {
		item.Damaged++
		return problem(e)
	}
	frame := func(f *segment.Frame) error {
		item.Entries++
		return nil
	}
	if strings.HasSuffix(path, ".log") {
		found, err := segment.Walk(segment.OS, path, 0, func(f *segment.Frame) error {
			item.EndOffset = f.NextOffset()
			return frame(f)
		}, count)
		if err != nil {
			return nil, err
		}
		item.TopicID, item.Partition = topicID(found.Header.Identity.Topic), found.Header.Identity.Partition
		item.StartOffset, item.EndOffset = found.Header.BaseOffset, max(item.EndOffset, found.Header.BaseOffset)
		item.Segments, item.Bytes, item.Torn = 1, found.End, found.Torn >= 0
		return item, nil
	}
	summary, err := log.Inspect(segment.OS, path, frame, count)
	var corrupt *segment.CorruptError
	if errors.As(err, &corrupt) { // the manifest itself
		return item, count(corrupt)
	}
	if err != nil { // a segment that is listed and not there, too
		return nil, term.Fail(term.StatusFailed, "%w", err)
	}
	item.TopicID, item.Partition = topicID(summary.Identity.Topic), summary.Identity.Partition
	item.StartOffset, item.EndOffset = summary.StartOffset, summary.EndOffset
	for _, s := range summary.Segments {
		item.Segments++
		item.Bytes += s.Info.Bytes
		item.Torn = item.Torn || s.Torn >= 0
	}
	return item, nil
}
