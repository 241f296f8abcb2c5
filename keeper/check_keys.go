package keeper

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"sort"

	"sluice/catalog"
)

// countRows counts the rows of a table, unreadable ones included.
func countRows(r catalog.Reader, table catalog.TableID) (n int64) {
	for _, err := range r.Scan(table, nil, nil, false) {
		if !errors.Is(err, catalog.ErrHole) {
			n++
		}
	}
	return n
}

// otherKeys gives the keys of a table that are none of these. A catalog shows its rows without
// their keys, and the rows of an index do not contain them. So the keys between two known ones are
// found by asking which ranges have a row.
func otherKeys(r catalog.Reader, table catalog.TableID, keys [][]byte) (found [][]byte) {
	slices.SortFunc(keys, bytes.Compare)
	lo := []byte{}
	for i := 0; i <= len(keys); i++ {
		var hi []byte
		if i < len(keys) {
			hi = keys[i]
		}
		for hasRow(r, table, lo, hi) {
			k := firstKey(r, table, lo)
			if len(k) > longestKey {
				return found
			}
			found = append(found, k)
			lo = keyAfter(k)
		}
		lo = keyAfter(hi)
	}
	return found
}

// keyAfter is the smallest key behind k.
func keyAfter(k []byte) []byte { return append(slices.Clip(slices.Clone(k)), 0) }

// longestKey bounds the search; no key is longer, in bytes.
const longestKey = 4096

// hasRow reports whether there is a row with lo ≤ key < hi.
func hasRow(r catalog.Reader, table catalog.TableID, lo, hi []byte) bool {
	if hi != nil && bytes.Compare(lo, hi) >= 0 {
		return false
	}
	for _, err := range r.Scan(table, lo, hi, false) {
		if !errors.Is(err, catalog.ErrHole) {
			return true
		}
	}
	return false
}

// firstKey gives the first key from lo on, which must exist. It finds the key a byte at a time.
func firstKey(r catalog.Reader, table catalog.TableID, lo []byte) []byte {
	key := []byte{}
	for len(key) <= longestKey {
		if bytes.Compare(key, lo) >= 0 && hasRow(r, table, key, keyAfter(key)) {
			return key
		}
		b := sort.Search(255, func(b int) bool { return hasRow(r, table, lo, append(slices.Clone(key), byte(b+1))) })
		key = append(key, byte(b))
	}
	return key
}

// sorted gives the keys of m in order.
func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
