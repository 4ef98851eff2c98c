//go:build faults

package faults

import (
	"sync"
	"time"
)

// A pulse knows how long a client went without an answer, by partition. The zero
// value counts nothing until start is called. It is safe for concurrent use.
type pulse struct {
	mu      sync.Mutex
	last    map[int32]time.Time
	longest map[int32]time.Duration
}

// start forgets what was and counts from now, for the partitions below n.
func (p *pulse) start(n int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.longest = make(map[int32]time.Time), make(map[int32]time.Duration)
	for i := range n {
		p.last[i] = time.Now()
	}
}

// beat says that the client has had an answer of a partition.
func (p *pulse) beat(partition int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if before, ok := p.last[partition]; ok {
		now := time.Now()
		p.longest[partition] = max(p.longest[partition], now.Sub(before))
		p.last[partition] = now
	}
}

// silent returns the partitions without an answer since a moment.
func (p *pulse) silent(since time.Time) (partitions []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for partition, at := range p.last {
		if at.Before(since) {
			partitions = append(partitions, partition)
		}
	}
	return partitions
}

// worst returns the longest time without an answer of any one partition, the one
// that lasts among them.
func (p *pulse) worst() (worst time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for partition, at := range p.last {
		worst = max(worst, p.longest[partition], time.Since(at))
	}
	return worst
}
