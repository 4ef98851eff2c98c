package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
)

// An Identity says whose log it is. It is part of every segment and manifest,
// so that a file copied into the wrong folder is refused.
type Identity struct {
	Cluster   string   // cluster id, at most 24 bytes
	Topic     [16]byte // topic id
	Partition int32
	// Replica is the owner, "<node>.<incarnation>", at most 64 bytes. Only the
	// manifest holds it, since segments travel between replicas.
	// "" when opening: any; else it must be the one that created the log.
	Replica string
}

func (id Identity) String() string {
	return fmt.Sprintf("cluster %q topic %s partition %d", id.Cluster, hex.EncodeToString(id.Topic[:]), id.Partition)
}

// SameLog reports whether two identities name the same partition.
func (id Identity) SameLog(o Identity) bool {
	return id.Cluster == o.Cluster && id.Topic == o.Topic && id.Partition == o.Partition
}

const (
	// HeaderSize is the length in bytes of a segment's header; the first frame
	// lies there.
	HeaderSize = 128
	// MaxCluster is the longest cluster id, in bytes.
	MaxCluster = 24

	segmentMagic   = "MLRSEG\r\n" // the line end shows a transfer in text mode
	segmentVersion = 1
)

// A Header begins a segment file. Big-endian:
//
//	  0  magic       [8]byte   "MLRSEG\r\n"
//	  8  version     uint32    1
//	 12  headerLen   uint32    128
//	 16  cluster     [24]byte  padded with zeros
//	 40  topic       [16]byte
//	 56  partition   int32
//	 60  reserved    [4]byte   zero
//	 64  firstIndex  uint64    of the first frame
//	 72  baseOffset  int64     of the first frame
//	 80  prevTerm    uint64    term of the entry before the first; 0 if there is none
//	 88  salt        uint64    random, part of every frame header's CRC
//	 96  created     int64     milliseconds since 1970
//	104  reserved    [20]byte  zero
//	124  headerCRC   uint32    CRC-32C of bytes 0 to 123
type Header struct {
	Identity   Identity // without Replica
	FirstIndex uint64
	BaseOffset int64
	PrevTerm   uint64
	Salt       uint64
	Created    int64
}

func (h Header) encode() []byte {
	p := make([]byte, HeaderSize)
	copy(p, segmentMagic)
	binary.BigEndian.PutUint32(p[8:], segmentVersion)
	binary.BigEndian.PutUint32(p[12:], HeaderSize)
	copy(p[16:40], h.Identity.Cluster)
	copy(p[40:56], h.Identity.Topic[:])
	binary.BigEndian.PutUint32(p[56:], uint32(h.Identity.Partition))
	binary.BigEndian.PutUint64(p[64:], h.FirstIndex)
	binary.BigEndian.PutUint64(p[72:], uint64(h.BaseOffset))
	binary.BigEndian.PutUint64(p[80:], h.PrevTerm)
	binary.BigEndian.PutUint64(p[88:], h.Salt)
	binary.BigEndian.PutUint64(p[96:], uint64(h.Created))
	binary.BigEndian.PutUint32(p[124:], crc32.Checksum(p[:124], castagnoli))
	return p
}

// parseHeader reads the header of the segment file at path.
func parseHeader(path string, p []byte) (Header, error) {
	corrupt := func(at int64, found, expected string) (Header, error) {
		return Header{}, &CorruptError{Path: path, Position: at, Found: found, Expected: expected}
	}
	if len(p) < HeaderSize {
		return corrupt(0, fmt.Sprintf("%d bytes", len(p)), fmt.Sprintf("a segment header of %d bytes", HeaderSize))
	}
	if m := p[:8]; string(m) != segmentMagic {
		return corrupt(0, fmt.Sprintf("segment magic %q", m), fmt.Sprintf("%q", segmentMagic))
	}
	if want, got := crc32.Checksum(p[:124], castagnoli), binary.BigEndian.Uint32(p[124:]); want != got {
		return corrupt(124, fmt.Sprintf("segment header CRC %#08x", got), fmt.Sprintf("%#08x", want))
	}
	if v := binary.BigEndian.Uint32(p[8:]); v != segmentVersion {
		return corrupt(8, fmt.Sprintf("segment version %d", v), fmt.Sprint(segmentVersion))
	}
	if n := binary.BigEndian.Uint32(p[12:]); n != HeaderSize {
		return corrupt(12, fmt.Sprintf("segment header length %d", n), fmt.Sprint(HeaderSize))
	}
	h := Header{
		Identity: Identity{
			Cluster:   string(bytes.TrimRight(p[16:40], "\x00")),
			Topic:     [16]byte(p[40:56]),
			Partition: int32(binary.BigEndian.Uint32(p[56:])),
		},
		FirstIndex: binary.BigEndian.Uint64(p[64:]),
		BaseOffset: int64(binary.BigEndian.Uint64(p[72:])),
		PrevTerm:   binary.BigEndian.Uint64(p[80:]),
		Salt:       binary.BigEndian.Uint64(p[88:]),
		Created:    int64(binary.BigEndian.Uint64(p[96:])),
	}
	if h.FirstIndex == 0 || h.BaseOffset < 0 {
		return corrupt(64, fmt.Sprintf("first index %d, base offset %d", h.FirstIndex, h.BaseOffset), "an index of 1 or more, an offset of 0 or more")
	}
	return h, nil
}
