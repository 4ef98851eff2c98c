package millrace

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// hops is the block of ARCHITECTURE.md that follows a produced batch: a package and a
// method a line, each of which calls the next, or a sentence where another goroutine, or
// Raft, goes on.
var hops = regexp.MustCompile("(?s)## From a frame to its acknowledgement\n.*?```\n(.*?)```")

// hop is a line of it that names a method.
var hop = regexp.MustCompile(`^(\w+(?:/\w+)*)\s+(\w+)\.(\w+)$`)

// TestHops holds that block to the code: a reader who goes to the definition of each
// method finds the next one called there.
func TestHops(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	block := hops.FindSubmatch(page)
	if block == nil {
		t.Fatal("ARCHITECTURE.md does not follow a produced batch")
	}
	code := make(map[string][]*ast.File) // by package
	var before *ast.FuncDecl             // nil: a sentence is before
	named := 0
	for line := range strings.Lines(string(block[1])) {
		parts := hop.FindStringSubmatch(strings.TrimSpace(line))
		if parts == nil {
			if !strings.HasPrefix(line, " ") {
				t.Errorf("neither a package with a method nor an indented sentence: %s", line)
			}
			before = nil
			continue
		}
		named++
		if code[parts[1]] == nil {
			code[parts[1]] = files(t, parts[1])
		}
		f := method(code[parts[1]], parts[2], parts[3])
		if f == nil {
			t.Errorf("there is no method %s in %s", parts[2]+"."+parts[3], parts[1])
		}
		if before != nil && !calls(before, parts[3]) {
			t.Errorf("%s, the hop before it, does not call %s.%s", before.Name.Name, parts[2], parts[3])
		}
		before = f
	}
	if named < 20 {
		t.Errorf("%d methods only are followed", named)
	}
}

// files parses a package without its tests.
func files(t *testing.T, dir string) (all []*ast.File) {
	paths, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file)
	}
	return all
}

// method finds a method's declaration; nil without one.
func method(code []*ast.File, receiver, name string) (found *ast.FuncDecl) {
	for _, file := range code {
		ast.Inspect(file, func(n ast.Node) bool {
			f, ok := n.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != name {
				return !ok
			}
			of := f.Recv.List[0].Type
			if pointer, ok := of.(*ast.StarExpr); ok {
				of = pointer.X
			}
			if id, ok := of.(*ast.Ident); ok && id.Name == receiver {
				found = f
			}
			return false
		})
	}
	return found
}

// calls tells whether a function calls a method of this name.
func calls(f *ast.FuncDecl, name string) (does bool) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if method, ok := call.Fun.(*ast.SelectorExpr); ok {
			does = does || method.Sel.Name == name
		}
		return true
	})
	return does
}
