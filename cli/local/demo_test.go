package local

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The demo is worth something only if it would notice.
func TestTheDemoNoticesEveryKindOfLoss(t *testing.T) {
	var want []flight
	var all []*kgo.Record
	for i := range 12 {
		f := flight{key: fmt.Sprint("k", i%4), value: fmt.Sprint("v", i), time: time.UnixMilli(int64(i)), partition: int32(i % 2), offset: int64(i / 2)}
		want = append(want, f)
		all = append(all, &kgo.Record{Partition: f.partition, Offset: f.offset, Key: []byte(f.key), Value: []byte(f.value), Timestamp: f.time})
	}
	if keys, err := compare(want, all); err != nil || keys != 4 {
		t.Fatalf("%d keys, %v", keys, err)
	}
	with := func(i int, change func(r *kgo.Record)) []*kgo.Record {
		got := slices.Clone(all)
		r := *got[i]
		change(&r)
		got[i] = &r
		return got
	}
	for _, test := range []struct {
		want string
		got  []*kgo.Record
	}{
		{"1 lost", slices.Delete(slices.Clone(all), 5, 6)},
		{"12 lost", nil},
		{"1 changed", with(5, func(r *kgo.Record) { r.Value = []byte("x") })},
		{"1 changed", with(5, func(r *kgo.Record) { r.Key = nil })},
		{"1 changed", with(5, func(r *kgo.Record) { r.Timestamp = r.Timestamp.Add(time.Millisecond) })},
		{"1 twice", append(slices.Clone(all), all[11])},
		{"1 never acknowledged", append(slices.Clone(all), &kgo.Record{Partition: 0, Offset: 6})},
		{"2 changed", func() []*kgo.Record { // two records of one key have changed places
			got := slices.Clone(all)
			a, b := *got[3], *got[7]
			a.Offset, b.Offset = b.Offset, a.Offset
			got[3], got[7] = &b, &a
			return got
		}()},
	} {
		if _, err := compare(want, test.got); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
	// The acknowledgements themselves may be out of order for a key.
	disordered := slices.Clone(want)
	disordered[3], disordered[7] = disordered[7], disordered[3]
	if _, err := compare(disordered, all); err == nil || !strings.Contains(err.Error(), "1 out of order") {
		t.Errorf("%v, want 1 out of order", err)
	}
}

func TestAReplayFromATimeBeginsAtTheFirstRecordThatYoung(t *testing.T) {
	at := func(ms int64, partition int32, offset int64) flight {
		return flight{time: time.UnixMilli(ms), partition: partition, offset: offset}
	}
	flights := []flight{at(1, 0, 0), at(5, 0, 1), at(2, 0, 2), at(6, 0, 3), at(1, 1, 0), at(2, 1, 1), at(9, 2, 0)}
	got := flightsSince(flights, time.UnixMilli(5))
	want := []flight{at(5, 0, 1), at(2, 0, 2), at(6, 0, 3), at(9, 2, 0)}
	if !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestFlightsAreTwentyThousandWithTheirKeysAndTimes(t *testing.T) {
	flights, err := readFlights()
	if err != nil || len(flights) != 20_000 {
		t.Fatalf("%d flights, %v", len(flights), err)
	}
	if f := flights[0]; f.key != "DTW" || !f.time.Equal(time.Date(2001, 1, 1, 0, 47, 0, 0, time.UTC)) {
		t.Errorf("the first is %+v", f)
	}
}
