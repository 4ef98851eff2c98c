package replication

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

func TestLineUp(t *testing.T) {
	voters := []raft.ServerID{"a", "b", "c"}
	for _, c := range []struct {
		name                string
		self                raft.ServerID
		open, coming        []raft.ServerID
		rank, line, present int
	}{
		{"all have it open", "b", voters, voters, 1, 3, 3},
		{"the first is about to open it", "b", []raft.ServerID{"b", "c"}, voters, 1, 3, 2},
		{"the first is away", "b", []raft.ServerID{"b", "c"}, []raft.ServerID{"b", "c"}, 0, 2, 2},
		{"the first died with it open", "c", []raft.ServerID{"b", "c"}, nil, 1, 2, 2},
		{"the first opens it as the last", "a", []raft.ServerID{"b", "c"}, voters, 0, 3, 3},
		{"alone", "c", nil, nil, 0, 1, 1},
		{"no voter", "d", voters, voters, -1, 3, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := func(ids []raft.ServerID) func(raft.ServerID) bool {
				return func(id raft.ServerID) bool { return slices.Contains(ids, id) }
			}
			rank, line, present := lineUp(voters, c.self, in(c.open), in(c.coming))
			if rank != c.rank || line != c.line || present != c.present {
				t.Errorf("rank %d, line %d, present %d; want %d, %d, %d", rank, line, present, c.rank, c.line, c.present)
			}
		})
	}
}
