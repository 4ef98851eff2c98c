// Package protocoltest makes requests for tests: with every field set to something, and
// such as no client sends.
package protocoltest

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Filler makes requests with every field set to something.
type Filler struct {
	*rand.Rand
	Most int // elements of an array
	Tags int // a structure in so many has a tagged field that nobody knows; 0: none has
}

// NewFiller makes the same with the same seed.
func NewFiller(seed uint64) Filler { return Filler{rand.New(rand.NewPCG(seed, 1)), 3, 4} }

// Request makes a request.
func (f Filler) Request(key kmsg.Key, version int16) kmsg.Request {
	req := kmsg.RequestForKey(int16(key))
	f.Fill(reflect.ValueOf(req).Elem())
	req.SetVersion(version)
	return req
}

// Fill sets a message, or a part of one.
func (f Filler) Fill(v reflect.Value) {
	if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
		if f.Tags > 0 && f.IntN(f.Tags) == 0 {
			tags.Set(1000+f.Uint32N(1000), make([]byte, f.IntN(4)))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.Fill(v.Field(i))
		}
	case reflect.Pointer:
		if f.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.Fill(v.Elem())
		}
	case reflect.Slice:
		n := f.IntN(f.Most + 1)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.Fill(v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			f.Fill(v.Index(i))
		}
	case reflect.String:
		p := make([]byte, f.IntN(200))
		for i := range p {
			p[i] = byte('a' + f.IntN(26))
		}
		v.SetString(string(p))
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(f.Int64())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(f.Uint64())
	case reflect.Float64:
		v.SetFloat(f.Float64())
	default:
		panic(v.Type().String())
	}
}

// Frame is a request's header, without the client, and what follows it.
func Frame(key kmsg.Key, version int16, rest ...byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(key))
	p = binary.BigEndian.AppendUint16(p, uint16(version))
	p = binary.BigEndian.AppendUint32(p, 7)
	return append(p, rest...)
}

// Absurd are counts and lengths to be put where one could stand.
var Absurd = [][]byte{
	{0x7f, 0xff, 0xff, 0xff},       // 2³¹−1
	{0xff, 0xff, 0xff, 0xff},       // −1, 2³²−1
	{0xff, 0xff, 0xff, 0xfe},       // −2
	{0x00, 0x10, 0x00, 0x00},       // 2²⁰
	{0x00, 0x01, 0x00, 0x00},       // 2¹⁶
	{0xff, 0xff, 0xff, 0xff, 0x0f}, // 2³²−1 as a varint
	{0xff, 0xff, 0xff, 0xff, 0x07}, // 2³¹−1
	{0x80, 0x80, 0x40},             // 2²⁰
	{0x80, 0x80, 0x04},             // 2¹⁶
	{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, // 64 bits
	{0x80, 0x80, 0x80, 0x80, 0x00},                               // 0, overlong
}
