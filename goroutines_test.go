package millrace

import (
	"go/ast"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// goroutines are the rows of ARCHITECTURE.md's table: name, package, how many, starts, ends.
var goroutines = regexp.MustCompile(`(?s)## Goroutines\n(.*?)\n## `)

// quoted is what a cell has in backticks.
var quoted = regexp.MustCompile("`([^`]+)`")

// raftModule is the package of the table that is not of this module.
const raftModule = "hashicorp/raft"

// TestGoroutines holds that table to the code: whoever meets a goroutine in a dump, or looks
// for one, finds what it is called. A bare name of a goroutine is a function or method of
// its package; TYPE.METHOD and PACKAGE.FUNCTION are there somewhere, and so is what starts and
// ends it. Rows of cli and below are not looked at beyond that: commands start their goroutines.
func TestGoroutines(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	table := goroutines.FindSubmatch(page)
	if table == nil {
		t.Fatal("ARCHITECTURE.md has no table of goroutines")
	}
	of := make(map[string]map[string]bool) // the names of a package
	anywhere := make(map[string]bool)
	for dir := range allowed {
		of[dir] = names(files(t, dir))
	}
	of["millrace"] = of["."]
	raft, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/"+raftModule).Output()
	if err != nil {
		t.Fatal(err)
	}
	of[raftModule] = names(files(t, strings.TrimSpace(string(raft))))
	for _, names := range of {
		for name := range names {
			anywhere[name] = true
		}
	}
	looked := 0
	for line := range strings.Lines(string(table[1])) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 5 || cells[1] == "package" {
			continue
		}
		here := of[cells[1]]
		if here == nil {
			t.Errorf("there is no package %s, which has %s", cells[1], cells[0])
			continue
		}
		for i, cell := range cells {
			if i == 1 || i == 2 || i > 2 && strings.HasPrefix(cells[1], "cli") {
				continue
			}
			for _, name := range quoted.FindAllStringSubmatch(cell, -1) {
				looked++
				if there := here[name[1]]; !there && (i == 0 && !strings.Contains(name[1], ".") || !anywhere[name[1]]) {
					t.Errorf("there is no function or method %s in %s: %s", name[1], cells[1], line)
				}
			}
		}
	}
	if looked < 60 {
		t.Errorf("%d names only are looked for", looked)
	}
}

// names returns what a package's functions and methods are called: NAME, TYPE.NAME and
// PACKAGE.NAME.
func names(code []*ast.File) map[string]bool {
	all := make(map[string]bool)
	for _, file := range code {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			all[f.Name.Name] = true
			if f.Recv == nil {
				all[file.Name.Name+"."+f.Name.Name] = true
				continue
			}
			of := f.Recv.List[0].Type
			if pointer, ok := of.(*ast.StarExpr); ok {
				of = pointer.X
			}
			if id, ok := of.(*ast.Ident); ok {
				all[id.Name+"."+f.Name.Name] = true
			}
		}
	}
	return all
}
