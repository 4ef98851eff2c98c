package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v2"
)

// Every command has its page, and everything on it that its help has: each flag, each
// example.
func TestEveryCommandHasAPageOfTheManual(t *testing.T) {
	pages := make(map[string]string)
	for _, p := range manPages("2026-01-02") {
		// What roff makes of \- and \& is the character, and nothing.
		pages[p.name] = strings.NewReplacer(`\\`, `\`, `\-`, "-", `\&`, "", `\(bu`, "•", `\e`, `\`, `\'`, "'", `\fB`, "", `\fI`, "", `\fP`, "", `\fR`, "").Replace(string(p.roff))
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
	if r := runInProcess(t, "man", "--dir", dir); r.status != StatusDone {
		t.Fatalf("status %d: %s", r.status, r.stderr)
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != len(manPages("")) {
		t.Fatalf("%d pages are written, %v", len(all), err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "millrace-topic-create.1"))
	if err != nil {
		t.Fatal(err)
	}
	if r := runInProcess(t, "man", "topic", "create"); r.status != StatusDone || r.stdout != string(want) || !strings.Contains(r.stdout, "2026-01-02") {
		t.Errorf("status %d, %q, want the page in the folder\n%s", r.status, r.stdout, want)
	}
	for _, line := range []string{"man topic make", "man --dir x topic"} {
		if r := runInProcess(t, strings.Fields(line)...); r.status != StatusUsage {
			t.Errorf("%s: status %d", line, r.status)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if r := runInProcess(t, "man"); r.status != StatusUsage || !strings.Contains(r.stderr, "SOURCE_DATE_EPOCH=yesterday") {
		t.Errorf("status %d, %s", r.status, r.stderr)
	}
}

// runInProcess runs a command line in this process.
func runInProcess(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr strings.Builder
	status := Run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return result{stdout.String(), stderr.String(), status}
}
