package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/access"
	"sluice/backup"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/leak"
	"sluice/internal/test/world"
	"sluice/keeper"
	"sluice/session"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

const chunk = 5000 // no multiple of a block, nor of a sector

// disk is one file system, as both stores see it.
type disk = world.Disk

func simulated(d *crashfs.Disk) disk { return disk{FS: d, Pebble: d.VFS()} }

var real = disk{FS: durable.OS{}, Pebble: vfs.Default}

// server is a server without its network, on the data folder of a disk.
type server struct {
	t       *testing.T
	world   *world.World // nil when it has stopped
	disk    disk
	data    string
	clock   *world.Clock
	meta    *pebblemeta.DB
	blobs   *localblob.Store
	rows    catalog.Store
	engine  *session.Service
	uploads *upload.Service
	keeper  *keeper.Keeper
	me      access.Caller
}

// serve starts one. The principal that was there first is its owner.
func serve(t *testing.T, on disk, data string) *server {
	t.Helper()
	s, err := start(t.Context(), on, data)
	if err != nil {
		t.Fatal(err)
	}
	s.t = t
	t.Cleanup(s.stop)
	return s
}

func start(ctx context.Context, on disk, data string) (*server, error) {
	limits := upload.DefaultLimits()
	limits.ChunkSize, limits.ChunkSizeMin, limits.InlineMax = chunk, 1, 200
	clock := &world.Clock{}
	w, err := world.Open(ctx, world.Config{
		Disk: on, Data: data, Durability: durable.Process, Clock: clock, Limits: limits,
		Content: localblob.Options{Reserve: 1},
		Engine:  session.Config{MaxStep: time.Hour, Keep: 1000 * time.Hour, MinEntry: 500},
	})
	if err != nil {
		return nil, err
	}
	if err := w.Login(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &server{
		world: w, disk: on, data: data, clock: clock,
		meta: w.Meta, blobs: w.Blobs, rows: w.Catalog, engine: w.Engine, uploads: w.Uploads, keeper: w.Keeper, me: w.Me,
	}, nil
}

func (s *server) stop() {
	if s.world == nil {
		return
	}
	err := s.world.Close()
	if s.world = nil; err != nil && s.t != nil {
		s.t.Error(err)
	}
}

func (s *server) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// source is the Source that cmd/sluice makes of the folder.
func (s *server) source() backup.Source {
	return backup.Source{
		ID: "AAAAAAAAAAAAAAAAAAAAAAAAAA",
		Freeze: func(ctx context.Context) (backup.Frozen, error) {
			f, err := s.meta.Freeze(ctx)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		Decode: pebblemeta.Decode, Rows: pebblemeta.Format, Content: s.blobs, Hold: s.keeper.Hold,
	}
}

func (s *server) backup(on durable.FS, dir string) backup.Result {
	s.t.Helper()
	res, err := backup.Run(s.t.Context(), on, dir, s.source(), s.clock.Now(), nil)
	s.check(err)
	return res
}

// restore makes a data folder of a backup.
func restore(
	ctx context.Context, from durable.FS, dir string, to disk, data string, salvage bool,
) (res backup.Result, err error) {
	b, err := backup.Open(from, dir)
	if err != nil {
		return res, err
	}
	defer b.Close()
	err = backup.Build(to, data, func(dir string) error {
		meta, err := pebblemeta.Fill(dir+"/meta", pebblemeta.Options{FS: to.Pebble})
		if err != nil {
			return err
		}
		defer meta.Abandon()
		blobs, err := localblob.Open(dir+"/content", localblob.Options{FS: to, Reserve: 1})
		if err != nil {
			return err
		}
		target := backup.Target{
			Decode: pebblemeta.Decode, Rows: pebblemeta.Format, Row: meta.Add, Place: blobs.Adopt,
			Salvage: salvage,
		}
		if res, err = b.Restore(ctx, target, nil); err == nil {
			err = meta.Close(ctx)
		}
		return errors.Join(err, blobs.CloseAdopted())
	})
	return res, err
}

// restored starts a server on the restored backup.
func restored(t *testing.T, from durable.FS, dir string) *server {
	t.Helper()
	to := simulated(crashfs.New())
	if _, err := restore(t.Context(), from, dir, to, "/data", false); err != nil {
		t.Fatal(err)
	}
	return serve(t, to, "/data")
}

// bytesOf gives n bytes that differ from seed to seed.
func bytesOf(seed string, n int) []byte {
	b := make([]byte, 0, n+sha256.Size)
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b = append(b, sum[:]...)
	}
	return b[:n]
}

func (s *server) create(name string, b []byte) catalog.Memory {
	s.t.Helper()
	m, err := s.uploads.Create(s.t.Context(), s.me,
		upload.CreateRequest{Meta: catalog.Meta{Name: name}, Put: upload.Put{Length: int64(len(b))}},
		bytes.NewReader(b))
	s.check(err)
	return m
}

func (s *server) begin(name string, n int) session.SessionID {
	s.t.Helper()
	up, err := s.uploads.Begin(s.t.Context(), s.me,
		upload.BeginRequest{Meta: catalog.Meta{Name: name}, Bytes: int64(n), Chunks: -1, ChunkSize: chunk})
	s.check(err)
	return up.ID
}

func (s *server) put(id session.SessionID, i int, b []byte) {
	s.t.Helper()
	part := b[i*chunk : min((i+1)*chunk, len(b))]
	s.check(s.uploads.PutChunk(s.t.Context(), s.me, id, int64(i), bytes.NewReader(part), upload.Put{Length: -1}))
}

func (s *server) finish(id session.SessionID, b []byte) catalog.Memory {
	s.t.Helper()
	m, err := s.uploads.Finish(s.t.Context(), s.me,
		upload.FinishRequest{ID: id, SHA256: sha256.Sum256(b), Length: int64(len(b))})
	s.check(err)
	return m
}

// received gives the ranges that the server has of an upload.
func (s *server) received(id session.SessionID) []session.Range {
	s.t.Helper()
	up, err := s.uploads.Status(s.t.Context(), s.me, id)
	s.check(err)
	return up.Received
}

func (s *server) purge(id catalog.MemoryID) {
	s.t.Helper()
	s.check(s.rows.Update(s.t.Context(), func(tx catalog.Tx) error {
		return catalog.Purge(tx, id, catalog.Moment{Now: s.clock.Now(), Running: s.engine.Running()})
	}))
}

// collect lets two hours pass, in which garbage goes.
func (s *server) collect() {
	s.t.Helper()
	for range 3 {
		s.clock.Advance(time.Hour)
		_, err := s.keeper.Tick(s.t.Context())
		s.check(err)
	}
}

// checkAll gives every memory with its content, and compares all that must agree.
func (s *server) checkAll() (all map[string]catalog.Memory, err error) {
	err = s.rows.View(context.Background(), func(r catalog.Reader) error {
		all = map[string]catalog.Memory{}
		count, total := int64(0), int64(0)
		refs := map[catalog.ContentKey]int64{}
		for m, err := range catalog.Memories.After(r, catalog.MemoryKey{}) {
			if err != nil {
				return err
			}
			count, total = count+1, total+m.Bytes
			refs[catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256}]++
			b, err := s.content(r, m)
			if err != nil {
				return fmt.Errorf("memory %s (%s): %w", m.ID, m.Name, err)
			}
			if sha256.Sum256(b) != m.SHA256 || int64(len(b)) != m.Bytes {
				return fmt.Errorf("memory %s (%s) has other bytes", m.ID, m.Name)
			}
			all[m.Name] = m
		}
		c, err := catalog.Capsules.Get(r, "default")
		if err != nil || c.Memories != count || c.Bytes != total {
			return errors.Join(err, fmt.Errorf("the capsule counts %d memories of %d bytes, and there are %d of %d",
				c.Memories, c.Bytes, count, total))
		}
		for key, n := range refs {
			if content, err := catalog.Contents.Get(r, key); err != nil || content.Refs != n {
				return errors.Join(err, fmt.Errorf("content %x has %d references, not %d",
					key.SHA256[:4], content.Refs, n))
			}
		}
		open := int64(0)
		for range catalog.Reservations.After(r, 0) {
			open++
		}
		if st, err := s.engine.Stats(context.Background()); err != nil || st.Open != open || c.Sessions != open {
			return errors.Join(err, fmt.Errorf("%d sessions are open, %d are counted, and there are %d reservations",
				st.Open, c.Sessions, open))
		}
		return nil
	})
	return all, err
}

func (s *server) content(r catalog.Reader, m catalog.Memory) ([]byte, error) {
	c, err := catalog.Contents.Get(r, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
	if err != nil || len(c.Extents) == 0 {
		return c.Inline, err
	}
	body, err := s.blobs.Read(context.Background(), c.Extents, 0, c.Bytes)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// names gives the names of all memories.
func (s *server) names() map[string]bool {
	s.t.Helper()
	all, err := s.checkAll()
	s.check(err)
	names := map[string]bool{}
	for name := range all {
		names[name] = true
	}
	return names
}

// files gives the paths of all files below dir.
func files(t *testing.T, on durable.FS, dir string) (all []string) {
	t.Helper()
	names, err := on.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if info, err := on.Stat(path); err != nil {
			t.Fatal(err)
		} else if info.Dir {
			all = append(all, files(t, on, path)...)
		} else {
			all = append(all, path)
		}
	}
	return all
}
