package group

import (
	"testing"
	"time"

	"millrace/server/protocol"
)

// A member whose connection has ended has half its session left; one that speaks
// again has lost nothing.
func TestMemberWhoseConnectionEndedIsFoundOutSooner(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a, b := newReader(c, "g"), newReader(c, "g")
		together(t, a, b)
		shards, _ := c.shards.Loaded()
		session := shards[0].groups["g"].members.(*classicGroup).members[b.id].session
		wantCode(t, "heartbeat of a", a.heartbeat(), protocol.None)
		wantCode(t, "heartbeat of b", b.heartbeat(), protocol.None)
		c.Disconnected("g", a.id)
		c.Disconnected("g", b.id)
		c.Disconnected("g", "nobody")
		c.Disconnected("none", b.id)
		time.Sleep(session / 3)
		wantCode(t, "heartbeat of a over another connection", a.heartbeat(), protocol.None)
		time.Sleep(session/2 - session/3 - time.Millisecond)
		wantCode(t, "heartbeat of a before b is given up", a.heartbeat(), protocol.None)
		time.Sleep(2 * time.Millisecond)
		wantCode(t, "heartbeat of a when b is given up", a.heartbeat(), protocol.RebalanceInProgress)
		wantCode(t, "heartbeat of b", b.heartbeat(), protocol.UnknownMemberID)
	})
}
