package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"sluice/upload"
)

// countingReader is a body that counts how much of it was read.
type countingReader struct {
	io.Reader
	n int64
}

func (t *countingReader) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.n += int64(n)
	return n, err
}

// cost decodes a body. It returns the bytes that were allocated meanwhile, kept of it, read, and
// charged.
func cost(of reflect.Type, body io.Reader) (allocated, kept, read, charged int64, err error) {
	shape, v, in := shapeOf(of), reflect.New(of).Interface(), &countingReader{Reader: body}
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.ContentLength = -1
	var before, after, later runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	err = decode(r, in, maxBatchJSON, shape, func(n int64) error { charged += n; return nil }, v)
	runtime.ReadMemStats(&after)
	runtime.GC()
	runtime.ReadMemStats(&later)
	runtime.KeepAlive(v)
	allocated, kept = int64(after.TotalAlloc-before.TotalAlloc), int64(later.HeapAlloc)-int64(before.HeapAlloc)
	return allocated, kept, in.n, charged, err
}

// A list's element that is not allowed is refused when it comes, and not after all of the list was
// made.
func TestAListIsBoundedWhileItIsRead(t *testing.T) {
	huge := func(head, element string) io.Reader {
		return strings.NewReader(head + strings.Repeat(element+",", (maxBatchJSON-len(head))/(len(element)+1)))
	}
	finish := `{"finishes":[{"session_id":"1","sha256":"","total_len":1`
	whole := finish + `}`
	for name, c := range map[string]struct {
		of   reflect.Type
		body io.Reader
		says string
		most int64 // bytes that are read
	}{
		"empty finishes":       {reflect.TypeFor[FinishBatchRequest](), huge(`{"finishes":[`, `{}`), "finishes[0].session_id is required", 64 << 10},
		"finishes":             {reflect.TypeFor[FinishBatchRequest](), huge(whole+`,`, whole[len(`{"finishes":[`):]), "finishes may have at most 1000 elements", 128 << 10},
		"checksums":            {reflect.TypeFor[FinishBatchRequest](), huge(finish+`,"chunk_crc32c":[`, `"00000000"`), "finishes[0].chunk_crc32c may have at most 16384 elements", 512 << 10},
		"empty checksums":      {reflect.TypeFor[FinishBatchRequest](), huge(finish+`,"chunk_crc32c":[`, `""`), "finishes[0].chunk_crc32c[0] must be 8 hex digits", 64 << 10},
		"ids":                  {reflect.TypeFor[PingRequest](), huge(`{"memory_ids":[`, `""`), "memory_ids may have at most 1000 elements", 64 << 10},
		"tags":                 {reflect.TypeFor[BeginRequest](), huge(`{"capsule_id":"","meta":{"name":"","tags":[`, `""`), "meta.tags may have at most 64 elements", 64 << 10},
		"tags of an update":    {reflect.TypeFor[UpdateMemoryRequest](), huge(`{"memory_id":"","tags":[`, `""`), "tags may have at most 64 elements", 64 << 10},
		"owners":               {reflect.TypeFor[CreateCapsuleRequest](), huge(`{"owners":[`, `""`), "owners may have at most 100 elements", 64 << 10},
		"controllers":          {reflect.TypeFor[UpdateCapsuleRequest](), huge(`{"capsule_id":"","controllers":[`, `""`), "controllers may have at most 100 elements", 64 << 10},
		"lists of lists":       {reflect.TypeFor[FinishBatchRequest](), huge(`{"finishes":`, `[[[[[[[[`), "finishes[0] must be an object", 64 << 10},
		"members":              {reflect.TypeFor[FinishRequest](), huge(`{`, `"x":1`), `there is no member "x"`, 64 << 10},
		"a string":             {reflect.TypeFor[AbortRequest](), strings.NewReader(`{"session_id":"` + strings.Repeat("1", 1<<20) + `"}`), "session_id is longer than 16384 bytes", 2 << 20},
		"what trails":          {reflect.TypeFor[Empty](), huge(`{}`, `{}`), "the body goes on behind its JSON value", 64 << 10},
		"space without an end": {reflect.TypeFor[Empty](), strings.NewReader(strings.Repeat(" ", maxBatchJSON+1)), "the body has more than", maxBatchJSON + 64<<10},
	} {
		t.Run(name, func(t *testing.T) {
			allocated, _, read, charged, err := cost(c.of, c.body)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %q", err, c.says)
			}
			if read > c.most || allocated > 2*jsonCost*read+512<<10 ||
				charged != jsonCost*read && !strings.Contains(c.says, "has more than") {
				t.Errorf("%d bytes were read, %d allocated, %d charged", read, allocated, charged)
			}
		})
	}
}

// The charge for a body that is taken covers its memory, except what the garbage collector has yet
// to free.
func TestWhatJSONCosts(t *testing.T) {
	crc := make([]string, upload.DefaultLimits().MaxChunks)
	for i := range crc {
		crc[i] = fmt.Sprintf("%08x", i)
	}
	f := FinishRequest{SessionID: "18446744073709551615", SHA256: strings.Repeat("a", 64)}
	batch := FinishBatchRequest{}
	for range 1000 {
		batch.Finishes = append(batch.Finishes, f)
	}
	for i := range 40 {
		batch.Finishes[i].ChunkCRC32C = crc
	}
	ids := PingRequest{}
	for range 1000 {
		ids.MemoryIDs = append(ids.MemoryIDs, "01890000-0000-7000-8000-000000000000")
	}
	for name, v := range map[string]any{"batch": batch, "ids": ids} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		allocated, kept, read, charged, err := cost(reflect.TypeOf(v), strings.NewReader(string(b)))
		if err != nil || read != int64(len(b)) || charged != jsonCost*read {
			t.Errorf("%s: %v; %d of %d bytes, %d charged", name, err, read, len(b), charged)
		}
		if kept > charged+256<<10 || allocated > 3*charged+256<<10 {
			t.Errorf("%s: %d bytes were charged, %d are kept, and %d were allocated", name, charged, kept, allocated)
		}
	}
}
