package failover

import (
	"encoding/binary"
	"errors"
)

// A decoder reads big-endian fields from a peer's message. Its error sticks:
// after the first field that is not there every read gives zero.
type decoder struct {
	p   []byte
	bad bool
}

var errShortMessage = errors.New("failover: a peer's message ends early or goes on too long")

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.p) {
		d.bad = true
		return nil
	}
	p := d.p[:n]
	d.p = d.p[n:]
	return p
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if p := d.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if p := d.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// count reads how many items of at least size bytes follow. More than there
// are bytes for is an error, so that nothing is allocated for them.
func (d *decoder) count(size int) int {
	n := int(d.uint32())
	if n > len(d.p)/size {
		d.bad = true
		return 0
	}
	return n
}

// rest reads all that is left.
func (d *decoder) rest() string { return string(d.take(len(d.p))) }

// end returns an error if a field was missing or bytes are left.
func (d *decoder) end() error {
	if d.bad || len(d.p) > 0 {
		return errShortMessage
	}
	return nil
}
