package raftgroup

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What Raft meets in each group and at each heartbeat is one warning in a while, which says
// how many there were; groups share the limit, and other errors have one of their own.
func TestRaftWarnsOnceInAWhileAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		to := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		limits := NewLogLimits()
		for range 2 {
			for _, group := range []string{"a/0", "b/0", "c/0"} {
				l := NewLogger(to, limits).With("group", group)
				l.Error("failed to write", "error", errors.New("no"))
				l.Error("failed to read", "error", errors.New("no"))
			}
			time.Sleep(warnsEvery)
		}
		want := []string{
			`level=WARN msg="raft: failed to write" group=a/0 error=no`,
			`level=WARN msg="raft: failed to read" group=a/0 error=no`,
			`level=WARN msg="raft: failed to write" group=a/0 error=no withheld=2`,
			`level=WARN msg="raft: failed to read" group=a/0 error=no withheld=2`,
		}
		if got := strings.Split(strings.TrimSpace(out.String()), "\n"); !slices.Equal(got, want) {
			t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
