package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// What a latency may be, in microseconds; what lies outside counts as the
// nearest of the two.
const (
	lowest  = 1
	highest = int64(10 * time.Minute / time.Microsecond)
	figures = 3 // significant digits
)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(lowest, highest, figures) }

// A Meter records what one goroutine sees, for a Result to be made of. Each
// producer and each receiver has its own, so that nobody waits for another: its
// lock is only ever shared with the collector, which comes once a second. Its
// methods may be called from several goroutines all the same.
type Meter struct {
	collector *collector
	run       uint32  // whose records these are
	ledger    *Ledger // what has come, nil: nobody asks

	mu    sync.Mutex
	now   *piece   // of the second that is going on; nil before the first
	ended []*piece // of seconds before, not yet collected
}

// A piece is what one meter saw in one second.
type piece struct {
	second    int // from the end of the warm-up
	records   int64
	bytes     int64
	errors    int64
	latencies *hdrhistogram.Histogram // µs; nil: none
	last      time.Duration           // from the end of the warm-up to the last record
	first     error                   // that occurred in it
}

// Got counts records that were received just now, and bytes, the size of their
// keys and values.
func (m *Meter) Got(records, bytes int64) {
	m.add(time.Now(), records, bytes, -1)
}

// GotRecord counts one record, and its latency if its value bears a Stamp of
// this run: one that bears none, or another run's, is left out. It returns
// whether it was counted.
func (m *Meter) GotRecord(key, value []byte) bool {
	now := time.Now()
	stamp, ok := ReadStamp(value)
	if !ok || stamp.Run != m.run || m.ledger != nil && !m.ledger.Take(stamp) {
		return false
	}
	// By the monotonic clock, which nobody sets while the run goes on.
	start := m.collector.start
	if at := stamp.At.Sub(start.Round(0)); at >= 0 {
		m.add(now, 1, int64(len(key)+len(value)), now.Sub(start.Add(at)))
	}
	return true
}

// Failed counts an error.
func (m *Meter) Failed(err error) { m.failed(time.Now(), err) }

// add counts records. A latency below 0 is none. What happened in the warm-up is
// left out.
func (m *Meter) add(now time.Time, records, bytes int64, latency time.Duration) {
	since := now.Sub(m.collector.start)
	if since < 0 {
		return
	}
	m.mu.Lock()
	p := m.pieceLocked(since)
	p.records += records
	p.bytes += bytes
	p.last = max(p.last, since)
	if latency >= 0 {
		if p.latencies == nil {
			p.latencies = newHistogram()
		}
		p.latencies.RecordValue(min(max(int64(latency/time.Microsecond), lowest), highest))
	}
	m.mu.Unlock()
}

func (m *Meter) failed(now time.Time, err error) {
	since := now.Sub(m.collector.start)
	if since < 0 {
		return
	}
	m.mu.Lock()
	p := m.pieceLocked(since)
	p.errors++
	if p.first == nil {
		p.first = err
	}
	m.mu.Unlock()
}

// pieceLocked returns the piece that something belongs to that happened so long
// after the warm-up.
func (m *Meter) pieceLocked(since time.Duration) *piece {
	second := int(since / time.Second)
	// Another goroutine may have been a moment faster: what happened at the end of
	// the last second then counts for this one.
	if m.now == nil || second > m.now.second {
		if m.now != nil {
			m.ended = append(m.ended, m.now)
		}
		m.now = &piece{second: second}
	}
	return m.now
}

// take returns the pieces of the seconds before the given one.
func (m *Meter) take(second int) []*piece {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now != nil && m.now.second < second {
		m.ended = append(m.ended, m.now)
		m.now = nil
	}
	ended := m.ended
	m.ended = nil
	return ended
}

// A collector puts together what the meters of a run saw.
type collector struct {
	start time.Time // of what counts: the end of the warm-up

	mu     sync.Mutex
	meters []*Meter
	open   map[int]*piece // by second: some meters' pieces may be missing
	closed []Second       // complete seconds, in order and without a gap
	total  piece          // of everything in closed
}

// meter returns a new meter of the run.
func (c *collector) meter() *Meter {
	m := &Meter{collector: c}
	c.mu.Lock()
	c.meters = append(c.meters, m)
	c.mu.Unlock()
	return m
}

// collect takes what the meters saw up to now, and closes the seconds that are over.
func (c *collector) collect(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := now.Sub(c.start)
	if since < 0 {
		return
	}
	c.collectLocked(int(since / time.Second))
}

// collectLocked closes the seconds before the given one.
func (c *collector) collectLocked(second int) {
	if c.open == nil {
		c.open = make(map[int]*piece)
	}
	for _, m := range c.meters {
		for _, p := range m.take(second) {
			// A meter that was read late has nothing to say about seconds already closed.
			p.second = max(p.second, len(c.closed))
			if o := c.open[p.second]; o != nil {
				o.merge(p)
			} else {
				c.open[p.second] = p
			}
		}
	}
	for s := len(c.closed); s < second; s++ {
		p := c.open[s]
		delete(c.open, s)
		if p == nil {
			p = &piece{second: s}
		}
		c.closed = append(c.closed, p.point())
		c.total.merge(p)
	}
}

// finish collects everything.
func (c *collector) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := -1
	for _, m := range c.meters {
		m.mu.Lock()
		if m.now != nil {
			last = max(last, m.now.second)
		}
		for _, p := range m.ended {
			last = max(last, p.second)
		}
		m.mu.Unlock()
	}
	for s := range c.open {
		last = max(last, s)
	}
	c.collectLocked(last + 1)
}

// merge adds what another piece saw to p.
func (p *piece) merge(other *piece) {
	p.records += other.records
	p.bytes += other.bytes
	p.errors += other.errors
	p.last = max(p.last, other.last)
	if p.first == nil {
		p.first = other.first
	}
	if other.latencies != nil {
		if p.latencies == nil {
			p.latencies = newHistogram()
		}
		p.latencies.Merge(other.latencies)
	}
}

// point is the piece as it stands in a Result's series.
func (p *piece) point() Second {
	s := Second{Second: p.second, Records: p.records, Bytes: p.bytes, Errors: p.errors}
	if p.latencies != nil && p.latencies.TotalCount() > 0 {
		v := p.latencies.ValueAtPercentiles([]float64{50, 99})
		s.P50, s.P99, s.Max = millis(v[50]), millis(v[99]), millis(p.latencies.Max())
	}
	return s
}

// millis turns microseconds into milliseconds.
func millis(us int64) float64 { return float64(us) / 1000 }

// A Progress is how far a run is.
type Progress struct {
	Elapsed time.Duration // since the end of the warm-up; negative before it
	Records int64         // counted so far, up to the last whole second
	Bytes   int64
	Errors  int64
	Last    Second // the last whole second

	Acknowledged int64 // EndToEnd: what the producers have heard of, the warm-up included
}

// A reporter collects a run's seconds while it goes on, and tells of them.
type reporter struct {
	collector *collector
	acked     *Ledger
	stop      chan struct{}
	stopped   sync.WaitGroup
}

func newReporter(c *collector) *reporter {
	return &reporter{collector: c, stop: make(chan struct{})}
}

// begin begins to collect, and to call tell with what there is; nil is told nothing.
func (r *reporter) begin(tell func(Progress)) {
	r.stopped.Go(func() { // the reporter: ends with the run
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				r.collector.collect(now)
				if tell != nil {
					p := r.collector.sofar(now)
					if r.acked != nil {
						p.Acknowledged = r.acked.Taken()
					}
					tell(p)
				}
			case <-r.stop:
				return
			}
		}
	})
}

func (r *reporter) end() {
	close(r.stop)
	r.stopped.Wait()
	r.collector.finish()
}

// sofar sums up the seconds that are over.
func (c *collector) sofar(now time.Time) Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := Progress{Elapsed: now.Sub(c.start), Records: c.total.records, Bytes: c.total.bytes, Errors: c.total.errors}
	if n := len(c.closed); n > 0 {
		p.Last = c.closed[n-1]
	}
	return p
}
