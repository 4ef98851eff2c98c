package transport

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Raft takes any term that is higher than its own, for good, and a term is an int32 in
// Kafka's protocol: one message that names the last one there is would leave a group
// without an election for ever. So a group is told only of terms that elections can
// have made since it last heard of one.
//
// An election takes a vote on a disk and a turn of 150 ms, so maxJump, a million, is
// 43 hours of elections without a break that this node has missed. Beyond closeJump
// terms at once, which is a node that was away, a group takes one jump every jumpPace:
// a peer gone wrong needs 2,048 of them, more than five hours, to use up all
// terms. A group that has no term yet may be told of any up to half of them all;
// damage to it is a replica that is made again.
const (
	closeJump  = 1 << 10
	maxJump    = 1 << 20
	firstTerms = 1 << 30
	jumpPace   = 10 * time.Second
)

// jumps are when a group was last told of a term far above its own.
type jumps struct {
	last atomic.Int64 // since Transport.start; 0: never
}

// allow reports whether there may be another, at a time since Transport.start, and notes it.
func (j *jumps) allow(now time.Duration) bool {
	last := j.last.Load()
	if last != 0 && now-time.Duration(last) < jumpPace {
		return false
	}
	return j.last.CompareAndSwap(last, max(int64(now), 1))
}

// plausible returns nil if the group may be told of a term, which it may take for its own:
// of one far above that, this is the jump that it takes for a while.
func (p *Port) plausible(term uint64) error {
	far, err := p.reachable(term)
	if err != nil || !far {
		return err
	}
	if !p.jumps.allow(time.Since(p.t.start)) {
		return fmt.Errorf("%w: term %d is far above the group's, which has jumped just now", ErrBusy, term)
	}
	return nil
}

// reachable returns nil if elections can have reached a term, and whether it is a jump
// for the group. It is enough for a pre-vote, which Raft answers and keeps its term: the
// vote that follows needs the jump.
func (p *Port) reachable(term uint64) (jump bool, err error) {
	have, known := p.attached.term()
	if !known || term <= have+closeJump || have == 0 && term <= firstTerms {
		return false, nil
	}
	if have == 0 || term > have+maxJump {
		return false, malformedf("term: %d, far above %d, the group's here", term, have)
	}
	return true, nil
}
