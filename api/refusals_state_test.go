package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

// An ended session says how it ended, to every operation, and stays as it is.
func TestAfterTheEnd(t *testing.T) {
	ends := map[string]func(w *world, id string, b []byte){
		"finished": func(w *world, id string, b []byte) {
			_, err := w.client.Finish(w.t.Context(), finishOf(id, b))
			w.check(err)
		},
		"aborted": func(w *world, id string, _ []byte) { w.check(w.client.Abort(w.t.Context(), id)) },
		"expired": func(w *world, _ string, _ []byte) { w.pass(2 * time.Hour) },
	}
	codes := map[string]api.Code{
		"finished": api.CodeAlreadyFinished, "aborted": api.CodeAlreadyAborted, "expired": api.CodeSessionExpired,
	}
	for state, end := range ends {
		t.Run(state, func(t *testing.T) {
			w, b, code := newWorld(t, nil), random(2*chunk), codes[state]
			id := w.filled(b).SessionID
			end(w, id, b)
			w.refused(code, "PUT", chunkPath(id, 0), string(b[:chunk]))
			w.refused(code, "PUT", chunkPath(id, 0)+"?replace=true", string(b[:chunk]))
			w.refused(code, "PUT", rangePath(id, 1), "x")
			if state != "finished" { // a repeat: see TestARepeatedFinish
				w.refused(code, "POST", finishes, finishBody(id, b))
				w.refused(code, "POST", batches, `{"finishes":[`+finishBody(id, b)+`]}`)
			}
			if state == "aborted" {
				w.check(w.client.Abort(t.Context(), id))
			} else {
				w.refused(code, "POST", aborts, `{"session_id":"`+id+`"}`)
			}
			s, err := w.client.Status(t.Context(), id, false)
			w.check(err)
			if s.State != state || !s.ExpiresAt.IsZero() || (s.MemoryID != "") != (state == "finished") {
				t.Errorf("told as %+v", s)
			}
		})
	}
}

// Once the memory of a key is deleted, the key stays used up, and the answer says so.
func TestWhatWasDeletedIsNotMadeAgain(t *testing.T) {
	for _, purge := range []bool{false, true} {
		w := newWorld(t, nil)
		body := beginBody("a", 1, `,"idem":"k"`)
		s, err := w.client.Begin(t.Context(), api.BeginRequest{
			CapsuleID: "default", Meta: api.Meta{Name: "a", Bytes: ptr(1)}, Idem: "k",
		})
		w.check(err)
		w.check(w.put(s.SessionID, 0, []byte("x")))
		m, err := w.client.Finish(t.Context(), finishOf(s.SessionID, []byte("x")))
		w.check(err)
		m2, err := w.client.Create(t.Context(), api.CreateRequest{Name: "b", Idem: "k2"}, strings.NewReader("x"), 1)
		w.check(err)
		for _, id := range []string{m.MemoryID, m2.MemoryID} {
			w.check(w.client.DeleteMemory(t.Context(), id, purge))
		}
		for _, a := range []answer{
			w.refused(api.CodeAlreadyFinished, "POST", finishes, finishBody(s.SessionID, []byte("x"))),
			w.refused(api.CodeAlreadyFinished, "POST", creates+"?name=b&idem=k2", "x"),
		} {
			if !a.problem.Deleted {
				t.Errorf("purge %v: not said to be deleted: %s", purge, a.body)
			}
		}
		if a := w.do("POST", begins, body); a.StatusCode != 200 || !bytes.Contains(a.body, []byte(`"deleted":true`)) {
			t.Errorf("purge %v: begun again: %s", purge, a.body)
		}
	}
}

func ptr(n int64) *int64 { return &n }

// The same key with another request is refused, whatever differs, before and after the end. Values
// that the server picks make no difference.
func TestIdempotencyConflicts(t *testing.T) {
	w := newWorld(t, nil)
	const idem = `,"idem":"k"`
	first := w.do("POST", begins, beginBody("a", 5, idem))
	conflicts := func() {
		t.Helper()
		for _, body := range []string{
			beginBody("b", 5, idem), beginBody("a", 6, idem), beginBody("a", 5, `,"chunk_size":2`+idem),
			`{"capsule_id":"default","meta":{"name":"a"},"idem":"k"}`,
			`{"capsule_id":"default","meta":{"name":"a","bytes":5,"mime_type":"a/b"},"idem":"k"}`,
			`{"capsule_id":"default","meta":{"name":"a","bytes":5,"path":"p"},"idem":"k"}`,
			`{"capsule_id":"default","meta":{"name":"a","bytes":5,"tags":["t"]},"idem":"k"}`,
		} {
			w.refused(api.CodeIdempotencyConflict, "POST", begins, body)
		}
	}
	conflicts()
	for _, again := range []string{beginBody("a", 5, idem), beginBody("a", 5, `,"expected_chunks":1`+idem)} {
		if a := w.do("POST", begins, again); a.StatusCode != 200 || sessionIn(a) != sessionIn(first) {
			t.Errorf("again: %d %s", a.StatusCode, a.body)
		}
	}
	w.check(w.put(sessionIn(first), 0, []byte("12345")))
	_, err := w.client.Finish(t.Context(), finishOf(sessionIn(first), []byte("12345")))
	w.check(err)
	conflicts()
	w.refused(api.CodeIdempotencyConflict, "POST", creates+"?name=b&idem=k", "12345")
	w.refused(api.CodeIdempotencyConflict, "POST", creates+"?name=a&idem=k", "123456")
}

// sessionIn returns the session_id of an answer's JSON.
func sessionIn(a answer) string {
	_, after, _ := strings.Cut(string(a.body), `"session_id":"`)
	id, _, _ := strings.Cut(after, `"`)
	return id
}

func TestIncompleteSaysWhatIsMissing(t *testing.T) {
	w := newWorld(t, nil)
	b := random(5*chunk + 7)
	id := w.begin(int64(len(b))).SessionID
	w.check(w.put(id, 1, b[chunk:2*chunk]))
	_, err := w.client.PutRange(
		t.Context(), id, 3*chunk+10, bytes.NewReader(b[3*chunk+10:3*chunk+20]), 10, api.PutOptions{},
	)
	w.check(err)
	p := w.refused(api.CodeIncomplete, "POST", finishes, finishBody(id, b)).problem
	if got := fmt.Sprint(
		p.Missing, p.MissingBytes, p.More,
	); got != "[[0 0] [2 5]] [[0 4095] [8192 12297] [12308 20486]] false" {
		t.Errorf("missing %s", got)
	}

	unknown := w.begin(-1).SessionID
	w.check(w.put(unknown, 0, b[:chunk]))
	p = w.refused(api.CodeIncomplete, "POST", finishes, finishBody(unknown, b)).problem
	if got := fmt.Sprint(p.Missing, p.MissingBytes); got != "[[1 5]] [[4096 20486]]" {
		t.Errorf("missing of an unknown length %s", got)
	}

	// At most 1,000 ranges, then more.
	many := random(2001)
	s, err := w.client.Begin(t.Context(), api.BeginRequest{
		CapsuleID: "default", Meta: api.Meta{Name: "a", Bytes: ptr(2001)}, ChunkSize: 1,
	})
	w.check(err)
	for i := int64(1); i < 2001; i += 2 {
		w.check(w.put(s.SessionID, i, many[i:i+1]))
	}
	p = w.refused(api.CodeIncomplete, "POST", finishes, finishBody(s.SessionID, many)).problem
	if len(p.Missing) != 1000 || len(p.MissingBytes) != 1000 || !p.More {
		t.Errorf("%d and %d ranges, more %v", len(p.Missing), len(p.MissingBytes), p.More)
	}
	s, err = w.client.Status(t.Context(), s.SessionID, false)
	w.check(err)
	if len(s.Missing) != 1000 || len(s.MissingBytes) != 1000 || !s.More {
		t.Errorf("status: %d and %d ranges, more %v", len(s.Missing), len(s.MissingBytes), s.More)
	}
}

// A wrong digest names what is wrong, and the client mends just that.
func TestAWrongDigestCanBeMended(t *testing.T) {
	w := newWorld(t, nil)
	b := random(5*chunk + 7)
	arrived := bytes.Clone(b)
	for _, at := range []int{chunk, 3 * chunk, 4*chunk + 1} {
		arrived[at] ^= 1
	}
	id := w.filled(arrived).SessionID
	p := w.refused(api.CodeChecksumMismatch, "POST", finishes, finishBody(id, b)).problem
	if p.Expected != hexSum(b) || p.Got != hexSum(arrived) || p.Bad != nil {
		t.Errorf("%+v", p)
	}
	req := finishOf(id, b)
	for i := 0; i < len(b); i += chunk {
		req.ChunkCRC32C = append(req.ChunkCRC32C, crcHex(b[i:min(len(b), i+chunk)]))
	}
	_, err := w.client.Finish(t.Context(), req)
	if p = w.codeIs(err, api.CodeChecksumMismatch).Problem; fmt.Sprint(p.Bad) != "[[1 1] [3 4]]" {
		t.Errorf("bad %v", p.Bad)
	}
	for _, idx := range []int64{1, 3, 4} {
		part := b[idx*chunk : (idx+1)*chunk]
		w.codeIs(w.put(id, idx, part), api.CodeChunkConflict)
		w.check(w.client.PutChunk(t.Context(), id, idx, bytes.NewReader(part), chunk, api.PutOptions{Replace: true}))
	}
	m, err := w.client.Finish(t.Context(), req)
	w.check(err)
	w.holds(m, b)
}

func TestLengthMismatch(t *testing.T) {
	w := newWorld(t, nil)
	b := random(2 * chunk)
	known, unknown := w.filled(b).SessionID, w.begin(-1).SessionID
	w.check(w.put(unknown, 0, b[:chunk]))
	w.check(w.put(unknown, 1, b[chunk:]))
	for _, id := range []string{known, unknown} {
		p := w.refused(api.CodeLengthMismatch, "POST", finishes, finishBody(id, b[1:])).problem
		if p.Expected != "8192" || p.Got != "8191" {
			t.Errorf("expected %q, got %q", p.Expected, p.Got)
		}
		_, err := w.client.Finish(t.Context(), finishOf(id, b))
		w.check(err)
	}
}

// Quota counts what is stored and what is open, in every operation that stores.
func TestQuotas(t *testing.T) {
	w := newWorld(t, nil)
	w.store("a", "", random(10))
	w.begin(10)
	w.limit(30, 0)
	const quota = api.CodeQuotaExceeded
	w.refused(quota, "POST", begins, beginBody("a", 11, ""))
	w.refused(quota, "POST", creates+"?name=a", string(random(11)))
	w.refused(quota, "POST", creates+"?name=a", string(random(chunk+1)))
	w.store("a", "", random(10))
	w.refused(quota, "POST", creates+"?name=a", "x")
	w.refused(quota, "POST", creates+"?name=a", "x", chunked...)
	w.refused(quota, "POST", begins, `{"capsule_id":"default","meta":{"name":"a"}}`)

	w.limit(0, 3) // two are there, and one is open
	w.refused(quota, "POST", begins, beginBody("a", 0, ""))
	w.refused(quota, "POST", creates+"?name=a", "")
	w.limit(0, 4)
	w.store("a", "", nil)
}

// A server that drains begins nothing new. Running work is carried through.
func TestDraining(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	w.server.Drain()
	w.refused(api.CodeUnavailable, "POST", begins, beginBody("a", 1, ""))
	w.refused(api.CodeUnavailable, "POST", creates+"?name=a", "x")
	w.refused(api.CodeUnavailable, "PUT", creates+"/a", "x")
	w.refused(api.CodeUnavailable, "GET", "/readyz", "")
	if a := w.do("GET", "/healthz", ""); a.StatusCode != 200 {
		t.Errorf("healthz: %d", a.StatusCode)
	}
	w.check(w.put(id, 1, b[chunk:2*chunk]))
	w.check(w.put(id, 2, b[2*chunk:]))
	m, err := w.client.Finish(t.Context(), finishOf(id, b))
	w.check(err)
	w.holds(m, b)
}

// A repeat of a begin or a create is answered also while the server drains: it begins nothing.
func TestARepeatIsAnsweredWhileDraining(t *testing.T) {
	w := newWorld(t, nil)
	begun := w.do("POST", begins, beginBody("a", chunk, `,"idem":"key"`))
	created := w.do("POST", creates+"?name=a&idem=other", "x")
	if begun.StatusCode != 200 || created.StatusCode != 200 {
		t.Fatalf("%d, %d", begun.StatusCode, created.StatusCode)
	}
	w.server.Drain()
	// up to the end of the session's id
	if a := w.do("POST", begins, beginBody("a", chunk, `,"idem":"key"`)); a.StatusCode != 200 ||
		!bytes.Equal(a.body[:40], begun.body[:40]) {
		t.Errorf("begin: %d %s, not %s", a.StatusCode, a.body, begun.body)
	}
	if a := w.do("POST", creates+"?name=a&idem=other", "x"); a.StatusCode != 200 || !bytes.Equal(a.body, created.body) {
		t.Errorf("create: %d %s, not %s", a.StatusCode, a.body, created.body)
	}
}

// An error of the server is reported without its cause. It harms one request alone.
func TestOurOwnTroubles(t *testing.T) {
	secret := errors.New("/secret/path")
	hidden := func(w *world, a answer, code api.Code) {
		w.t.Helper()
		w.problem(a, code)
		if bytes.Contains(a.body, []byte("secret")) {
			w.t.Errorf("an internal message: %s", a.body)
		}
	}
	t.Run("a store that does not answer", func(t *testing.T) {
		w := newWorld(t, func(c *api.Config) { c.Ready = func(context.Context) error { return secret } })
		hidden(w, w.do("GET", "/readyz", ""), api.CodeUnavailable)
	})
	t.Run("a panic", func(t *testing.T) {
		w := newWorld(t, func(c *api.Config) { c.Expire = func(context.Context) (int, error) { panic(secret) } })
		hidden(w, w.do("POST", "/v1/sessions_cleanup_expired", ""), api.CodeInternal)
		w.store("a", "", []byte("x"))
	})
	t.Run("an error nobody knows", func(t *testing.T) {
		w := newWorld(t, func(c *api.Config) { c.Expire = func(context.Context) (int, error) { return 0, secret } })
		hidden(w, w.do("POST", "/v1/sessions_cleanup_expired", ""), api.CodeInternal)
	})
	t.Run("too many requests", func(t *testing.T) {
		w := newWorld(t, func(c *api.Config) { c.MaxRequests = 1 })
		id, b := w.partial()
		hanging := w.sendWith("PUT", chunkPath(id, 1), chunk, nil, "Expect: 100-continue")
		res, err := http.ReadResponse(hanging.from, nil) // it has got in
		if w.check(err); res.StatusCode != http.StatusContinue {
			t.Fatal(res.Status)
		}
		w.problem(w.do("GET", "/v1/upload_config", ""), api.CodeUnavailable)
		if a := w.do("GET", "/healthz", ""); a.StatusCode != 200 {
			t.Errorf("/healthz: %d %s", a.StatusCode, a.body)
		}
		_, err = hanging.Write(b[chunk : 2*chunk])
		w.check(err)
		if a := hanging.answer(); a.StatusCode != 204 {
			t.Errorf("the one that runs: %d %s", a.StatusCode, a.body)
		}
	})
}

// A client gets its key back unchanged from each operation that describes the upload.
func TestTheKeyIsToldAsItWasGiven(t *testing.T) {
	w := newWorld(t, nil)
	size := int64(5)
	req := api.BeginRequest{CapsuleID: "default", Idem: "k/1", Meta: api.Meta{Name: "a", Bytes: &size}}
	begun, err := w.client.Begin(t.Context(), req)
	w.check(err)
	again, err := w.client.Begin(t.Context(), req)
	w.check(err)
	status, err := w.client.Status(t.Context(), begun.SessionID, false)
	w.check(err)
	list, err := w.client.Uploads(t.Context(), "", 0)
	w.check(err)
	for i, s := range append(list.Sessions, begun, again, status) {
		if s.Idem != req.Idem || s.SessionID != begun.SessionID {
			t.Errorf("answer %d has the key %q", i, s.Idem)
		}
	}
}
