package vote

import (
	"encoding/binary"
	"fmt"
	"runtime"
)

// A Group is one group's part of a Store, a raft.StableStore. Raft calls it from one
// goroutine; others may read.
type Group struct {
	store *Store
	group uint64
}

// Get returns a copy of what Set saved, or ErrNotFound.
func (g *Group) Get(key []byte) ([]byte, error) {
	return g.store.get(g.group, string(key))
}

// Set saves val and returns when it is on disk, at once if it is there already.
// Neither slice is retained. ErrClosed, and no other error.
//
// Raft saves a vote in two calls, SetUint64 of LastVoteTerm and Set of
// LastVoteCand. Both halves are written with the second.
func (g *Group) Set(key, val []byte) error {
	return g.store.set(g.group, string(key), val)
}

// GetUint64 returns what SetUint64 saved, the half of a vote that is not on disk yet
// included, or ErrNotFound.
func (g *Group) GetUint64(key []byte) (uint64, error) {
	data, err := g.store.get(g.group, string(key))
	if err != nil {
		return 0, err
	}
	if len(data) != 8 {
		return 0, fmt.Errorf("vote: %s of group %d has %d bytes, is not a number", key, g.group, len(data))
	}
	return binary.BigEndian.Uint64(data), nil
}

// SetUint64 saves a number as Set does, save that LastVoteTerm waits for its
// other half. ErrClosed, and no other error.
//
// SetUint64 of CurrentTerm does not return at all if the store is closed before the term
// is on disk: it ends the calling goroutine, see the package's comment. Raft calls it from
// its main goroutine; raft.BootstrapCluster does from its caller's, which must therefore
// not be one that others wait for.
func (g *Group) SetUint64(key []byte, val uint64) error {
	data := binary.BigEndian.AppendUint64(nil, val)
	if string(key) == lastVoteTerm {
		return g.store.stage(g.group, data)
	}
	err := g.store.set(g.group, string(key), data)
	if err != nil && string(key) == CurrentTerm {
		runtime.Goexit()
	}
	return err
}
