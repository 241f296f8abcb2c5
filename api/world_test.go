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
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sluice/access"
	"sluice/api"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/test/leak"
	"sluice/keeper"
	"sluice/memories"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

const (
	chunk       = 4096
	inlineMax   = 64
	maxSessions = 120 // of one principal
)

type clock struct{}

func (clock) Now() time.Time { return time.Now() }

// still is a running time: no token here has an end.
func still() int64 { return 0 }

// parts are a server on stores in memory, and what it is made of.
type parts struct {
	server   *api.Server
	blobs    *blobtest.Mem
	access   *access.Service
	catalog  catalog.Store
	sessions *session.Service
	uploads  *upload.Service
	keeper   *keeper.Keeper
	secret   string // the admin's, who owns capsule "default"
}

func assemble(ctx context.Context, cfg api.Config, engine session.Config) (p parts, err error) {
	stores := metadatatest.NewMem(upload.Hook(catalog.Bounds{MaxSessions: maxSessions}, nil))
	p.catalog, p.blobs, p.access = stores.Catalog(), blobtest.NewMem(), access.New(
		stores.Catalog(), clock{}, still, nil,
	)
	if p.secret, err = p.access.Bootstrap(ctx); err != nil {
		return p, err
	}
	engine.TTL = time.Hour
	if p.sessions, err = session.New(ctx, stores.Sessions(), upload.EngineConfig(engine)); err != nil {
		return p, err
	}
	limits := upload.DefaultLimits()
	limits.ChunkSize, limits.ChunkSizeMin, limits.InlineMax = chunk, 1, inlineMax
	p.uploads = upload.New(upload.Config{
		Sessions: p.sessions, Catalog: stores.Catalog(), Blobs: p.blobs, Clock: clock{}, Limits: limits,
	})
	cfg.Uploads, cfg.Sessions, cfg.Access = p.uploads, p.sessions, p.access
	cfg.Memories = memories.New(memories.Config{
		Catalog: stores.Catalog(), Content: p.blobs, Clock: clock{}, Running: p.sessions.Running, TrashFor: time.Hour,
	})
	if cfg.EndOwner == nil {
		kept := keeper.New(keeper.Config{
			Sessions: p.sessions, Uploads: p.uploads, Catalog: stores.Catalog(), Blobs: p.blobs, Clock: clock{},
			WriteLastUses: p.access.WriteLastUses, Audit: cfg.Audit,
		})
		p.keeper, cfg.EndOwner = kept, kept.EndOwner
	}
	cfg.Bounds = catalog.Bounds{MaxSessions: maxSessions}
	if cfg.Expire == nil {
		cfg.Expire = func(ctx context.Context) (int, error) {
			return p.sessions.TickTTL(ctx, time.Now(), p.uploads.Expire)
		}
	}
	p.server, err = api.New(cfg)
	return p, err
}

// listen serves on a port of its own until stop, which returns Serve's error.
func (p *parts) listen() (url string, stop func() error, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx, ln, nil, 10*time.Second) }()
	return "http://" + ln.Addr().String(), func() error {
		cancel()
		defer p.uploads.Close()
		return <-done
	}, nil
}

// serveInMemory starts such a server for an example.
func serveInMemory(ctx context.Context) (url, token string, stop func()) {
	p, err := assemble(ctx, api.Config{}, session.Config{})
	if err != nil {
		panic(err)
	}
	url, end, err := p.listen()
	if err != nil {
		panic(err)
	}
	return url, p.secret, func() {
		http.DefaultClient.CloseIdleConnections()
		if err := end(); err != nil {
			panic(err)
		}
	}
}

// world is such a server that listens, with its admin and a stranger.
type world struct {
	parts
	t         *testing.T
	url       string
	foreign   string // the stranger's secret
	me        access.Caller
	transport *http.Transport
	stop      func() error // as the end of the test does, only earlier
	client    *api.Client
	stranger  *api.Client
}

// newWorld makes a world that ends with the test. change, if not nil, changes the server's
// configuration.
func newWorld(t *testing.T, change func(*api.Config)) *world {
	t.Helper()
	cfg := api.Config{Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if change != nil {
		change(&cfg)
	}
	return openWorld(t, cfg, session.Config{})
}

func openWorld(t *testing.T, cfg api.Config, engine session.Config) *world {
	t.Helper()
	return openWorldWith(t, cfg, engine, nil)
}

// openWorldWith is openWorld with an issuer of tokens, if it is not nil.
func openWorldWith(t *testing.T, cfg api.Config, engine session.Config, issuer access.Issuer) *world {
	t.Helper()
	w := &world{t: t, transport: &http.Transport{}}
	var err error
	w.parts, err = assemble(t.Context(), cfg, engine)
	w.check(err)
	w.access.SetIssuer(issuer)
	w.me, err = w.access.Authenticate(t.Context(), w.secret)
	w.check(err)
	_, w.foreign = w.join("stranger", false)
	url, stop, err := w.listen()
	w.check(err)
	w.stop = sync.OnceValue(stop)
	t.Cleanup(func() {
		w.transport.CloseIdleConnections()
		w.check(w.stop())
	})
	w.url = url
	w.client, w.stranger = w.as(w.secret), w.as(w.foreign)
	return w
}

// in returns the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	of := *w
	of.t = t
	return &of
}

// as returns a client with the secret.
func (w *world) as(secret string) *api.Client {
	return api.NewClient(w.url, secret, &http.Client{Transport: w.transport})
}

// join makes a principal without any role, and its token.
func (w *world) join(name string, readOnly bool) (principal, secret string) {
	w.t.Helper()
	p, err := w.access.CreatePrincipal(w.t.Context(), w.me, name, false)
	w.check(err)
	_, secret, err = w.access.CreateToken(w.t.Context(), w.me, access.TokenRequest{
		Principal: p.ID, Name: name, ReadOnly: readOnly,
	})
	w.check(err)
	return p.ID, secret
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// answer is the answer to a raw request.
type answer struct {
	*http.Response
	body    []byte
	problem api.Problem
}

// do sends a request as the admin. Headers come in pairs, instead of the usual ones. An empty value
// removes a header, and a name that is there twice is sent twice.
func (w *world) do(method, path, body string, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	w.check(err)
	req.Header.Set("Authorization", "Bearer "+w.secret)
	given := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		given.Add(headers[i], headers[i+1])
	}
	for name, values := range given {
		req.Header[name] = slices.DeleteFunc(values, func(v string) bool { return v == "" })
	}
	if given.Get("Transfer-Encoding") != "" { // the length is not announced
		req.ContentLength = -1
	}
	res, err := w.transport.RoundTrip(req)
	w.check(err)
	return w.read(res)
}

func (w *world) read(res *http.Response) answer {
	w.t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.check(err)
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
	m, err := w.client.Create(
		w.t.Context(), api.CreateRequest{Name: name, MIMEType: kind}, bytes.NewReader(b), int64(len(b)),
	)
	w.check(err)
	return m
}

// filled makes a session whose bytes are all there.
func (w *world) filled(b []byte) api.Session {
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

// codeIs returns the problem in err, and fails if it has another code.
func (w *world) codeIs(err error, code api.Code) *api.Error {
	w.t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code {
		w.t.Fatalf("got %v, want %s", err, code)
	}
	return e
}

// limit sets capsule default's quotas; 0 is none.
func (w *world) limit(bytes, memories int64) {
	w.t.Helper()
	_, err := w.client.UpdateCapsule(w.t.Context(), api.UpdateCapsuleRequest{
		CapsuleID: "default", QuotaBytes: &bytes, QuotaMemories: &memories,
	})
	w.check(err)
}

// pass lets the engine's time run on, in the steps that it counts.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	from := time.Now()
	for at := time.Duration(0); at <= d; at += time.Minute {
		_, err := w.sessions.TickTTL(w.t.Context(), from.Add(at), w.uploads.Expire)
		w.check(err)
	}
}

// holds fails if m's content is not b.
func (w *world) holds(m api.Memory, b []byte) {
	w.t.Helper()
	a := w.do("GET", m.ContentURL, "")
	if a.StatusCode != 200 || !bytes.Equal(a.body, b) || m.Bytes != int64(len(b)) || m.SHA256 != hexSum(b) {
		w.t.Errorf(
			"content of %s: %d, %d bytes, not the %d of %s", m.Name, a.StatusCode, len(a.body), len(b), hexSum(b),
		)
	}
}

// coded returns the code of a refusal, and "" for anything else.
func coded(err error) api.Code {
	var e *api.Error
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return e.Code
}
