package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"embed"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed files
var files embed.FS

// A content is a file that goes beside the program.
type content struct {
	text    []byte
	archive string // its place in an archive's folder; "" is not in it
	debian  string // its place in Debian's file system; "" is not in it
	config  bool   // the administrator may change it there
}

// contents are the files beside the program: the manual, what shells complete with, how
// systemd starts it, its configuration, the documents with the programs that they show, and
// the flights that the README's examples read.
func (b *builder) contents(ctx context.Context, work string) (all []content, err error) {
	add := func(text []byte, err2 error, archive, debian string) {
		if err == nil {
			err = err2
		}
		all = append(all, content{text: text, archive: archive, debian: debian})
	}
	manual := filepath.Join(work, "man1")
	if _, err := says(ctx, "man", "--dir", manual); err != nil {
		return nil, err
	}
	pages, err := os.ReadDir(manual)
	if err != nil {
		return nil, err
	}
	for _, page := range pages {
		text, rerr := os.ReadFile(filepath.Join(manual, page.Name()))
		add(text, rerr, "man/man1/"+page.Name(), "")
		packed, perr := packed(text)
		add(packed, perr, "", "/usr/share/man/man1/"+page.Name()+".gz")
	}
	for _, shell := range []struct{ name, archive, debian string }{
		{"bash", "completions/millrace.bash", "/usr/share/bash-completion/completions/millrace"},
		{"zsh", "completions/_millrace", "/usr/share/zsh/vendor-completions/_millrace"},
		{"fish", "completions/millrace.fish", "/usr/share/fish/vendor_completions.d/millrace.fish"},
	} {
		script, serr := says(ctx, "completion", shell.name)
		add(script, serr, shell.archive, shell.debian)
	}
	for _, name := range []string{
		"README.md", "README.zh-CN.md", "ARCHITECTURE.md", "BENCHMARKS.md", "CONTRIBUTING.md", "FORMAT.md",
		"docs/tutorial.md", "docs/tutorial.zh-CN.md", "docs/glossary.zh-CN.md", "docs/settings.md",
	} {
		text, rerr := os.ReadFile(filepath.Join(b.root, name))
		add(text, rerr, name, "/usr/share/doc/millrace/"+name)
	}
	for _, file := range []struct{ name, debian string }{
		{"LICENSE", ""},
		{"CHANGELOG.md", ""},
		{"testdata/flights.jsonl", "/usr/share/millrace/testdata/flights.jsonl"},
	} {
		text, rerr := os.ReadFile(filepath.Join(b.root, file.name))
		add(text, rerr, file.name, file.debian)
	}
	for _, folder := range []string{"testdata/connect", "testdata/embed", "testdata/tutorial"} {
		programs, rerr := os.ReadDir(filepath.Join(b.root, folder))
		if rerr != nil {
			return nil, rerr
		}
		for _, program := range programs {
			if program.IsDir() { // what somebody has built there
				continue
			}
			name := folder + "/" + program.Name()
			text, rerr := os.ReadFile(filepath.Join(b.root, name))
			add(text, rerr, name, "/usr/share/millrace/"+name)
		}
	}
	changes, cerr := packed(text(all, "CHANGELOG.md"))
	add(changes, cerr, "", "/usr/share/doc/millrace/changelog.gz")
	for _, file := range []struct{ name, archive, debian string }{
		{"millrace.service", "systemd/millrace.service", "/usr/lib/systemd/system/millrace.service"},
		{"millrace.properties", "millrace.properties", "/etc/millrace/millrace.properties"},
		{"debian/copyright", "", "/usr/share/doc/millrace/copyright"},
	} {
		text, rerr := files.ReadFile("files/" + file.name)
		add(text, rerr, file.archive, file.debian)
		all[len(all)-1].config = strings.HasPrefix(file.debian, "/etc/")
	}
	return all, err
}

// text is the content with some place in the archive.
func text(all []content, archive string) []byte {
	i := slices.IndexFunc(all, func(c content) bool { return c.archive == archive })
	return all[i].text
}

// packed is text as gzip packs it, without a time.
func packed(text []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
