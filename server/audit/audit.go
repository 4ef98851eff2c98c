// Package audit is the record of who was kept out and of who changed what, for those who
// answer for a cluster: a line for each log-in that failed, each denial, and each change of
// topics, settings, users and ACLs. It holds no secret.
//
// Lines go to the logger of the package's name, or as JSON into a file of their own. What
// anybody can bring about as often as they like, log-ins and what is refused, is written
// once a second for each who, whence and what; the next line says how many there were besides.
// Changes that were made are all written.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"millrace/internal/slowlog"
	"millrace/server"
)

const (
	// maxText bounds each text of a line: a topic's name has a place, and a name of 32 KiB,
	// which a client may ask for, does not fill the disk.
	maxText = 300
	// checkEvery is how often is looked whether the file was moved away, as logrotate
	// does, so that it is opened anew.
	checkEvery = time.Second
)

// A Log writes what it is told. It is safe for concurrent use. Who tells it waits until the
// line is handed to the operating system, and no client does that is not denied something
// and changes nothing.
type Log struct {
	logger *slog.Logger
	path   string // "": to the logger
	limit  slowlog.Limit

	mu      sync.Mutex
	file    *os.File // nil: it is to be opened
	checked time.Time
}

// Open returns a Log that writes into the file of a path, behind what is there, or with ""
// to the logger. Others than the file's owner may not read a file that it makes.
func Open(path string, logger *slog.Logger) (*Log, error) {
	l := &Log{logger: logger, path: path}
	if path == "" {
		return l, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.openLocked(); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return l, nil
}

func (l *Log) openLocked() (err error) {
	l.file, err = os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	l.checked = time.Now()
	return err
}

// Close closes the file. What comes later goes to the logger.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.path = ""
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// A line is an event as it is written.
type line struct {
	Time      string `json:"time"` // RFC 3339, UTC, milliseconds
	Event     string `json:"event"`
	Principal string `json:"principal,omitempty"`
	Host      string `json:"host,omitempty"`
	Client    string `json:"client,omitempty"`
	Request   string `json:"request,omitempty"`
	Subject   string `json:"subject,omitempty"`
	Outcome   string `json:"outcome"`
	Withheld  int    `json:"withheld,omitempty"` // such events that were not written before it
}

// Audit implements server.Auditor.
func (l *Log) Audit(e server.AuditEvent) {
	withheld := 0
	if e.Kind == server.AuditLogin || e.Kind == server.AuditDenied || e.Outcome != server.AuditSucceeded {
		var pass bool
		key := strings.Join([]string{e.Kind, bounded(e.Principal), e.Host, e.Request, e.Outcome}, "\x00")
		if withheld, pass = l.limit.Pass(key); !pass {
			return
		}
	}
	n := line{
		Time: time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), Event: e.Kind,
		Principal: bounded(e.Principal), Host: bounded(e.Host), Client: bounded(e.Client),
		Request: e.Request, Subject: bounded(e.Subject), Outcome: bounded(e.Outcome), Withheld: withheld,
	}
	if err := l.write(n); err != nil {
		l.limit.Error(l.logger, "file", "the audit log cannot be written, its lines come here", "path", l.path, "error", err)
		n.log(l.logger)
	}
}

// write writes a line where it belongs.
func (l *Log) write(n line) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" {
		n.log(l.logger)
		return nil
	}
	if l.file != nil && time.Since(l.checked) > checkEvery && l.movedLocked() {
		l.file.Close()
		l.file = nil
	}
	if l.file == nil {
		if err := l.openLocked(); err != nil {
			l.file = nil
			return err
		}
	}
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	_, err = l.file.Write(append(b, '\n'))
	return err
}

// movedLocked reports whether what is at the path is another file now, or none.
func (l *Log) movedLocked() bool {
	l.checked = time.Now()
	open, err := l.file.Stat()
	if err != nil {
		return true
	}
	there, err := os.Stat(l.path)
	return err != nil && errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(open, there)
}

// log writes a line to a logger, without what it has none of.
func (n *line) log(to *slog.Logger) {
	args := []any{"event", n.Event}
	for _, a := range [...]struct{ key, value string }{
		{"principal", n.Principal}, {"host", n.Host}, {"client", n.Client}, {"request", n.Request}, {"subject", n.Subject}, {"outcome", n.Outcome},
	} {
		if a.value != "" {
			args = append(args, a.key, a.value)
		}
	}
	if n.Withheld > 0 {
		args = append(args, "withheld", n.Withheld)
	}
	to.Info("audit", args...)
}

// bounded is a text of at most maxText bytes, and valid UTF-8.
func bounded(s string) string {
	if len(s) > maxText {
		cut := maxText
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
