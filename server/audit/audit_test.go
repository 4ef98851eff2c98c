package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"millrace/server"
)

// lines reads a file of lines of JSON.
func lines(t *testing.T, path string) (all []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(b)) {
		var one map[string]any
		if err := json.Unmarshal([]byte(text), &one); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, one)
	}
	return all
}

func open(t *testing.T, path string) *Log {
	t.Helper()
	l, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

var denial = server.AuditEvent{Kind: server.AuditDenied, Principal: "User:alice", Host: "10.0.0.1", Client: "app", Request: "Produce", Subject: "WRITE on TOPIC orders", Outcome: "denied"}

// A line of the file has all that is known of an event, and nobody else may read the file.
func TestEventsAreLinesOfJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	open(t, path).Audit(denial)
	got := lines(t, path)
	if len(got) != 1 {
		t.Fatalf("%d lines", len(got))
	}
	if _, err := time.Parse(time.RFC3339, fmt.Sprint(got[0]["time"])); err != nil {
		t.Error(err)
	}
	delete(got[0], "time")
	if got, want := fmt.Sprint(got[0]), "map[client:app event:denied host:10.0.0.1 outcome:denied principal:User:alice request:Produce subject:WRITE on TOPIC orders]"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// It is written behind.
	open(t, path).Audit(denial)
	if n := len(lines(t, path)); n != 2 {
		t.Errorf("%d lines after another start", n)
	}
}

// What anybody can bring about is written once a second, with how many there were besides;
// who is denied something else, or is somebody else, has lines of their own; and changes that
// were made are all written.
func TestDenialsAreCountedAndChangesAllWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		l := open(t, path)
		for range 1000 {
			l.Audit(denial)
		}
		other := denial
		other.Principal = "User:bob"
		l.Audit(other)
		change := denial
		change.Kind, change.Outcome = server.AuditChanged, server.AuditSucceeded
		for range 3 {
			l.Audit(change)
		}
		change.Outcome = "error 42"
		for range 3 {
			l.Audit(change)
		}
		time.Sleep(1100 * time.Millisecond)
		l.Audit(denial)
	})
	var got []string
	for _, n := range lines(t, path) {
		got = append(got, fmt.Sprint(n["principal"], " ", n["event"], " ", n["outcome"], " ", n["withheld"]))
	}
	want := "User:alice denied denied <nil>\nUser:bob denied denied <nil>\n" + strings.Repeat("User:alice changed succeeded <nil>\n", 3) +
		"User:alice changed error 42 <nil>\nUser:alice denied denied 999"
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// Names that clients make up are cut, and are text.
func TestLinesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	e := denial
	e.Principal, e.Client, e.Subject = strings.Repeat("ä", 10_000), "\xff\n\"", strings.Repeat("x", 32<<10)
	l.Audit(e)
	b, _ := os.ReadFile(path)
	if len(b) > 2<<10 || !utf8.Valid(b) || bytes.Count(b, []byte("\n")) != 1 {
		t.Errorf("%d bytes: %q", len(b), b[:min(len(b), 500)])
	}
	if got := lines(t, path); len(got) != 1 || got[0]["client"] != "?\n\"" {
		t.Errorf("%v", got)
	}
}

// A file that was moved away, as logrotate does, is followed by another.
func TestAMovedFileIsOpenedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		l := open(t, path)
		e := denial
		e.Kind, e.Outcome = server.AuditChanged, server.AuditSucceeded
		l.Audit(e)
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * checkEvery)
		l.Audit(e)
		l.Audit(e)
	})
	if old, now := len(lines(t, path+".1")), len(lines(t, path)); old != 1 || now != 2 {
		t.Errorf("%d lines in the old file, %d in the new one", old, now)
	}
}

// Without a path, and where the file cannot be written, lines go to the logger.
func TestLinesGoToTheLogger(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&out, nil))
	l, err := Open("", logger)
	if err != nil {
		t.Fatal(err)
	}
	l.Audit(denial)
	if want := `level=INFO msg=audit event=denied principal=User:alice host=10.0.0.1 client=app request=Produce subject="WRITE on TOPIC orders" outcome=denied`; !strings.Contains(out.String(), want) {
		t.Errorf("%s\nwant %s", out.String(), want)
	}
	out.Reset()
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err = Open(filepath.Join(dir, "audit.log"), logger)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.mu.Lock()
	l.file.Close()
	l.file = nil
	l.mu.Unlock()
	os.RemoveAll(dir)
	l.Audit(denial)
	if got := out.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "event=denied") {
		t.Errorf("%s", got)
	}
	if _, err := Open(filepath.Join(dir, "audit.log"), logger); err == nil {
		t.Error("a file that cannot be made is opened")
	}
}
