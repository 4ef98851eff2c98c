package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"millrace/peers/process"
)

// Programs is what brokers are started from.
type Programs struct {
	Millrace  string // the binary, server and load generator
	NATS      string // the binary
	Java      string
	KafkaJars string // a class path

	// Versions, as the programs themselves or their pins say.
	Versions map[string]string // by system, and "java"
	Commit   string            // of Millrace
}

// Build builds, or fetches, what the systems need: Millrace, which makes the load
// too, always; the binaries into dir, Kafka's jars into the user's cache folder,
// where they stay. It runs in the folder of this module.
func Build(ctx context.Context, systems []System, dir string, say func(format string, args ...any)) (*Programs, error) {
	p := &Programs{Millrace: filepath.Join(dir, "millrace"), NATS: filepath.Join(dir, "nats-server"), Versions: make(map[string]string)}
	root, err := process.Output(ctx, exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "millrace"))
	if err != nil {
		return nil, fmt.Errorf("run me in test/peers: %w", err)
	}
	say("building millrace")
	// By its own go.mod, not by this module's.
	build := exec.Command("go", "build", "-o", p.Millrace, "./cli/millrace")
	build.Dir = root
	if _, err := process.Run(ctx, build); err != nil {
		return nil, err
	}
	version, err := process.Output(ctx, exec.Command(p.Millrace, "--version"))
	if err != nil {
		return nil, err
	}
	p.Versions["millrace"] = strings.TrimPrefix(version, "millrace ")
	p.Commit = commit(ctx, root)
	if slices.Contains(systems, NATS) {
		say("building nats-server")
		if _, err := process.Run(ctx, exec.Command("go", "build", "-o", p.NATS, "github.com/nats-io/nats-server/v2")); err != nil {
			return nil, err
		}
		version, err := process.Output(ctx, exec.Command(p.NATS, "--version"))
		if err != nil {
			return nil, err
		}
		p.Versions["nats"] = strings.TrimPrefix(version, "nats-server: ")
	}
	if slices.Contains(systems, Kafka) {
		if err := p.fetchKafka(ctx, say); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// commit is what of Millrace is measured: a commit, and whether it was changed.
func commit(ctx context.Context, root string) string {
	git := func(args ...string) (string, error) {
		return process.Output(ctx, exec.Command("git", append([]string{"-C", root}, args...)...))
	}
	id, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "not known"
	}
	// The file this is written to may differ.
	if changed, err := git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!BENCHMARKS.md"); err != nil || changed != "" {
		id += ", with changes"
	}
	return id
}

// fetchKafka gets the jars of a broker with Maven, once for each content of the
// pom.xml that pins them. Others, in this process and in others, wait meanwhile.
func (p *Programs) fetchKafka(ctx context.Context, say func(format string, args ...any)) (err error) {
	if p.Java, err = exec.LookPath("java"); err != nil {
		return errors.New("java is not installed (apt-get install default-jre-headless)")
	}
	// It says its version on standard error.
	java := exec.Command(p.Java, "-version")
	var said strings.Builder
	java.Stderr = &said
	if _, err := process.Run(ctx, java); err != nil {
		return err
	}
	p.Versions["java"], _, _ = strings.Cut(said.String(), "\n")

	const pom = "kafka/pom.xml"
	pin, err := os.ReadFile(pom)
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "millrace-peers", fmt.Sprintf("kafka-%.6x", sha256.Sum256(pin)))
	p.KafkaJars = filepath.Join(dir, "lib", "*")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	complete := filepath.Join(dir, ".complete")
	if _, err := os.Stat(complete); err != nil {
		mvn, err := exec.LookPath("mvn")
		if err != nil {
			return errors.New("mvn is not installed (apt-get install maven), and Kafka's jars have not been fetched before")
		}
		say("fetching Kafka's jars")
		if _, err := process.Run(ctx, exec.Command(mvn, "-q", "-B", "-f", pom, "-Dpeers.build="+dir, "package")); err != nil {
			return err
		}
		if err := os.WriteFile(complete, nil, 0o644); err != nil {
			return err
		}
	}
	jars, err := filepath.Glob(filepath.Join(dir, "lib", "kafka_2.13-*.jar"))
	if err != nil || len(jars) != 1 {
		return fmt.Errorf("%d jars of a broker in %s", len(jars), filepath.Join(dir, "lib"))
	}
	p.Versions["kafka"] = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(jars[0]), "kafka_2.13-"), ".jar")
	return nil
}
