package vote

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// CurrentTerm is the name under which Raft keeps the term of a group (keyCurrentTerm in
// hashicorp/raft, which does not export it).
const CurrentTerm = "CurrentTerm"

const (
	// The two halves of a vote, under Raft's names for them.
	lastVoteTerm = "LastVoteTerm"
	lastVoteCand = "LastVoteCand"

	// The key of the tally over all other records.
	sumGroup = 1<<64 - 1
	sumName  = "sum"
)

// bucketName is the bucket of all records. The name is part of the format.
var bucketName = []byte("stable")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A tally covers all records: how many there are and the sum of their checksums.
type tally struct{ count, sum uint64 }

// recordKey is the key of a group's record.
func recordKey(group uint64, name string) string {
	return string(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(name)), group)) + name
}

// splitKey takes apart what recordKey has put together.
func splitKey(key string) (group uint64, name string) {
	return binary.BigEndian.Uint64([]byte(key[:8])), key[8:]
}

// encodeRecord returns what stands under a key.
func encodeRecord(key string, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), recordSum(key, data)), data...)
}

func recordSum(key string, data []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, data)
}

func (t tally) with(key string, data []byte) tally {
	return tally{t.count + 1, t.sum + uint64(recordSum(key, data))}
}

func (t tally) without(key string, data []byte) tally {
	return tally{t.count - 1, t.sum - uint64(recordSum(key, data))}
}

func (t tally) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, t.count), t.sum)
}

// readRecords reads all records out of the bytes of a file: data by key, without the
// tally. It trusts nothing. ErrDamaged unless the file is sound, as boltFile has it, every
// record has its checksum, and the tally is right.
func readRecords(p []byte) (map[string][]byte, error) {
	records := make(map[string][]byte)
	err := readBucket(p, bucketName, func(at int, isBucket bool, key, value []byte) error {
		if isBucket || len(key) < 8 || len(value) < 4 {
			return damaged(at, "found no record of a group under %.40q", key)
		}
		sum, data := binary.BigEndian.Uint32(value), value[4:]
		if want := recordSum(string(key), data); sum != want {
			return damaged(at, "record %.40q has checksum %08x, its bytes %08x", key, sum, want)
		}
		records[string(key)] = bytes.Clone(data)
		return nil
	})
	if err != nil {
		return nil, err
	}

	key := recordKey(sumGroup, sumName)
	found, ok := records[key]
	if !ok {
		return nil, damaged(0, "the sum of all records is missing")
	}
	delete(records, key)
	var total tally
	for key, data := range records {
		total = total.with(key, data)
	}
	if want := total.encode(); !bytes.Equal(found, want) {
		return nil, damaged(0, "the sum of all records is %x, of the %d found %x", found, total.count, want)
	}
	return records, nil
}
