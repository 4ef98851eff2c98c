package load

import (
	"math/rand/v2"
	"strconv"
	"time"
)

// A value is JSON of a plan's RecordBytes: first the stamp, different in every
// record, then fields as an application writes them, from a pool of some
// megabytes made once. So it takes one copy and 33 digits to make one, and a
// batch compresses like real data, seven times or so, where constant bytes would
// compress a thousand times and random ones not at all.
//
//	{"at":1767225600123456,"id":"3f9a01c7-0002-000000012345","type":"order.shipped","user":…
const (
	// MinStamped is the smallest value with room for a stamp, in bytes. Smaller
	// ones are pieces of text.
	MinStamped = 64

	stampBytes = len(`{"at":1767225600123456,"id":"3f9a01c7-0002-000000012345",`)
	poolBytes  = 4 << 20 // of values: four times what fits into the largest usual batch
)

// A Stamp says which record of which run a value is, and when it was to be sent.
type Stamp struct {
	At       time.Time // in microseconds
	Run      uint32    // Plan.Run
	Producer int
	Sequence int64 // of the producer's records, from 0, the warm-up's included
}

// ReadStamp reads the stamp of a value that load made.
func ReadStamp(value []byte) (Stamp, bool) {
	if len(value) < MinStamped || string(value[:6]) != `{"at":` || string(value[22:29]) != `,"id":"` ||
		value[37] != '-' || value[42] != '-' || string(value[55:57]) != `",` {
		return Stamp{}, false
	}
	at, ok1 := readDigits(value[6:22])
	run, err := strconv.ParseUint(string(value[29:37]), 16, 32)
	producer, ok2 := readDigits(value[38:42])
	sequence, ok3 := readDigits(value[43:55])
	if !ok1 || err != nil || !ok2 || !ok3 {
		return Stamp{}, false
	}
	return Stamp{time.UnixMicro(at), uint32(run), int(producer), sequence}, true
}

func readDigits(b []byte) (int64, bool) {
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func randomRun() uint32 { return rand.Uint32() }

// payloads is a pool of values, all of one size and one seed.
type payloads struct {
	size  int
	run   uint32
	count int
	pool  []byte // count values, one behind the other
}

func newPayloads(plan Plan) *payloads {
	p := &payloads{size: plan.RecordBytes, run: plan.Run, count: max(1, poolBytes/plan.RecordBytes)}
	p.pool = make([]byte, 0, p.size*p.count+1024)
	w := &writer{rand.New(rand.NewPCG(plan.Seed, 0)), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()}
	for i := range p.count {
		p.pool = w.value(p.pool, (i+1)*p.size)
	}
	return p
}

// A source makes the values of one producer.
type source struct {
	*payloads
	at     int // the next of the pool
	prefix [stampBytes]byte
}

// source returns a producer's source. Each begins elsewhere in the pool.
func (p *payloads) source(producer int) *source {
	s := &source{payloads: p, at: int(uint64(producer) * 7919 % uint64(p.count))}
	copy(s.prefix[:], `{"at":0000000000000000,"id":"00000000-0000-000000000000",`)
	for i := range 8 {
		s.prefix[29+i] = "0123456789abcdef"[p.run>>(28-4*i)&15]
	}
	digits(s.prefix[38:42], uint64(producer))
	return s
}

// fill writes the producer's record n, to be sent at the given moment, over b,
// which is of the plan's size.
func (s *source) fill(b []byte, at time.Time, n int64) {
	copy(b, s.pool[s.at*s.size:][:s.size])
	if s.at++; s.at == s.count {
		s.at = 0
	}
	if s.size >= MinStamped {
		copy(b, s.prefix[:])
		digits(b[6:22], uint64(at.UnixMicro()))
		digits(b[43:55], uint64(n))
	}
}

// A writer writes values as an imaginary shop would: names from short lists,
// the first of them most often, numbers that differ, times that go on.
type writer struct {
	*rand.Rand
	clock int64 // ms since 1970
}

var (
	events   = []string{"order.placed", "order.paid", "order.shipped", "order.returned", "cart.changed", "item.viewed", "user.login", "stock.low"}
	cities   = []string{"Vienna", "Lisbon", "Osaka", "Nairobi", "Toronto", "Lima", "Oslo", "Hanoi", "Quito", "Perth", "Accra", "Denver", "Leeds", "Turin", "Lyon", "Gdansk"}
	goods    = []string{"espresso", "kettle", "notebook", "lamp", "bicycle bell", "rain coat", "field guide", "tea pot", "tripod", "violin string", "paper clip", "sun hat"}
	agents   = []string{"Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X)", "okhttp/4.12.0", "curl/8.5.0"}
	statuses = []string{"ok", "pending", "retry", "failed"}
	words    = []string{"the", "parcel", "was", "left", "with", "a", "neighbour", "at", "noon", "please", "ring", "twice", "and", "wait", "for", "new", "address", "gift", "blue", "box"}
)

// one picks an element, one near the beginning more often.
func (w *writer) one(list []string) string {
	return list[int(w.Float64()*w.Float64()*float64(len(list)))]
}

// value appends one value to b, which then has n bytes.
func (w *writer) value(b []byte, n int) []byte {
	begin := len(b)
	w.clock += w.Int64N(40)
	number := func(name string, n int64) {
		b = append(b, name...)
		b = strconv.AppendInt(b, n, 10)
	}
	word := func(name, s string) {
		b = append(b, name...)
		b = append(b, '"')
		b = append(b, s...)
		b = append(b, '"')
	}
	b = append(b, `{"at":0000000000000000,"id":"00000000-0000-000000000000"`...)
	// room reports whether n more bytes and the end of the object fit.
	room := func(more int) bool { return n-len(b) >= more+len(`,"n":""}`) }
	if room(28) {
		word(`,"type":`, w.one(events))
	}
	if room(20) {
		number(`,"user":`, 10_000+w.Int64N(40_000))
	}
	if room(20) {
		word(`,"city":`, w.one(cities))
	}
	if room(24) {
		number(`,"time":`, w.clock)
	}
	if room(22) {
		word(`,"status":`, w.one(statuses))
	}
	if room(80) {
		word(`,"agent":`, w.one(agents))
	}
	if room(50) {
		b = append(b, `,"position":[`...)
		b = strconv.AppendFloat(b, float64(w.IntN(360_000)-180_000)/1000, 'f', 3, 64)
		number(",", w.Int64N(90))
		b = append(b, ']')
	}
	if room(110) {
		b = append(b, `,"items":[`...)
		for first := true; room(92) && len(b)-begin < 16<<10; first = false {
			if !first {
				b = append(b, ',')
			}
			word(`{"item":`, w.one(goods))
			number(`,"sku":`, 100_000+w.Int64N(900_000))
			number(`,"quantity":`, 1+w.Int64N(4))
			number(`,"cents":`, 95+50*w.Int64N(400))
			b = append(b, `,"discount":null}`...)
		}
		b = append(b, ']')
	}
	// The rest is prose, cut where the value ends; a value that is too small for its
	// end is cut anywhere.
	if n-len(b) >= len(`,"n":""}`) {
		b = append(b, `,"n":"`...)
		for n-len(b) > len(`"}`) {
			b = append(b, w.one(words)...)
			b = append(b, ' ')
		}
		b = append(b[:n-len(`"}`)], `"}`...)
	}
	for len(b) < n {
		b = append(b, ' ')
	}
	return b[:n]
}
