//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// connecting is the folder of the programs of README's section Connect, seen from programs.
const connecting = "../../../testdata/connect/"

// connects are those programs, and what makes each ready to run: the command before its
// argument, the brokers.
var connects = []struct {
	program string
	setUp   func(t *testing.T, program string) (command []string)
}{
	{"kcat.sh", func(t *testing.T, program string) []string {
		need(t, "kcat", "apt-get install kcat")
		return []string{"sh", "-e", program}
	}},
	{"confluent.py", inPython},
	{"kafkapython.py", inPython},
	{"kafkajs.js", inNode},
	{"confluent.js", inConfluentsNode},
	{"franz.go", func(t *testing.T, program string) []string {
		binary := filepath.Join(t.TempDir(), "franz")
		if _, err := call(filepath.Dir(program), "go", "build", "-o", binary, program); err != nil {
			t.Fatal(err)
		}
		return []string{binary}
	}},
	{"Hello.java", inJava},
	{"hello.rs", inRust},
}

// TestConnect runs each program twice, as somebody who tries one language after the
// other would: with the brokers as an argument, and again with MILLRACE_BROKERS. They are
// members of one group, so that each reads on where the one before has committed.
func TestConnect(t *testing.T) {
	t.Parallel()
	for _, c := range connects {
		t.Run(c.program, func(t *testing.T) {
			command := c.setUp(t, absolute(t, connecting+c.program))
			for _, how := range []struct{ args, env []string }{
				{args: []string{strings.Join(brokers, ",")}},
				{env: []string{"MILLRACE_BROKERS=" + strings.Join(brokers, ",")}},
			} {
				ctx, cancel := context.WithTimeout(t.Context(), cellTimeout)
				defer cancel()
				cmd := exec.CommandContext(ctx, command[0], append(command[1:], how.args...)...)
				cmd.Env = append(os.Environ(), how.env...)
				var out, errs bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &errs
				cmd.WaitDelay = time.Second
				began := time.Now()
				if err := cmd.Run(); err != nil || out.String() != "one\ntwo\nthree\n" {
					t.Fatalf("%s: %v\n%q\n%s", cmd, err, tail(out.String()), tail(errs.String()))
				}
				t.Logf("%v %v: %v", how.args, how.env, time.Since(began).Round(10*time.Millisecond))
				if left := unread(t); left != 0 {
					t.Fatalf("%s: the group hello has %d records of the topic hello before it", cmd, left)
				}
			}
		})
	}
}

// unread is how many records of the topic hello the group hello has not committed.
func unread(t *testing.T) (left int64) {
	t.Helper()
	committed, err := admin.FetchOffsets(t.Context(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	ends, err := admin.ListEndOffsets(t.Context(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range ends["hello"] {
		left += end.Offset
		if at, ok := committed.Lookup("hello", end.Partition); ok {
			left -= at.At
		}
	}
	return left
}

// inPython runs a program where the clients of pythonClients are installed.
func inPython(t *testing.T, program string) []string {
	return []string{setUpPython(t), "-B", program}
}

// inNode runs a program where the packages of package.json are.
func inNode(t *testing.T, program string) []string {
	node, dir := setUpNode(t, "connect-node", nodePins, nil)
	return []string{node, filepath.Join(dir, filepath.Base(program))}
}

var nodePins = []string{connecting + "package.json", connecting + "package-lock.json", connecting + "kafkajs.js", connecting + "confluent.js"}

// inConfluentsNode is inNode with the native half of Confluent's package, which its install
// script downloads ready-made. Where it does not get there, the program is not run: to
// build that half from source takes three minutes of a processor.
func inConfluentsNode(t *testing.T, program string) []string {
	command := inNode(t, program)
	dir := filepath.Join(filepath.Dir(command[1]), "node_modules", "@confluentinc", "kafka-javascript")
	if built, _ := filepath.Glob(filepath.Join(dir, "build", "Release", "*.node")); len(built) == 0 {
		if _, err := call(dir, command[0], filepath.Join(dir, "../../@mapbox/node-pre-gyp/bin/node-pre-gyp"), "install"); err != nil {
			said := strings.Split(strings.TrimSpace(err.Error()), "\n")
			t.Skipf("its native library is out of reach, not run: %s", said[len(said)-1])
		}
	}
	return command
}

// inJava runs a program by Java's launcher of single files, with the jars that pom.xml
// asks for.
func inJava(t *testing.T, program string) []string {
	version, err := call("", need(t, "javac", "apt-get install default-jdk-headless"), "-version")
	if err != nil {
		t.Fatal(err)
	}
	dir := workshop(t, "connect-java", version, []string{connecting + "pom.xml"}, func(dir string) error {
		_, err := call(absolute(t, connecting), need(t, "mvn", "apt-get install maven"), "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory="+dir)
		return err
	})
	return runJava(t, filepath.Join(dir, "*"), program)
}

// oldestCargo is the first minor release of Rust 1 that rdkafka builds with. Debian 12 has 63.
const oldestCargo = 74

// inRust builds a program with the crates that Cargo.lock names, librdkafka's C among
// them. A fresh machine has no Rust that is new enough among its packages: there it is skipped.
func inRust(t *testing.T, program string) []string {
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		t.Skip("cargo is not installed (https://rustup.rs): not run")
	}
	version, err := call("", cargo, "--version")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`^cargo 1\.(\d+)\.`).FindStringSubmatch(version)
	if m == nil {
		t.Fatalf("cargo --version prints %q", version)
	}
	if minor, _ := strconv.Atoi(m[1]); minor < oldestCargo {
		t.Skipf("%s is older than 1.%d, which rdkafka asks for: not run", version, oldestCargo)
	}
	pins := []string{connecting + "Cargo.toml", connecting + "Cargo.lock", connecting + filepath.Base(program)}
	dir := workshop(t, "connect-rust", version, pins, func(dir string) error {
		_, err := call(absolute(t, connecting), cargo, "build", "--quiet", "--locked", "--target-dir", dir)
		return err
	})
	return []string{filepath.Join(dir, "debug", "hello")}
}
