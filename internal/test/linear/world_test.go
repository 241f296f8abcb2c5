// Package linear lets several clients work on the same few uploads at once, and asks of each
// history of calls and answers whether some order of the calls, in which each happens at one moment
// between its beginning and its answer, explains every answer. Servers die in the middle of it. It
// is tests only.
//
// It owns what clients do, the model of a capsule that answers are held against, and the record of
// a history. The search for an order is porcupine's. It does not own crashes at chosen steps and
// what a disk may lose (package crashtest), nor the bytes of an upload under mishaps (upload's own
// tests).
package linear

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/keeper"
	"sluice/memories"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

const (
	data      = "/data"
	tokenFile = data + "/admin-token"
	capsule   = "default"
)

// clock is set by hand.
type clock struct{ ms atomic.Int64 }

func (c *clock) Now() time.Time { return time.UnixMilli(1_700_000_000_000 + c.ms.Load()).UTC() }

func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// world is a server without its network, wired as cmd/sluice does.
type world struct {
	meta     *pebblemeta.DB // nil where sessions and catalog are kept in memory
	blobs    *localblob.Store
	rows     catalog.Store
	uploads  *upload.Service
	memories *memories.Service
	keeper   *keeper.Keeper
	clock    *clock
	me       access.Caller
}

// setup is what worlds differ in.
type setup struct {
	disk       *crashfs.Disk
	inMemory   bool
	durability durable.Durability
	seed       uint64
	clock      *clock
}

func newDisk() *crashfs.Disk {
	d := crashfs.New()
	d.Journal(data + "/meta")
	return d
}

// openWorld starts a server on what the disk has.
func openWorld(ctx context.Context, st setup) (w *world, err error) {
	w = &world{clock: st.clock}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
			w = nil
		}
	}()
	if err := durable.MkdirAll(st.disk, data, 0o700); err != nil {
		return w, err
	}
	bounds := catalog.Bounds{MaxSessions: 1000}
	var sessions session.Store
	if st.inMemory {
		stores := metadatatest.NewMem(upload.Reserving(bounds))
		sessions, w.rows = stores.Sessions(), stores.Catalog()
	} else {
		die := func(err error) { panic(err) }
		if w.meta, err = pebblemeta.Open(data+"/meta", pebblemeta.Options{Hook: upload.Reserving(bounds), Die: die, FS: st.disk.VFS()}); err != nil {
			return w, err
		}
		sessions, w.rows = w.meta.Sessions(), w.meta.Catalog()
	}
	if w.blobs, err = localblob.Open(data+"/content", localblob.Options{Durability: st.durability, FS: st.disk}); err != nil {
		return w, err
	}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], st.seed)
	engine, err := session.New(ctx, sessions, upload.EngineConfig(session.Config{
		TTL: 1000 * time.Hour, Tick: time.Hour, Keep: 1000 * time.Hour, Buffers: w.blobs.Buffers(), Clock: st.clock, Rand: &lockedReader{r: rand.NewChaCha8(seed)},
	}))
	if err != nil {
		return w, err
	}
	limits := upload.DefaultLimits()
	limits.ChunkSize, limits.ChunkSizeMin, limits.InlineMax, limits.TTL = 2000, 1, inlineMax, 1000*time.Hour
	w.uploads = upload.New(upload.Config{Sessions: engine, Catalog: w.rows, Blobs: w.blobs, Clock: st.clock, Limits: limits})
	if w.me, err = login(ctx, st.disk, access.New(w.rows, st.clock, engine.Running, nil)); err != nil {
		return w, err
	}
	w.keeper = keeper.New(keeper.Config{Sessions: engine, Uploads: w.uploads, Catalog: w.rows, Blobs: w.blobs, Clock: st.clock})
	w.memories = memories.New(memories.Config{Catalog: w.rows, Content: w.blobs, Clock: st.clock, Running: engine.Running, TrashFor: 1000 * time.Hour})
	return w, nil
}

// login makes the first principal and its token's file, as cmd/sluice does, and logs in with that.
func login(ctx context.Context, disk *crashfs.Disk, who *access.Service) (c access.Caller, err error) {
	secret, err := who.Bootstrap(ctx)
	if err != nil {
		return c, err
	}
	if secret == "" {
		if _, err = disk.Stat(tokenFile); errors.Is(err, fs.ErrNotExist) {
			secret, err = who.AdminToken(ctx)
		}
		if err != nil {
			return c, err
		}
	}
	if secret != "" {
		if err := durable.WriteFile(disk, tokenFile, []byte(secret+"\n"), 0o600); err != nil {
			return c, err
		}
	}
	text, err := durable.ReadFile(disk, tokenFile)
	if err != nil {
		return c, err
	}
	return who.Authenticate(ctx, strings.TrimSpace(string(text)))
}

// close is a clean stop.
func (w *world) close() (err error) {
	if w.uploads != nil {
		w.uploads.Close()
	}
	if w.blobs != nil {
		err = w.blobs.Close()
	}
	if w.meta != nil {
		err = errors.Join(err, w.meta.Close())
	}
	return err
}

// events reads the capsule's events from one on, as a feed would.
func (w *world) events(ctx context.Context, after uint64) (out []event, err error) {
	err = w.rows.View(ctx, func(r catalog.Reader) error {
		out = nil
		for e, err := range catalog.Events.After(r, catalog.EventKey{Capsule: capsule, Seq: after}) {
			if err != nil {
				return err
			}
			if e.Capsule != capsule {
				return nil
			}
			out = append(out, eventOf(e))
		}
		return nil
	})
	return out, err
}
