package bufpool

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

func TestGetReturnsWhatIsLargeEnoughAndHardlyLarger(t *testing.T) {
	for n := 1; n <= 2*largest; n += 1 + n/37 {
		up := RoundUp(n)
		if up < n || up > n+n/4 || RoundUp(up) != up {
			t.Fatalf("%d bytes are rounded up to %d, and that to %d", n, up, RoundUp(up))
		}
		var p Pool
		p.Put(make([]byte, 10, max(n, 10)))
		for _, asked := range []int{n / 2, n * 3 / 4, n - 1, n, n + 1, n * 2} {
			b := p.Get(asked)
			if b != nil && (cap(b) < asked || len(b) != 0) {
				t.Fatalf("asked for %d, got %d of %d", asked, len(b), cap(b))
			}
			if b != nil {
				p.Put(b)
			}
		}
	}
	var p Pool
	for _, n := range []int{smallest - 1, largest + 1, 64 << 20} {
		p.Put(make([]byte, n))
		if p.Get(n) != nil {
			t.Errorf("%d bytes were kept", n)
		}
	}
}

// Memory that was made of RoundUp bytes serves who asks for as many again.
func TestWhatWasPutIsGotAgain(t *testing.T) {
	for n := smallest; n <= largest; n += 1 + n/37 {
		var p Pool
		p.Put(make([]byte, RoundUp(n)))
		if p.Get(n) == nil && RoundUp(n) <= largest {
			t.Errorf("%d bytes were put, and %d cannot be had", RoundUp(n), n)
		}
		if p.bytes != 0 {
			t.Errorf("%d bytes are kept of %d", p.bytes, n)
		}
	}
}

func TestOnlyWhatNobodyGetsIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pool
		for range 10 {
			p.Put(make([]byte, 1<<20))
		}
		for range 20 { // five of the eight are in use now and then
			var used [][]byte
			for range 5 {
				b := p.Get(1 << 20)
				if b == nil {
					t.Fatal("the pool has none")
				}
				used = append(used, b)
			}
			for _, b := range used {
				p.Put(b)
			}
			time.Sleep(trimEvery)
			synctest.Wait()
		}
		if p.bytes != 5<<20 {
			t.Errorf("%d bytes are kept, five times 1 MiB in use", p.bytes)
		}
		for range 100 {
			p.Put(make([]byte, 1<<20))
		}
		if p.bytes != maxBytes {
			t.Errorf("%d bytes are kept, want %d", p.bytes, maxBytes)
		}
		time.Sleep(3 * trimEvery)
		synctest.Wait()
		if p.bytes != 0 || p.trimming {
			t.Errorf("%d bytes are kept that nobody gets", p.bytes)
		}
	})
}

// The produce path gets and puts a piece a request.
func TestGetAndPutAllocateNothing(t *testing.T) {
	var p Pool
	p.Put(make([]byte, 1<<20))
	if n := testing.AllocsPerRun(100, func() { p.Put(p.Get(1 << 20)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGetPut(b *testing.B) {
	var p Pool
	p.Put(make([]byte, 1<<20))
	for b.Loop() {
		p.Put(p.Get(1 << 20))
	}
}

// pieces returns memory, and what tells whether it is still there.
func pieces(n int) (all [][]byte, alive []weak.Pointer[byte]) {
	for range n {
		b := make([]byte, smallest)
		all, alive = append(all, b), append(alive, weak.Make(&b[0]))
	}
	return all, alive
}

// A pool that holds on to what it has given away keeps it twice: whoever got it may drop it,
// and it is gone.
func TestWhatWasGotIsNoLongerKept(t *testing.T) {
	var p Pool
	all, alive := pieces(1)
	p.Put(all[0])
	all = nil
	if p.Get(smallest) == nil {
		t.Fatal("it was not kept")
	}
	runtime.GC()
	if alive[0].Value() != nil {
		t.Error("the pool holds on to it")
	}
	runtime.KeepAlive(&p)
}

func TestWhatIsLetGoIsNoLongerKept(t *testing.T) {
	var p Pool
	all, alive := pieces(3)
	for _, b := range all {
		p.Put(b)
	}
	all = nil
	p.trim()
	p.Put(p.Get(smallest)) // one is in use, the last
	p.trim()
	runtime.GC()
	for i, w := range alive {
		if got, want := w.Value() != nil, i == 2; got != want {
			t.Errorf("piece %d: there %v, want %v", i, got, want)
		}
	}
	runtime.KeepAlive(&p)
}
