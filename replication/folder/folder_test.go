package folder

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A node founds nothing among folders or many files of somebody else's, and is not held up
// by what a disk, whoever set it up, or a node that did not come to its node.json left.
func TestSomebodysFilesAreToldFromANodes(t *testing.T) {
	for _, test := range []struct{ there, strange string }{
		{"", ""},
		{"broker.log broker.pid broker.properties", ""},
		{"a b c d", "a b c …"},
		{"a b c d e f", "a b c …"},
		{"src/", "src/"},
		{"a src/", "a src/"},
		{"lost+found/ .snapshot/ .a .b .c .d", ""},
		{".git/ src/", "src/"},
		{"src/ a b c d stable.db", ""},
		{"src/ a b c d meta/", ""},
		{"src/ a b c d partitions/", ""},
		{"src/ a b c d joining", ""},
		{"src/ a b c d starts", ""},
		{"src/ a b c d peers.json", ""},
	} {
		dir := t.TempDir()
		for name := range strings.FieldsSeq(test.there) {
			path := filepath.Join(dir, name)
			var err error
			if strings.HasSuffix(name, "/") {
				err = os.Mkdir(path, 0o755)
			} else {
				err = os.WriteFile(path, nil, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(Strange(dir), " "); got != test.strange {
			t.Errorf("%q: %q, want %q", test.there, got, test.strange)
		}
	}
	if got := Strange(filepath.Join(t.TempDir(), "none")); got != nil {
		t.Errorf("no folder: %q", got)
	}
}

// What the controllers keep has keys and verifiers in it, and partitions have records: no other
// user of the machine may read them, in a folder that an older release made neither.
func TestWhatAFolderHoldsIsPrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no permissions of this kind")
	}
	dir := t.TempDir()
	for _, name := range []string{MetaName, PartitionsName} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := at(dir).Make(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{MetaName, PartitionsName} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}
