package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/cli"
	"millrace/cli/term"
)

// A platform is what Go calls GOOS and GOARCH.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// program is the name of the program's file.
func (p platform) program() string {
	if p.os == "windows" {
		return "millrace.exe"
	}
	return "millrace"
}

// platforms are those there are archives for.
var platforms = []platform{
	{"linux", "amd64"}, {"linux", "arm64"},
	{"darwin", "amd64"}, {"darwin", "arm64"},
	{"windows", "amd64"}, {"windows", "arm64"},
}

// A builder builds what is installed. It is used once.
type builder struct {
	root      string // the clone that is built
	out       string // where it goes
	version   string // "" is the one that the program says
	platforms []platform

	commit string    // what is built, as the program says it
	date   time.Time // of everything in it
}

// An artifact is one file of what is built.
type artifact struct {
	name string
	size int64
	took time.Duration // to build it
}

// build builds everything, telling of each artifact when it is there.
func (b *builder) build(ctx context.Context, tell func(artifact)) (all []artifact, err error) {
	if err := b.identify(ctx); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "packaging-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	contents, err := b.contents(ctx, work)
	if err != nil {
		return nil, err
	}
	var linux []platform
	binaries := make(map[platform]string)
	add := func(name string, begin time.Time, write func(w io.Writer) error) error {
		size, err := writeFile(filepath.Join(b.out, name), write)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		a := artifact{name, size, time.Since(begin)}
		all = append(all, a)
		tell(a)
		return nil
	}
	for _, p := range b.platforms {
		begin := time.Now()
		if binaries[p], err = b.compile(ctx, p, work); err != nil {
			return nil, err
		}
		if p.os == "linux" {
			linux = append(linux, p)
		}
		name, write := b.archive(p, binaries[p], contents)
		if err := add(name, begin, write); err != nil {
			return nil, err
		}
	}
	for _, p := range linux {
		begin := time.Now()
		name, write := b.debian(p, binaries[p], contents, work)
		if err := add(name, begin, write); err != nil {
			return nil, err
		}
	}
	if len(linux) > 0 {
		begin := time.Now()
		name, write := b.image(linux, binaries, work)
		if err := add(name, begin, write); err != nil {
			return nil, err
		}
	}
	return all, b.sums(all)
}

// identify finds out what is built: its commit and when that was made, unless
// SOURCE_DATE_EPOCH says so.
func (b *builder) identify(ctx context.Context) error {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", b.root}, args...)...)
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	commit, err := git("rev-parse", "HEAD")
	if err == nil {
		b.commit = commit[:12]
		if changes, err := git("status", "--porcelain", "--untracked-files=no"); err != nil || changes != "" {
			b.commit += "+changes"
		}
		if epoch == "" {
			epoch, err = git("log", "-1", "--format=%ct")
		}
	}
	if epoch == "" {
		return fmt.Errorf("%s is no clone of the repository, so SOURCE_DATE_EPOCH must say when it is from: %v", b.root, err)
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH=%s: it is a number of seconds since 1970", epoch)
	}
	b.date = time.Unix(seconds, 0).UTC()
	// The pages of the manual are from then, too.
	if err := os.Setenv("SOURCE_DATE_EPOCH", epoch); err != nil {
		return err
	}
	if b.version != "" {
		return nil
	}
	out, err := says(ctx, "version", "-o", "json")
	if err != nil {
		return err
	}
	var said struct{ Version string }
	err = json.Unmarshal(out, &said)
	b.version = said.Version
	return err
}

// says is what the program prints.
func says(ctx context.Context, args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	if status := cli.Run(ctx, args, strings.NewReader(""), &out, &errs); status != term.StatusDone {
		return nil, fmt.Errorf("millrace %s: %s", strings.Join(args, " "), strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

// compile builds the program for one platform, stripped, and returns where it is. Nothing of
// this machine gets into it: no path, no C library, no setting of Go's.
func (b *builder) compile(ctx context.Context, p platform, work string) (string, error) {
	path := filepath.Join(work, p.os+"_"+p.arch, p.program())
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -buildid= -X millrace/cli/term.Version="+b.version+" -X millrace/cli/term.Commit="+b.commit,
		"-o", path, "./cli/millrace")
	cmd.Dir = b.root
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return name == "GOFLAGS" || name == "GOWORK" || name == "GOEXPERIMENT" || strings.HasPrefix(name, "CGO_")
	})
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch, "GOAMD64=v1", "GOARM64=v8.0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build for %s: %w\n%s", p, err, out)
	}
	return path, nil
}

// sums writes the checksums, as sha256sum -c reads them.
func (b *builder) sums(all []artifact) error {
	_, err := writeFile(filepath.Join(b.out, "SHA256SUMS"), func(w io.Writer) error {
		for _, a := range all {
			f, err := os.Open(filepath.Join(b.out, a.name))
			if err != nil {
				return err
			}
			hash := sha256.New()
			_, err = io.Copy(hash, f)
			f.Close()
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "%x  %s\n", hash.Sum(nil), a.name); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// writeFile makes a file appear whole or not at all, and returns its size.
func writeFile(path string, write func(w io.Writer) error) (int64, error) {
	aside := path + ".new"
	f, err := os.Create(aside)
	if err != nil {
		return 0, err
	}
	defer os.Remove(aside)
	err = write(f)
	info, serr := f.Stat()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return 0, err
	}
	if serr != nil {
		return 0, serr
	}
	return info.Size(), os.Rename(aside, path)
}
