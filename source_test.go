package millrace

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// A goFile is one of the repository's Go files. Tests that hold the code to a rule look
// through all of them, or those that the rule is for.
type goFile struct {
	path   string // from here, with slashes
	dir    string // its package, as the import table calls it
	test   bool
	nested bool // in a module of its own within this one
}

// goFiles lists them.
func goFiles(t *testing.T) (all []goFile) {
	t.Helper()
	var modules []string // within this one
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() && name != "." && hasModule(name):
			modules = append(modules, name+"/")
		case !d.IsDir() && strings.HasSuffix(name, ".go"):
			f := goFile{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go")}
			for _, m := range modules {
				f.nested = f.nested || strings.HasPrefix(name, m)
			}
			all = append(all, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 600 {
		t.Fatalf("only %d Go files were found", len(all))
	}
	return all
}

// parse reads the file.
func (f goFile) parse(t *testing.T, mode parser.Mode) (*token.FileSet, *ast.File) {
	t.Helper()
	positions := token.NewFileSet()
	file, err := parser.ParseFile(positions, f.path, nil, mode)
	if err != nil {
		t.Fatal(err)
	}
	return positions, file
}
