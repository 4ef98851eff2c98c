package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
)

// rawBatch returns a sealed batch of count records with the given encoded records,
// compressed by c, as a client without a producer id sends it.
func rawBatch(t testing.TB, c Codec, count int32, records []byte) Batch {
	t.Helper()
	b, err := deflate(make([]byte, HeaderSize), c, records)
	if err != nil {
		t.Fatal(err)
	}
	return wrap(c, count, b[HeaderSize:])
}

// wrap returns a sealed batch around what is, or pretends to be, compressed by c.
func wrap(c Codec, count int32, compressed []byte) Batch {
	b := append(make([]byte, HeaderSize), compressed...)
	return finish(b, header{
		epoch: -1, attributes: int16(c), last: count - 1, base: 1000, max: 1000,
		producer: Producer{ID: -1, Epoch: -1, Sequence: -1}, count: count,
	})
}

func put16(b Batch, at int, v int64) { binary.BigEndian.PutUint16(b[at:], uint16(v)) }
func put32(b Batch, at int, v int64) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
func put64(b Batch, at int, v int64) { binary.BigEndian.PutUint64(b[at:], uint64(v)) }

func TestGateRefusesDamagedHeaders(t *testing.T) {
	const (
		offset, length, magicAt, crc, attributes, last   = 0, 8, 16, 17, 21, 23
		baseTime, producerID, epoch, sequence, countByte = 27, 43, 51, 53, 57
	)
	// Each case changes one field of a batch of three records; sealed says that
	// the CRC is made right again, as a client that means it would have it.
	for _, tt := range []struct {
		name   string
		damage func(b Batch)
		sealed bool
		want   error
	}{
		{"base offset 1", func(b Batch) { put64(b, offset, 1) }, false, ErrInvalid},
		{"base offset -1", func(b Batch) { put64(b, offset, -1) }, false, ErrInvalid},
		{"length 0", func(b Batch) { put32(b, length, 0) }, false, ErrCorrupt},
		{"length -1", func(b Batch) { put32(b, length, -1) }, false, ErrCorrupt},
		{"length -2^31", func(b Batch) { put32(b, length, math.MinInt32) }, false, ErrCorrupt},
		{"length 2^31-1", func(b Batch) { put32(b, length, math.MaxInt32) }, false, ErrCorrupt},
		{"length of less than a header", func(b Batch) { put32(b, length, HeaderSize-12-1) }, false, ErrCorrupt},
		{"length of a header alone", func(b Batch) { put32(b, length, HeaderSize-12) }, false, ErrInvalid},
		{"length one more", func(b Batch) { put32(b, length, int64(len(b)-12+1)) }, false, ErrCorrupt},
		{"length one less", func(b Batch) { put32(b, length, int64(len(b)-12-1)) }, false, ErrInvalid},
		{"magic 0", func(b Batch) { b[magicAt] = 0 }, false, ErrMagic},
		{"magic 1", func(b Batch) { b[magicAt] = 1 }, false, ErrMagic},
		{"magic 3", func(b Batch) { b[magicAt] = 3 }, false, ErrCorrupt},
		{"magic -1", func(b Batch) { b[magicAt] = 0xff }, false, ErrCorrupt},
		{"crc", func(b Batch) { b[crc+3]++ }, false, ErrChecksum},
		{"codec 5", func(b Batch) { put16(b, attributes, 5) }, true, ErrCodec},
		{"codec 7", func(b Batch) { put16(b, attributes, 7) }, true, ErrCodec},
		{"codec gzip on plain records", func(b Batch) { put16(b, attributes, 1) }, true, ErrInvalid},
		{"codec snappy on plain records", func(b Batch) { put16(b, attributes, 2) }, true, ErrInvalid},
		{"codec lz4 on plain records", func(b Batch) { put16(b, attributes, 3) }, true, ErrInvalid},
		{"codec zstd on plain records", func(b Batch) { put16(b, attributes, 4) }, true, ErrInvalid},
		{"control", func(b Batch) { put16(b, attributes, controlBit) }, true, ErrControl},
		{"control and transactional", func(b Batch) { put16(b, attributes, controlBit|transactBit) }, true, ErrControl},
		{"transactional without a producer", func(b Batch) { put16(b, attributes, transactBit) }, true, ErrInvalid},
		{"last offset delta -1", func(b Batch) { put32(b, last, -1) }, true, ErrInvalid},
		{"last offset delta one less", func(b Batch) { put32(b, last, 1) }, true, ErrInvalid},
		{"last offset delta one more", func(b Batch) { put32(b, last, 3) }, true, ErrInvalid},
		{"last offset delta 2^31-1", func(b Batch) { put32(b, last, math.MaxInt32) }, true, ErrInvalid},
		{"count -1", func(b Batch) { put32(b, countByte, -1) }, true, ErrInvalid},
		{"count 0", func(b Batch) { put32(b, countByte, 0) }, true, ErrInvalid},
		{"count 2^31-1", func(b Batch) { put32(b, countByte, math.MaxInt32) }, true, ErrInvalid},
		{"count -1 and last -2", func(b Batch) { put32(b, countByte, -1); put32(b, last, -2) }, true, ErrInvalid},
		{"count 0 and last -1", func(b Batch) { put32(b, countByte, 0); put32(b, last, -1) }, true, ErrInvalid},
		{"count -2^31 and last 2^31-1", func(b Batch) { put32(b, countByte, math.MinInt32); put32(b, last, math.MaxInt32) }, true, ErrInvalid},
		{"count and last one less", func(b Batch) { put32(b, countByte, 2); put32(b, last, 1) }, true, ErrInvalid},
		{"count and last one more", func(b Batch) { put32(b, countByte, 4); put32(b, last, 3) }, true, ErrInvalid},
		{"count and last 2^31-1", func(b Batch) { put32(b, countByte, math.MaxInt32); put32(b, last, math.MaxInt32-1) }, true, ErrInvalid},
		{"producer id -2", func(b Batch) { put64(b, producerID, -2) }, true, ErrInvalid},
		{"producer id without epoch", func(b Batch) { put64(b, producerID, 1); put32(b, sequence, 0) }, true, ErrInvalid},
		{"producer id without sequence", func(b Batch) { put64(b, producerID, 1); put16(b, epoch, 0) }, true, ErrInvalid},
		{"producer id with sequence -2", func(b Batch) { put64(b, producerID, 1); put16(b, epoch, 0); put32(b, sequence, -2) }, true, ErrInvalid},
		{"epoch without producer id", func(b Batch) { put16(b, epoch, 1) }, true, ErrInvalid},
		{"sequence without producer id", func(b Batch) { put32(b, sequence, 1) }, true, ErrInvalid},
		{"epoch -2 without producer id", func(b Batch) { put16(b, epoch, -2) }, true, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := mustBuild(t, None, Record{Timestamp: 5, Value: []byte("a")}, Record{Timestamp: 9, Value: []byte("b")}, Record{Timestamp: 7, Value: []byte("c")})
			tt.damage(b)
			if tt.sealed {
				b.seal()
			}
			got, err := Validate(b, -1)
			if !errors.Is(err, tt.want) || got != nil {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

// class returns the one sentinel a server would act on, or nil.
func class(err error) error {
	for _, s := range []error{ErrTransactional, ErrTimestamp, ErrMagic, ErrTooLarge, ErrCodec, ErrCorrupt, ErrInvalid} {
		if errors.Is(err, s) {
			return s
		}
	}
	return nil
}

func TestEveryRefusalIsOneKafkaCode(t *testing.T) {
	all := []error{ErrTransactional, ErrTimestamp, ErrMagic, ErrTooLarge, ErrCodec, ErrCorrupt, ErrInvalid}
	for _, a := range all {
		for _, b := range all {
			if a != b && errors.Is(a, b) {
				t.Errorf("%v is %v", a, b)
			}
		}
	}
	var re *RecordError
	_, err := Validate(rawBatch(t, None, 1, []byte{14, 0, 0, 0, 9, 2, 'v', 0}), -1)
	if !errors.As(err, &re) || re.Index != 0 || re.Reason != "key length -5" || !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func TestGateAcceptsOptionalFieldsLeftOut(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(b Batch)
	}{
		{"leader epoch", func(b Batch) { put32(b, 12, 77) }},
		{"Sarama's epoch 0 beside no producer id", func(b Batch) { put16(b, 51, 0) }},
		{"Sarama's sequence 0 beside no producer id", func(b Batch) { put32(b, 53, 0) }},
		{"producer", func(b Batch) { put64(b, 43, 0); put16(b, 51, 0); put32(b, 53, 0) }},
		{"producer at its last sequence", func(b Batch) { put64(b, 43, 0); put16(b, 51, math.MaxInt16); put32(b, 53, math.MaxInt32) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := mustBuild(t, None, Record{Timestamp: 5, Value: []byte("a")})
			tt.change(b)
			b.seal()
			before := bytes.Clone(b)
			if _, err := Validate(b, -1); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, before) {
				t.Error("changed")
			}
		})
	}
}

// The bits that are the broker's, or nobody's yet, are cleared. Kafka clears append
// time on a topic with create time, and stores the others.
func TestGateClearsTheBrokersAttributes(t *testing.T) {
	for _, c := range codecs {
		want := mustBuild(t, c, Record{Timestamp: 5}, Record{Timestamp: 9}, Record{Timestamp: 7})
		for bit := range 16 {
			bits := int16(1) << bit
			if bits&(codecMask|transactBit|controlBit) != 0 {
				continue
			}
			b := Batch(bytes.Clone(want))
			put16(b, 21, int64(b.Attributes()|bits))
			if bits == appendTimeBit {
				put64(b, 35, 1234) // what a broker that was read from had stamped
			}
			b.seal()
			got, err := Validate(b, -1)
			if bits == appendTimeBit && err != ErrTimestamp || bits != appendTimeBit && err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v, bit %d: %x, %v; want %x", c, bit, got, err, want)
			}
		}
	}
}

// Old Saramas leave every offset delta 0. Kafka takes what comes and numbers it.
func TestGateNumbersRecords(t *testing.T) {
	for _, c := range codecs {
		for name, delta := range map[string]func(int32) int32{
			"all 0":        func(int32) int32 { return 0 },
			"from 1":       func(i int32) int32 { return i + 1 },
			"backwards":    func(i int32) int32 { return -i },
			"the last one": func(i int32) int32 { return i + i/299 },
			"far apart":    func(i int32) int32 { return i * 1e6 },
		} {
			var records []byte
			var want []Record
			for i := range int32(300) {
				r := Record{Offset: int64(i), Timestamp: 100 - int64(i), Key: fmt.Append(nil, i), Value: kib(1)[0].Value, Headers: []Header{{"h", nil}}}
				want = append(want, r)
				records = appendRecord(records, r, r.Timestamp-100, delta(i))
			}
			b := rawBatch(t, c, 300, records)
			put64(b, 27, 100)
			put64(b, 43, 77)
			put16(b, 51, 3)
			put32(b, 53, 12)
			b.seal()
			got, err := Validate(b, -1)
			if err != nil {
				t.Fatalf("%v, %s: %v", c, name, err)
			}
			promises(t, got)
			if !reflect.DeepEqual(collect(t, got), want) || got.ProducerID() != 77 || got.ProducerEpoch() != 3 || got.BaseSequence() != 12 || got.Codec() != c {
				t.Errorf("%v, %s: other records, or %x", c, name, got[:HeaderSize])
			}
			if _, err := Validate(b, len(got)-1); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%v, %s: %d bytes in a limit of %d: %v", c, name, len(got), len(got)-1, err)
			}
		}
	}
}

func TestGateFillsInTheMaxTimestamp(t *testing.T) {
	for _, c := range codecs {
		for _, wrong := range []int64{-1, 0, 5, 8, 10, math.MaxInt64, math.MinInt64} {
			b := mustBuild(t, c, Record{Timestamp: 5}, Record{Timestamp: 9}, Record{Timestamp: 7})
			want := bytes.Clone(b)
			put64(b, 35, wrong)
			b.seal()
			got, err := Validate(b, -1)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v, %d: got %x, %v; want %x", c, wrong, got, err, want)
			}
		}
	}
}

func TestTransactionalBatchIsReturnedBesideItsError(t *testing.T) {
	bu := Builder{Transactional: true, Producer: &Producer{ID: 7}}
	bu.Append(Record{Value: []byte("v")})
	b, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Validate(b, -1); err != ErrTransactional || !bytes.Equal(got, b) {
		t.Errorf("got %v, %v", got, err)
	}
	b[len(b)-1] = 9 // now it is nothing but damaged
	b.seal()
	if got, err := Validate(b, -1); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrTransactional) || got != nil {
		t.Errorf("damaged: got %v, %v", got, err)
	}
}

func TestGateLimitsTheBytesAsTheyAre(t *testing.T) {
	b := mustBuild(t, Zstd, Record{Value: bytes.Repeat([]byte("v"), 1000)})
	for _, tt := range []struct {
		limit int
		want  error
	}{{-1, nil}, {len(b), nil}, {len(b) - 1, ErrTooLarge}, {0, ErrTooLarge}} {
		if _, err := Validate(b, tt.limit); !errors.Is(err, tt.want) {
			t.Errorf("limit %d: %v", tt.limit, err)
		}
	}
}

func TestGateTakesOneWholeBatch(t *testing.T) {
	b := mustBuild(t, None, Record{Value: []byte("v")})
	if _, err := Validate(nil, -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("none: %v", err)
	}
	if _, err := Validate(append(bytes.Clone(b), b...), -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("two: %v", err)
	}
	if _, err := Validate(append(bytes.Clone(b), 0), -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("one and a byte: %v", err)
	}
	for n := 1; n < len(b); n++ {
		if _, err := Validate(b[:n], -1); class(err) != ErrCorrupt {
			t.Errorf("%d of %d bytes: %v", n, len(b), err)
		}
	}
}

// A record by its fields, each of which a case may replace by other bytes.
func fields(length, attributes, timestamp, offset, keyLength, key, valueLength, value, count, headers []byte) []byte {
	body := bytes.Join([][]byte{attributes, timestamp, offset, keyLength, key, valueLength, value, count, headers}, nil)
	if length == nil {
		length = v(int64(len(body)))
	}
	return append(length, body...)
}

// v is a zigzag varint.
func v(x int64) []byte { return binary.AppendVarint(nil, x) }

func TestGateRefusesDamagedRecordsInEveryCodec(t *testing.T) {
	good := func() []byte {
		return fields(nil, []byte{0}, v(0), v(0), v(1), []byte("k"), v(1), []byte("v"), v(1), bytes.Join([][]byte{v(1), []byte("h"), v(1), []byte("w")}, nil))
	}
	second := func(offset int64) []byte {
		return fields(nil, []byte{0}, v(0), v(offset), v(-1), nil, v(-1), nil, v(0), nil)
	}
	const huge = math.MaxInt32
	nine := []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80}
	for _, tt := range []struct {
		name    string
		count   int32
		records []byte
		ok      bool
	}{
		{"one record", 1, good(), true},
		{"two records", 2, append(good(), second(1)...), true},
		{"null header value", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(1), append(v(0), v(-1)...)), true},
		{"unused attributes", 1, fields(nil, []byte{0xff}, v(0), v(0), v(-1), nil, v(-1), nil, v(0), nil), true},
		{"lowest timestamp", 1, fields(nil, []byte{0}, v(math.MinInt64), v(0), v(-1), nil, v(-1), nil, v(0), nil), true},
		{"padded varint", 1, fields(nil, []byte{0}, []byte{0x80, 0}, v(0), v(-1), nil, v(-1), nil, v(0), nil), true},
		{"no record", 1, nil, false},
		{"one record for two", 2, good(), false},
		{"two records for one", 1, append(good(), second(1)...), false},
		{"byte after", 1, append(good(), 0), false},
		{"length 0", 1, v(0), false},
		{"length -1", 1, append(v(-1), good()[1:]...), false},
		{"length one more", 1, append(v(int64(len(good()))), good()[1:]...), false},
		{"length one less", 1, append(v(int64(len(good())-2)), good()[1:]...), false},
		{"length less than a record", 1, append(v(minRecord-1), second(0)[1:]...), false},
		{"length beyond", 1, append(v(1000), good()[1:]...), false},
		{"length 2^31-1", 1, append(v(huge), good()[1:]...), false},
		{"length -2^31", 1, append(v(math.MinInt32), good()[1:]...), false},
		{"length of 33 bits", 1, append(v(1<<32+20), good()[1:]...), false},
		{"length of 6 bytes", 1, append([]byte{0x98, 0x80, 0x80, 0x80, 0x80, 0x00}, good()[1:]...), false},
		{"length without end", 1, append(nine, 0x80), false},
		{"timestamp that wraps", 1, fields(nil, []byte{0}, v(math.MaxInt64), v(0), v(-1), nil, v(-1), nil, v(0), nil), true},
		{"timestamp of 65 bits", 1, fields(nil, []byte{0}, append(bytes.Clone(nine), 2), v(0), v(-1), nil, v(-1), nil, v(0), nil), false},
		{"timestamp of 11 bytes", 1, fields(nil, []byte{0}, append(bytes.Clone(nine), 0x80, 0), v(0), v(-1), nil, v(-1), nil, v(0), nil), false},
		{"key length -2", 1, fields(nil, []byte{0}, v(0), v(0), v(-2), nil, v(-1), nil, v(0), nil), false},
		{"key length -2^31", 1, fields(nil, []byte{0}, v(0), v(0), v(math.MinInt32), nil, v(-1), nil, v(0), nil), false},
		{"key length one more", 1, fields(nil, []byte{0}, v(0), v(0), v(2), []byte("k"), v(-1), nil, v(0), nil), false},
		{"key length into the next record", 2, append(fields(nil, []byte{0}, v(0), v(0), v(5), []byte("k"), v(-1), nil, v(0), nil), second(1)...), false},
		{"key length 2^31-1", 1, fields(nil, []byte{0}, v(0), v(0), v(huge), []byte("k"), v(-1), nil, v(0), nil), false},
		{"value length -2", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-2), nil, v(0), nil), false},
		{"value length one more", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(2), []byte("v"), v(0), nil), false},
		{"value length one less", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(1), []byte("vv"), v(0), nil), false},
		{"value length 2^31-1", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(huge), []byte("v"), v(0), nil), false},
		{"header count -1", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(-1), nil), false},
		{"header count 1 of 0", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(1), nil), false},
		{"header count 2^31-1", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(huge), nil), false},
		{"header key null", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(1), append(v(-1), v(-1)...)), false},
		{"header key beyond", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(1), append(v(9), v(-1)...)), false},
		{"header value -2", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(1), append(v(0), v(-2)...)), false},
		{"header value beyond", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(1), append(v(0), v(9)...)), false},
		{"byte after the headers", 1, fields(nil, []byte{0}, v(0), v(0), v(-1), nil, v(-1), nil, v(0), []byte{0}), false},
		{"number across the record's end", 2, append(append(v(7), 0, 0, 0, 1, 1, 0x80, 0x80), second(1)...), false},
	} {
		for _, c := range codecs {
			t.Run(fmt.Sprint(tt.name, "/", c), func(t *testing.T) {
				b := rawBatch(t, c, tt.count, tt.records)
				_, err := Validate(b, -1)
				if tt.ok && err != nil {
					t.Fatal(err)
				}
				// A length beyond the limit of expansion is too large, a plain
				// one is invalid at once.
				if !tt.ok && !errors.Is(err, ErrInvalid) && (c == None || !errors.Is(err, ErrTooLarge)) {
					t.Fatalf("got %v", err)
				}
				n := 0
				var first error
				for _, err := range b.Records() {
					if first != nil {
						t.Fatal("goes on after an error")
					}
					if first = err; err == nil {
						n++
					}
				}
				if tt.ok && (first != nil || n != int(tt.count)) {
					t.Errorf("%d records and then %v", n, first)
				}
				// Records allows gaps, which compaction leaves; nothing else.
				if !tt.ok && first == nil {
					t.Error("Records finds nothing wrong")
				}
			})
		}
	}
}

func TestAnyFlippedBitIsRefused(t *testing.T) {
	for _, c := range codecs {
		good := mustBuild(t, c, Record{Timestamp: 5, Key: []byte("key"), Value: []byte("value")}, Record{Timestamp: 9})
		for i := range good {
			for bit := range 8 {
				b := Batch(bytes.Clone(good))
				b[i] ^= 1 << bit
				_, err := Validate(b, -1)
				if outside := i >= 12 && i < 16; (err == nil) != outside { // the leader epoch is not the client's
					t.Errorf("%v: bit %d of byte %d: %v", c, bit, i, err)
				}
			}
		}
	}
}

// Whatever passes the gate can be read by everything below it.
func TestDamageUnderARightCRCIsRefusedOrReadable(t *testing.T) {
	for _, c := range codecs {
		good := mustBuild(t, c, variety()[:4]...)
		passed := 0
		for i := crcStart; i < len(good); i++ {
			for _, x := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 0x7f, 0xff} {
				b := Batch(bytes.Clone(good))
				b[i] ^= x
				b.seal()
				got, err := Validate(b, -1)
				if got == nil {
					if class(err) == nil {
						t.Fatalf("%v: byte %d ^ %#x: no Kafka code for %v", c, i, x, err)
					}
					continue
				}
				passed++
				promises(t, got)
				if n := len(collect(t, got)); n != 4 {
					t.Errorf("%v: byte %d ^ %#x: %d records", c, i, x, n)
				}
			}
		}
		if passed == 0 {
			t.Errorf("%v: no damage passes, not even to a timestamp", c)
		}
	}
}

func TestSplit(t *testing.T) {
	a, b := mustBuild(t, None, Record{Value: []byte("a")}), mustBuild(t, Gzip, Record{Value: []byte("b")})
	p := bytes.Join([][]byte{a, b, a[:30]}, nil)
	first, rest, err := Split(p)
	if err != nil || !bytes.Equal(first, a) || len(rest) != len(b)+30 || cap(first) != len(first) {
		t.Fatal(first, rest, err)
	}
	second, rest, err := Split(rest)
	if err != nil || !bytes.Equal(second, b) || len(rest) != 30 {
		t.Fatal(second, rest, err)
	}
	if x, y, err := Split(rest); !errors.Is(err, ErrShort) || x != nil || y != nil {
		t.Fatal(x, y, err)
	}
	for n := range len(a) {
		if _, _, err := Split(a[:n]); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, tt := range []struct {
		name   string
		damage func(b Batch)
		want   error
	}{
		{"length -1", func(b Batch) { put32(b, 8, -1) }, ErrCorrupt},
		{"length 48", func(b Batch) { put32(b, 8, 48) }, ErrCorrupt},
		{"length 2^31-1", func(b Batch) { put32(b, 8, math.MaxInt32) }, ErrShort},
		{"magic 0", func(b Batch) { b[16] = 0 }, ErrMagic},
		{"magic 1", func(b Batch) { b[16] = 1 }, ErrMagic},
		{"magic 9", func(b Batch) { b[16] = 9 }, ErrCorrupt},
	} {
		d := bytes.Clone(a)
		tt.damage(d)
		if _, _, err := Split(d); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
