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
	stop   time.Time     // no record from then on; zero: no end
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
	if plan.Duration > 0 {
		p.stop = begin.Add(plan.WarmUp + plan.Duration)
	}
	p.period = max(1, time.Duration(p.exact))
	return p
}

// next waits for the moment of record n, counted from 0 and including the
// warm-up, and returns it: the zero time without a schedule. A moment that has
// passed is not waited for, nor does it move the others. false: there is no such
// record, or ctx ended.
func (p *pacer) next(ctx context.Context, n int64) (time.Time, bool) {
	if p.period == 0 {
		return time.Time{}, true
	}
	at := p.moment(n)
	if !p.stop.IsZero() && !at.Before(p.stop) {
		return at, false
	}
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

// due counts the records from n on that have a moment before the end.
func (p *pacer) due(n int64) (count int64) {
	if p.period == 0 || p.stop.IsZero() {
		return 0
	}
	for p.moment(n + count).Before(p.stop) {
		count++
	}
	return count
}

// nap sleeps for a short time. Tests in virtual time replace it.
var nap = sleep
