package group

import (
	"time"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// A seat is what a consumer group has of a member in memory only: its alarms.
type seat struct {
	expiry deadline // its session
	revoke deadline // set while it is to give partitions back, or to join or sync by the classic protocol
}

// A deadline is an alarm that takes a member out when it rings. It is the step that does
// so, too.
type deadline struct {
	coordinator.Alarm
	c      *consumerGroup
	id     string // the member's
	reason string
}

func newSeat(c *consumerGroup, id string) *seat {
	s := &seat{
		expiry: deadline{c: c, id: id, reason: "its session expired"},
		revoke: deadline{c: c, id: id, reason: "it did not do its part of a rebalance in time"},
	}
	s.expiry.Ringer, s.revoke.Ringer = &s.expiry, &s.revoke
	return s
}

// stopLocked stops the alarms of a seat.
func (s *seat) stopLocked(in *shard) {
	in.StopLocked(&s.expiry.Alarm)
	in.StopLocked(&s.revoke.Alarm)
}

// RingLocked implements coordinator.Ringer.
func (l *deadline) RingLocked(time.Time) { l.againLocked() }

// againLocked takes the member out unless it went, or came back in time after all.
func (l *deadline) againLocked() {
	if l.c.members[l.id] != nil && !l.IsSet() && l.c.currentLocked() {
		l.c.stepLocked(l)
	}
}

func (l *deadline) fail(protocol.Code) {}

func (l *deadline) on(d *draft) func(error) {
	c := l.c
	if d.member(l.id) == nil {
		return func(error) {}
	}
	c.shard.Log.Info("member is out", "group", c.group.id, "member", l.id, "reason", l.reason)
	after := d.take(l.id)
	return func(err error) {
		if err != nil && c.seats[l.id] != nil {
			c.shard.SetLocked(&l.Alarm, c.shard.Now().Add(time.Second))
		}
		after(err)
	}
}

// touchLocked begins a member's session anew.
func (c *consumerGroup) touchLocked(id string) {
	m := c.members[id]
	if m == nil {
		return
	}
	seat := c.seats[id]
	if seat == nil {
		seat = newSeat(c, id)
		c.seats[id] = seat
	}
	session := c.shard.c.groupSettings(c.group.id).SessionTimeout
	if m.classic != nil {
		session = time.Duration(m.classic.session) * time.Millisecond
	}
	c.shard.SetLocked(&seat.expiry.Alarm, c.shard.Now().Add(session))
}

// revokeLocked gives a member its rebalance timeout to do what it has to.
func (c *consumerGroup) revokeLocked(id string) {
	timeout := time.Duration(c.members[id].timeout) * time.Millisecond
	if timeout <= 0 {
		timeout = 5 * time.Minute
	}
	c.shard.SetLocked(&c.seats[id].revoke.Alarm, c.shard.Now().Add(timeout))
}

// mergeLocked makes a draft the state, and brings seats in line with it.
func (c *consumerGroup) mergeLocked(d *draft) {
	for id, m := range d.members {
		if old := c.members[id]; old != nil {
			c.chargeLocked(old.client.Host, -old.cost())
		}
		if m != nil {
			c.chargeLocked(m.client.Host, m.cost())
		}
	}
	c.consumerState.merge(&d.consumerState)
	c.seatLocked(d)
	if c.size == 0 {
		c.since = c.shard.Now()
	}
}

// seatLocked brings seats in line with the members that d has changed.
func (c *consumerGroup) seatLocked(d *draft) {
	for id, m := range d.members {
		seat := c.seats[id]
		switch {
		case m == nil && seat != nil:
			seat.stopLocked(c.shard)
			delete(c.seats, id)
			continue
		case m == nil:
			continue
		case seat == nil:
			c.touchLocked(id)
			seat = c.seats[id]
		}
		switch {
		case m.classic != nil: // its joins and syncs set it
		case m.state != memberUnrevoked:
			c.shard.StopLocked(&seat.revoke.Alarm)
		case !seat.revoke.IsSet():
			c.revokeLocked(id)
		}
	}
}
