package millrace

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A program outside of the repository starts a broker, produces, consumes and stops, as a
// newcomer would build it; and again on the folder that it left.
func TestAProgramEmbedsABroker(t *testing.T) {
	if testing.Short() {
		t.Skip("it is built and linked like any other program: go test without -short")
	}
	dir := t.TempDir()
	for _, name := range []string{"main.go", "go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("testdata", "embed", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s\n(where modules have changed: go mod tidy in testdata/embed)", name, strings.Join(args, " "), err, stderr.String())
		}
		return string(out)
	}
	run("go", "mod", "edit", "-replace", "millrace="+here)
	run("go", "build", "-o", "program", ".")
	for range 2 {
		if out := run("./program"); out != "hello\n" {
			t.Errorf("it prints %q", out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "node.json")); err != nil {
		t.Error(err)
	}
}

// The package's documentation and README, in both languages, show that program, which has
// fifteen lines.
func TestTheProgramIsShown(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "embed", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\nfunc main() {\n")
	if n := strings.Count(strings.TrimSuffix(body, "}\n"), "\n"); n != 15 {
		t.Errorf("its main has %d lines", n)
	}
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		if readme, err := os.ReadFile(name); err != nil || !strings.Contains(string(readme), "```go\n"+string(text)+"```\n") {
			t.Errorf("%s does not show it: %v", name, err)
		}
	}
	doc, err := os.ReadFile("broker.go")
	if err != nil {
		t.Fatal(err)
	}
	comment, _, _ := strings.Cut(string(doc), "\npackage millrace\n")
	comment = strings.ReplaceAll(comment, "//\t", "")
	if !strings.Contains(comment, "func main() {\n"+body) {
		t.Error("the package's documentation does not show it")
	}
}
