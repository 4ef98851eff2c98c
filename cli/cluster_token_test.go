package cli

import (
	"strings"
	"testing"

	"millrace/cli/clitest"
	"millrace/cli/term"
)

// The node of a folder makes tokens, and its authority is printed and changed, by who can read
// the folder. No command prints a key.
func TestTheFolderIsTheKeyToTheCluster(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 1)
	data := c.All[0].Data
	before := c.Do("", "cluster", "ca", "--data-dir", data).Stdout
	token := c.Do("", "cluster", "token", "--data-dir", data, "--uses", "2", "--expires", "10m").Stdout
	if !strings.HasPrefix(token, "millrace-join-1.") || strings.Count(token, "\n") != 1 {
		t.Errorf("a token is %.30q…", token)
	}
	if strings.Count(before, "BEGIN CERTIFICATE") != 1 || strings.Contains(before, "KEY") {
		t.Errorf("the authority is\n%s", before)
	}
	c.Do("", "cluster", "ca", "rotate", "--data-dir", data)
	after := ""
	for after = before; after == before || strings.Count(after, "BEGIN CERTIFICATE") != 1; { // the image is saved once a second
		after = c.Do("", "cluster", "ca", "--data-dir", data).Stdout
	}
	for _, test := range []struct {
		line   string
		status int
		stderr string
	}{
		{"cluster token --data-dir " + data + " --uses 0", term.StatusFailed, "1 to 1000 nodes"},
		{"cluster token --data-dir " + c.Dir, term.StatusUsage, "name one of them: " + data},
		{"cluster token now", term.StatusUsage, "takes no arguments"},
		{"cluster ca renew --data-dir " + data, term.StatusUsage, "takes no arguments but rotate"},
		{"cluster ca --data-dir " + t.TempDir(), term.StatusFailed, "no node has run in this folder"},
		{"serve --data-dir " + t.TempDir() + " --join " + strings.TrimSpace(token[:len(token)-9]), term.StatusUsage, "only a part of the token"},
	} {
		r := clitest.Run(t, c.Addresses(), "", strings.Fields(test.line)...)
		if r.Status != test.status || !strings.Contains(r.Stderr, test.stderr) || strings.Contains(r.Stderr, token[20:60]) {
			t.Errorf("millrace %s: status %d, %q, want %d, %q", test.line, r.Status, r.Stderr, test.status, test.stderr)
		}
	}
}
