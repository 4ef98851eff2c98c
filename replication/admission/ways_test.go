package admission

import (
	"log/slog"
	"testing"
	"time"

	"millrace/replication/folder"
	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/segment"
)

// A node takes the certificate that it is given for the node that it is told it is, and for its
// own key and incarnation. Of any other it keeps nothing, and stays who it was.
func TestAnAnswerIsTakenAsItWasAskedFor(t *testing.T) {
	now := time.Now()
	a, err := identity.NewAuthority("cluster", now)
	if err != nil {
		t.Fatal(err)
	}
	authority, _, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := a.Grant(identity.Name{Cluster: "cluster", Node: 4, Incarnation: "d"}, request, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name        string
		cluster     string
		node        int32
		incarnation string
		way         way
		taken       bool
	}{
		{"as asked for", "cluster", 4, "d", way{key: key}, true},
		{"another node's", "cluster", 5, "d", way{key: key}, false},
		{"another cluster's", "another", 4, "d", way{key: key}, false},
		{"another incarnation's", "cluster", 4, "e", way{key: key}, false},
		{"for another key", "cluster", 4, "d", way{key: other}, false},
	} {
		ring := keyring.Open(folder.Folder{FS: segment.OS, Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
		c := &Candidate{cfg: Config{Keyring: ring}, identity: folder.Identity{Incarnation: tt.incarnation, Rejoin: true}}
		was := c.identity
		err := c.become(&tt.way, Answer{Cluster: tt.cluster, Node: tt.node, Certificate: granted, Authorities: [][]byte{authority}})
		switch {
		case tt.taken && (err != nil || ring.Was().Node != 4 || c.identity.Node != 4 || c.identity.Rejoin):
			t.Errorf("%s: %v, it is %+v", tt.name, err, c.identity)
		case !tt.taken && (err == nil || ring.Was() != (identity.Name{}) || c.identity != was):
			t.Errorf("%s: %v, it is %+v with the certificate of %v", tt.name, err, c.identity, ring.Was())
		}
	}
}
