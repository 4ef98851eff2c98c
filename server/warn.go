package server

import "runtime/debug"

// warn logs what clients cause, once a second for each message, so that a bad client
// cannot fill the log. Messages are constants.
func (s *Server) warn(message string, args ...any) {
	s.slow.Warn(s.logger(), message, message, args...)
}

func stack() string { return string(debug.Stack()) }
