package coordinator

import (
	"time"
)

// A Ringer is what an alarm rings.
type Ringer interface {
	// RingLocked is called with the shard's lock held. The alarm is not set any more,
	// and may be set again.
	RingLocked(now time.Time)
}

// An Alarm rings its Ringer, once, at the time that it is set for or a little later. Its
// zero value with a Ringer is ready for Shard.SetLocked. All alarms of a shard share one
// timer, so one costs no goroutine. An unload stops them all.
type Alarm struct {
	Ringer Ringer

	at    time.Time
	place int // in the heap, from 1; 0: not set
}

// IsSet reports whether the alarm is going to ring.
func (a *Alarm) IsSet() bool { return a.place != 0 }

// At is when the alarm is to ring, if it is set.
func (a *Alarm) At() time.Time { return a.at }

// byTime orders alarms, the earliest first.
type byTime struct{}

func (byTime) Less(a, b *Alarm) bool { return a.at.Before(b.at) }
func (byTime) Place(a *Alarm) *int   { return &a.place }

// SetLocked sets a, or sets it anew, to ring at that time.
func (s *Shard) SetLocked(a *Alarm, at time.Time) {
	if s.unloaded {
		return
	}
	a.at = at
	s.alarms.Set(a)
	s.armLocked()
}

// StopLocked makes sure that a does not ring.
func (s *Shard) StopLocked(a *Alarm) { s.alarms.Remove(a) }

// AlarmsLocked is how many alarms are set.
func (s *Shard) AlarmsLocked() int { return s.alarms.Len() }

// forgetAlarmsLocked stops all of them.
func (s *Shard) forgetAlarmsLocked() {
	s.alarms.Clear()
	if s.timer != nil {
		s.timer.Stop()
	}
}

// armLocked makes the timer go off no later than the first alarm. It may go off
// earlier: heartbeats move alarms away all the time, and then nothing needs to be
// done but to arm it again.
func (s *Shard) armLocked() {
	if s.alarms.Len() == 0 || s.unloaded || s.waking {
		return
	}
	at := s.alarms.First().at
	if !s.wakeAt.IsZero() && !s.wakeAt.After(at) {
		return
	}
	s.wakeAt = at
	in := max(at.Sub(s.Now()), 0)
	if s.timer == nil {
		s.timer = s.cfg.Clock.AfterFunc(in, s.wake)
	} else {
		s.timer.Reset(in)
	}
}

// wake is the timer's goroutine. It ends when every alarm that is due has rung, and
// lets others have the lock between two.
func (s *Shard) wake() {
	for s.ring() {
	}
}

// ring rings the first alarm if it is due; false: it is not, and the timer is armed.
func (s *Shard) ring() bool {
	s.mu.Lock()
	defer s.Unlock()
	now := s.Now()
	if s.waking = s.alarms.Len() > 0 && !s.alarms.First().at.After(now); !s.waking {
		s.wakeAt = time.Time{}
		s.armLocked()
		return false
	}
	a := s.alarms.First()
	s.alarms.Remove(a)
	a.Ringer.RingLocked(now)
	return true
}
