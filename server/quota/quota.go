// Package quota says how fast a client may go, and for how long it must be left
// unread when it went faster: Kafka's quotas by user and by client id (KIP-13, KIP-55,
// KIP-124, KIP-599).
//
// Of all quotas that fit a client the most specific is in force, for each [Kind] by itself:
//
//	1  user and client id          one share for each client id of a user
//	2  user, default client id     the same
//	3  user                        one share for all of the user's clients
//	4  default user and client id  as 1
//	5  both defaults               as 1
//	6  default user                as 3
//	7  client id                   one share for all users of the id
//	8  default client id           as 7
//
// Who names no client id has only defaults for one; in Kafka nothing by client ids holds
// for it, so that a client escapes them by naming none.
//
// What is held is an average with a burst: what a client used drains at the rate of its
// quota, and it owes what is there beyond the burst. The burst of bytes and of time is
// half of what one window allows, quota.window.size.seconds, so that 30 seconds of a client
// that sends as fast as it can come to 30.5 times the rate, and a request. Kafka averages over ten windows and
// lets a client that was quiet have all ten at once, which over 30 seconds is a third too
// much. The burst of mutations is Kafka's, all windows.
//
// A share that has drained is the same as none, and so is forgotten.
package quota

import (
	"math"
	"sync"
	"time"
)

// A Kind is what a quota is of.
type Kind uint8

// The kinds of quotas. Amounts are in bytes, for Request in percent of one processor
// times seconds, and for Mutation in partitions.
const (
	Produce Kind = iota
	Consume
	Request
	Mutation
	kinds
)

// keys are Kafka's names.
var keys = [kinds]string{"producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate"}

// A Quota is how much of each kind, by Kafka's names and in a second, an entity may have.
type Quota struct {
	User, ClientID *string // nil: not part of the entity; "": the default
	Values         map[string]float64
}

// A Client is who uses something.
type Client struct{ User, ID string }

// A Table is the quotas of a cluster. It never changes.
type Table struct {
	rates [kinds]map[entity]float64
}

// An entity is a Quota's, as a key. has tells "" from nil.
type entity struct {
	Client
	has part
}

type part uint8

const (
	user part = 1 << iota
	client
)

// NewTable returns nil where there is nothing to hold anybody to.
func NewTable(quotas []Quota) *Table {
	var t *Table
	for _, q := range quotas {
		var e entity
		if q.User != nil {
			e.User, e.has = *q.User, user
		}
		if q.ClientID != nil {
			e.ID, e.has = *q.ClientID, e.has|client
		}
		if e.has == 0 {
			continue
		}
		for k, key := range keys {
			rate, ok := q.Values[key]
			if !ok {
				continue
			}
			if t == nil {
				t = new(Table)
			}
			if t.rates[k] == nil {
				t.rates[k] = make(map[entity]float64)
			}
			t.rates[k][e] = rate
		}
	}
	return t
}

// A share is what one quota holds together: all that comes under the same.
type share struct {
	entity
	kind Kind
}

// find returns the rate that is in force for a client, and the share it is of.
func (t *Table) find(kind Kind, c Client) (rate float64, s share, ok bool) {
	if t == nil || t.rates[kind] == nil {
		return 0, s, false
	}
	for _, level := range [...]struct {
		named entity
		of    part
	}{
		{entity{c, user | client}, user | client},
		{entity{Client{User: c.User}, user | client}, user | client},
		{entity{Client{User: c.User}, user}, user},
		{entity{Client{ID: c.ID}, user | client}, user | client},
		{entity{Client{}, user | client}, user | client},
		{entity{Client{}, user}, user},
		{entity{Client{ID: c.ID}, client}, client},
		{entity{Client{}, client}, client},
	} {
		if rate, ok = t.rates[kind][level.named]; !ok {
			continue
		}
		s.kind, s.has = kind, level.of
		if level.of&user != 0 {
			s.User = c.User
		}
		if level.of&client != 0 {
			s.ID = c.ID
		}
		return rate, s, true
	}
	return 0, s, false
}

// Windows say how much may come at once.
type Windows struct {
	Size            time.Duration // quota.window.size.seconds
	MutationSize    time.Duration // controller.quota.window.size.seconds
	MutationWindows int           // controller.quota.window.num
}

// burst is how long the rate may be used at once.
func (w *Windows) burst(kind Kind) float64 {
	if kind == Mutation {
		return w.MutationSize.Seconds() * float64(w.MutationWindows)
	}
	return w.Size.Seconds() / 2
}

// MaxThrottle is the longest that a client is told to wait. What it owes beyond that it
// still owes afterwards.
const MaxThrottle = 5 * time.Minute

const (
	// MaxShares bounds the shares that are remembered, 200 bytes each beside the names.
	// Whoever comes when so many have something to drain has one together with all others
	// that do.
	MaxShares = 50_000
	// firstSweep is how many there are when those that have drained are first looked for.
	firstSweep = 1000
)

// Usage remembers what clients have used lately. Its zero value is ready. It is safe for
// concurrent use; the clock is the caller's, and may not go backwards.
type Usage struct {
	mu      sync.Mutex
	used    map[share]*used
	sweepAt int
	swept   time.Time // last
}

// used is what is left of one share's use.
type used struct {
	amount float64
	at     time.Time
	empty  time.Time // when it will have drained
}

// Take notes that a client uses so much, and returns how long it must be left alone
// after it: zero within its quota.
func (u *Usage) Take(t *Table, w *Windows, now time.Time, kind Kind, c Client, amount float64) time.Duration {
	rate, s, ok := t.find(kind, c)
	if !ok {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return bounded(kind, w, u.takeLocked(s, rate, w, now, amount))
}

// TakeIfFree is Take unless the client owes something already: then nothing is noted and ok
// is false. So one that is within its quota may go beyond it once, however much it asks.
func (u *Usage) TakeIfFree(t *Table, w *Windows, now time.Time, kind Kind, c Client, amount float64) (wait time.Duration, ok bool) {
	rate, s, found := t.find(kind, c)
	if !found {
		return 0, true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if owed := u.takeLocked(s, rate, w, now, 0); owed > 0 {
		return bounded(kind, w, owed), false
	}
	return bounded(kind, w, u.takeLocked(s, rate, w, now, amount)), true
}

// Limited reports whether a client has a quota of a kind.
func (t *Table) Limited(kind Kind, c Client) bool {
	_, _, ok := t.find(kind, c)
	return ok
}

// Most is what a client may use of a kind at once. ok is false where there is no quota.
func (t *Table) Most(w *Windows, kind Kind, c Client) (most float64, ok bool) {
	rate, _, ok := t.find(kind, c)
	return rate * w.burst(kind), ok
}

// takeLocked returns the seconds until the share is within its burst.
func (u *Usage) takeLocked(s share, rate float64, w *Windows, now time.Time, amount float64) float64 {
	burst := rate * w.burst(s.kind)
	x := u.used[s]
	if x == nil {
		if amount == 0 {
			return 0
		}
		x = u.newLocked(s, now)
	}
	x.amount = max(0, x.amount-rate*max(0, now.Sub(x.at).Seconds())) + amount
	x.at = now
	x.empty = now.Add(seconds(x.amount / rate))
	return (x.amount - burst) / rate
}

func (u *Usage) newLocked(s share, now time.Time) *used {
	if u.used == nil {
		u.used, u.sweepAt = make(map[share]*used), firstSweep
	}
	// A sweep looks at all, so it comes when there are twice as many as after the last, or
	// once a second where there are as many as may be.
	if len(u.used) >= u.sweepAt && (u.sweepAt < MaxShares || now.Sub(u.swept) >= time.Second) {
		u.swept = now
		for s, x := range u.used {
			if !now.Before(x.empty) {
				delete(u.used, s)
			}
		}
		u.sweepAt = min(max(firstSweep, 2*len(u.used)), MaxShares)
	}
	if len(u.used) >= MaxShares {
		s.Client = Client{} // nobody's: a client has a user
		if x := u.used[s]; x != nil {
			return x
		}
	}
	x := &used{at: now}
	u.used[s] = x
	return x
}

// Shares is how many shares are remembered.
func (u *Usage) Shares() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.used)
}

// bounded rounds to milliseconds, which is what a client is told, upwards: after the wait
// nothing is owed. Kafka bounds the wait for time that was used by a window.
func bounded(kind Kind, w *Windows, owed float64) time.Duration {
	if owed <= 0 {
		return 0
	}
	most := MaxThrottle
	if kind == Request {
		most = w.Size
	}
	return min(seconds(math.Ceil(owed*1000-1e-6)/1000), most)
}

// seconds is a duration, or a very long one.
func seconds(s float64) time.Duration {
	return time.Duration(min(s, 1e9) * float64(time.Second))
}
