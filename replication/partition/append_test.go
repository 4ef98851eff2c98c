package partition

import (
	"bytes"
	"sync"
	"testing"

	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// BenchmarkAppend has 64 batches of 1 KiB under way at a partition of one replica, each
// acknowledged when the log has synced it.
func BenchmarkAppend(b *testing.B) {
	p, _ := alone(b)
	batch := recordtest.Values(string(bytes.Repeat([]byte("x"), 1<<10)))
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	slots := make(chan struct{}, 64)
	var all sync.WaitGroup
	for range b.N {
		slots <- struct{}{}
		all.Add(1)
		one := record.Batch(bytes.Clone(batch))
		p.Append([]record.Batch{one}, told(func(_ Ack, err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
			all.Done()
		}))
	}
	all.Wait()
}
