package server

import (
	"reflect"
	"slices"
)

// maxAnswer bounds the answer to one request where a few bytes ask for many: a
// group's members, all of a group's offsets, a topic's settings. Whoever wants
// more asks for fewer things at once, and is told so for each that has no place.
const maxAnswer = 64 << 20

// errNoPlace is the message for what has no place in an answer.
var errNoPlace = sentencef("The answer to this request would be larger than %d MiB; ask for less at once", maxAnswer>>20)

// fits reports whether x, a part of the answer that the handler has put together
// from what is in memory anyway, has a place in it. What is encoded is counted in
// the connection's share before it is, so this may wait for memory. If that does not
// come, because Shutdown does or the client leaves, there will be no answer: x is no
// larger than it may be, and the client must not be told so.
//
// It walks x by reflection, some 20 ns a field: it is for parts that can be large
// and are asked for seldom.
func (c *call) fits(x any) bool {
	if c.failed != nil {
		return false
	}
	n := c.answer + sizeOf(reflect.ValueOf(x))
	if n > maxAnswer {
		return false
	}
	// In steps, so that small answers take none and large ones few.
	if want := n &^ (1<<20 - 1); want > c.covered {
		if c.failed = c.conn.hold(want - c.covered); c.failed != nil {
			return false
		}
		c.covered = want
	}
	c.answer = n
	return true
}

// sizeOf is about what x takes in an answer, in bytes.
func sizeOf(x reflect.Value) int {
	switch x.Kind() {
	case reflect.String:
		return 4 + x.Len()
	case reflect.Pointer:
		if x.IsNil() {
			return 1
		}
		return sizeOf(x.Elem())
	case reflect.Slice:
		n := 4
		switch x.Type().Elem().Kind() {
		case reflect.Uint8, reflect.Int32, reflect.Int64:
			return n + x.Len()*int(x.Type().Elem().Size())
		}
		for i := range x.Len() {
			n += sizeOf(x.Index(i))
		}
		return n
	case reflect.Struct:
		n := 1
		for i := range x.NumField() {
			n += sizeOf(x.Field(i))
		}
		return n
	case reflect.Map:
		return 0 // tags that we do not know
	}
	return int(x.Type().Size())
}

// distinct returns a list of c's request without what it repeats, in its order. list is
// not changed.
func distinct[T comparable](c *call, list []T) []T {
	if len(list) < 2 {
		return list
	}
	seen := make(map[T]struct{}, len(list))
	return slices.DeleteFunc(slices.Clone(list), func(x T) bool {
		c.step()
		_, again := seen[x]
		seen[x] = struct{}{}
		return again
	})
}
