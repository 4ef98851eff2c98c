package group

import (
	"fmt"
	"sync/atomic"
	"testing"

	"millrace/server/protocol"
)

// BenchmarkCommit is an OffsetCommit from its request to its answer, by a journal that
// costs nothing: what remains is the coordinator.
func BenchmarkCommit(b *testing.B) {
	p := &journal{}
	c := p.takeOver(b, Config{})
	b.ReportAllocs()
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		group := fmt.Sprint("g", n.Add(1))
		for i := int64(0); pb.Next(); i++ {
			if code := simpleCommit(c, group, i); code != protocol.None {
				b.Errorf("code %d", code)
				return
			}
		}
	})
}

// BenchmarkHeartbeat is a Heartbeat of a member of a classic group, of which a thousand
// share the shard.
func BenchmarkHeartbeat(b *testing.B) {
	p := &journal{}
	c := p.takeOver(b, Config{Settings: set{InitialRebalanceDelay: -1}})
	members := make([]*reader, 1000)
	for i := range members {
		members[i] = newReader(c, fmt.Sprint("g", i))
		if _, code := members[i].enter(); code != protocol.None {
			b.Fatalf("code %d", code)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if code := members[i%len(members)].heartbeat(); code != protocol.None {
			b.Fatalf("code %d", code)
		}
	}
}
