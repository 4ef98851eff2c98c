package mux

import (
	"net/netip"
	"time"
)

// paces are how fast connections came, of all addresses and of those that have a rate of
// their own. A pace that has drained is the same as none and is forgotten.
type paces struct {
	all     pace
	of      map[netip.Addr]*pace
	sweepAt int // when so many are remembered, those that have drained are looked for
	swept   time.Time
}

// A pace is connections that drain at a rate.
type pace struct {
	level float64
	at    time.Time
	rate  float64 // by which it drained when it was last added to
}

const (
	firstSweep = 1024
	// maxPaces bounds the addresses remembered, 100 bytes each. Whoever comes when
	// so many have come within moments has one pace with all others that do.
	maxPaces = 65536
)

// now drains what has come up to now. More than what may come at once is not remembered,
// so that a rate that is lowered keeps nobody out for what came under a higher one.
func (p *pace) now(rate float64, now time.Time) float64 {
	return max(0, min(p.level, max(rate, 1))-rate*max(0, now.Sub(p.at).Seconds()))
}

// free says whether one more may come now. What one second allows, one at least, may come
// at once.
func (p *pace) free(rate float64, now time.Time) bool {
	return rate <= 0 || p.now(rate, now)+1 <= max(rate, 1)+1e-9
}

func (p *pace) take(rate float64, now time.Time) {
	if rate > 0 {
		p.level, p.at, p.rate = p.now(rate, now)+1, now, rate
	}
}

// find returns what an address's pace is kept under, which may be nothing yet: its own
// place, or where there is none left the one that it has with others. Room is looked for
// first, so that who shares does so only while as many are about.
func (p *paces) find(remote netip.Addr, now time.Time) (place netip.Addr, one *pace) {
	if one = p.of[remote]; one != nil {
		return remote, one
	}
	p.sweep(now)
	if len(p.of) >= maxPaces {
		remote = netip.Addr{}
	}
	return remote, p.of[remote]
}

// free says whether a connection may come now by both rates.
func (p *paces) free(remote netip.Addr, limits *Limits, now time.Time) bool {
	if !p.all.free(limits.Rate, now) {
		return false
	}
	if limits.RatePerIP <= 0 {
		return true
	}
	_, one := p.find(remote, now)
	return one == nil || one.free(limits.RatePerIP, now)
}

// take counts a connection that has come.
func (p *paces) take(remote netip.Addr, limits *Limits, now time.Time) {
	p.all.take(limits.Rate, now)
	if limits.RatePerIP <= 0 {
		return
	}
	place, one := p.find(remote, now)
	if one == nil {
		one = new(pace)
		p.of[place] = one
	}
	one.take(limits.RatePerIP, now)
}

// sweep forgets what has drained, when there is twice as much as after the last time, or
// once a second when there is as much as there may be.
func (p *paces) sweep(now time.Time) {
	if p.of == nil {
		p.of, p.sweepAt = make(map[netip.Addr]*pace), firstSweep
	}
	if len(p.of) < p.sweepAt || p.sweepAt >= maxPaces && now.Sub(p.swept) < time.Second {
		return
	}
	p.swept = now
	for remote, one := range p.of {
		if one.now(one.rate, now) == 0 {
			delete(p.of, remote)
		}
	}
	p.sweepAt = min(max(firstSweep, 2*len(p.of)), maxPaces)
}
