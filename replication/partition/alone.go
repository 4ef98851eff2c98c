package partition

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
	"millrace/replication/vote"
)

// aloneTerms is how far above all terms that it knows a group begins that goes on alone:
// further than the other voter can have got by campaigning. Clients see it in leader epochs.
const aloneTerms = 1000

// GoOnAlone has the replica go on as the only voter of a group of two of which the other was
// removed from the cluster: one of two is no majority, so Raft alone would wait for the
// other for ever. Nothing that was acknowledged is lost by it: it took both voters to commit
// anything, and if it is not certain that they were two, the operator must decide. That the other is gone for good is the operator's word, which the image has: see
// metadata.RemoveBroker. Whether Raft still takes the other for its leader, or this one for it
// until its lease is over, makes no difference. It is called by one goroutine.
func (u *Upkeep) GoOnAlone() {
	if u.r.cause.Load() != nil || u.notAlone {
		return
	}
	f := u.r.Raft.GetConfiguration()
	if other, ok := u.r.p.survives(f.Configuration()); ok {
		goOnAlone(u.r.p, u.r, other, f.Index() <= u.r.Raft.CommitIndex())
	}
}

// survives tells whether this replica is one of two voters, and shall hold the partition,
// and the other's broker was registered once and is no more.
func (s *site) survives(c raft.Configuration) (other raft.ServerID, ok bool) {
	voters, mine := 0, false
	for _, server := range c.Servers {
		switch {
		case server.Suffrage != raft.Voter:
			continue
		case server.ID == s.env.Self:
			mine = true
		default:
			other = server.ID
		}
		voters++
	}
	_, part, placed := s.lookup()
	peer, err := transport.ParseServerID(other)
	if voters != 2 || !mine || !placed || err != nil || s.env.Host.Connected(other) {
		return "", false
	}
	image, here := s.env.Host.Image(), false
	for _, node := range part.Replicas {
		id, _ := s.serverOf(node)
		here = here || id == s.env.Self
	}
	_, registered := image.Broker(peer.Node)
	return other, here && !registered && image.WasRegistered(peer.Node)
}

// goOnAlone ends a run, and begins another whose log ends with a configuration of this
// replica alone. It does not block.
func goOnAlone(p *Partition, r *Replica, other raft.ServerID, committed bool) {
	if !committed {
		// What was before a configuration that is not known to be committed may hold still: if
		// others voted then, they may have committed what is not here.
		before, err := votersBefore(r)
		if err != nil || slices.ContainsFunc(before, func(id raft.ServerID) bool { return id != other && id != p.env.Self }) {
			p.logger.Error("the other of two voters was removed from the cluster, and it is not certain that all that was acknowledged is here: see `millrace cluster rescue --help`",
				"removed", other, "voters", before, "error", err)
			r.notAlone = true
			return
		}
	}
	cause := fmt.Errorf("%s, the other voter, was removed from the cluster", other)
	if !r.cause.CompareAndSwap(nil, &cause) {
		return
	}
	go func() { // ends when the next run has begun
		p.lifecycle.Lock()
		defer p.lifecycle.Unlock()
		if p.closed || p.current.Load() != r {
			return
		}
		p.logger.Warn("the partition goes on with what is here, alone", "removed", other)
		p.endLocked(false)
		p.alone = true
		p.beginLocked()
		p.alone = false
	}()
}

// votersBefore are who voted before the latest configuration in the log.
func votersBefore(r *Replica) (voters []raft.ServerID, err error) {
	latest := r.Raft.GetConfiguration().Index()
	var c raft.Configuration
	if snap := r.snapshots.newest(); snap != nil {
		if c, err = raftgroup.DecodeConfiguration(snap.configuration); err != nil {
			return nil, err
		}
	}
	for index := latest - 1; index > r.snapshots.index() && latest > 0; index-- {
		var entry raft.Log
		if err := r.store.GetLog(index, &entry); err != nil {
			return nil, err
		}
		if entry.Type == raft.LogConfiguration {
			if c, err = raftgroup.DecodeConfiguration(entry.Data); err != nil {
				return nil, err
			}
			break
		}
	}
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, s.ID)
		}
	}
	return voters, nil
}

// endAlone ends the log with a configuration of this replica alone. The term is raised first: an entry of a term that the votes do not know would be damage.
func (s *site) endAlone(l *log.Log, votes raft.StableStore, last uint64) error {
	var entry raft.Log
	if err := l.GetLog(last, &entry); err != nil {
		return err
	}
	term, err := votes.GetUint64([]byte(vote.CurrentTerm))
	if err != nil && !errors.Is(err, vote.ErrNotFound) {
		return err
	}
	term = max(term, entry.Term) + aloneTerms
	if err := votes.SetUint64([]byte(vote.CurrentTerm), term); err != nil {
		return err
	}
	alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: s.env.Self, Address: raft.ServerAddress(s.env.Self)}}}
	if err := l.StoreLog(&raft.Log{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone)}); err != nil {
		return err
	}
	return l.Flush()
}
