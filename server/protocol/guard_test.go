package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol/protocoltest"
)

// everyLayout calls test for every request and version that has a layout.
func everyLayout(t *testing.T, test func(t *testing.T, key kmsg.Key, version int16, l *layout)) {
	keys := make([]kmsg.Key, 0, len(layouts))
	for key := range layouts {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		t.Run(key.Name(), func(t *testing.T) {
			for v := int16(0); v <= kmsg.RequestForKey(int16(key)).MaxVersion(); v++ {
				test(t, key, v, layoutOf(key, v))
			}
		})
	}
}

func TestGuardAcceptsWhatKmsgEncodes(t *testing.T) {
	everyLayout(t, func(t *testing.T, key kmsg.Key, version int16, l *layout) {
		for seed := range uint64(200) {
			req := protocoltest.NewFiller(seed).Request(key, version)
			if req.IsFlexible() != l.flexible {
				t.Fatalf("version %d: kmsg says flexible=%v, the layout %v", version, req.IsFlexible(), l.flexible)
			}
			body := req.AppendTo(nil)
			if err := l.check(body); err != nil {
				t.Fatalf("version %d, seed %d: %v\n%x", version, seed, err, body)
			}
		}
	})
}

func TestGuardRefusesEveryPrefixAndEveryExtension(t *testing.T) {
	everyLayout(t, func(t *testing.T, key kmsg.Key, version int16, l *layout) {
		for seed := range uint64(5) {
			body := protocoltest.NewFiller(seed).Request(key, version).AppendTo(nil)
			for n := range len(body) {
				if err := l.check(body[:n]); !errors.Is(err, ErrMalformed) {
					t.Fatalf("version %d, seed %d: the first %d of %d bytes: %v", version, seed, n, len(body), err)
				}
			}
			more := append(body, make([]byte, l.tail)...)
			if err := l.check(more); err != nil {
				t.Fatalf("version %d, seed %d: %d bytes after its end: %v", version, seed, l.tail, err)
			}
			if err := l.check(append(more, 0)); !errors.Is(err, ErrMalformed) {
				t.Fatalf("version %d, seed %d: a byte too many: %v", version, seed, err)
			}
		}
	})
}

// Absurd counts at every place of every request, followed by a lot of
// zeros. What the guard lets pass must cost kmsg little more than it is long.
func TestAbsurdCountsCostLittle(t *testing.T) {
	const tail = 64 << 10
	apart := 64 // places are further apart the further in they are, by this part of it
	if testing.Short() {
		apart = 4
	}
	zeros, spliced := make([]byte, 0, 1<<20), make([]byte, 0, 1<<20)
	everyLayout(t, func(t *testing.T, key kmsg.Key, version int16, l *layout) {
		f := protocoltest.NewFiller(7)
		f.Most = 2
		body := f.Request(key, version).AppendTo(nil)
		// What is let through at one place is measured together first: all of it rarely
		// costs what the shortest may, and to measure stops everything that runs.
		for at := 0; at <= len(body); at += 1 + at/apart {
			each := func(do func(p []byte, count []byte)) {
				for _, count := range protocoltest.Absurd {
					p := append(append(zeros, body[:at]...), count...)
					n := len(p)
					p = p[:n+tail]
					clear(p[n:])
					long, short := p, p[:n+tail/7]
					spliced = append(append(spliced[:0], p[:n]...), body[min(n, len(body)):]...)
					for _, p := range [][]byte{long, short, spliced} {
						if l.check(p) == nil {
							do(p, count)
						}
					}
				}
			}
			least := uint64(math.MaxUint64)
			together := allocated(func() {
				each(func(p, _ []byte) {
					least = min(least, mayCost(p))
					decode(key, version, p)
				})
			})
			if together <= least {
				continue
			}
			each(func(p, count []byte) {
				if got, most := allocated(func() { decode(key, version, p) }), mayCost(p); got > most {
					t.Fatalf("version %d: % x at %d: kmsg allocates %d bytes for %d", version, count, at, got, len(p))
				}
			})
		}
	})
}

// mayCost is how many bytes kmsg may allocate to decode a body that the guard lets through.
func mayCost(body []byte) uint64 { return 40*uint64(len(body)) + 4096 }

// decode has kmsg decode a body, whatever it is.
func decode(key kmsg.Key, version int16, body []byte) {
	req := kmsg.RequestForKey(int16(key))
	req.SetVersion(version)
	req.ReadFrom(body)
}

// allocated returns how many bytes are allocated while something is done. It stops
// everything that runs, twice.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Legal elements without end. A hundred megabytes of the densest request
// must not become more than as much again.
func TestElementsAreBounded(t *testing.T) {
	for key := range layouts {
		for v := int16(0); v <= kmsg.RequestForKey(int16(key)).MaxVersion(); v++ {
			l := layoutOf(key, v)
			for _, f := range l.fields {
				if f.kind == array && f.elem.kind == structure && f.elem.min < 4 && f.elem.sub.fields != nil {
					size := goSize(key)
					if cost := maxElements * size; cost > 100<<20 {
						t.Errorf("%s version %d: %d elements of %d bytes", key.Name(), v, maxElements, size)
					}
				}
			}
		}
	}
}

// goSize returns the size of the largest structure in any array of a request.
func goSize(key kmsg.Key) (size int) {
	var look func(t reflect.Type)
	look = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Struct:
			for i := range t.NumField() {
				look(t.Field(i).Type)
			}
		case reflect.Slice:
			size = max(size, int(t.Elem().Size()))
			look(t.Elem())
		}
	}
	look(reflect.TypeOf(kmsg.RequestForKey(int16(key))).Elem())
	return size
}

// Tagged fields are counted, not looped over.
func TestTaggedFieldsAreCapped(t *testing.T) {
	l := compileLayout("", 0, true)
	tags := func(n int, of func(i int) []byte) []byte {
		p := binary.AppendUvarint(nil, uint64(n))
		for i := range n {
			p = append(p, of(i)...)
		}
		return p
	}
	growing := func(i int) []byte { return append(binary.AppendUvarint(nil, uint64(i)), 1, 'x') }
	for _, c := range []struct {
		name string
		body []byte
		ok   bool
	}{
		{"none", []byte{0}, true},
		{"as many as are allowed", tags(maxTags, growing), true},
		{"one more", tags(maxTags+1, growing), false},
		{"2³²−1 of them", []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, false},
		{"2²⁸ of them, eight bytes", []byte{0x80, 0x80, 0x80, 0x80, 0x01, 0, 0, 0}, false},
		{"the same twice", []byte{2, 5, 0, 5, 0}, false},
		{"going down", []byte{2, 5, 0, 4, 0}, false},
		{"one longer than what is left", []byte{1, 5, 9, 1}, false},
		{"one of 2³²−1 bytes", []byte{1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f}, false},
	} {
		if err := l.check(c.body); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestGuardAllocatesNothing(t *testing.T) {
	body := protocoltest.NewFiller(3).Request(kmsg.Fetch, 18).AppendTo(nil)
	l := layoutOf(kmsg.Fetch, 18)
	if n := testing.AllocsPerRun(100, func() {
		if err := l.check(body); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRequest holds every decoder to this: what the guard accepts kmsg decodes
// without a panic, into no more elements than the body has bytes.
func FuzzRequest(f *testing.F) {
	for key := range layouts {
		max := kmsg.RequestForKey(int16(key)).MaxVersion()
		for _, v := range []int16{0, max / 2, max} {
			f.Add(int16(key), v, protocoltest.NewFiller(uint64(key)).Request(key, v).AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, k, version int16, body []byte) {
		key := kmsg.Key(k)
		if _, ok := layouts[key]; !ok {
			return
		}
		req := kmsg.RequestForKey(k)
		if version < 0 || version > req.MaxVersion() {
			return
		}
		l := layoutOf(key, version)
		if l.check(body) != nil {
			return
		}
		req.SetVersion(version)
		if req.ReadFrom(body) != nil {
			return // null where there must be something
		}
		if n := countElements(reflect.ValueOf(req).Elem()); n > len(body) {
			t.Errorf("%d elements of %d bytes", n, len(body))
		}
		pieces := kmsg.RequestForKey(k)
		pieces.SetVersion(version)
		if err := decodeInPieces(pieces, l, body, 2, func() {}); err != nil || !bytes.Equal(pieces.AppendTo(nil), req.AppendTo(nil)) { // no number need equal itself
			t.Errorf("in pieces it is %+v, %v, and in one %+v", pieces, err, req)
		}
	})
}

func countElements(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			return 0
		}
		for i := range v.NumField() {
			n += countElements(v.Field(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			n += countElements(v.Elem())
		}
	case reflect.Slice:
		n += v.Len()
		for i := range v.Len() {
			n += countElements(v.Index(i))
		}
	}
	return n
}

// check tells whether body is one request of the layout and no more.
func (l *layout) check(body []byte) error {
	_, err := l.count(body)
	return err
}
