package transport

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAPeerThatIsAwayIsSpokenOfEverMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l := limitedLog{logger: slog.New(slog.NewTextHandler(&out, nil))}
		lines := func() int { return strings.Count(out.String(), "\n") }
		for second := range 1200 {
			l.away("dial 3", "no connection to a peer")
			want := 0
			for _, at := range []int{10, 70, 430, 1030} {
				if second >= at {
					want++
				}
			}
			if lines() != want {
				t.Fatalf("%d lines after %d s, want %d", lines(), second, want)
			}
			time.Sleep(time.Second)
		}
		l.back("dial 3")
		l.away("dial 3", "no connection to a peer")
		time.Sleep(9 * time.Second)
		l.away("dial 3", "no connection to a peer")
		if lines() != 4 {
			t.Errorf("a peer that came back and went for 9 s was spoken of")
		}
	})
}
