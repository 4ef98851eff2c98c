package replication

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/admission"
	"millrace/replication/folder"
	"millrace/testdata/ports"
)

// launch opens and starts a node of its own on loopback, with what adjust says.
func launch(t *testing.T, n *testNode, adjust func(*Config)) error {
	t.Helper()
	n.adjust = adjust
	return n.tryStart(20 * time.Second)
}

// A join that was cut short leaves a folder with nothing in it but the note that it was
// begun. Started again without --join the node goes on with it, and founds nothing.
func TestCutShortJoinIsGoneOnWith(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	first := c.nodes[0]
	where := first.addr
	n := &testNode{c: c, id: 2, addr: ports.Hold(t, 1)[0], dir: filepath.Join(c.dir, "node-2"), disk: newTestDisk()}
	defer n.stop()
	first.stop()
	n.adjust = func(cfg *Config) { cfg.Join = []string{where} }
	if err := n.tryStart(100 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("joined a node that is away: %v", err)
	}
	n.stop()
	if _, err := os.Stat(filepath.Join(n.dir, folder.IdentityName)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("it is somebody already: %v", err)
	}
	first.start()
	if err := launch(t, n, func(cfg *Config) { cfg.Join = nil }); err != nil {
		t.Fatal(err)
	}
	if n.ClusterID() != first.ClusterID() {
		t.Errorf("it is of cluster %s, not %s", n.ClusterID(), first.ClusterID())
	}
	if _, err := os.Stat(filepath.Join(n.dir, folder.JoiningName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the note is still there: %v", err)
	}
	other := &testNode{c: c, id: 3, addr: ports.Hold(t, 1)[0], dir: filepath.Join(c.dir, "node-3"), disk: newTestDisk()}
	if err := os.MkdirAll(other.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other.dir, folder.JoiningName), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := launch(t, other, func(cfg *Config) { cfg.Join = nil }); !errors.Is(err, admission.ErrJoinUnread) {
		t.Errorf("a note that cannot be read: %v", err)
	}
	defer other.stop()
	if err := launch(t, other, func(cfg *Config) { cfg.Join, cfg.Found, cfg.NodeID = nil, true, 0 }); err != nil {
		t.Errorf("told to found one all the same: %v", err)
	}
}

// Who waits for a join hears whom the node asks and what they say, and not before
// nodes that start together have found each other.
func TestJoinThatNobodyAnswersIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1, memnet.New())
		defer func() {
			c.stop()
			time.Sleep(time.Minute)
		}()
		n := &testNode{c: c, id: 2, addr: "n2:9092", dir: filepath.Join(c.dir, "node-2"), disk: newTestDisk()}
		defer n.stop()
		n.adjust = func(cfg *Config) { cfg.Join = []string{"nowhere:9092"} }
		for _, after := range []struct {
			waited time.Duration
			lines  int
		}{{time.Second, 0}, {15 * time.Second, 2}} {
			if err := n.tryStart(after.waited); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			n.stop()
			if lines := n.log.count("not a member of a cluster yet"); lines != after.lines {
				t.Errorf("%d lines in %v, want %d", lines, after.waited, after.lines)
			}
		}
	})
}

// A node loses its disk and is started without --join: the founder of the cluster as it
// was the first time, or another one, which then gives itself the founder's id. The
// others still look for it, which is how it knows.
func TestWipedNodeFoundsNoSecondCluster(t *testing.T) {
	for _, run := range []struct {
		wiped   int
		listens bool
	}{{0, true}, {0, false}, {2, true}, {2, false}} {
		listens := run.listens
		t.Run(fmt.Sprintf("%+v", run), func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				c.settled()
				n := c.nodes[run.wiped]
				id := c.create("orders", 1, 3, nil)
				c.append(id, "kept")
				was := n.ClusterID()
				n.stop()
				if err := os.RemoveAll(n.dir); err != nil {
					t.Fatal(err)
				}
				err := launch(t, n, func(cfg *Config) {
					cfg.Join, cfg.NodeID = nil, 0
					if listens {
						cfg.FoundAfter = 20 * time.Second // the first handshake ends it
					}
				})
				if !listens {
					if err == nil {
						select {
						case <-n.Failed():
							err = n.Failure()
						case <-time.After(30 * time.Second):
						}
					}
				}
				if !errors.Is(err, ErrFoundElsewhere) || !strings.Contains(err.Error(), was) {
					t.Fatalf("%+v: %v", run, err)
				}
				n.stop()
				if !listens { // it must not come back with what it founded
					if err := launch(t, n, nil); !errors.Is(err, ErrFoundElsewhere) {
						t.Errorf("started again: %v", err)
					}
				}
				if listens {
					if _, err := os.Stat(filepath.Join(n.dir, folder.IdentityName)); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("it founded a cluster: %v", err)
					}
				}
				n.stop()
				// As the error says.
				if err := os.RemoveAll(n.dir); err != nil {
					t.Fatal(err)
				}
				if err := launch(t, n, func(cfg *Config) { cfg.Join = []string{c.nodes[1].addr} }); err != nil {
					t.Fatal(err)
				}
				if n.ClusterID() != was {
					t.Errorf("it is of cluster %s, not %s", n.ClusterID(), was)
				}
				c.check("afterwards", id, []string{"kept"})
			})
		})
	}
}

// The id of a node that is alive is not given to another, which is told so, for good.
func TestAnIDThatIsTakenIsRefused(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	other := &testNode{c: c, id: 1, addr: ports.Hold(t, 1)[0], dir: filepath.Join(c.dir, "node-other"), disk: newTestDisk()}
	defer other.stop()
	err := launch(t, other, func(cfg *Config) { cfg.Join = []string{c.nodes[0].addr} })
	want := fmt.Sprintf("join through %s: node 1 is in the cluster and alive at %[1]s; choose another id", c.nodes[0].addr)
	if !errors.Is(err, admission.ErrIDTaken) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
