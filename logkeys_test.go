package millrace

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// errorKey is the key of an error in the log, everywhere: whoever filters logs for it
// misses none.
const errorKey = "error"

// TestErrorsAreLoggedUnderOneKey holds all code to errorKey.
func TestErrorsAreLoggedUnderOneKey(t *testing.T) {
	logged := 0
	for _, file := range goFiles(t) {
		if file.nested || file.test {
			continue
		}
		positions, f := file.parse(t, 0)
		ast.Inspect(f, func(n ast.Node) bool {
			for _, key := range errorKeys(n) {
				logged++
				if name, _ := strconv.Unquote(key.Value); name != errorKey {
					t.Errorf("%s: an error is logged as %q, want %q", positions.Position(key.Pos()), name, errorKey)
				}
			}
			return true
		})
	}
	if logged < 50 {
		t.Errorf("%d errors are logged: the test does not find them", logged)
	}
}

// logCalls are the methods and functions that take a message and then keys and values, of
// slog, of internal/slowlog and our own around them; and the ones that make an attribute.
var logCalls = []string{
	"Debug", "Info", "Warn", "Error", "Log", "With", "DebugContext", "InfoContext", "WarnContext", "ErrorContext",
	"LogAttrs", "Lasting", "warn", "Any", "String",
}

// errorKeys returns the keys under which a call logs what is an error by its name, and
// the keys that say that it is one.
func errorKeys(n ast.Node) (keys []*ast.BasicLit) {
	call, ok := n.(*ast.CallExpr)
	if !ok || !slices.Contains(logCalls, nameOf(call.Fun)) {
		return nil
	}
	for i := 1; i < len(call.Args); i++ {
		key, ok := call.Args[i-1].(*ast.BasicLit)
		if !ok || key.Kind != token.STRING {
			continue
		}
		if isError := strings.HasSuffix(strings.ToLower(nameOf(call.Args[i])), "err"); isError || key.Value == `"err"` || key.Value == `"error"` {
			keys = append(keys, key)
		}
	}
	return keys
}

// nameOf is the last name of an expression: Err of c.ctx.Err(), err of a.err.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.CallExpr:
		return nameOf(e.Fun)
	}
	return ""
}

func TestErrorKeysAreFound(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "a.go", `package p

func f() {
	logger.Warn("m", "n", 1, "err", err)
	s.warn("m", "cause", a.err, "n", 2)
	t.slow.Lasting(logger, "key", "m", "error", ctx.Err())
	logger.With("group", id).Error("m", slog.Any("why", readErr))
	logger.Info("m", "err", failed())
	fmt.Errorf("%s: %w", "x", err)
	logger.Info("m", "group", id)
}
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	ast.Inspect(file, func(n ast.Node) bool {
		for _, key := range errorKeys(n) {
			got = append(got, key.Value)
		}
		return true
	})
	if want := `["\"err\"" "\"cause\"" "\"error\"" "\"why\"" "\"err\""]`; fmt.Sprintf("%q", got) != want {
		t.Errorf("%q, want %s", got, want)
	}
}
