// Packaging builds what people install: archives for three systems, packages for Debian, and a
// container image, with their checksums. It needs Go, and git or SOURCE_DATE_EPOCH.
//
//	go run . -o ../dist
//	go run . -only linux/arm64 -version 0.2.0
//
// The same commit gives the same bytes, in whichever folder and at whatever time it is built.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	switch err := command(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage): // which has been said
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "packaging:", err)
		os.Exit(1)
	}
}

// errUsage is a mistake in the command line.
var errUsage = errors.New("the command line is wrong")

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("packaging", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var b builder
	flags.StringVar(&b.out, "o", "../dist", "put what is built into this `folder`")
	flags.StringVar(&b.root, "root", "..", "build the clone of the repository in this `folder`")
	flags.StringVar(&b.version, "version", "", "the `version`; without it the one that the program says")
	only := flags.String("only", "", "build for these of the platforms alone: `OS/ARCH,…`")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errUsage
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("there are flags only, but %q was given", flags.Arg(0))
	}
	b.platforms = platforms
	if *only != "" {
		b.platforms = nil
		for name := range strings.SplitSeq(*only, ",") {
			i := slices.IndexFunc(platforms, func(p platform) bool { return p.String() == name })
			if i < 0 {
				return fmt.Errorf("-only %s: it is one of %v", name, platforms)
			}
			b.platforms = append(b.platforms, platforms[i])
		}
	}
	begin := time.Now()
	artifacts, err := b.build(ctx, func(a artifact) {
		fmt.Fprintf(stdout, "%-40s %6.1f MB %7.1f s\n", a.name, float64(a.size)/1e6, a.took.Seconds())
	})
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(b.out)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d files and SHA256SUMS in %s after %.1f s\n", len(artifacts), dir, time.Since(begin).Seconds())
	return nil
}
