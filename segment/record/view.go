package record

// A View is borrowed bytes: whole batches in offset order, read straight from
// mapped pages. It is valid until Release, which must be called exactly once.
type View struct {
	// Bytes holds the batches, in pieces to be written one after another.
	Bytes [][]byte
	// Next is the offset that follows the last record in Bytes.
	Next int64

	release func()
}

// NewView returns a View of pieces that calls release when it is given back.
// release may be nil.
func NewView(pieces [][]byte, next int64, release func()) *View {
	return &View{Bytes: pieces, Next: next, release: release}
}

// Len returns the number of bytes in the view.
func (v *View) Len() int {
	n := 0
	for _, p := range v.Bytes {
		n += len(p)
	}
	return n
}

// Release gives the bytes back; they must not be touched afterwards.
func (v *View) Release() {
	v.Bytes = nil
	if v.release != nil {
		v.release()
		v.release = nil
	}
}
