package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"millrace/cli/clitest"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

// Every command has its page, and everything on it that its help has: each flag, each
// example.
func TestEveryCommandHasAPageOfTheManual(t *testing.T) {
	pages := make(map[string]string)
	for _, p := range manPages("2026-01-02") {
		// What roff makes of \- and \& is the character, and nothing.
		pages[p.name] = strings.NewReplacer(`\\`, `\`, `\-`, "-", `\&`, "", `\(bu`, "•", `\e`, `\`, `\'`, "'", `\fB`, "", `\fI`, "", `\fP`, "", `\fR`, "").Replace(string(p.roff))
		fixed := false
		for line := range strings.Lines(pages[p.name]) {
			line = strings.TrimSuffix(line, "\n")
			fixed = line == ".EX" || fixed && line != ".EE"
			if n := term.CellWidth(line); fixed && n > manWidth {
				t.Errorf("%s: a line is %d columns wide, man has room for %d: %s", p.name, n, manWidth, line)
			}
		}
		pages[p.name] = strings.ReplaceAll(pages[p.name], " \\\n    ", " ") // examples in one line again
	}
	if !strings.Contains(pages["millrace"], "2026-01-02") {
		t.Error("no date on the page of the program")
	}
	var visit func(above string, all []*urfave.Command)
	visit = func(above string, all []*urfave.Command) {
		for _, c := range all {
			name := above + "-" + c.Name
			page, there := pages[name]
			delete(pages, name)
			if !there {
				t.Errorf("%s has no page", name)
				continue
			}
			for _, f := range c.Flags {
				if !strings.Contains(page, "--"+f.Names()[0]) {
					t.Errorf("%s does not say --%s", name, f.Names()[0])
				}
			}
			for _, line := range strings.Split(c.Description, "\n") {
				if example, ok := strings.CutPrefix(line, "   $ "); ok && !strings.Contains(page, example) {
					t.Errorf("%s lacks its example %q:\n%s", name, example, page)
				}
			}
			visit(name, c.Subcommands)
		}
	}
	all := written()
	for _, c := range all {
		if !strings.Contains(pages["millrace"], "millrace-"+c.Name) {
			t.Errorf("the page of the program does not list %s", c.Name)
		}
	}
	visit("millrace", all)
	delete(pages, "millrace")
	for name := range pages {
		t.Errorf("%s is the page of no command", name)
	}
}

func TestManWritesAllPagesOrPrintsOne(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1767312000")
	dir := filepath.Join(t.TempDir(), "man1")
	if r := runInProcess(t, "man", "--dir", dir); r.Status != term.StatusDone {
		t.Fatalf("status %d: %s", r.Status, r.Stderr)
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != len(manPages("")) {
		t.Fatalf("%d pages are written, %v", len(all), err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "millrace-topic-create.1"))
	if err != nil {
		t.Fatal(err)
	}
	if r := runInProcess(t, "man", "topic", "create"); r.Status != term.StatusDone || r.Stdout != string(want) || !strings.Contains(r.Stdout, "2026-01-02") {
		t.Errorf("status %d, %q, want the page in the folder\n%s", r.Status, r.Stdout, want)
	}
	for _, line := range []string{"man topic make", "man --dir x topic", "man --dir="} {
		if r := runInProcess(t, strings.Fields(line)...); r.Status != term.StatusUsage {
			t.Errorf("%s: status %d", line, r.Status)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if r := runInProcess(t, "man"); r.Status != term.StatusUsage || !strings.Contains(r.Stderr, "SOURCE_DATE_EPOCH=yesterday") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
}

// Who asks for a page on a terminal gets it to read, and what man reads only on request.
func TestManShowsAPageOnATerminal(t *testing.T) {
	roff := clitest.Run(t, nil, "", "man", "topic", "create").Stdout
	if !strings.Contains(roff, "\n.SH NAME\n") {
		t.Fatalf("in a pipe: %s", roff)
	}
	if got := onTerminal(t, nil, 80, "", "man", "topic", "create", "--roff"); got != roff {
		t.Errorf("with --roff: %q, want %q", got, roff)
	}
	t.Run("formatted", func(t *testing.T) {
		if out, err := exec.Command("sh", "-c", "echo .TH A 1 | man -l -").CombinedOutput(); err != nil {
			t.Skipf("this machine's man formats no page: %v, %s", err, out)
		}
		t.Setenv("MANPAGER", "cat")
		got := onTerminal(t, nil, 80, "", "man", "topic", "create")
		if !strings.Contains(got, "MILLRACE-TOPIC-CREATE(1)") || !strings.Contains(got, "\n       millrace-topic-create - ") || strings.Contains(got, ".SH") {
			t.Errorf("%s", got)
		}
	})
	help := clitest.Run(t, nil, "", "topic", "create", "--help").Stdout
	t.Setenv("PATH", t.TempDir())
	if got := onTerminal(t, nil, 80, "", "man", "topic", "create"); got != help {
		t.Errorf("without man: %q, want %q", got, help)
	}
	// A man that does not take a page so says a usage, and fails.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "man"), []byte("#!/bin/sh\necho usage >&2\nexit 64\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if got := onTerminal(t, nil, 80, "", "man", "topic", "create"); got != help {
		t.Errorf("with another man: %q, want %q", got, help)
	}
}

// runInProcess runs a command line in this process.
func runInProcess(t *testing.T, args ...string) clitest.Result {
	t.Helper()
	var stdout, stderr strings.Builder
	status := Run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return clitest.Result{Stdout: stdout.String(), Stderr: stderr.String(), Status: status}
}
