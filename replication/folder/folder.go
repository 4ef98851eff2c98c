// Package folder is a node's data folder, but for what partitions and metadata are: who the
// node is, how old the folder is, where the others were, whom a join asked, and that the
// votes and the metadata log have room to grow.
//
//	node.json          who the node is: Identity
//	starts             how far the folder has come: Age
//	peers.json         where the other nodes were
//	joining            whom a join asked that was not finished
//	node.pem           the node's private key and certificate, for nobody else to read
//	stable.db          votes and terms of all groups: package vote
//	meta/              the controllers' log, snapshots and the last image
//	partitions/        a folder for each partition
//	partitions-01ab…/  those of an earlier incarnation, set aside
package folder

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"millrace/segment"
)

// What is in a data folder.
const (
	IdentityName    = "node.json"
	AgeName         = "starts" // called by what it counted first
	PeersName       = "peers.json"
	JoiningName     = "joining"
	CredentialsName = "node.pem"
	VotesName       = "stable.db"
	MetaName        = "meta"
	LogName         = "raft.db" // in MetaName
	PartitionsName  = "partitions"
)

// A Folder is one node's data folder. Its methods may be called by any goroutine, those
// that write the same file by one at a time.
type Folder struct {
	FS  segment.FS
	Dir string
}

// Path is where something in the folder is.
func (f Folder) Path(name ...string) string {
	return filepath.Join(f.Dir, filepath.Join(name...))
}

// MetaLog is where the controllers' log is.
func (f Folder) MetaLog() string { return f.Path(MetaName, LogName) }

// write makes a file hold p, whole or not at all, and durably: see segment.WriteFile.
func (f Folder) write(name string, p []byte) error {
	_, err := segment.WriteFile(f.FS, f.Path(name), p)
	return err
}

// Make makes the folder and those in it, and their names durable: what lies in a folder
// is worth nothing if a crash takes the folder.
func (f Folder) Make() error {
	_, err := os.Stat(f.Dir)
	made := errors.Is(err, os.ErrNotExist)
	for _, name := range []string{PartitionsName, MetaName} {
		if err := f.FS.MkdirAll(f.Path(name)); err != nil {
			return err
		}
	}
	// The controllers' log and snapshots have the keys of the cluster's authorities and the
	// verifiers of passwords, the partitions everybody's records; what an older release made
	// below is open to all. Where the file system knows no permissions, or the folder is
	// another user's who lets us write, it stays as it was set up.
	for _, name := range []string{PartitionsName, MetaName} {
		if err := os.Chmod(f.Path(name), 0o700); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	if err := segment.SyncDir(f.FS, f.Dir); err != nil || !made {
		return err
	}
	// A folder above may be one in which we may make names and not read them.
	if err := segment.SyncDir(f.FS, filepath.Dir(filepath.Clean(f.Dir))); !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}

// fewFiles may lie in a folder before a node is started in it: a configuration, what its
// output goes to, a note of whoever set it up.
const fewFiles = 3

// Strange names some of what is in a folder, if that shows that it is for something else
// than a node, such as the one somebody works in: folders, or more than a few files. Then
// no node is started in it. What a node leaves, node.json or not, shows the opposite.
func Strange(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // there is none yet
	}
	folders := false
	for _, e := range entries {
		switch name := e.Name(); {
		case name == IdentityName, name == VotesName, name == MetaName, name == PartitionsName, name == PeersName, name == AgeName, name == JoiningName, name == CredentialsName:
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

// SaveCredentials keeps what the node proves who it is by, for nobody but its user to read.
func (f Folder) SaveCredentials(p []byte) error {
	// The file is made before there is anything in it, since segment.FS knows no modes.
	aside := f.Path(CredentialsName) + segment.AsideSuffix
	made, err := os.OpenFile(aside, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = made.Chmod(0o600) // it may have been left by a crash
	if err := errors.Join(err, made.Close()); err != nil {
		return err
	}
	return f.write(CredentialsName, p)
}

// Peers reads the addresses that other nodes had when they were last heard of. Without
// the file there are none.
func (f Folder) Peers() map[int32]string {
	peers := make(map[int32]string)
	if p, err := os.ReadFile(f.Path(PeersName)); err == nil {
		if json.Unmarshal(p, &peers) != nil {
			return make(map[int32]string) // a hint that is lost costs nothing
		}
	}
	return peers
}

// SavePeers keeps them.
func (f Folder) SavePeers(peers map[int32]string) error {
	p, err := json.Marshal(peers)
	if err != nil {
		return err
	}
	return f.write(PeersName, append(p, '\n'))
}

// A joining is what notes a join from its first try to node.json: who is started again
// without an address to join goes on with it.
type joining struct {
	Join []string `json:"join"`
}

// Joining returns whom a join asked that was not finished; nobody if none was begun.
func (f Folder) Joining() (join []string, err error) {
	p, err := os.ReadFile(f.Path(JoiningName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var j joining
	if err == nil {
		err = json.Unmarshal(p, &j)
	}
	if err == nil && len(j.Join) == 0 {
		err = errors.New("it names no node")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: a join was begun in this folder, and it cannot be read whom it asked: %w", f.Path(JoiningName), err)
	}
	return j.Join, nil
}

// BeginJoin notes a join, before the first node is asked.
func (f Folder) BeginJoin(join []string) error {
	p, err := json.Marshal(joining{Join: join})
	if err != nil {
		return err
	}
	return f.write(JoiningName, append(p, '\n'))
}

// EndJoin removes the note, once node.json says more.
func (f Folder) EndJoin() error {
	err := os.Remove(f.Path(JoiningName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
