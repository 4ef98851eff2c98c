package partition

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestNextMemberTakesOneStepAtATime(t *testing.T) {
	voter := func(id raft.ServerID) raft.Server { return raft.Server{ID: id, Suffrage: raft.Voter} }
	learner := func(id raft.ServerID) raft.Server { return raft.Server{ID: id, Suffrage: raft.Nonvoter} }
	tests := []struct {
		name    string
		current []raft.Server
		wanted  []raft.ServerID
		want    *membershipChange
	}{
		{"nothing to do", []raft.Server{voter("1.a"), voter("2.b")}, []raft.ServerID{"2.b", "1.a"}, nil},
		{"a new server joins without a vote", []raft.Server{voter("1.a")}, []raft.ServerID{"1.a", "2.b"}, &membershipChange{add: "2.b"}},
		{"it gets its vote before the next one joins or leaves", []raft.Server{voter("1.a"), learner("2.b"), voter("3.c")},
			[]raft.ServerID{"1.a", "2.b"}, &membershipChange{promote: "2.b"}},
		{"a server that is not wanted leaves last", []raft.Server{voter("1.a"), voter("2.b"), voter("3.c")},
			[]raft.ServerID{"1.a", "2.b"}, &membershipChange{remove: "3.c"}},
		{"an old incarnation leaves first", []raft.Server{voter("1.a"), voter("2.old"), voter("3.c")},
			[]raft.ServerID{"1.a", "2.new", "3.c"}, &membershipChange{remove: "2.old"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := nextMember(tt.current, tt.wanted)
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Fatalf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A leader that serves does less and less for a replica that does not catch up. What it
// waits must not be what the next leadership waits, which nobody can write to until a
// quorum has its first entry.
func TestNudgesHurryUntilTheLeaderServes(t *testing.T) {
	var g nudges
	now := time.Now()
	count := func(term uint64, serves bool, within time.Duration) (n int) {
		for end := now.Add(within); now.Before(end); now = now.Add(250 * time.Millisecond) {
			if g.due(now, term, serves) {
				n++
			}
		}
		return n
	}
	if n := count(3, true, 10*time.Minute); n < 12 || n > 16 {
		t.Errorf("a leader that serves did so %d times in ten minutes, want 1 s, 2 s … 1 min apart", n)
	}
	if n := count(5, false, 10*time.Second); n < 9 {
		t.Errorf("a leader that does not serve yet did so %d times in 10 s", n)
	}
	if n := count(5, true, 10*time.Second); n < 3 || n > 5 {
		t.Errorf("the same leader, serving, did so %d times in 10 s", n)
	}
}
