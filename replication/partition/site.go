package partition

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/replication/raftgroup"
	"millrace/replication/vote"
	"millrace/segment"
)

// A site is where on this node a partition's replica lives, and as what: all that stays while
// runs come and go. Its fields do not change, but for the settings.
type site struct {
	env    *Env
	id     metadata.PartitionID
	topic  string // name, for people
	group  uint64
	dir    string
	logger *slog.Logger

	settings   atomic.Pointer[settings.Topic]
	deleteFrom atomic.Int64 // before this time, ms since 1970, nothing is deleted; see Configure
}

// FileName is the file in a partition's folder that says whose it is. It
// is how a folder that the image does not mention can be told: from one that a
// committed change deleted, whose group number was given and is gone, and from
// one that nobody knows, which is left alone.
const FileName = "partition.json"

type partitionFile struct {
	Group     uint64 `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

// GroupIn returns the group that a partition's folder says it is of. An error wraps
// os.ErrNotExist if it says nothing.
func GroupIn(dir string) (group uint64, err error) {
	data, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		return 0, err
	}
	var file partitionFile
	if err := json.Unmarshal(data, &file); err != nil {
		return 0, err
	}
	return file.Group, nil
}

// FolderName is made of ids, never of a name that a client chose.
func FolderName(id metadata.PartitionID) string {
	return fmt.Sprintf("%s-%d", id.Topic, id.Index)
}

// prepareFolder makes the partition's folder, and says in it whose it is.
func (s *site) prepareFolder() error {
	path := filepath.Join(s.dir, FileName)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	fs := s.env.FS
	if err := fs.MkdirAll(s.dir); err != nil {
		return err
	}
	data, err := json.Marshal(partitionFile{Group: s.group, Topic: s.id.Topic.String(), Partition: s.id.Index})
	if err != nil {
		return err
	}
	if err := replaceFile(fs, path, append(data, '\n')); err != nil {
		return err
	}
	return segment.SyncDir(fs, filepath.Dir(s.dir))
}

// identity returns what the partition's segments must say they are.
func (s *site) identity() segment.Identity {
	return segment.Identity{
		Cluster:   s.env.Cluster,
		Topic:     s.id.Topic,
		Partition: s.id.Index,
		Replica:   string(s.env.Self),
	}
}

// logConfig returns the log's configuration from the topic's settings.
func (s *site) logConfig() log.Config {
	set := s.settings.Load()
	age := set.SegmentMillis
	if set.CleanupCompact {
		age = min(age, set.MaxCompactionLagMillis) // the last segment is never compacted
	}
	if jitter := min(set.SegmentJitterMillis, age); jitter > 0 {
		// One for the whole log, until its settings change: partitions that were made
		// together do not roll together, which is what it is for.
		age -= rand.Int64N(jitter)
	}
	return log.Config{
		SegmentBytes:  set.SegmentBytes,
		SegmentAge:    millis(max(age, 1)),
		FlushMessages: set.FlushMessages,
		Cache:         s.env.Cache,
		Now:           s.env.Now,
		Logger:        s.logger,
		FS:            s.env.FS,
	}
}

// millis turns milliseconds into a duration, at most some 292 years.
func millis(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// appendTime returns the time to stamp on batches, -1 with CreateTime.
func (s *site) appendTime() int64 {
	if s.settings.Load().TimestampType == settings.LogAppendTime {
		return s.env.Now().UnixMilli()
	}
	return -1
}

// storedKey stands beside Raft's own keys among the votes once the log of a
// replica that joined its group later has an entry.
var storedKey = []byte("Stored")

// bootstrap writes the group's first configuration into an empty log, if this
// server is one of those the group was created with. A replica that has stored
// entries must have its log: without it its acknowledgements are lost, and it
// may not vote again under this name. One that was there from the beginning has
// entry 1 before it reaches term 2; one that joined says so by storedKey, since
// a term is all that it has until the first entries have come.
func (s *site) bootstrap(l *log.Log, stable raft.StableStore, snapshots *snapshotStore, last uint64) error {
	var configuration raft.Configuration
	mine := false
	if _, part, ok := s.lookup(); ok {
		for _, id := range part.Bootstrap {
			configuration.Servers = append(configuration.Servers, raft.Server{
				Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id),
			})
			mine = mine || raft.ServerID(id) == s.env.Self
		}
	}
	if last > 0 || snapshots.index() > 0 {
		if mine {
			return nil
		}
		return stable.Set(storedKey, []byte{1})
	}
	term, err := stable.GetUint64([]byte(vote.CurrentTerm))
	if err != nil && !errors.Is(err, vote.ErrNotFound) {
		return err
	}
	stored, err := stable.Get(storedKey)
	if err != nil && !errors.Is(err, vote.ErrNotFound) {
		return err
	}
	if mine && term > 1 || len(stored) > 0 {
		return fmt.Errorf("%w: the group has reached term %d here, but its log is empty: %s was lost; give the node a new data folder to let it catch up",
			ErrQuarantined, term, s.dir)
	}
	if !mine {
		return nil
	}
	if err := stable.SetUint64([]byte(vote.CurrentTerm), 1); err != nil {
		return err
	}
	return l.StoreLog(&raft.Log{
		Index: 1, Term: 1, Type: raft.LogConfiguration,
		Data: raft.EncodeConfiguration(configuration),
	})
}

// lookup finds the partition in the node's image.
func (s *site) lookup() (*metadata.Topic, *metadata.Partition, bool) {
	return s.env.Host.Image().Partition(s.id)
}

// preferred returns the server that should lead: the first replica, as the
// broker is known now.
func (s *site) preferred() (raft.ServerID, bool) {
	_, part, ok := s.lookup()
	if !ok || len(part.Replicas) == 0 {
		return "", false
	}
	return s.serverOf(part.Replicas[0])
}

// serverOf returns a node's name in groups, as the image has it.
func (s *site) serverOf(node int32) (raft.ServerID, bool) {
	b, ok := s.env.Host.Image().Broker(node)
	if !ok {
		return "", false
	}
	return raft.ServerID(b.ServerID()), true
}

// DeletedSuffix ends the name of a folder that is being removed.
const DeletedSuffix = ".deleted"

// removeAtOnce limits how many folders of deleted partitions are removed at the same
// time: nobody waits for it, and whoever produces meanwhile waits for the disk behind it.
const removeAtOnce = 2

// RemoveFolder removes the folder of a partition of a group that was deleted while it was
// open nowhere, or what is left of one that was being removed, whose name ends in DeletedSuffix.
func RemoveFolder(env *Env, group uint64, dir string) {
	env.remove(dir, func() error {
		if strings.HasSuffix(dir, DeletedSuffix) {
			return os.RemoveAll(dir)
		}
		return (&site{env: env, group: group, dir: dir}).remove()
	})
}

// remove calls f, which removes the folder of a partition that was deleted, beside everything
// else and until it is gone: what it holds is room on the disk, of which there may be
// none. What the end of the node leaves, the next one sweeps.
func (e *Env) remove(dir string, f func() error) {
	e.Host.GoTracked(func() { // "removing": ends with the folder, or with the node
		for wait := patienceFirst; ; wait = min(2*wait, patienceMost) {
			err := f()
			if err == nil || errors.Is(err, raftgroup.ErrClosed) {
				return
			}
			e.Logger.Warn("a deleted partition's folder was not removed, trying again", "folder", dir, "again", wait, "error", err)
			select {
			case <-e.Closing:
				return
			case <-time.After(wait):
			}
		}
	})
}

// remove deletes the folder, whose partition is closed.
func (s *site) remove() error {
	select {
	case s.env.Budget.removing <- struct{}{}:
		defer func() { <-s.env.Budget.removing }()
	case <-s.env.Closing:
		return raftgroup.ErrClosed // the next start sweeps
	}
	trash := s.dir + DeletedSuffix
	if err := os.RemoveAll(trash); err != nil {
		return err
	}
	if err := s.env.FS.Rename(s.dir, trash); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := segment.SyncDir(s.env.FS, filepath.Dir(s.dir)); err != nil {
		return err
	}
	if err := s.env.Votes.Forget(s.group); err != nil {
		return err
	}
	return os.RemoveAll(trash)
}
