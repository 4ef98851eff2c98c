//go:build conformance

package conformance

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/docs"
	"millrace/testdata/ports"
)

var rewrite = flag.Bool("rewrite", false, "write the outputs in the tutorial anew from what its commands print")

// TestTutorial runs each language's version of the tutorial as its reader does: in one
// shell, from the first command to the last, against three brokers that it starts itself.
// What the commands of a block print must stand in the text block below it. go test -tags
// conformance -run TestTutorial ./test/conformance -rewrite writes it there.
func TestTutorial(t *testing.T) {
	for _, name := range []string{"tutorial.md", "tutorial.zh-CN.md"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if program == "" {
				t.Skip("the cluster is not ours, and neither is the program")
			}
			tutorial, err := docs.Read(filepath.Join("..", "..", "docs", name))
			if err != nil {
				t.Fatal(err)
			}
			runTutorial(t, tutorial)
		})
	}
}

// A tutorialStep is a block of commands, and the block with what they print.
type tutorialStep struct {
	section  string
	commands *docs.Block
	prints   *docs.Block // nil: nothing
}

func tutorialSteps(d *docs.Document) (steps []*tutorialStep) {
	for _, section := range d.Sections {
		for i, b := range section.Blocks {
			switch b.Language {
			case "sh":
				steps = append(steps, &tutorialStep{section: section.Heading, commands: b})
			case "text":
				if i > 0 && section.Blocks[i-1].Language == "sh" {
					steps[len(steps)-1].prints = b
				}
			}
		}
	}
	return steps
}

// stepBegins is printed before each step, to tell their outputs apart.
const stepBegins = "\x1e"

func runTutorial(t *testing.T, tutorial *docs.Document) {
	steps := tutorialSteps(tutorial)
	dir := t.TempDir()
	if err := os.Symlink(absolute(t, "../../../testdata"), filepath.Join(dir, "testdata")); err != nil {
		t.Fatal(err)
	}
	base := ports.HoldRow(t, 3)
	replaced := []string{
		// What takes long has been done once for all tests.
		"go build -o bin/millrace ./cli/millrace\n", "mkdir bin; ln -s '" + program + "' bin/millrace\n",
		"python3 -m venv .venv\n", "ln -s '" + filepath.Dir(filepath.Dir(setUpPython(t))) + "' .venv\n",
		"127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094\n", fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d\n", base, base+1, base+2),
	}
	var script strings.Builder
	for _, step := range steps {
		fmt.Fprintf(&script, "printf '%s'\n%s", stepBegins, step.commands.Code)
	}
	for i := 0; i < len(replaced); i += 2 {
		if !strings.Contains(script.String(), replaced[i]) {
			t.Fatalf("%s does not say %q any more, for which this test has its own", tutorial.Path, replaced[i])
		}
	}
	// Long enough for any machine: a step that waits for what never comes is named.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-e", "-c", strings.NewReplacer(replaced...).Replace(script.String()))
	shell.Dir = dir
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "MILLRACE_") && !strings.HasPrefix(variable, "KAFKA_") {
			shell.Env = append(shell.Env, variable)
		}
	}
	shell.Env = append(shell.Env, "MILLRACE_BASE_PORT="+strconv.Itoa(base))
	// What it leaves behind when it fails ends with it.
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	shell.WaitDelay = 10 * time.Second
	out, err := shell.CombinedOutput()
	outputs := strings.Split(string(out), stepBegins)[1:]
	if err != nil {
		shell.Cancel()
		logs, _ := filepath.Glob(filepath.Join(dir, "bin", "tutorial", "*.log"))
		for _, name := range logs {
			log, _ := os.ReadFile(name)
			t.Logf("%s:\n%s", filepath.Base(name), tail(string(log)))
		}
		failed := steps[len(outputs)-1]
		t.Fatalf("%s, section %q: %v\n%s----\n%s", tutorial.Path, failed.section, err, failed.commands.Code, outputs[len(outputs)-1])
	}
	anew := make(map[*docs.Block]string)
	for i, step := range steps {
		said := ""
		if step.prints != nil {
			said = step.prints.Code
		}
		switch {
		case constant(said) == constant(outputs[i]):
		case *rewrite && step.prints != nil:
			anew[step.prints] = outputs[i]
		default:
			t.Errorf("%s, section %q:\n%s---- prints\n%s---- and not\n%s", tutorial.Path, step.section, step.commands.Code, outputs[i], said)
		}
	}
	if len(anew) > 0 {
		if err := os.WriteFile(tutorial.Path, tutorial.Replace(anew), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What differs from run to run: times, processes, coordinators, and the widths of columns.
var variable = regexp.MustCompile(`\b\d+(\.\d+)? (µs|ms|s)\b|\bpid \d+|(timestamp=)\d+|((?m)(Empty|Stable) +\d+$)| +`)

// constant is what of an output is the same in every run.
func constant(output string) string {
	return variable.ReplaceAllString(output, " $3$5 ")
}
