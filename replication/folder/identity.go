package folder

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"millrace/replication/identity"
	"millrace/replication/metadata"
	"millrace/replication/transport"
	"millrace/segment"
)

// An Identity is who a node is, kept in node.json. The incarnation names the
// disk: a folder that lost its votes or its log gets a new one, so that it can
// neither vote nor acknowledge under the old name.
type Identity struct {
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

// Identity reads who the node is; ok is false in an empty folder.
func (f Folder) Identity() (id Identity, ok bool, err error) {
	path := f.Path(IdentityName)
	p, err := segment.ReadFile(f.FS, path, 1<<20)
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

// Peer is the node as its peers know it.
func (id Identity) Peer() transport.Peer {
	return transport.Peer{Node: id.Node, Incarnation: id.Incarnation}
}

// Name is the node as its certificate names it.
func (id Identity) Name() identity.Name {
	return identity.Name{Cluster: id.Cluster, Node: id.Node, Incarnation: id.Incarnation}
}

// Load reads who the node is, as Identity does, for its start.
// A node whose votes or metadata log are gone, or whose folder is an old copy, comes
// back as a new incarnation, which owns none of the partitions: their folder and their
// votes are set aside, not deleted.
func (f Folder) Load() (id Identity, ok bool, err error) {
	if id, ok, err = f.Identity(); err != nil || !ok {
		return id, ok, err
	}
	for _, path := range []string{f.Path(VotesName), f.MetaLog()} {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || id.Outdated {
			id, err = f.startAnew(id)
			return id, err == nil, err
		}
	}
	return id, true, nil
}

// startAnew sets aside what an incarnation had, and has the next one's name saved.
func (f Folder) startAnew(id Identity) (Identity, error) {
	// Its votes and terms too: under the new name they are nobody's, and a
	// term without a log would look like a log that was lost.
	aside := []string{PartitionsName, VotesName}
	if id.Outdated { // an old log of the controller's, under a name that is no longer ours
		aside = append(aside, MetaName)
	}
	for _, name := range aside {
		path := f.Path(name)
		if err := f.FS.Rename(path, path+"-"+id.Incarnation); err != nil && !errors.Is(err, os.ErrNotExist) {
			return id, err
		}
	}
	id.Incarnation, id.Founder, id.Rejoin, id.Outdated = NewIncarnation(), false, true, false
	return id, f.Save(id)
}

// Save writes who the node is. The first release skips a change of metadata that it cannot
// read, and would go on with another image than the folder's, in which a topic made
// anew has another one's group. So from level 2 on it does not find the cluster's id,
// refuses to start, and shows the file, which says why.
func (f Folder) Save(id Identity) error {
	if id.Level >= 2 {
		id.Cluster, id.ClusterID = "", id.Cluster
		id.Needs = fmt.Sprintf("a release that reads feature level %d", id.Level)
	}
	p, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return f.write(IdentityName, append(p, '\n'))
}

// NewRun returns a name for one start of a data folder.
func NewRun() string { return NewIncarnation() + NewIncarnation() }

// NewIncarnation returns a name for a disk.
func NewIncarnation() string {
	var p [4]byte
	rand.Read(p[:])
	return hex.EncodeToString(p[:])
}

// NewClusterID returns 16 random bytes as 22 characters of URL-safe base64,
// none of which begins with a dash (Kafka's Uuid).
func NewClusterID() string {
	for {
		var p [16]byte
		rand.Read(p[:])
		if s := base64.RawURLEncoding.EncodeToString(p[:]); s[0] != '-' {
			return s
		}
	}
}

// IsClusterID reports whether a text is one that NewClusterID may return.
func IsClusterID(s string) bool {
	p, err := base64.RawURLEncoding.DecodeString(s)
	// The decoder passes over ends of lines.
	return err == nil && len(p) == 16 && s[0] != '-' && s == base64.RawURLEncoding.EncodeToString(p)
}
