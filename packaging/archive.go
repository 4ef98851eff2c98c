package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"time"
)

// archive is the program with its contents in one folder: a zip for Windows, a tar.gz for
// others.
func (b *builder) archive(p platform, binary string, contents []content) (name string, write func(w io.Writer) error) {
	folder := fmt.Sprintf("millrace_%s_%s_%s", b.version, p.os, p.arch)
	fill := func(add func(name string, mode int64, text []byte) error) error {
		text, err := os.ReadFile(binary)
		if err != nil {
			return err
		}
		if err := add(folder+"/"+p.program(), 0o755, text); err != nil {
			return err
		}
		for _, c := range contents {
			if c.archive == "" || p.os != "linux" && c.archive == "systemd/millrace.service" {
				continue
			}
			if err := add(folder+"/"+c.archive, 0o644, c.text); err != nil {
				return err
			}
		}
		return nil
	}
	if p.os == "windows" {
		return folder + ".zip", func(w io.Writer) error {
			z := zip.NewWriter(w)
			err := fill(func(name string, mode int64, text []byte) error {
				h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: b.date}
				h.SetMode(os.FileMode(mode))
				f, err := z.CreateHeader(h)
				if err != nil {
					return err
				}
				_, err = f.Write(text)
				return err
			})
			if err != nil {
				return err
			}
			return z.Close()
		}
	}
	return folder + ".tar.gz", func(w io.Writer) error {
		packed, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		t := newTar(packed, b.date)
		if err := fill(t.file); err != nil {
			return err
		}
		if err := t.w.Close(); err != nil {
			return err
		}
		return packed.Close()
	}
}

// A tarball writes files of one date that belong to root.
type tarball struct {
	w        *tar.Writer
	date     time.Time
	uid, gid int // of what follows
}

func newTar(w io.Writer, date time.Time) *tarball { return &tarball{w: tar.NewWriter(w), date: date} }

func (t *tarball) file(name string, mode int64, text []byte) error {
	h := t.header(name, mode)
	h.Typeflag, h.Size = tar.TypeReg, int64(len(text))
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := t.w.Write(text)
	return err
}

func (t *tarball) folder(name string, mode int64) error {
	h := t.header(name+"/", mode)
	h.Typeflag = tar.TypeDir
	return t.w.WriteHeader(h)
}

func (t *tarball) header(name string, mode int64) *tar.Header {
	return &tar.Header{Name: name, Mode: mode, ModTime: t.date, Uid: t.uid, Gid: t.gid, Format: tar.FormatUSTAR}
}
