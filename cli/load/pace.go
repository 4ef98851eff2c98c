package load

import (
	"context"
	"time"
)

// A pacer knows the moments at which a producer sends. Producers take turns: of
// three at 300 records a second, each sends every 10 ms, 3.3 ms after another.
type pacer struct {
	begin  time.Time     // of the producer's first record
	period time.Duration // from one of its records to the next; 0: no schedule
	exact  float64       // the same in nanoseconds, unrounded
	timer  *time.Timer
}

func newPacer(begin time.Time, plan Plan, index int) *pacer {
	if plan.Rate == 0 {
		return &pacer{}
	}
	apart := float64(time.Second) / plan.Rate
	p := &pacer{
		begin: begin.Add(time.Duration(apart * float64(index))),
		exact: apart * float64(plan.Producers),
		timer: time.NewTimer(time.Hour),
	}
	p.period = max(1, time.Duration(p.exact))
	return p
}

// next waits for the moment of record n, counted from 0 and including the
// warm-up, and returns it: the zero time without a schedule. A moment that has
// passed is not waited for, nor does it move the others. false: ctx ended.
func (p *pacer) next(ctx context.Context, n int64) (time.Time, bool) {
	if p.period == 0 {
		return time.Time{}, true
	}
	at := p.moment(n)
	// The runtime's timers wake an idle process up to 1 ms late: the last bit is
	// slept by the kernel's.
	if long := time.Until(at) - 2*time.Millisecond; long > 0 {
		p.timer.Reset(long)
		select {
		case <-p.timer.C:
		case <-ctx.Done():
			return at, false
		}
	}
	for wait := time.Until(at); wait > 0; wait = time.Until(at) {
		nap(wait)
	}
	return at, ctx.Err() == nil
}

// moment is when record n is to be sent.
func (p *pacer) moment(n int64) time.Time {
	return p.begin.Add(time.Duration(float64(n) * p.exact))
}

// due counts the records from n on whose moment is before stop.
func (p *pacer) due(n int64, stop time.Time) int64 {
	if p.period == 0 {
		return 0
	}
	left := stop.Sub(p.moment(n))
	if left <= 0 {
		return 0
	}
	return int64((float64(left)-1)/p.exact) + 1
}

// nap sleeps for a short time. Tests in virtual time replace it.
var nap = sleep
