package metadata

import "slices"

// Levels. A change, and a member of one, belongs to the feature level whose releases
// can read it; a change's version on disk and between nodes is its level. The
// image keeps the level that the cluster has agreed on, and nothing above that is
// proposed, so that no node meets a change in the log that it cannot read. It is
// raised by one release that finds all registered brokers announce more, and never
// falls: what was written stays.
//
//	1  the first release
//	2  brokers register with the levels that they read and the starts of their data
//	   folder; SetLevel; the image names the groups that were deleted; SetResourceConfig
//	3  brokers register with the addresses that clients are told by listener
//	4  users, ACLs, quotas, delegation tokens; the cluster's authorities and join
//	   tokens; brokers register that they have a certificate; brokers are
//	   removed with their replicas
//
// Whoever adds a change or a member raises MaxLevel, gives the change's level
// method the case, and adds a line here.
const (
	MinLevel = 1 // the lowest this release can work at
	MaxLevel = 4 // the highest it reads
)

// SetLevel raises the cluster's feature level. That every registered broker reads
// it is for the proposer to know when the level is 2, since a broker cannot register
// with what it reads before; afterwards the image says it. One that registers while the
// change is on its way was not among those that the proposer looked at, so the change
// says by which image it was judged, and is refused on any other.
//
// Errors: ErrLevel, ErrNoCluster.
type SetLevel struct {
	Level  int32
	Judged uint64 `json:",omitempty"` // the Index of the image that it was judged by; 0: any
}

func (SetLevel) kind() string { return "SetLevel" }
func (SetLevel) level() int32 { return 2 }

func (c SetLevel) apply(next *Image) error {
	if next.ClusterID == "" {
		return refuse(ErrNoCluster, "there is no cluster whose feature level could be raised")
	}
	if c.Level <= next.level {
		return refuse(ErrLevel, "the cluster is at feature level %d already", next.level)
	}
	if c.Judged != 0 && c.Judged != next.Index {
		return refuse(ErrLevel, "level %d was judged by the image at change %d, and it is at %d now", c.Level, c.Judged, next.Index)
	}
	for _, b := range next.brokers {
		if c.Level > 2 && b.MaxLevel < c.Level {
			return refuse(ErrLevel, "broker %d reads feature levels up to %d, not %d; upgrade it first", b.ID, b.MaxLevel, c.Level)
		}
	}
	if next.level < 2 {
		next.deleted = next.missing()
	}
	next.level = c.Level
	return nil
}

func (c SetLevel) check(_, _ *Image) error {
	if c.Level > MaxLevel {
		return refuse(ErrLevel, "this node reads feature levels up to %d, not %d; upgrade it first", MaxLevel, c.Level)
	}
	return nil
}

// Level is the feature level the cluster has agreed on, 1 or more; 0 in the zero image.
func (m *Image) Level() int32 { return m.level }

// A span is the groups first to last.
type span struct{ first, last uint64 }

// Deleted reports whether a committed change deleted the group. Below feature level 2
// the image does not know, and the answer is no: that a group is not mentioned
// is never enough to delete it.
func (m *Image) Deleted(group uint64) bool {
	i, found := slices.BinarySearchFunc(m.deleted, group, func(s span, g uint64) int {
		switch {
		case s.last < g:
			return -1
		case s.first > g:
			return 1
		}
		return 0
	})
	return found && m.deleted[i].first <= group
}

// missing lists the groups that were numbered and are nobody's.
func (m *Image) missing() (spans []span) {
	next := uint64(1)
	for _, r := range m.groups {
		if r.first > next {
			spans = append(spans, span{next, r.first - 1})
		}
		next = r.first + uint64(r.count)
	}
	if next <= m.lastGroup {
		spans = append(spans, span{next, m.lastGroup})
	}
	return spans
}
