package transport

import (
	"testing"
	"testing/synctest"
	"time"
)

// What is lent is as large as was asked for, and hardly larger.
func TestLenderLendsWhatIsLargeEnough(t *testing.T) {
	for n := 1; n <= 2*largestLent; n += 1 + n/37 {
		up := RoundUp(n)
		if up < n || up > n+n/4 || RoundUp(up) != up {
			t.Fatalf("%d bytes are rounded up to %d, and that to %d", n, up, RoundUp(up))
		}
		var l Lender
		l.GiveBack(make([]byte, 10, max(n, 10)))
		for _, asked := range []int{n / 2, n * 3 / 4, n - 1, n, n + 1, n * 2} {
			b := l.Borrow(asked)
			if b != nil && (cap(b) < asked || len(b) != 0) {
				t.Fatalf("asked for %d, lent %d of %d", asked, len(b), cap(b))
			}
			if b != nil {
				l.GiveBack(b)
			}
		}
	}
	var l Lender
	for _, n := range []int{smallestLent - 1, largestLent + 1, 64 << 20} {
		l.GiveBack(make([]byte, n))
		if l.Borrow(n) != nil {
			t.Errorf("%d bytes were kept", n)
		}
	}
}

// What nobody borrows goes, and only that.
func TestLenderKeepsWhatIsBorrowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lender
		for range 10 {
			l.GiveBack(make([]byte, 1<<20))
		}
		for range 20 { // five of the eight are in use now and then
			var lent [][]byte
			for range 5 {
				b := l.Borrow(1 << 20)
				if b == nil {
					t.Fatal("nothing to borrow")
				}
				lent = append(lent, b)
			}
			for _, b := range lent {
				l.GiveBack(b)
			}
			time.Sleep(lenderRest)
			synctest.Wait()
		}
		if l.bytes != 5<<20 {
			t.Errorf("%d bytes are kept, five times 1 MiB in use", l.bytes)
		}
		for range 100 {
			l.GiveBack(make([]byte, 1<<20))
		}
		if l.bytes != lenderBytes {
			t.Errorf("%d bytes are kept, want %d", l.bytes, lenderBytes)
		}
		time.Sleep(3 * lenderRest)
		synctest.Wait()
		if l.bytes != 0 || l.tidies {
			t.Errorf("%d bytes are kept that nobody borrows", l.bytes)
		}
	})
}
