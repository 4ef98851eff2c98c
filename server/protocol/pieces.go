package protocol

import (
	"encoding/binary"
	"net"
	"reflect"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// kmsg decodes a request at once, and encodes an answer into one slice of bytes. For half
// a million topics that is a quarter of a second of a processor each, and an answer is
// copied each time it has to grow, which the scheduler cannot interrupt. DecodeInPieces
// and EncodeInPieces do both in pieces, of some elements of the longest list, and call a
// function for each element, which may pause. All the rest of the message is decoded or
// encoded again with each piece.

const (
	// readElements is how many elements are decoded at once.
	readElements = 1000
	// shortRest is how many bytes of a request may be decoded again with each piece.
	shortRest = 1000
)

// DecodeInPieces is req.ReadFrom(body), for a body that Check has accepted. It calls step
// for each element of the longest list.
func (g *Guard) DecodeInPieces(req kmsg.Request, body []byte, step func()) error {
	return decodeInPieces(req, g.served[req.Key()].layout(req.GetVersion()), body, readElements, step)
}

// decodeInPieces decodes so many elements at once.
func decodeInPieces(req kmsg.Request, l *layout, body []byte, most int, step func()) error {
	var f *field
	var before, first, end, n int // where f's count and its elements are, and how many
	var other int                 // how many the next longest list has
	w := walker{p: body}
	for i := range l.fields {
		at := len(body) - len(w.p)
		here := w
		if err := w.field(&l.fields[i], l.flexible); err != nil {
			return err
		}
		if l.fields[i].kind != array {
			continue
		}
		count, err := here.length(array, l.flexible)
		if err != nil {
			return err
		}
		if other = max(other, min(count, n)); count > n {
			f, n = &l.fields[i], count
			before, first, end = at, len(body)-len(here.p), len(body)-len(w.p)
		}
	}
	// A short rest costs little to be decoded again. The first piece must be the longest list.
	if n <= most || other >= most || before+len(body)-end > shortRest {
		return req.ReadFrom(body)
	}
	var list, all reflect.Value // what of req the field is, and of it what is decoded
	w = walker{p: body[first:end]}
	for at := 0; at < n; at += most {
		count := min(most, n-at)
		from := w.p
		for range count {
			if err := w.field(f.elem, l.flexible); err != nil {
				return err
			}
			step()
		}
		p := append([]byte(nil), body[:before]...) // what is decoded may alias it
		p = AppendLength(p, count, l.flexible)
		p = append(append(p, from[:len(from)-len(w.p)]...), body[end:]...)
		if err := req.ReadFrom(p); err != nil {
			return err
		}
		if at == 0 { // the last piece may be shorter than another list
			list = longestList(req)
			all = reflect.MakeSlice(list.Type(), 0, n)
		}
		all = reflect.AppendSlice(all, list) // which the next piece overwrites
	}
	list.Set(all)
	return nil
}

// longestList is the longest of the lists that a message has itself, and not in another.
// It is not valid if there is none.
func longestList(message any) (longest reflect.Value) {
	v := reflect.ValueOf(message).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() == reflect.Slice && f.Type().Elem().Kind() != reflect.Uint8 && (!longest.IsValid() || f.Len() > longest.Len()) {
			longest = f
		}
	}
	return longest
}

// pieceElements is how many elements are encoded at once. Their count must fit the last
// byte of its encoding, in both of them.
const pieceElements = 100

// pieceBytes is how long the slices are that such an answer consists of, if no hundred of
// its elements are longer.
const pieceBytes = 1 << 20

// EncodeInPieces appends the encoding of resp to head and calls step for each element of
// the longest list. It returns nil if that is short: then resp is encoded at once as well.
func EncodeInPieces(head []byte, resp kmsg.Response, step func()) net.Buffers {
	list := longestList(resp)
	if !list.IsValid() || list.Len() <= pieceElements {
		return nil
	}
	return encodeInPieces(head, resp, list, step)
}

// encodeInPieces appends the encoding of resp, whose list is one of its own, to head.
// It calls step for each element.
//
// Only the list's count and elements differ between two encodings of one answer with
// other elements. So what stands before and after the elements is found by encoding it
// with some and with none:
//
//	with none    | before | 0 | after |
//	with some    | before | n | elements | after |
func encodeInPieces(head []byte, resp kmsg.Response, list reflect.Value, step func()) (pieces net.Buffers) {
	all := list.Slice(0, list.Len())
	list.Set(all.Slice(0, 0))
	none := resp.AppendTo(nil)
	var before, after int // bytes around the elements
	p := head
	var some []byte
	for at := 0; at < all.Len(); at += pieceElements {
		n := min(pieceElements, all.Len()-at)
		list.Set(all.Slice(at, at+n))
		some = resp.AppendTo(some[:0])
		if at == 0 {
			count := 0
			for count < len(none) && some[count] == none[count] {
				count++
			}
			if count == len(none) {
				return append(pieces, append(p, none...)) // this version has no such list
			}
			if p = append(p, some[:count]...); resp.IsFlexible() {
				p = binary.AppendUvarint(p, uint64(all.Len())+1)
			} else {
				p = binary.BigEndian.AppendUint32(p[:len(p)-3], uint32(all.Len()))
			}
			before, after = count+1, len(none)-count-1
		}
		elements := some[before : len(some)-after]
		if len(p)+len(elements) > cap(p) {
			pieces = append(pieces, p)
			p = make([]byte, 0, max(pieceBytes, len(elements)))
		}
		p = append(p, elements...)
		for range n {
			step()
		}
	}
	list.Set(all)
	return append(pieces, append(p, none[len(none)-after:]...))
}

// AppendLength appends the length of an array, of bytes, or -1 for null.
func AppendLength(p []byte, n int, flexible bool) []byte {
	if flexible {
		return binary.AppendUvarint(p, uint64(n+1))
	}
	return binary.BigEndian.AppendUint32(p, uint32(int32(n)))
}
