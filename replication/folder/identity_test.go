package folder

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/replication/metadata"
)

// A folder that lost its votes or its metadata log is another disk to the cluster: under
// its old name it could vote twice in a term. Nothing of what it has is deleted.
func TestLostVotesOrMetadataLogMakeANewIncarnation(t *testing.T) {
	old := Identity{Cluster: "AAAAAAAAAAAAAAAAAAAAAA", Node: 3, Incarnation: "01234567", Founder: true}
	const node = "the node: it found out that its folder is an old copy"
	for name, lost := range map[string]string{
		"nothing": "", "votes": VotesName, "metadata log": filepath.Join(MetaName, LogName),
		"it is an old copy": node,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range []string{VotesName, filepath.Join(MetaName, LogName), filepath.Join(PartitionsName, "p", "data")} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(file), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := at(dir).Save(old); err != nil {
				t.Fatal(err)
			}
			if lost == "" {
				if id, ok, err := at(dir).Load(); err != nil || !ok || id != old {
					t.Fatalf("%+v, %t, %v; want %+v", id, ok, err, old)
				}
				return
			}
			if lost == node {
				outdated := old
				outdated.Outdated = true
				if err := at(dir).Save(outdated); err != nil {
					t.Fatal(err)
				}
			} else if err := os.Remove(filepath.Join(dir, lost)); err != nil {
				t.Fatal(err)
			}
			id, ok, err := at(dir).Load()
			if err != nil || !ok {
				t.Fatalf("%t, %v", ok, err)
			}
			if len(id.Incarnation) != 8 || id.Incarnation == old.Incarnation {
				t.Errorf("incarnation %q after %q", id.Incarnation, old.Incarnation)
			}
			if id.Cluster != old.Cluster || id.Node != old.Node || id.Founder || !id.Rejoin {
				t.Errorf("it comes back as %+v", id)
			}
			if _, err := os.Stat(filepath.Join(dir, PartitionsName+"-"+old.Incarnation, "p", "data")); err != nil {
				t.Errorf("the old partitions were not set aside: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, PartitionsName)); !os.IsNotExist(err) {
				t.Errorf("the old partitions are the new incarnation's: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, VotesName)); !os.IsNotExist(err) {
				t.Errorf("the old votes are the new incarnation's: %v", err)
			}
			if lost == node {
				// What the controller's log says of this name may not be what the others have.
				if _, err := os.Stat(filepath.Join(dir, MetaName+"-"+old.Incarnation, LogName)); err != nil {
					t.Errorf("the old metadata log was not set aside: %v", err)
				}
				if id.Outdated {
					t.Error("the new incarnation is an old copy, too")
				}
			}
			// What it says once it says for good.
			again, ok, err := at(dir).Load()
			if err != nil || !ok || !again.Rejoin || again.Incarnation == old.Incarnation {
				t.Errorf("loaded again: %+v, %t, %v", again, ok, err)
			}
		})
	}
}

// The first release would skip what it cannot read in a folder of feature level 2: so it
// must not find a cluster's id there, without which it does not start. Nor does this one
// start on a folder of a later level.
func TestFolderOfALaterLevelIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{VotesName, filepath.Join(MetaName, LogName)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := Identity{Cluster: "AAAAAAAAAAAAAAAAAAAAAA", Node: 3, Incarnation: "01234567"}
	for level := range int32(metadata.MaxLevel + 2) {
		want.Level = level
		if err := at(dir).Save(want); err != nil {
			t.Fatal(err)
		}
		p, err := os.ReadFile(filepath.Join(dir, IdentityName))
		if err != nil {
			t.Fatal(err)
		}
		var first struct{ Cluster string } // what the first release reads
		if err := json.Unmarshal(p, &first); err != nil || (first.Cluster == "") != (level >= 2) {
			t.Errorf("level %d: %v, the first release reads %s", level, err, p)
		}
		id, ok, err := at(dir).Load()
		switch {
		case level > metadata.MaxLevel:
			if err == nil || !strings.Contains(err.Error(), "upgrade") {
				t.Errorf("level %d was read, with %v", level, err)
			}
		case err != nil || !ok || id != want:
			t.Errorf("level %d: %+v, %t, %v; want %+v", level, id, ok, err, want)
		}
	}
}
