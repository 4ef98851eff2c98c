package replication

import (
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/controller"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
)

// maxVoters controllers vote; further nodes follow without a vote.
const maxVoters = 5

// tendMembers takes the next step for each group that this node leads, and tells
// whether more are to be taken even if nothing happens.
func (u *upkeep) tendMembers(now time.Time) (more bool) {
	u.growTopics()
	var moves *int // nil: leadership stays where it is
	if u.n.settings().Leaders.Rebalance {
		moves = new(movesAtOnce)
	}
	u.n.eachReplica(func(r *partition.Replica) {
		r.GoOnAlone()
		if r.TendMembers(now, moves) {
			more = true
		}
	})
	return more
}

// movesAtOnce is how many groups one pass of tendMembers hands back to their preferred
// leaders at most, so that the others go on serving.
const movesAtOnce = 32

// reconcileControllers keeps the controller group's members in step with the
// registered brokers, on its leader: all of them follow, an odd number votes.
func (u *upkeep) reconcileControllers() {
	m := u.n.memberOf(controller.Group)
	if m == nil || m.Raft.State() != raft.Leader || !u.tending.CompareAndSwap(false, true) {
		return
	}
	u.n.goTracked(func() {
		defer u.tending.Store(false)
		u.changeController(m)
	})
}

// changeController takes the next step, if there is one, and waits for it.
func (u *upkeep) changeController(m *raftgroup.Member) {
	registered := make(map[raft.ServerID]bool)
	for _, b := range u.n.Image().Brokers() {
		registered[raft.ServerID(b.ServerID())] = true
	}
	voters, all, demotable := 0, 0, raft.ServerID("")
	var learners []raft.ServerID
	for _, s := range m.Raft.GetConfiguration().Configuration().Servers {
		switch {
		case !registered[s.ID] && s.ID != u.n.serverID():
			if err := raftgroup.Await(u.n.ctx, u.n.closing, m.Raft.RemoveServer(s.ID, 0, callTimeout)); err != nil {
				u.n.logger.Warn("a departed controller was not removed", "server", s.ID, "error", err)
			}
			return
		case s.Suffrage == raft.Voter:
			voters++
			if s.ID != u.n.serverID() {
				demotable = s.ID
			}
		default:
			if u.n.connected(s.ID) && m.MayVote(s.ID) {
				learners = append(learners, s.ID)
			}
		}
		all++
		delete(registered, s.ID)
	}
	for id := range registered {
		if err := raftgroup.Await(u.n.ctx, u.n.closing, m.Raft.AddNonvoter(id, raft.ServerAddress(id), 0, callTimeout)); err != nil {
			u.n.logger.Warn("a broker was not added to the controller group", "server", id, "error", err)
		}
		return
	}
	// An even number of voters is only passed through, on the way down as well: of two, when
	// one of three was removed, either would be missed as much as both.
	if voters == all && voters%2 == 0 {
		if err := raftgroup.Await(u.n.ctx, u.n.closing, m.Raft.DemoteVoter(demotable, 0, callTimeout)); err != nil {
			u.n.logger.Warn("a controller did not give up its vote", "server", demotable, "error", err)
		}
		return
	}
	if voters >= maxVoters || len(learners) == 0 || voters%2 == 1 && len(learners) < 2 {
		return
	}
	id := learners[0]
	if err := raftgroup.Await(u.n.ctx, u.n.closing, m.Raft.AddVoter(id, raft.ServerAddress(id), 0, callTimeout)); err != nil {
		u.n.logger.Warn("a controller did not get its vote", "server", id, "error", err)
	}
}

// growTopics gives topics that were created with the default replication
// factor the replicas they lack, once there are brokers for them.
func (u *upkeep) growTopics() {
	m := u.n.memberOf(controller.Group)
	if m == nil || m.Raft.State() != raft.Leader || !u.growing.CompareAndSwap(false, true) {
		return
	}
	u.n.goTracked(func() {
		defer u.growing.Store(false)
		u.growNow()
	})
}

func (u *upkeep) growNow() {
	image := u.n.Image()
	want := min(defaultReplicas, len(image.Brokers()))
	for _, t := range image.Topics() {
		if !t.Grow {
			continue
		}
		placed, err := metadata.PlaceMore(image.Brokers(), t.Partitions, want, 0)
		if err != nil {
			u.n.logger.Warn("a topic did not grow", "topic", t.Name, "error", err)
			continue
		}
		for i, replicas := range placed {
			if len(replicas) == len(t.Partitions[i].Replicas) {
				continue
			}
			ctx, cancel := u.n.callContext()
			err := u.n.Change(ctx, metadata.SetReplicas{
				Partition: metadata.PartitionID{Topic: t.ID, Index: int32(i)}, Replicas: replicas,
			})
			cancel()
			if err != nil {
				u.n.logger.Warn("a topic did not grow", "topic", t.Name, "partition", i, "error", err)
				return
			}
		}
	}
}
