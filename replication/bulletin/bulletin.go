// Package bulletin says in the log, in groups, what happens to many partitions at once or
// to one peer again and again, and what was done to topics. It knows no node: who uses it
// gives it a logger each time.
package bulletin

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"millrace/replication/metadata"
)

// Groups gathers what happens to many partitions at once, so that the log has one
// line for all of them, with their number: where a node dies, others lead hundreds. Its
// zero value is ready; any goroutine may add to it. What has not been said when the node
// ends is not said.
type Groups struct {
	mu   sync.Mutex
	news map[Headline]*news
}

// A Headline is what happened, to whom and how if that needs saying: What is the key that
// Who is logged under.
type Headline struct{ Text, What, Who string }

// news is how often, and to which groups.
type news struct {
	first, last time.Time
	groups      map[uint64]struct{}
}

const (
	newsQuiet = time.Second      // for so long it has not happened again when it is said,
	newsLate  = 10 * time.Second // or it goes on for so long
)

// Add notes that something happened to a group. It costs a lock: for what happens once
// an election or a change of members.
func (b *Groups) Add(h Headline, group uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	s := b.news[h]
	if s == nil {
		s = &news{first: now, groups: make(map[uint64]struct{})}
		if b.news == nil {
			b.news = make(map[Headline]*news)
		}
		b.news[h] = s
	}
	s.last = now
	s.groups[group] = struct{}{}
}

// Log says what is due: not of groups without a name, whose partitions were deleted
// meanwhile; of those their topic's deletion is said.
func (b *Groups) Log(logger *slog.Logger, now time.Time, name func(group uint64) string) {
	b.mu.Lock()
	due := make(map[Headline]*news)
	for h, s := range b.news {
		if now.Sub(s.last) >= newsQuiet || now.Sub(s.first) >= newsLate {
			due[h] = s
			delete(b.news, h)
		}
	}
	b.mu.Unlock()
	for h, s := range due {
		var names []string
		for group := range s.groups {
			if n := name(group); n != "" {
				names = append(names, n)
			}
		}
		if len(names) == 0 {
			continue
		}
		count := len(names)
		slices.Sort(names)
		if count > 3 {
			names = append(names[:3], "…")
		}
		var args []any
		if h.What != "" {
			args = append(args, h.What, h.Who)
		}
		logger.Info(h.Text, append(args, "count", count, "partitions", names)...)
	}
}

// Peers says that peers are up or down, and of one that comes and goes only how often
// it did: it may be let in and leave again many times a second. Its zero value is ready.
type Peers struct {
	mu sync.Mutex
	of map[int32]*coming
}

// A coming is what one peer did of late.
type coming struct {
	since  time.Time
	said   int  // lines since then
	unsaid int  // times that it came or went since, beyond those
	up     bool // how that ended
}

const (
	comingsTime = time.Minute
	comingsSaid = 6 // lines in that time
)

// Say says that a peer is up, or down: as a warning, unless this node is leaving, when
// all of them are stopped, perhaps.
func (c *Peers) Say(logger *slog.Logger, node int32, up, leaving bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.of[node]
	if of == nil {
		of = &coming{}
		if c.of == nil {
			c.of = make(map[int32]*coming)
		}
		c.of[node] = of
	}
	if now := time.Now(); of.unsaid == 0 && now.Sub(of.since) >= comingsTime {
		of.since, of.said = now, 0
	}
	of.up = up
	switch {
	case of.said == comingsSaid:
		of.unsaid++
		return
	case up:
		logger.Info("peer is up", "node", node)
	case leaving:
		logger.Info("peer is down", "node", node)
	default:
		logger.Warn("peer is down", "node", node)
	}
	of.said++
}

// Log says what was kept back, once a minute.
func (c *Peers) Log(logger *slog.Logger, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, of := range c.of {
		if of.unsaid > 0 && now.Sub(of.since) >= comingsTime {
			logger.Warn("peer comes and goes", "node", node, "times", of.unsaid, "up", of.up)
			of.since, of.unsaid = now, 0
		}
	}
}

// settingSaid is how much of a setting's value is said, in bytes: any client may set 64 KiB,
// a thousand times a second.
const settingSaid = 100

// Change says what a change did to topics and settings. It is the controller's, once for
// the cluster: every node applies the change.
func Change(logger *slog.Logger, was, now *metadata.Image, change metadata.Change) {
	nameOf := func(image *metadata.Image, id metadata.TopicID) string {
		if t, ok := image.TopicByID(id); ok {
			return t.Name
		}
		return id.String()
	}
	settings := func(set map[string]string, deleted []string, replace bool) []any {
		var args []any
		if len(set) > 0 {
			said := maps.Clone(set)
			for name, value := range said {
				if len(value) > settingSaid {
					said[name] = value[:settingSaid] + "…"
				}
			}
			args = append(args, "set", said)
		}
		if len(deleted) > 0 {
			args = append(args, "unset", deleted)
		}
		if replace {
			args = append(args, "unset", "all others")
		}
		return args
	}
	switch c := change.(type) {
	case metadata.CreateTopic:
		logger.Info("topic created", "topic", c.Name, "partitions", len(c.Assignment), "replicas", len(c.Assignment[0]))
	case metadata.DeleteTopic:
		logger.Info("topic deleted", "topic", nameOf(was, c.Topic))
	case metadata.CreatePartitions:
		logger.Info("partitions added", "topic", nameOf(now, c.Topic), "added", len(c.Assignment), "partitions", c.Count)
	case metadata.SetTopicConfig:
		logger.Info("topic altered", append([]any{"topic", nameOf(now, c.Topic)}, settings(c.Set, c.Delete, c.Replace)...)...)
	case metadata.SetBrokerConfig:
		of := any(c.Broker)
		if c.Broker == 0 {
			of = "all"
		}
		logger.Info("settings of brokers changed", append([]any{"broker", of}, settings(c.Set, c.Delete, c.Replace)...)...)
	}
}
