package partition

import (
	"errors"
	"math"
	"millrace/segment/record/recordtest"
	"reflect"
	"runtime"
	"testing"
)

// KIP-98: what an idempotent producer may send next.
func TestProducerSequences(t *testing.T) {
	type sent struct {
		epoch    int16
		sequence int32
		count    int
	}
	tests := []struct {
		name   string
		before []sent
		now    sent
		want   error
	}{
		{"any sequence from a producer that is not known", nil, sent{0, 42, 1}, nil},
		{"the next sequence", []sent{{0, 0, 3}}, sent{0, 3, 1}, nil},
		{"a gap", []sent{{0, 0, 3}}, sent{0, 4, 1}, ErrSequence},
		{"a sequence that is gone", []sent{{0, 0, 3}}, sent{0, 1, 1}, ErrSequence},
		{"a new epoch from 0", []sent{{0, 0, 3}}, sent{1, 0, 1}, nil},
		{"a new epoch from elsewhere", []sent{{0, 0, 3}}, sent{1, 3, 1}, ErrSequence},
		{"an old epoch", []sent{{2, 0, 3}}, sent{1, 3, 1}, ErrProducerFenced},
		{"sequences wrap", []sent{{0, math.MaxInt32 - 1, 2}}, sent{0, 0, 1}, nil},
		{"sequences wrap within a batch", []sent{{0, math.MaxInt32, 2}}, sent{0, 1, 1}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ps := producers{}
			offset := int64(0)
			for i, s := range tt.before {
				ps.apply(recordtest.Sequenced(7, s.epoch, s.sequence, s.count, offset), uint64(i), 0, maxProducers)
				offset += int64(s.count)
			}
			p := ps[7]
			if p == nil {
				p = &producer{epoch: tt.now.epoch}
			}
			err := p.check(recordtest.Sequenced(7, tt.now.epoch, tt.now.sequence, tt.now.count, 0))
			if !errors.Is(err, tt.want) {
				t.Fatalf("check said %v, want %v", err, tt.want)
			}
		})
	}
}

func TestProducerLastFiveBatchesAreRecognised(t *testing.T) {
	ps := producers{}
	for i := range int32(7) {
		ps.apply(recordtest.Sequenced(7, 0, 2*i, 2, int64(100+2*i)), uint64(i), 0, maxProducers)
	}
	for i := range int32(7) {
		s, found := ps[7].find(recordtest.Sequenced(7, 0, 2*i, 2, 0))
		if want := i >= 2; found != want {
			t.Errorf("batch %d found: %v, want %v", i, found, want)
		}
		if found && s.resolve() != int64(100+2*i) {
			t.Errorf("batch %d is at offset %d, want %d", i, s.resolve(), 100+2*i)
		}
	}
	if _, found := ps[7].find(recordtest.Sequenced(7, 0, 12, 1, 0)); found {
		t.Error("a batch with another length was taken for the one that was sent")
	}
	if _, found := ps[7].find(recordtest.Sequenced(7, 1, 12, 2, 0)); found {
		t.Error("a batch of another epoch was taken for the one that was sent")
	}
}

// A producer is remembered for producer.id.expiration.ms after its last batch, and
// is in no snapshot afterwards.
func TestProducersAreForgottenByTime(t *testing.T) {
	ps := producers{}
	ps.apply(recordtest.Sequenced(1, 0, 0, 1, 0), 1, 1000, maxProducers)
	ps.apply(recordtest.Sequenced(2, 0, 0, 1, 1), 2, 1500, maxProducers)
	ps.apply(recordtest.Sequenced(1, 0, 1, 1, 2), 3, 2000, maxProducers)
	if n := ps.expire(1500); n != 0 || len(ps) != 2 {
		t.Fatalf("%d forgotten", n)
	}
	if n := ps.expire(1501); n != 1 || ps[1] == nil || ps[2] != nil {
		t.Fatalf("%d forgotten, left %v", n, ps)
	}
	// What a snapshot brings counts as seen when it is read.
	again, err := decodeProducers(ps.encode(nil), 9000)
	if err != nil || len(again) != 1 {
		t.Fatal(again, err)
	}
	if n := again.expire(9000); n != 0 {
		t.Error("forgotten with the restart")
	}
	if n := again.expire(9001); n != 1 {
		t.Error("kept for ever")
	}
}

// When there are fewer places than producers, as when a node is crowded, the
// oldest make room.
func TestACrowdedPartitionForgetsItsOldestProducers(t *testing.T) {
	ps := producers{}
	for i := range 100 {
		ps.apply(recordtest.Sequenced(int64(i), 0, 0, 1, int64(i)), uint64(i), 0, 1000)
	}
	if forgot := ps.apply(recordtest.Sequenced(100, 0, 0, 1, 100), 100, 0, 16); forgot != 87 || len(ps) != 14 || ps[86] != nil || ps[87] == nil {
		t.Errorf("%d forgotten, %d left", forgot, len(ps))
	}
}

// The bound of a partition in bytes is what the comment at maxProducers says.
func TestProducersTakeWhatIsSaid(t *testing.T) {
	for batches, most := range map[int]uint64{1: 9 << 20, 5: 18 << 20} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC() // what lay in pools goes with the second
		runtime.ReadMemStats(&before)
		ps := producers{}
		for i := range maxProducers {
			for j := range batches {
				ps.apply(recordtest.Sequenced(int64(i), 0, int32(j), 1, int64(i)), uint64(i), 0, maxProducers)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := after.HeapAlloc - before.HeapAlloc; grown > most || grown < most/4 {
			t.Errorf("%d producers of %d batches take %d bytes", len(ps), batches, grown)
		}
		runtime.KeepAlive(ps)
	}
}

func TestProducersOldestAreForgottenAlikeEverywhere(t *testing.T) {
	ps := producers{}
	for i := range maxProducers + 1 {
		ps.apply(recordtest.Sequenced(int64(i), 0, 0, 1, int64(i)), uint64(i), 0, maxProducers)
	}
	if len(ps) > maxProducers {
		t.Fatalf("%d producers are remembered, the limit is %d", len(ps), maxProducers)
	}
	if ps[0] != nil || ps[maxProducers] == nil {
		t.Fatal("not the oldest were forgotten")
	}
}

func TestProducersSurviveTheirEncoding(t *testing.T) {
	ps := producers{}
	for id := range int64(3) {
		for i := range int32(3) {
			ps.apply(recordtest.Sequenced(id, int16(id), i, 1, int64(i)), uint64(i), 0, maxProducers)
		}
	}
	p := ps.encode(nil)
	got, err := decodeProducers(p, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(ps) {
		t.Fatalf("%d producers, want %d", len(got), len(ps))
	}
	for id := range ps {
		if got[id].epoch != ps[id].epoch || !reflect.DeepEqual(got[id].batches, ps[id].batches) {
			t.Errorf("producer %d: %+v, want %+v", id, got[id], ps[id])
		}
	}
	for n := range p {
		if _, err := decodeProducers(p[:n], 0); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for whole", n, len(p))
		}
	}
}

func FuzzProducers(f *testing.F) {
	ps := producers{}
	ps.apply(recordtest.Sequenced(1, 0, 0, 1, 5), 9, 0, maxProducers)
	f.Add(ps.encode(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		ps, err := decodeProducers(p, 0)
		if err != nil {
			return
		}
		if again, err := decodeProducers(ps.encode(nil), 0); err != nil || len(again) != len(ps) {
			t.Fatalf("what was decoded does not survive: %v", err)
		}
	})
}
