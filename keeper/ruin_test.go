package keeper_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/internal/test/crashfs"
	testworld "sluice/internal/test/world"
	"sluice/keeper"
	"sluice/memories"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// house is a small data folder with one of everything, for tests that ruin it.
type house struct {
	world    *testworld.World
	ctx      context.Context
	sessions session.Store
	catalog  catalog.Store
	meta     *pebblemeta.DB // nil if the rows are in memory
	blobs    *localblob.Store
	engine   *session.Service
	uploads  *upload.Service
	memories *memories.Service
	me       access.Caller
}

// facts are the contents of a house.
type facts struct {
	Secret   string
	Contents map[string][]byte // by memory
	Open     session.SessionID // with pieces
	Whole    []byte            // the content that it will have
	Received []session.Range
	Killed   *crashfs.Disk // the disk as it is when the process dies before it leaves
}

// houseLimits are small, so that every byte can be damaged.
func houseLimits() upload.Limits {
	return upload.Limits{
		InlineMax: 16, ChunkSize: 32, ChunkSizeMin: 8, ChunkSizeMax: 64, MaxChunks: 64,
		MaxBytes: 1 << 20, TTL: 24 * time.Hour,
	}
}

// enter opens a house that is on a disk in memory. stores are in memory, or nil for Pebble on the
// disk. Nobody is logged in if there is no secret.
func enter(ctx context.Context, disk *crashfs.Disk, stores *metadatatest.Mem, secret string) (h *house, err error) {
	c := testworld.Config{
		Disk: testworld.Disk{FS: disk, Pebble: disk.VFS()}, Data: "/", Clock: wall{},
		Meta: pebblemeta.Options{Die: dies}, Limits: houseLimits(), TrashFor: time.Hour,
	}
	if stores != nil {
		c.Metadata = stores
	}
	w, err := testworld.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	if secret != "" {
		if err := w.Authenticate(ctx, secret); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return &house{
		world: w, ctx: ctx, sessions: w.Sessions, catalog: w.Catalog, meta: w.Meta, blobs: w.Blobs,
		engine: w.Engine, uploads: w.Uploads, memories: w.Memories, me: w.Me,
	}, nil
}

// dies ends a child process as damaged metadata do.
func dies(err error) {
	fmt.Println("the metadata's store gave up:", err)
	os.Exit(codeRefused)
}

type wall struct{}

func (wall) Now() time.Time { return time.Now() }

func (h *house) leave() error { return h.world.Close() }

// check runs a Check of the house.
func (h *house) check(repair bool) (found []keeper.Finding, sum keeper.Summary, err error) {
	cfg := keeper.CheckConfig{
		Sessions: h.sessions, Catalog: h.catalog, Blobs: h.blobs, Clock: wall{}, Repair: repair,
		Found: func(f keeper.Finding) { found = append(found, f) },
	}
	if h.meta != nil {
		cfg.Metadata = h.meta.Verify
	}
	sum, err = keeper.Check(h.ctx, cfg)
	return found, sum, err
}

// text gives n bytes that differ from all others.
func text(seed, n int) []byte {
	b := make([]byte, 0, n+32)
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256(fmt.Append(nil, seed, i))
		b = append(b, sum[:]...)
	}
	return b[:n]
}

// create stores bytes in one request.
func (h *house) create(name string, b []byte) (catalog.Memory, error) {
	return h.uploads.Create(h.ctx, h.me,
		upload.CreateRequest{
			Meta: catalog.Meta{Name: name}, Idem: "idem of " + name,
			Put: upload.Put{Length: int64(len(b))},
		}, bytes.NewReader(b))
}

// begin begins an upload of chunks of 16 bytes, and puts the given ones.
func (h *house) begin(name string, b []byte, chunks ...int64) (upload.Upload, error) {
	up, err := h.uploads.Begin(h.ctx, h.me,
		upload.BeginRequest{Meta: catalog.Meta{Name: name}, Bytes: int64(len(b)), Chunks: -1, ChunkSize: 16})
	for _, i := range chunks {
		err = errors.Join(err, h.put(up.ID, b, i, upload.Put{Length: -1}))
	}
	return up, err
}

func (h *house) put(id session.SessionID, b []byte, i int64, p upload.Put) error {
	return h.uploads.PutChunk(h.ctx, h.me, id, i, bytes.NewReader(b[i*16:min((i+1)*16, int64(len(b)))]), p)
}

func (h *house) finish(id session.SessionID, b []byte) (catalog.Memory, error) {
	return h.uploads.Finish(h.ctx, h.me, upload.FinishRequest{ID: id, SHA256: sha256.Sum256(b), Length: int64(len(b))})
}

// furnish fills an empty house.
func furnish(t *testing.T, disk *crashfs.Disk, stores *metadatatest.Mem) (f facts) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	h, err := enter(t.Context(), disk, stores, "")
	must(err)
	f.Secret, err = h.world.Access.Bootstrap(t.Context())
	must(err)
	must(h.world.Authenticate(t.Context(), f.Secret))
	h.me = h.world.Me
	f.Contents = map[string][]byte{}
	keep := func(m catalog.Memory, err error, b []byte) catalog.Memory {
		t.Helper()
		must(err)
		f.Contents[m.ID.String()] = b
		return m
	}
	inline, one, twice, trashed := text(1, 11), text(2, 30), text(3, 25), text(4, 20)
	m, err := h.create("inline", inline)
	keep(m, err, inline)
	m, err = h.create("one place", one)
	keep(m, err, one)
	m, err = h.create("twice", twice)
	keep(m, err, twice)
	m, err = h.create("in the trash", trashed)
	must(err)
	must(h.memories.Delete(h.ctx, h.me, m.ID, false))
	// A chunk that was replaced is at another place.
	many := text(5, 40)
	up, err := h.begin("several places", many, 0, 2)
	must(err)
	must(h.put(up.ID, text(6, 40), 1, upload.Put{Length: -1}))
	must(h.put(up.ID, many, 1, upload.Put{Length: 16, Replace: true}))
	m, err = h.finish(up.ID, many)
	keep(m, err, many)
	if h.meta != nil { // a second incarnation, so that there are tables and a log
		must(h.leave())
		h, err = enter(t.Context(), disk, stores, f.Secret)
		must(err)
	}
	m, err = h.create("twice, again", twice)
	keep(m, err, twice)
	up, err = h.begin("given up", text(7, 20), 0)
	must(err)
	must(h.uploads.Abort(h.ctx, h.me, up.ID))
	f.Whole = text(8, 76)
	up, err = h.begin("under way", f.Whole, 0, 1, 3)
	must(err)
	f.Open = up.ID
	up, err = h.uploads.Status(h.ctx, h.me, up.ID)
	must(err)
	f.Received = up.Received
	if found, sum, err := h.check(false); err != nil || sum.Wrong > 0 {
		t.Fatalf("a new house: %v, %+v", err, found)
	}
	f.Killed = disk.Kill()
	must(h.leave())
	return f
}

// readAll reads every memory. It gives the right ones, and an error if a read gives wrong bytes.
func (h *house) readAll(f facts) (right map[string]bool, err error) {
	right = map[string]bool{}
	for id, want := range f.Contents {
		var m catalog.MemoryID
		if err := m.UnmarshalText([]byte(id)); err != nil {
			return nil, err
		}
		got, e := h.read(m, int64(len(want)))
		switch {
		case e != nil:
		case !bytes.Equal(got, want):
			err = errors.Join(err, fmt.Errorf("memory %s is given out as %x and is %x", id, got, want))
		default:
			right[id] = true
		}
	}
	return right, err
}

func (h *house) read(id catalog.MemoryID, n int64) ([]byte, error) {
	file, err := h.memories.Open(h.ctx, h.me, id)
	if err != nil {
		return nil, err
	}
	body, err := file.Body(h.ctx, 0, file.Memory.Bytes)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err == nil && int64(len(b)) != n {
		err = fmt.Errorf("%d bytes", len(b))
	}
	return b, err
}

// goOn finishes the open upload with the missing pieces, stores all memories' bytes again, and a
// new memory. Afterwards everything is right.
func (h *house) goOn(f facts) error {
	up, err := h.uploads.Status(h.ctx, h.me, f.Open)
	if err != nil {
		return fmt.Errorf("the upload under way: %w", err)
	}
	for i := range int64(5) {
		r := session.Range{Off: i * 16, End: min((i+1)*16, int64(len(f.Whole)))}
		if !session.Covers(up.Received, r) {
			if err := h.put(f.Open, f.Whole, i, upload.Put{Length: -1}); err != nil {
				return fmt.Errorf("putting chunk %d: %w", i, err)
			}
		}
	}
	m, err := h.finish(f.Open, f.Whole)
	if err != nil {
		return fmt.Errorf("finishing: %w", err)
	}
	f.Contents[m.ID.String()] = f.Whole
	for _, b := range f.Contents {
		m, err := h.uploads.Create(h.ctx, h.me,
			upload.CreateRequest{Meta: catalog.Meta{Name: "again"}, Put: upload.Put{Length: int64(len(b))}},
			bytes.NewReader(b))
		if err != nil {
			return fmt.Errorf("storing once more: %w", err)
		}
		if got, err := h.read(m.ID, int64(len(b))); err != nil || !bytes.Equal(got, b) {
			return fmt.Errorf("reading what was just stored: %x, %w", got, err)
		}
	}
	right, err := h.readAll(f)
	if err == nil && len(right) != len(f.Contents) {
		err = fmt.Errorf("%d of %d memories are right after all were stored again", len(right), len(f.Contents))
	}
	return err
}
