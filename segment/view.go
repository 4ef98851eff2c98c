package segment

import (
	"runtime"
	"runtime/debug"
)

// A View is borrowed bytes: whole batches in offset order, in mapped pages of one segment.
// It is valid until Release, which must be called exactly once.
//
// Nobody reads Bytes but the system (writev), Look and Copy. A page that the disk cannot
// deliver faults when it is touched: these make an error of it, anywhere else it ends the
// process.
type View struct {
	// Bytes holds the batches, in pieces to be given to writev one after another.
	Bytes [][]byte
	// Next is the offset that follows the last record in Bytes.
	Next int64

	m *mapping // what Bytes lie in, with a reference of the view's own; nil: in no file
}

// Len returns the number of bytes in the view.
func (v *View) Len() int {
	n := 0
	for _, p := range v.Bytes {
		n += len(p)
	}
	return n
}

// Copy appends the bytes to dst, which may be nil. An error when a page cannot
// be read.
func (v *View) Copy(dst []byte) ([]byte, error) {
	if need := len(dst) + v.Len(); cap(dst) < need {
		dst = append(make([]byte, 0, need), dst...)
	}
	err := v.Look(func(piece []byte) error {
		dst = append(dst, piece...)
		return nil
	})
	return dst, err
}

// Look calls f with one piece after another, in each of which batches lie whole,
// until it returns an error, which Look returns as well. f must not keep the
// piece. A page that cannot be read is an error.
func (v *View) Look(f func(piece []byte) error) error {
	return Guard(func() error {
		for _, p := range v.Bytes {
			if err := f(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// A FaultError says that mapped memory could not be read: a page the disk cannot
// deliver, or a file somebody truncated.
type FaultError struct{ Err error }

func (e *FaultError) Error() string { return "segment: a mapped page cannot be read: " + e.Err.Error() }

func (e *FaultError) Unwrap() error { return e.Err }

// Guard runs f, which reads mapped memory, and turns a fault into a *FaultError,
// since it must not end the process. Any other panic goes on.
func Guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface {
			runtime.Error
			Addr() uintptr
		})
		if !ok {
			panic(r)
		}
		err = &FaultError{fault}
	}()
	return f()
}

// Release gives the bytes back; they must not be touched afterwards.
func (v *View) Release() {
	n := v.Len()
	v.Bytes = nil
	if v.m != nil {
		v.m.releaseRead(n)
		v.m = nil
	}
}
