package vote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
)

// A boltFile is a bbolt file being checked, without bbolt, which follows any page number
// and any length it finds. Sound is a file of which all of this is so:
//
//   - Both meta pages are valid. bbolt would take the older one if the newer is not, and
//     so forget the last commit. A meta page fits a sector, so a power failure leaves it
//     whole.
//   - The file is as long as the newer meta page says.
//   - Every page of the tree is where its number says, is reached once, and has its
//     elements inside.
//   - Keys ascend, and each page begins with the key under which the branch above has it.
//     bbolt looks a page up by its first key when it replaces it, and would keep the old
//     one beside it if that differed.
//
// The layout is bbolt's: its internal/common, version 2 of its format, in the byte order
// of the machine.
type boltFile struct {
	p        []byte
	pageSize uint64
	pages    uint64 // that the newest meta page counts
	reached  []bool // by page
}

// A boltPage is a page with those that continue it.
type boltPage struct {
	at    int // in the file
	bytes []byte
}

const (
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	boltHeader    = 16 // of a page: id u64, flags u16, count u16, overflow u32
	boltMeta      = 64 // magic, version, page size, flags u32; root, sequence, free list, pages, transaction, checksum u64
	boltElement   = 16 // of a branch: position, key u32, page u64; of a leaf: flags, position, key, value u32
	boltBucket    = 16 // the header of a bucket: page, sequence u64
	boltBranch    = 0x01
	boltLeaf      = 0x02
	boltSubBucket = 0x01
	boltNoList    = 1<<64 - 1
)

// readBucket visits, in the order of their keys, the entries of a bucket in the bytes of
// a bbolt file that has this one bucket and nothing else. ErrDamaged if the file is not
// sound, or visit's error.
func readBucket(p, name []byte, visit boltVisit) error {
	f := &boltFile{p: p}
	root, err := f.open()
	if err != nil {
		return err
	}
	var bucket []byte
	var bucketAt int
	err = f.walk(root, func(at int, isBucket bool, key, value []byte) error {
		if !isBucket || bucket != nil || !bytes.Equal(key, name) || len(value) < boltBucket {
			return damaged(at, "expected the bucket %q and nothing else, found %.40q", name, key)
		}
		bucket, bucketAt = value, at
		return nil
	})
	if err != nil {
		return err
	}
	if bucket == nil {
		return damaged(0, "the bucket %q is missing", name)
	}
	// A small bucket lies inside its own entry, as a page behind its header.
	if child := binary.NativeEndian.Uint64(bucket); child != 0 {
		return f.walk(child, visit)
	}
	return f.leaf(boltPage{at: bucketAt, bytes: bucket[boltBucket:]}, new(boltOrder), visit)
}

// damaged says what is wrong at a byte of the file.
func damaged(at int, format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %s", ErrDamaged, at, fmt.Sprintf(format, args...))
}

// open checks the meta pages and returns the root's page.
func (f *boltFile) open() (root uint64, err error) {
	if len(f.p) < boltHeader+boltMeta {
		return 0, damaged(len(f.p), "the file ends before its first meta page does")
	}
	f.pageSize = uint64(binary.NativeEndian.Uint32(f.p[boltHeader+8:]))
	if f.pageSize < 1024 || f.pageSize > 1<<16 || f.pageSize&(f.pageSize-1) != 0 {
		return 0, damaged(boltHeader+8, "a page cannot have %d bytes", f.pageSize)
	}
	var newest uint64
	for i := range 2 {
		at := i*int(f.pageSize) + boltHeader
		if at+boltMeta > len(f.p) {
			return 0, damaged(len(f.p), "the file ends before its meta pages do")
		}
		meta := f.p[at : at+boltMeta]
		hash := fnv.New64a()
		hash.Write(meta[:56])
		u32 := func(i int) uint32 { return binary.NativeEndian.Uint32(meta[i:]) }
		u64 := func(i int) uint64 { return binary.NativeEndian.Uint64(meta[i:]) }
		if u32(0) != boltMagic || u32(4) != boltVersion || uint64(u32(8)) != f.pageSize || u64(56) != hash.Sum64() {
			return 0, damaged(at, "meta page %d is not valid", i)
		}
		if transaction := u64(48); i == 0 || transaction > newest {
			newest = transaction
			root, f.pages = u64(16), u64(40)
			if u64(32) != boltNoList {
				return 0, damaged(at, "there is a list of free pages, which this store never writes")
			}
		}
	}
	if f.pages > uint64(len(f.p))/f.pageSize {
		return 0, damaged(len(f.p), "the file ends here, its %d pages of %d bytes do not", f.pages, f.pageSize)
	}
	f.reached = make([]bool, f.pages)
	return root, nil
}

// A boltOrder checks that keys ascend over all pages of a tree.
type boltOrder struct {
	last []byte // nil before the first
}

func (o *boltOrder) next(at int, key []byte) error {
	if len(key) == 0 || o.last != nil && bytes.Compare(key, o.last) <= 0 {
		return damaged(at, "key %.40q follows %.40q", key, o.last)
	}
	o.last = key
	return nil
}

// A boltVisit is called with an entry, where it is in the file, and whether it is a
// bucket. key and value are the file's bytes.
type boltVisit func(at int, isBucket bool, key, value []byte) error

// walk visits the entries of the tree at a page, in order.
func (f *boltFile) walk(root uint64, visit boltVisit) error {
	return f.tree(root, nil, new(boltOrder), visit)
}

// tree visits a page that begins with a key, or with any if first is nil.
func (f *boltFile) tree(id uint64, first []byte, order *boltOrder, visit boltVisit) error {
	page, err := f.page(id)
	if err != nil {
		return err
	}
	switch flags := binary.NativeEndian.Uint16(page.bytes[8:]); flags {
	case boltLeaf:
		if first != nil && binary.NativeEndian.Uint16(page.bytes[10:]) == 0 {
			return damaged(page.at, "page %d is empty, should begin with key %.40q", id, first)
		}
		return f.leaf(page, order, func(at int, isBucket bool, key, value []byte) error {
			if first != nil && !bytes.Equal(key, first) {
				return damaged(at, "page %d begins with key %.40q, the page above says %.40q", id, key, first)
			}
			first = nil
			return visit(at, isBucket, key, value)
		})
	case boltBranch:
		return f.branch(page, first, order, visit)
	default:
		return damaged(page.at, "page %d is of kind %#x, expected one of the tree", id, flags)
	}
}

func (f *boltFile) branch(page boltPage, first []byte, order *boltOrder, visit boltVisit) error {
	empty := true
	err := page.elements(func(at int) error {
		element := page.bytes[at:]
		key, _, err := page.element(at, binary.NativeEndian.Uint32(element), binary.NativeEndian.Uint32(element[4:]), 0)
		if err != nil {
			return err
		}
		if len(key) == 0 || empty && first != nil && !bytes.Equal(key, first) {
			return damaged(page.at+at, "a branch page begins with key %.40q, the page above says %.40q", key, first)
		}
		empty = false
		return f.tree(binary.NativeEndian.Uint64(element[8:]), key, order, visit)
	})
	if err == nil && empty {
		return damaged(page.at, "a branch page is empty")
	}
	return err
}

func (f *boltFile) leaf(page boltPage, order *boltOrder, visit boltVisit) error {
	if len(page.bytes) < boltHeader || binary.NativeEndian.Uint16(page.bytes[8:]) != boltLeaf {
		return damaged(page.at, "expected a leaf page")
	}
	return page.elements(func(at int) error {
		element := page.bytes[at:]
		u32 := func(i int) uint32 { return binary.NativeEndian.Uint32(element[i:]) }
		key, value, err := page.element(at, u32(4), u32(8), u32(12))
		if err != nil {
			return err
		}
		if flags := u32(0); flags > boltSubBucket {
			return damaged(page.at+at, "an entry has flags %#x", flags)
		}
		if err := order.next(page.at+at, key); err != nil {
			return err
		}
		return visit(page.at+at, u32(0) == boltSubBucket, key, value)
	})
}

// page finds a page that was not reached before, with those that continue it.
func (f *boltFile) page(id uint64) (boltPage, error) {
	if id < 2 || id >= f.pages {
		return boltPage{}, damaged(0, "page %d of %d is referred to", id, f.pages)
	}
	at := id * f.pageSize
	header := f.p[at : at+boltHeader]
	if found := binary.NativeEndian.Uint64(header); found != id {
		return boltPage{}, damaged(int(at), "page %d says it is page %d", id, found)
	}
	end := id + 1 + uint64(binary.NativeEndian.Uint32(header[12:]))
	if end > f.pages {
		return boltPage{}, damaged(int(at), "page %d goes on to page %d of %d", id, end, f.pages)
	}
	for i := id; i < end; i++ {
		if f.reached[i] {
			return boltPage{}, damaged(int(at), "page %d is part of the tree twice", i)
		}
		f.reached[i] = true
	}
	return boltPage{at: int(at), bytes: f.p[at : end*f.pageSize]}, nil
}

// elements calls visit with the position in the page of each element.
func (page boltPage) elements(visit func(at int) error) error {
	count := int(binary.NativeEndian.Uint16(page.bytes[10:]))
	if boltHeader+count*boltElement > len(page.bytes) {
		return damaged(page.at, "%d elements do not fit a page of %d bytes", count, len(page.bytes))
	}
	for i := range count {
		if err := visit(boltHeader + i*boltElement); err != nil {
			return err
		}
	}
	return nil
}

// element cuts out key and value, which begin pos bytes behind the element's own position.
func (page boltPage) element(at int, pos, keySize, valueSize uint32) (key, value []byte, err error) {
	from := uint64(at) + uint64(pos)
	middle := from + uint64(keySize)
	to := middle + uint64(valueSize)
	if to > uint64(len(page.bytes)) {
		return nil, nil, damaged(page.at+at, "an entry ends %d bytes into a page of %d", to, len(page.bytes))
	}
	return page.bytes[from:middle:middle], page.bytes[middle:to:to], nil
}
