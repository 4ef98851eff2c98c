package millrace

import (
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestSwitches holds the table of switches in CONTRIBUTING.md to the tests: every flag
// that a test defines and every variable of the environment that one reads has a row, and
// every row is of one.
func TestSwitches(t *testing.T) {
	used := map[string]string{} // to where
	for _, file := range goFiles(t) {
		if file.nested || !file.test || file.path == "switches_test.go" {
			continue
		}
		_, f := file.parse(t, 0)
		ast.Inspect(f, func(n ast.Node) bool {
			if name := switchOf(n); name != "" {
				used[name] = file.path
			}
			return true
		})
	}
	if used["-rewrite"] == "" || used["MILLRACE_LOG"] == "" || used["FAULTS_ROUNDS"] == "" {
		t.Fatalf("the switches of tests are not found: %v", used)
	}
	doc, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## Switches\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		rows[row[1]] = true
		if used[row[1]] == "" {
			t.Errorf("CONTRIBUTING.md has a switch %s, which no test reads", row[1])
		}
	}
	for name, path := range used {
		if !rows[name] {
			t.Errorf("%s reads %s, which the table of switches in CONTRIBUTING.md does not have", path, name)
		}
	}
}

// switchOf returns the flag or the variable that a call defines or reads, "" for any
// other node. What every program reads, PATH say, is no switch, nor is what a test's
// process tells its children, whose names are constants.
func switchOf(n ast.Node) string {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return ""
	}
	lit, ok := call.Args[0].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	name, err := strconv.Unquote(lit.Value)
	if err != nil || name == "PATH" {
		return ""
	}
	switch f := call.Fun.(type) {
	case *ast.Ident:
		if f.Name == "setting" && name == strings.ToUpper(name) {
			return name
		}
	case *ast.SelectorExpr:
		switch x, _ := f.X.(*ast.Ident); {
		case x == nil:
		case x.Name == "os" && (f.Sel.Name == "Getenv" || f.Sel.Name == "LookupEnv"):
			return name
		case x.Name == "flag" && name != "" && len(call.Args) == 3:
			return "-" + name
		}
	}
	return ""
}
