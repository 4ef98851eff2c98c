package index

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// HeaderSize is the length in bytes of the header of an index file.
const HeaderSize = 64

// version is the format of index files; another one is rebuilt.
const version = 1

// The two kinds of index file.
const (
	KindEntries = "MLRI"
	KindTimes   = "MLRT"
)

// ErrDamaged says that an index file is not what was asked for: torn, foreign,
// of another version, or bad bytes. It is to be rebuilt.
var ErrDamaged = errors.New("index: file damaged or foreign")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Header begins an index file; the entries follow it. It is written last,
// when the segment is sealed or closed cleanly, so that a file that a crash
// left half-written has none. Big-endian:
//
//	 0  magic       [4]byte  KindEntries or KindTimes
//	 4  version     uint32   1
//	 8  salt        uint64   of the segment it belongs to
//	16  firstIndex  uint64   of the segment
//	24  baseOffset  int64    of the segment
//	32  count       uint64   entries in the file
//	40  frames      uint64   frames of the segment it covers
//	48  entriesCRC  uint32   CRC-32C of the entries
//	52  reserved    [8]byte  zero
//	60  headerCRC   uint32   CRC-32C of bytes 0 to 59
type Header struct {
	Kind       string
	Salt       uint64
	FirstIndex uint64
	BaseOffset int64
	// Frames is the number of frames of the segment that the table covers.
	Frames int
}

// Encode returns the header of a file with these entries.
func (h Header) Encode(entries []byte) []byte {
	p := make([]byte, HeaderSize)
	copy(p, h.Kind)
	binary.BigEndian.PutUint32(p[4:], version)
	binary.BigEndian.PutUint64(p[8:], h.Salt)
	binary.BigEndian.PutUint64(p[16:], h.FirstIndex)
	binary.BigEndian.PutUint64(p[24:], uint64(h.BaseOffset))
	binary.BigEndian.PutUint64(p[32:], uint64(len(entries)/h.entrySize()))
	binary.BigEndian.PutUint64(p[40:], uint64(h.Frames))
	binary.BigEndian.PutUint32(p[48:], crc32.Checksum(entries, castagnoli))
	binary.BigEndian.PutUint32(p[60:], crc32.Checksum(p[:60], castagnoli))
	return p
}

// Parse returns the entries of file p, which alias p, if they are those of h:
// same kind and segment, covering at least h.Frames frames. The number of
// frames they cover is returned too. ErrDamaged.
func (h Header) Parse(p []byte) (entries []byte, frames int, err error) {
	if len(p) < HeaderSize || string(p[:4]) != h.Kind ||
		binary.BigEndian.Uint32(p[60:]) != crc32.Checksum(p[:60], castagnoli) ||
		binary.BigEndian.Uint32(p[4:]) != version ||
		binary.BigEndian.Uint64(p[8:]) != h.Salt ||
		binary.BigEndian.Uint64(p[16:]) != h.FirstIndex ||
		int64(binary.BigEndian.Uint64(p[24:])) != h.BaseOffset {
		return nil, 0, ErrDamaged
	}
	count, covered := binary.BigEndian.Uint64(p[32:]), binary.BigEndian.Uint64(p[40:])
	body := p[HeaderSize:]
	if count > uint64(len(body)/h.entrySize()) || covered < uint64(h.Frames) || covered > 1<<40 {
		return nil, 0, ErrDamaged
	}
	if h.Kind == KindEntries && count != covered {
		return nil, 0, ErrDamaged
	}
	entries = body[:int(count)*h.entrySize()]
	if binary.BigEndian.Uint32(p[48:]) != crc32.Checksum(entries, castagnoli) {
		return nil, 0, ErrDamaged
	}
	return entries, int(covered), nil
}

func (h Header) entrySize() int {
	if h.Kind == KindTimes {
		return TimeEntrySize
	}
	return EntrySize
}
