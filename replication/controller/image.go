package controller

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
	"millrace/segment"
)

// The image that was applied last is kept beside the controller group's log, so that
// a node which starts opens its partitions from it. Raft alone would apply nothing
// before the group has a leader, and partitions whose own replicas are all there
// would wait for a quorum of controllers.
const ImageName = "image"

const (
	imageMagic  = "MLIM"
	imageFormat = 1
	imageHead   = 24
	// imageEvery is how often the file is written at most, but for snapshots.
	imageEvery = time.Second
)

// castagnoli is the polynomial of the image's checksum.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errImageDamaged = errors.New("controller: last image is damaged")

// encodeLastImage returns the file:
//
//	 0  magic    "MLIM"
//	 4  version  u32 = 1
//	 8  index    u64, of the last change in the image
//	16  length   u32, of the image
//	20  crc      u32, CRC-32C of the bytes before it and of the image
//	24  image, as in the controller group's snapshots
func encodeLastImage(image *metadata.Image) []byte {
	body := image.Encode()
	p := make([]byte, imageHead, imageHead+len(body))
	copy(p, imageMagic)
	binary.BigEndian.PutUint32(p[4:], imageFormat)
	binary.BigEndian.PutUint64(p[8:], image.Index)
	binary.BigEndian.PutUint32(p[16:], uint32(len(body)))
	binary.BigEndian.PutUint32(p[20:], crc32.Update(crc32.Checksum(p[:20], castagnoli), castagnoli, body))
	return append(p, body...)
}

func decodeLastImage(p []byte) (*metadata.Image, error) {
	if len(p) < imageHead || string(p[:4]) != imageMagic {
		return nil, fmt.Errorf("%w: %d bytes, of which the first should be %q", errImageDamaged, len(p), imageMagic)
	}
	if v := binary.BigEndian.Uint32(p[4:]); v != imageFormat {
		return nil, fmt.Errorf("%w: version %d, want %d", errImageDamaged, v, imageFormat)
	}
	body := p[imageHead:]
	if n := binary.BigEndian.Uint32(p[16:]); int64(n) != int64(len(body)) {
		return nil, fmt.Errorf("%w: %d bytes of image, want %d", errImageDamaged, len(body), n)
	}
	sum := crc32.Update(crc32.Checksum(p[:20], castagnoli), castagnoli, body)
	if want := binary.BigEndian.Uint32(p[20:]); sum != want {
		return nil, fmt.Errorf("%w: checksum %08x, want %08x", errImageDamaged, sum, want)
	}
	image, err := metadata.DecodeImage(body)
	if err != nil {
		return nil, err
	}
	if index := binary.BigEndian.Uint64(p[8:]); index != image.Index {
		return nil, fmt.Errorf("%w: index %d, and %d in the image", errImageDamaged, index, image.Index)
	}
	return image, nil
}

// imagePath is where the last image is.
func (c *Controller) imagePath() string { return filepath.Join(filepath.Dir(c.cfg.Log), ImageName) }

// LastImage reads the image that was saved last in a folder, whether its node runs or not.
// It is at most a second older than what the node knows.
func LastImage(dir string) (*metadata.Image, error) {
	path := filepath.Join(dir, ImageName)
	p, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	image, err := decodeLastImage(p)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return image, nil
}

// loadImage takes up the last image, if there is one that the log and the snapshots
// reach. Without it the node waits for the controller, as it would have to.
func (c *Controller) loadImage(lastIndex uint64, snapshots raft.SnapshotStore) {
	path := c.imagePath()
	p, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		var image *metadata.Image
		if image, err = decodeLastImage(p); err == nil {
			if list, failed := snapshots.List(); failed == nil && len(list) > 0 {
				lastIndex = max(lastIndex, list[0].Index)
			}
			switch {
			case image.ClusterID != c.cfg.Cluster:
				err = fmt.Errorf("it is of cluster %s, this node of %s", image.ClusterID, c.cfg.Cluster)
			case image.Index > lastIndex:
				err = fmt.Errorf("it stands at change %d, and the log ends at %d", image.Index, lastIndex)
			default:
				c.take(image)
				return
			}
		}
	}
	c.cfg.Logger.Warn("the last image is not used; partitions open when there is a controller", "path", path, "error", err)
}

// saveImages keeps the last image, once a second at most or when it is asked to, until
// the node ends. What was not saved is tried again after as long.
func (c *Controller) saveImages() {
	saved, failed := c.loaded, false
	path := c.imagePath()
	save := func() {
		image := c.image.Load()
		if image.Index == saved || image.ClusterID == "" {
			return
		}
		if _, err := segment.WriteFile(c.cfg.FS, path, encodeLastImage(image)); err != nil {
			if !failed {
				c.cfg.Logger.Warn("the last image was not saved, trying again", "path", path, "error", err)
			}
			failed = true
			return
		}
		saved, failed = image.Index, false
	}
	for {
		changed := c.Changed()
		save()
		select { // what changes within the second is saved after it
		case <-time.After(imageEvery):
		case <-c.saveNow:
			continue
		case <-c.cfg.Closing:
			save()
			return
		}
		if failed {
			continue
		}
		select {
		case <-changed:
		case <-c.saveNow:
		case <-c.cfg.Closing:
			save()
			return
		}
	}
}

// applied notes that Raft has given the state machine everything up to index, and
// tells whether the image has that already: after a start from the last image, Raft
// applies again what led to it.
func (c *Controller) applied(index uint64) (already bool) {
	c.given.Store(index)
	return index <= c.loaded
}

// replays tells whether the image is still ahead of what Raft has applied. A snapshot
// taken now would stand at an index before its image's.
func (c *Controller) replays() bool { return c.given.Load() < c.loaded }

// errReplays refuses a snapshot.
var errReplays = errors.New("controller: changes that the last image holds are being applied again")

// lastChange is the index of the last change of the cluster that a log has behind index
// loaded, which the image stands at; loaded if there is none.
func lastChange(db raft.LogStore, last, loaded uint64) (uint64, error) {
	for i := last; i > loaded; i-- {
		var l raft.Log
		if err := db.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			break // below it, all is in a snapshot
		} else if err != nil {
			return 0, fmt.Errorf("read entry %d of the controller's log: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
	}
	return loaded, nil
}

// reached notes that the image has what led to index.
func (c *Controller) reached(index uint64) {
	if index < c.replayTo {
		return
	}
	c.all.Store(true)
	c.noteReplayed()
}

// noteReplayed closes replayed once the image has it all and may be acted upon.
func (c *Controller) noteReplayed() {
	if c.runs.Load() && c.all.Load() {
		c.once.Do(func() { close(c.replayed) })
	}
}

// Replayed returns a channel that is closed once the image has all that this node's log
// had of the cluster's changes when it started. The last image may be a second older, and
// what was created in that second is not in it; Raft applies that once the controller
// group has a leader. If the end of that log has lost to another leader's, the next change
// tells: each node that starts makes one.
func (c *Controller) Replayed() <-chan struct{} { return c.replayed }
