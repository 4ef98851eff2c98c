package server

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A registerOp is one thing done to a committed offset.
type registerOp struct {
	group  int
	write  bool
	offset int64 // written
}

// committedRegister is what a committed offset must be: a register, -1 at first.
var committedRegister = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		var parts [][]porcupine.Operation
		for _, op := range history {
			g := op.Input.(registerOp).group
			for len(parts) <= g {
				parts = append(parts, nil)
			}
			parts[g] = append(parts[g], op)
		}
		return parts
	},
	Init: func() any { return int64(-1) },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(registerOp); in.write {
			return true, in.offset
		}
		return output.(int64) == state.(int64), state
	},
	DescribeOperation: func(input, output any) string {
		if in := input.(registerOp); in.write {
			return fmt.Sprint("commit ", in.offset)
		}
		return fmt.Sprint("fetch ", output)
	},
}

// exchange sends one request over a connection of its own.
func exchange(addr string, req kmsg.Request, limit time.Duration) (kmsg.Response, error) {
	conn, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	_, body, err := readResponse(conn)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() {
		if len(body) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		body = body[1:]
	}
	return resp, resp.ReadFrom(body)
}

// Committed offsets are a linearizable register, while coordinators are cut
// off from the others again and again, believe for seconds that they are none
// the less, and clients go on asking them.
func TestCommittedOffsetsAreARegister(t *testing.T) {
	t.Parallel()
	all := startClusterWith(t, 3, quickGroups)
	if got := ask[*kmsg.CreateTopicsResponse](all[0].dial(), createRequest(7, newTopic("t", 1, 3))).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	const groups, clients, rounds = 12, 6, 5
	names := make([]string, groups)
	for i := range names {
		names[i] = fmt.Sprint("g", i)
		coordinatorAmong(t, all, names[i])
	}

	var mu sync.Mutex
	var history, unsure []porcupine.Operation
	fetched := map[int64]bool{}
	began := time.Now()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for client := range clients {
		wait.Go(func() { // a client: ends with stop
			r := rand.New(rand.NewPCG(1, uint64(client)))
			for n := int64(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				op := porcupine.Operation{ClientId: client, Input: registerOp{group: r.IntN(groups)}, Call: int64(time.Since(began))}
				in := registerOp{group: r.IntN(groups), write: r.IntN(3) == 0, offset: n*clients + int64(client)}
				name := names[in.group]
				if !in.write {
					// Anybody may be asked; who does not coordinate says so.
					req := kmsg.NewPtrOffsetFetchRequest()
					req.SetVersion(8)
					req.Groups = []kmsg.OffsetFetchRequestGroup{{Group: name, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", Partitions: []int32{0}}}}}
					op.Call = int64(time.Since(began))
					resp, err := exchange(all[r.IntN(len(all))].addr, req, 10*time.Second)
					op.Return = int64(time.Since(began))
					if err != nil {
						continue
					}
					g := resp.(*kmsg.OffsetFetchResponse).Groups[0]
					if g.ErrorCode != 0 || g.Topics[0].Partitions[0].ErrorCode != 0 {
						continue
					}
					at := g.Topics[0].Partitions[0].Offset
					op.Input, op.Output = in, at
					mu.Lock()
					fetched[at] = true
					history = append(history, op)
					mu.Unlock()
					continue
				}
				resp, err := exchange(all[r.IntN(len(all))].addr, findRequest(4, groupCoordinator, name), 10*time.Second)
				if err != nil || resp.(*kmsg.FindCoordinatorResponse).Coordinators[0].ErrorCode != 0 {
					continue
				}
				f := resp.(*kmsg.FindCoordinatorResponse).Coordinators[0]
				op.Input, op.Call = in, int64(time.Since(began))
				resp, err = exchange(fmt.Sprintf("%s:%d", f.Host, f.Port), commitRequest(8, name, "t", 0, in.offset), 10*time.Second)
				op.Return = int64(time.Since(began))
				mu.Lock()
				if err == nil && resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode == 0 {
					history = append(history, op)
				} else {
					op.Return = 1 << 62 // it may land whenever it likes
					unsure = append(unsure, op)
				}
				mu.Unlock()
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
			}
		})
	}
	for round := range rounds {
		time.Sleep(300 * time.Millisecond)
		victim := all[round%len(all)]
		victim.peers.isolate(victim.addr)
		time.Sleep(700 * time.Millisecond) // within its lease
		victim.peers.heal()
		for _, name := range names {
			coordinatorAmong(t, all, name)
		}
	}
	close(stop)
	wait.Wait()

	// A commit of which nobody knows, and that nobody has seen, proves nothing.
	seen := 0
	for _, op := range unsure {
		if fetched[op.Input.(registerOp).offset] {
			history = append(history, op)
			seen++
		}
	}
	t.Logf("%d operations, and %d commits of unknown outcome, of which %d were seen", len(history)-seen, len(unsure), seen)
	if len(history) < 200 {
		t.Errorf("only %d operations", len(history))
	}
	switch result, _ := porcupine.CheckOperationsVerbose(committedRegister, history, time.Minute); result {
	case porcupine.Illegal:
		t.Error("committed offsets are not a linearizable register")
	case porcupine.Unknown:
		t.Error("no verdict in a minute: the history is too long")
	}
}
