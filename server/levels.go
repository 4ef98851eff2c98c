package server

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// rootLogger is the logger whose level holds where no other has one.
const rootLogger = "root"

// loggers are the loggers there are: one for each package that logs, named by its
// path with dots, which the level of one above holds for as well. A test keeps
// the list.
var loggers = []string{
	rootLogger,
	"millrace",
	"millrace.cli.local",
	"millrace.log",
	"millrace.replication",
	"millrace.replication.admission",
	"millrace.replication.bulletin", "millrace.replication.controller",
	"millrace.replication.failover",
	"millrace.replication.folder",
	"millrace.replication.keyring",
	"millrace.replication.partition",
	"millrace.replication.raftgroup",
	"millrace.replication.rescue",
	"millrace.replication.roster",
	"millrace.replication.transport",
	"millrace.replication.vote",
	"millrace.security.certificate",
	"millrace.server",
	"millrace.server.audit",
	"millrace.server.coordinator",
	"millrace.server.group",
	"millrace.server.journal",
}

// levelNames are the levels of Kafka's LogLevelConfig, the quietest first.
var levelNames = []struct {
	name  string
	level slog.Level
}{
	{"FATAL", slog.LevelError + 4}, {"ERROR", slog.LevelError}, {"WARN", slog.LevelWarn},
	{"INFO", slog.LevelInfo}, {"DEBUG", slog.LevelDebug}, {"TRACE", slog.LevelDebug - 4},
}

// Levels says from which level on each logger of a process writes, and may be
// changed while it runs: Kafka's config resource BROKER_LOGGER (KIP-412). Which
// logger a line belongs to is the package that wrote it. It is safe for
// concurrent use, and forgotten with the process.
//
// A line that no logger wants costs what it would cost without: one atomic load.
// One that some logger wants looks up its package once a place in the code, and
// its level once a line.
type Levels struct {
	lowest atomic.Int64 // what some logger wants
	set    atomic.Pointer[map[string]slog.Level]
	change sync.Mutex
	names  sync.Map // of loggers, by the program counter of a line
}

// NewLevels begins with one level for all loggers.
func NewLevels(root slog.Level) *Levels {
	l := &Levels{}
	l.store(map[string]slog.Level{rootLogger: root})
	return l
}

func (l *Levels) store(set map[string]slog.Level) {
	l.set.Store(&set)
	lowest := slog.Level(math.MaxInt32)
	for _, level := range set {
		lowest = min(lowest, level)
	}
	l.lowest.Store(int64(lowest))
}

// Handler writes to h what its logger's level lets through. h itself must let
// everything through.
func (l *Levels) Handler(h slog.Handler) slog.Handler { return levelled{l, h} }

// level is the level in force for a logger: its own, or that of the nearest above.
func (l *Levels) level(name string) slog.Level {
	set := *l.set.Load()
	for {
		if level, ok := set[name]; ok {
			return level
		}
		i := strings.LastIndexByte(name, '.')
		if i < 0 {
			return set[rootLogger]
		}
		name = name[:i]
	}
}

// alter sets levels and takes others away.
func (l *Levels) alter(set map[string]slog.Level, unset []string) {
	l.change.Lock()
	defer l.change.Unlock()
	next := maps.Clone(*l.set.Load())
	for _, name := range unset {
		delete(next, name)
	}
	maps.Copy(next, set)
	l.store(next)
}

// A levelled handler is Levels' Handler.
type levelled struct {
	levels *Levels
	to     slog.Handler
}

// Enabled implements slog.Handler.
func (h levelled) Enabled(_ context.Context, level slog.Level) bool {
	return int64(level) >= h.levels.lowest.Load()
}

// Handle implements slog.Handler.
func (h levelled) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < h.levels.level(h.levels.loggerOf(r.PC)) {
		return nil
	}
	return h.to.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h levelled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelled{h.levels, h.to.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h levelled) WithGroup(name string) slog.Handler {
	return levelled{h.levels, h.to.WithGroup(name)}
}

// loggerOf finds the logger of a line by the function it stands in,
// "millrace/server/coordinator.(*Shard).load".
func (l *Levels) loggerOf(pc uintptr) string {
	if pc == 0 {
		return rootLogger
	}
	if name, ok := l.names.Load(pc); ok {
		return name.(string)
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	path := frame.Function
	slash := strings.LastIndexByte(path, '/') + 1
	if i := strings.IndexByte(path[slash:], '.'); i >= 0 {
		path = path[:slash+i]
	}
	name := strings.ReplaceAll(path, "/", ".")
	l.names.Store(pc, name)
	return name
}

// levelOf finds a level by Kafka's name for it.
func levelOf(name string) (slog.Level, bool) {
	for _, l := range levelNames {
		if l.name == name {
			return l.level, true
		}
	}
	return 0, false
}

// nameOf is Kafka's name for a level, the nearest that is no louder.
func nameOf(level slog.Level) string {
	for _, l := range levelNames {
		if level >= l.level {
			return l.name
		}
	}
	return "TRACE"
}

// validLevels lists the levels as Kafka's refusal does.
func validLevels() string {
	var names []string
	for _, l := range levelNames {
		names = append(names, l.name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
