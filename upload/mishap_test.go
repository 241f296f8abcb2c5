package upload_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// hook is a function that runs once.
type hook struct{ atomic.Pointer[func()] }

func (h *hook) fire() {
	if f := h.Swap(nil); f != nil {
		(*f)()
	}
}

// engine is the session store with hooks.
type engine struct {
	session.Store
	create  hook // before a session is made
	load    func()
	loaded  hook // after a session was loaded
	list    hook // before entries are listed
	drop    hook // before a drop is recorded
	record  hook // before entries are recorded
	kept    hook // after entries were recorded
	entries func(n int)
	seal    func()
}

func (e *engine) Move(ctx context.Context, id session.SessionID, step session.Step) (session.Session, error) {
	if seal := e.seal; seal != nil && step.To == session.Sealed {
		e.seal = nil
		seal()
	}
	return e.Store.Move(ctx, id, step)
}

// Bytes that are replaced after they were verified are not published. The seal is refused, and the
// finish verifies again.
func TestWhatIsReplacedAfterItWasVerifiedIsNotPublished(t *testing.T) {
	w := newWorld(t)
	e := w.rewire(w.blobs, limits())
	b, fresh := random(2*chunk), random(chunk)
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, b)
	e.seal = func() {
		w.check(
			w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(fresh), upload.Put{Length: chunk, Replace: true}),
		)
	}
	if _, err := w.finish(up.ID, b); !errors.Is(err, upload.ErrChecksum) || w.memories() != 0 {
		t.Errorf("%v; %d memories", err, w.memories())
	}
	copy(b, fresh)
	w.finishes(up.ID, b)
}

func (e *engine) Create(ctx context.Context, s session.Session) (session.Session, bool, error) {
	e.create.fire()
	return e.Store.Create(ctx, s)
}

func (e *engine) Load(ctx context.Context, id session.SessionID) (session.Session, error) {
	if e.load != nil {
		e.load()
	}
	s, err := e.Store.Load(ctx, id)
	e.loaded.fire()
	return s, err
}

func (e *engine) Entries(ctx context.Context, id session.SessionID, r session.Range, n int) ([]session.Entry, error) {
	e.list.fire()
	es, err := e.Store.Entries(ctx, id, r, n)
	if e.entries != nil {
		e.entries(len(es))
	}
	return es, err
}

func (e *engine) Record(
	ctx context.Context, id session.SessionID, gen uint64, c session.Change,
) (session.Session, error) {
	if !c.Drop.Empty() {
		e.drop.fire()
	}
	if len(c.Add) > 0 {
		e.record.fire()
	}
	after, err := e.Store.Record(ctx, id, gen, c)
	if len(c.Add) > 0 {
		e.kept.fire()
	}
	return after, err
}

// rewire makes the Services anew, on hooked stores, with the engine's settings of cmd/sluice.
func (w *world) rewire(blobs blob.Store, limits upload.Limits) *engine {
	w.Close()
	e := &engine{Store: w.stores.Sessions()}
	var err error
	w.sessions, err = session.New(
		w.t.Context(), e, upload.EngineConfig(session.Config{TTL: time.Hour, MinEntry: 4 << 10}),
	)
	w.check(err)
	w.Service = upload.New(
		upload.Config{
			Sessions:   w.sessions,
			Catalog:    w.catalog,
			Blobs:      blobs,
			Clock:      clock{},
			Limits:     limits,
			CheckSpace: w.checkSpace,
		},
	)
	return e
}

// `echo hi | curl -T - URL`: a body of unknown length whose last run is shorter than the smallest
// entry.
func TestASmallPipeCanBeStored(t *testing.T) {
	w := newWorld(t)
	l := limits()
	l.ChunkSize = 8 << 10
	w.rewire(w.blobs, l)
	for _, n := range []int{0, 3, 4095, 4096, 8 << 10, 8<<10 + 1, 16<<10 + 4000} {
		b := random(n)
		m, err := w.Create(t.Context(), w.me, upload.CreateRequest{
			Capsule: "default", Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: -1},
		}, struct{ io.Reader }{bytes.NewReader(b)})
		if err != nil {
			t.Errorf("%d bytes: %v", n, err)
		} else if !bytes.Equal(w.content(m), b) {
			t.Errorf("%d bytes: other content", n)
		}
	}
}

// The bound of an upload also holds for an unknown length.
func TestAnUnknownLengthIsBoundedByMaxBytes(t *testing.T) {
	w := newWorld(t)
	l := limits()
	l.MaxBytes = 2 * chunk
	w.rewire(w.blobs, l)
	b := random(5 * chunk)
	if _, err := w.Create(t.Context(), w.me, upload.CreateRequest{
		Capsule: "default", Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: -1},
	}, struct{ io.Reader }{bytes.NewReader(b)}); err == nil {
		t.Errorf("create: %d bytes are stored, and %d are allowed", len(b), l.MaxBytes)
	}
	up := w.begin(session.Unknown)
	for i, c := range chunks(b) {
		_ = w.put(up.ID, int64(i), c)
	}
	if _, err := w.finish(up.ID, b); err == nil {
		t.Errorf("finish: %d bytes are stored, and %d are allowed", len(b), l.MaxBytes)
	}
}

// A finish of an unknown length that is overtaken by a put behind that length is refused, and does
// not wait for ever.
func TestAFinishThatIsOvertakenEnds(t *testing.T) {
	w := newWorld(t)
	e := w.rewire(w.blobs, limits())
	up := w.begin(session.Unknown)
	b := random(2 * chunk)
	w.check(w.put(up.ID, 0, b[:chunk]))
	var loads atomic.Int64
	var once sync.Once
	e.load = func() {
		if loads.Add(1) == 2 { // the first before the digest, the second before the seal
			once.Do(func() { w.check(w.put(up.ID, 1, b[chunk:])) })
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := w.Finish(ctx, w.me, upload.FinishRequest{ID: up.ID, Length: chunk, UseServerDigest: true})
	if !errors.Is(err, upload.ErrLengthMismatch) {
		t.Errorf("%v; the session was loaded %d times", err, loads.Load())
	}
}

// gatedCheck is a content store whose Check waits.
type gatedCheck struct {
	blob.Store
	check func()
}

func (c *gatedCheck) Check(ctx context.Context, e catalog.Extent, policy blob.CheckPolicy) error {
	err := c.Store.Check(ctx, e, policy)
	if err != nil && c.check != nil {
		c.check()
	}
	return err
}

// Two requests find the same corrupt chunk. The first one drops it, and its client stores it anew.
// The drop of the second one leaves the new chunk alone.
func TestADropTakesOnlyWhatWasFoundLost(t *testing.T) {
	w := newWorld(t)
	blobs := &gatedCheck{Store: w.blobs}
	w.rewire(blobs, limits())
	up := w.begin(2 * chunk)
	b := random(2 * chunk)
	w.check(w.put(up.ID, 0, b[:chunk]))
	es, err := w.sessions.Entries(t.Context(), up.ID, session.All(), 0)
	w.check(err)
	if len(es) != 1 {
		t.Fatal(es)
	}
	places, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	w.blobs.Corrupt(places[0].Name, 5)
	blobs.check = func() {
		blobs.check = nil // the first request has found it corrupt, and is about to drop it
		if err := w.put(up.ID, 0, b[:chunk]); !errors.Is(err, session.ErrSuperseded) {
			t.Errorf("the second request: %v", err)
		}
		w.check(w.put(up.ID, 0, b[:chunk])) // acknowledged
	}
	if err := w.put(up.ID, 0, b[:chunk]); !errors.Is(err, session.ErrSuperseded) {
		t.Errorf("the first request: %v", err)
	}
	s, err := w.Status(t.Context(), w.me, up.ID)
	w.check(err)
	if !session.Covers(s.Received, session.Range{End: chunk}) {
		t.Errorf("an acknowledged chunk is gone: %v", s.Received)
	}
}

// hookedRead is a content store with a hook after its first read.
type hookedRead struct {
	blob.Store
	read hook
}

func (r *hookedRead) Read(ctx context.Context, extents []catalog.Extent, off, n int64) (io.ReadCloser, error) {
	body, err := r.Store.Read(ctx, extents, off, n)
	r.read.fire()
	return body, err
}

// A finish waits for the background hasher, which has read an entry whose bytes are corrupt. By
// then the entry has been dropped and stored anew.
func TestAFinishReadsWhatReplacedALostPiece(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		blobs := &hookedRead{Store: w.blobs}
		w.rewire(blobs, limits())
		b := random(3 * chunk)
		up := w.begin(int64(len(b)))
		for i := range int64(2) { // ahead of the prefix hash, so that they are read back
			w.check(w.put(up.ID, i+1, b[(i+1)*chunk:(i+2)*chunk]))
		}
		places, err := w.blobs.Places(t.Context(), "", 10)
		w.check(err)
		w.blobs.Corrupt(places[0].Name, 2*chunk+7)
		replace := func() {
			time.Sleep(time.Second) // the finish waits
			w.check(
				w.PutChunk(
					t.Context(), w.me, up.ID, 2, bytes.NewReader(b[2*chunk:]), upload.Put{Length: chunk, Replace: true},
				),
			)
		}
		blobs.read.Store(&replace)
		w.check(w.put(up.ID, 0, b[:chunk]))
		m, err := w.finish(up.ID, b)
		w.check(err)
		if blobs.read.Load() != nil || !bytes.Equal(w.content(m), b) {
			t.Error("content differs")
		}
	})
}

// A finish has verified an entry that is dropped before it is published, or before the chunks are
// compared. It asks for the entry again.
func TestAFinishAsksForWhatIsDroppedMeanwhile(t *testing.T) {
	w := newWorld(t)
	e := w.rewire(w.blobs, limits())
	b := random(3 * chunk)
	up := w.begin(int64(len(b)))
	finish := upload.FinishRequest{ID: up.ID, Length: int64(len(b)), CRC32C: make([]uint32, 3)}
	good := finish
	good.SHA256 = sha256.Sum256(b)
	w.putAll(up.ID, b)
	if _, err := w.Finish(
		t.Context(), w.me, finish,
	); !errors.Is(err, upload.ErrChecksum) { // its entries are checked from here on
		t.Fatal(err)
	}
	for name, req := range map[string]upload.FinishRequest{"published": good, "compared": finish} {
		drop := func() {
			_, _, err := w.sessions.Drop(t.Context(), up.ID, session.Range{Off: chunk, End: 2 * chunk}, nil)
			w.check(err)
		}
		e.list.Store(&drop)
		var inc *session.IncompleteError
		_, err := w.Finish(t.Context(), w.me, req)
		if !errors.As(err, &inc) || e.list.Load() != nil || w.memories() != 0 {
			t.Errorf("%s: %v, %d memories", name, err, w.memories())
		}
		w.check(w.put(up.ID, 1, b[chunk:2*chunk]))
	}
	m, err := w.Finish(t.Context(), w.me, good)
	w.check(err)
	if !bytes.Equal(w.content(m), b) {
		t.Error("content differs")
	}
}

// revokingBody is a body in the middle of which the token is revoked.
type revokingBody struct {
	io.Reader
	revoke func()
}

func (r *revokingBody) Read(p []byte) (int, error) {
	if r.revoke != nil {
		r.revoke()
		r.revoke = nil
	}
	return r.Reader.Read(p[:min(len(p), 100)])
}

// The token is revoked while a chunk arrives. No byte of the chunk is recorded.
func TestATokenThatIsRevokedInMidBody(t *testing.T) {
	w := newWorld(t)
	tok, secret, err := w.access.CreateToken(t.Context(), w.me, access.TokenRequest{
		Principal: w.me.Principal, Name: "second",
	})
	w.check(err)
	c, err := w.access.Authenticate(t.Context(), secret)
	w.check(err)
	up := w.begin(chunk)
	b := random(chunk)
	err = w.PutChunk(t.Context(), c, up.ID, 0, &revokingBody{bytes.NewReader(b), func() {
		w.check(w.access.RevokeToken(t.Context(), w.me, tok.ID))
	}}, upload.Put{Length: chunk})
	s, e := w.sessions.Status(t.Context(), up.ID)
	w.check(e)
	if !errors.Is(err, access.ErrUnauthenticated) || len(s.Received) > 0 {
		t.Errorf("%v, received %v", err, s.Received)
	}
}

// Sessions that have ended without their client do not evict the sessions that are in use.
func TestAPutDoesNotLoadAllEntries(t *testing.T) {
	w := newWorld(t)
	e := w.rewire(w.blobs, limits())
	b := random(chunk)
	perPut := func(n int64) int64 {
		up := w.begin(n * chunk)
		var rows atomic.Int64
		for i := range n {
			if i == n/2 {
				e.entries = func(k int) { rows.Add(int64(k)) }
			}
			w.check(w.put(up.ID, i, b))
		}
		e.entries = nil
		_ = w.Abort(t.Context(), w.me, up.ID)
		return rows.Load() / (n - n/2)
	}
	before := perPut(200)
	for range 2 {
		for range 600 {
			up := w.begin(chunk)
			w.check(w.put(up.ID, 0, b))
		}
		_, err := w.sessions.ClearAll(t.Context(), w.Release) // or an expiry
		w.check(err)
	}
	if after := perPut(200); after > 3*before+10 {
		t.Errorf("a put loads %d entries, and loaded %d before", after, before)
	}
}

// A background hasher of chunks that come out of order stores a checkpoint now and then, and not
// each time that it has caught up.
func TestThereIsACheckpointForEach64MiB(t *testing.T) {
	w := newWorld(t)
	b := random(400 * chunk)
	up := w.begin(int64(len(b)))
	cs := chunks(b)
	for i := 0; i < len(cs); i += 2 {
		w.check(w.put(up.ID, int64(i+1), cs[i+1]))
		w.check(w.put(up.ID, int64(i), cs[i]))
		time.Sleep(2 * time.Millisecond)
	}
	rows := 0
	w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
		rows = 0
		for range catalog.CheckpointsBack(r, uint64(up.ID)) {
			rows++
		}
		return nil
	}))
	if rows > 2 {
		t.Errorf("%d states for %d chunks, %d MiB", rows, len(cs), len(b)>>20)
	}
}

// Entries and contents are checked by the CRC-32C of all their bytes, also if these came in one
// large buffer.
func TestTheChecksumIsOfAllBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // all comes fast
		w := newWorld(t)
		l := limits()
		l.ChunkSize = 1 << 20
		w.rewire(w.blobs, l)
		table := crc32.MakeTable(crc32.Castagnoli)
		for _, n := range []int{64 << 10, 64<<10 + 1, 300_001, 1 << 20} {
			b := random(n)
			up := w.begin(int64(n))
			w.check(w.put(up.ID, 0, b))
			entries, err := w.sessions.Entries(t.Context(), up.ID, session.All(), 0)
			w.check(err)
			p, err := upload.InspectPiece(entries[0])
			w.check(err)
			if len(entries) != 1 || p.Extent.CRC32C != crc32.Checksum(b, table) || p.Hashed != int64(n) {
				t.Errorf("%d bytes: %d entries, %+v", n, len(entries), p.Extent)
			}
			m, err := w.finish(up.ID, b)
			w.check(err)
			b = random(n)
			created, err := w.Create(
				t.Context(),
				w.me,
				upload.CreateRequest{
					Capsule: "default",
					Meta:    catalog.Meta{Name: "a"},
					Put:     upload.Put{Length: int64(n)},
				},
				bytes.NewReader(b),
			)
			w.check(err)
			for _, m := range []catalog.Memory{m, created} {
				w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
					c, err := catalog.Contents.Get(r, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
					for _, e := range c.Extents {
						err = errors.Join(err, w.blobs.Check(t.Context(), e, blob.CheckAll))
					}
					return err
				}))
			}
			if got := sha256.Sum256(b); created.SHA256 != got {
				t.Errorf("%d bytes: another SHA-256", n)
			}
		}
	})
}
