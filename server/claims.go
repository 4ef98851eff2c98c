package server

import (
	"context"
	"sync"
	"time"

	"millrace/replication/partition"
	"millrace/server/protocol"
)

// A claim is an answer that is true only of a leader: that there is nothing behind some
// offset, or where an epoch ends. A deposed leader that has not heard of it, for up to
// the lease, would tell a consumer to go back to where it knows the end, or to reset.
type claim struct {
	partition *partition.Partition
	epoch     int32 // in which the answer was found
	answer    deniable
}

// A deniable answer can be taken back: then a code is in its place.
type deniable interface{ deny(code protocol.Code) }

// confirm asks a quorum of each claim's partition, of all at once, and takes back what
// was not found by a leader. The answers were found before, so what one of them says
// holds for everything that was acknowledged before the request came. A round over
// loopback takes some 50 µs (BenchmarkConfirm), and all who ask at one time share it;
// without a quorum it takes three seconds, and the leadership is about to end. Whoever
// is not heard of within confirmWait is taken for no leader.
func confirm(ctx context.Context, claims []claim) {
	confirmWithin(ctx, claims, (*partition.Partition).Confirm)
}

// confirmWithin is confirm, by any ask.
func confirmWithin(ctx context.Context, claims []claim, ask func(*partition.Partition, context.Context) (epoch int32, err error)) {
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	confirmBy(claims, func(p *partition.Partition) confirmed {
		epoch, err := ask(p, ctx)
		switch {
		case err == nil:
			return confirmed{epoch: epoch}
		case ctx.Err() != nil:
			return confirmed{code: protocol.NotLeaderOrFollower}
		}
		return confirmed{code: codeOf(err)}
	})
}

const (
	// confirmAtOnce is how many quorums one request asks at a time. A request may name
	// thousands of partitions, a round takes some 50 µs, and whoever asks takes a
	// goroutine here, one of the partition's and two of the transport's.
	confirmAtOnce = 64
	// confirmWait bounds all of a request's questions together: those behind the first
	// ones that nobody answers, for three seconds, are not to wait for as long again.
	confirmWait = 4 * time.Second
)

// confirmed is what a quorum says of a partition: who asked leads in epoch, or why that
// is not known.
type confirmed struct {
	epoch int32
	code  protocol.Code
}

// confirmBy asks once about each partition, however many claims there are of it:
// OffsetForLeaderEpoch may name one half a million times, and whoever asks takes a
// goroutine.
func confirmBy(claims []claim, ask func(*partition.Partition) confirmed) {
	if len(claims) == 0 {
		return
	}
	if len(claims) == 1 {
		claims[0].settle(ask(claims[0].partition))
		return
	}
	said := make(map[*partition.Partition]*confirmed)
	for _, c := range claims {
		said[c.partition] = new(confirmed)
	}
	todo := make(chan *partition.Partition, len(said))
	for p := range said {
		todo <- p
	}
	close(todo)
	var wait sync.WaitGroup
	for range min(len(said), confirmAtOnce) {
		wait.Go(func() {
			for p := range todo {
				*said[p] = ask(p)
			}
		})
	}
	wait.Wait()
	for _, c := range claims {
		c.settle(*said[c.partition])
	}
}

// settle denies the claim unless a quorum confirmed its epoch.
func (c claim) settle(said confirmed) {
	switch {
	case said.code != protocol.None:
		c.answer.deny(said.code)
	case said.epoch != c.epoch:
		c.answer.deny(protocol.NotLeaderOrFollower)
	}
}
