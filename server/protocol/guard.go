package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Guard knows which requests are served, and in which versions. It reads a request's
// header, and walks its body before kmsg decodes it. It is safe for concurrent use once
// Serve has been called for all.
//
// kmsg allocates an array's elements as soon as it has read their count, and bounds the
// count by the bytes left: eight megabytes of zeros after an absurd count become half a
// gigabyte of structures. It also loops over tagged fields as often as their count says,
// 2³² times for four bytes. A body the guard has accepted can do neither: every element
// and every tag it counts is there.
//
// What kmsg allocates for an accepted body is bounded by maxElements times the
// largest structure (some 100 bytes) and the bytes of strings, which are never
// more than the body. The walk itself allocates nothing.
type Guard struct {
	served [kmsg.MaxKey + 1]versions
}

// versions are those of one kind of request that are served.
type versions struct {
	min     int16
	layouts []*layout // by version less min; none: nothing is served
}

const (
	// maxElements bounds the array elements of one request, nested ones
	// included: less than 100 MiB of structures. Kafka clusters hold
	// some 200,000 partitions, so no honest request comes near.
	maxElements = 1 << 19
	// maxTags bounds the tagged fields of one request that we do not know.
	// kmsg keeps them in maps; none is defined today.
	maxTags = 64
)

var (
	// ErrUnknownKey is a request that is not served at all.
	ErrUnknownKey = errors.New("protocol: a request we do not serve, key")
	// ErrVersion is a request that is not served in its version.
	ErrVersion = errors.New("protocol: a version we do not serve")
	// ErrMalformed is a request whose bytes are none of its version's.
	ErrMalformed = errors.New("protocol: malformed request")
)

// Malformed returns an ErrMalformed that says what is wrong.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// Serve takes a kind of request among those that are served, in the versions from min to
// max. It panics for one that layouts.go does not have.
func (g *Guard) Serve(key kmsg.Key, min, max int16) {
	if _, ok := layouts[key]; !ok {
		panic("protocol: no layout of " + key.Name())
	}
	v := versions{min: min}
	for version := min; version <= max; version++ {
		v.layouts = append(v.layouts, layoutOf(key, version))
	}
	g.served[key] = v
}

// versions returns those of a kind of request, and reports whether there are any.
func (g *Guard) versions(key kmsg.Key) (v versions, served bool) {
	if key < 0 || int(key) >= len(g.served) {
		return versions{}, false
	}
	v = g.served[key]
	return v, len(v.layouts) > 0
}

// layout returns that of a version; nil: it is not served.
func (v versions) layout(version int16) *layout {
	if version < v.min || int(version)-int(v.min) >= len(v.layouts) {
		return nil
	}
	return v.layouts[version-v.min]
}

// Check walks the body of a request whose header ReadHeader accepted, and returns how
// many array elements it has, nested ones included. The body must be one request of its
// version and no more: anything else is ErrMalformed.
func (g *Guard) Check(h Header, body []byte) (elements int, err error) {
	return g.served[h.Key].layout(h.Version).count(body)
}

// A layout is the body of one request in one version.
type layout struct {
	flexible bool
	fields   []field
	tags     []tag
	tail     int // bytes that may follow the whole request
}

// A field is one field of a structure, or the element of an array.
type field struct {
	kind kind
	size int // of a fixed field, in bytes
	min  int // the fewest bytes one takes on the wire
	elem *field
	sub  *layout
}

type tag struct {
	key   uint32
	field field
}

type kind uint8

const (
	fixed     kind = iota // size bytes
	text                  // a string: int16 or compact length
	blob                  // bytes: int32 or compact length
	array                 // of elem
	structure             // of fields
	maybe                 // a structure after a byte that is -1 for null
)

// layoutOf returns the layout of a version of a request that layouts.go has.
func layoutOf(key kmsg.Key, version int16) *layout {
	return compileLayout(layouts[key].fields, version, IsFlexible(key, version))
}

// compileLayout returns the layout that the notation of layouts.go gives for
// one version. A fault in the notation is a fault of this package: it panics.
func compileLayout(notation string, version int16, flexible bool) *layout {
	p := &notationReader{rest: notation, version: version, flexible: flexible}
	l := p.structure(0)
	if p.rest != "" {
		panic("protocol: layout " + strconv.Quote(notation) + " ends at " + strconv.Quote(p.rest))
	}
	return l
}

// A notationReader compiles the notation of layouts.go.
type notationReader struct {
	rest     string
	version  int16
	flexible bool
}

// structure reads fields up to the closing byte, or to the end for 0.
func (p *notationReader) structure(closing byte) *layout {
	l := &layout{flexible: p.flexible}
	for {
		p.rest = strings.TrimLeft(p.rest, " ")
		switch {
		case p.rest == "" && closing == 0:
			return l
		case p.rest[0] == closing:
			p.rest = p.rest[1:]
			return l
		case p.rest[0] == '<':
			p.rest = p.rest[1:]
			l.tags = p.known()
			continue
		}
		present := p.versions()
		if p.rest[0] == '~' {
			if present {
				l.tail = int(p.rest[1] - '0')
			}
			p.rest = p.rest[2:]
			continue
		}
		f := p.field()
		if present {
			l.fields = append(l.fields, f)
		}
	}
}

// known reads the tagged fields after '<'.
func (p *notationReader) known() (tags []tag) {
	for {
		p.rest = strings.TrimLeft(p.rest, " ")
		if p.rest[0] == '>' {
			p.rest = p.rest[1:]
			return tags
		}
		key, rest, _ := strings.Cut(p.rest, "=")
		p.rest = rest
		n, err := strconv.ParseUint(key, 10, 32)
		if err != nil {
			panic("protocol: layout tag " + strconv.Quote(key))
		}
		tags = append(tags, tag{uint32(n), p.field()})
	}
}

// versions reads "3+:" or "3-5:" and reports whether the version lies within.
func (p *notationReader) versions() bool {
	end := strings.IndexAny(p.rest, ":([<>])? ")
	if end < 0 || p.rest[end] != ':' {
		return true
	}
	span := p.rest[:end]
	p.rest = p.rest[end+1:]
	from, to, ranged := strings.Cut(strings.TrimSuffix(span, "+"), "-")
	min, err := strconv.ParseInt(from, 10, 16)
	max := int64(math.MaxInt16)
	if err == nil && ranged {
		max, err = strconv.ParseInt(to, 10, 16)
	}
	if err != nil {
		panic("protocol: layout versions " + strconv.Quote(span))
	}
	return int64(p.version) >= min && int64(p.version) <= max
}

func (p *notationReader) field() field {
	c := p.rest[0]
	p.rest = p.rest[1:]
	length := func(fixedWidth int) int {
		if p.flexible {
			return 1
		}
		return fixedWidth
	}
	switch c {
	case '1', '2', '4', '8':
		return field{kind: fixed, size: int(c - '0'), min: int(c - '0')}
	case 'u':
		return field{kind: fixed, size: 16, min: 16}
	case 's':
		return field{kind: text, min: length(2)}
	case 'b':
		return field{kind: blob, min: length(4)}
	case '[':
		elem := p.field()
		if p.rest[0] != ']' {
			panic("protocol: layout array ends at " + strconv.Quote(p.rest))
		}
		p.rest = p.rest[1:]
		return field{kind: array, min: length(4), elem: &elem}
	case '(':
		sub := p.structure(')')
		return field{kind: structure, min: sub.minSize(), sub: sub}
	case '?':
		f := p.field()
		return field{kind: maybe, min: 1, sub: f.sub}
	}
	panic("protocol: layout field " + strconv.Quote(string(c)))
}

func (l *layout) minSize() int {
	n := 0
	for i := range l.fields {
		n += l.fields[i].min
	}
	if l.flexible {
		n++ // the count of tagged fields
	}
	return n
}

// count walks body, which must be one request of the layout and no more, and returns the
// number of array elements.
func (l *layout) count(body []byte) (elements int, err error) {
	w := walker{p: body}
	if err := w.structure(l); err != nil {
		return 0, err
	}
	if len(w.p) > l.tail {
		return 0, Malformed("%d bytes after its end", len(w.p))
	}
	return w.elements, nil
}

// A walker is the guard at work on one body.
type walker struct {
	p        []byte // what is left
	elements int
	tags     int
	walked   int // elements, since the last pause
}

// A walk of many elements pauses after each walkStretch of them, which are a millisecond
// or two, for as long: so a request of half a million leaves others a processor. Honest
// requests have fewer.
const (
	walkStretch = 10_000
	walkPause   = time.Millisecond
)

func (w *walker) structure(l *layout) error {
	for i := range l.fields {
		if err := w.field(&l.fields[i], l.flexible); err != nil {
			return err
		}
	}
	if l.flexible {
		return w.tagged(l)
	}
	return nil
}

func (w *walker) field(f *field, flexible bool) error {
	switch f.kind {
	case fixed:
		return w.skip(f.size)
	case text, blob:
		n, err := w.length(f.kind, flexible)
		if err != nil || n < 0 {
			return err
		}
		return w.skip(n)
	case array:
		n, err := w.length(array, flexible)
		if err != nil || n < 0 {
			return err
		}
		// In 64 bits, so that no count overflows.
		if int64(n)*int64(f.elem.min) > int64(len(w.p)) {
			return Malformed("an array of %d with %d bytes left", n, len(w.p))
		}
		if w.elements += n; w.elements > maxElements {
			return Malformed("more than %d array elements", maxElements)
		}
		if f.elem.kind == fixed {
			return w.skip(n * f.elem.size)
		}
		for range n {
			if err := w.field(f.elem, flexible); err != nil {
				return err
			}
			if w.walked++; w.walked == walkStretch {
				w.walked = 0
				time.Sleep(walkPause)
			}
		}
		return nil
	case structure:
		return w.structure(f.sub)
	case maybe:
		if len(w.p) == 0 {
			return Malformed("it ends early")
		}
		present := int8(w.p[0]) != -1
		w.p = w.p[1:]
		if !present {
			return nil
		}
		return w.structure(f.sub)
	}
	panic(fmt.Sprintf("protocol: layout kind %d", f.kind))
}

func (w *walker) skip(n int) error {
	if n > len(w.p) {
		return Malformed("%d bytes wanted, %d left", n, len(w.p))
	}
	w.p = w.p[n:]
	return nil
}

// length reads the length of a string, bytes or array; -1 is null.
func (w *walker) length(k kind, flexible bool) (int, error) {
	if flexible {
		u, err := w.uvarint()
		if err != nil {
			return 0, err
		}
		if u > math.MaxInt32 {
			return 0, Malformed("a length of %d", u)
		}
		return int(u) - 1, nil
	}
	width := 4
	if k == text {
		width = 2
	}
	if len(w.p) < width {
		return 0, Malformed("it ends early")
	}
	var n int
	if k == text {
		n = int(int16(binary.BigEndian.Uint16(w.p)))
	} else {
		n = int(int32(binary.BigEndian.Uint32(w.p)))
	}
	w.p = w.p[width:]
	if n < -1 {
		return 0, Malformed("a length of %d", n)
	}
	return n, nil
}

// uvarint reads an unsigned varint of at most 32 bits.
func (w *walker) uvarint() (uint32, error) {
	var x uint32
	for i := range 5 {
		if i >= len(w.p) {
			return 0, Malformed("it ends early")
		}
		b := w.p[i]
		if i == 4 && b > 0x0f {
			break
		}
		x |= uint32(b&0x7f) << (7 * i)
		if b < 0x80 {
			w.p = w.p[i+1:]
			return x, nil
		}
	}
	return 0, Malformed("a varint of more than 32 bits")
}

// tagged reads the tagged fields that end a structure (KIP-482). Keys must
// grow, as Kafka writes them, so none comes twice.
func (w *walker) tagged(l *layout) error {
	n, err := w.uvarint()
	if err != nil {
		return err
	}
	if int64(n)*2 > int64(len(w.p)) {
		return Malformed("%d tagged fields with %d bytes left", n, len(w.p))
	}
	last := int64(-1)
	for range n {
		key, err := w.uvarint()
		if err != nil {
			return err
		}
		size, err := w.uvarint()
		if err != nil {
			return err
		}
		if int64(key) <= last {
			return Malformed("tagged field %d after %d", key, last)
		}
		last = int64(key)
		if int64(size) > int64(len(w.p)) {
			return Malformed("a tagged field of %d bytes with %d left", size, len(w.p))
		}
		f := l.known(key)
		if f == nil {
			if w.tags++; w.tags > maxTags {
				return Malformed("more than %d unknown tagged fields", maxTags)
			}
			w.p = w.p[size:]
			continue
		}
		rest := w.p[size:]
		w.p = w.p[:size]
		if err := w.field(f, true); err != nil {
			return err
		}
		if len(w.p) > 0 {
			return Malformed("tagged field %d has %d bytes after its end", key, len(w.p))
		}
		w.p = rest
	}
	return nil
}

func (l *layout) known(key uint32) *field {
	for i := range l.tags {
		if l.tags[i].key == key {
			return &l.tags[i].field
		}
	}
	return nil
}

// IsFlexible reports whether a version of a request has compact lengths and
// tagged fields (KIP-482).
func IsFlexible(key kmsg.Key, version int16) bool {
	first := layouts[key].flexible
	return first >= 0 && version >= first
}
