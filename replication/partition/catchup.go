package partition

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
	"millrace/segment"
)

// Catch-up by segments. A leader whose log no longer begins early enough for a
// follower sends Raft's InstallSnapshot. Raft's own handling of it would delete
// the log and can livelock, so the transport keeps it from Raft, and:
//
//	leader                               follower
//	InstallSnapshot(index, state) ─────► refuse what is stale, accept what is covered
//	◄───────────────── CallSegments      which sealed segments reach up to index?
//	◄───────────────── CallSegment …     their bytes, into the staging folder
//	                                     stop Raft · install the staged segments ·
//	                                     keep the snapshot · start Raft
//	◄───────────────── success
const (
	// nextSnapshotName is the snapshot that belongs to staged segments.
	nextSnapshotName = "snapshot.next"
	pullBytes        = 1 << 20
	// pullRate bounds what one catch-up takes of disk and network, bytes a second.
	pullRate = 200 << 20
	// installWait is how long a leader's InstallSnapshot waits for the catch-up
	// it started before it is told to come again.
	installWait = 20 * time.Second
)

// CallSegments and CallSegment are the kinds of the calls by which a follower asks its leader.
const (
	CallSegments uint8 = 5
	CallSegment  uint8 = 6
)

// errOvertaken ends a catch-up during which the log went on by itself.
var errOvertaken = errors.New("partition: entries came in while segments were pulled")

// InstallSnapshot implements transport.Member.
func (r *Replica) InstallSnapshot(rpc raft.RPC, req *raft.InstallSnapshotRequest, state []byte) {
	term := r.Raft.CurrentTerm()
	switch {
	case req.Term < term:
		rpc.Respond(&raft.InstallSnapshotResponse{Term: term}, nil)
		return
	case req.LastLogIndex <= max(r.Raft.CommitIndex(), r.Raft.AppliedIndex()), r.holds(req.LastLogIndex, req.LastLogTerm):
		rpc.Respond(&raft.InstallSnapshotResponse{Term: req.Term, Success: true}, nil)
		return
	}
	peer, err := transport.ParseServerID(raft.ServerID(req.ID))
	if err == nil {
		_, err = decodeProducers(state, 0) // once it is kept, a run cannot begin without reading it
	}
	if err != nil {
		rpc.Respond(nil, err)
		return
	}
	c := &catchUp{r: r, leader: peer.Node, snap: &snapshot{
		index:              req.LastLogIndex,
		term:               req.LastLogTerm,
		configurationIndex: req.ConfigurationIndex,
		configuration:      req.Configuration,
		state:              state,
	}}
	done := c.start()
	select {
	case err := <-done:
		if err != nil {
			rpc.Respond(nil, err)
			return
		}
		rpc.Respond(&raft.InstallSnapshotResponse{Term: req.Term, Success: true}, nil)
	case <-time.After(installWait):
		rpc.Respond(nil, errors.New("partition: catching up"))
	}
}

// holds tells whether the log has this entry, and so everything before it.
func (r *Replica) holds(index, term uint64) bool {
	var l raft.Log
	return r.store.Log.GetLog(index, &l) == nil && l.Term == term
}

// A catchUp is one try of a follower to have what a leader's snapshot covers.
type catchUp struct {
	r      *Replica // the run that ends with it
	leader int32
	snap   *snapshot
}

// Reinstall has the replica take the leader's segments in its log's place, up to the leader's
// snapshot, as if it lacked them. The run ends with it.
func (r *Replica) Reinstall(leader int32, from *Replica) <-chan error {
	snap := *from.snapshots.newest()
	return (&catchUp{r: r, leader: leader, snap: &snap}).start()
}

// start begins, unless another try is under way.
func (c *catchUp) start() <-chan error {
	p, done := c.r.p, make(chan error, 1)
	if !p.catching.CompareAndSwap(false, true) {
		done <- errors.New("partition: catching up already")
		return done
	}
	p.env.Host.GoTracked(func() {
		defer p.catching.Store(false)
		defer raftgroup.Contain("catch up", func(err error) { // what a peer sent is read here
			p.logger.Error("catch-up failed", "error", err)
			done <- err
		})
		began, writes := time.Now(), c.r.store.writes.Load()
		p.logger.Info("catching up by segments", "leader", c.leader, "index", c.snap.index)
		bytes, err := c.pull()
		if err == nil {
			err = c.install(writes)
		}
		if err != nil {
			p.logger.Warn("catch-up failed", "error", err)
		} else {
			p.logger.Info("caught up by segments", "index", c.snap.index, "bytes", bytes, "took", time.Since(began).Round(time.Millisecond))
		}
		done <- err
	})
	return done
}

// pull copies the leader's sealed segments up to the snapshot into the staging
// folder. What an earlier try left there of the same segments is kept.
func (c *catchUp) pull() (total int64, err error) {
	p, leader, index := c.r.p, c.leader, c.snap.index
	req := binary.BigEndian.AppendUint64(nil, p.group)
	answer, err := p.env.Host.CallBulk(leader, CallSegments, binary.BigEndian.AppendUint64(req, index))
	if err != nil {
		return 0, fmt.Errorf("ask for segments: %w", err)
	}
	var plan log.Plan
	if err := json.Unmarshal(answer, &plan); err != nil {
		return 0, fmt.Errorf("ask for segments: %w", err)
	}
	if err := covers(plan, index); err != nil {
		return 0, err
	}
	staging, err := log.Stage(p.dir, p.identity(), plan, p.logConfig())
	if err != nil {
		return 0, fmt.Errorf("stage segments: %w", err)
	}
	began := time.Now()
	for {
		first, at, rest, more := staging.Next()
		if !more {
			return total, nil
		}
		select {
		case <-c.r.closing:
			return total, raftgroup.ErrClosed
		default:
		}
		req := binary.BigEndian.AppendUint64(nil, p.group)
		req = binary.BigEndian.AppendUint64(req, first)
		req = binary.BigEndian.AppendUint64(req, uint64(at))
		req = binary.BigEndian.AppendUint32(req, uint32(min(pullBytes, rest)))
		piece, err := p.env.Host.CallBulk(leader, CallSegment, req)
		if err == nil && len(piece) == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			err = staging.Write(first, at, piece)
		}
		if err != nil {
			return total, fmt.Errorf("pull segment %d at %d: %w", first, at, err)
		}
		total += int64(len(piece))
		if ahead := time.Duration(total)*time.Second/pullRate - time.Since(began); ahead > 0 {
			time.Sleep(ahead)
		}
	}
}

// covers tells whether a log made of plan goes with a snapshot at index: nothing
// may be missing between them. The leader may have dropped segments since it
// took that snapshot; it sends a newer one then.
func covers(plan log.Plan, index uint64) error {
	first := plan.FirstIndex()
	if first > index+1 || plan.EndIndex <= index {
		return fmt.Errorf("the leader's segments hold entries %d to %d, the snapshot is at %d", first, plan.EndIndex-1, index)
	}
	return nil
}

// install ends the run, puts what was pulled in the log's place, and begins
// another run at the snapshot.
//
// The log's switch is one rename. The new snapshot waits beside it while that
// happens: a crash before leaves the old log with the old snapshot, a crash
// after is finished by finishInstall at the next start.
//
// writes is what the store had counted when the catch-up began. If it has
// counted more, another leader had what this log needed: the replica has
// acknowledged entries that the staged segments may not have.
func (c *catchUp) install(writes uint64) error {
	r, p := c.r, c.r.p
	p.lifecycle.Lock()
	defer p.lifecycle.Unlock()
	if p.closed || p.current.Load() != r {
		return raftgroup.ErrClosed
	}
	if r.store.writes.Load() != writes {
		return errOvertaken
	}
	p.endLocked(false)
	defer p.beginLocked()
	if r.store.writes.Load() != writes { // once more, now that Raft has ended
		return errOvertaken
	}
	next := &snapshotStore{fs: p.env.FS, path: filepath.Join(p.dir, nextSnapshotName)}
	if err := next.put(c.snap); err != nil {
		return fmt.Errorf("keep snapshot: %w", err)
	}
	if err := log.Install(p.dir, p.identity(), log.StagingDir(p.dir), p.logConfig()); err != nil {
		return fmt.Errorf("install segments: %w", err)
	}
	return p.adoptSnapshot()
}

// adoptSnapshot makes the waiting snapshot the partition's.
func (s *site) adoptSnapshot() error {
	_, err := segment.Replace(s.env.FS, filepath.Join(s.dir, nextSnapshotName), filepath.Join(s.dir, SnapshotName))
	if err != nil {
		return fmt.Errorf("adopt the snapshot: %w", err)
	}
	return nil
}

// finishInstall completes an install that a crash cut short after the log's
// switch: the log then begins above what the old snapshot covers.
func (s *site) finishInstall(first uint64, snapshots *snapshotStore) (*snapshotStore, error) {
	if first <= snapshots.index()+1 {
		return snapshots, nil
	}
	next, err := openSnapshot(s.env.FS, filepath.Join(s.dir, nextSnapshotName))
	if err != nil {
		return nil, err
	}
	if first > next.index()+1 {
		return nil, fmt.Errorf("the log begins at entry %d, but %s ends at %d: a snapshot is missing", first, snapshots.path, snapshots.index())
	}
	if err := s.adoptSnapshot(); err != nil {
		return nil, err
	}
	return openSnapshots(s.env.FS, s.dir)
}

// Segments tells a follower, on the leader, which sealed segments hold
// everything up to index. The active segment is rolled if it is needed. The
// answer is a log.Plan in JSON.
func (r *Replica) Segments(index uint64) ([]byte, error) {
	plan := r.store.Plan()
	if plan.EndIndex <= index {
		if err := r.store.Roll(); err != nil {
			return nil, err
		}
		plan = r.store.Plan()
	}
	return json.Marshal(plan)
}

// SegmentBytes reads bytes of a sealed segment for a follower that catches up.
func (r *Replica) SegmentBytes(first uint64, position int64, size int) ([]byte, error) {
	p := make([]byte, min(max(size, 0), pullBytes))
	got, err := r.store.ReadSegment(first, position, p)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return p[:got], nil
}
