// Package rescue makes the node of one data folder go on without the others.
//
// When a majority of a cluster's disks is gone for good, or was restored to an old state
// and is refused, no group that they were the majority of elects a leader, and nobody
// new can join. What a survivor has is not lost, but only somebody's explicit word may
// make it the truth: what the others acknowledged without it is given up.
//
// No node runs in the folder meanwhile. Survey reads it and says what is there; Rescue of
// what it found is that word.
package rescue

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"millrace/log"
	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
	"millrace/replication/vote"
	"millrace/segment"
)

// Terms is how far above all terms that it knows a rescued group begins: further
// than the others can have got without this node. Clients see it in leader epochs.
const Terms = 1000

// A Survivor is what the folder of a node that is stopped has of a cluster that has lost
// its majority. Survey reads it.
type Survivor struct {
	Dir         string
	Cluster     string
	Node        int32
	Incarnation string
	// Outdated: this folder is itself a copy of one that had gone on.
	Outdated bool
	// Brokers are the other registered nodes, with where they were.
	Brokers []metadata.Broker
	// Change is the last change of metadata that is known here.
	Change uint64
	// Partitions are those of the cluster, here or not, by topic and number.
	Partitions []SurvivingPartition
}

// A SurvivingPartition is one partition as a Survivor has it.
type SurvivingPartition struct {
	Topic     string
	Partition int32
	// Start and End are the offsets that are here, [Start, End). What was committed up
	// to Committed is here for certain; beyond it this folder does not say what was
	// acknowledged, nor what else was: more than End, if others had it without this node.
	Start, Committed, End int64
	// Lost says why the partition cannot be led from here, "" if it can.
	Lost string

	id      metadata.PartitionID
	group   uint64
	dir     string
	last    uint64 // entry
	term    uint64 // of it
	replica string
}

// Survey reads the folder of a node that is stopped, and changes nothing in it. Every
// entry of every log is read, and takes its time.
func Survey(dir string) (*Survivor, error) {
	id, ok, err := folder.Folder{FS: segment.OS, Dir: dir}.Identity()
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("%s is no data folder of a node: there is no %s", dir, folder.IdentityName)
	case id.Rejoin:
		return nil, fmt.Errorf("%s has set aside what it had, as a new incarnation: only a folder that has votes and metadata can go on alone", dir)
	}
	s := &Survivor{Dir: dir, Cluster: id.Cluster, Node: id.Node, Incarnation: id.Incarnation, Outdated: id.Outdated}
	for _, path := range s.stores() {
		db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
		if errors.Is(err, bbolterrors.ErrTimeout) {
			return nil, fmt.Errorf("%s is in use; stop its node first", dir)
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		if err := db.Close(); err != nil {
			return nil, err
		}
	}
	image, err := controller.LastImage(s.folder().Path(folder.MetaName))
	if err != nil {
		return nil, err
	}
	s.Change = image.Index
	for _, b := range image.Brokers() {
		if b.ID != id.Node {
			s.Brokers = append(s.Brokers, *b)
		}
	}
	for _, t := range image.Topics() {
		for i := range t.Partitions {
			part := SurvivingPartition{Topic: t.Name, Partition: int32(i), id: metadata.PartitionID{Topic: t.ID, Index: int32(i)}}
			part.dir = filepath.Join(dir, folder.PartitionsName, partition.FolderName(part.id))
			if slices.Contains(t.Partitions[i].Replicas, id.Node) {
				part.survey(t.Partitions[i].Group, string(id.Peer().ServerID()))
			} else {
				part.Lost = fmt.Sprintf("it was on %s", nodes(t.Partitions[i].Replicas))
			}
			s.Partitions = append(s.Partitions, part)
		}
	}
	return s, nil
}

func (s *Survivor) folder() folder.Folder { return folder.Folder{FS: segment.OS, Dir: s.Dir} }

// stores are the files that a node holds while it runs.
func (s *Survivor) stores() []string {
	return []string{s.folder().Path(folder.VotesName), s.folder().MetaLog()}
}

func nodes(ids []int32) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, fmt.Sprint("node ", id))
	}
	return strings.Join(texts, ", ")
}

// survey reads a partition's log.
func (p *SurvivingPartition) survey(group uint64, self string) {
	p.group = group
	found, err := partition.Inspect(segment.OS, p.dir, group)
	if err != nil {
		p.Lost = err.Error()
		return
	}
	p.Start, p.End, p.Committed, p.last, p.term = found.Start, found.End, found.Committed, found.Last, found.Term
	p.replica = self
	voter := func(m raft.Server) bool { return string(m.ID) == self && m.Suffrage == raft.Voter }
	switch {
	case p.last == 0:
		p.Lost = "nothing of it is here"
	case !slices.ContainsFunc(found.Members.Servers, voter):
		p.Lost = "it was still catching up here"
	}
}

// Rescue makes the node the only voter of the controllers and of every partition that
// can be led from here, so that it goes on alone when it is started. All that it has
// counts as committed then, and what only the others had is lost. Their folders must not
// be started again but empty, or where they are told that they are old copies. It may be
// repeated after a crash.
func (s *Survivor) Rescue() error {
	id, ok, err := s.folder().Identity()
	if err != nil || !ok {
		return fmt.Errorf("read %s again: %w", s.Dir, err)
	}
	self := id.Peer().ServerID()
	alone := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: self, Address: raft.ServerAddress(self)},
	}})
	votes, err := s.folder().OpenVotes(vote.Config{})
	if err != nil {
		return err
	}
	defer votes.Close()
	for i := range s.Partitions {
		if p := &s.Partitions[i]; p.Lost == "" {
			if err := p.rescue(id, votes.Group(p.group), alone); err != nil {
				return fmt.Errorf("%s/%d: %w", p.Topic, p.Partition, err)
			}
		}
	}
	if err := s.rescueControllers(alone); err != nil {
		return fmt.Errorf("the controllers: %w", err)
	}
	if id.Outdated {
		id.Outdated = false
		return s.folder().Save(id)
	}
	return nil
}

// rescue ends the partition's log with a configuration of this replica alone. The term
// is raised first: an entry of a term that the votes do not know would be damage.
func (p *SurvivingPartition) rescue(id folder.Identity, stable *vote.Group, alone []byte) error {
	term, err := stable.GetUint64([]byte(vote.CurrentTerm))
	if err != nil && !errors.Is(err, vote.ErrNotFound) {
		return err
	}
	l, err := log.Open(p.dir, segment.Identity{
		Cluster: id.Cluster, Topic: p.id.Topic, Partition: p.id.Index, Replica: p.replica,
	}, log.Config{SegmentBytes: math.MaxInt32, FlushMessages: 1})
	if err != nil {
		return err
	}
	defer l.Close(true)
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	if last != p.last {
		return fmt.Errorf("%s ends at entry %d, and did at %d when it was surveyed", p.dir, last, p.last)
	}
	term = max(term, p.term) + Terms
	if err := stable.SetUint64([]byte(vote.CurrentTerm), term); err != nil {
		return err
	}
	return l.StoreLog(&raft.Log{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: alone})
}

// rescueControllers does the same to the controllers' log.
func (s *Survivor) rescueControllers(alone []byte) error {
	dir := s.folder().Path(folder.MetaName)
	db, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, folder.LogName), MsgpackUseNewTimeFormat: true, BoltOptions: &bbolt.Options{Timeout: time.Second},
	})
	if err != nil {
		return err
	}
	defer db.Close()
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, raftgroup.NewLogger(slog.New(slog.DiscardHandler), new(raftgroup.LogLimits)))
	if err != nil {
		return err
	}
	list, err := snapshots.List()
	if err != nil {
		return err
	}
	var at, lastTerm uint64
	if len(list) > 0 {
		at, lastTerm = list[0].Index, list[0].Term
	}
	last, err := db.LastIndex()
	if err != nil {
		return err
	}
	if last > at {
		var l raft.Log
		if err := db.GetLog(last, &l); err != nil {
			return err
		}
		at, lastTerm = last, l.Term
	}
	term, err := db.GetUint64([]byte(vote.CurrentTerm))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	term = max(term, lastTerm) + Terms
	if err := db.SetUint64([]byte(vote.CurrentTerm), term); err != nil {
		return err
	}
	return db.StoreLog(&raft.Log{Index: at + 1, Term: term, Type: raft.LogConfiguration, Data: alone})
}
