package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// shared is what the tests of one run share: it takes a minute to build.
var shared struct {
	dir string
	all map[string]func() (string, error) // by version and the name of a copy
	mu  sync.Mutex
}

func TestMain(m *testing.M) {
	var err error
	if shared.dir, err = os.MkdirTemp("", "packaging-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared.all = make(map[string]func() (string, error))
	status := m.Run()
	os.RemoveAll(shared.dir)
	os.Exit(status)
}

const testEpoch = "1767312000"

// here is the platform that tests build for: what they build must run.
var here = platform{"linux", runtime.GOARCH}

// dist is the folder with what is built of this source, for this machine's processor, as
// some version, from a copy of the source with a name.
func dist(t *testing.T, version, name string) string {
	t.Helper()
	shared.mu.Lock()
	once, known := shared.all[version+name]
	if !known {
		once = sync.OnceValues(func() (string, error) {
			root := filepath.Join(shared.dir, name)
			if _, err := os.Stat(root); err != nil {
				if err := copySource("..", root); err != nil {
					return "", err
				}
			}
			out := filepath.Join(shared.dir, "dist-"+name+"-"+version)
			os.Setenv("SOURCE_DATE_EPOCH", testEpoch)
			b := &builder{root: root, out: out, version: version, platforms: []platform{here}}
			_, err := b.build(t.Context(), func(a artifact) { t.Logf("%s: %d bytes after %.1f s", a.name, a.size, a.took.Seconds()) })
			return out, err
		})
		shared.all[version+name] = once
	}
	shared.mu.Unlock()
	out, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// copySource copies the files of a clone, as they are in its folder, with other times.
func copySource(from, to string) error {
	out, err := exec.Command("git", "-C", from, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue // removed, and not yet committed
		}
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const testVersion = "0.9.0"

// archiveName and so on are the files of a version.
func archiveName(version string) string {
	return fmt.Sprintf("millrace_%s_linux_%s.tar.gz", version, here.arch)
}
func debName(version string) string   { return fmt.Sprintf("millrace_%s_%s.deb", version, here.arch) }
func imageName(version string) string { return fmt.Sprintf("millrace_%s_oci.tar", version) }

// Who builds the same source gets the same bytes: in another folder, with another locale,
// another time zone and other flags of Go's.
func TestTheSameSourceGivesTheSameBytes(t *testing.T) {
	one := dist(t, testVersion, "one")
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("LC_ALL", "C")
	t.Setenv("GOFLAGS", "-tags=pprof")
	other := dist(t, testVersion, "another/place")
	sums, err := os.ReadFile(filepath.Join(one, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{archiveName(testVersion), debName(testVersion), imageName(testVersion)} {
		a, err := os.ReadFile(filepath.Join(one, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes here, %d there, and not the same", name, len(a), len(b))
		}
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(a), name); !strings.Contains(string(sums), line) {
			t.Errorf("SHA256SUMS lacks %s", line)
		}
	}
	if n := strings.Count(string(sums), "\n"); n != 3 {
		t.Errorf("SHA256SUMS has %d lines\n%s", n, sums)
	}
}

// What is built says its version and commit, is stripped, and knows nothing of where it
// was built.
func TestTheArchiveHoldsWhatItShould(t *testing.T) {
	f, err := os.Open(filepath.Join(dist(t, testVersion, "one"), archiveName(testVersion)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	folder := strings.TrimSuffix(archiveName(testVersion), ".tar.gz") + "/"
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name, in := strings.CutPrefix(h.Name, folder)
		if !in || h.Uid != 0 || h.Gid != 0 || fmt.Sprint(h.ModTime.Unix()) != testEpoch {
			t.Errorf("%s: %+v", h.Name, h)
		}
		names = append(names, name)
		if name != "millrace" {
			continue
		}
		program, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o755 {
			t.Errorf("the program has mode %o", h.Mode)
		}
		if bytes.Contains(program, []byte(shared.dir)) {
			t.Error("the program knows the folder it was built in")
		}
		path := filepath.Join(t.TempDir(), "millrace")
		if err := os.WriteFile(path, program, 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(path, "version").Output()
		if err != nil || !strings.HasPrefix(string(out), "millrace "+testVersion+" (") {
			t.Errorf("millrace version: %q, %v", out, err)
		}
		if out, err := exec.Command("go", "tool", "nm", path).CombinedOutput(); err == nil && bytes.Contains(out, []byte("main.main")) {
			t.Error("the program is not stripped")
		}
	}
	for _, name := range []string{
		"README.md", "README.zh-CN.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "docs/settings.md", "docs/tutorial.md", "docs/tutorial.zh-CN.md",
		"testdata/tutorial/worker.py", "testdata/connect/kcat.sh", "millrace.properties", "systemd/millrace.service",
		"man/man1/millrace.1", "man/man1/millrace-topic-create.1",
		"completions/millrace.bash", "completions/_millrace", "completions/millrace.fish", "testdata/flights.jsonl",
	} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing among %q", name, names)
		}
	}
}

func TestACloneIsKnownByItsCommit(t *testing.T) {
	if _, err := exec.Command("git", "-C", "..", "rev-parse", "HEAD").Output(); err != nil {
		t.Skip("this is no clone")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "") // restored at the end
	os.Unsetenv("SOURCE_DATE_EPOCH")
	b := &builder{root: ".."}
	if err := b.identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	if commit, _, _ := strings.Cut(b.commit, "+"); len(commit) != 12 || b.version == "" || b.date.After(time.Now()) || b.date.Year() < 2020 {
		t.Errorf("commit %q, version %q, date %v", b.commit, b.version, b.date)
	}
	os.Unsetenv("SOURCE_DATE_EPOCH")
	b = &builder{root: t.TempDir()}
	if err := b.identify(t.Context()); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("a folder that is no clone: %v", err)
	}
}

// unpackLayout unpacks the image's tar file, and returns where.
func unpackLayout(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("tar", "-x", "-C", dir, "-f", filepath.Join(dist(t, version, "one"), imageName(version)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// The image is what the specification of OCI layouts says, by the library's judgement and
// by reading it back: every blob is named by its digest, every descriptor says its size,
// and nothing is there that no descriptor names.
func TestTheImagesLayoutIsWhole(t *testing.T) {
	dir := unpackLayout(t, testVersion)
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "oci-layout")); err != nil || !strings.Contains(string(text), `"imageLayoutVersion": "1.0.0"`) {
		t.Errorf("oci-layout: %q, %v", text, err)
	}

	type descriptor struct {
		MediaType   string
		Digest      string
		Size        int64
		Annotations map[string]string
		Platform    *struct{ OS, Architecture string }
	}
	named := make(map[string]bool)
	var follow func(text []byte)
	platforms := 0
	follow = func(text []byte) {
		var node struct {
			Manifests, Layers []descriptor
			Config            *descriptor
		}
		if err := json.Unmarshal(text, &node); err != nil {
			t.Fatal(err)
		}
		all := append(node.Manifests, node.Layers...)
		if node.Config != nil {
			all = append(all, *node.Config)
		}
		for _, d := range all {
			hash, ok := strings.CutPrefix(d.Digest, "sha256:")
			blob, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", hash))
			if !ok || err != nil || int64(len(blob)) != d.Size || fmt.Sprintf("%x", sha256.Sum256(blob)) != hash {
				t.Errorf("%+v: a blob of %d bytes, %v", d, len(blob), err)
			}
			named[hash] = true
			if !strings.HasPrefix(d.MediaType, "application/vnd.oci.image.") {
				t.Errorf("media type %s", d.MediaType)
			}
			if d.Platform != nil && d.Platform.OS == here.os && d.Platform.Architecture == here.arch {
				platforms++
			}
			if strings.Contains(d.MediaType, "manifest") || strings.Contains(d.MediaType, "index") {
				follow(blob)
			}
		}
	}
	top, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	follow(top)
	var list struct{ Manifests []descriptor }
	if err := json.Unmarshal(top, &list); err != nil || len(list.Manifests) != 1 || list.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "millrace:"+testVersion {
		t.Errorf("the image has another name: %s", top)
	}
	if platforms != 1 {
		t.Errorf("%d images for %s", platforms, here)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil || len(blobs) != len(named) {
		t.Errorf("%d blobs, %d of them named, %v", len(blobs), len(named), err)
	}
}

// Who asks for help has made no mistake.
func TestHelpIsNoFailure(t *testing.T) {
	for args, want := range map[string]error{"-h": flag.ErrHelp, "--help": flag.ErrHelp, "-nothing": errUsage} {
		var said strings.Builder
		if err := command(t.Context(), []string{args}, &said, &said); !errors.Is(err, want) || !strings.Contains(said.String(), "../dist") {
			t.Errorf("%s: %v, want %v\n%s", args, err, want, said.String())
		}
	}
}
