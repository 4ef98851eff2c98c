package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"millrace/segment"
)

// A manifest is the list of a log's segments, and the only word on what the log
// holds. It is replaced whole, and every change to the list of segments happens
// in the moment of its rename. Big-endian:
//
//	 0  magic        [8]byte   "MLRMAN\r\n"
//	 8  version      uint32    1
//	12  length       uint32    of the file
//	16  crc          uint32    CRC-32C of the file without these four bytes
//	20  flags        uint32    bit 0: unusable until an installation is finished
//	24  generation   uint64    one more at each replacement
//	32  cluster      [24]byte  padded with zeros
//	56  topic        [16]byte
//	72  partition    int32
//	76  segments     uint32    count
//	80  epochs       uint32    count
//	84  removed      uint32    count
//	88  replica      [64]byte  padded with zeros
//	152 startOffset  int64     the log's
//	160 nextSerial   uint64    of the next segment to be made
//	168 endIndex     uint64    where the next segment begins if the last is sealed,
//	176 endOffset    int64     or if there is none; beyond the last if that is compacted
//	184 endTerm      uint64    of the entry before
//	192 segments, 104 bytes each:
//	      0  serial        uint64  part of the file's name
//	      8  flags         uint32  bit 0: sealed, bit 1: compacted, see segment.Info
//	     12  reserved      [4]byte zero
//	     16  firstIndex    uint64
//	     24  lastIndex     uint64
//	     32  baseOffset    int64
//	     40  nextOffset    int64
//	     48  prevTerm      uint64
//	     56  lastTerm      uint64
//	     64  maxTimestamp  int64
//	     72  bytes         int64   0 in the last segment until its first checkpoint or clean close
//	     80  salt          uint64
//	     88  created       int64
//	     96  reserved      [8]byte zero
//	then epochs, 16 bytes each: epoch int32, reserved [4]byte, start int64
//	then removed, 16 bytes each: serial uint64, baseOffset int64
//
// Removed names files that are no longer part of the log and may not have been
// deleted yet. Nothing else in the folder is ever deleted, save segments without
// a single frame, index files without a segment and temporary files.
type manifest struct {
	generation  uint64
	identity    segment.Identity
	startOffset int64
	nextSerial  uint64
	end         boundary
	base        []compacted       // on disk the first segments,
	tail        []manifestSegment // and the others
	epochs      []Epoch
	removed     []name
	// unusable marks the manifest that Install puts in the place of one that was
	// lost: it lists nothing, and must not pass for an empty log.
	unusable bool
}

// A boundary lies between two entries: it is where one begins, or will.
type boundary struct {
	index  uint64
	offset int64
	term   uint64 // of the entry before it
}

// A compacted is what a manifest says of a segment that compaction wrote. It holds offsets,
// and no entries: FirstIndex and LastIndex of info number frames, and are no index that Raft
// knows.
type compacted struct {
	name
	info segment.Info
}

// A manifestSegment is what a manifest says of a segment of entries. Only the last may be unsealed;
// its info then says what it held at its last checkpoint or clean close, or only
// how it begins (Bytes is 0).
type manifestSegment struct {
	name
	sealed bool
	info   segment.Info
}

// A name is what a segment's files are called after: its base offset, to read,
// and a serial number, to be unique.
type name struct {
	serial     uint64
	baseOffset int64
}

func (n name) file() string { return fmt.Sprintf("%020d-%08x.log", n.baseOffset, n.serial) }

// parseName reads the name of a segment's data file.
func parseName(s string) (name, bool) {
	base, rest, ok := strings.Cut(s, "-")
	serial, isLog := strings.CutSuffix(rest, ".log")
	if !ok || !isLog || len(base) != 20 {
		return name{}, false
	}
	offset, err := strconv.ParseInt(base, 10, 64)
	if err != nil {
		return name{}, false
	}
	n, err := strconv.ParseUint(serial, 16, 64)
	if err != nil {
		return name{}, false
	}
	return name{n, offset}, true
}

const (
	manifestName    = "manifest"
	manifestMagic   = "MLRMAN\r\n"
	manifestVersion = 1
	manifestHeader  = 192
	listedSize      = 104
	epochSize       = 16
	removedSize     = 16
	// maxManifest bounds what is read: some half a million segments.
	maxManifest = 64 << 20

	maxReplica = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (m *manifest) encode() []byte {
	rows := m.rows()
	size := manifestHeader + len(rows)*listedSize + len(m.epochs)*epochSize + len(m.removed)*removedSize
	p := make([]byte, size)
	be := binary.BigEndian
	copy(p, manifestMagic)
	be.PutUint32(p[8:], manifestVersion)
	be.PutUint32(p[12:], uint32(size))
	if m.unusable {
		be.PutUint32(p[20:], 1)
	}
	be.PutUint64(p[24:], m.generation)
	copy(p[32:56], m.identity.Cluster)
	copy(p[56:72], m.identity.Topic[:])
	be.PutUint32(p[72:], uint32(m.identity.Partition))
	be.PutUint32(p[76:], uint32(len(rows)))
	be.PutUint32(p[80:], uint32(len(m.epochs)))
	be.PutUint32(p[84:], uint32(len(m.removed)))
	copy(p[88:152], m.identity.Replica)
	be.PutUint64(p[152:], uint64(m.startOffset))
	be.PutUint64(p[160:], m.nextSerial)
	be.PutUint64(p[168:], m.end.index)
	be.PutUint64(p[176:], uint64(m.end.offset))
	be.PutUint64(p[184:], m.end.term)
	at := p[manifestHeader:]
	for _, s := range rows {
		be.PutUint64(at, s.serial)
		be.PutUint32(at[8:], s.flags())
		for i, x := range []uint64{
			s.info.FirstIndex, s.info.LastIndex, uint64(s.info.BaseOffset), uint64(s.info.NextOffset),
			s.info.PrevTerm, s.info.LastTerm, uint64(s.info.MaxTimestamp), uint64(s.info.Bytes),
			s.info.Salt, uint64(s.info.Created),
		} {
			be.PutUint64(at[16+8*i:], x)
		}
		at = at[listedSize:]
	}
	for _, e := range m.epochs {
		be.PutUint32(at, uint32(e.Epoch))
		be.PutUint64(at[8:], uint64(e.Start))
		at = at[epochSize:]
	}
	for _, r := range m.removed {
		be.PutUint64(at, r.serial)
		be.PutUint64(at[8:], uint64(r.baseOffset))
		at = at[removedSize:]
	}
	be.PutUint32(p[16:], manifestCRC(p))
	return p
}

const (
	flagSealed    = 1
	flagCompacted = 2
)

func (s *manifestSegment) flags() (flags uint32) {
	if s.sealed {
		flags |= flagSealed
	}
	if s.info.Compacted {
		flags |= flagCompacted
	}
	return flags
}

func manifestCRC(p []byte) uint32 {
	return crc32.Update(crc32.Checksum(p[:16], castagnoli), castagnoli, p[20:])
}

// parseManifest reads a manifest and checks that it makes sense: that segments
// follow one another without a gap, that only the last is unsealed, that nothing
// is listed twice.
func parseManifest(path string, p []byte) (*manifest, error) {
	corrupt := func(at int, found, expected string) (*manifest, error) {
		return nil, &segment.CorruptError{Path: path, Position: int64(at), Found: found, Expected: expected}
	}
	be := binary.BigEndian
	if len(p) < manifestHeader {
		return corrupt(0, fmt.Sprintf("%d bytes", len(p)), fmt.Sprintf("a manifest of at least %d", manifestHeader))
	}
	if string(p[:8]) != manifestMagic {
		return corrupt(0, fmt.Sprintf("manifest magic %q", p[:8]), fmt.Sprintf("%q", manifestMagic))
	}
	if n := be.Uint32(p[12:]); int64(n) != int64(len(p)) {
		return corrupt(12, fmt.Sprintf("length %d in a file of %d", n, len(p)), "the same")
	}
	if got, want := be.Uint32(p[16:]), manifestCRC(p); got != want {
		return corrupt(16, fmt.Sprintf("manifest CRC %#08x", got), fmt.Sprintf("%#08x", want))
	}
	if v := be.Uint32(p[8:]); v != manifestVersion {
		return corrupt(8, fmt.Sprintf("manifest version %d", v), fmt.Sprint(manifestVersion))
	}
	segments, epochs, removed := int64(be.Uint32(p[76:])), int64(be.Uint32(p[80:])), int64(be.Uint32(p[84:]))
	if want := manifestHeader + segments*listedSize + epochs*epochSize + removed*removedSize; want != int64(len(p)) {
		return corrupt(76, fmt.Sprintf("counts %d, %d, %d in %d bytes", segments, epochs, removed, len(p)), fmt.Sprintf("%d bytes", want))
	}
	m := &manifest{
		generation: be.Uint64(p[24:]),
		identity: segment.Identity{
			Cluster:   strings.TrimRight(string(p[32:56]), "\x00"),
			Topic:     [16]byte(p[56:72]),
			Partition: int32(be.Uint32(p[72:])),
			Replica:   strings.TrimRight(string(p[88:152]), "\x00"),
		},
		startOffset: int64(be.Uint64(p[152:])),
		nextSerial:  be.Uint64(p[160:]),
		unusable:    be.Uint32(p[20:]) == 1,
		end:         boundary{be.Uint64(p[168:]), int64(be.Uint64(p[176:])), be.Uint64(p[184:])},
	}
	if m.startOffset < 0 || m.end.index == 0 || m.end.offset < 0 {
		return corrupt(152, fmt.Sprintf("start %d, end %+v", m.startOffset, m.end), "offsets of 0 or more, an index of 1 or more")
	}
	serials := map[uint64]bool{}
	at := manifestHeader
	for i := range segments {
		q := p[at:]
		var x [10]uint64
		for j := range x {
			x[j] = be.Uint64(q[16+8*j:])
		}
		flags := be.Uint32(q[8:])
		s := manifestSegment{name{be.Uint64(q), int64(x[2])}, flags&flagSealed != 0, segment.Info{
			FirstIndex: x[0], LastIndex: x[1], BaseOffset: int64(x[2]), NextOffset: int64(x[3]),
			PrevTerm: x[4], LastTerm: x[5], MaxTimestamp: int64(x[6]), Bytes: int64(x[7]),
			Salt: x[8], Created: int64(x[9]), Compacted: flags&flagCompacted != 0,
		}}
		if flags&^(flagSealed|flagCompacted) != 0 || flags == flagCompacted {
			return corrupt(at+8, fmt.Sprintf("segment flags %#x", flags), "known ones; only sealed segments are compacted")
		}
		if why := s.invalid(i == segments-1); why != "" {
			return corrupt(at, fmt.Sprintf("segment %+v", s), why)
		}
		if begin := (boundary{s.info.FirstIndex, s.info.BaseOffset, s.info.PrevTerm}); !m.mayGoOn(begin) {
			return corrupt(at, fmt.Sprintf("segment at index %d, offset %d, after term %d", begin.index, begin.offset, begin.term),
				fmt.Sprintf("what follows %+v", m.rows()[i-1].info))
		}
		if !m.list(s) {
			return corrupt(at, "a compacted segment behind one that is not", "compacted segments at the beginning")
		}
		if s.sealed && i == segments-1 && !m.mayGoOn(m.end) {
			return corrupt(168, fmt.Sprintf("end %+v", m.end), fmt.Sprintf("%+v", endOf(s.info)))
		}
		if s.serial >= m.nextSerial || serials[s.serial] {
			return corrupt(at, fmt.Sprintf("serial %d", s.serial), fmt.Sprintf("one of its own, below %d", m.nextSerial))
		}
		serials[s.serial] = true
		at += listedSize
	}
	for i := range epochs {
		e := Epoch{int32(be.Uint32(p[at:])), int64(be.Uint64(p[at+8:]))}
		if i > 0 && (e.Epoch <= m.epochs[i-1].Epoch || e.Start <= m.epochs[i-1].Start) || e.Start < 0 {
			return corrupt(at, fmt.Sprintf("epoch %d from %d", e.Epoch, e.Start), "epochs and their starts to grow")
		}
		m.epochs = append(m.epochs, e)
		at += epochSize
	}
	for range removed {
		n := name{be.Uint64(p[at:]), int64(be.Uint64(p[at+8:]))}
		if serials[n.serial] || n.serial >= m.nextSerial {
			return corrupt(at, fmt.Sprintf("removed serial %d", n.serial), "one that is not listed")
		}
		m.removed = append(m.removed, n)
		at += removedSize
	}
	return m, nil
}

// invalid returns what the segment should be and is not, "" if nothing is wrong.
func (s *manifestSegment) invalid(last bool) string {
	i := s.info
	switch {
	case i.FirstIndex == 0 || i.BaseOffset < 0 || i.FirstIndex > math.MaxUint64/2:
		return "an index of 1 or more, an offset of 0 or more"
	case !s.sealed && !last:
		return "a sealed segment"
	case !s.sealed && i.Bytes == 0:
		return ""
	case i.LastIndex+1 < i.FirstIndex || i.LastIndex > math.MaxUint64/2 || i.NextOffset < i.BaseOffset || i.LastTerm < i.PrevTerm:
		return "an end that is not before the beginning"
	case i.Bytes < segment.HeaderSize || i.Bytes < segment.HeaderSize+int64(i.Frames())*segment.FrameHeaderSize:
		return "room for its entries"
	case s.sealed && i.Frames() == 0:
		return "entries"
	}
	return ""
}

// list adds a segment at the end; false if it cannot be there: a compacted one behind one that
// is not.
func (m *manifest) list(s manifestSegment) bool {
	if !s.info.Compacted {
		m.tail = append(m.tail, s)
		return true
	}
	m.base = append(m.base, compacted{s.name, s.info})
	return len(m.tail) == 0
}

// mayGoOn reports whether what begins at p may come behind what is listed: at the end of the
// tail; behind the base at the offset at which that ends, and at some later index, since it
// has fewer frames than it had entries.
func (m *manifest) mayGoOn(p boundary) bool {
	if n := len(m.tail); n > 0 {
		return p == endOf(m.tail[n-1].info)
	}
	if n := len(m.base); n > 0 {
		last := m.base[n-1].info
		return p.offset == last.NextOffset && p.term == last.LastTerm && p.index > last.LastIndex
	}
	return true
}

// rows returns all segments as the file lists them.
func (m *manifest) rows() []manifestSegment {
	rows := make([]manifestSegment, 0, len(m.base)+len(m.tail))
	for _, c := range m.base {
		rows = append(rows, manifestSegment{c.name, true, c.info})
	}
	return append(rows, m.tail...)
}

// names returns the names of all segments, in their order, to be read or changed.
func (m *manifest) names() []*name {
	var names []*name
	for i := range m.base {
		names = append(names, &m.base[i].name)
	}
	for i := range m.tail {
		names = append(names, &m.tail[i].name)
	}
	return names
}

func endOf(i segment.Info) boundary { return boundary{i.LastIndex + 1, i.NextOffset, i.LastTerm} }

// removeFirst takes the first n segments out of the lists and calls their files removed.
func (m *manifest) removeFirst(n int) {
	for _, gone := range m.names()[:n] {
		m.removed = append(m.removed, *gone)
	}
	k := min(n, len(m.base))
	m.base, m.tail = m.base[k:], m.tail[n-k:]
}

// removeFrom takes the segments of the tail from number k on out of it and calls their files
// removed.
func (m *manifest) removeFrom(k int) {
	for _, s := range m.tail[k:] {
		m.removed = append(m.removed, s.name)
	}
	m.tail = m.tail[:k]
}

// clone returns a copy to be changed and written.
func (m *manifest) clone() *manifest {
	c := *m
	c.generation++
	c.base, c.tail = slices.Clone(m.base), slices.Clone(m.tail)
	c.epochs, c.removed = slices.Clone(m.epochs), slices.Clone(m.removed)
	return &c
}

// readManifest returns nil without an error when there is none.
func readManifest(fs segment.FS, dir string) (*manifest, error) {
	path := filepath.Join(dir, manifestName)
	p, err := segment.ReadFile(fs, path, maxManifest)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseManifest(path, p)
}
