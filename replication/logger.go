package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"millrace/internal/slowlog"
	"millrace/log"
	"millrace/replication/transport"
	"millrace/replication/vote"
)

// A raftLogger writes what hashicorp/raft logs to slog, one level down: what
// Raft calls news is routine with a thousand groups. Errors about a peer that
// is away repeat for every group and every heartbeat, and the transport has said that
// it is; they go to debug. So does that a peer has not opened a group, unless it goes
// on: nodes open a new one some milliseconds apart. And so does what Raft meets where
// something ends in order, see ordinary. The rest are warnings, each message once in a while.
type raftLogger struct {
	to     *slog.Logger
	limits *raftLimits
	name   string
	args   []interface{}
}

func newRaftLogger(to *slog.Logger, limits *raftLimits) hclog.Logger {
	return &raftLogger{to: to, limits: limits}
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...interface{}) {
	to, withheld := slog.LevelDebug, 0
	switch level {
	case hclog.Error:
		if !l.matters(msg, errorOf(args)) {
			break
		}
		if n, ok := l.limits.warnings.Pass(msg); ok {
			to, withheld = slog.LevelWarn, n
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
	if withheld > 0 {
		attrs = append(attrs, "withheld", withheld)
	}
	l.to.Log(context.Background(), to, "raft: "+msg, attrs...)
}

// matters reports whether an error is one that an operator wants to know of.
func (l *raftLogger) matters(msg string, err error) bool {
	switch {
	case routine[msg], ordinary(err), errors.Is(err, transport.ErrUnreachable):
		return false
	case errors.Is(err, transport.ErrUnknownGroup):
		return l.limits.lasts(fmt.Sprint(l.args...))
	}
	return true
}

// routine are the messages that Raft calls errors and that every election brings.
var routine = map[string]bool{"peer has newer term, stopping replication": true}

// ordinary tells whether an error is what a node that stops, a partition that is deleted
// or a replica that moves away meets everywhere: something here or at a peer was closed,
// and whoever closed it has said what there is to say. Nor is it news that there is none
// for a snapshot, or that a node came back as another incarnation, which takes the place
// of the one before it within seconds.
func ordinary(err error) bool {
	for _, end := range []error{transport.ErrClosed, transport.ErrWrongIncarnation, raft.ErrRaftShutdown, vote.ErrClosed, log.ErrClosed, raft.ErrNothingNewToSnapshot} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// errorOf finds the error among what is logged.
func errorOf(args []interface{}) error {
	for _, a := range args {
		if err, ok := a.(error); ok {
			return err
		}
	}
	return nil
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

// raftLimits is what the raftLoggers of all of a node's groups share.
type raftLimits struct {
	warnings slowlog.Limit // by message

	mu    sync.Mutex
	since map[string]lasting
}

// A lasting is since when something has been so, and when it was so last.
type lasting struct{ first, last time.Time }

const (
	raftWarnsEvery = 5 * time.Second
	lastsAfter     = 30 * time.Second // is how long something must have been so to be said
	lastsUntil     = time.Minute      // is how long it is not so before it begins anew
	maxLasting     = 10_000           // bounds what is remembered; it is all forgotten then
)

// lasts reports whether what key names has been so for a while.
func (r *raftLimits) lasts(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	l, known := r.since[key]
	if !known || now.Sub(l.last) > lastsUntil {
		l.first = now
	}
	l.last = now
	if r.since == nil || len(r.since) >= maxLasting {
		r.since = make(map[string]lasting)
	}
	r.since[key] = l
	return now.Sub(l.first) >= lastsAfter
}
