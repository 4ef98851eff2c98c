package record

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"errors"
)

// The batches in testdata/java were written by the Java client, kafka-clients
// 4.4.0 with snappy-java 1.1.10.7, lz4-java 1.11.2 and zstd-jni 1.5.7-17, through
// MemoryRecords.withRecords and its siblings.

func javaBatch(t testing.TB, name string) Batch {
	t.Helper()
	p, err := os.ReadFile(filepath.Join("testdata", "java", name+".batch"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// javaRecords is what they hold; only the lines of the fifth value differ.
func javaRecords(lines int) []Record {
	var text []byte
	for i := range lines {
		// int overflows in Java: 32 bits
		text = fmt.Appendf(text, "line %d\n", int32(i)*int32(i)%997)
	}
	return []Record{
		{Offset: 0, Timestamp: 1700000000000, Key: []byte("k"), Value: []byte("v")},
		{Offset: 1, Timestamp: 1700000000007, Value: []byte("no key")},
		{Offset: 2, Timestamp: 1699999999000, Key: []byte("deleted")},
		{Offset: 3, Timestamp: 1700000000009, Key: []byte{}, Value: []byte{}},
		{Offset: 4, Timestamp: 1700000000009, Value: text, Headers: []Header{
			{Key: "a", Value: []byte("1")}, {Key: "a"}, {Key: "", Value: []byte{}},
		}},
		{Offset: 5, Timestamp: 1700000000001, Key: []byte("z"), Value: []byte("end")},
	}
}

func TestGateAcceptsWhatTheJavaClientWrites(t *testing.T) {
	for _, tt := range []struct {
		name     string
		codec    Codec
		lines    int
		producer Producer
		err      error
	}{
		{"none", None, 9, Producer{-1, -1, -1}, nil},
		{"gzip", Gzip, 9000, Producer{-1, -1, -1}, nil},
		{"snappy", Snappy, 9000, Producer{-1, -1, -1}, nil},
		{"lz4", LZ4, 9000, Producer{-1, -1, -1}, nil},
		{"zstd", Zstd, 9000, Producer{-1, -1, -1}, nil},
		{"zstd-19", Zstd, 9000, Producer{-1, -1, -1}, nil}, // window of 8 MiB
		{"zstd-22", Zstd, 9000, Producer{-1, -1, -1}, nil}, // window of 128 MiB
		{"idempotent", None, 9, Producer{4711, 3, 12}, nil},
		{"transactional", LZ4, 9, Producer{4711, 3, 12}, ErrTransactional},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := javaBatch(t, tt.name)
			before := bytes.Clone(p)
			b, err := Validate(p, len(p))
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if b == nil || !bytes.Equal(b, before) {
				t.Fatal("batch lost or changed")
			}
			if b.Codec() != tt.codec {
				t.Errorf("codec %v", b.Codec())
			}
			if p := (Producer{b.ProducerID(), b.ProducerEpoch(), b.BaseSequence()}); p != tt.producer {
				t.Errorf("producer %+v", p)
			}
			if got, want := collect(t, b), javaRecords(tt.lines); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %.300v\nwant %.300v", got, want)
			}
		})
	}
}

func TestPlainBatchesAreByteForByteThoseOfTheJavaClient(t *testing.T) {
	if got, want := mustBuild(t, None, javaRecords(9)...), javaBatch(t, "none"); !sameButEpoch(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	bu := Builder{Producer: &Producer{4711, 3, 12}}
	for _, r := range javaRecords(9) {
		bu.Append(r)
	}
	b, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	if want := javaBatch(t, "idempotent"); !sameButEpoch(b, want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
}

// sameButEpoch compares batches but for the leader epoch, which the CRC leaves out.
func sameButEpoch(a, b Batch) bool {
	return bytes.Equal(a[:12], b[:12]) && bytes.Equal(a[16:], b[16:])
}

func TestMarkersAreByteForByteThoseOfTheJavaClient(t *testing.T) {
	for name, kind := range map[string]MarkerType{"commit": Commit, "abort": Abort} {
		want := javaBatch(t, name)
		m := Marker{Type: kind, CoordinatorEpoch: 9, Timestamp: 1700000000000}
		if got := BuildMarker(4711, 3, m); !sameButEpoch(got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", name, got, want)
		}
		if got, err := want.Marker(); err != nil || got != m {
			t.Errorf("%s: read %+v, %v", name, got, err)
		}
		if _, err := Validate(want, -1); !errors.Is(err, ErrControl) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s at the gate: %v", name, err)
		}
	}
}
