package replication

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/testdata/ports"
)

// names knows which names on a disk are not durable yet: of a folder or a file that was
// made or renamed, until the folder it lies in is synced.
type names struct {
	mu      sync.Mutex
	pending map[string]bool
}

// saw is told of each operation before it happens.
func (s *names) saw(op, name string) (error, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = filepath.Clean(name)
	switch st, err := os.Stat(name); {
	case op == "mkdir" && err != nil:
		for ; err != nil; _, err = os.Stat(name) { // and the folders above that are not there
			s.pending[name] = true
			name = filepath.Dir(name)
		}
	case op == "open" && err != nil, op == "rename":
		s.pending[name] = true
	case op == "sync" && err == nil && st.IsDir():
		for p := range s.pending {
			if filepath.Dir(p) == name {
				delete(s.pending, p)
			}
		}
	}
	return nil, false
}

// durable fails the test for names that are not, unless they do not count: nobody relies
// on the last image, which is saved in the background, as here meanwhile.
func (s *names) durable(t *testing.T, when string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.pending {
		_, err := os.Stat(p)
		if err == nil && !strings.HasSuffix(p, ".tmp") && !strings.HasSuffix(p, "index") && filepath.Base(p) != controller.ImageName {
			t.Errorf("%s: a loss of power may take %s", when, p)
		}
	}
}

// TestNoNameIsLostThatIsReliedOn: a file that is synced is worth nothing if its name, or
// that of a folder above, goes with the power. The folders that Open makes are durable
// when it returns, the files that say who the node is when it is started, and a
// partition's folder before it acknowledges anything.
func TestNoNameIsLostThatIsReliedOn(t *testing.T) {
	s := &names{pending: map[string]bool{}}
	c := &testCluster{t: t, dir: t.TempDir()}
	n := &testNode{c: c, id: 1, dir: filepath.Join(c.dir, "new", "data"), disk: newTestDisk(), addr: ports.Hold(t, 1)[0]}
	if err := os.Mkdir(filepath.Dir(n.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	c.nodes = []*testNode{n}
	var metaSynced atomic.Bool
	n.disk.disturb(func(op, name string) (error, bool) {
		if op == "sync" && filepath.Base(name) == folder.MetaName {
			metaSynced.Store(true)
		}
		if op == "rename" && filepath.Base(name) == folder.IdentityName && !metaSynced.Swap(true) { // said once
			t.Errorf("%s is there before %s is durable, which has to be", folder.IdentityName, folder.LogName)
		}
		return s.saw(op, name)
	})
	if err := n.open(); err != nil {
		t.Fatal(err)
	}
	defer c.stop()
	s.durable(t, "opened")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	s.durable(t, "started")
	id := c.create("orders", 1, 1, nil)
	c.append(id, "a")
	s.durable(t, "acknowledged")
}
