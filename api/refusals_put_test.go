package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/blob"
	"sluice/session"
)

// chunked sends the body without an announced length.
var chunked = []string{"Transfer-Encoding", "chunked"}

func TestAChunkOfTheWrongLengthIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	id, _ := w.partial()
	for _, row := range []struct {
		idx, n int
		code   api.Code
	}{
		{1, 0, api.CodeInvalidArgument},
		{1, 1, api.CodeInvalidArgument},
		{1, chunk - 1, api.CodeInvalidArgument},
		{1, chunk + 1, api.CodeTooLarge},
		{1, 3 * chunk, api.CodeTooLarge},
		{0, chunk - 1, api.CodeInvalidArgument}, // also if the chunk is there already
		{0, chunk + 1, api.CodeTooLarge},
		{2, chunk/2 - 1, api.CodeInvalidArgument},
		{2, chunk/2 + 1, api.CodeTooLarge},
		{2, chunk, api.CodeTooLarge},
	} {
		for _, headers := range [][]string{nil, chunked} {
			t.Run(fmt.Sprintf("%d bytes for chunk %d %v", row.n, row.idx, headers), func(t *testing.T) {
				w := w.in(t)
				code := row.code
				if row.idx == 0 && headers != nil { // the bytes are compared before the end is seen
					code = api.CodeChunkConflict
				}
				w.refused(code, "PUT", chunkPath(id, row.idx), string(random(row.n)), headers...)
				if headers == nil { // a head that is not accepted withdraws nothing
					w.refused(code, "PUT", chunkPath(id, row.idx)+"?replace=true", string(random(row.n)))
				}
			})
		}
	}
}

func TestACutChunkLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	for _, n := range []int64{chunk, -1} {
		for _, sent := range []int{0, 1, chunk - 1} {
			before := w.look()
			w.problem(w.send("PUT", chunkPath(id, 1), n, b[chunk:chunk+sent]).cut(), api.CodeInvalidArgument)
			w.unchanged(before)
		}
	}
	// All bytes have come, but no end: in HTTP's chunks that is a cut, too.
	before := w.look()
	w.problem(w.send("PUT", chunkPath(id, 1), -1, b[chunk:2*chunk]).cut(), api.CodeInvalidArgument)
	w.unchanged(before)
}

func TestACutRangeKeepsWhatArrived(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	a := w.send("PUT", rangePath(id, chunk), chunk, b[chunk:chunk+100]).cut()
	w.problem(a, api.CodeInvalidArgument)
	s, err := w.client.Status(t.Context(), id, false)
	w.check(err)
	if got := a.Header.Get("Upload-Received"); got != "100" || s.BytesReceived != chunk+100 ||
		s.MissingBytes[0] != (api.Range{chunk + 100, int64(len(b)) - 1}) {
		t.Errorf("Upload-Received %q, %d bytes, missing %v", got, s.BytesReceived, s.MissingBytes)
	}
}

func TestAnIndexThatIsNoneIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	unknown := w.begin(-1).SessionID
	for _, idx := range []string{
		"-1", "3", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551616", "0x1", "01",
		"1e0", "1.0", "+1", "%201", "%31%00", "one",
	} {
		w.refused(api.CodeInvalidArgument, "PUT", chunkPath(id, idx), string(b[chunk:2*chunk]))
	}
	for _, idx := range []int{16384, math.MaxInt64} { // max_chunks bounds an unknown length
		w.refused(api.CodeTooLarge, "PUT", chunkPath(unknown, idx), "x")
	}
	for _, off := range []string{"-1", "9223372036854775808", "0x1", "01", "1e3", "one"} {
		w.refused(api.CodeInvalidArgument, "PUT", rangePath(id, off), "x")
	}
	w.refused(api.CodeNotFound, "PUT", chunkPath(id, ""), "x")
	w.refused(api.CodeInvalidArgument, "PUT", rangePath(id, 0)+"?replace=true", "x", chunked...) // which bytes?
}

func TestARangePastTheEndIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	empty := w.begin(0).SessionID
	unknown := w.begin(-1).SessionID
	end := strconv.Itoa(len(b))
	for _, row := range []struct {
		id, off string
		n       int
		code    api.Code
	}{
		{id, end, 1, api.CodeRangeNotSatisfiable},
		{id, end, 0, api.CodeRangeNotSatisfiable},
		{id, "9223372036854775807", 1, api.CodeRangeNotSatisfiable},
		{unknown, "67108864", 1, api.CodeTooLarge}, // chunk_size × max_chunks: no end is known that it could lie behind
		{empty, "1", 1, api.CodeRangeNotSatisfiable},
		{empty, "0", 1, api.CodeTooLarge},
		{id, strconv.Itoa(len(b) - 1), 2, api.CodeTooLarge},
		{id, "4096", len(b), api.CodeTooLarge},
		{unknown, "67108863", 2, api.CodeTooLarge},
	} {
		t.Run(fmt.Sprintf("%d bytes at %s", row.n, row.off), func(t *testing.T) {
			w.in(t).refused(row.code, "PUT", rangePath(row.id, row.off), string(random(row.n)))
		})
	}
}

// The bytes before a conflict are recorded, and none behind it. The bytes that had been there stay.
func TestARangeStopsAtAConflict(t *testing.T) {
	w := newWorld(t, nil)
	b := random(3 * chunk)
	id := w.begin(3 * chunk).SessionID
	w.check(w.put(id, 1, b[chunk:2*chunk]))
	other := slices.Clone(b)
	other[chunk] ^= 1
	w.problem(w.do("PUT", rangePath(id, 0), string(other)), api.CodeChunkConflict)
	s, err := w.client.Status(t.Context(), id, true)
	w.check(err)
	if len(s.Missing) != 1 || s.Missing[0] != (api.Range{2, 2}) || s.CRC32C["1"] != crcHex(b[chunk:2*chunk]) {
		t.Errorf("missing %v, crc %v", s.Missing, s.CRC32C)
	}
	w.check(w.put(id, 2, b[2*chunk:]))
	_, err = w.client.Finish(t.Context(), finishOf(id, b))
	w.check(err)
}

func TestTooManyPiecesNameTheFirstGap(t *testing.T) {
	w := openWorld(t, api.Config{}, session.Config{MaxGaps: 2})
	id := w.begin(10 * chunk).SessionID
	for _, idx := range []int64{2, 4, 6} {
		w.check(w.put(id, idx, random(chunk)))
	}
	a := w.refused(api.CodeResourceExhausted, "PUT", chunkPath(id, 8), string(random(chunk)))
	if got := a.problem.MissingBytes; len(got) != 1 || got[0] != (api.Range{0, 2*chunk - 1}) {
		t.Errorf("the first gap is %v", got)
	}
}

func TestANewerPutTakesOver(t *testing.T) { newWorld(t, nil).supersede() }

// supersede lets a newer put take a chunk over from one that has stopped sending.
func (w *world) supersede() {
	w.t.Helper()
	id, b := w.partial()
	stale := w.send("PUT", chunkPath(id, 1), chunk, b[chunk:chunk+10])
	for until := time.Now().Add(10 * time.Second); !stale.answered() && time.Now().Before(until); {
		// The first one or two may come before the stale one has got to its body.
		w.check(w.put(id, 1, b[chunk:2*chunk]))
	}
	a := stale.answer()
	w.problem(a, api.CodeSuperseded)
	s, err := w.client.Status(w.t.Context(), id, false)
	w.check(err)
	if !a.Close || s.BytesReceived != 2*chunk {
		w.t.Errorf("the connection closes: %v; %d bytes received", a.Close, s.BytesReceived)
	}
}

func crcOf(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func crcHex(b []byte) string { return fmt.Sprintf("%08x", crcOf(b)) }

func sha256Field(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func crc32cField(b []byte) string {
	return "crc32c=:" + base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crcOf(b))) + ":"
}

// A Content-Digest is checked before anything is recorded, in every operation. An unknown algorithm
// is ignored beside a known one, and refused alone.
func TestContentDigest(t *testing.T) {
	good, other := random(chunk), random(chunk)
	crcSwapped := binary.LittleEndian.AppendUint32(nil, crcOf(good))
	for _, row := range []struct {
		name, field string
		code        api.Code
	}{
		{"another sha-256", sha256Field(other), api.CodeChecksumMismatch},
		{"another crc32c", crc32cField(other), api.CodeChecksumMismatch},
		{"little-endian", "crc32c=:" + base64.StdEncoding.EncodeToString(crcSwapped) + ":", api.CodeChecksumMismatch},
		{"right and wrong", sha256Field(good) + ", " + crc32cField(other), api.CodeChecksumMismatch},
		{"wrong and right", sha256Field(other) + ", " + crc32cField(good), api.CodeChecksumMismatch},
		{"wrong beside a foreign one", "unixsum=:AAAA:, " + sha256Field(other), api.CodeChecksumMismatch},
		{"wrong beside another algorithm", crc32cField(good) + ", md5=:" + base64.StdEncoding.EncodeToString(make([]byte, 16)) + ":", api.CodeChecksumMismatch},
		{"hex", "sha-256=" + hexSum(good), api.CodeInvalidArgument},
		{"no base64", "sha-256=:!!!!:", api.CodeInvalidArgument},
		{"no end", strings.TrimSuffix(sha256Field(good), ":"), api.CodeInvalidArgument},
		{"a string", `sha-256="abc"`, api.CodeInvalidArgument},
		{"too short", "sha-256=:AAAA:", api.CodeInvalidArgument},
		{"too long", "crc32c=:AAAAAAA=:", api.CodeInvalidArgument},
		{"a list", "sha-256=(:AAAA:)", api.CodeInvalidArgument},
		{"nonsense", "]", api.CodeInvalidArgument},
		{"sha-256", sha256Field(good), ""},
		{"crc32c", crc32cField(good), ""},
		{"both", sha256Field(good) + ", " + crc32cField(good), ""},
		{"too short an md5", "md5=:AAAA:, " + sha256Field(good), api.CodeInvalidArgument},
		{"foreign", "unixsum=:AAAA:, adler=:AAAAAA==:", api.CodeInvalidArgument},
		{"empty", " ", api.CodeInvalidArgument},
		{"right beside a foreign one", "unixsum=:AAAA:, " + sha256Field(good), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, nil)
			for _, way := range []struct{ method, path string }{
				{"PUT", chunkPath(w.begin(2*chunk).SessionID, 1)},
				{"PUT", rangePath(w.begin(2*chunk).SessionID, 7)},
				{"POST", creates + "?name=a"},
				{"PUT", creates + "/a"},
			} {
				if row.code == "" {
					if a := w.do(way.method, way.path, string(good), "Content-Digest", row.field); a.StatusCode >= 300 {
						t.Errorf("%s: %d %s", way.path, a.StatusCode, a.body)
					}
					continue
				}
				p := w.refused(row.code, way.method, way.path, string(good), "Content-Digest", row.field).problem
				if row.code == api.CodeChecksumMismatch && (p.Expected == p.Got || p.Expected == "" || p.Got == "") {
					t.Errorf("expected %q, got %q", p.Expected, p.Got)
				}
				if row.code == api.CodeInvalidArgument && !strings.Contains(p.Detail, "Content-Digest") {
					t.Errorf("the field is not named: %s", p.Detail)
				}
			}
		})
	}
}

// A create that fails leaves nothing, whether it goes straight into the catalog, to a place of its
// own, or through a session. A session leaves a trace in the totals alone.
func TestAFailedCreateLeavesNothing(t *testing.T) {
	for _, n := range []int{inlineMax, chunk, 3 * chunk} {
		for _, announced := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, announced %v", n, announced), func(t *testing.T) {
				w := newWorld(t, nil)
				b := random(n)
				before := w.look()
				fails := func(a answer, code api.Code) {
					t.Helper()
					w.problem(a, code)
					if n > chunk || !announced {
						before.Stats.Begun++
						before.Stats.Aborted++
					}
					w.unchanged(before)
				}
				length, headers := int64(n), []string(nil)
				if !announced {
					length, headers = -1, chunked
				}
				path := creates + "?name=a&idem=k"
				fails(w.send("POST", path, length, b[:n-1]).cut(), api.CodeInvalidArgument)
				fails(
					w.do("POST", path, string(b), append(headers, "Content-Digest", sha256Field(random(5)))...),
					api.CodeChecksumMismatch,
				)
				w.blobs.FailWrite(func(string, int64) error { return blob.ErrNoSpace })
				if n > inlineMax || !announced {
					fails(w.do("POST", path, string(b), headers...), api.CodeStorageFull)
				}
				w.blobs.FailWrite(nil)
				if a := w.do("POST", path, string(b), headers...); a.StatusCode != 200 {
					t.Errorf("in the end: %d %s", a.StatusCode, a.body)
				}
			})
		}
	}
}
