package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPropertiesAreReadAsKafkaDoes(t *testing.T) {
	for _, test := range []struct {
		in    string
		want  map[string]string
		wrong string
	}{
		{in: "", want: map[string]string{}},
		{in: "# comment\n! comment\n\n  \n", want: map[string]string{}},
		{in: "node.id=1\nlisteners = PLAINTEXT://:9092 \n", want: map[string]string{"node.id": "1", "listeners": "PLAINTEXT://:9092"}},
		{in: "a:b", want: map[string]string{"a": "b"}},
		{in: "a=b=c", want: map[string]string{"a": "b=c"}},
		{in: "a=", want: map[string]string{"a": ""}},
		{in: "a=1,\\\n   2,\\\n   3\nb=4", want: map[string]string{"a": "1,2,3", "b": "4"}},
		{in: "a=1\r\nb=2\r\n", want: map[string]string{"a": "1", "b": "2"}},
		{in: "a=1\nnonsense", wrong: `line 2: "nonsense" is not KEY=VALUE`},
		{in: "=1", wrong: "line 1: no key"},
		{in: "a=1\n\na=2", wrong: "line 3: a is given twice"},
		{in: "a=1\\\n2\nb", wrong: "line 3:"},
	} {
		got, err := readProperties(strings.NewReader(test.in))
		switch {
		case test.wrong != "":
			if err == nil || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%q: error %v, want %s", test.in, err, test.wrong)
			}
		case err != nil || !maps.Equal(got, test.want):
			t.Errorf("%q: %v %v, want %v", test.in, got, err, test.want)
		}
	}
}

func TestConfigSaysWhatFlagsDoNot(t *testing.T) {
	name := filepath.Join(t.TempDir(), "server.properties")
	os.WriteFile(name, []byte(`node.id=7
listeners=PLAINTEXT://127.0.0.1:19092
advertised.listeners=PLAINTEXT://example.org:9092
log.dirs=/somewhere
broker.rack=r1
controller.quorum.bootstrap.servers=a:1,b
num.partitions=12
`), 0o644)
	b := &broker{dataDir: "flag", listen: "127.0.0.1:1"}
	if err := b.readConfig(name, func(flag string) bool { return flag == "data-dir" }); err != nil {
		t.Fatal(err)
	}
	if b.dataDir != "flag" {
		t.Errorf("data dir %s: the flag does not win", b.dataDir)
	}
	if b.nodeID != 7 || b.listen != "127.0.0.1:19092" || b.advertise != "example.org:9092" || b.rack != "r1" ||
		strings.Join(b.join, " ") != "a:1 b:9092" || !maps.Equal(b.settings, map[string]string{"num.partitions": "12"}) {
		t.Errorf("%+v", b)
	}
}

func TestConfigRefusesWhatANodeCannotBe(t *testing.T) {
	for _, line := range []string{
		"node.id=0", "node.id=x", "log.dirs=/a,/b", "listeners=SSL://:9093", "listeners=PLAINTEXT://:1,PLAINTEXT://:2",
		"advertised.listeners=nonsense", "controller.quorum.bootstrap.servers=a:x",
	} {
		name := filepath.Join(t.TempDir(), "server.properties")
		os.WriteFile(name, []byte(line+"\n"), 0o644)
		if err := new(broker).readConfig(name, func(string) bool { return false }); statusOf(err) != StatusUsage {
			t.Errorf("%s: %v, want a usage error", line, err)
		}
	}
}

func TestANodeRegistersUnderAnAddressOthersCanReach(t *testing.T) {
	for _, listening := range []string{"127.0.0.1:9092", "[::1]:9092", "10.0.0.7:1"} {
		if got := advertised(listening); got != listening {
			t.Errorf("listening on %s it registers as %s", listening, got)
		}
	}
	for _, listening := range []string{"0.0.0.0:9092", "[::]:9092"} {
		if got := advertised(listening); strings.HasPrefix(got, "0.0.0.0") || strings.HasPrefix(got, "[::]") || !strings.HasSuffix(got, ":9092") {
			t.Errorf("listening on %s it registers as %s", listening, got)
		}
	}
}
