package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

// As Java's Properties.load reads them, see its documentation.
func TestPropertiesAreReadAsJavaDoes(t *testing.T) {
	for _, test := range []struct {
		in    string
		want  map[string]string
		wrong string
	}{
		{in: "", want: map[string]string{}},
		{in: "# comment\n! comment\n\n  \n \t# one more", want: map[string]string{}},
		{in: "node.id=1\nlisteners = PLAINTEXT://:9092 \n", want: map[string]string{"node.id": "1", "listeners": "PLAINTEXT://:9092 "}},
		{in: "Truth = Beauty\n Truth2:Beauty\nTruth3   :Beauty", want: map[string]string{"Truth": "Beauty", "Truth2": "Beauty", "Truth3": "Beauty"}},
		{in: "a=b=c", want: map[string]string{"a": "b=c"}},
		{in: "a==b", want: map[string]string{"a": "=b"}},
		{in: "a=", want: map[string]string{"a": ""}},
		{in: "cheeses", want: map[string]string{"cheeses": ""}},
		{in: "key value of it", want: map[string]string{"key": "value of it"}},
		{in: "key\t value", want: map[string]string{"key": "value"}},
		{in: "a=1,\\\n   2,\\\n   3\nb=4", want: map[string]string{"a": "1,2,3", "b": "4"}},
		{in: "a=1,\\\n# no comment\nb=4", want: map[string]string{"a": "1,# no comment", "b": "4"}},
		{in: "a=C:\\\\dir\\\\\nb=4", want: map[string]string{"a": `C:\dir\`, "b": "4"}},
		{in: `a\ b\=c\:d=\u0041\u00e4\t\n\r\f\q`, want: map[string]string{"a b=c:d": "A\u00e4\t\n\r\fq"}},
		{in: "a=1\\", want: map[string]string{"a": "1"}},
		{in: "a=1\r\nb=2\rc=3", want: map[string]string{"a": "1", "b": "2", "c": "3"}},
		{in: "\ufeffnode.id=1", want: map[string]string{"node.id": "1"}}, // as Windows' editors begin a file
		{in: "a=zürich", want: map[string]string{"a": "zürich"}},
		{in: "a=1\n\na=2", want: map[string]string{"a": "2"}},
		{in: "=1", wrong: "1: no key"},
		{in: "b=1\na=\\u12\n=1", wrong: `2: malformed \uXXXX`},
		{in: `a=\uxyzw`, wrong: `1: malformed \uXXXX`},
	} {
		all, wrong, err := readProperties(strings.NewReader(test.in))
		for i := len(wrong) - 1; i >= 0; i-- {
			err = fmt.Errorf("%d: %s", wrong[i].line, wrong[i].text)
		}
		got := map[string]string{}
		for _, p := range all {
			got[p.key] = p.value
		}
		switch {
		case test.wrong != "":
			if err == nil || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%q: error %v, want %s", test.in, err, test.wrong)
			}
		case err != nil || !maps.Equal(got, test.want):
			t.Errorf("%q: %q %v, want %q", test.in, got, err, test.want)
		}
	}
	all, _, err := readProperties(strings.NewReader("# first\n\na=1,\\\n2\nb=3"))
	if err != nil || len(all) != 2 || all[0].line != 3 || all[1].line != 5 {
		t.Errorf("lines of %+v, %v", all, err)
	}
}

// config reads a config file of that text, with the flags given that are named.
func config(t *testing.T, text string, flags ...string) (*broker, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "server.properties")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return configured(t, name, nil, flags...)
}

// configured takes a file and an environment over; the file's name is left out of what it says.
func configured(t *testing.T, name string, environ []string, flags ...string) (*broker, error) {
	t.Helper()
	b := &broker{dataDir: "flag", listeners: []listener{{name: plaintextProtocol, listen: "127.0.0.1:1"}}}
	err := b.configure(name, environ, knownVariables(), func(flag string) bool { return slices.Contains(flags, flag) })
	if name == "" {
		return b, err
	}
	for i := range b.warnings {
		b.warnings[i] = strings.TrimPrefix(b.warnings[i], name+":")
	}
	if err != nil {
		return b, &term.Failure{Status: term.StatusOf(err), Err: errors.New(strings.ReplaceAll(err.Error(), name+":", ""))}
	}
	return b, nil
}

// own is the listener by which other nodes reach one.
func (b *broker) own() listener { return b.listeners[b.nodes] }

func TestConfigSaysWhatFlagsDoNot(t *testing.T) {
	b, err := config(t, `node.id=7
listeners=PLAINTEXT://127.0.0.1:19092
advertised.listeners=PLAINTEXT://example.org:9092
log.dirs=/somewhere
broker.rack=r1
controller.quorum.bootstrap.servers=a:1,b
num.partitions=12
`, "data-dir")
	if err != nil {
		t.Fatal(err)
	}
	if b.dataDir != "flag" {
		t.Errorf("data dir %s: the flag does not win", b.dataDir)
	}
	if b.nodeID != 7 || b.own().listen != "127.0.0.1:19092" || b.own().advertise != "example.org:9092" || b.rack != "r1" ||
		strings.Join(b.join, " ") != "a:1 b:9092" || b.founds || b.settings["num.partitions"] != "12" || len(b.warnings) > 0 {
		t.Errorf("%+v", b)
	}
}

// The file that comes with Apache Kafka 4.1 (config/server.properties), and the
// names that compose files give to listeners.
func TestConfigTakesTheStockFileAndNamedListeners(t *testing.T) {
	b, err := config(t, `
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
`)
	if err != nil {
		t.Fatal(err)
	}
	if b.own().listen != ":9092" || b.own().advertise != "localhost:9092" || len(b.join) > 0 || b.nodeID != 1 || b.dataDir != "/tmp/kraft-combined-logs" ||
		len(b.listeners) != 2 || !b.listeners[1].only {
		t.Errorf("%+v", b)
	}
	// Seven names of Kafka's without effect here.
	if len(b.warnings) != 7 {
		t.Errorf("%d warnings: %q", len(b.warnings), b.warnings)
	}
	b, err = config(t, "listeners=INTERNAL://0.0.0.0:29092\nadvertised.listeners=INTERNAL://kafka:29092\nlistener.security.protocol.map=INTERNAL:PLAINTEXT\ninter.broker.listener.name=INTERNAL\n")
	if err != nil || b.own().listen != "0.0.0.0:29092" || b.own().advertise != "kafka:29092" || len(b.warnings) > 0 {
		t.Errorf("%+v, %v", b, err)
	}
}

// Several listeners stay as they are unless a flag names the only one.
func TestConfigHasSeveralListeners(t *testing.T) {
	const text = "listeners=inside://:1,OUTSIDE://:2,CONTROLLER://:3\nadvertised.listeners=INSIDE://node:1,OUTSIDE://[2001:db8::1]:30002\n" +
		"listener.security.protocol.map=INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT\ncontroller.listener.names=CONTROLLER\ninter.broker.listener.name=OUTSIDE\n"
	b, err := config(t, text)
	if err != nil || len(b.warnings) > 0 {
		t.Fatal(err, b.warnings)
	}
	if want := []listener{
		{name: "INSIDE", listen: ":1", advertise: "node:1", protocol: millrace.Plaintext}, {name: "OUTSIDE", listen: ":2", advertise: "[2001:db8::1]:30002", protocol: millrace.Plaintext},
		{name: "CONTROLLER", listen: ":3", only: true},
	}; !slices.Equal(b.listeners, want) || b.nodes != 1 {
		t.Errorf("%+v, nodes at %d", b.listeners, b.nodes)
	}
	b, err = config(t, text, "listen")
	if err != nil || len(b.warnings) != 1 || !strings.HasPrefix(b.warnings[0], "1: listeners has no effect: --listen") {
		t.Fatal(err, b.warnings)
	}
	if want := []listener{{name: "OUTSIDE", listen: "127.0.0.1:1", advertise: "[2001:db8::1]:30002"}}; !slices.Equal(b.listeners, want) {
		t.Errorf("%+v", b.listeners)
	}
	for text, want := range map[string]string{
		"listeners=A://:1,B://:2\nlistener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT\nadvertised.listeners=C://h:1\n": "3: advertised.listeners=C://h:1: C has no protocol",
		"listeners=A://:1\nlistener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT\nadvertised.listeners=B://h:1\n":        "3: advertised.listeners=B://h:1: there is no listener called B in listeners",
		"listeners=A://:1,C://:2\nlistener.security.protocol.map=A:PLAINTEXT,C:KERBEROS\ncontroller.listener.names=C\n":   "1: listeners=A://:1,C://:2: C is of the protocol KERBEROS",
		"listeners=PLAINTEXT://:1\nadvertised.listeners=PLAINTEXT://[::]:9092\n":                                          "2: advertised.listeners=PLAINTEXT://[::]:9092: :: is every address",
		"listeners=PLAINTEXT://:1\ncontroller.quorum.voters=kafka:9093\n":                                                 `2: controller.quorum.voters=kafka:9093: "kafka:9093" is not ID@HOST:PORT`,
	} {
		if _, err := config(t, text); term.StatusOf(err) != term.StatusUsage || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestConfigWarnsOfWhatHasNoEffect(t *testing.T) {
	b, err := config(t, "log.retention.hour=1\nnum.io.threads=8\nnode.id=0\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"1: log.retention.hour is not a setting of this release and has no effect; is log.retention.hours meant?",
		"2: num.io.threads is not a setting of this release and has no effect",
		"3: node.id=0: ids of nodes begin with 1; this node keeps the one it has or gets one from the cluster",
		"listeners is not set: this node listens on 127.0.0.1:1 alone, where Kafka would on every address; listeners=PLAINTEXT://:9092 says so",
	}
	slices.Sort(b.warnings)
	if !slices.Equal(b.warnings, want) || b.nodeID != 0 {
		t.Errorf("%q\nwant %q", b.warnings, want)
	}
}

// Whatever cannot be had as the file says ends the start with status 2, naming
// the line and what would do.
func TestConfigRefusesWhatANodeCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		"node.id=x":                                     "1: node.id=x: it is a whole number",
		"node.id=-2":                                    "1: node.id=-2: it is a number from 0 to 1073741824",
		"node.id=1\nbroker.id=2":                        "2: broker.id=2: node.id says 1",
		"log.dirs=/a,/b":                                "1: log.dirs=/a,/b: a node keeps its data in one folder; name one of these",
		"listeners=X://:9093":                           "1: listeners=X://:9093: X has no protocol in listener.security.protocol.map",
		"listeners=A://:1,a://:2":                       "1: listeners=A://:1,a://:2: there are two listeners called A",
		"listeners=nonsense":                            "1: listeners=nonsense: \"nonsense\" is not NAME://HOST:PORT",
		"advertised.listeners=PLAINTEXT://h:0":          `1: advertised.listeners=PLAINTEXT://h:0: "0" is not a port`,
		"listeners=C://:1\ncontroller.listener.names=C": "1: listeners=C://:1: all of these are listeners of controllers; a node needs one for clients",
		"listeners=PLAINTEXT://:1\ninter.broker.listener.name=X": "2: inter.broker.listener.name=X: there is no such listener in listeners",
		"controller.quorum.bootstrap.servers=a:x":                "1: controller.quorum.bootstrap.servers=a:x: it is HOST:PORT,…",
		"process.roles=controller":                               "1: process.roles=controller: every node is a broker",
		"num.partitions=abc":                                     "1: num.partitions=abc: it is a whole number, 1 or more",
		"\n\nauto.create.topics.enable=no":                       "3: auto.create.topics.enable=no: it is true or false",
		"log.retention.hours=7x":                                 "1: log.retention.hours=7x: it is a whole number of hours",
		"log.segment.bytes=14":                                   "1: log.segment.bytes=14: it is a whole number of bytes, 1048576 or more",
		"log.cleanup.policy=delet":                               "1: log.cleanup.policy=delet: it is any of compact, delete, with commas between them",
		"message.max.bytes=10s":                                  "1: message.max.bytes=10s: it is a whole number of bytes, 0 or more",
		"max.connections.per.ip=oops":                            "1: max.connections.per.ip=oops: it is a whole number, 0 or more",
		"authorizer.class.name=com.example.Authorizer":           "1: authorizer.class.name=com.example.Authorizer: it is empty, or one of Kafka's own: org.apache.kafka.metadata.authorizer.StandardAuthorizer, kafka.security.authorizer.AclAuthorizer",
		"super.users=admin":                                      "1: super.users=admin: it is TYPE:NAME;…, such as User:alice;User:bob",
		"allow.everyone.if.no.acl.found=perhaps":                 "1: allow.everyone.if.no.acl.found=perhaps: it is true or false",
		"sasl.enabled.mechanisms=GSSAPI":                         "1: sasl.enabled.mechanisms=GSSAPI: it is any of",
		"listener.name.internal.ssl.client.auth=required":        "1: listener.name.internal.ssl.client.auth=required: there is no listener called INTERNAL",
		"ssl.client.auth=required":                               "1: ssl.client.auth=required: there is no TLS by which clients could show a certificate",
		"ssl.keystore.key=secret":                                "1: ssl.keystore.key=…: there is no certificate to it",
		"ssl.principal.mapping.rules=RULE:a":                     `1: ssl.principal.mapping.rules=RULE:a: "RULE:a" is no rule`,
		"ssl.keystore.location=/no/such/file":                    "1: ssl.keystore.location=…: open /no/such/file: no such file",
		"create.topic.policy.class.name=com.example.Policy":      "1: create.topic.policy.class.name=com.example.Policy: this release runs no plug-ins",
		"listener.security.protocol.map=A":                       "1: listener.security.protocol.map=A: \"A\" is not NAME:PROTOCOL",
		"listeners=PLAINTEXT://:1\nadvertised.listeners=A://h:1\nlistener.security.protocol.map=A:TLS": "2: advertised.listeners=A://h:1: A is of the protocol TLS; there are",
	} {
		_, err := config(t, text+"\n")
		if term.StatusOf(err) != term.StatusUsage || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: status %d, %v; want %s", text, term.StatusOf(err), err, want)
		}
	}
	// Who mends it is told of what would have no effect in the same go.
	name := filepath.Join(t.TempDir(), "server.properties")
	if err := os.WriteFile(name, []byte("foo.bar=1\nlisteners=PLAINTEXT://:0\nnum.partitions=abc\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	status := runServe(t.Context(), []string{"serve", "--config", name}, &stderr)
	want := fmt.Sprintf("millrace: %s:3: num.partitions=abc: it is a whole number, 1 or more\nmillrace: warning: %[1]s:1: foo.bar is not a setting of this release and has no effect\n", name)
	if status != term.StatusUsage || stderr.String() != want {
		t.Errorf("status %d, %s\nwant %s", status, stderr.String(), want)
	}
	if _, err := config(t, "\x7fELF\x00\x01=1\n"); term.StatusOf(err) != term.StatusUsage || !strings.HasSuffix(err.Error(), " it is no text") {
		t.Errorf("%v", err)
	}
	// What forbids nothing is no reason to stay away, nor is what this node can hold people to.
	if b, err := config(t, "ssl.client.auth=none\nallow.everyone.if.no.acl.found=false\nsuper.users=User:admin;User:CN=x,O=y\nsecurity.inter.broker.protocol=PLAINTEXT\nauthorizer.class.name=\n"); err != nil {
		t.Errorf("%+v, %v", b, err)
	}
}

// Flags go before MILLRACE_CFG_…, that before KAFKA_…, and that before the file.
func TestTheEnvironmentGoesBeforeTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "server.properties")
	if err := os.WriteFile(name, []byte("listeners=PLAINTEXT://:1\nnum.partitions=1\nlog.retention.hours=1\nlog.segment.bytes=1048576\nbroker.rack=file\nlog.dirs=/file\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := configured(t, name, []string{
		"MILLRACE_CFG_NUM_PARTITIONS=3", "MILLRACE_CFG_LOG_RETENTION_HOURS=3d", "KAFKA_LOG_RETENTION_HOURS=2", "KAFKA_BROKER_RACK=kafka", "KAFKA_CFG_LOG_SEGMENT_BYTES=2MB",
		"MILLRACE_CFG_LOG_DIRS=/own", "KAFKA_MESSAGE_MAX_BYTES=", "KAFKA_HOME=/opt/kafka", "KAFKA_PORT=tcp://10.0.0.1:9092", "MILLRACE_BROKERS=h:1", "MILLRACE_DATA_DIR=elsewhere", "HOME=/root",
	}, "data-dir")
	if err != nil || len(b.warnings) > 0 {
		t.Fatal(err, b.warnings)
	}
	for key, want := range map[string]string{"num.partitions": "3", "log.retention.hours": "72", "broker.rack": "kafka", "log.segment.bytes": "2097152", "message.max.bytes": ""} {
		if b.settings[key] != want {
			t.Errorf("%s=%s, want %s", key, b.settings[key], want)
		}
	}
	if b.rack != "kafka" || b.dataDir != "flag" {
		t.Errorf("%+v", b)
	}
	b, err = configured(t, "", []string{"MILLRACE_CFG_NUM_PARTITIONS=x", "KAFKA_AUTHORIZER_CLASS_NAME=a.B", "KAFKA_LOG_RETENTION_HOUR=7", "MILLRACE_LISTN=:1", "MILLRACE_CFG_SASL__X___Y=1"})
	if err == nil || err.Error() != "environment: KAFKA_AUTHORIZER_CLASS_NAME=a.B: it is empty, or one of Kafka's own: org.apache.kafka.metadata.authorizer.StandardAuthorizer, kafka.security.authorizer.AclAuthorizer\n"+
		"environment: MILLRACE_CFG_NUM_PARTITIONS=x: it is a whole number, 1 or more" || term.StatusOf(err) != term.StatusUsage {
		t.Errorf("%v", err)
	}
	slices.Sort(b.warnings)
	if want := []string{
		"environment: KAFKA_LOG_RETENTION_HOUR is not a setting of this release and has no effect; is log.retention.hours meant?",
		"environment: MILLRACE_CFG_SASL__X___Y is not a setting of this release and has no effect",
		"environment: MILLRACE_LISTN is nobody's variable and has no effect; is MILLRACE_LISTEN meant?",
	}; !slices.Equal(b.warnings, want) {
		t.Errorf("%q\nwant %q", b.warnings, want)
	}
	if got := settingOf("KAFKA_SASL__X___Y_Z"); got != "sasl_x-y.z" {
		t.Errorf("KAFKA_SASL__X___Y_Z is %s", got)
	}
}

// What flags may not say, variables of theirs may not, and the message names the variable.
func TestVariablesOfFlagsAreJudgedAsFlags(t *testing.T) {
	for variable, want := range map[string]string{
		"MILLRACE_NODE_ID=abc":                                "millrace: environment: MILLRACE_NODE_ID=abc: it is a whole number",
		"MILLRACE_NODE_ID=0":                                  "millrace: environment: MILLRACE_NODE_ID=0: it is 1 or more",
		"MILLRACE_FOUND=perhaps":                              "millrace: environment: MILLRACE_FOUND=perhaps: it is true or false",
		"MILLRACE_ADVERTISE=0.0.0.0:9092":                     "millrace: environment: MILLRACE_ADVERTISE=0.0.0.0:9092: 0.0.0.0 is every address of a machine",
		"MILLRACE_ADVERTISE=[::]:9092":                        "millrace: environment: MILLRACE_ADVERTISE=[::]:9092: :: is every address of a machine",
		"MILLRACE_JOIN=h:x":                                   "millrace: environment: MILLRACE_JOIN=h:x: it is HOST:PORT,…",
		"MILLRACE_LISTEN=9092":                                "millrace: environment: MILLRACE_LISTEN=9092: it is HOST:PORT",
		"KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://0.0.0.0:9092": "millrace: environment: KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://0.0.0.0:9092: 0.0.0.0 is every address of a machine",
	} {
		t.Run(variable, func(t *testing.T) {
			name, value, _ := strings.Cut(variable, "=")
			t.Setenv(name, value)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // what is not refused serves
			defer cancel()
			var out strings.Builder
			if status := runServe(ctx, []string{"serve", "--ephemeral"}, &out); status != term.StatusUsage || !strings.HasPrefix(out.String(), want) {
				t.Errorf("status %d: %s, want %s", status, out.String(), want)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out strings.Builder
	if status := runServe(ctx, []string{"serve", "--ephemeral", "--advertise", "0.0.0.0:1"}, &out); status != term.StatusUsage || !strings.HasPrefix(out.String(), "millrace: --advertise 0.0.0.0:1: 0.0.0.0 is every address of a machine") {
		t.Errorf("status %d: %s", status, out.String())
	}
}

// What up hands to its nodes says nothing of which one each is.
func TestUpKeepsWhatIsOneNodesFromItsNodes(t *testing.T) {
	for name, own := range map[string]bool{
		"MILLRACE_LISTEN": true, "MILLRACE_NODE_ID": true, "MILLRACE_CONFIG": true, "KAFKA_NODE_ID": true, "MILLRACE_CFG_LISTENERS": true, "KAFKA_ADVERTISED_LISTENERS": true,
		"MILLRACE_LOG_LEVEL": false, "MILLRACE_CFG_NUM_PARTITIONS": false, "KAFKA_LOG_RETENTION_HOURS": false, "PATH": false, "LISTENERS": false,
	} {
		if ofOneNode(name) != own {
			t.Errorf("%s is one node's: %v", name, !own)
		}
	}
	if got := withoutSettings([]string{"PATH=/bin", "KAFKA_NODE_ID=1", "MILLRACE_CFG_NUM_PARTITIONS=2"}); !slices.Equal(got, []string{"PATH=/bin"}) {
		t.Errorf("%q", got)
	}
}

// runServe runs a command line of serve in this process and returns its exit status.
func runServe(ctx context.Context, args []string, out io.Writer) int {
	app := &urfave.App{Commands: []*urfave.Command{ServeCommand()}, Reader: strings.NewReader(""), Writer: out, ErrWriter: out}
	term.Prepare(app.Commands)
	return term.Report(out, term.Run(ctx, app, args))
}

// A password or key that a file holds is in no error and no warning, whatever else is wrong
// with its line.
func TestConfigRepeatsNoSecret(t *testing.T) {
	const chain = "-----BEGIN CERTIFICATE-----"
	for text, want := range map[string]string{
		`ssl.key.password=pa\users3cret`:               `1: malformed \uXXXX`,
		"=s3cret":                                      "1: no key",
		"node.id=1\n: s3cret":                          "2: no key",
		"ssl.keystore.key=s3cret":                      "1: ssl.keystore.key=…: there is no certificate to it",
		"listener.name.nobody.ssl.keystore.key=s3cret": "1: listener.name.nobody.ssl.keystore.key=…: there is no listener called NOBODY",
		"listener.name.nobody.ssl.key.password=s3cret": "1: listener.name.nobody.ssl.key.password=…: there is no listener called NOBODY",
		"ssl.keystore.certificate.chain=-----BEGIN PRIVATE KEY----- s3cret":       "1: ssl.keystore.certificate.chain=…: there is no key to it",
		"ssl.keystore.location=/none\nssl.keystore.certificate.chain=s3cret":      "2: ssl.keystore.certificate.chain=…: ssl.keystore.location names a file",
		"ssl.keystore.key=s3cret\nssl.keystore.certificate.chain=" + chain:        "1: ssl.keystore.key=…: it is neither PEM",
		"ssl.keystore.key=" + chain + "\nssl.keystore.certificate.chain=s3cret":   "2: ssl.keystore.certificate.chain=…: it is neither PEM",
		"node.id=1\nsasl.jaas.config=s3cret\nsasl.jaas.config=other":              "2: sasl.jaas.config=… is given again in line 3",
		"node.id=1\nssl.keystore.password=s3cret\nssl.keystore.password=s3cret-2": "2: ssl.keystore.password=… is given again in line 3",
	} {
		b, err := config(t, text)
		said := strings.Join(b.warnings, "\n")
		if err != nil {
			said += "\n" + err.Error()
		}
		if strings.Contains(said, "s3cret") || !strings.Contains(said, want) {
			t.Errorf("%q: says %s, want %q and no secret", text, said, want)
		}
	}
}
