package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/world"
	"sluice/session"
	"sluice/upload"
)

// seed is a data folder that is filled without a server and without syncs. A million commits take
// minutes, and an interrupted run begins anew. It writes what a server would have written, with the
// same code. All of it is on the disk when the run is done and the disks were synced.
type seed struct {
	*world.World
	data string
}

// seedAge is the running time at which the sessions of a seed are begun. It is above a session's
// time to live, so that a look for due sessions has a bound to look below.
const seedAge = 1000 * time.Hour

// openSeed opens a data folder that a server has made, and that none has open.
func openSeed(ctx context.Context, data string, disk vfs.FS) (*seed, error) {
	limits := upload.DefaultLimits()
	w, err := world.Open(ctx, world.Config{
		Disk: world.Disk{FS: durable.OS{}, Pebble: disk}, Data: data, Durability: durable.Process,
		Engine: session.Config{MinEntry: 4 << 10, TTL: limits.TTL}, Limits: limits,
		Running: seedAge, MaxSessions: math.MaxInt64,
	})
	if err != nil {
		return nil, err
	}
	if err := w.Login(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &seed{World: w, data: data}, nil
}

// fillBatch is how many memories a commit of fill has.
const fillBatch = 100

// fill begins sessions and creates memories of 64 bytes, from number have to number want, and waits
// until the metadata is at rest. One session and one memory take the way of a request. The others
// differ from them in ids, contents and times, and skip the checks of a request.
func (s *seed) fill(ctx context.Context, a *arena, have, want int) error {
	named := catalog.Meta{Name: fmt.Sprintf("grow-%d", have)}
	up, err := s.Uploads.Begin(ctx, s.Me, upload.BeginRequest{
		Capsule: "default", Meta: named, Bytes: 64 << 10, Chunks: -1,
	})
	if err != nil {
		return err
	}
	it := a.item(named.Name, int64(have), 64, chunk)
	made, err := s.Uploads.Create(
		ctx, s.Me, upload.CreateRequest{Capsule: "default", Meta: named, Put: upload.Put{Length: it.size}},
		bytes.NewReader(it.pieces(0, it.size)[0]),
	)
	if err != nil {
		return err
	}
	// Both at once, so that sessions and memories are equally old.
	return errors.Join(parallel((want-have-1+fillBatch-1)/fillBatch, 4*runtime.NumCPU(), func(i int) error {
		from := have + 1 + i*fillBatch
		to := min(from+fillBatch, want)
		for range to - from {
			if _, _, err := s.Engine.Begin(ctx, up.Spec); err != nil {
				return err
			}
		}
		return s.create(ctx, a, made, from, to)
	}), waitUnchanged(ctx, filepath.Join(s.data, "meta")))
}

// create makes memories like made, in one commit.
func (s *seed) create(ctx context.Context, a *arena, made catalog.Memory, from, to int) error {
	now := time.Now()
	return s.Catalog.Update(ctx, func(tx catalog.Tx) error {
		for i := from; i < to; i++ {
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			m, b := made, item{a: a, off: int64(i)}.pieces(0, 64)
			inline := slices.Concat(b...)
			m.ID, m.Meta.Name = catalog.MemoryID(id), fmt.Sprintf("grow-%d", i)
			m.Created, m.SHA256 = now, sha256.Sum256(inline)
			c := catalog.Content{
				Capsule: m.Capsule, SHA256: m.SHA256, Bytes: m.Bytes, Inline: inline,
				CRC32C: crc32.Checksum(inline, crc32.MakeTable(crc32.Castagnoli)),
			}
			if _, err := catalog.Publish(tx, catalog.Publication{Memory: m, Content: c, At: catalog.Moment{
				Now: now, Running: s.Engine.Running(),
			}}); err != nil {
				return err
			}
		}
		return nil
	})
}

// tick measures TickTTL with nothing due.
func (s *seed) tick(ctx context.Context, n int) ([]time.Duration, error) {
	all := make([]time.Duration, n)
	for i := range all {
		start := time.Now()
		ended, err := s.Engine.TickTTL(ctx, start, s.Uploads.Expire)
		all[i] = time.Since(start)
		if err != nil || ended != 0 {
			return nil, errors.Join(err, fmt.Errorf("%d sessions were due, and none should be", ended))
		}
	}
	return all, nil
}

// waitUnchanged waits until a folder has been the same for a second.
func waitUnchanged(ctx context.Context, dir string) error {
	last, since := "", time.Now()
	for time.Since(since) < time.Second {
		now := ""
		names, err := os.ReadDir(dir)
		for _, e := range names {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			now += fmt.Sprintln(e.Name(), info.Size())
		}
		if err != nil {
			return err
		}
		if now != last {
			last, since = now, time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// copyData copies a data folder that nobody has open. Files that are never written again, tables
// and the reserve, get a second name instead.
func copyData(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.Mkdir(at, 0o700)
		case !d.Type().IsRegular(): // the socket of a server that has ended
			return nil
		case strings.HasSuffix(path, ".sst"), strings.HasPrefix(d.Name(), "RESERVE-"):
			return os.Link(path, at)
		default:
			return copyFile(path, at)
		}
	})
}

func copyFile(from, to string) (err error) {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	_, err = io.Copy(w, r)
	return err
}

// unsynced is a file system whose syncs do nothing.
type unsynced struct{ vfs.FS }

func (u unsynced) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := u.FS.Create(name, category)
	return unsyncedFile{f}, err
}

func (u unsynced) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := u.FS.ReuseForWrite(old, name, category)
	return unsyncedFile{f}, err
}

func (u unsynced) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := u.FS.OpenReadWrite(name, category, opts...)
	return unsyncedFile{f}, err
}

func (u unsynced) OpenDir(name string) (vfs.File, error) {
	f, err := u.FS.OpenDir(name)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ vfs.File }

func (unsyncedFile) Sync() error                { return nil }
func (unsyncedFile) SyncData() error            { return nil }
func (unsyncedFile) SyncTo(int64) (bool, error) { return true, nil }
