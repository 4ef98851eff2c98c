package transport

import "sync/atomic"

// Stats counts what happened since New.
type Stats struct {
	Dials, DialsFailed uint64 // connections tried, and those that did not come to be
	Refused            uint64 // connections we turned away in their handshake
	Malformed          uint64 // connections we closed because of bytes no peer of ours sends
	Invalid            uint64 // requests that break a rule, answered so
	Busy               uint64 // requests refused because a queue was full
	Expired            uint64 // requests that waited longer than their sender
	Panics             uint64 // contained
	Silent             uint64 // peers given up for their silence
	Ups, Downs         uint64 // events reported
	HeartbeatFrames    uint64 // sent
	Heartbeats         uint64 // sent in them
	Quiesced           uint64 // appends without entries that were not sent at once, see quiesce
	Appends            uint64 // with entries, sent
}

// counters are Stats, counting.
type counters struct {
	Dials, DialsFailed, Refused, Malformed, Invalid, Busy, Expired, Panics, Silent, Ups, Downs atomic.Uint64
	HeartbeatFrames, Heartbeats, Quiesced, Appends                                             atomic.Uint64
}

// Stats returns the counters as they are now.
func (t *Transport) Stats() Stats {
	c := &t.stats
	return Stats{
		Dials: c.Dials.Load(), DialsFailed: c.DialsFailed.Load(), Refused: c.Refused.Load(),
		Malformed: c.Malformed.Load(), Invalid: c.Invalid.Load(), Busy: c.Busy.Load(),
		Expired: c.Expired.Load(), Panics: c.Panics.Load(), Silent: c.Silent.Load(),
		Ups: c.Ups.Load(), Downs: c.Downs.Load(), HeartbeatFrames: c.HeartbeatFrames.Load(),
		Heartbeats: c.Heartbeats.Load(), Quiesced: c.Quiesced.Load(), Appends: c.Appends.Load(),
	}
}

// refused counts a request that was answered with a code.
func (c *counters) refused(code uint8) {
	switch code {
	case codeBusy:
		c.Busy.Add(1)
	case codeInvalid:
		c.Invalid.Add(1)
	case codeExpired:
		c.Expired.Add(1)
	}
}
