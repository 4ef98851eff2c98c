package millrace

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the layouts in FORMAT.md anew from the code")

// layout finds the fenced blocks of FORMAT.md that repeat a comment of the code:
// <!-- segment.Frame --> and so on, <!-- replication/transport --> for a package.
var layout = regexp.MustCompile("(?s)(<!-- ([a-z/]+)(?:\\.([A-Za-z.]+))? -->\n```\n)(.*?)```\n")

// TestFormatSaysWhatTheCodeSays holds FORMAT.md to the comments beside the code
// that reads and writes the bytes: each layout stands in one place, and is
// copied from there. go test -run TestFormat . -rewrite copies.
func TestFormatSaysWhatTheCodeSays(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	fresh := layout.ReplaceAllFunc(doc, func(block []byte) []byte {
		blocks++
		m := layout.FindSubmatch(block)
		pkg, name := string(m[2]), string(m[3])
		want, err := preformatted(pkg, name)
		if err != nil {
			t.Error(err)
			return block
		}
		if !*rewrite && string(m[4]) != want {
			t.Errorf("FORMAT.md does not say what the comment of %s %s says; run go test -run TestFormat . -rewrite", pkg, name)
		}
		return []byte(string(m[1]) + want + "```\n")
	})
	if blocks < 8 {
		t.Errorf("FORMAT.md has %d layouts; some are missing", blocks)
	}
	if *rewrite {
		if err := os.WriteFile("FORMAT.md", fresh, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// preformatted returns the indented lines of the comment of a declaration, or
// of the package itself, blank lines between them included. Where the comment has a
// section "Format", it is those of that section.
func preformatted(pkg, name string) (string, error) {
	files, err := filepath.Glob(filepath.Join(pkg, "*.go"))
	if err != nil {
		return "", err
	}
	var comment string
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return "", err
		}
		comment += commentOf(f, name)
	}
	if _, format, ok := strings.Cut(comment, "\n# Format\n"); ok {
		comment = format
	}
	var lines []string
	for line := range strings.SplitSeq(comment, "\n") {
		if text, ok := strings.CutPrefix(line, "\t"); ok {
			lines = append(lines, text)
		} else if len(lines) > 0 && lines[len(lines)-1] != "" {
			lines = append(lines, "")
		}
	}
	text := strings.TrimRight(strings.Join(lines, "\n"), "\n")
	if text == "" {
		return "", fmt.Errorf("FORMAT.md names %s %s, which has no layout in its comment", pkg, name)
	}
	return text + "\n", nil
}

// commentOf returns the comment of a type, function or method in a file; with
// no name the package's.
func commentOf(f *ast.File, name string) (comment string) {
	if name == "" {
		return f.Doc.Text()
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok && s.Name.Name == name {
					comment += d.Doc.Text()
				}
			}
		case *ast.FuncDecl:
			if receiver(d)+d.Name.Name == name {
				comment += d.Doc.Text()
			}
		}
	}
	return comment
}

// receiver returns the name of the type that a method is of, and a dot; "" of a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	switch t := ast.Unparen(receiverBase(d)).(type) {
	case *ast.IndexExpr:
		return t.X.(*ast.Ident).Name + "."
	case *ast.IndexListExpr:
		return t.X.(*ast.Ident).Name + "."
	default:
		return t.(*ast.Ident).Name + "."
	}
}

// receiverBase is the type that a method is of, whether by a pointer or not.
func receiverBase(d *ast.FuncDecl) ast.Expr {
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		return star.X
	}
	return t
}
