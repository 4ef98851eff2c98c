package raftgroup

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/transport"
)

// Who ends a replica holds its lock until Raft has ended, and Raft waits for its
// questions: none may sleep on when the port is closed.
func TestAQuestionEndsWithItsPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := transport.New(transport.Config{
			Local: transport.Peer{Node: 1, Incarnation: "a"}, Cluster: "c",
		})
		defer tr.Close()
		port := tr.Group(7, "1.a")
		ended := make(chan error)
		go func() {
			ended <- newVoteRetrier(port).RequestVote("2.b", "", &raft.RequestVoteRequest{Term: 1}, &raft.RequestVoteResponse{})
		}()
		synctest.Wait() // it has asked nobody in vain, and waits before it asks again
		began := time.Now()
		port.Close()
		if err := <-ended; err == nil {
			t.Error("a vote came from nowhere")
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("it went on for %v", d)
		}
	})
}
