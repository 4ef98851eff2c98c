package replication

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/rescue"
	"millrace/segment"
)

// Two of three disks are restored from a backup that was taken while the nodes were
// stopped: they are refused, and the third, which has everything, elects nobody. Rescued,
// it goes on with all that it has, and the others come back empty and are filled.
func TestASurvivorIsRescuedFromAMajorityThatWasRestored(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		c.settled()
		id := c.create("orders", 1, 3, nil)
		c.leader(id)
		eventually(t, "all have the replica", func() bool {
			for _, n := range c.nodes {
				if n.replicaOf(1) == nil {
					return false
				}
			}
			return true
		})
		c.stop()
		for _, n := range c.nodes[1:] {
			if err := os.CopyFS(n.dir+"-backup", os.DirFS(n.dir)); err != nil {
				t.Fatal(err)
			}
		}
		c.startAll()
		c.settled()
		var want []string
		for i := range 20 {
			v := fmt.Sprint("after the backup ", i)
			c.append(id, v)
			want = append(want, v)
		}
		survivor := c.nodes[0]
		eventually(t, "the survivor has all", func() bool { return mustPartition(t, survivor, id).EndOffset() == 20 })
		time.Sleep(2 * time.Second) // its last image is saved once a second
		for _, n := range c.nodes[1:] {
			n.stop()
			if err := os.RemoveAll(n.dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(n.dir+"-backup", n.dir); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range c.nodes[1:] {
			if err := n.startUntilFailed(); !errors.Is(err, ErrOldDisk) || !strings.Contains(err.Error(), "nobody to catch up from") {
				t.Fatalf("node %d was restored and started: %v", n.id, err)
			}
			n.stop()
		}
		if _, err := rescue.Survey(survivor.dir); err == nil || !strings.Contains(err.Error(), "stop its node") {
			t.Fatalf("a running node was surveyed: %v", err)
		}
		if n := survivor.log.count("the data folders of a majority of the controllers are old copies"); n != 1 {
			t.Errorf("the survivor said %d times that a majority was restored, want once", n)
		}
		epoch := survivor.replicaOf(1).Raft.CurrentTerm()
		survivor.stop()

		before := treeOf(t, survivor.dir)
		s, err := rescue.Survey(survivor.dir)
		if err != nil {
			t.Fatal(err)
		}
		if after := treeOf(t, survivor.dir); after != before {
			t.Errorf("to look at the folder changed it:\n%s\nwas\n%s", after, before)
		}
		if len(s.Partitions) != 1 || s.Partitions[0].Lost != "" || s.Partitions[0].Topic != "orders" || s.Partitions[0].End != 20 || len(s.Brokers) != 2 {
			t.Fatalf("surveyed: %+v", s)
		}
		for range 2 { // the second time as after a crash
			if err := s.Rescue(); err != nil {
				t.Fatal(err)
			}
			if s, err = rescue.Survey(survivor.dir); err != nil {
				t.Fatal(err)
			}
		}
		survivor.join = []string{c.nodes[1].addr}
		survivor.start()
		c.check("the survivor alone", id, want)
		_, p := c.leader(id)
		if now, err := p.Serving(); err != nil || uint64(now) < epoch+rescue.Terms {
			t.Errorf("it serves in epoch %d, after %d: %v", now, epoch, err)
		}
		c.append(id, "alone")
		for _, n := range c.nodes[1:] { // told that they are old, they come back empty
			n.start()
		}
		eventually(t, "the others have all, and vote, and know it", func() bool {
			for _, n := range c.nodes {
				r := n.replicaOf(1)
				if r == nil || len(r.Voters()) != 3 || len(n.memberOf(controller.Group).Voters()) != 3 || mustPartition(t, n, id).HighWatermark() != 21 {
					return false
				}
			}
			return true
		})
		survivor.stop()
		c.append(id, "without the survivor")
	})
}

// A replica that had no vote was still being filled: what it has is no whole, however
// whole it looks, and to lead with it would lose the rest without a word.
func TestALearnerIsNotRescued(t *testing.T) {
	for _, suffrage := range []raft.ServerSuffrage{raft.Voter, raft.Nonvoter, raft.Staging} {
		t.Run(suffrage.String(), func(t *testing.T) {
			inVirtualTimeOf(t, 1, func(t *testing.T, c *testCluster) {
				n := c.nodes[0]
				id := c.create("orders", 1, 1, nil)
				p := c.append(id, "x")
				eventually(t, "the image is saved", func() bool {
					s, err := os.ReadFile(filepath.Join(n.dir, folder.MetaName, controller.ImageName))
					return err == nil && strings.Contains(string(s), `"orders"`)
				})
				self := n.serverID()
				folder := segment.Identity{Cluster: n.ClusterID(), Topic: id.Topic, Partition: id.Index, Replica: string(self)}
				n.stop()
				l, err := log.Open(p.Dir(), folder, log.Config{})
				if err != nil {
					t.Fatal(err)
				}
				last, err := l.LastIndex()
				if err != nil {
					t.Fatal(err)
				}
				members := raft.Configuration{Servers: []raft.Server{
					{Suffrage: suffrage, ID: self, Address: raft.ServerAddress(self)}, {Suffrage: raft.Voter, ID: "2.00000000", Address: "2.00000000"},
				}}
				entry := &raft.Log{Index: last + 1, Term: 1 << 10, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(members)}
				if err := errors.Join(l.StoreLog(entry), l.Close(true)); err != nil {
					t.Fatal(err)
				}
				s, err := rescue.Survey(n.dir)
				if err != nil {
					t.Fatal(err)
				}
				want := ""
				if suffrage != raft.Voter {
					want = "it was still catching up here"
				}
				if len(s.Partitions) != 1 || s.Partitions[0].Lost != want || s.Partitions[0].End != 1 {
					t.Errorf("as a %v: surveyed %+v, want it lost: %q", suffrage, s.Partitions, want)
				}
				before := treeOf(t, p.Dir())
				if err := s.Rescue(); err != nil {
					t.Fatal(err)
				}
				if after := treeOf(t, p.Dir()); (after == before) != (want != "") {
					t.Errorf("as a %v: rescuing left its log as it was: %v", suffrage, after == before)
				}
			})
		})
	}
}

// treeOf is what a folder holds, byte by byte.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		p, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %d %x\n", path, len(p), crc32.ChecksumIEEE(p))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What cannot be rescued is said, partition by partition, and left as it is.
func TestASurveySaysWhatIsNotThere(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		c.settled()
		n := c.nodes[0]
		c.create("one", 3, 1, nil) // a partition on each node
		id := c.create("all", 1, 3, nil)
		c.leader(id)
		c.append(id, "x")
		dir := mustPartition(t, n, id).Dir()
		eventually(t, "the image is saved", func() bool {
			s, err := os.ReadFile(filepath.Join(n.dir, folder.MetaName, controller.ImageName))
			return err == nil && strings.Contains(string(s), `"all"`)
		})
		n.stop()
		files, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no segment: %v", err)
		}
		data, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		data[0] ^= 1
		if err := os.WriteFile(files[0], data, 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := rescue.Survey(n.dir)
		if err != nil {
			t.Fatal(err)
		}
		here, elsewhere, damaged := 0, 0, 0
		for _, p := range s.Partitions {
			switch {
			case p.Topic == "all" && strings.Contains(p.Lost, "corrupt"), p.Topic == "all" && strings.Contains(p.Lost, files[0]):
				damaged++
			case p.Topic == "one" && p.Lost == "":
				here++
			case p.Topic == "one" && strings.Contains(p.Lost, "it was on node"):
				elsewhere++
			}
		}
		if here != 1 || elsewhere != 2 || damaged != 1 {
			t.Errorf("%d here, %d elsewhere, %d damaged: %+v", here, elsewhere, damaged, s.Partitions)
		}
		if _, err := rescue.Survey(t.TempDir()); err == nil {
			t.Error("an empty folder was surveyed")
		}
	})
}
