package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol/protocoltest"
)

// holds is what all shares hold.
func (b *budget) holds() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for s := range b.shares {
		n += s.held
	}
	return n
}

// A holder is a share of a budget under test, with what became of it.
type holder struct {
	*share
	t      *testing.T
	name   string
	ctx    context.Context
	cancel context.CancelFunc
	got    chan error // what a take that waited said
	closed atomic.Bool
}

func (b *budget) holder(t *testing.T, name string) *holder {
	h := &holder{share: new(share), t: t, name: name, got: make(chan error, 1)}
	h.ctx, h.cancel = context.WithCancel(t.Context())
	b.join(h.share, h)
	return h
}

// Close implements io.Closer, for the budget.
func (h *holder) Close() error {
	h.closed.Store(true)
	h.cancel()
	h.share.leave()
	return nil
}

// asks begins a request and takes n bytes for it in the background.
func (h *holder) asks(n int) {
	h.begin()
	go func() {
		_, err := h.take(h.ctx, n, 30*time.Second)
		h.got <- err
	}()
}

// has fails the test unless what h asked for was given by now.
func (h *holder) has() {
	h.t.Helper()
	synctest.Wait()
	select {
	case err := <-h.got:
		if err != nil {
			h.t.Fatalf("%s: %v", h.name, err)
		}
	default:
		h.t.Fatalf("%s waits", h.name)
	}
}

// waits fails the test unless h is still waiting.
func (h *holder) waits() {
	h.t.Helper()
	synctest.Wait()
	select {
	case err := <-h.got:
		h.t.Fatalf("%s does not wait: %v", h.name, err)
	default:
	}
}

const mib = 1 << 20

// One client that holds everything and sends no more delays nobody who asks for
// a fair part.
func TestWhoeverAsksForAFairPartDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		slow := b.holder(t, "slow")
		slow.asks(24 * mib)
		slow.has()
		for i, fair := range []int{12, 8, 6, 4} {
			h := b.holder(t, fmt.Sprint("fair ", i))
			h.asks(fair * mib)
			h.has()
		}
		if n := b.holds(); n != (24+12+8+6+4)*mib {
			t.Errorf("%d bytes are held", n)
		}
	})
}

// However many come, what is held stays below a bound, and small requests find
// room below it.
func TestABudgetEndsAtFourTimesItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		var all []*holder
		for i := range 3000 {
			h := b.holder(t, fmt.Sprint(i))
			h.asks(64 << 10)
			synctest.Wait()
			h.asks(100 * mib / (i + 1))
			all = append(all, h)
		}
		synctest.Wait()
		if b.peak > maxOver*b.size+100*mib+64<<10 || b.peak < 3*b.size {
			t.Errorf("%d bytes were held at the most", b.peak)
		}
		for _, h := range all {
			h.cancel()
			<-h.got
			synctest.Wait()
			h.leave()
		}
		if b.held != 0 || b.large != 0 || len(b.queue) != 0 || b.beyond != nil {
			t.Errorf("left: held %d, large %d, %d waiting, beyond %v", b.held, b.large, len(b.queue), b.beyond)
		}
	})
}

// Each of those that come takes exactly its fair part, which nobody waits for: their sum
// grows without an end of its own.
func TestFairPartsEndAtFourTimesTheSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		var all []*holder
		for i := range 300 {
			h := b.holder(t, fmt.Sprint(i))
			h.asks(b.size / (i + 1))
			synctest.Wait()
			all = append(all, h)
		}
		held := b.held
		if b.beyond != nil {
			held += b.beyond.held
		}
		if b.held > maxOver*b.size || held < 3*b.size || len(b.queue) == 0 {
			t.Errorf("%d bytes are held of %d, %d requests wait", b.held, b.size, len(b.queue))
		}
		for _, h := range all {
			h.cancel()
			<-h.got
			synctest.Wait()
			h.leave()
		}
	})
}

// A request larger than all there is goes beyond it, one at a time, the oldest
// first, and takes nothing away from the others.
func TestTheOldestGoesBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		one, two, three := b.holder(t, "one"), b.holder(t, "two"), b.holder(t, "three")
		one.asks(30 * mib)
		one.has()
		two.asks(40 * mib)
		two.waits()
		three.asks(50 * mib)
		three.waits()
		for i := range 8 { // what is within size is not theirs to take
			h := b.holder(t, fmt.Sprint("other ", i))
			h.asks(3 * mib)
			h.has()
		}
		one.give(30 * mib)
		two.has()
		three.waits()
		two.give(40 * mib)
		three.has()
	})
}

// A client that takes a large answer at four times the pace that is asked of the
// patient is never late: what it has taken is known in steps that are small enough.
func TestAnAnswerThatIsTakenSlowlyIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		c := &connection{server: &Server{}, conn: here, ctx: t.Context()}
		gone := make(chan bool)
		go func() {
			defer close(gone)
			for p := make([]byte, 16<<10); ; time.Sleep(time.Second / 16) {
				if _, err := io.ReadFull(there, p); err != nil {
					return
				}
			}
		}()
		written := make(chan error)
		go func() { written <- c.write(make([]byte, 8*mib), nil, &c.share.client) }()
		for looks := 0; ; looks++ {
			select {
			case err := <-written:
				if err != nil || looks < 1000 {
					t.Errorf("%d looks, %v", looks, err)
				}
				here.Close()
				<-gone
				return
			case <-time.After(lateEvery):
			}
			if c.share.late(time.Now(), patient) {
				t.Errorf("late after %d bytes", c.share.client.moved.Load())
				here.Close()
			}
		}
	})
}

// Half a request waits for the rest of its memory with its age, not with its
// place in the queue.
func TestTheAgeIsThatOfTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		first := b.holder(t, "first")
		first.asks(6 * mib)
		first.has()
		beyond := b.holder(t, "beyond")
		beyond.asks(90 * mib)
		beyond.has()
		young := b.holder(t, "young")
		young.asks(25 * mib)
		young.waits()
		go func() { // the same request of first
			_, err := first.take(first.ctx, 25*mib, 30*time.Second)
			first.got <- err
		}()
		first.waits()
		beyond.give(90 * mib)
		first.has()
		young.waits()
	})
}

// What is counted beside a request that waits, an acknowledgement of a connection that
// goes on, does not let the request in.
func TestWhatIsAddedBesideLeavesARequestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		full, beyond, h := b.holder(t, "full"), b.holder(t, "beyond"), b.holder(t, "waits")
		full.asks(24 * mib)
		full.has()
		beyond.asks(90 * mib)
		beyond.has()
		h.asks(20 * mib)
		h.waits()
		h.add(100)
		h.waits()
		if n := b.holds(); n != 114*mib+100 {
			t.Errorf("%d bytes are held", n)
		}
		h.give(100)
		full.give(24 * mib)
		h.has()
		if n := b.holds(); n != 110*mib {
			t.Errorf("%d bytes are held in the end", n)
		}
	})
}

// The one beyond is closed when it trickles while others wait, and only then.
func TestATricklingRequestIsClosedWhenOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		slow := b.holder(t, "slow")
		slow.asks(64 * mib)
		slow.has()
		slow.client.begin(time.Now())
		for range 100 { // a byte every ten seconds
			time.Sleep(10 * time.Second)
			slow.client.moved.Add(1)
		}
		small := b.holder(t, "small")
		small.asks(100_000)
		small.has()
		if slow.closed.Load() {
			t.Fatal("closed, and nobody waits")
		}
		large := b.holder(t, "large")
		large.asks(30 * mib)
		time.Sleep(2 * lateEvery)
		large.has()
		if !slow.closed.Load() || !slow.slow.Load() {
			t.Error("the slow one is still there")
		}
	})
}

// A client that keeps the pace is not closed, whoever waits.
func TestARequestThatKeepsPaceIsNotClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		steady := b.holder(t, "steady")
		steady.asks(100 * mib)
		steady.has()
		steady.client.begin(time.Now())
		large := b.holder(t, "large")
		large.asks(30 * mib)
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			steady.client.moved.Add(5 * mib / 10)
		}
		steady.client.end()
		if steady.closed.Load() {
			t.Fatal("closed at 5 MiB/s")
		}
		steady.give(100 * mib)
		large.has()
	})
}

// Those who are late may hold half of it all together: the largest go, and of
// equals the newest.
func TestThoseWhoAreLateHoldHalfAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		var late []*holder
		for i, n := range []int{1, 1, 9, 6, 6, 6} {
			h := b.holder(t, fmt.Sprint("late ", i))
			if i < 5 {
				h.asks(n * mib)
				h.has()
			} else {
				h.begin()
				h.turn = 1000
				h.add(n * mib) // it was there already: an answer
			}
			h.client.begin(time.Now())
			late = append(late, h)
		}
		time.Sleep(2 * time.Second)
		b.holder(t, "other").add(1)
		synctest.Wait()
		for i, want := range []bool{false, false, true, false, true, true} {
			if late[i].closed.Load() != want {
				t.Errorf("late %d: closed %v, want %v", i, late[i].closed.Load(), want)
			}
		}
	})
}

// A Fetch that waits for records is answered when its memory is needed.
func TestAWaitingFetchIsHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		fetch := b.holder(t, "fetch")
		fetch.asks(90 * mib)
		fetch.has()
		fetch.idle.begin(time.Now())
		time.Sleep(time.Minute)
		h := b.holder(t, "large")
		h.asks(30 * mib)
		h.waits()
		time.Sleep(lateEvery)
		select {
		case <-fetch.hurried:
		default:
			t.Error("it goes on waiting")
		}
		if fetch.closed.Load() {
			t.Error("it was closed")
		}
		fetch.give(90 * mib)
		h.has()
	})
}

// When nearly nothing is left, a tenth of a second decides who is late: those who
// wait with a small request do not pay for a crowd that sends none.
func TestACrowdThatSendsNothingIsGoneSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		var crowd []*holder
		for i := range 900 {
			h := b.holder(t, fmt.Sprint(i))
			h.asks(60 << 10)
			synctest.Wait()
			h.client.begin(time.Now())
			crowd = append(crowd, h)
		}
		h := b.holder(t, "honest")
		h.asks(60 << 10)
		h.waits()
		time.Sleep(pressing(0).grace + 2*lateEvery)
		h.has()
		closed := 0
		for _, c := range crowd {
			if c.closed.Load() {
				closed++
			}
		}
		if closed < 500 || h.closed.Load() {
			t.Errorf("%d of the crowd were closed", closed)
		}
	})
}

// Where others wait for a fair part, who is late is a question of what they hold: on a
// line of 1 MB/s a frame of 2 MiB is through in two seconds, and one of 20 is not.
func TestAShortRequestMayBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		send := func(h *holder) { // 1 MB/s, until the test ends
			h.client.begin(time.Now())
			go func() {
				for range 100 {
					time.Sleep(10 * time.Millisecond)
					h.client.moved.Add(10_000)
				}
			}()
		}
		large := b.holder(t, "large")
		large.asks(20 * mib)
		large.has()
		send(large)
		var all []*holder
		for i := range 30 {
			h := b.holder(t, fmt.Sprint(i))
			h.asks(2 * mib)
			synctest.Wait()
			if h.held > 0 {
				send(h)
			}
			all = append(all, h)
		}
		var crowd []*holder
		for i := range 1200 { // of small requests, until one of them waits for its fair part
			h := b.holder(t, fmt.Sprint("small ", i))
			h.asks(60 << 10)
			synctest.Wait()
			if h.held > 0 {
				send(h)
			}
			crowd = append(crowd, h)
		}
		time.Sleep(time.Second / 2)
		if !large.closed.Load() {
			t.Error("who holds 20 MiB and sends 1 MB/s keeps the others waiting")
		}
		for _, h := range append(all, crowd...) {
			if h.closed.Load() {
				t.Fatalf("%s, who holds %d bytes, was closed", h.name, h.held)
			}
		}
		for _, h := range append(all, crowd...) {
			h.cancel()
		}
		time.Sleep(time.Second)
	})
}

// Many honest clients on lines of 100 KB/s wait for each other and are not closed.
func TestSlowClientsWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		var all []*holder
		for i := range 100 {
			h := b.holder(t, fmt.Sprint(i))
			all = append(all, h)
			go func() {
				h.begin()
				_, err := h.take(h.ctx, mib, 10*time.Minute)
				if err == nil {
					h.client.begin(time.Now())
					for range 105 {
						time.Sleep(100 * time.Millisecond)
						h.client.moved.Add(10_000)
					}
					h.client.end()
					h.give(mib)
				}
				h.got <- err
			}()
		}
		for _, h := range all {
			if err := <-h.got; err != nil || h.closed.Load() {
				t.Errorf("%s: closed %v, %v", h.name, h.closed.Load(), err)
			}
		}
	})
}

// Nothing keeps a tiny request waiting, and a crowd of small ones no larger one.
func TestACrowdOfSmallRequestsLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		for i := range 2000 {
			b.holder(t, fmt.Sprint(i)).asks(60 << 10)
		}
		synctest.Wait()
		for name, n := range map[string]int{"tiny": 4 << 10, "100 KB": 100_000, "1 MB": 1_000_000} {
			h := b.holder(t, name)
			h.asks(n)
			h.has()
		}
	})
}

// Who waits too long is told so, and leaves no trace.
func TestWaitingForMemoryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 24 * mib}
		working := b.holder(t, "working") // its client has done its part
		working.asks(90 * mib)
		working.has()
		h := b.holder(t, "large")
		h.asks(30 * mib)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if err := <-h.got; !errors.Is(err, errNoMemory) {
			t.Fatal(err)
		}
		if len(b.queue) != 0 || h.held != 0 || h.want != 0 || h.isBig {
			t.Errorf("%d wait; held %d, want %d", len(b.queue), h.held, h.want)
		}
	})
}

// One connection that sends 34 of 95 MiB and then a byte now and then delays
// nobody: not who produces 100 KB, and not who needs the place beyond the limit.
func TestATricklingConnectionDelaysNobody(t *testing.T) {
	t.Parallel()
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"max.message.bytes": fmt.Sprint(32 << 20)})
	slow := b.dial()
	slow.write(binary.BigEndian.AppendUint32(nil, 95<<20))
	slow.write(append(protocoltest.Frame(kmsg.Produce, 9, 0xff, 0xff), make([]byte, 34<<20)...))
	waitFor(t, "34 MiB to arrive", func() bool { return b.server.shared.budget.holds() >= 34<<20 })
	drip := func() { slow.conn.Write([]byte{0}) }
	drip()

	cl := b.client(kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	for i := range 50 {
		if err := cl.ProduceSync(testContext(t), kgo.StringRecord(strings.Repeat("x", 100_000))).FirstErr(); err != nil {
			t.Fatalf("record %d of 100 KB: %v", i, err)
		}
		drip()
	}
	if slow.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); b.server.Stats().Refused != 0 {
		t.Error("a connection was refused, and nobody needed its memory")
	}
	// 30 MiB have no other place than the one that the slow one is in.
	p := producedPartition(t, ask[*kmsg.ProduceResponse](b.dial(), produceRequest(13, "t", id, batchOf(t, 0, nil, strings.Repeat("y", 30<<20)))))
	if p.ErrorCode != 0 {
		t.Errorf("30 MiB: error %d", p.ErrorCode)
	}
	slow.closed()
}

// An honest client on a slow line gets a large request through, while others
// produce.
func TestALargeRequestOnASlowLineGetsThrough(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"max.message.bytes": fmt.Sprint(32 << 20)})
	cl := b.client(kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	w := b.dial()
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, produceRequest(13, "t", id, batchOf(t, 0, nil, strings.Repeat("y", 30<<20))), 1)
	for i := 0; len(frame) > 0; i++ { // 15 steps: others come between, not time
		n := min(len(frame), 2<<20+1)
		w.write(frame[:n])
		frame = frame[n:]
		if err := cl.ProduceSync(testContext(t), kgo.StringRecord(strings.Repeat("x", 100_000))).FirstErr(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	_, body, err := readResponse(w.conn)
	if err != nil {
		t.Fatal(err)
	}
	resp := produceRequest(13, "t", id).ResponseKind().(*kmsg.ProduceResponse)
	if err := resp.ReadFrom(body[1:]); err != nil || producedPartition(t, resp).ErrorCode != 0 {
		t.Errorf("%+v, %v", resp, err)
	}
}

// BenchmarkShare is what a request costs in the budget.
func BenchmarkShare(b *testing.B) {
	g := &budget{size: 24 * mib}
	b.RunParallel(func(p *testing.PB) {
		var s share
		g.join(&s, io.NopCloser(nil))
		defer s.leave()
		for p.Next() {
			s.begin()
			if _, err := s.take(context.Background(), 60<<10, time.Second); err != nil {
				b.Fatal(err)
			}
			s.give(60 << 10)
		}
	})
}
