package group

import (
	"context"
	"slices"
	"sync"
)

// A door lets one of many in at a time. Hosts come one after the other, however many
// wait for each; within a host, who came first.
type door struct {
	mu    sync.Mutex
	taken bool
	hosts []string // that somebody waits for, the next first
	lines map[string][]chan struct{}
}

// take waits to be let in; leave must follow. It returns errNotIn if ctx
// or done ends first.
func (t *door) take(ctx context.Context, done <-chan struct{}, host string) error {
	t.mu.Lock()
	if !t.taken {
		t.taken = true
		t.mu.Unlock()
		return nil
	}
	if t.lines == nil {
		t.lines = make(map[string][]chan struct{})
	}
	mine := make(chan struct{})
	if len(t.lines[host]) == 0 {
		t.hosts = append(t.hosts, host)
	}
	t.lines[host] = append(t.lines[host], mine)
	t.mu.Unlock()

	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	case <-done:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if at := slices.Index(t.lines[host], mine); at >= 0 {
		t.setLocked(host, slices.Delete(t.lines[host], at, at+1))
	} else {
		t.leaveLocked() // it came after all
	}
	return errNotIn
}

// setLocked makes line those that wait for a host.
func (t *door) setLocked(host string, line []chan struct{}) {
	if len(line) > 0 {
		t.lines[host] = line
		return
	}
	delete(t.lines, host)
	t.hosts = slices.DeleteFunc(t.hosts, func(h string) bool { return h == host })
}

// leave lets the next in.
func (t *door) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveLocked()
}

func (t *door) leaveLocked() {
	if len(t.hosts) == 0 {
		t.taken = false
		return
	}
	host := t.hosts[0]
	t.hosts = append(t.hosts[1:], host)
	line := t.lines[host]
	close(line[0])
	t.setLocked(host, line[1:])
}
