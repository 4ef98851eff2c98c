package transport

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/hashicorp/raft"
)

// maxTerm bounds the terms a peer may speak of: a term is the leader epoch that
// Kafka's protocol carries as an int32. Without a bound one bad message would use
// up all terms there are, for good.
const maxTerm = math.MaxInt32

// maxIndex bounds indexes, so that sums of them cannot wrap.
const maxIndex = math.MaxInt64 - maxEntries

const (
	flagSuccess        = 1 << 0 // append and snapshot answers
	flagNoRetryBackoff = 1 << 1 // append answers
	flagGranted        = 1 << 0 // vote answers
	flagTransfer       = 1 << 0 // votes
)

// A beat is an append without entries: what a leader says to keep its place and
// to spread its commit index.
type beat struct {
	group     uint64
	term      uint64
	prevIndex uint64
	prevTerm  uint64
	commit    uint64
}

// beatOf takes what counts from a request, which the caller may use again.
func beatOf(group uint64, a *raft.AppendEntriesRequest) beat {
	return beat{group, a.Term, a.PrevLogEntry, a.PrevLogTerm, min(a.LeaderCommitIndex, a.PrevLogEntry)}
}

func (b beat) put(p []byte) {
	binary.BigEndian.PutUint64(p[0:], b.group)
	binary.BigEndian.PutUint64(p[8:], b.term)
	binary.BigEndian.PutUint64(p[16:], b.prevIndex)
	binary.BigEndian.PutUint64(p[24:], b.prevTerm)
	binary.BigEndian.PutUint64(p[32:], b.commit)
}

func getBeat(p []byte) beat {
	return beat{
		group:     binary.BigEndian.Uint64(p[0:]),
		term:      binary.BigEndian.Uint64(p[8:]),
		prevIndex: binary.BigEndian.Uint64(p[16:]),
		prevTerm:  binary.BigEndian.Uint64(p[24:]),
		commit:    binary.BigEndian.Uint64(p[32:]),
	}
}

// check holds for every append, with entries or without. last is the index of the
// last entry carried.
func (b beat) check(last uint64) error {
	switch {
	case b.term == 0 || b.term > maxTerm:
		return malformedf("append: term %d", b.term)
	case b.prevIndex > maxIndex:
		return malformedf("append: previous index %d", b.prevIndex)
	case b.prevTerm > b.term:
		return malformedf("append: previous term %d above term %d", b.prevTerm, b.term)
	case (b.prevIndex == 0) != (b.prevTerm == 0):
		return malformedf("append: previous index %d of term %d", b.prevIndex, b.prevTerm)
	case b.commit > last:
		// A follower takes min(commit, its own last index) for committed. With
		// a suffix of its own behind what we just matched, that would commit
		// entries nobody agreed on.
		return malformedf("append: commit index %d above last entry %d", b.commit, last)
	}
	return nil
}

func (b beat) request(from Peer) *raft.AppendEntriesRequest {
	h, name := rpcHeader(from)
	return &raft.AppendEntriesRequest{
		RPCHeader:         h,
		Term:              b.term,
		Leader:            name,
		PrevLogEntry:      b.prevIndex,
		PrevLogTerm:       b.prevTerm,
		LeaderCommitIndex: b.commit,
	}
}

// rpcHeader builds a header from whom the connection belongs to, never from what
// a message says.
func rpcHeader(from Peer) (raft.RPCHeader, []byte) {
	name := []byte(from.ServerID())
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: name, Addr: name}, name
}

func putBeats(beats []*waitingBeat) []byte {
	frame, head := newFrame(typeHeartbeats, heartbeatsHead+len(beats)*heartbeatSize)
	binary.BigEndian.PutUint32(head, uint32(len(beats)))
	for i, b := range beats {
		b.put(head[heartbeatsHead+i*heartbeatSize:])
	}
	return frame
}

// countBeats checks the count of a heartbeat frame, or of its answer, against the
// head's length; size is one element's.
func countBeats(head []byte, size int) (int, error) {
	n := int64(binary.BigEndian.Uint32(head))
	if n*int64(size)+heartbeatsHead != int64(len(head)) {
		return 0, malformedf("heartbeats: %d in a head of %d bytes", n, len(head))
	}
	return int(n), nil
}

// A beatAnswer is one group's answer in a heartbeat answer frame.
type beatAnswer struct {
	index   uint32 // position in the heartbeat frame
	code    uint8
	flags   uint8
	term    uint64
	lastLog uint64
}

func putBeatAnswers(answers []beatAnswer) []byte {
	frame, head := newFrame(typeHeartbeatAnswers, heartbeatsHead+len(answers)*heartbeatAnswerSize)
	binary.BigEndian.PutUint32(head, uint32(len(answers)))
	for i, a := range answers {
		p := head[heartbeatsHead+i*heartbeatAnswerSize:]
		binary.BigEndian.PutUint32(p, a.index)
		p[4], p[5] = a.code, a.flags
		binary.BigEndian.PutUint64(p[8:], a.term)
		binary.BigEndian.PutUint64(p[16:], a.lastLog)
	}
	return frame
}

func getBeatAnswer(p []byte) beatAnswer {
	return beatAnswer{
		index:   binary.BigEndian.Uint32(p),
		code:    p[4],
		flags:   p[5],
		term:    binary.BigEndian.Uint64(p[8:]),
		lastLog: binary.BigEndian.Uint64(p[16:]),
	}
}

func appendFlags(r *raft.AppendEntriesResponse) (flags uint8) {
	if r.Success {
		flags |= flagSuccess
	}
	if r.NoRetryBackoff {
		flags |= flagNoRetryBackoff
	}
	return flags
}

// appendResponse fills in resp.
func appendResponse(from Peer, flags uint8, term, lastLog uint64, resp *raft.AppendEntriesResponse) error {
	if term > maxTerm || lastLog > maxIndex {
		return malformedf("append answer: term %d, last index %d", term, lastLog)
	}
	h, _ := rpcHeader(from)
	*resp = raft.AppendEntriesResponse{
		RPCHeader:      h,
		Term:           term,
		LastLog:        lastLog,
		Success:        flags&flagSuccess != 0,
		NoRetryBackoff: flags&flagNoRetryBackoff != 0,
	}
	return nil
}

// putAppend encodes an append with entries, returning the frame and the payload,
// which is the entries' own bytes.
func putAppend(b beat, entries []*raft.Log, sums Entries) (frame []byte, payload [][]byte) {
	frame, head := newFrame(typeAppend, appendHead+len(entries)*entrySize)
	b.put(head)
	binary.BigEndian.PutUint32(head[40:], uint32(len(entries)))
	payload = make([][]byte, 0, len(entries))
	n, crc := 0, uint32(0)
	for i, e := range entries {
		p := head[appendHead+i*entrySize:]
		binary.BigEndian.PutUint64(p, e.Term)
		binary.BigEndian.PutUint32(p[8:], uint32(len(e.Data)))
		binary.BigEndian.PutUint16(p[12:], uint16(len(e.Extensions)))
		p[14] = uint8(e.Type)
		if len(e.Data) > 0 {
			payload = append(payload, e.Data)
			crc = sums.Sum(crc, e)
		}
		if len(e.Extensions) > 0 {
			payload = append(payload, e.Extensions)
			crc = crc32.Update(crc, castagnoli, e.Extensions)
		}
		n += len(e.Data) + len(e.Extensions)
	}
	declarePayload(frame, n, crc)
	return frame, payload
}

// An appendRequest is an append with entries, decoded up to the entries' bytes.
type appendRequest struct {
	beat
	entries []*raft.Log // Data and Extensions still nil
	sizes   []int       // of Data and Extensions in turn
}

// getAppend decodes an append's head and checks everything Raft would panic on or
// believe: consecutive indexes, terms that do not fall, known types.
func getAppend(head []byte, payloadLen int) (appendRequest, error) {
	r := appendRequest{beat: getBeat(head)}
	n := int64(binary.BigEndian.Uint32(head[40:]))
	if n == 0 || n*entrySize+appendHead != int64(len(head)) {
		return r, malformedf("append: %d entries in a head of %d bytes", n, len(head))
	}
	if binary.BigEndian.Uint32(head[44:]) != 0 {
		return r, malformed("append: reserved bytes are not zero")
	}
	if err := r.check(r.prevIndex + uint64(n)); err != nil {
		return r, err
	}
	logs := make([]raft.Log, n)
	r.entries = make([]*raft.Log, n)
	r.sizes = make([]int, 0, 2*n)
	total, term := int64(0), r.prevTerm
	for i := range logs {
		p := head[appendHead+i*entrySize:]
		l := &logs[i]
		l.Index = r.prevIndex + 1 + uint64(i)
		l.Term = binary.BigEndian.Uint64(p)
		l.Type = raft.LogType(p[14])
		data, ext := int(binary.BigEndian.Uint32(p[8:])), int(binary.BigEndian.Uint16(p[12:]))
		switch {
		case l.Term < term || l.Term > r.term || l.Term == 0:
			return r, malformedf("append: entry %d of term %d after term %d in term %d", l.Index, l.Term, term, r.term)
		case l.Type != raft.LogCommand && l.Type != raft.LogNoop && l.Type != raft.LogBarrier && l.Type != raft.LogConfiguration:
			return r, malformedf("append: entry %d of type %d", l.Index, l.Type)
		case l.Type == raft.LogConfiguration && data > maxConfig:
			return r, malformedf("append: configuration of %d bytes at entry %d", data, l.Index)
		case p[15] != 0:
			return r, malformed("append: reserved bytes are not zero")
		}
		term = l.Term
		total += int64(data) + int64(ext)
		r.entries[i] = l
		r.sizes = append(r.sizes, data, ext)
	}
	if total != int64(payloadLen) {
		return r, malformedf("append: entries of %d bytes in a payload of %d", total, payloadLen)
	}
	return r, nil
}

// fill gives the entries their bytes.
func (r *appendRequest) fill(parts [][]byte) {
	for i, l := range r.entries {
		if data := parts[2*i]; len(data) > 0 {
			l.Data = data
		}
		if ext := parts[2*i+1]; len(ext) > 0 {
			l.Extensions = ext
		}
	}
}

// checkEntries follows fill: Raft, and whatever is behind it, believes what it finds
// in an entry, in goroutines where a panic ends the process. sum is the payload's
// checksum, which was compared with the bytes: Entries.Sum, which takes some of it
// from what the entries say of themselves, must come to the same.
func checkEntries(known Entries, r *appendRequest, sum uint32) error {
	for _, l := range r.entries {
		if l.Type == raft.LogConfiguration {
			if err := checkConfiguration(l.Data); err != nil {
				return malformedf("append: configuration at entry %d: %v", l.Index, err)
			}
			continue
		}
		if err := known.Check(r.group, l); err != nil {
			return malformedf("append: entry %d: %v", l.Index, err)
		}
	}
	if known == (plainEntries{}) {
		return nil // their sum was the frame's
	}
	said := uint32(0)
	for _, l := range r.entries {
		if len(l.Data) > 0 {
			said = known.Sum(said, l)
		}
		said = crc32.Update(said, castagnoli, l.Extensions)
	}
	if said != sum {
		return malformedf("append: entries whose checksums make %08x, their bytes make %08x", said, sum)
	}
	return nil
}

// checkConfiguration reports whether Raft can take b for a configuration: it
// panics, or never elects again, on what this refuses.
func checkConfiguration(b []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	servers := raft.DecodeConfiguration(b).Servers
	ids := make(map[raft.ServerID]bool, len(servers))
	voters := 0
	for _, s := range servers {
		if _, err := ParseServerID(s.ID); err != nil {
			return err
		}
		switch {
		case s.Address != raft.ServerAddress(s.ID):
			return fmt.Errorf("server %s has address %.80q", s.ID, string(s.Address))
		case ids[s.ID]:
			return fmt.Errorf("server %s twice", s.ID)
		case s.Suffrage < raft.Voter || s.Suffrage > raft.Staging:
			return fmt.Errorf("server %s has suffrage %d", s.ID, s.Suffrage)
		case s.Suffrage == raft.Voter:
			voters++
		}
		ids[s.ID] = true
	}
	if voters == 0 {
		return fmt.Errorf("no voter among %d servers", len(servers))
	}
	return nil
}

func putAppendAnswer(r *raft.AppendEntriesResponse) []byte {
	frame, head := newFrame(typeAppendAnswer, appendAnswerHead)
	binary.BigEndian.PutUint64(head, r.Term)
	binary.BigEndian.PutUint64(head[8:], r.LastLog)
	head[16] = appendFlags(r)
	return frame
}

func getAppendAnswer(from Peer, head []byte, resp *raft.AppendEntriesResponse) error {
	return appendResponse(from, head[16], binary.BigEndian.Uint64(head), binary.BigEndian.Uint64(head[8:]), resp)
}

// A vote is a RequestVote or, without transfer, a RequestPreVote.
type vote struct {
	group     uint64
	term      uint64
	lastIndex uint64
	lastTerm  uint64
	transfer  bool
}

func (v vote) frame(typ uint8) []byte {
	frame, head := newFrame(typ, voteHead)
	binary.BigEndian.PutUint64(head, v.group)
	binary.BigEndian.PutUint64(head[8:], v.term)
	binary.BigEndian.PutUint64(head[16:], v.lastIndex)
	binary.BigEndian.PutUint64(head[24:], v.lastTerm)
	if v.transfer {
		head[32] = flagTransfer
	}
	return frame
}

func getVote(head []byte) (vote, error) {
	v := vote{
		group:     binary.BigEndian.Uint64(head),
		term:      binary.BigEndian.Uint64(head[8:]),
		lastIndex: binary.BigEndian.Uint64(head[16:]),
		lastTerm:  binary.BigEndian.Uint64(head[24:]),
		transfer:  head[32]&flagTransfer != 0,
	}
	switch {
	case v.term == 0 || v.term > maxTerm:
		return v, malformedf("vote: term %d", v.term)
	case v.lastTerm >= v.term || v.lastIndex > maxIndex || (v.lastIndex == 0) != (v.lastTerm == 0):
		return v, malformedf("vote: last entry %d of term %d in term %d", v.lastIndex, v.lastTerm, v.term)
	}
	return v, nil
}

func putVoteAnswer(typ uint8, term uint64, granted bool) []byte {
	frame, head := newFrame(typ, voteAnswerHead)
	binary.BigEndian.PutUint64(head, term)
	if granted {
		head[8] = flagGranted
	}
	return frame
}

func getVoteAnswer(head []byte) (term uint64, granted bool, err error) {
	term = binary.BigEndian.Uint64(head)
	if term > maxTerm {
		return 0, false, malformedf("vote answer: term %d", term)
	}
	return term, head[8]&flagGranted != 0, nil
}

// putSnapshot encodes an InstallSnapshot: its payload is the configuration and
// then the snapshot's data.
func putSnapshot(group uint64, r *raft.InstallSnapshotRequest, data []byte) (frame []byte, payload [][]byte) {
	frame, head := newFrame(typeSnapshot, snapshotHead)
	binary.BigEndian.PutUint64(head, group)
	binary.BigEndian.PutUint64(head[8:], r.Term)
	binary.BigEndian.PutUint64(head[16:], r.LastLogIndex)
	binary.BigEndian.PutUint64(head[24:], r.LastLogTerm)
	binary.BigEndian.PutUint64(head[32:], r.ConfigurationIndex)
	binary.BigEndian.PutUint32(head[40:], uint32(len(r.Configuration)))
	head[44] = uint8(r.SnapshotVersion)
	payload = [][]byte{r.Configuration, data}
	setPayload(frame, payload...)
	return frame, payload
}

// getSnapshot decodes an InstallSnapshot's head; configLen bytes of the payload
// are the configuration.
func getSnapshot(from Peer, head []byte, payloadLen int) (group uint64, r *raft.InstallSnapshotRequest, configLen int, err error) {
	h, name := rpcHeader(from)
	group = binary.BigEndian.Uint64(head)
	configLen = int(binary.BigEndian.Uint32(head[40:]))
	r = &raft.InstallSnapshotRequest{
		RPCHeader:          h,
		SnapshotVersion:    raft.SnapshotVersion(head[44]),
		Term:               binary.BigEndian.Uint64(head[8:]),
		Leader:             name,
		LastLogIndex:       binary.BigEndian.Uint64(head[16:]),
		LastLogTerm:        binary.BigEndian.Uint64(head[24:]),
		ConfigurationIndex: binary.BigEndian.Uint64(head[32:]),
		Size:               int64(payloadLen - configLen),
	}
	switch {
	case r.Term == 0 || r.Term > maxTerm:
		err = malformedf("snapshot: term %d", r.Term)
	case r.LastLogIndex == 0 || r.LastLogIndex > maxIndex || r.LastLogTerm == 0 || r.LastLogTerm > r.Term:
		err = malformedf("snapshot: last entry %d of term %d in term %d", r.LastLogIndex, r.LastLogTerm, r.Term)
	case r.ConfigurationIndex > r.LastLogIndex:
		err = malformedf("snapshot: configuration of entry %d above last entry %d", r.ConfigurationIndex, r.LastLogIndex)
	case configLen > payloadLen || configLen > maxConfig:
		err = malformedf("snapshot: configuration of %d bytes in a payload of %d", configLen, payloadLen)
	case r.SnapshotVersion != raft.SnapshotVersionMax:
		err = malformedf("snapshot: version %d", r.SnapshotVersion)
	}
	return group, r, configLen, err
}

func putSnapshotAnswer(r *raft.InstallSnapshotResponse) []byte {
	frame, head := newFrame(typeSnapshotAnswer, snapshotAnswerHead)
	binary.BigEndian.PutUint64(head, r.Term)
	if r.Success {
		head[8] = flagSuccess
	}
	return frame
}

func getSnapshotAnswer(from Peer, head []byte, resp *raft.InstallSnapshotResponse) error {
	term := binary.BigEndian.Uint64(head)
	if term > maxTerm {
		return malformedf("snapshot answer: term %d", term)
	}
	h, _ := rpcHeader(from)
	*resp = raft.InstallSnapshotResponse{RPCHeader: h, Term: term, Success: head[8]&flagSuccess != 0}
	return nil
}

func putFailure(code uint8, text string) []byte {
	text = text[:min(len(text), maxFailureText)]
	frame, head := newFrame(typeFailure, failureHead+len(text))
	head[0] = code
	copy(head[failureHead:], text)
	return frame
}
