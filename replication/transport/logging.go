package transport

import (
	"log/slog"
	"sync"
	"time"
)

const (
	quietFor   = 10 * time.Second // between two lines with the same key
	maxLogKeys = 1024
)

// A limitedLog lets one line a key through every quietFor and counts the rest,
// so that a peer that fails in a loop costs one line, not the disk.
type limitedLog struct {
	logger *slog.Logger

	mu   sync.Mutex
	keys map[string]*logKey
}

type logKey struct {
	next    time.Time
	skipped int
}

func (l *limitedLog) say(key, message string, args ...any) {
	now := time.Now()
	l.mu.Lock()
	if l.keys == nil || len(l.keys) >= maxLogKeys {
		l.keys = make(map[string]*logKey)
	}
	k := l.keys[key]
	if k == nil {
		k = &logKey{}
		l.keys[key] = k
	}
	if now.Before(k.next) {
		k.skipped++
		l.mu.Unlock()
		return
	}
	skipped := k.skipped
	k.next, k.skipped = now.Add(quietFor), 0
	l.mu.Unlock()
	if skipped > 0 {
		args = append(args, "skipped", skipped)
	}
	l.logger.Warn("transport: "+message, args...)
}
