// Package storytest has tests tell what happens over time as text files: paragraphs apart from
// each other by an empty line, each of comments, a command, input to it, "----" and what
// came of it.
//
//	# A comment says what a reader should expect.
//	append 3
//	a
//	b
//	----
//	offsets 0 and 1
//
// A test says what its commands do; the files are its golden files. Only tests import this
// package.
package storytest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the stories of testdata tell now into them")

// Run has each file that matches told, as a subtest by its name. tell is given a file's text
// and returns it as it goes now, by Tell; a difference fails the subtest, or is written into
// the file with -rewrite. That there is no file fails t.
func Run(t *testing.T, pattern string, tell func(t *testing.T, text string) string) {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories at %s: %v", pattern, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := tell(t, string(text))
			switch {
			case t.Failed(), got == string(text):
			case *rewrite:
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("%s: run with -rewrite and look at the difference; now:\n%s", path, got)
			}
		})
	}
}

// Tell returns a story as it goes now: as it was, but for what comes of its commands, which
// is what do returns for each in turn, without a newline at its end. do gets a command's
// words and the lines of its input.
func Tell(text string, do func(command, input []string) string) string {
	var told []string
	for _, paragraph := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		lines := strings.Split(paragraph, "\n")
		at := 0 // of the command
		for at < len(lines) && strings.HasPrefix(lines[at], "#") {
			at++
		}
		if at < len(lines) {
			end := at + 1
			for end < len(lines) && lines[end] != "----" {
				end++
			}
			came := do(strings.Fields(lines[at]), lines[at+1:end])
			lines = append(lines[:end:end], "----")
			if came != "" {
				lines = append(lines, came)
			}
		}
		told = append(told, strings.Join(lines, "\n"))
	}
	return strings.Join(told, "\n\n") + "\n"
}
