package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace"
	"millrace/cli/clitest"
	"millrace/cli/term"
)

// A user that is created logs in by both mechanisms, with the password from wherever it came,
// and not when it has another, or is deleted. No password is in what is printed, but the one
// that is made.
func TestAUserLogsInWithThePasswordGiven(t *testing.T) {
	alone(t)
	b, err := millrace.Start(t.Context(), millrace.Config{
		Ephemeral: true, Users: []millrace.UserSecret{{Name: "admin", Password: "root"}}, Settings: map[string]string{"connection.failed.authentication.delay.ms": "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Shutdown(context.WithoutCancel(t.Context()))
	cluster := b.Addr()
	said := ""
	run := func(stdin, user, password, line string) (string, int) {
		t.Helper()
		t.Setenv("MILLRACE_PASSWORD", password)
		var out, err strings.Builder
		status := Run(t.Context(), append(strings.Fields(line), "-b", cluster, "--user", user), strings.NewReader(stdin), &out, &err)
		if strings.Contains(out.String()+err.String(), "s3cret") {
			t.Errorf("millrace %s prints a password: %s%s", line, out.String(), err.String())
		}
		said = err.String()
		return out.String(), status
	}
	admin := func(stdin, line string) string {
		t.Helper()
		out, status := run(stdin, "admin", "root", line)
		if status != term.StatusDone {
			t.Errorf("millrace %s: status %d, %s", line, status, said)
		}
		return out
	}
	may := func(user, password, more string, want int) {
		t.Helper()
		if _, status := run("", user, password, "topic list"+more); status != want {
			t.Errorf("%s%s: status %d, want %d: %s", user, more, status, want, said)
		}
	}
	admin("", "user create nobody --dry-run")
	admin("s3cret-1\n", "user create bob --new-password-file -")
	may("bob", "s3cret-1", "", term.StatusDone)
	may("bob", "s3cret-1", " -X sasl.mechanism=SCRAM-SHA-256", term.StatusDone)
	may("bob", "s3cret-2", "", term.StatusNotAllowed)
	admin("", "user passwd bob --new-password-file "+file(t, "new", "s3cret-2\n"))
	may("bob", "s3cret-2", "", term.StatusDone)
	may("bob", "s3cret-1", "", term.StatusNotAllowed)
	made := strings.TrimSpace(admin("", "user create carol --generate"))
	if len(made) < 20 {
		t.Errorf("made the password %q", made)
	}
	may("carol", made, "", term.StatusDone)
	if got := admin("", "user list bob -o json"); !strings.Contains(got, `"SCRAM-SHA-256"`) || !strings.Contains(got, `"SCRAM-SHA-512"`) {
		t.Errorf("%s", got)
	}
	for line, want := range map[string]int{
		"user create bob --generate": term.StatusFailed, "user passwd dave --generate": term.StatusNotFound, "user delete bob": term.StatusUsage,
		"user delete bob dave --yes": term.StatusNotFound, "user list dave": term.StatusNotFound, "user create dave": term.StatusUsage,
		"user create": term.StatusUsage, "user create a;b --generate": term.StatusUsage, "user create dave --generate --new-password-file x": term.StatusUsage,
	} {
		if _, status := run("", "admin", "root", line); status != want {
			t.Errorf("%s: status %d, want %d", line, status, want)
		}
	}
	admin("", "user delete bob --yes")
	may("bob", "s3cret-2", "", term.StatusNotAllowed)
}

// The first user of an open cluster, of which all brokers ask for a log-in from then on, is
// made by who has none, and says so.
func TestTheFirstUserIsMade(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	c.Do("", "topic", "create", "before", "-p3", "-r3")
	for _, example := range []string{"user create alice --generate --dry-run", "user list"} {
		c.Do("", strings.Fields(example)...)
	}
	made := c.Do("sesame\n", "user", "create", "alice", "--new-password-file", "-")
	if !strings.Contains(made.Stderr, "a super user; from then on everybody has to log in\nFrom now on say --user alice --password-file FILE, or keep both: millrace context add NAME --brokers "+strings.Join(c.Addresses(), ",")+" --user alice --password-file FILE\n") || made.Stdout != "" {
		t.Errorf("%q, %q", made.Stdout, made.Stderr)
	}
	if r := clitest.Run(t, c.Addresses(), "", "topic", "list"); r.Status != term.StatusNotAllowed || !strings.Contains(r.Stderr, "wants you to log in") {
		t.Errorf("status %d: %s", r.Status, r.Stderr)
	}
	secret := file(t, "secret", "sesame\n")
	if list := c.Do("", "user", "list", "--user", "alice", "--password-file", secret, "--no-headers").Stdout; strings.Join(strings.Fields(list), " ") != "alice SCRAM-SHA-256,SCRAM-SHA-512 yes" {
		t.Errorf("%q", list)
	}
	c.Do("one\n", "produce", "before", "-q", "--user", "alice", "--password-file", secret)

	// Nobody could let anybody in without her, and a user who may do nothing is none who could.
	c.Do("sesame\n", "user", "create", "bob", "--new-password-file", "-", "--user", "alice", "--password-file", secret)
	as := []string{"--user", "alice", "--password-file", secret}
	for _, names := range [][]string{{"alice"}, {"bob", "alice"}} {
		r := clitest.Run(t, c.Addresses(), "", append(append([]string{"user", "delete", "--yes"}, names...), as...)...)
		if r.Status != term.StatusFailed || !strings.Contains(r.Stderr, "alice is the last super user, and nothing was deleted") {
			t.Errorf("%v: status %d: %s", names, r.Status, r.Stderr)
		}
	}
	c.Do("", append([]string{"user", "delete", "--yes", "bob"}, as...)...)
	if got := c.Do("", append([]string{"user", "delete", "--last", "--dry-run", "alice"}, as...)...).Stdout; got != "would delete alice\n" {
		t.Errorf("%q", got)
	}
}

func TestUserExamplesRun(t *testing.T) {
	t.Parallel()
	b, err := millrace.Start(t.Context(), millrace.Config{Ephemeral: true, Users: []millrace.UserSecret{{Name: "admin", Password: "root"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Shutdown(context.WithoutCancel(t.Context()))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"create", "list", "passwd", "delete"} {
		runExamples(t, dir, []string{b.Addr()}, []string{"user", words}, "MILLRACE_USER=admin", "MILLRACE_PASSWORD=root")
	}
}
