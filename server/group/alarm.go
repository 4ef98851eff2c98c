package group

import (
	"container/heap"
	"time"
)

// An alarm calls ring, once, with the shard's lock held, some time after at. Its
// zero value with ring set is ready for shard.setLocked. All alarms of a shard
// share one timer, so a member costs no goroutine.
type alarm struct {
	ring  func(now time.Time)
	at    time.Time
	place int // in the heap, from 1; 0: not set
}

// alarms is a heap, the earliest first.
type alarms []*alarm

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}
func (h *alarms) Push(x any) {
	a := x.(*alarm)
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

// setLocked sets a, or sets it anew, to ring at that time.
func (s *shard) setLocked(a *alarm, at time.Time) {
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

// stopLocked makes sure that a does not ring.
func (s *shard) stopLocked(a *alarm) {
	if a.place != 0 {
		heap.Remove(&s.alarms, a.place-1)
	}
}

// armLocked makes the timer go off no later than the first alarm. It may go off
// earlier: heartbeats move alarms away all the time, and then nothing needs to be
// done but to arm it again.
func (s *shard) armLocked() {
	if len(s.alarms) == 0 || s.unloaded {
		return
	}
	at := s.alarms[0].at
	if !s.wakeAt.IsZero() && !s.wakeAt.After(at) {
		return
	}
	s.wakeAt = at
	in := max(at.Sub(s.now()), 0)
	if s.timer == nil {
		s.timer = time.AfterFunc(in, s.wake)
	} else {
		s.timer.Reset(in)
	}
}

// wake is the timer's goroutine. It ends when every alarm that is due has rung.
func (s *shard) wake() {
	s.mu.Lock()
	defer s.leave()
	s.wakeAt = time.Time{}
	for !s.unloaded && len(s.alarms) > 0 {
		now := s.now()
		if s.alarms[0].at.After(now) {
			break
		}
		heap.Pop(&s.alarms).(*alarm).ring(now)
	}
	s.armLocked()
}
