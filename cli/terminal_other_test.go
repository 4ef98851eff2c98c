//go:build !linux

package cli

import "testing"

// onTerminal is Linux's: a terminal is opened otherwise elsewhere.
func onTerminal(t *testing.T, _ []string, _ int, _ string, _ ...string) string {
	t.Helper()
	t.Skip("opens a terminal as only Linux does")
	return ""
}
