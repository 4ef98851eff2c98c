package millrace

import (
	"cmp"
	"fmt"
	"go/parser"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed says what each package may import besides the standard library: our
// own packages by path, modules by a part of their path. Bytes fall,
// acknowledgements rise as return values, and nothing low knows anything high.
// A package that is not here may not exist, and nothing is here that no file needs.
// Tests may import more. "go test -run TestImports -v ." draws it.
var allowed = map[string][]string{
	"index":                                {},
	"security/acl":                         {},
	"security/certificate":                 {},
	"security/certificate/certificatetest": {}, // for tests only
	"security/sasl":                        {"xdg-go/scram", "go-jose/go-jose"},
	"segment/record":                       {"klauspost/compress", "pierrec/lz4"},
	"segment/record/recordtest":            {"segment/record"}, // for tests only
	"segment":                              {"index", "segment/record", "tysonmote/gommap", "golang.org/x/sys"},
	"log":                                  {"segment", "segment/record", "hashicorp/raft"},
	"internal/bufpool":                     {},
	"internal/heap":                        {},
	"internal/identitytest":                {"replication/identity"}, // for tests only
	"internal/memnet":                      {},                       // for tests only
	"internal/slowlog":                     {},
	"internal/storytest":                   {}, // for tests only
	"replication/admission":                {"replication/controller", "replication/folder", "replication/identity", "replication/keyring", "replication/metadata", "replication/raftgroup", "replication/roster", "replication/transport"},
	"internal/testcluster":                 {"cli/local", "replication/identity", "testdata/ports"}, // for tests only
	"replication/bulletin":                 {"replication/metadata"},
	"replication/folder":                   {"segment", "replication/identity", "replication/metadata", "replication/transport", "replication/vote"},
	"replication/identity":                 {},
	"replication/keyring":                  {"internal/slowlog", "replication/controller", "replication/folder", "replication/identity", "replication/metadata", "replication/transport"},
	"replication/metadata/settings":        {},
	"replication/metadata":                 {"replication/metadata/settings", "security/acl"},
	"replication/transport":                {"internal/bufpool", "internal/slowlog", "replication/identity", "hashicorp/raft", "golang.org/x/sys"},
	"replication/removal":                  {"replication/metadata", "replication/raftgroup", "replication/transport", "hashicorp/raft"},
	"replication/roster":                   {"replication/folder", "replication/metadata", "replication/transport", "hashicorp/raft"},
	"replication/rescue":                   {"log", "segment", "replication/controller", "replication/folder", "replication/metadata", "replication/partition", "replication/raftgroup", "replication/vote", "hashicorp/raft", "hashicorp/raft-boltdb", "go.etcd.io/bbolt"},
	"replication/vote":                     {"go.etcd.io/bbolt"},
	"replication/raftgroup":                {"internal/slowlog", "log", "replication/transport", "replication/vote", "hashicorp/raft", "hashicorp/go-hclog"},
	"replication/controller":               {"replication/metadata", "replication/raftgroup", "replication/transport", "segment", "hashicorp/raft", "hashicorp/raft-boltdb"},
	"replication/failover":                 {"replication/metadata", "replication/raftgroup", "replication/transport", "hashicorp/raft"},
	"replication/partition":                {"log", "segment", "segment/record", "replication/metadata", "replication/metadata/settings", "replication/raftgroup", "replication/transport", "replication/vote", "hashicorp/raft"},
	"replication": {"internal/slowlog", "log", "segment",
		"replication/admission", "replication/bulletin", "replication/controller", "replication/failover", "replication/folder", "replication/identity", "replication/keyring", "replication/metadata", "replication/metadata/settings", "replication/partition", "replication/raftgroup", "replication/removal", "replication/roster", "replication/transport", "replication/vote",
		"hashicorp/raft"},
	"server/coordinator":                 {"internal/heap", "segment/record"},
	"server/coordinator/coordinatortest": {"segment/record", "server/coordinator"}, // for tests only
	"server/protocol":                    {"twmb/franz-go/pkg/kmsg"},
	"server/protocol/protocoltest":       {"twmb/franz-go/pkg/kmsg"}, // for tests only
	"server/group":                       {"internal/heap", "segment/record", "server/coordinator", "server/protocol", "twmb/franz-go/pkg/kmsg", "twmb/franz-go/pkg/kbin"},
	"server/journal":                     {"internal/slowlog", "replication", "replication/metadata", "replication/partition", "segment/record", "server/coordinator"},
	"server/audit":                       {"internal/slowlog", "server"},
	"server/quota":                       {},
	"server/mux":                         {"replication/identity", "replication/transport"},
	"server": {"internal/bufpool", "internal/slowlog", "replication", "replication/metadata", "replication/partition", "replication/removal", "replication/metadata/settings", "security/acl", "security/sasl", "segment", "segment/record",
		"server/coordinator", "server/group", "server/journal", "server/mux", "server/protocol", "server/quota", "twmb/franz-go/pkg/kmsg", "golang.org/x/sys"},
	".":          {"replication", "replication/identity", "replication/keyring", "replication/metadata", "replication/metadata/settings", "security/certificate", "security/sasl", "server", "server/audit", "server/coordinator", "server/mux"}, // package millrace
	"brokertest": {"."},
	"cli": {"cli/bench", "cli/kafka", "cli/local", "cli/term", "log", "segment", "segment/record", "replication", "replication/admission", "replication/folder", "replication/keyring", "replication/metadata", "replication/metadata/settings", "replication/removal", "replication/rescue", "security/acl", "server",
		"urfave/cli", "twmb/franz-go", "golang.org/x/sys", "cpuguy83/go-md2man"},
	"cli/bench":   {"cli/kafka", "cli/load", "cli/term", "segment/record", "urfave/cli", "twmb/franz-go"},
	"cli/clitest": {"brokertest", "cli/kafka", "cli/local", "cli/term", "internal/testcluster", "testdata", "testdata/ports", "twmb/franz-go"}, // for tests only
	"cli/kafka":   {"cli/properties", "cli/term", "replication/metadata/settings", "urfave/cli", "twmb/franz-go"},
	"cli/local": {".", "cli/kafka", "cli/properties", "cli/term", "replication", "replication/admission", "replication/folder", "replication/identity", "replication/metadata/settings", "security/certificate", "segment", "server", "testdata", "urfave/cli", "twmb/franz-go",
		"golang.org/x/sys", "coreos/go-systemd"},
	"cli/term":          {"urfave/cli", "twmb/franz-go", "go.yaml.in/yaml", "golang.org/x/sys", "golang.org/x/term", "mattn/go-runewidth"},
	"cli/term/termtest": {"urfave/cli"}, // for tests only
	"cli/properties":    {},
	"cli/load":          {"HdrHistogram/hdrhistogram-go"},
	"cli/millrace":      {"cli"},
	"test/faults":       {}, // tests only
	"test/conformance":  {}, // tests only
	"docs":              {"yuin/goldmark"},
	"docs/walk":         {"docs", "creack/pty"},
	"testdata":          {},
	"testdata/ports":    {}, // for tests only
	".ci/report":        {},
}

// TestImports holds the table: who may know whom.
func TestImports(t *testing.T) {
	needed := make(map[string]map[string]bool) // what is imported, as the table calls it
	for _, file := range goFiles(t) {
		if file.nested || file.test {
			continue
		}
		from := file.dir
		may, known := allowed[from]
		if needed[from] == nil {
			needed[from] = make(map[string]bool)
		}
		if !known {
			t.Errorf("package %s is not in the import table: add it with what it may import, or move %s", from, file.path)
			continue
		}
		_, f := file.parse(t, parser.ImportsOnly)
		for _, spec := range f.Imports {
			to := strings.Trim(spec.Path.Value, `"`)
			if to == "log" && spec.Name == nil {
				t.Errorf("%s imports the standard library's log: diagnostics go through log/slog, passed in", file.path)
			}
			names, ours := permits(may, to)
			if ours && len(names) == 0 {
				t.Errorf("%s (package %s) imports %s, which the import table does not allow", file.path, from, to)
			}
			for _, name := range names {
				needed[from][name] = true
			}
		}
	}
	for from, may := range allowed {
		if needed[from] == nil && !onlyTests(from) {
			t.Errorf("the import table has a row for %s, where there is no package", from)
		}
		for _, name := range may {
			if needed[from] != nil && !needed[from][name] {
				t.Errorf("the import table lets %s import %s, which no file of it does", from, name)
			}
		}
	}
	drawing := "```\n" + strings.Join(layers(), "\n") + "\n```\n"
	t.Log("\n" + drawing)
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), drawing) {
		t.Error("ARCHITECTURE.md does not draw the import table as it is: put there what is printed above")
	}
}

// layers draws the table: a package with its height, the longest way down from it, and those
// of ours that it stands on directly. What one of these leads to anyhow is left out, and so
// are packages that stand on none of ours and have none on them.
func layers() (rows []string) {
	height := make(map[string]int)
	below := make(map[string]map[string]bool) // all the way down
	var measure func(string)
	measure = func(name string) {
		if below[name] != nil {
			return
		}
		below[name] = make(map[string]bool)
		for _, under := range oursIn(name) {
			measure(under)
			height[name] = max(height[name], height[under]+1)
			below[name][under] = true
			maps.Copy(below[name], below[under])
		}
	}
	bears := make(map[string]bool) // has another on it
	for name := range allowed {
		measure(name)
		maps.Copy(bears, below[name])
	}
	names := slices.SortedFunc(maps.Keys(allowed), func(a, b string) int {
		return cmp.Or(height[b]-height[a], strings.Compare(a, b))
	})
	for _, name := range names {
		if height[name] == 0 && !bears[name] {
			continue
		}
		direct := slices.DeleteFunc(oursIn(name), func(under string) bool {
			return slices.ContainsFunc(oursIn(name), func(other string) bool { return below[other][under] })
		})
		for i, under := range direct {
			direct[i] = called(under)
		}
		rows = append(rows, strings.TrimRight(fmt.Sprintf("%2d  %-34s %s", height[name], called(name), strings.Join(direct, " ")), " "))
	}
	return rows
}

// oursIn are our own packages in a row of the table.
func oursIn(name string) (ours []string) {
	for _, may := range allowed[name] {
		if _, is := allowed[may]; is {
			ours = append(ours, may)
		}
	}
	return ours
}

// called is a package's name for readers.
func called(name string) string {
	if name == "." {
		return "millrace"
	}
	return name
}

// onlyTests reports whether a folder has Go files, all of them tests.
func onlyTests(dir string) bool {
	all, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	tests, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	return len(all) > 0 && len(all) == len(tests)
}

func hasModule(dir string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, "go.mod"))
	return len(found) > 0
}

// permits lists the entries of a row by which it may import to, and reports whether it needs
// one: the standard library it does not.
func permits(may []string, to string) (names []string, ours bool) {
	own, isOwn := strings.CutPrefix(to, "millrace/")
	if to == "millrace" {
		own, isOwn = ".", true
	}
	first, _, _ := strings.Cut(to, "/")
	if !isOwn && !strings.Contains(first, ".") {
		return nil, false
	}
	for _, m := range may {
		if isOwn && own == m || !isOwn && strings.Contains("/"+to+"/", "/"+m+"/") {
			names = append(names, m)
		}
	}
	return names, true
}
