package segment

import "fmt"

// A cursor is a place between two frames: what has to come next.
type cursor struct {
	position int64
	index    uint64 // of the next frame
	offset   int64  // of the next record
	term     uint64 // of the frame before
}

func (c *cursor) advance(f *Frame) {
	c.position += f.size()
	c.index++
	c.offset = f.NextOffset()
	c.term = f.Term
}

func (h *Header) cursor() cursor {
	return cursor{position: HeaderSize, index: h.FirstIndex, offset: h.BaseOffset, term: h.PrevTerm}
}

// next reads the header of the frame that has to lie at c in p, the file's bytes; the
// payload is neither looked at nor in the Frame. wrong says why that frame is not there.
// misplaced says, beside wrong, that another frame is: one with a right CRC and another
// index, offset or term than c has. No crash leaves such a frame.
func (c *cursor) next(p []byte, salt uint64) (f Frame, wrong *mismatch, misplaced bool) {
	if c.position > int64(len(p)) {
		return f, &mismatch{fmt.Sprintf("a file of %d bytes", len(p)), fmt.Sprintf("at least %d", c.position)}, false
	}
	f, wrong = parseFrameHeader(p[c.position:], salt, c.position)
	if wrong != nil {
		return Frame{}, wrong, false
	}
	if f.Index != c.index || f.BaseOffset != c.offset || f.Term < c.term {
		return f, &mismatch{
			fmt.Sprintf("index %d, offset %d, term %d", f.Index, f.BaseOffset, f.Term),
			fmt.Sprintf("index %d, offset %d, term %d or later", c.index, c.offset, c.term),
		}, true
	}
	if end := c.position + f.size(); end > int64(len(p)) {
		return f, &mismatch{fmt.Sprintf("a frame that ends at %d", end), fmt.Sprintf("at most %d", len(p))}, false
	}
	return f, nil, false
}

// body returns the payload of f with its padding.
func (f *Frame) body(p []byte) []byte {
	return p[f.Position+FrameHeaderSize : f.Position+f.size()]
}

// findFrame returns the first whole frame header in p at or after position from
// for which want holds.
func findFrame(p []byte, salt uint64, from int64, want func(Frame) bool) (Frame, bool) {
	for at := (from + 7) &^ 7; at+FrameHeaderSize <= int64(len(p)); at += 8 {
		if p[at] != frameMagic>>8 || p[at+1] != frameMagic&0xff {
			continue
		}
		if f, wrong := parseFrameHeader(p[at:], salt, at); wrong == nil && want(f) {
			return f, true
		}
	}
	return Frame{}, false
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
