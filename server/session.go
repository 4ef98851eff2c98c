package server

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// A session is a client's fetch session (KIP-227): the partitions it fetches,
// so that it need not repeat them, and what it was told about each, so that
// neither need the answers.
//
// A session belongs to the connection that made it and ends with it, so there
// is nothing to evict and nobody can use, or end, another's: an id from
// elsewhere is FETCH_SESSION_ID_NOT_FOUND, which every client takes as the
// request to begin anew. A connection has one session at a time. All sessions
// of a server together hold at most MaxSessionPartitions, and each at most half
// of what others leave, so that none takes it all; beyond that clients are told to
// fetch without.
type session struct {
	id       int32
	epoch    int32 // of the next request
	topicIDs bool  // partitions are named by topic id, version 13 on
	parts    []*wanted
	byKey    map[partitionKey]*wanted
}

const (
	initialEpoch = 0  // a full fetch that begins a session
	finalEpoch   = -1 // a full fetch without a session
)

// sessions counts the fetch sessions of all connections together.
type sessions struct {
	most       int64 // partitions
	count      atomic.Int64
	partitions atomic.Int64
}

// open finds the partitions of a fetch: the request's, or those of the
// session it goes on with. f.code says what is wrong with the session.
func (h *fetches) open(f *fetching, c *connection, req *kmsg.FetchRequest) {
	if f.version < 7 {
		f.sessionless(c, req)
		return
	}
	switch req.SessionEpoch {
	case finalEpoch:
		if c.session != nil && req.SessionID == c.session.id {
			h.endSession(c)
		}
		f.sessionless(c, req)
	case initialEpoch:
		// The client has lost or given up what it had here before.
		h.endSession(c)
		if !h.beginSession(f, c, req) {
			f.sessionless(c, req)
		}
	default:
		f.code = h.continueSession(f, c, req)
	}
}

// beginSession makes a session of a full fetch, if there is room for one.
func (h *fetches) beginSession(f *fetching, c *connection, req *kmsg.FetchRequest) bool {
	s := &session{
		id:       1 + rand.Int32N(math.MaxInt32),
		epoch:    1,
		topicIDs: f.version >= 13,
		byKey:    map[partitionKey]*wanted{},
	}
	// max.incremental.fetch.session.cache.slots
	if h.sessions.count.Add(1) > int64(h.settings().broker.Connections.FetchSessions) || !h.sessions.add(s, c, req) {
		h.sessions.count.Add(-1)
		h.sessions.end(s)
		return false
	}
	c.session = s
	f.session, f.parts, f.sessionID = s, s.parts, s.id
	return true
}

// continueSession applies an incremental fetch to its session.
func (h *fetches) continueSession(f *fetching, c *connection, req *kmsg.FetchRequest) protocol.Code {
	s := c.session
	switch {
	case s == nil || s.id != req.SessionID:
		return protocol.FetchSessionNotFound
	case s.epoch != req.SessionEpoch:
		return protocol.InvalidFetchSessionEpoch
	case s.topicIDs != (f.version >= 13):
		return protocol.FetchSessionTopicIDError
	}
	for i := range req.ForgottenTopics {
		t := &req.ForgottenTopics[i]
		for _, index := range t.Partitions {
			c.turn.step()
			h.sessions.drop(s, partitionKey{t.Topic, t.TopicID, index})
		}
	}
	if len(req.ForgottenTopics) > 0 {
		s.compact()
	}
	if !h.sessions.add(s, c, req) {
		h.endSession(c)
		return protocol.FetchSessionNotFound
	}
	if s.epoch++; s.epoch < 0 {
		s.epoch = 1
	}
	f.session, f.parts, f.sessionID, f.full = s, s.parts, s.id, false
	return protocol.None
}

// add takes the request's partitions into the session. It is false when all
// sessions together would hold too many.
func (all *sessions) add(s *session, c *connection, req *kmsg.FetchRequest) bool {
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			c.turn.step()
			key := partitionKey{t.Topic, t.TopicID, t.Partitions[j].Partition}
			w := s.byKey[key]
			if w == nil {
				left := all.most - (all.partitions.Add(1) - int64(len(s.byKey)) - 1)
				// A longer name is no topic's, and would be kept.
				if int64(len(s.byKey)) >= (left+1)/2 || len(t.Topic) > 249 {
					all.partitions.Add(-1)
					all.end(s)
					return false
				}
				w = &wanted{partitionKey: key, sentHigh: -1, sentStart: -1}
				s.byKey[key] = w
				s.parts = append(s.parts, w)
			}
			w.update(&t.Partitions[j])
		}
	}
	return true
}

// drop takes a partition out of the session. compact must follow.
func (all *sessions) drop(s *session, key partitionKey) {
	w := s.byKey[key]
	if w == nil {
		return
	}
	w.forget()
	delete(s.byKey, key)
	all.partitions.Add(-1)
}

// compact removes from parts what is no longer in byKey, in one pass. Memory for
// what is gone goes too, once it is most of it.
func (s *session) compact() {
	kept := s.parts[:0]
	for _, w := range s.parts {
		if s.byKey[w.partitionKey] == w {
			kept = append(kept, w)
		}
	}
	clear(s.parts[len(kept):])
	s.parts = kept
	if cap(kept) > 4*len(kept)+maxKeptParts {
		s.parts = slices.Clone(kept)
		s.byKey = make(map[partitionKey]*wanted, len(kept))
		for _, w := range s.parts {
			s.byKey[w.partitionKey] = w
		}
	}
}

// end lets go of what the session holds. A second call has no effect.
func (all *sessions) end(s *session) {
	for _, w := range s.parts {
		w.forget()
	}
	all.partitions.Add(-int64(len(s.byKey)))
	s.parts, s.byKey = nil, nil
}

// endSession ends the session of a connection, if it has one.
func (h *fetches) endSession(c *connection) {
	if c.session == nil {
		return
	}
	h.sessions.end(c.session)
	c.session = nil
	h.sessions.count.Add(-1)
}
