// Package termtest gives tests the context of a command that was not run.
package termtest

import (
	"flag"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v2"
)

// Context is the context of a command with some flags, run with some words.
func Context(t *testing.T, flags []urfave.Flag, words ...string) *urfave.Context {
	t.Helper()
	set := flag.NewFlagSet("", flag.ContinueOnError)
	for _, f := range flags {
		if err := f.Apply(set); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Parse(words); err != nil {
		t.Fatal(err)
	}
	c := urfave.NewContext(&urfave.App{Reader: strings.NewReader(""), Writer: new(strings.Builder), ErrWriter: new(strings.Builder)}, set, nil)
	c.Context = t.Context()
	return c
}
