package record

import "hash/crc32"

// UpdateCRC returns crc32.Update(sum, CRC-32C, p) for whole batches, p, whose
// own CRCs are known to hold. It does not read what those cover, if that is
// long: the CRC of two strings together follows from those of each. So every
// sum over a batch that has passed Validate, on disk and between nodes, is in the
// end its client's. Bytes that are no batch are read as they are.
func UpdateCRC(sum uint32, p []byte) uint32 {
	for len(p) > 0 {
		b, rest, err := Split(p)
		if err != nil {
			return crc32.Update(sum, castagnoli, p)
		}
		if len(b) < longBatch {
			sum = crc32.Update(sum, castagnoli, b)
		} else {
			sum = crc32.Update(sum, castagnoli, b[:crcStart])
			sum = joinCRC(sum, b.Checksum(), len(b)-crcStart)
		}
		p = rest
	}
	return sum
}

// longBatch is the length in bytes from which on joinCRC is clearly cheaper than
// to read a batch: 0.4 µs instead of 1.8 for 8 KiB, 0.9 instead of 180 for 1 MiB.
const longBatch = 8 << 10

// joinCRC returns the CRC-32C of two strings together, from the first's, the
// second's, and the second's length in bytes.
//
// A CRC is a polynomial over GF(2) modulo P; to append n bytes to what it is of
// multiplies it by x^8n. The method is that of zlib's crc32_combine.
func joinCRC(first, second uint32, n int) uint32 {
	for k := 0; n > 0; n, k = n>>1, k+1 {
		if n&1 != 0 {
			first = timesModP(shifts[k], first)
		}
	}
	return first ^ second
}

// shifts holds x^(8·2^k) modulo P.
var shifts = func() (table [31]uint32) {
	table[0] = 1 << (31 - 8) // x^8; x^0 is the highest bit
	for k := 1; k < len(table); k++ {
		table[k] = timesModP(table[k-1], table[k-1])
	}
	return table
}()

// timesModP multiplies two polynomials modulo P, bits reversed as in the CRC.
func timesModP(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = timesX(b)
	}
	return product
}

// timesX multiplies by x modulo P.
func timesX(b uint32) uint32 { return b>>1 ^ crc32.Castagnoli&-(b&1) }
