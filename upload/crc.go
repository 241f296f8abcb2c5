package upload

import (
	"hash"
	"hash/crc32"

	"sluice/session"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hashBlock is how many bytes go through SHA-256 and then through CRC-32C at a time. CRC-32C is ten
// times as fast over bytes that are in the processor's cache.
const hashBlock = 64 << 10

// combineCRC gives the CRC-32C of A‖B, computed from the CRC-32C of A, the CRC-32C of B, and the
// length of B in bytes. It is zlib's crc32_combine: it appends lenB zero bytes to A by multiplying
// A's CRC with powers of x in GF(2), modulo the reflected polynomial.
func combineCRC(a, b uint32, lenB int64) uint32 {
	shift := uint32(1) << 31 // x^0
	power := uint32(1) << 23 // x^8: one byte
	for n := uint64(lenB); n > 0; n >>= 1 {
		if n&1 == 1 {
			shift = multiply(shift, power)
		}
		power = multiply(power, power)
	}
	return multiply(shift, a) ^ b
}

// multiply multiplies two polynomials over GF(2), bits reflected, modulo Castagnoli's polynomial.
func multiply(a, b uint32) (p uint32) {
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			p ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return p
}

// newCRC gives an incremental CRC-32C.
func newCRC() hash.Hash32 { return crc32.New(castagnoli) }

// chunkCRC combines the CRCs of the entries of one complete chunk.
func chunkCRC(entries []session.Entry) (crc uint32, err error) {
	for i, e := range entries {
		n, err := decodeEntryNote(e.Note)
		if err != nil {
			return 0, err
		}
		if i == 0 {
			crc = n.CRC
		} else {
			crc = combineCRC(crc, n.CRC, e.Len())
		}
	}
	return crc, nil
}
