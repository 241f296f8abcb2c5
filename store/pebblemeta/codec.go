package pebblemeta

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"sluice/catalog"
)

// The modes of CBOR. Encoding is deterministic. Decoding refuses everything that the encoder never
// writes. Strings need not be UTF-8.
var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8DecodeInvalid,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements:  1 << 24,
		MaxNestedLevels:   8,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// encodeRow gives the version, then CBOR.
func encodeRow(version byte, stored any) ([]byte, error) {
	b, err := encMode.Marshal(stored)
	if err != nil {
		return nil, err
	}
	return append(append(make([]byte, 0, 1+len(b)), version), b...), nil
}

func decodeRow(version byte, row []byte, stored any) error {
	if err := checkVersion(version, row); err != nil {
		return err
	}
	if err := decMode.Unmarshal(row[1:], stored); err != nil {
		return fmt.Errorf("%w: %w", catalog.ErrDamaged, err)
	}
	return nil
}

func checkVersion(version byte, row []byte) error {
	switch {
	case len(row) == 0 || row[0] == 0:
		return fmt.Errorf("%w: no version", catalog.ErrDamaged)
	case row[0] > version:
		return fmt.Errorf("the record has version %d, and this program knows versions up to %d: use a newer sluice",
			row[0], version)
	}
	return nil
}

// codec converts the rows of one table.
type codec struct {
	name   string
	encode func(row any) ([]byte, error)
	decode func(b []byte) (any, error)
}

// codecOf makes a codec of the two conversions between the domain's type D and the stored type S.
func codecOf[D, S any](name string, store func(D) S, load func(S) D) codec {
	return codecOfVersion(1, name, store, load)
}

// codecOfVersion is codecOf for rows that have got more members since version 1.
func codecOfVersion[D, S any](version byte, name string, store func(D) S, load func(S) D) codec {
	return codec{
		name: name,
		encode: func(row any) ([]byte, error) {
			d, ok := row.(D)
			if !ok {
				return nil, fmt.Errorf("a %T does not belong here", row)
			}
			return encodeRow(version, store(d))
		},
		decode: func(b []byte) (any, error) {
			var s S
			if err := decodeRow(version, b, &s); err != nil {
				return nil, err
			}
			return load(s), nil
		},
	}
}

func encodeCatalog(table catalog.TableID, row any) ([]byte, error) {
	c, ok := codecs[table]
	if !ok {
		return nil, fmt.Errorf("there is no such table")
	}
	return c.encode(row)
}

func decodeCatalog(table catalog.TableID, b []byte) (any, error) {
	c, ok := codecs[table]
	if !ok {
		return nil, fmt.Errorf("there is no such table")
	}
	return c.decode(b)
}

func tableName(table catalog.TableID) string {
	if c, ok := codecs[table]; ok {
		return c.name
	}
	return fmt.Sprintf("number %d", table)
}

// rowError adds to an error which row it is about.
func rowError(table catalog.TableID, key []byte, err error) error {
	return fmt.Errorf("table %s, row %x: %w", tableName(table), key, err)
}
