package millrace

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// allowed says what each package may import besides the standard library: our
// own packages by path, modules by a part of their path. Bytes fall,
// acknowledgements rise as return values, and nothing low knows anything high.
// A package that is not here may not exist. Tests may import more.
var allowed = map[string][]string{
	"index":                 {},
	"segment/record":        {"klauspost/compress", "pierrec/lz4"},
	"segment":               {"index", "segment/record", "tysonmote/gommap", "golang.org/x/sys"},
	"log":                   {"index", "segment", "segment/record", "hashicorp/raft", "golang.org/x/sys"},
	"internal/bufpool":      {},
	"internal/slowlog":      {},
	"replication/metadata":  {},
	"replication/transport": {"internal/bufpool", "internal/slowlog", "hashicorp/raft", "golang.org/x/sys"},
	"replication/vote":      {"go.etcd.io/bbolt"},
	"replication": {"internal/slowlog", "log", "segment", "segment/record", "replication/metadata", "replication/transport", "replication/vote",
		"hashicorp/raft", "hashicorp/raft-boltdb", "hashicorp/go-hclog", "go.etcd.io/bbolt"},
	"server/group": {"segment/record", "twmb/franz-go/pkg/kmsg", "twmb/franz-go/pkg/kbin"},
	"server/mux":   {"replication/transport"},
	"server": {"log", "internal/bufpool", "internal/slowlog", "replication", "replication/metadata", "segment/record",
		"server/group", "server/mux", "twmb/franz-go/pkg/kmsg", "golang.org/x/sys"},
	".": {"replication", "replication/metadata", "server", "server/mux"}, // package millrace
	"cli": {".", "cli/load", "log", "segment", "segment/record", "replication", "replication/metadata", "server", "testdata",
		"urfave/cli", "twmb/franz-go", "klauspost/compress", "golang.org/x/sys", "golang.org/x/term", "go.yaml.in/yaml", "mattn/go-runewidth",
		"cpuguy83/go-md2man", "coreos/go-systemd"},
	"cli/load":         {"HdrHistogram/hdrhistogram-go"},
	"cli/millrace":     {"cli"},
	"test/faults":      {}, // tests only
	"test/conformance": {}, // tests only
	"docs":             {"yuin/goldmark"},
	"docs/walk":        {"docs", "creack/pty"},
	"testdata":         {},
	"testdata/ports":   {}, // for tests only
	".ci/report":       {},
}

// TestImports holds the table: who may know whom.
func TestImports(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || path != "." && hasModule(path)) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		from := filepath.ToSlash(filepath.Dir(path))
		may, known := allowed[from]
		if !known {
			t.Errorf("package %s is not in the import table: add it with what it may import, or move %s", from, path)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			to := strings.Trim(spec.Path.Value, `"`)
			if to == "log" && spec.Name == nil {
				t.Errorf("%s imports the standard library's log: diagnostics go through log/slog, passed in", path)
			}
			if !permits(may, to) {
				t.Errorf("%s (package %s) imports %s, which the import table does not allow", path, from, to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no Go file was looked at")
	}
}

func hasModule(dir string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, "go.mod"))
	return len(found) > 0
}

// permits tells whether a package that may import may, may import to.
func permits(may []string, to string) bool {
	own, isOwn := strings.CutPrefix(to, "millrace/")
	if to == "millrace" {
		own, isOwn = ".", true
	}
	first, _, _ := strings.Cut(to, "/")
	if !isOwn && !strings.Contains(first, ".") {
		return true // the standard library
	}
	for _, m := range may {
		if isOwn && own == m || !isOwn && strings.Contains("/"+to+"/", "/"+m+"/") {
			return true
		}
	}
	return false
}
