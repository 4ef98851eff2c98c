package server

import (
	"context"
	"sync"

	"millrace/replication"
)

// A claim is an answer that is true only of a leader: that there is nothing behind some
// offset, or where an epoch ends. A deposed leader that has not heard of it, for up to
// the lease, would tell a consumer to go back to where it knows the end, or to reset.
type claim struct {
	partition *replication.Partition
	epoch     int32      // in which the answer was found
	deny      func(code) // takes the answer back
}

// confirm asks a quorum of each claim's partition, of all at once, and takes back what
// was not found by a leader. The answers were found before, so what one of them says
// holds for everything that was acknowledged before the request came. A round over
// loopback takes some 50 µs (BenchmarkConfirm), and all who ask at one time share it;
// without a quorum it takes three seconds, and the leadership is about to end.
func confirm(ctx context.Context, claims []claim) {
	ask := func(c claim) code {
		epoch, err := c.partition.Confirm(ctx)
		switch {
		case err == nil && epoch == c.epoch:
			return none
		case err == nil || ctx.Err() != nil:
			return notLeaderOrFollower
		}
		return codeOf(err)
	}
	if len(claims) == 1 {
		if code := ask(claims[0]); code != none {
			claims[0].deny(code)
		}
		return
	}
	codes := make([]code, len(claims))
	var wait sync.WaitGroup
	for i, c := range claims {
		wait.Go(func() { codes[i] = ask(c) })
	}
	wait.Wait()
	for i, c := range claims {
		if codes[i] != none {
			c.deny(codes[i])
		}
	}
}
