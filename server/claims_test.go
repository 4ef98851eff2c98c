package server

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/replication/partition"
	"millrace/server/protocol"
)

// A request may name one partition half a million times; a quorum is asked once
// about each, and every answer that it does not confirm is taken back.
func TestAQuorumIsAskedOnceAboutAPartition(t *testing.T) {
	sure, moved, deposed := new(partition.Partition), new(partition.Partition), new(partition.Partition)
	says := map[*partition.Partition]confirmed{
		sure: {epoch: 2}, moved: {epoch: 3}, deposed: {code: protocol.KafkaStorageError},
	}
	want := map[*partition.Partition]protocol.Code{sure: protocol.None, moved: protocol.NotLeaderOrFollower, deposed: protocol.KafkaStorageError}
	for _, each := range []int{1, 1000} {
		for p := range says {
			got := make([]protocol.Code, each)
			var claims []claim
			for i := range each {
				claims = append(claims, claim{p, 2, denier(func(c protocol.Code) { got[i] = c })})
			}
			// Beside claims of others, where there are several.
			if each > 1 {
				for other := range says {
					if other != p {
						claims = append(claims, claim{other, 2, denier(func(protocol.Code) {})})
					}
				}
			}
			var asked atomic.Int32
			confirmBy(claims, func(p *partition.Partition) confirmed {
				asked.Add(1)
				return says[p]
			})
			if n, want := int(asked.Load()), min(each, len(says)); n != want {
				t.Errorf("%d claims of %d partitions were asked about %d times", len(claims), want, n)
			}
			for i := range got {
				if got[i] != want[p] {
					t.Fatalf("claim %d of %d: code %d, want %d", i, each, got[i], want[p])
				}
			}
		}
	}
}

// However many partitions a request names, so many quorums are asked at a time.
func TestFewQuorumsAreAskedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		var claims []claim
		for range n {
			claims = append(claims, claim{new(partition.Partition), 2, denier(func(protocol.Code) { t.Error("denied") })})
		}
		var asks, most, asked atomic.Int32
		confirmBy(claims, func(*partition.Partition) confirmed {
			for now := asks.Add(1); ; {
				was := most.Load()
				if was >= now || most.CompareAndSwap(was, now) {
					break
				}
			}
			time.Sleep(time.Millisecond)
			asks.Add(-1)
			asked.Add(1)
			return confirmed{epoch: 2}
		})
		if most.Load() != confirmAtOnce || asked.Load() != n {
			t.Errorf("%d of %d were asked, %d at a time, want %d", asked.Load(), n, most.Load(), confirmAtOnce)
		}
	})
}

// A denier is told that an answer was taken back.
type denier func(protocol.Code)

func (d denier) deny(c protocol.Code) { d(c) }

// Of partitions whose quorums do not answer, which each takes three seconds to find out,
// more than are asked at a time do not keep a client waiting for as many times three
// seconds. Whoever was not heard of in time is taken for no leader: clients look for
// another, and ask that.
func TestQuorumsThatDoNotAnswerAreGivenUpTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 3 * confirmAtOnce
		denied := 0
		var claims []claim
		for range n {
			claims = append(claims, claim{new(partition.Partition), 2, denier(func(c protocol.Code) {
				if denied++; c != protocol.NotLeaderOrFollower {
					t.Errorf("denied with %d, want %d", c, protocol.NotLeaderOrFollower)
				}
			})})
		}
		began := time.Now()
		confirmWithin(t.Context(), claims, func(_ *partition.Partition, ctx context.Context) (int32, error) {
			select {
			case <-time.After(3 * time.Second):
				return -1, partition.ErrNotLeader
			case <-ctx.Done():
				return -1, ctx.Err()
			}
		})
		if took := time.Since(began); took != confirmWait || denied != n {
			t.Errorf("%d of %d were denied after %v, want all after %v", denied, n, took, confirmWait)
		}
	})
}
