package settings

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// TestEverySettingThatHasAnEffectIsRead: one whose Doc speaks of an effect fills a field of
// Topic or Broker, or says what a node is, and somebody outside of this package reads the
// field: a package of the broker that imports this one. One without says so.
func TestEverySettingThatHasAnEffectIsRead(t *testing.T) {
	const root, here = "../../..", "../../../replication/metadata/settings"
	inPackage := map[string]map[string]bool{} // "b" of a.b, and "a.b", by folder
	readers := map[string]bool{}              // folders that import this package
	named := map[string]bool{}                // "name", in this package's resolvers and in what reads a configuration file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		inside := dir == here
		for _, spec := range f.Imports {
			if spec.Path.Value == `"millrace/replication/metadata/settings"` && !strings.HasPrefix(dir, root+"/cli") { // which shows them
				readers[dir] = true
			}
		}
		selected := inPackage[dir]
		if selected == nil {
			selected = map[string]bool{}
			inPackage[dir] = selected
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if inside {
					return true
				}
				selected[n.Sel.Name] = true
				switch x := n.X.(type) { // set.Offsets.Codec, or offsets.Codec
				case *ast.SelectorExpr:
					selected[strings.ToLower(x.Sel.Name)+"."+n.Sel.Name] = true
				case *ast.Ident:
					selected[strings.ToLower(x.Name)+"."+n.Sel.Name] = true
				}
			case *ast.CallExpr: // r.long("log.roll.ms")
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && inside && len(n.Args) == 1 && s.Sel.Name != "Errorf" {
					if l, ok := n.Args[0].(*ast.BasicLit); ok && l.Kind == token.STRING {
						name, _ := strconv.Unquote(l.Value)
						named[name] = true
					}
				}
			case *ast.ValueSpec: // const nodeIDKey = "node.id"
				for _, v := range n.Values {
					if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING && strings.HasSuffix(path, "cli/local/config.go") {
						name, _ := strconv.Unquote(l.Value)
						named[name] = true
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	selected := map[string]bool{}
	for dir := range readers {
		maps.Copy(selected, inPackage[dir])
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Topic]()) {
		if !selected[f.Name] {
			t.Errorf("nobody reads Topic.%s: use it outside of this package, or take the field away and say in the setting's Doc that it is without effect", f.Name)
		}
	}
	for _, subject := range reflect.VisibleFields(reflect.TypeFor[Broker]()) {
		for _, f := range reflect.VisibleFields(subject.Type) {
			if !selected[strings.ToLower(subject.Name)+"."+f.Name] {
				t.Errorf("nobody reads Broker.%s.%s: use it outside of this package, in these words or those of a variable %s, or take the field away and say in the setting's Doc that it is without effect",
					subject.Name, f.Name, strings.ToLower(subject.Name))
			}
		}
	}
	check := func(d *Definition, typ, file string) {
		without := strings.Contains(d.Doc, "without effect")
		if !without && !named[d.Name] {
			t.Errorf("%s is said to have an effect, and fills no field of %s: add one with a line in %s, or say in its Doc that it is accepted without effect", d.Name, typ, file)
		}
		if without && named[d.Name] {
			t.Errorf("%s is said to have no effect, and is read: %s", d.Name, d.Doc)
		}
	}
	giving := map[string]bool{}
	for _, d := range TopicDefinitions() {
		if d.Name != "remote.storage.enable" { // only one value
			check(d, "Topic", "topic.go")
		}
		for _, s := range d.Synonyms {
			giving[s.Name] = true // a topic's setting reads it
		}
	}
	for _, d := range BrokerDefinitions() {
		if !giving[d.Name] {
			check(d, "Broker", "broker.go")
		}
	}
	if len(selected) < 1000 || len(named) < 50 {
		t.Errorf("only %d fields and %d names were found: the test tests nothing", len(selected), len(named))
	}
}
