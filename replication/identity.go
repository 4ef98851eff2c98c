package replication

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
	"millrace/replication/transport"
	"millrace/segment"
)

// An identity is who a node is, kept in node.json. The incarnation names the
// disk: a folder that lost its votes or its log gets a new one, so that it can
// neither vote nor acknowledge under the old name.
type identity struct {
	Cluster     string `json:"cluster,omitempty"` // 22 characters of base64, as Kafka's
	Node        int32  `json:"node"`              // 1 or more
	Incarnation string `json:"incarnation"`       // 8 hex digits
	Founder     bool   `json:"founder,omitempty"` // this node founded the cluster
	Rejoin      bool   `json:"rejoin,omitempty"`  // a new incarnation that the cluster does not know yet
	// Outdated: the cluster knows of starts of this incarnation that this folder does
	// not: it is a copy.
	Outdated bool `json:"outdated,omitempty"`
	// Doubted is the cluster whose nodes looked for this one just after it had founded
	// its own.
	Doubted string `json:"doubted,omitempty"`
	// Level is the feature level at which the folder was written, 0 below level 2. From
	// there on the file has the cluster's id as ClusterID: see save.
	Level     int32  `json:"level,omitempty"`
	ClusterID string `json:"clusterId,omitempty"` // in the file only
	Needs     string `json:"needs,omitempty"`     // in the file only
}

const (
	identityName   = "node.json"
	peersName      = "peers.json"
	stableName     = "stable.db"
	metaName       = "meta"
	raftName       = "raft.db"
	partitionsName = "partitions"
)

// fewFiles may lie in a folder before a node is started in it: a configuration, what its
// output goes to, a note of whoever set it up.
const fewFiles = 3

// Strange names some of what is in a folder, if that shows that it is for something else
// than a node, such as the one somebody works in: folders, or more than a few files. Then
// Open refuses it. What a node leaves, node.json or not, shows the opposite.
func Strange(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // there is none yet
	}
	folders := false
	for _, e := range entries {
		switch name := e.Name(); {
		case name == identityName, name == stableName, name == metaName, name == partitionsName, name == peersName, name == ageName, name == joiningName:
			return nil
		case strings.HasPrefix(name, "."), name == "lost+found":
		default:
			if e.IsDir() {
				folders = true
				name += string(filepath.Separator)
			}
			names = append(names, name)
		}
	}
	if !folders && len(names) <= fewFiles {
		return nil
	}
	if len(names) > fewFiles {
		names = append(names[:fewFiles], "…")
	}
	return names
}

// readIdentity reads who the node in dir is; ok is false in an empty folder.
func readIdentity(fs segment.FS, dir string) (id identity, ok bool, err error) {
	path := filepath.Join(dir, identityName)
	p, err := segment.ReadFile(fs, path, 1<<20)
	if errors.Is(err, os.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, err
	}
	if err := json.Unmarshal(p, &id); err != nil {
		return id, false, fmt.Errorf("read %s: %w", path, err)
	}
	if id.Level > metadata.MaxLevel {
		return id, false, fmt.Errorf("read %s: the folder was written at feature level %d, this release reads levels up to %d: upgrade it", path, id.Level, metadata.MaxLevel)
	}
	if id.ClusterID != "" {
		id.Cluster, id.ClusterID, id.Needs = id.ClusterID, "", ""
	}
	if id.Cluster == "" || id.Node < 1 || id.Incarnation == "" {
		return id, false, fmt.Errorf("read %s: cluster, node and incarnation must be set; found %s", path, p)
	}
	return id, true, nil
}

// serverID is the node's name in Raft groups.
func (id identity) serverID() raft.ServerID {
	return transport.Peer{Node: id.Node, Incarnation: id.Incarnation}.ServerID()
}

// loadIdentity reads who the node in dir is, as readIdentity does, for its start.
// A node whose votes or metadata log are gone, or whose folder is an old copy, comes
// back as a new incarnation, which owns none of the partitions: their folder and their
// votes are set aside, not deleted.
func loadIdentity(fs segment.FS, dir string) (id identity, ok bool, err error) {
	if id, ok, err = readIdentity(fs, dir); err != nil || !ok {
		return id, ok, err
	}
	for _, name := range []string{stableName, filepath.Join(metaName, raftName)} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, os.ErrNotExist) || id.Outdated {
			aside := filepath.Join(dir, partitionsName+"-"+id.Incarnation)
			if err := fs.Rename(filepath.Join(dir, partitionsName), aside); err != nil && !errors.Is(err, os.ErrNotExist) {
				return id, false, err
			}
			// Its votes and terms too: under the new name they are nobody's, and a
			// term without a log would look like a log that was lost.
			stable := filepath.Join(dir, stableName)
			if err := fs.Rename(stable, stable+"-"+id.Incarnation); err != nil && !errors.Is(err, os.ErrNotExist) {
				return id, false, err
			}
			if id.Outdated { // an old log of the controller's, under a name that is no longer ours
				meta := filepath.Join(dir, metaName)
				if err := fs.Rename(meta, meta+"-"+id.Incarnation); err != nil && !errors.Is(err, os.ErrNotExist) {
					return id, false, err
				}
			}
			id.Incarnation, id.Founder, id.Rejoin, id.Outdated = newIncarnation(), false, true, false
			return id, true, id.save(fs, dir)
		}
	}
	return id, true, nil
}

// save writes the file. The first release skips a change of metadata that it cannot
// read, and would go on with another image than the folder's, in which a topic made
// anew has another one's group. So from level 2 on it does not find the cluster's id,
// refuses to start, and shows the file, which says why.
func (id identity) save(fs segment.FS, dir string) error {
	if id.Level >= 2 {
		id.Cluster, id.ClusterID = "", id.Cluster
		id.Needs = fmt.Sprintf("a release that reads feature level %d", id.Level)
	}
	p, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(fs, filepath.Join(dir, identityName), append(p, '\n'))
}

// newRun returns a name for one start of a data folder.
func newRun() string { return newIncarnation() + newIncarnation() }

func newIncarnation() string {
	var p [4]byte
	rand.Read(p[:])
	return hex.EncodeToString(p[:])
}

// newClusterID returns 16 random bytes as 22 characters of URL-safe base64,
// none of which begins with a dash (Kafka's Uuid).
func newClusterID() string {
	for {
		var p [16]byte
		rand.Read(p[:])
		if s := base64.RawURLEncoding.EncodeToString(p[:]); s[0] != '-' {
			return s
		}
	}
}

// loadPeers reads the addresses that other nodes had when they were last
// heard of. Without the file there are none.
func loadPeers(dir string) map[int32]string {
	peers := make(map[int32]string)
	if p, err := os.ReadFile(filepath.Join(dir, peersName)); err == nil {
		if json.Unmarshal(p, &peers) != nil {
			return make(map[int32]string) // a hint that is lost costs nothing
		}
	}
	return peers
}

func savePeers(fs segment.FS, dir string, peers map[int32]string) error {
	p, err := json.Marshal(peers)
	if err != nil {
		return err
	}
	return replaceFile(fs, filepath.Join(dir, peersName), append(p, '\n'))
}
