//go:build conformance

package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// results is what the cells of this run came to.
var results = matrix{cells: map[[2]string]string{}, reasons: map[string][]string{}, versions: map[string]string{}}

// A matrix collects results by client and ability. It is safe for concurrent use.
type matrix struct {
	mu       sync.Mutex
	cells    map[[2]string]string
	versions map[string]string
	order    []string            // reasons, as they came
	reasons  map[string][]string // the cells that a reason explains
	slowest  time.Duration
	slowAt   string
}

func (m *matrix) version(client, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.versions[client] = version
}

func (m *matrix) lacks(client, ability, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cells[[2]string{client, ability}] = "-"
	reason = client + ": " + reason
	if len(m.reasons[reason]) == 0 {
		m.order = append(m.order, reason)
	}
	m.reasons[reason] = append(m.reasons[reason], ability)
}

func (m *matrix) ran(client, ability string, passed bool, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cells[[2]string{client, ability}] = "ok"
	if !passed {
		m.cells[[2]string{client, ability}] = "FAIL"
	}
	if took > m.slowest {
		m.slowest, m.slowAt = took, client+"/"+ability
	}
}

// print shows the matrix, a line an ability and a column a client, and below it
// why cells are empty. A cell that was not asked for is a dot.
func (m *matrix) print() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.cells) == 0 {
		return
	}
	var shown []*client
	for _, c := range clients {
		if slices.ContainsFunc(abilities, func(a ability) bool { return m.cells[[2]string{c.name, a.name}] != "" }) {
			shown = append(shown, c)
		}
	}
	line := func(first string, cell func(*client) string) {
		var b strings.Builder
		fmt.Fprintf(&b, "figure %-24s", first)
		for _, c := range shown {
			fmt.Fprintf(&b, " %-*s", max(len(c.name), len(m.versions[c.name])), cell(c))
		}
		fmt.Println(strings.TrimRight(b.String(), " "))
	}
	counts := map[string]int{}
	line("", func(c *client) string { return c.name })
	line("", func(c *client) string { return m.versions[c.name] })
	for _, a := range abilities {
		line(a.name, func(c *client) string {
			result := m.cells[[2]string{c.name, a.name}]
			if result == "" {
				result = "."
			}
			counts[result]++
			return result
		})
	}
	for _, reason := range m.order {
		fmt.Printf("figure - %s (%s)\n", reason, strings.Join(m.reasons[reason], ", "))
	}
	fmt.Printf("figure conformance: %d cells ok, %d failed, %d not to be had; the slowest, %s, took %v\n",
		counts["ok"], counts["FAIL"], counts["-"], m.slowAt, m.slowest.Round(100*time.Millisecond))
}
