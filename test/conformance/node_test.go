//go:build conformance

package conformance

import (
	"os"
	"path/filepath"
	"testing"
)

// nodeClients run in Node, with the packages that package-lock.json pins.
var nodeClients = []*client{{
	name:  "kafkajs",
	setUp: setUpKafkajs,
	lacks: map[string]string{
		"consume-assign": "its consumers are always members of a group",
		"headers":        "a record's headers are an object, which keeps those of one name together",
		"next-protocol":  "knows only the classic protocol of groups",
		"roll-*":         "knows only the classic protocol of groups",
	},
}}

func setUpKafkajs(t *testing.T) (command []string, version string) {
	t.Helper()
	node, dir := setUpNode(t, "kafkajs", []string{"kafkajs/package.json", "kafkajs/package-lock.json", "kafkajs/kafkajs.js"}, nil)
	version, err := call(dir, node, "-p", "require('kafkajs/package.json').version")
	if err != nil {
		t.Fatal(err)
	}
	return []string{node, "--no-deprecation", "--no-warnings", filepath.Join(dir, "kafkajs.js")}, version
}

// setUpNode returns Node, and a folder with copies of some files under programs and the
// packages they ask for, of which no script has run but then, if there is one.
func setUpNode(t *testing.T, name string, pins []string, then func(dir string) error) (node, dir string) {
	t.Helper()
	node = need(t, "node", "apt-get install nodejs npm")
	runtime, err := call("", node, "--version")
	if err != nil {
		t.Fatal(err)
	}
	dir = workshop(t, name, runtime, pins, func(dir string) error {
		for _, pin := range pins {
			content, err := os.ReadFile(filepath.Join(programs, pin))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(pin)), content, 0o644); err != nil {
				return err
			}
		}
		if _, err := call(dir, need(t, "npm", "apt-get install npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil || then == nil {
			return err
		}
		return then(dir)
	})
	return node, dir
}
