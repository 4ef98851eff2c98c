//go:build conformance

package conformance

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// guardedNode is a node of its own that controls access, whose anonymous clients are super
// users: nobody is kept out of it, and ACLs can be made.
func guardedNode(t *testing.T) (address string) {
	t.Helper()
	if program == "" {
		t.Skip("needs a node of its own, and CONFORMANCE_BROKERS names brokers")
	}
	address = fmt.Sprint("127.0.0.1:", freePorts(1))
	cmd := exec.Command(program, "serve", "--ephemeral", "--listen", address)
	cmd.Env = append(os.Environ(), "MILLRACE_CFG_SUPER_USERS=User:ANONYMOUS")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("millrace serve: %v\n%s", err, log.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// kafka-acls adds what producers and consumers need, lists it by resource, by principal
// and by what means a resource, and removes it; franz-go's administrator sees the same.
func TestKafkaACLs(t *testing.T) {
	t.Parallel()
	classPath := setUpJava(t, "kafka-tools", kafkaToolsRelease)
	address := guardedNode(t)
	tool := func(args ...string) (entries []string) {
		t.Helper()
		command := runJava(t, classPath, "org.apache.kafka.tools.AclCommand")
		command = append(command, "--bootstrap-server", address)
		out, err := exec.Command(command[0], append(command[1:], args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("kafka-acls %s: %v\n%s", strings.Join(args, " "), err, tail(string(out)))
		}
		about := ""
		for line := range strings.Lines(string(out)) {
			if _, pattern, ok := strings.Cut(line, "ResourcePattern("); ok {
				about, _, _ = strings.Cut(pattern, ")`")
			} else if entry := strings.TrimSpace(line); strings.HasPrefix(entry, "(") {
				entries = append(entries, about+" "+entry)
			}
		}
		slices.Sort(entries)
		return slices.Compact(entries) // --add says what it adds and then all there is
	}
	expect := func(want []string, args ...string) {
		t.Helper()
		if got := tool(args...); !slices.Equal(got, want) {
			t.Errorf("kafka-acls %s:\n%s\nwant\n%s", strings.Join(args, " "), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	const (
		orders = "resourceType=TOPIC, name=orders, patternType=LITERAL (principal=User:alice, host=*, operation="
		pay    = "resourceType=TOPIC, name=pay, patternType=PREFIXED (principal=User:bob, host=10.0.0.1, operation="
		deny   = "resourceType=TOPIC, name=*, patternType=LITERAL (principal=User:eve, host=*, operation=ALL, permissionType=DENY)"
		allow  = ", permissionType=ALLOW)"
	)
	tool("--add", "--allow-principal", "User:alice", "--producer", "--idempotent", "--topic", "orders", "--transactional-id", "t1")
	tool("--add", "--allow-principal", "User:bob", "--allow-host", "10.0.0.1", "--consumer", "--topic", "pay", "--group", "g", "--resource-pattern-type", "prefixed")
	tool("--add", "--deny-principal", "User:eve", "--operation", "All", "--topic", "*")
	tool("--add", "--deny-principal", "User:eve", "--operation", "All", "--topic", "*") // once is enough
	expect([]string{orders + "CREATE" + allow, orders + "DESCRIBE" + allow, orders + "WRITE" + allow}, "--list", "--topic", "orders")
	expect([]string{deny, pay + "DESCRIBE" + allow, pay + "READ" + allow}, "--list", "--topic", "payments", "--resource-pattern-type", "match")
	expect([]string{deny}, "--list", "--principal", "User:eve")
	all := tool("--list")
	if len(all) != 3+1+2+2+1+1 {
		t.Errorf("%d entries:\n%s", len(all), strings.Join(all, "\n"))
	}

	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	any := kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations().Allow().AllowHosts().Deny().DenyHosts()
	described, err := kadm.NewClient(client).DescribeACLs(t.Context(), any)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range described {
		if d.Err != nil {
			t.Error(d.Err)
		}
		for _, a := range d.Described {
			seen[fmt.Sprintf("resourceType=%s, name=%s, patternType=%s (principal=%s, host=%s, operation=%s, permissionType=%s)", a.Type, a.Name, a.Pattern, a.Principal, a.Host, a.Operation, a.Permission)] = true
		}
	}
	for _, entry := range all {
		if !seen[entry] {
			t.Errorf("franz-go does not see %s", entry)
		}
	}

	tool("--remove", "--force", "--allow-principal", "User:alice", "--producer", "--topic", "orders")
	expect(nil, "--list", "--topic", "orders")
	tool("--remove", "--force", "--topic", "payments", "--resource-pattern-type", "match")
	if left := tool("--list"); len(left) != 1+2+1 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}
