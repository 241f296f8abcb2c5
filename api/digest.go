package api

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
	"golang.org/x/net/http/httpguts"

	"sluice/upload"
)

// digest is what one field of a request promises of its body.
type digest struct {
	field, algorithm string
	sum              []byte
}

// algorithms are those that are compared, under their names of RFC 9530. A sum is big-endian.
var algorithms = map[string]func() hash.Hash{
	"sha-512": sha512.New,
	"sha-256": sha256.New,
	"sha":     sha1.New,
	"md5":     md5.New,
	"crc32c":  func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
}

// digestFields are the fields that promise something of a body, in a head or in a trailer. A body
// is never encoded and never a part, so content and representation are the same bytes.
var digestFields = []string{"Content-Digest", "Repr-Digest", "Unencoded-Digest", "Digest", "Content-Md5"}

// digestsIn reads the fields Content-Digest and Repr-Digest (RFC 9530 §2 and §3), Unencoded-Digest
// (draft-ietf-httpbis-unencoded-digest), Digest (RFC 3230 §4.3.2) and Content-MD5 (RFC 1864). Each
// field must have at least one algorithm that can be compared, since a promise is never ignored.
// Beside that one, unknown algorithms are ignored.
func digestsIn(h http.Header) (all []digest, err error) {
	for _, field := range digestFields {
		lines := h.Values(field)
		if len(lines) == 0 {
			continue
		}
		var found []digest
		switch field {
		case "Digest":
			found, err = parseRFC3230(lines)
		case "Content-Md5":
			found = []digest{{algorithm: "md5"}}
			if found[0].sum, err = base64.StdEncoding.DecodeString(lines[0]); err != nil || len(lines) > 1 {
				err = errors.New("must be one base64 value (RFC 1864)")
			}
		default:
			found, err = parseDictionary(lines)
		}
		if err != nil {
			return nil, invalid(field, err.Error())
		}
		n := len(all)
		for _, d := range found {
			algorithm, known := algorithms[d.algorithm]
			if !known {
				continue
			}
			if size := algorithm().Size(); len(d.sum) != size {
				return nil, invalid(field, fmt.Sprintf("must have %d bytes for %s", size, d.algorithm))
			}
			d.field = field
			all = append(all, d)
		}
		if len(all) == n {
			return nil, invalid(
				field, "has no digest that can be compared here: send sha-256, sha-512, crc32c, md5 or sha",
			)
		}
	}
	return all, nil
}

// parseDictionary reads a field of RFC 9530.
func parseDictionary(lines []string) (found []digest, err error) {
	dict, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return nil, errors.New("is not a dictionary of digests (RFC 9530)")
	}
	for _, name := range dict.Names() {
		member, _ := dict.Get(name)
		item, ok := member.(httpsfv.Item)
		value, bytes := item.Value.([]byte)
		if !ok || !bytes {
			return nil, errors.New("has a member that is not a byte sequence (RFC 9530)")
		}
		found = append(found, digest{algorithm: name, sum: value})
	}
	return found, nil
}

// parseRFC3230 reads the field of RFC 3230.
func parseRFC3230(lines []string) (found []digest, err error) {
	for part := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		name = strings.TrimPrefix(strings.ToLower(name), "id-")
		if _, known := algorithms[name]; ok && !known {
			continue // other algorithms have other encodings
		}
		sum, err := base64.StdEncoding.DecodeString(value)
		if !ok || err != nil {
			return nil, errors.New("must be algorithm=base64, separated by commas (RFC 3230)")
		}
		found = append(found, digest{algorithm: name, sum: sum})
	}
	return found, nil
}

// digestCheck compares a body with its digests when it ends, before its reader learns of the end. A
// body with another digest never ends cleanly.
type digestCheck struct {
	want      []digest
	raw       bool // the body is the bytes of a content
	inTrailer bool // the request announces a digest in the trailer
	hashes    map[string]hash.Hash
}

// expect begins the comparison of a body with want, and with the digests that come in the trailer.
func (b *body) expect(raw bool, want []digest) error {
	p := digestCheck{want: want, raw: raw, hashes: map[string]hash.Hash{}}
	p.inTrailer = slices.ContainsFunc(digestFields, func(field string) bool {
		_, announced := b.request.Trailer[field]
		// net/http leaves it there if no trailer can come.
		return announced || httpguts.HeaderValuesContainsToken(b.request.Header["Trailer"], field)
	})
	for _, d := range want {
		p.hashes[d.algorithm] = algorithms[d.algorithm]()
	}
	if p.inTrailer {
		for name, algorithm := range algorithms {
			p.hashes[name] = algorithm()
		}
	}
	if b.digests = p; b.length == 0 {
		return p.verify(b.request.Trailer)
	}
	return nil
}

// onlyAtEnd reports whether something that is expected of the body is known only at its end.
func (c *digestCheck) onlyAtEnd() bool { return len(c.want) > 0 || c.inTrailer }

// add takes the next bytes of the body.
func (c *digestCheck) add(b []byte) {
	for _, h := range c.hashes {
		h.Write(b)
	}
}

// verify returns the reason why a body that has ended breaks a promise.
func (c *digestCheck) verify(trailer http.Header) error {
	if err := checkMeaning(trailer, c.raw); err != nil {
		return err
	}
	trailing, err := digestsIn(trailer)
	switch {
	case err != nil:
		return err
	case len(trailing) > 0 && !c.inTrailer:
		return invalid(trailing[0].field, "in a trailer must be announced by the field Trailer")
	case len(trailing) == 0 && c.inTrailer:
		return invalid("Trailer", "announces a digest that did not come")
	}
	for _, d := range slices.Concat(c.want, trailing) {
		if got := c.hashes[d.algorithm].Sum(nil); !bytes.Equal(got, d.sum) {
			return &upload.ChecksumError{
				What: d.algorithm + " of the body", Want: hex.EncodeToString(d.sum), Got: hex.EncodeToString(got),
			}
		}
	}
	return nil
}
