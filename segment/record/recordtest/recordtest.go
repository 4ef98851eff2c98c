// Package recordtest makes record batches for tests. Only tests import it.
package recordtest

import (
	"time"

	"millrace/segment/record"
)

// Values returns a batch of records with these values, of now, as a plain producer sends
// it. It panics where there is none.
func Values(values ...string) record.Batch {
	records := make([]record.Record, len(values))
	for i, v := range values {
		records[i] = record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte(v)}
	}
	b, err := record.Build(record.None, records...)
	if err != nil {
		panic(err)
	}
	return b
}

// Sequenced returns a batch of count records as an idempotent producer sends it, stored at
// offset in epoch 1.
func Sequenced(id int64, epoch int16, sequence int32, count int, offset int64) record.Batch {
	builder := record.Builder{Producer: &record.Producer{ID: id, Epoch: epoch, Sequence: sequence}}
	for range count {
		builder.Append(record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte("v")})
	}
	b, err := builder.Batch()
	if err != nil {
		panic(err)
	}
	b.Assign(offset, 1)
	return b
}
