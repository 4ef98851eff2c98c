package load

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// In virtual time nothing may sleep in the kernel.
func init() { nap = time.Sleep }

// A carrier is a Sender in memory: it asks what becomes of each record.
type carrier struct {
	// fate says how long a record takes, and how it ends; n counts from 0.
	fate func(n int, r *Record) (time.Duration, error)

	mu   sync.Mutex
	n    int
	open sync.WaitGroup
}

func (c *carrier) Send(_ context.Context, r *Record) {
	c.mu.Lock()
	n := c.n
	c.n++
	c.mu.Unlock()
	after, err := c.fate(n, r)
	if after < 0 {
		return // never heard of again
	}
	c.open.Add(1)
	time.AfterFunc(after, func() {
		r.Done(err)
		c.open.Done()
	})
}

func (c *carrier) Flush(ctx context.Context) error {
	c.open.Wait()
	return nil
}

// steady takes the same time for every record.
func steady(d time.Duration) *carrier {
	return &carrier{fate: func(int, *Record) (time.Duration, error) { return d, nil }}
}

func produce(t *testing.T, ctx context.Context, plan Plan, senders ...Sender) *Result {
	t.Helper()
	r, err := Produce(ctx, plan, senders, nil)
	if err != nil {
		t.Fatal(err)
	}
	addsUp(t, r)
	return r
}

// addsUp fails unless a result's parts make its whole.
func addsUp(t *testing.T, r *Result) {
	t.Helper()
	var records, bytes, errs int64
	for i, s := range r.Series {
		if s.Second != i {
			t.Errorf("second %d stands at %d", s.Second, i)
		}
		records, bytes, errs = records+s.Records, bytes+s.Bytes, errs+s.Errors
	}
	if records != r.Records || bytes != r.Bytes || errs > r.Errors {
		t.Errorf("the series has %d records, %d bytes, %d errors; the result %d, %d, %d", records, bytes, errs, r.Records, r.Bytes, r.Errors)
	}
	for i := 1; i < len(r.Percentiles); i++ {
		if a, b := r.Percentiles[i-1], r.Percentiles[i]; a.Percentile >= b.Percentile || a.Millis > b.Millis {
			t.Errorf("the curve goes from %v to %v", a, b)
		}
	}
}

// near reports whether a latency is what it should be, as exactly as it is kept.
func near(got, want float64) bool { return got >= want*0.998 && got <= want*1.002 }

// A sender that stalls for a second once holds up a thousand records, and each of
// them says so.
func TestAStallIsSeenByEveryRecordItHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &carrier{fate: func(n int, _ *Record) (time.Duration, error) {
			if n == 2000 {
				time.Sleep(time.Second)
			}
			return time.Millisecond, nil
		}}
		r := produce(t, t.Context(), Plan{Rate: 1000, Duration: 5 * time.Second}, s)
		if r.Records != 5000 || r.Unsent != 0 {
			t.Errorf("%d records, %d not sent; the schedule has 5,000", r.Records, r.Unsent)
		}
		// Of 5,000 records 1,000 waited, from 1 s down to 1 ms: so a tenth of all waited
		// half a second or more.
		l := r.Latency
		if !near(l.P50, 1) || !near(l.P90, 501) || !near(l.P99, 951) || !near(l.P999, 996) || !near(l.Max, 1001) {
			t.Errorf("%+v", *l)
		}
		// They come in the second after it: its own has only the record before.
		if s := r.Series[2]; s.Records != 1 || !near(s.Max, 1) {
			t.Errorf("the second of the stall: %+v", s)
		}
		if s := r.Series[3]; s.Records < 1900 || !near(s.Max, 1001) {
			t.Errorf("the second after the stall: %+v", s)
		}
	})
}

// The same without a rate: only the record that stalled says so.
func TestWithoutARateLatencyIsThatOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &carrier{fate: func(n int, _ *Record) (time.Duration, error) {
			if n == 200 {
				time.Sleep(time.Second)
			}
			time.Sleep(time.Millisecond)
			return 0, nil
		}}
		r := produce(t, t.Context(), Plan{Records: 1000}, s)
		if l := r.Latency; !near(l.P50, 1) || !near(l.P99, 1) || !near(l.Max, 1001) || r.Records != 1000 {
			t.Errorf("%d records, %+v", r.Records, *l)
		}
		if !near(r.Seconds, 2) || !near(r.RecordsPerSecond, 500) {
			t.Errorf("%v s, %v records/s", r.Seconds, r.RecordsPerSecond)
		}
	})
}

func TestAScheduleThatIsNotKeptIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := produce(t, t.Context(), Plan{Rate: 1000, Duration: 995 * time.Millisecond, InFlight: 1}, steady(10*time.Millisecond))
		// One at a time, 10 ms each: of the 995 moments of the schedule 895 find nobody.
		if r.Records != 100 || r.Unsent != 895 {
			t.Errorf("%d records, %d not sent", r.Records, r.Unsent)
		}
		if !near(r.Latency.Max, 901) {
			t.Errorf("the last record waited %v ms, and was 901 ms late", r.Latency.Max)
		}
	})
}

func TestProducersTakeTurnsAndShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex
		var moments []time.Duration
		from := make(map[int]int)
		s := &carrier{fate: func(_ int, r *Record) (time.Duration, error) {
			mu.Lock()
			defer mu.Unlock()
			moments = append(moments, time.Since(begin))
			stamp, ok := ReadStamp(r.Value)
			if !ok || !stamp.At.Equal(time.Now().Truncate(time.Microsecond)) || stamp.Sequence != int64(from[stamp.Producer]) {
				t.Errorf("%.60s at %v", r.Value, time.Since(begin))
			}
			from[stamp.Producer]++
			return 0, nil
		}}
		r := produce(t, t.Context(), Plan{Producers: 3, Records: 100, Rate: 300}, s)
		if r.Records != 100 || from[0] != 34 || from[1] != 33 || from[2] != 33 {
			t.Errorf("%d records, by producer %v", r.Records, from)
		}
		for i, at := range moments {
			if want := time.Duration(i) * time.Second / 300; (at - want).Abs() > time.Microsecond {
				t.Errorf("record %d at %v, want %v", i, at, want)
			}
		}
	})
}

func TestTheWarmUpDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &carrier{fate: func(n int, _ *Record) (time.Duration, error) {
			if n < 150 { // all of the warm-up is slow, and fails
				return 30 * time.Millisecond, errors.New("cold")
			}
			return time.Millisecond, nil
		}}
		r := produce(t, t.Context(), Plan{Rate: 100, Records: 400, WarmUp: 1500 * time.Millisecond}, s)
		if r.Records != 400 || r.Errors != 0 || r.FirstError != "" || !near(r.Latency.Max, 1) || s.n != 550 {
			t.Errorf("%d records, %d errors (%s), max %v, %d sent", r.Records, r.Errors, r.FirstError, r.Latency.Max, s.n)
		}
		if len(r.Series) != 4 || r.Series[0].Records != 100 || !near(r.Seconds, 3.991) {
			t.Errorf("%v s, series %+v", r.Seconds, r.Series)
		}
	})
}

// Each producer has a histogram of its own for each second; the result is as if
// there had been one for everything.
func TestHistogramsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Ten producers, each with a latency of its own: 1 to 10 ms; one fails now and then.
		var senders []Sender
		for i := range 10 {
			senders = append(senders, &carrier{fate: func(n int, _ *Record) (time.Duration, error) {
				if i == 9 && n%10 == 9 {
					return time.Hour, errors.New("lost an hour")
				}
				return time.Duration(i+1) * time.Millisecond, nil
			}})
		}
		var told []Progress
		r, err := Produce(t.Context(), Plan{Producers: 10, Rate: 1000, Records: 5000, RecordBytes: 100}, senders, func(p Progress) { told = append(told, p) })
		if err != nil {
			t.Fatal(err)
		}
		addsUp(t, r)
		if r.Records != 4950 || r.Errors != 50 || r.FirstError != "lost an hour" || r.Bytes != 495_000 {
			t.Errorf("%d records, %d errors, %d bytes", r.Records, r.Errors, r.Bytes)
		}
		l := r.Latency
		if !near(l.P50, 5) || !near(l.P99, 10) || !near(l.Max, 10) || !near(l.Mean, (500*45+450*10)/4950.0) {
			t.Errorf("%+v", *l)
		}
		if s := r.Series[2]; s.Records != 990 || !near(s.P50, 5) || !near(s.Max, 10) {
			t.Errorf("second 2: %+v", s)
		}
		if len(told) == 0 || told[len(told)-1].Records != 4950 {
			t.Errorf("told %d times", len(told))
		}
	})
}

func TestAnInterruptedRunSaysWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2495*time.Millisecond)
		defer cancel()
		r := produce(t, ctx, Plan{Rate: 100, Duration: time.Hour}, steady(time.Second))
		// What was in flight is waited for.
		if !r.Interrupted || r.Records != 250 || r.Unacknowledged != 0 || r.Unsent != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func TestRecordsNobodyHeardOfAreNotSuccesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &carrier{fate: func(n int, _ *Record) (time.Duration, error) {
			if n%10 == 3 {
				return -1, nil
			}
			return time.Millisecond, nil
		}}
		r := produce(t, t.Context(), Plan{Rate: 100, Records: 100}, s)
		if r.Records != 90 || r.Unacknowledged != 10 || r.Errors != 0 {
			t.Errorf("%d records, %d unacknowledged", r.Records, r.Unacknowledged)
		}
	})
}

func TestConsumeCountsWhatReceiversGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receiver := ReceiverFunc(func(ctx context.Context, m *Meter) error {
			for range 25 {
				time.Sleep(100 * time.Millisecond)
				m.Got(1000, 1<<20)
			}
			return nil
		})
		broken := ReceiverFunc(func(ctx context.Context, m *Meter) error { return errors.New("no such topic") })
		r, err := Consume(t.Context(), Plan{Topic: "t"}, []Receiver{receiver, receiver, broken}, nil)
		if err != nil {
			t.Fatal(err)
		}
		addsUp(t, r)
		if r.Records != 50_000 || !near(r.MiBPerSecond, 20) || r.Errors != 1 || r.FirstError != "no such topic" || r.Latency != nil || r.Plan.Consumers != 3 {
			t.Errorf("%+v", r)
		}
	})
}

// A pipe is a carrier whose records come back out of it.
type pipe struct {
	carrier
	out chan []byte
}

func TestEndToEndAccountsForEveryRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{out: make(chan []byte, 10_000)}
		p.fate = func(n int, r *Record) (time.Duration, error) {
			value := append([]byte(nil), r.Value...)
			switch {
			case n == 700: // acknowledged and lost
				return time.Millisecond, nil
			case n == 800: // delivered twice
				time.AfterFunc(3*time.Millisecond, func() { p.out <- value })
			case n == 900: // refused, and delivered all the same
				time.AfterFunc(3*time.Millisecond, func() { p.out <- value })
				return time.Millisecond, errors.New("refused")
			}
			time.AfterFunc(4*time.Millisecond, func() { p.out <- value })
			return time.Millisecond, nil
		}
		p.out <- []byte("something that was there before")
		receiver := ReceiverFunc(func(ctx context.Context, m *Meter) error {
			for {
				select {
				case value := <-p.out:
					m.GotRecord(nil, value)
				case <-ctx.Done():
					return nil
				}
			}
		})
		received, sent, err := EndToEnd(t.Context(), Plan{Producers: 4, Rate: 1000, Duration: 2 * time.Second, WarmUp: time.Second}, []Sender{p}, []Receiver{receiver}, nil)
		if err != nil {
			t.Fatal(err)
		}
		addsUp(t, received)
		addsUp(t, sent)
		if received.Lost != 1 || received.Duplicates != 1 {
			t.Errorf("%d lost, %d duplicates; want one of each", received.Lost, received.Duplicates)
		}
		// All three happened in the warm-up: they count for what was lost, not for how fast it was.
		if received.Records != 2000 || sent.Records != 2000 || !near(received.Latency.P50, 4) || !near(received.Latency.Max, 4) || !near(sent.Latency.Max, 1) {
			t.Errorf("%d received, %d sent, %+v", received.Records, sent.Records, *received.Latency)
		}
		if received.Kind != "e2e" || sent.Kind != "produce" {
			t.Errorf("%s, %s", received.Kind, sent.Kind)
		}
	})
}

func TestImpossiblePlans(t *testing.T) {
	for name, plan := range map[string]Plan{
		"producers":    {Producers: -1},
		"size":         {RecordBytes: MaxRecordBytes + 1},
		"rate":         {Rate: -1},
		"keys":         {Keys: MaxKeys + 1},
		"distribution": {Keys: 1, Distribution: "gauss"},
		"records":      {Records: -1},
		"duration":     {Duration: -1},
	} {
		if _, err := Produce(t.Context(), plan, []Sender{steady(0)}, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, _, err := EndToEnd(t.Context(), Plan{RecordBytes: MinStamped - 1}, []Sender{steady(0)}, []Receiver{nil}, nil); err == nil {
		t.Error("end to end without room for a stamp: no error")
	}
}

// null acknowledges at once: what is left is the cost of the load itself.
type null struct{}

func (null) Send(_ context.Context, r *Record) { r.Done(nil) }
func (null) Flush(context.Context) error       { return nil }

func BenchmarkProduce(b *testing.B) {
	for _, test := range []struct {
		name string
		plan Plan
	}{
		{"100B", Plan{RecordBytes: 100}},
		{"1KiB", Plan{}},
		{"1KiB-zipf", Plan{Keys: 10_000, Distribution: Zipf}},
	} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			test.plan.Records = int64(b.N)
			Produce(context.Background(), test.plan, []Sender{null{}}, nil)
		})
	}
}
