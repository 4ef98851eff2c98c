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
	pause   time.Duration // of away, from one line to the next
	skipped int
}

// A peer that is away is spoken of after quietFor, since whoever lost it says so at once
// and most come back by then, and ever more rarely from there on.
const rarestLine = 10 * time.Minute

// away is say for what fails until a peer is back, and is then ended by back.
func (l *limitedLog) away(key, message string, args ...any) {
	now := time.Now()
	l.mu.Lock()
	k := l.keyLocked(key)
	if k.pause == 0 {
		k.pause = quietFor
		k.next = now.Add(k.pause)
	}
	if now.Before(k.next) {
		k.skipped++
		l.mu.Unlock()
		return
	}
	k.pause = min(6*k.pause, rarestLine)
	k.next = now.Add(k.pause)
	args = append(args, "tries", k.skipped+1)
	k.skipped = 0
	l.mu.Unlock()
	l.logger.Warn("transport: "+message, args...)
}

// back ends what away said.
func (l *limitedLog) back(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, key)
}

func (l *limitedLog) keyLocked(key string) *logKey {
	if l.keys == nil || len(l.keys) >= maxLogKeys {
		l.keys = make(map[string]*logKey)
	}
	k := l.keys[key]
	if k == nil {
		k = &logKey{}
		l.keys[key] = k
	}
	return k
}

func (l *limitedLog) say(key, message string, args ...any) {
	now := time.Now()
	l.mu.Lock()
	k := l.keyLocked(key)
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
