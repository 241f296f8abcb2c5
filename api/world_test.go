package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"sluice/access"
	"sluice/api"
	"sluice/catalog"
	"sluice/memories"
	"sluice/session"
	"sluice/upload"
	"sluice/upload/uploadtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const chunk = 4096

type clock struct{}

func (clock) Now() time.Time { return time.Now() }

// world is a server on stores in memory that listens, with an admin who owns capsule "default", and a stranger.
type world struct {
	t        *testing.T
	server   *api.Server
	url      string
	secret   string // the admin's
	foreign  string // the stranger's
	me       access.Caller
	access   *access.Service
	sessions *session.Service
	uploads  *upload.Service
	client   *api.Client
	stranger *api.Client
	stop     func() error // ends Serve and gives its error
}

// newWorld makes one; change may alter the server's configuration.
func newWorld(t *testing.T, change func(*api.Config)) *world {
	t.Helper()
	w := &world{t: t}
	blobs, stores := uploadtest.NewBlobs(), uploadtest.NewStores(catalog.Bounds{MaxSessions: 50})
	w.access = access.New(stores.Catalog, clock{}, nil)
	var err error
	w.secret, err = w.access.Bootstrap(t.Context())
	w.check(err)
	w.me, err = w.access.Authenticate(t.Context(), w.secret)
	w.check(err)
	_, w.foreign = w.join("stranger", false)
	w.sessions, err = session.New(t.Context(), stores.Sessions, session.Config{Merge: upload.Merge, TTL: time.Hour})
	w.check(err)
	limits := upload.DefaultLimits()
	limits.ChunkSize, limits.ChunkSizeMin, limits.InlineMax = chunk, 1, 64
	w.uploads = upload.New(upload.Config{Sessions: w.sessions, Catalog: stores.Catalog, Blobs: blobs, Clock: clock{}, Limits: limits})
	cfg := api.Config{
		Log:     slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		Uploads: w.uploads, Sessions: w.sessions, Access: w.access,
		Memories: memories.New(memories.Config{Catalog: stores.Catalog, Content: blobs, Clock: clock{}, Running: w.sessions.Running, TrashFor: time.Hour}),
		Expire:   func(ctx context.Context) (int, error) { return w.sessions.TickTTL(ctx, time.Now(), w.uploads.Expire) },
	}
	if change != nil {
		change(&cfg)
	}
	w.server, err = api.New(cfg)
	w.check(err)
	w.listen()
	return w
}

// listen serves on a port of its own until the test ends.
func (w *world) listen() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, ln, nil, 10*time.Second) }()
	w.url = "http://" + ln.Addr().String()
	transport := &http.Transport{}
	hc := &http.Client{Transport: transport}
	w.client, w.stranger = api.NewClient(w.url, w.secret, hc), api.NewClient(w.url, w.foreign, hc)
	var ended error
	stopped := false
	w.stop = func() error {
		if !stopped {
			stopped = true
			transport.CloseIdleConnections()
			cancel()
			ended = <-done
			w.uploads.Close()
		}
		return ended
	}
	w.t.Cleanup(func() { w.check(w.stop()) })
}

// join makes a principal without any role, and its token.
func (w *world) join(name string, readOnly bool) (principal, secret string) {
	w.t.Helper()
	p, err := w.access.CreatePrincipal(w.t.Context(), w.me, name, false)
	w.check(err)
	_, secret, err = w.access.CreateToken(w.t.Context(), w.me, p.ID, name, readOnly, 0)
	w.check(err)
	return p.ID, secret
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// answer is what a raw request got.
type answer struct {
	*http.Response
	body    []byte
	problem api.Problem
}

// do sends a request as the admin; extra headers come in pairs, an empty value removes.
func (w *world) do(method, path, body string, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	w.check(err)
	req.Header.Set("Authorization", "Bearer "+w.secret)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Del(headers[i])
		if headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	w.check(err)
	return w.read(res)
}

func (w *world) read(res *http.Response) answer {
	w.t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.check(err)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	a := answer{Response: res, body: b}
	if res.Header.Get("Content-Type") == "application/problem+json" && len(b) > 0 {
		w.check(json.Unmarshal(b, &a.problem))
	}
	return a
}

// begin makes a session of n bytes (-1: unknown) in capsule default.
func (w *world) begin(n int64) api.Session {
	w.t.Helper()
	req := api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a"}}
	if n >= 0 {
		req.Meta.Bytes = &n
	}
	s, err := w.client.Begin(w.t.Context(), req)
	w.check(err)
	return s
}

// store uploads b as one memory.
func (w *world) store(name, kind string, b []byte) api.Memory {
	w.t.Helper()
	m, err := w.client.Create(w.t.Context(), api.CreateRequest{Name: name, MIMEType: kind}, bytes.NewReader(b), int64(len(b)))
	w.check(err)
	return m
}

// full makes a session whose bytes are all there.
func (w *world) full(b []byte) api.Session {
	w.t.Helper()
	s := w.begin(int64(len(b)))
	for i := 0; i*chunk < len(b); i++ {
		w.check(w.put(s.SessionID, int64(i), b[i*chunk:min(len(b), (i+1)*chunk)]))
	}
	return s
}

func (w *world) put(id string, idx int64, b []byte) error {
	return w.client.PutChunk(w.t.Context(), id, idx, bytes.NewReader(b), int64(len(b)), api.PutOptions{})
}

func finishOf(id string, b []byte) api.FinishRequest {
	return api.FinishRequest{SessionID: id, SHA256: hexSum(b), TotalLen: int64(len(b))}
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// codeIs gives the problem that err is, and fails where it is another.
func (w *world) codeIs(err error, code api.Code) *api.Error {
	w.t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code {
		w.t.Fatalf("got %v, want %s", err, code)
	}
	return e
}

// record serves one request without a network.
func (w *world) record(r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(rec, r)
	return rec
}
