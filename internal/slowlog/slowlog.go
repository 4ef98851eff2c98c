package slowlog

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"
)

const (
	defaultEvery = time.Second
	maxKeys      = 1000
)

// A Limit decides which lines pass. The zero value is ready. It is safe for concurrent
// use, and must not be copied.
type Limit struct {
	// Every is the time from one line with a key to the next; 0 means one second. It must
	// not change once the Limit is in use.
	Every time.Duration

	mu    sync.Mutex
	keys  map[string]*line
	rest  line      // of all keys for which there is no place
	swept time.Time // when keys was last looked through for some to forget
}

// A line is what is known of one key.
type line struct {
	next     time.Time     // when it passes again
	pause    time.Duration // of Lasting, from one line to the next; 0 for others
	withheld int           // since it passed last
}

// Warn writes a warning to a logger, unless one with the key was written a while ago.
func (l *Limit) Warn(to *slog.Logger, key, message string, args ...any) {
	if withheld, ok := l.Pass(key); ok {
		write(to, slog.LevelWarn, message, args, withheld)
	}
}

// Error is Warn for what an operator must do something about.
func (l *Limit) Error(to *slog.Logger, key, message string, args ...any) {
	if withheld, ok := l.Pass(key); ok {
		write(to, slog.LevelError, message, args, withheld)
	}
}

// Lasting warns of what goes on until Over ends it. That it begins is nothing to speak of
// yet, since most trouble of the kind is over soon: the first line is written once it has
// lasted for Every, the next after six times as long, and so on up to sixty times.
func (l *Limit) Lasting(to *slog.Logger, key, message string, args ...any) {
	if withheld, ok := l.passLasting(key); ok {
		write(to, slog.LevelWarn, message, args, withheld)
	}
}

// Over ends what Lasting warned of.
func (l *Limit) Over(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, key)
}

// Pass reports whether a line with the key may be written, and how many were withheld
// since the last. It is for who writes it in another way.
func (l *Limit) Pass(key string) (withheld int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	k := l.lineLocked(key, now)
	return k.pass(now, l.every())
}

func (l *Limit) passLasting(key string) (withheld int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	k := l.lineLocked(key, now)
	if k == &l.rest {
		return k.pass(now, l.every())
	}
	if k.pause == 0 {
		k.pause = l.every()
		k.next = now.Add(k.pause)
	}
	withheld, ok = k.pass(now, min(6*k.pause, 60*l.every()))
	if ok {
		k.pause = k.next.Sub(now)
	}
	return withheld, ok
}

// pass counts a line as written, if it may be, and as withheld if not. The next one with
// the key may be written after pause.
func (k *line) pass(now time.Time, pause time.Duration) (withheld int, ok bool) {
	if now.Before(k.next) {
		k.withheld++
		return 0, false
	}
	withheld = k.withheld
	k.next, k.withheld = now.Add(pause), 0
	return withheld, true
}

func (l *Limit) every() time.Duration {
	if l.Every == 0 {
		return defaultEvery
	}
	return l.Every
}

// lineLocked finds what is known of a key, or begins it; it is l.rest where there is no
// place. l.mu is held.
func (l *Limit) lineLocked(key string, now time.Time) *line {
	if k := l.keys[key]; k != nil {
		return k
	}
	if len(l.keys) >= maxKeys && now.Sub(l.swept) >= l.every() {
		l.sweepLocked(now)
	}
	if len(l.keys) >= maxKeys {
		return &l.rest
	}
	if l.keys == nil {
		l.keys = make(map[string]*line)
	}
	k := &line{}
	l.keys[key] = k
	return k
}

// sweepLocked forgets the keys whose next line would pass: they are as good as new. What
// they withheld is said by the next line for which there is no place. l.mu is held.
func (l *Limit) sweepLocked(now time.Time) {
	l.swept = now
	for key, k := range l.keys {
		if !now.Before(k.next) {
			l.rest.withheld += k.withheld
			delete(l.keys, key)
		}
	}
}

// write is to.Log on behalf of the caller of Warn, Error or Lasting, which call it.
func write(to *slog.Logger, level slog.Level, message string, args []any, withheld int) {
	ctx := context.Background()
	if !to.Enabled(ctx, level) {
		return
	}
	var pcs [1]uintptr
	runtime.Callers(3, pcs[:]) // past Callers, write and Warn
	r := slog.NewRecord(time.Now(), level, message, pcs[0])
	r.Add(args...)
	if withheld > 0 {
		r.Add("withheld", withheld)
	}
	_ = to.Handler().Handle(ctx, r) // as slog itself does
}
