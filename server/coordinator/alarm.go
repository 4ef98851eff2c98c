package coordinator

import (
	"container/heap"
	"time"
)

// An Alarm calls Ring, once, with the shard's lock held, some time after the time it
// is set for. Its zero value with Ring set is ready for Shard.SetLocked. All alarms of
// a shard share one timer, so one costs no goroutine. An unload stops them all.
type Alarm struct {
	Ring func(now time.Time)

	at    time.Time
	place int // in the heap, from 1; 0: not set
}

// IsSet reports whether the alarm is going to ring.
func (a *Alarm) IsSet() bool { return a.place != 0 }

// At is when the alarm is to ring, if it is set.
func (a *Alarm) At() time.Time { return a.at }

// alarms is a heap, the earliest first.
type alarms []*Alarm

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}
func (h *alarms) Push(x any) {
	a := x.(*Alarm)
	*h = append(*h, a)
	a.place = len(*h)
}
func (h *alarms) Pop() any {
	old := *h
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	a.place = 0
	return a
}

// SetLocked sets a, or sets it anew, to ring at that time.
func (s *Shard) SetLocked(a *Alarm, at time.Time) {
	if s.unloaded {
		return
	}
	a.at = at
	if a.place == 0 {
		heap.Push(&s.alarms, a)
	} else {
		heap.Fix(&s.alarms, a.place-1)
	}
	s.armLocked()
}

// StopLocked makes sure that a does not ring.
func (s *Shard) StopLocked(a *Alarm) {
	if a.place != 0 {
		heap.Remove(&s.alarms, a.place-1)
	}
}

// AlarmsLocked is how many alarms are set.
func (s *Shard) AlarmsLocked() int { return len(s.alarms) }

// forgetAlarmsLocked stops all of them.
func (s *Shard) forgetAlarmsLocked() {
	for _, a := range s.alarms {
		a.place = 0
	}
	s.alarms = nil
	if s.timer != nil {
		s.timer.Stop()
	}
}

// armLocked makes the timer go off no later than the first alarm. It may go off
// earlier: heartbeats move alarms away all the time, and then nothing needs to be
// done but to arm it again.
func (s *Shard) armLocked() {
	if len(s.alarms) == 0 || s.unloaded || s.waking {
		return
	}
	at := s.alarms[0].at
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
	if s.waking = len(s.alarms) > 0 && !s.alarms[0].at.After(now); !s.waking {
		s.wakeAt = time.Time{}
		s.armLocked()
		return false
	}
	heap.Pop(&s.alarms).(*Alarm).Ring(now)
	return true
}
