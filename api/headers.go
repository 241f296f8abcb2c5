package api

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"sluice/catalog"
)

// refusedField is a field of a request that is not supported, and that would change what the
// request or its body means. If it were ignored, the answer would be a lie. A name that ends in -
// stands for all that begin so.
type refusedField struct{ field, why string }

// Other fields are checked elsewhere: Authorization, Content-Length, Transfer-Encoding (httpwire,
// net/http), Content-Encoding (errEncoded), the digests and Trailer (digest.go), Content-Type
// (create, decode, refuseMultipart), Range and the conditions of a content (readContent). Fields
// that only ask for a favour or describe are ignored: Accept and its kind, Prefer,
// Want-Content-Digest, Want-Repr-Digest, Content-Location, Content-Language, Content-Disposition,
// Date, TE, and on JSON that has no validators If-None-Match, If-Modified-Since, If-Range and
// Range.

// singleFields are the fields that have one value (RFC 9110 §5.3). If there are two lines,
// different programs believe different ones.
var singleFields = []string{"Content-Type", "Expect", "Content-Range", "Content-Location"}

// refusedAlways are refused on every request.
var refusedAlways = []refusedField{
	{"X-Http-Method-Override", "is not taken: send the method itself"},
	{"X-Http-Method", "is not taken: send the method itself"},
	{"X-Method-Override", "is not taken: send the method itself"},
}

// refusedChanges are refused on requests that change something. No operation replaces what is at an
// address, so there is nothing to compare.
var refusedChanges = []refusedField{
	{"If-Match", "is not taken here: nothing is replaced by this request"},
	{"If-None-Match", "is not taken here: nothing is replaced by this request; an idem makes a repeat safe"},
	{"If-Unmodified-Since", "is not taken here: nothing is replaced by this request"},
	{"If-Modified-Since", "is not taken here: nothing is replaced by this request"},
	{"If", "is not taken here: nothing is replaced by this request"},
	{"Idempotency-Key", "is not taken: an idem makes a repeat safe"},
	{"Content-Range", "is not taken: the body is the whole content; a part of one goes to uploads_put_range"},
	{"X-Content-Range", "is not taken: the body is the whole content; a part of one goes to uploads_put_range"},
	{"X-Upload-", "is not taken: this address does not speak that protocol"},
}

// refusedReads are refused on reads of things without validators.
var refusedReads = []refusedField{
	{"If-Match", "is not taken here: only contents have an ETag"},
	{"If-Unmodified-Since", "is not taken here: only contents have a Last-Modified"},
}

// refusedBodies are refused with raw bytes.
var refusedBodies = []refusedField{
	{"Range", "is not taken on a body: a part of a content goes to uploads_put_range"},
	{"If-Range", "is not taken on a body"},
	{"Content-Transfer-Encoding", "is not taken: send the bytes as they are"},
	// Other protocols say in fields of their own what a body is, or must be.
	{"Tus-", "is not taken: this address does not speak tus"},
	{"Upload-", "is not taken: this address speaks no protocol of resumable uploads but its own"},
	{"X-Amz-Checksum-", "is not taken: send Content-Digest"},
	{"X-Amz-Content-Sha256", "is not taken: send Content-Digest"},
	{"X-Amz-Decoded-Content-Length", "is not taken: send the bytes as they are"},
	{"X-Amz-Copy-Source", "is not taken: send the bytes"},
	{"X-Goog-Hash", "is not taken: send Content-Digest"},
	{"X-Goog-Copy-Source", "is not taken: send the bytes"},
	{"X-Ms-Blob-Content-Md5", "is not taken: send Content-Digest"},
	{"X-Ms-Content-Crc64", "is not taken: send Content-Digest"},
	{"X-Ms-Copy-Source", "is not taken: send the bytes"},
	{"X-Ms-Range", "is not taken: a part of a content goes to uploads_put_range"},
	{"X-Ms-Blob-Type", "is not taken: send the bytes as they are"},
	{"X-Checksum-", "is not taken: send Content-Digest"},
	{"X-Content-Sha256", "is not taken: send Content-Digest"},
	{"Content-Crc32c", "is not taken: send Content-Digest"},
	{"X-Expected-Entity-Length", "is not taken: send Content-Length"},
	{"X-File-Size", "is not taken: send Content-Length"},
	{"Oc-Checksum", "is not taken: send Content-Digest"},
	{"Oc-Chunked", "is not taken: send the content whole, or in chunks of an upload"},
}

// refuseFields returns an error for the first field of h that is in the table.
func refuseFields(h http.Header, table []refusedField) error {
	for _, r := range table {
		if _, there := h[r.field]; there {
			return invalid(r.field, r.why)
		}
		if !strings.HasSuffix(r.field, "-") {
			continue
		}
		for name := range h {
			if strings.HasPrefix(name, r.field) {
				return invalid(name, r.why)
			}
		}
	}
	return nil
}

// checkHeaders verifies or refuses the fields that change what a request means. Of the digests of
// raw bytes, package upload compares the first SHA-256 and CRC-32C, and the body compares all
// others.
func (c *call) checkHeaders(r *route) error {
	h := c.req.Header
	if err := refuseFields(h, refusedAlways); err != nil {
		return err
	}
	for _, field := range singleFields {
		if len(h[field]) > 1 {
			return invalid(field, "comes more than once")
		}
	}
	if v := h.Get("Expect"); v != "" && !strings.EqualFold(v, "100-continue") { // over HTTP/1.1 net/http answers 417
		return invalid("Expect", "must be 100-continue, or absent")
	}
	if r.method == http.MethodGet {
		if r.content {
			return nil
		}
		return refuseFields(h, refusedReads)
	}
	if err := checkMeaning(h, r.raw); err != nil {
		return err
	}
	announced := http.Header{}
	for name := range c.req.Trailer {
		announced[name] = []string{"announced"}
	}
	if err := checkMeaning(announced, r.raw); err != nil {
		return err
	}
	want, err := digestsIn(h)
	if err != nil {
		return err
	}
	return c.body.expect(r.raw, slices.DeleteFunc(want, func(d digest) bool {
		switch {
		case r.raw && d.algorithm == "sha-256" && c.sha256 == nil:
			c.sha256 = (*catalog.SHA256)(d.sum)
		case r.raw && d.algorithm == "crc32c" && c.crc32c == nil:
			sum := binary.BigEndian.Uint32(d.sum)
			c.crc32c = &sum
		default:
			return false
		}
		return true
	}))
}

// checkMeaning refuses the fields of a head or a trailer that would change what a request means
// that changes something.
func checkMeaning(h http.Header, raw bool) error {
	for _, v := range h["Content-Encoding"] {
		if v != "" {
			return errEncoded
		}
	}
	err := refuseFields(h, refusedChanges)
	if err == nil && raw {
		err = cmp.Or(refuseFields(h, refusedBodies), refuseMultipart(h))
	}
	return err
}

// refuseMultipart refuses the types of bodies in which a content is only a part.
func refuseMultipart(h http.Header) error {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if !slices.Contains([]string{"multipart/form-data", "multipart/byteranges"}, kind) {
		return nil
	}
	return &refusal{code: CodeUnsupportedMediaType, detail: fmt.Sprintf(
		"%s is not taken: the body must be the bytes of the content alone; "+
			"send a file with curl -T FILE, or --data-binary @FILE, instead of -F", kind)}
}
