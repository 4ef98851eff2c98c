package millrace

import (
	"bytes"
	"go/ast"
	"os"
	"strings"
	"testing"
)

// What a type may have, so that it can be read in one go.
const (
	maxFields  = 25
	maxMethods = 40
)

// nodeLines is how long package replication may be, without its tests: it assembles the
// rooms below it, and has nothing of its own that one of them could have.
const nodeLines = 2500

// excused are the types that have more fields or methods, and why. A row that nothing
// needs any more fails.
var excused = map[string]string{}

// functions are the fields that hold a function, and why no interface's method could be
// in its place: then "go to definition" would lead on. A type stands for all of its fields.
var functions = map[string]string{
	"Now":                                "the clock, as in crypto/tls.Config.Time",
	"now":                                "the clock",
	"cancel":                             "a context's, or what ends a Partition's Notify",
	"cli/term.Column":                    "a row of a table",
	"server.api":                         "a row of the table of APIs",
	"replication/metadata/settings.rule": "a row of the table of settings",
	"cli/bench.carried":                  "the client takes a function, and a method made one anew would be allocated for each record",
}

// A shape is what a type has.
type shape struct {
	fields, methods int
	functions       []string // the fields that hold one
}

// TestShapes holds types to a size, and their parts to methods.
func TestShapes(t *testing.T) {
	shapes := make(map[string]*shape)
	shapeOf := func(dir, name string) *shape {
		if dir == "." {
			dir = "millrace"
		}
		key := dir + "." + name
		if shapes[key] == nil {
			shapes[key] = new(shape)
		}
		return shapes[key]
	}
	for dir := range allowed {
		for _, file := range files(t, dir) {
			for _, decl := range file.Decls {
				switch decl := decl.(type) {
				case *ast.GenDecl:
					for _, spec := range decl.Specs {
						if spec, ok := spec.(*ast.TypeSpec); ok {
							noteFields(shapeOf(dir, spec.Name.Name), spec.Type)
						}
					}
				case *ast.FuncDecl:
					if name := receiver(decl); name != "" {
						shapeOf(dir, strings.TrimSuffix(name, ".")).methods++
					}
				}
			}
		}
	}
	needed := make(map[string]bool)
	for name, s := range shapes {
		if s.fields > maxFields || s.methods > maxMethods {
			needed[name] = true
			if excused[name] == "" {
				t.Errorf("%s has %d fields and %d methods, at most %d and %d: divide it by what they are for", name, s.fields, s.methods, maxFields, maxMethods)
			}
		}
		for _, field := range s.functions {
			switch {
			case functions[field] != "":
				needed[field] = true
			case functions[name] != "":
				needed["functions "+name] = true
			default:
				t.Errorf("%s.%s holds a function, where \"go to definition\" ends: give the type that has it a method, and hold that type or an interface",
					name, field)
			}
		}
	}
	for name := range excused {
		if !needed[name] {
			t.Errorf("excused has %s, which needs no excuse", name)
		}
	}
	for name := range functions {
		if !needed[name] && !needed["functions "+name] {
			t.Errorf("functions has %s, where there is none", name)
		}
	}
	if len(shapes) < 300 {
		t.Errorf("only %d types were found", len(shapes))
	}
}

// TestTheNodeAssembles holds package replication to nodeLines.
func TestTheNodeAssembles(t *testing.T) {
	lines := 0
	for _, f := range goFiles(t) {
		if f.dir == "replication" && !f.test {
			code, err := os.ReadFile(f.path)
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(code, []byte("\n"))
		}
	}
	if lines == 0 || lines >= nodeLines {
		t.Errorf("package replication has %d lines, fewer than %d: see its doc.go for the room that some of them belong in", lines, nodeLines)
	}
}

// noteFields notes what a type's declaration says that it has.
func noteFields(s *shape, typ ast.Expr) {
	st, ok := typ.(*ast.StructType)
	if !ok {
		return
	}
	for _, field := range st.Fields.List {
		s.fields += max(1, len(field.Names)) // one that is embedded has no name
		if _, ok := field.Type.(*ast.FuncType); ok {
			for _, name := range field.Names {
				s.functions = append(s.functions, name.Name)
			}
		}
	}
}
