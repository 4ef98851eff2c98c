package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // Debian's format
	contentfiles "github.com/goreleaser/nfpm/v2/files"
)

// debian is a package for Debian and what descends from it, which has a service run it.
func (b *builder) debian(p platform, binary string, contents []content, work string) (name string, write func(w io.Writer) error) {
	format, err := nfpm.Get("deb")
	if err != nil {
		panic(err) // it is imported
	}
	info := &nfpm.Info{
		Name:       "millrace",
		Arch:       p.arch,
		Platform:   "linux",
		Version:    b.version,
		Section:    "database",
		Priority:   "optional",
		Maintainer: "The Millrace authors <millrace@localhost>",
		Description: "Kafka-compatible, partitioned, append-only log\n" +
			"A broker that never loses what it acknowledged: every record is on the disks\n" +
			"of a majority before its producer hears so. Producers and consumers are the\n" +
			"Kafka clients there are. One program, server and client.",
		License:         "Apache-2.0",
		MTime:           b.date,
		DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Depends: []string{"adduser", "init-system-helpers (>= 1.54)"},
			Deb:     nfpm.Deb{Compression: "gzip"},
		},
	}
	return format.ConventionalFileName(info), func(w io.Writer) error {
		add := func(source, destination, kind string, mode os.FileMode) {
			info.Contents = append(info.Contents, &contentfiles.Content{
				Source: source, Destination: destination, Type: kind,
				FileInfo: &contentfiles.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: b.date},
			})
		}
		// nfpm takes its files from the disk.
		dir := filepath.Join(work, "deb_"+p.arch)
		onDisk := func(name string, text []byte) (string, error) {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return "", err
			}
			return path, os.WriteFile(path, text, 0o644)
		}
		add(binary, "/usr/bin/millrace", contentfiles.TypeFile, 0o755)
		for _, c := range contents {
			if c.debian == "" {
				continue
			}
			path, err := onDisk("root"+c.debian, c.text)
			if err != nil {
				return err
			}
			kind := contentfiles.TypeFile
			if c.config {
				kind = contentfiles.TypeConfig
			}
			add(path, c.debian, kind, 0o644)
		}
		for name, script := range map[string]*string{
			"postinst": &info.Scripts.PostInstall, "prerm": &info.Scripts.PreRemove, "postrm": &info.Scripts.PostRemove,
		} {
			text, err := files.ReadFile("files/debian/" + name)
			if err != nil {
				return err
			}
			if *script, err = onDisk(name, text); err != nil {
				return err
			}
		}
		if err := info.Validate(); err != nil {
			return fmt.Errorf("nfpm: %w", err)
		}
		return format.Package(nfpm.WithDefaults(info), w)
	}
}
