package replication

import (
	"context"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A raftLogger writes what hashicorp/raft logs to slog, one level down: what
// Raft calls news is routine with a thousand groups. Errors about a peer that
// is away repeat for every group and every heartbeat, so each message passes
// once in a while; the rest goes to debug.
type raftLogger struct {
	to    *slog.Logger
	limit *rateLimit
	name  string
	args  []interface{}
}

func newRaftLogger(to *slog.Logger, limit *rateLimit) hclog.Logger {
	return &raftLogger{to: to, limit: limit}
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...interface{}) {
	to := slog.LevelDebug
	switch level {
	case hclog.Error:
		if l.limit.allow(msg) {
			to = slog.LevelWarn
		}
	case hclog.NoLevel, hclog.Off:
		return
	}
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	attrs := make([]any, 0, len(l.args)+len(args))
	for _, a := range append(append(attrs, l.args...), args...) {
		if f, ok := a.(hclog.Format); ok {
			a = fmt.Sprintf(f[0].(string), f[1:]...)
		}
		attrs = append(attrs, a)
	}
	l.to.Log(context.Background(), to, "raft: "+msg, attrs...)
}

func (l *raftLogger) Trace(msg string, args ...interface{}) {}
func (l *raftLogger) Debug(msg string, args ...interface{}) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...interface{})  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...interface{})  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...interface{}) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) IsTrace() bool { return false }
func (l *raftLogger) IsDebug() bool { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l *raftLogger) IsInfo() bool  { return l.IsDebug() }
func (l *raftLogger) IsWarn() bool  { return l.IsDebug() }
func (l *raftLogger) IsError() bool { return true }

func (l *raftLogger) ImpliedArgs() []interface{} { return l.args }
func (l *raftLogger) Name() string               { return l.name }
func (l *raftLogger) SetLevel(hclog.Level)       {}
func (l *raftLogger) GetLevel() hclog.Level      { return hclog.Debug }

func (l *raftLogger) With(args ...interface{}) hclog.Logger {
	c := *l
	c.args = append(append([]interface{}{}, l.args...), args...)
	return &c
}

func (l *raftLogger) Named(name string) hclog.Logger {
	c := *l
	c.name = name
	return &c
}

func (l *raftLogger) ResetNamed(name string) hclog.Logger { return l.Named(name) }

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *stdlog.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelDebug)
}

func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }

// A rateLimit lets each message pass once in five seconds.
type rateLimit struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (r *rateLimit) allow(msg string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.last[msg]) < 5*time.Second {
		return false
	}
	if r.last == nil {
		r.last = make(map[string]time.Time)
	}
	r.last[msg] = now
	return true
}
