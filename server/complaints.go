package server

import (
	"runtime/debug"
	"sync"
	"time"
)

// complaints limits warnings that clients cause to one a second for each kind,
// so that a bad client cannot fill the log. It is safe for concurrent use.
type complaints struct {
	mu   sync.Mutex
	last map[string]*complaint // by message; messages are constants, so it stays small
}

type complaint struct {
	at       time.Time
	withheld int
}

// complain logs a warning, or counts it for the next one of its kind.
func (s *Server) complain(message string, args ...any) {
	now := time.Now()
	s.complaints.mu.Lock()
	c := s.complaints.last[message]
	if c == nil {
		if s.complaints.last == nil {
			s.complaints.last = map[string]*complaint{}
		}
		c = &complaint{}
		s.complaints.last[message] = c
	}
	if now.Sub(c.at) < time.Second {
		c.withheld++
		s.complaints.mu.Unlock()
		return
	}
	withheld := c.withheld
	c.at, c.withheld = now, 0
	s.complaints.mu.Unlock()
	if withheld > 0 {
		args = append(args, "withheld", withheld)
	}
	s.logger().Warn(message, args...)
}

func stack() string { return string(debug.Stack()) }
