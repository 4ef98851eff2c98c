package replication

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/replication/partition"
)

// noteEvery is after how long the cluster's level is noted again that could not be.
const noteEvery = time.Second

// openAtOnce limits how many partitions open at the same time.
const openAtOnce = 8

// strangeAfter is how long a folder that no image explains is given before that is logged.
const strangeAfter = 10 * time.Second

// A reconciler makes what is open here follow one image after the other. It looks only
// at the topics that a step between them touched, so that a hundred changes of a cluster
// of ten thousand partitions do not cost a million partitions' worth.
type reconciler struct {
	n     *Node
	limit chan struct{} // has a place for each partition that may open at the same time

	image  *metadata.Image                               // that was followed last; nil before the first
	id     int32                                         // of this node, then; 0 before it joined
	absent map[metadata.PartitionID]*partition.Partition // open, of no topic in image, but nothing says that it was deleted
}

func newReconciler(n *Node) *reconciler {
	return &reconciler{n: n, limit: make(chan struct{}, openAtOnce)}
}

// loop makes what is open here follow the image.
func (r *reconciler) loop() {
	var strange []string    // folders that no image explains yet
	before := r.n.folders() // those that this run makes need no explanation, and are half made for a moment
	swept := false
	settled := time.After(strangeAfter)
	var unnoted <-chan time.Time // nil: node.json has the level
	for {
		select {
		case <-r.n.closing:
			return
		case <-r.n.reconcileWake:
		case <-unnoted:
		case <-settled:
			for _, dir := range strange {
				r.n.logger.Warn("a folder belongs to no partition of this cluster; it is left alone", "folder", dir)
			}
			continue
		}
		image := r.n.Image()
		if image.ClusterID == "" {
			continue
		}
		if unnoted = nil; !r.n.standing.NoteLevel(image.Level()) {
			unnoted = time.After(noteEvery)
		}
		r.n.book.SetPeers()
		r.n.registrar.stay(image)
		r.follow(image)
		if _, registered := image.Broker(r.n.identity.Node); registered && !swept {
			strange = r.sweep(image, before)
			swept = true
		} else if len(strange) > 0 {
			strange = r.sweep(image, strange)
		}
	}
}

// follow opens the partitions that the image places here, brings settings up to date,
// and removes the ones whose deletion the image holds.
func (r *reconciler) follow(image *metadata.Image) {
	var changed, gone []*metadata.Topic
	if r.image == nil {
		changed = image.Topics()
		r.absent = r.n.all()
	} else if changed, gone = image.Difference(r.image); r.id != r.n.identity.Node || !image.SameBrokerConfigs(r.image) {
		changed = image.Topics() // the settings of each may be others
	}
	for _, t := range changed {
		r.place(image, t)
	}
	for _, t := range gone {
		for i := range t.Partitions {
			id := metadata.PartitionID{Topic: t.ID, Index: int32(i)}
			if p, err := r.n.Partition(id); err == nil {
				r.absent[id] = p
			}
		}
	}
	var removed []*partition.Partition
	for id, p := range r.absent {
		if _, ok := image.TopicByID(id.Topic); ok {
			delete(r.absent, id)
		} else if r.n.dropped.deleted(image, id.Topic, p.Group()) {
			delete(r.absent, id)
			r.n.remove(id, p)
			removed = append(removed, p)
		}
	}
	if r.image == nil || len(gone) > 0 {
		r.n.failover.Forget()
	}
	for _, p := range removed {
		p.Remove()
	}
	r.image, r.id = image, r.n.identity.Node
}

// place opens what the image places here of a topic, and has what is open already use the
// topic's settings.
func (r *reconciler) place(image *metadata.Image, t *metadata.Topic) {
	set := image.Settings(r.n.identity.Node, r.n.cfg.Settings).Topic(t.Config)
	for i := range t.Partitions {
		part := &t.Partitions[i]
		id := metadata.PartitionID{Topic: t.ID, Index: int32(i)}
		p, err := r.n.Partition(id)
		switch {
		case err == nil:
			p.Configure(set)
		case slices.Contains(part.Replicas, r.n.identity.Node):
			r.host(id, t, part, set)
		}
	}
}

// droppedTopics are those whose deletion was applied here, which an image below feature
// level 2 does not remember. The zero value has none.
type droppedTopics struct {
	mu     sync.Mutex
	topics map[metadata.TopicID]bool
}

// add notes one.
func (d *droppedTopics) add(topic metadata.TopicID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.topics == nil {
		d.topics = make(map[metadata.TopicID]bool)
	}
	d.topics[topic] = true
}

// deleted tells whether a committed change deleted a group that the image does not
// mention: the image says so, or the change was applied here. That it is missing is
// not enough; a leader's snapshot may be anything.
func (d *droppedTopics) deleted(image *metadata.Image, topic metadata.TopicID, group uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return image.Deleted(group) || d.topics[topic]
}

// host makes a partition's replica live here.
func (r *reconciler) host(id metadata.PartitionID, t *metadata.Topic, part *metadata.Partition, set settings.Topic) {
	p := partition.New(r.n.env, id, t.Name, part.Group, r.n.folder.Path(folder.PartitionsName, partition.FolderName(id)), set)
	r.n.add(id, p)
	r.limit <- struct{}{}
	r.n.goTracked(func() {
		defer func() { <-r.limit }()
		p.Open()
	})
}

// folders lists the partition folders that are there.
func (n *Node) folders() (dirs []string) {
	root := n.folder.Path(folder.PartitionsName)
	entries, err := os.ReadDir(root)
	if err != nil {
		n.logger.Warn("partition folders were not looked through", "error", err)
	}
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(root, e.Name()))
	}
	return dirs
}

// sweep looks, after the start, for folders that the image does not mention.
// Those whose group the image says was deleted were, by a committed change while
// this node was away; any other is left alone.
//
// It returns those of which the image does not say so yet. The first images
// after a start may be old, and a topic that was made and deleted later may never
// be seen in one; a later image tells.
func (r *reconciler) sweep(image *metadata.Image, dirs []string) (strange []string) {
	for _, dir := range dirs {
		if strings.HasSuffix(dir, partition.DeletedSuffix) {
			partition.RemoveFolder(r.n.env, 0, dir)
			continue
		}
		group, err := partition.GroupIn(dir)
		_, known := image.Group(group)
		switch {
		case errors.Is(err, os.ErrNotExist) && nothingIn(dir):
		case err != nil || group == 0:
			r.n.logger.Warn("a folder does not say which partition it belongs to; it is left alone", "folder", dir, "error", err)
		case known:
		case !image.Deleted(group):
			strange = append(strange, dir)
		default:
			r.n.logger.Info("removing a partition that was deleted while this node was away", "folder", dir)
			partition.RemoveFolder(r.n.env, group, dir)
		}
	}
	return strange
}

// nothingIn tells whether a folder is empty, or gone by now.
func nothingIn(dir string) bool {
	entries, err := os.ReadDir(dir)
	return errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0
}
