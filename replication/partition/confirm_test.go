package partition

import (
	"errors"
	"testing"
)

// One round answers all who came before it began, and nobody who came later.
func TestConfirmationsShareRounds(t *testing.T) {
	var c confirmer
	began, release := make(chan int), make(chan error)
	rounds := 0
	ask := func() error {
		rounds++
		began <- rounds
		return <-release
	}
	first := c.join(ask)
	<-began
	var later []*confirmation
	for range 50 {
		later = append(later, c.join(ask))
	}
	release <- nil
	<-first.done
	<-began
	for _, round := range later {
		select {
		case <-round.done:
			t.Fatal("answered by a round that began before the question")
		default:
		}
	}
	refused := errors.New("refused")
	release <- refused
	for _, round := range later {
		if <-round.done; round.err != refused {
			t.Fatalf("answered with %v", round.err)
		}
	}
	if rounds != 2 {
		t.Errorf("%d rounds for 51 questions, want 2", rounds)
	}
}

// A replica's own voice counts for a leadership in its own term only, and while it lasts:
// the vote that it gives may be the one that elects another. Here it is the only voice.
func TestAReplicaDoesNotConfirmALeadershipThatIsOver(t *testing.T) {
	p, _ := alone(t)
	r := p.Replica()
	l := r.leadership.Load()
	if err := r.askVoters(l); err != nil {
		t.Fatal(err)
	}
	if err := r.askVoters(&leadership{r: r, term: l.term}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("one that was replaced in its term: %v", err)
	}
	former := &leadership{r: r, term: l.term - 1}
	former.freed.L = &former.mu
	r.leadership.Store(former) // whose end is not noticed yet
	err := r.askVoters(former)
	r.leadership.Store(l)
	if !errors.Is(err, ErrNotLeader) {
		t.Errorf("one of an earlier term: %v", err)
	}
}
