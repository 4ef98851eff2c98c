package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	layers "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// imageUser runs the broker in a container; it has nothing else.
const imageUser = 65532

// image is a container image for all of linux, as an OCI layout in a tar file, which
// `podman load`, skopeo and containerd read. It is made from scratch: the program, its
// configuration, and folders that its user may write to.
func (b *builder) image(linux []platform, binaries map[platform]string, work string) (name string, write func(w io.Writer) error) {
	return fmt.Sprintf("millrace_%s_oci.tar", b.version), func(w io.Writer) error {
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		base, err := b.layer(fillBase)
		if err != nil {
			return err
		}
		for _, p := range linux {
			img, err := b.imageOf(p, base, binaries[p])
			if err != nil {
				return err
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{
				Add:        img,
				Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: p.os, Architecture: p.arch}},
			})
		}
		dir := filepath.Join(work, "oci")
		path, err := layout.Write(dir, empty.Index)
		if err != nil {
			return err
		}
		err = path.AppendIndex(index, layout.WithAnnotations(map[string]string{
			// Podman calls it so; containerd has a name of its own for that.
			"org.opencontainers.image.ref.name": "millrace:" + b.version,
			"io.containerd.image.name":          "localhost/millrace:" + b.version,
		}))
		if err != nil {
			return err
		}
		t := newTar(w, b.date)
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == dir {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if d.IsDir() {
				return t.folder(filepath.ToSlash(name), 0o755)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return t.file(filepath.ToSlash(name), 0o644, text)
		})
		if err != nil {
			return err
		}
		return t.w.Close()
	}
}

// imageOf is the image for one platform.
func (b *builder) imageOf(p platform, base v1.Layer, binary string) (v1.Image, error) {
	program, err := b.layer(func(t *tarball) error {
		text, err := os.ReadFile(binary)
		if err != nil {
			return err
		}
		return t.file("usr/bin/millrace", 0o755, text)
	})
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	history := func(what string) v1.History {
		return v1.History{Created: v1.Time{Time: b.date}, CreatedBy: "packaging", Comment: what}
	}
	img, err = mutate.Append(img,
		mutate.Addendum{Layer: base, History: history("user, folders, configuration")},
		mutate.Addendum{Layer: program, History: history("program")})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = p.os, p.arch, v1.Time{Time: b.date}
	config.Config = v1.Config{
		Entrypoint: []string{"/usr/bin/millrace"},
		Cmd:        []string{"serve"},
		// The file is what everything else wins over, KAFKA_LISTENERS of a compose file too.
		Env:          []string{"PATH=/usr/bin", "MILLRACE_CONFIG=/etc/millrace/millrace.properties"},
		User:         fmt.Sprintf("%d:%d", imageUser, imageUser),
		WorkingDir:   "/var/lib/millrace",
		Volumes:      map[string]struct{}{"/var/lib/millrace": {}},
		ExposedPorts: map[string]struct{}{"9092/tcp": {}},
		StopSignal:   "SIGTERM",
		Labels: map[string]string{
			"org.opencontainers.image.title":       "Millrace",
			"org.opencontainers.image.description": "A Kafka-compatible, partitioned, append-only log broker",
			"org.opencontainers.image.version":     b.version,
			"org.opencontainers.image.revision":    b.commit,
			"org.opencontainers.image.licenses":    "Apache-2.0",
		},
	}
	return mutate.ConfigFile(img, config)
}

// fillBase puts in what the program finds where it runs. The folders of Kafka's images are
// there for compose files that mount a volume at them: it belongs to the user then.
func fillBase(t *tarball) error {
	config, err := files.ReadFile("files/image.properties")
	if err != nil {
		return err
	}
	user := fmt.Sprintf("millrace:x:%d:%d::/var/lib/millrace:/sbin/nologin\n", imageUser, imageUser)
	group := fmt.Sprintf("millrace:x:%d:\n", imageUser)
	for _, put := range []func() error{
		func() error { return t.folder("etc", 0o755) },
		func() error { return t.file("etc/passwd", 0o644, []byte("root:x:0:0::/:/sbin/nologin\n"+user)) },
		func() error { return t.file("etc/group", 0o644, []byte("root:x:0:\n"+group)) },
		func() error { return t.folder("etc/millrace", 0o755) },
		func() error { return t.file("etc/millrace/millrace.properties", 0o644, config) },
		func() error { return t.folder("tmp", 0o1777) },
		func() error { return t.folder("usr", 0o755) },
		func() error { return t.folder("usr/bin", 0o755) },
		func() error { return t.folder("var", 0o755) },
		func() error { return t.folder("var/lib", 0o755) },
		func() error { return t.folder("var/lib/kafka", 0o755) },
		func() error { return t.folder("bitnami", 0o755) },
		func() error { t.uid, t.gid = imageUser, imageUser; return nil },
		func() error { return t.folder("var/lib/millrace", 0o750) },
		func() error { return t.folder("var/lib/kafka/data", 0o750) },
		func() error { return t.folder("bitnami/kafka", 0o750) },
	} {
		if err := put(); err != nil {
			return err
		}
	}
	return nil
}

// layer makes a layer of files.
func (b *builder) layer(fill func(t *tarball) error) (v1.Layer, error) {
	var buf bytes.Buffer
	t := newTar(&buf, b.date)
	if err := fill(t); err != nil {
		return nil, err
	}
	if err := t.w.Close(); err != nil {
		return nil, err
	}
	return layers.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	}, layers.WithMediaType(types.OCILayer), layers.WithCompressedCaching)
}
