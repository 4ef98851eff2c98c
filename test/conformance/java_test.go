//go:build conformance

package conformance

import (
	"path/filepath"
	"slices"
	"testing"
)

// javaClients are one program with two releases of Apache Kafka's own client:
// the last before Kafka 4, which most applications still have, and a current one.
var javaClients = []*client{java("3.9.2"), java("4.1.2")}

func java(release string) *client {
	return &client{name: "java-" + release[:3], setUp: func(t *testing.T) ([]string, string) {
		return runJava(t, setUpJava(t, "java", release), "conformance.Conformance"), release
	}}
}

// setUpJava builds the program in a folder of test/conformance/clients with a release
// of Kafka's jars, and returns its class path.
func setUpJava(t *testing.T, name, release string) (classPath string) {
	t.Helper()
	compiler := need(t, "javac", "apt-get install default-jdk-headless")
	version, err := call("", compiler, "-version")
	if err != nil {
		t.Fatal(err)
	}
	pins, err := filepath.Glob(filepath.Join(programs, name, "src/main/java/conformance/*.java"))
	if err != nil || len(pins) == 0 {
		t.Fatalf("no sources of %s: %v", name, err)
	}
	for i := range pins {
		if pins[i], err = filepath.Rel(programs, pins[i]); err != nil {
			t.Fatal(err)
		}
	}
	dir := workshop(t, name+"-"+release, version, append(pins, name+"/pom.xml"), func(dir string) error {
		_, err := call(absolute(t, name), need(t, "mvn", "apt-get install maven"), "-q", "-B", "-Dkafka.version="+release, "-Dconformance.build="+dir, "package")
		return err
	})
	return filepath.Join(dir, "classes") + ":" + filepath.Join(dir, "lib", "*")
}

// runJava is the command that runs a class: many short lives, in which a small
// heap and a compiler in a hurry do best.
func runJava(t *testing.T, classPath, class string, options ...string) []string {
	command := []string{need(t, "java", "apt-get install default-jdk-headless"), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
	return slices.Concat(command, options, []string{"-cp", classPath, class})
}
