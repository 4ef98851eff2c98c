//go:build conformance

package conformance

import (
	"path/filepath"
	"testing"
)

// pythonClients run in one virtual environment, with the packages that
// requirements.txt pins.
var pythonClients = []*client{
	python("confluent-kafka", "confluent.py", nil),
	python("kafka-python", "kafkapython.py", map[string]string{
		"next-protocol": "the library has no KIP-848",
		"roll-*":        "the library has no KIP-848",
	}),
	python("aiokafka", "aio.py", map[string]string{
		"admin-groups":  "the library does not have DeleteGroups",
		"next-protocol": "the library has no KIP-848",
		"roll-*":        "the library has no KIP-848",
	}),
}

func python(distribution, program string, lacks map[string]string) *client {
	return &client{name: distribution, lacks: lacks, setUp: func(t *testing.T) ([]string, string) {
		t.Helper()
		interpreter := setUpPython(t)
		version, err := call("", interpreter, "-c", "import importlib.metadata as m; print(m.version('"+distribution+"'))")
		if err != nil {
			t.Fatal(err)
		}
		return []string{interpreter, "-B", absolute(t, "python/"+program)}, version
	}}
}

// setUpPython makes the virtual environment, and returns its interpreter.
func setUpPython(t *testing.T) (interpreter string) {
	t.Helper()
	base := need(t, "python3", "apt-get install python3 python3-venv")
	version, err := call("", base, "--version")
	if err != nil {
		t.Fatal(err)
	}
	dir := workshop(t, "python", version, []string{"python/requirements.txt"}, func(dir string) error {
		if _, err := call("", base, "-m", "venv", dir); err != nil {
			return err
		}
		_, err := call("", filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet",
			"--disable-pip-version-check", "-r", absolute(t, "python/requirements.txt"))
		return err
	})
	return filepath.Join(dir, "bin", "python")
}
