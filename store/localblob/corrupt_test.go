package localblob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

type clock struct{}

func (clock) Now() time.Time { return time.Now() }

type world struct {
	*upload.Service
	sessions *session.Service
	me       access.Caller
	blobs    *Store
	stores   *metadatatest.Mem
}

func newWorld(t *testing.T, dir string, disk durable.FS, stores *metadatatest.Mem) *world {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w := &world{stores: stores}
	var err error
	w.blobs, err = Open(dir, Options{Durability: durable.Process, FS: disk})
	check(err)
	who := access.New(stores.Catalog(), clock{}, func() int64 { return 0 }, nil)
	secret, err := who.Bootstrap(t.Context())
	check(err)
	if secret == "" {
		secret, err = who.AdminToken(t.Context())
		check(err)
	}
	w.me, err = who.Authenticate(t.Context(), secret)
	check(err)
	w.sessions, err = session.New(t.Context(), stores.Sessions(), upload.EngineConfig(session.Config{}))
	check(err)
	l := upload.DefaultLimits()
	w.Service = upload.New(upload.Config{
		Sessions: w.sessions, Catalog: stores.Catalog(), Blobs: w.blobs,
		Clock: clock{}, Limits: l,
	})
	return w
}

// Bytes become corrupt in a chunk of more than one buffer. The same chunk again is not refused as
// if it had other bytes: the corrupt bytes are dropped.
func TestARottenChunkIsNotTakenForAConflict(t *testing.T) {
	w := newWorld(t, t.TempDir(), nil, metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil)))
	defer w.blobs.Close()
	defer w.Close()
	b := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	up, err := w.Begin(t.Context(), w.me,
		upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: int64(len(b)), Chunks: -1})
	if err != nil {
		t.Fatal(err)
	}
	put := func() error {
		return w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(b), upload.Put{Length: int64(len(b))})
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	places, _ := w.blobs.Places(t.Context(), "", 10)
	p, _ := parse(places[0].Name)
	f, err := os.OpenFile(w.blobs.path(p), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteAt([]byte("X"), 1000)
	f.Close()
	if err := put(); !errors.Is(err, session.ErrSuperseded) {
		t.Errorf("the very bytes that were acknowledged: %v", err)
	}
	if err := put(); err != nil {
		t.Errorf("and once more: %v", err)
	}
	m, err := w.Finish(t.Context(), w.me,
		upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(b), Length: int64(len(b))})
	if err != nil || m.Bytes != int64(len(b)) {
		t.Errorf("finish: %v, memory of %d bytes", err, m.Bytes)
	}
}

// sick is a disk with a bad sector in its places.
type sick struct {
	durable.FS
	bad bool
	all bool // also in the files that each content folder has
}

type sickFile struct {
	durable.File
	s    *sick
	here bool
}

func (s *sick) OpenFile(path string, flag int, perm os.FileMode) (durable.File, error) {
	f, err := s.FS.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return &sickFile{f, s, s.all || !strings.HasSuffix(path, "/format")}, nil
}

func (f *sickFile) ReadAt(p []byte, off int64) (int, error) {
	if f.s.bad && f.here {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

func (f *sickFile) PastCache(off, n int64) (func([]byte, int64) (int, error), func() error) {
	read, done := f.File.PastCache(off, n)
	return func(p []byte, at int64) (int, error) {
		if f.s.bad && f.here {
			return 0, syscall.EIO
		}
		return read(p, at)
	}, done
}

// A sector that can't be read harms its chunk alone: the client is asked for it again.
func TestBytesThatCannotBeReadAreAskedForAgain(t *testing.T) {
	dir, stores, disk := t.TempDir(), metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil)), &sick{FS: durable.OS{}}
	w := newWorld(t, dir, disk, stores)
	b := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	up, err := w.Begin(t.Context(), w.me,
		upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: int64(len(b)), Chunks: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(b),
		upload.Put{Length: int64(len(b))}); err != nil {
		t.Fatal(err)
	}
	// The process dies.
	w.Close()
	w.blobs.lock.Close()
	disk.bad = false
	w = newWorld(t, dir, disk, stores)
	defer w.Close()
	disk.bad = true
	var missing *session.IncompleteError
	for range 3 {
		_, err = w.Finish(context.Background(), w.me,
			upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(b), Length: int64(len(b))})
	}
	if !errors.As(err, &missing) {
		t.Errorf("finish: %v", err)
	}
	if err := w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(b),
		upload.Put{Length: int64(len(b))}); err != nil {
		t.Errorf("the chunk once more: %v", err)
	}
	disk.bad = false
	_ = w.blobs.Close()
}
