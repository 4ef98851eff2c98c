package raftgroup

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

// A logger writes what hashicorp/raft logs to slog, one level down: what
// Raft calls news is routine with a thousand groups. Errors about a peer that
// is away repeat for every group and every heartbeat, and the transport has said that
// it is; they go to debug. So does that a peer has not opened a group, unless it goes
// on: nodes open a new one some milliseconds apart. And so does what Raft meets where
// something ends in order, see ordinary. The rest are warnings, each message once in a while.
type logger struct {
	to     *slog.Logger
	limits *LogLimits
	name   string
	args   []interface{}
}

// NewLogger returns Raft's logger of one group, which writes to to.
func NewLogger(to *slog.Logger, limits *LogLimits) hclog.Logger {
	return &logger{to: to, limits: limits}
}

func (l *logger) Log(level hclog.Level, msg string, args ...interface{}) {
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
func (l *logger) matters(msg string, err error) bool {
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

func (l *logger) Trace(msg string, args ...interface{}) {}
func (l *logger) Debug(msg string, args ...interface{}) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...interface{})  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...interface{})  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...interface{}) { l.Log(hclog.Error, msg, args...) }

func (l *logger) IsTrace() bool { return false }
func (l *logger) IsDebug() bool { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l *logger) IsInfo() bool  { return l.IsDebug() }
func (l *logger) IsWarn() bool  { return l.IsDebug() }
func (l *logger) IsError() bool { return true }

func (l *logger) ImpliedArgs() []interface{} { return l.args }
func (l *logger) Name() string               { return l.name }
func (l *logger) SetLevel(hclog.Level)       {}
func (l *logger) GetLevel() hclog.Level      { return hclog.Debug }

func (l *logger) With(args ...interface{}) hclog.Logger {
	c := *l
	c.args = append(append([]interface{}{}, l.args...), args...)
	return &c
}

func (l *logger) Named(name string) hclog.Logger {
	c := *l
	c.name = name
	return &c
}

func (l *logger) ResetNamed(name string) hclog.Logger { return l.Named(name) }

func (l *logger) StandardLogger(*hclog.StandardLoggerOptions) *stdlog.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelDebug)
}

func (l *logger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }

// LogLimits are what the loggers of all of a node's groups share: one warning in a while of
// each kind is written, and the next says how many were withheld.
type LogLimits struct {
	warnings slowlog.Limit // by message

	mu    sync.Mutex
	since map[string]lasting
}

// NewLogLimits returns limits of a node's own.
func NewLogLimits() *LogLimits {
	return &LogLimits{warnings: slowlog.Limit{Every: warnsEvery}}
}

// A lasting is since when something has been so, and when it was so last.
type lasting struct{ first, last time.Time }

const (
	warnsEvery = 5 * time.Second
	lastsAfter = 30 * time.Second // is how long something must have been so to be said
	lastsUntil = time.Minute      // is how long it is not so before it begins anew
	maxLasting = 10_000           // bounds what is remembered; it is all forgotten then
)

// lasts reports whether what key names has been so for a while.
func (r *LogLimits) lasts(key string) bool {
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
