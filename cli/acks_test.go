package cli

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/cli/term/termtest"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func acksFor(t *testing.T) (*acks, *strings.Builder) {
	c := termtest.Context(t, produceCommand().Flags, "orders")
	out := new(strings.Builder)
	c.App.Writer = out
	return newAcks(c), out
}

// Acknowledgements arrive in any order across partitions; the lines are those of
// the input's order.
func TestAcknowledgementsPrintInInputOrder(t *testing.T) {
	const n = 5000
	a, out := acksFor(t)
	var promises []func()
	var want strings.Builder
	for i := range n {
		promise := a.expect()
		r := &kgo.Record{Partition: int32(i % 3), Offset: int64(i / 3)}
		promises = append(promises, func() { promise(r, nil) })
		want.WriteString("orders/" + strconv.Itoa(i%3) + "@" + strconv.Itoa(i/3) + "\n")
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		promises[i]()
	}
	if out.String() != want.String() {
		t.Errorf("%d bytes printed, want %d in the order of the input", out.Len(), want.Len())
	}
	if a.done != n || a.err != nil {
		t.Errorf("%d acknowledged, %v", a.done, a.err)
	}
}

// A partition without a leader holds back the lines of all others, but only so
// many: the sender waits.
func TestTheRingBoundsWhatIsUnprinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := acksFor(t)
		slow := a.expect()
		for range kafka.MaxBuffered - 1 {
			a.wait()
			a.expect()(&kgo.Record{Partition: 1}, nil)
		}
		waited := make(chan struct{})
		go func() { a.wait(); close(waited) }()
		synctest.Wait()
		select {
		case <-waited:
			t.Fatal("the ring took more than it holds")
		default:
		}
		slow(&kgo.Record{}, nil)
		<-waited
	})
}

func TestTheFirstRecordThatFailedIsTheOneExplained(t *testing.T) {
	a, out := acksFor(t)
	var promises []func(*kgo.Record, error)
	for range 4 {
		promises = append(promises, a.expect())
	}
	promises[3](&kgo.Record{}, kerr.MessageTooLarge)
	promises[0](&kgo.Record{Offset: 7}, nil)
	promises[2](&kgo.Record{}, context.Canceled) // only because the sender gave up
	promises[1](&kgo.Record{Topic: "orders"}, kgo.ErrRecordTimeout)
	select {
	case <-a.failed:
	default:
		t.Error("the sender is not told")
	}
	if term.StatusOf(a.err) != term.StatusTimedOut || !strings.HasPrefix(a.err.Error(), "record 2 was not acknowledged within") {
		t.Errorf("%v, want that record 2 timed out", a.err)
	}
	if out.String() != "orders/0@7\n" || a.done != 1 {
		t.Errorf("%q printed, %d acknowledged", out.String(), a.done)
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		want   string
	}{
		{kerr.MessageTooLarge, term.StatusFailed, "max.message.bytes"},
		{kerr.UnknownTopicOrPartition, term.StatusNotFound, "millrace topic create orders"},
		{kerr.TopicAuthorizationFailed, term.StatusNotAllowed, `not allowed on topic "orders"`},
		{errors.New("something\nelse"), term.StatusFailed, "record 1: something"},
	} {
		err := recordError(0, &kgo.Record{Topic: "orders"}, test.err, 0)
		if term.StatusOf(err) != test.status || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: status %d, %v; want %d and %q", test.err, term.StatusOf(err), err, test.status, test.want)
		}
	}
}

func TestBackoffLooksOftenAtFirst(t *testing.T) {
	total := time.Duration(0)
	for attempt := 1; attempt <= 25; attempt++ {
		if d := kafka.Backoff(attempt); d > 20*time.Millisecond {
			t.Errorf("attempt %d waits %v", attempt, d)
		}
		total += kafka.Backoff(attempt)
	}
	if total > time.Second || kafka.Backoff(1000) > time.Second {
		t.Errorf("25 attempts take %v, a later one %v", total, kafka.Backoff(1000))
	}
}
