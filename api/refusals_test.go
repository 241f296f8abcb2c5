package api_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/blob"
	"sluice/catalog"
)

// statuses is the table of errors of docs/api.md.
var statuses = map[api.Code]int{
	api.CodeInvalidArgument: 400, api.CodeUnauthenticated: 401, api.CodeForbidden: 403, api.CodeQuotaExceeded: 403,
	api.CodeNotFound: 404, api.CodeSessionExpired: 410, api.CodeChunkConflict: 409, api.CodeIdempotencyConflict: 409,
	api.CodeAlreadyExists: 409, api.CodeNotEmpty: 409, api.CodeIncomplete: 409, api.CodeAlreadyFinished: 409,
	api.CodeAlreadyAborted: 409, api.CodeSuperseded: 409, api.CodeMethodNotAllowed: 405, api.CodeTimeout: 408,
	api.CodeTooLarge: 413, api.CodeUnsupportedMediaType: 415, api.CodePreconditionFailed: 412,
	api.CodeRangeNotSatisfiable: 416, api.CodeChecksumMismatch: 422, api.CodeLengthMismatch: 422,
	api.CodeResourceExhausted: 429, api.CodeInternal: 500, api.CodeUnavailable: 503, api.CodeStorageFull: 507,
	api.CodeDamaged: 500,
}

// seen is all that anybody can see of what is stored.
type seen struct {
	Uploads  []api.Session
	Sessions []api.AdminSession
	Stats    api.SessionStats
	Memories []api.Memory
	Trash    []api.Memory
	Capsules []api.Capsule
}

func (w *world) look() (s seen) {
	w.t.Helper()
	ctx := w.t.Context()
	uploads, err := w.client.Uploads(ctx, "", 1000)
	w.check(err)
	sessions, err := w.client.AdminSessions(ctx, "", "open", "", 1000)
	w.check(err)
	memories, err := w.client.ListMemories(ctx, api.MemoryQuery{Limit: 1000})
	w.check(err)
	trash, err := w.client.ListMemories(ctx, api.MemoryQuery{Trash: true, Limit: 1000})
	w.check(err)
	capsules, err := w.client.ListCapsules(ctx, "", 1000)
	w.check(err)
	s = seen{
		Uploads: uploads.Sessions, Sessions: sessions.Sessions, Memories: memories.Memories, Trash: trash.Memories,
		Capsules: capsules.Capsules,
	}
	s.Stats, err = w.client.AdminStats(ctx)
	w.check(err)
	for i := range s.Uploads { // what is left of the time to live counts from now
		s.Uploads[i].ExpiresAt = api.Time{}
	}
	for i := range s.Sessions {
		s.Sessions[i].ExpiresAt = api.Time{}
	}
	return s
}

// unchanged fails if anything is not as it was.
func (w *world) unchanged(before seen) {
	w.t.Helper()
	if diff := cmp.Diff(before, w.look()); diff != "" {
		w.t.Errorf("the refusal left something behind (-before +after):\n%s", diff)
	}
}

// refused sends a request that must be refused with the code, and that must change nothing.
func (w *world) refused(code api.Code, method, path, body string, headers ...string) answer {
	w.t.Helper()
	before := w.look()
	a := w.do(method, path, body, headers...)
	w.problem(a, code)
	w.unchanged(before)
	return a
}

// problem compares a refusal with the conventions of docs/api.md.
func (w *world) problem(a answer, code api.Code) {
	w.t.Helper()
	p, h := a.problem, a.Header
	if a.StatusCode != statuses[code] || p.Code != code {
		w.t.Fatalf("%d %.300s, want %d %s", a.StatusCode, a.body, statuses[code], code)
	}
	if h.Get("Content-Type") != "application/problem+json" || p.Status != a.StatusCode || p.Title == "" ||
		p.Detail == "" {
		w.t.Errorf("incomplete: %s %s", h.Get("Content-Type"), a.body)
	}
	if want := "/problems/" + kebab(string(code)); p.Type != want {
		w.t.Errorf("type %q, want %q", p.Type, want)
	}
	if h.Get("X-Request-Id") == "" || a.StatusCode >= 500 && p.RequestID != h.Get("X-Request-Id") {
		w.t.Errorf("X-Request-Id %q, request_id %q", h.Get("X-Request-Id"), p.RequestID)
	}
	switch code {
	case api.CodeUnauthenticated:
		if h.Get("WWW-Authenticate") != "Bearer" {
			w.t.Errorf("WWW-Authenticate %q", h.Get("WWW-Authenticate"))
		}
	case api.CodeMethodNotAllowed:
		if h.Get("Allow") == "" {
			w.t.Error("no Allow")
		}
	case api.CodeResourceExhausted, api.CodeUnavailable:
		if s, err := strconv.Atoi(h.Get("Retry-After")); err != nil || s < 1 || p.RetryAfterMS < 1 ||
			p.RetryAfterMS > int64(s)*1000 {
			w.t.Errorf("Retry-After %q, retry_after_ms %d", h.Get("Retry-After"), p.RetryAfterMS)
		}
	}
}

func kebab(s string) string {
	return strings.ToLower(regexp.MustCompile("([a-z])([A-Z])").ReplaceAllString(s, "$1-$2"))
}

// wire is a request as no well-behaved client sends it.
type wire struct {
	*net.TCPConn
	from *bufio.Reader
	w    *world
}

// send announces n bytes (-1: chunks of HTTP) and sends only these.
func (w *world) send(method, path string, n int64, body []byte) wire {
	w.t.Helper()
	return w.sendWith(method, path, n, body)
}

// sendWith is send with more fields.
func (w *world) sendWith(method, path string, n int64, body []byte, fields ...string) wire {
	w.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	w.check(err)
	w.t.Cleanup(func() { conn.Close() })
	length, framed := fmt.Sprintf("Content-Length: %d", n), body
	if n < 0 {
		length, framed = "Transfer-Encoding: chunked", fmt.Appendf(nil, "%x\r\n%s\r\n", len(body), body)
	}
	length = strings.Join(append(fields, length), "\r\n")
	_, err = fmt.Fprintf(
		conn, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n%s", method, path, w.secret, length,
		framed,
	)
	w.check(err)
	return wire{conn.(*net.TCPConn), bufio.NewReader(conn), w}
}

func (c wire) answer() answer {
	c.w.t.Helper()
	c.w.check(c.SetReadDeadline(time.Now().Add(20 * time.Second)))
	res, err := http.ReadResponse(c.from, nil)
	c.w.check(err)
	return c.w.read(res)
}

// answered reports whether an answer has begun to come.
func (c wire) answered() bool {
	c.w.check(c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)))
	_, err := c.from.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// cut ends the client's side in the middle of the body.
func (c wire) cut() answer {
	c.w.t.Helper()
	c.w.check(c.CloseWrite())
	return c.answer()
}

// partial is a session of 2½ chunks of which the first is there.
func (w *world) partial() (id string, b []byte) {
	w.t.Helper()
	b = random(2*chunk + chunk/2)
	id = w.begin(int64(len(b))).SessionID
	w.check(w.put(id, 0, b[:chunk]))
	return id, b
}

func chunkPath(id string, idx any) string {
	return fmt.Sprintf("/v1/uploads_put_chunk/%s/%v", id, idx)
}

func rangePath(id string, off any) string {
	return fmt.Sprintf("/v1/uploads_put_range/%s/%v", id, off)
}

func finishBody(id string, b []byte) string {
	return fmt.Sprintf(`{"session_id":%q,"sha256":%q,"total_len":%d}`, id, hexSum(b), len(b))
}

func beginBody(name string, bytes int, more string) string {
	return fmt.Sprintf(`{"capsule_id":"default","meta":{"name":%q,"bytes":%d}%s}`, name, bytes, more)
}

const (
	begins   = "/v1/uploads_begin"
	finishes = "/v1/uploads_finish"
	batches  = "/v1/uploads_finish_batch"
	aborts   = "/v1/uploads_abort"
	creates  = "/v1/memories_create"
)

// Each code is given as docs/api.md says, with its status and all members of a problem, and the
// refusal changes nothing.
func TestEveryCodeOfTheContract(t *testing.T) {
	rows := map[api.Code]func(w *world){
		api.CodeInvalidArgument: func(w *world) { w.refused(api.CodeInvalidArgument, "POST", begins, `{`) },
		api.CodeUnauthenticated: func(w *world) {
			w.refused(api.CodeUnauthenticated, "POST", begins, beginBody("a", 1, ""), "Authorization", "")
		},
		api.CodeForbidden: func(w *world) {
			w.refused(api.CodeForbidden, "GET", "/v1/sessions_stats", "", "Authorization", "Bearer "+w.foreign)
		},
		api.CodeQuotaExceeded: func(w *world) {
			w.limit(10, 0)
			w.refused(api.CodeQuotaExceeded, "POST", begins, beginBody("a", 11, ""))
		},
		api.CodeNotFound: func(w *world) { w.refused(api.CodeNotFound, "GET", "/v1/uploads_status/1", "") },
		api.CodeSessionExpired: func(w *world) {
			id, b := w.partial()
			w.pass(2 * time.Hour)
			w.refused(api.CodeSessionExpired, "PUT", chunkPath(id, 1), string(b[chunk:2*chunk]))
		},
		api.CodeChunkConflict: func(w *world) {
			id, _ := w.partial()
			w.refused(api.CodeChunkConflict, "PUT", chunkPath(id, 0), string(random(chunk)))
		},
		api.CodeIdempotencyConflict: func(w *world) {
			w.do("POST", begins, beginBody("a", 1, `,"idem":"k"`))
			w.refused(api.CodeIdempotencyConflict, "POST", begins, beginBody("b", 1, `,"idem":"k"`))
		},
		api.CodeAlreadyExists: func(w *world) {
			w.refused(api.CodeAlreadyExists, "POST", "/v1/capsules_create", `{"capsule_id":"default"}`)
		},
		api.CodeNotEmpty: func(w *world) {
			w.store("a", "", []byte("a"))
			w.refused(api.CodeNotEmpty, "POST", "/v1/capsules_delete", `{"capsule_id":"default"}`)
		},
		api.CodeIncomplete: func(w *world) {
			id, b := w.partial()
			w.refused(api.CodeIncomplete, "POST", finishes, finishBody(id, b))
		},
		api.CodeAlreadyFinished: func(w *world) {
			s := w.filled([]byte("a"))
			w.do("POST", finishes, finishBody(s.SessionID, []byte("a")))
			w.refused(api.CodeAlreadyFinished, "POST", aborts, `{"session_id":"`+s.SessionID+`"}`)
		},
		api.CodeAlreadyAborted: func(w *world) {
			id, b := w.partial()
			w.check(w.client.Abort(w.t.Context(), id))
			w.refused(api.CodeAlreadyAborted, "POST", finishes, finishBody(id, b))
		},
		api.CodeSuperseded: func(w *world) { w.supersede() },
		api.CodeMethodNotAllowed: func(w *world) {
			w.refused(api.CodeMethodNotAllowed, "DELETE", begins, "")
		},
		api.CodeTimeout: func(w *world) {
			id, b := w.partial()
			before := w.look()
			w.problem(w.send("PUT", chunkPath(id, 1), chunk, b[chunk:chunk+10]).answer(), api.CodeTimeout)
			w.unchanged(before)
		},
		api.CodeTooLarge: func(w *world) {
			w.refused(
				api.CodeTooLarge, "POST", begins, `{"capsule_id":"default","meta":{"name":"a","bytes":1099511627777}}`,
			)
		},
		api.CodeUnsupportedMediaType: func(w *world) {
			w.refused(
				api.CodeUnsupportedMediaType, "POST", begins,
				`{"capsule_id":"default","meta":{"name":"a","mime_type":"image"}}`,
			)
		},
		api.CodePreconditionFailed: func(w *world) {
			w.refused(
				api.CodePreconditionFailed, "GET", w.store("a", "", []byte("a")).ContentURL, "", "If-Match", `"x"`,
			)
		},
		api.CodeRangeNotSatisfiable: func(w *world) {
			id, b := w.partial()
			w.refused(api.CodeRangeNotSatisfiable, "PUT", rangePath(id, len(b)), "x")
		},
		api.CodeChecksumMismatch: func(w *world) {
			s := w.filled([]byte("a"))
			w.refused(api.CodeChecksumMismatch, "POST", finishes, finishBody(s.SessionID, []byte("b")))
		},
		api.CodeLengthMismatch: func(w *world) {
			s := w.filled([]byte("a"))
			w.refused(api.CodeLengthMismatch, "POST", finishes, finishBody(s.SessionID, []byte("ab")))
		},
		api.CodeResourceExhausted: func(w *world) {
			for range maxSessions {
				w.begin(1)
			}
			w.refused(api.CodeResourceExhausted, "POST", begins, beginBody("a", 1, ""))
		},
		api.CodeInternal: func(w *world) {
			w.blobs.FailWrite(func(string, int64) error { return fmt.Errorf("/secret/path is broken") })
			id := w.begin(chunk).SessionID
			a := w.refused(api.CodeInternal, "PUT", chunkPath(id, 0), string(random(chunk)))
			if bytes.Contains(a.body, []byte("secret")) {
				w.t.Errorf("an internal message: %s", a.body)
			}
		},
		api.CodeUnavailable: func(w *world) {
			w.server.Drain()
			w.refused(api.CodeUnavailable, "POST", begins, beginBody("a", 1, ""))
		},
		api.CodeStorageFull: func(w *world) {
			id, b := w.partial()
			w.blobs.FailWrite(func(string, int64) error { return fmt.Errorf("/secret/path: %w", blob.ErrNoSpace) })
			a := w.refused(api.CodeStorageFull, "PUT", chunkPath(id, 1), string(b[chunk:2*chunk]))
			if bytes.Contains(a.body, []byte("secret")) {
				w.t.Errorf("an internal message: %s", a.body)
			}
			w.blobs.FailWrite(nil)
			w.check(w.put(id, 1, b[chunk:2*chunk]))
		},
		api.CodeDamaged: func(w *world) {
			b := random(chunk)
			m, err := w.client.Finish(w.t.Context(), finishOf(w.filled(b).SessionID, b))
			w.check(err)
			key := catalog.ContentKey{Capsule: "default", SHA256: sha256.Sum256(b)}
			w.check(w.catalog.Update(w.t.Context(), func(tx catalog.Tx) error {
				content, err := catalog.Contents.Get(tx, key)
				content.Damaged = time.Now()
				return errors.Join(err, catalog.Contents.Put(tx, key, content))
			}))
			w.refused(api.CodeDamaged, "GET", "/v1/memories_content/"+m.MemoryID, "")
		},
	}
	for code := range statuses {
		t.Run(string(code), func(t *testing.T) {
			if rows[code] == nil {
				t.Fatal("no row")
			}
			rows[code](newWorld(t, func(c *api.Config) {
				if code == api.CodeTimeout {
					c.MinRate, c.RateWindow = 1<<10, 500*time.Millisecond
				}
			}))
		})
	}
}
