// Package linear lets several clients work on the same few uploads at once. For each history of
// calls and answers it asks whether some order of the calls, in which each happens at one moment
// between its beginning and its answer, explains every answer. Servers die in the middle of it. It
// is tests only.
//
// It owns the calls of the clients, the model of a capsule against which answers are compared, and
// the record of a history. The search for an order is porcupine's. It does not own the wiring of
// the server (package world), crashes at chosen steps and what a disk may lose (package crashtest),
// nor the bytes of an upload under mishaps (upload's own tests).
package linear

import (
	"context"
	"errors"
	"time"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

const (
	data    = "/data"
	capsule = "default"
)

// server is the whole server without its network, on a simulated disk.
type server struct {
	*world.World
	clock *world.Clock
}

// setup is what servers differ in.
type setup struct {
	disk       *crashfs.Disk
	inMemory   bool // sessions and catalog are kept in memory
	durability durable.Durability
	seed       uint64
	clock      *world.Clock
}

func newDisk() *crashfs.Disk {
	d := crashfs.New()
	d.Journal(data + "/meta")
	return d
}

// openServer starts a server on what the disk has, and logs in.
func openServer(ctx context.Context, st setup) (*server, error) {
	const long = 1000 * time.Hour
	limits := upload.DefaultLimits()
	limits.ChunkSize, limits.ChunkSizeMin, limits.InlineMax, limits.TTL = 2000, 1, inlineMax, long
	c := world.Config{
		Disk: world.Disk{FS: st.disk, Pebble: st.disk.VFS()}, Data: data,
		Durability: st.durability, Clock: st.clock, Seed: st.seed,
		Meta:   pebblemeta.Options{Die: func(err error) { panic(err) }},
		Engine: session.Config{TTL: long, MaxStep: time.Hour, Keep: long},
		Limits: limits, MaxSessions: 1000, TrashFor: long,
	}
	if st.inMemory {
		c.Metadata = metadatatest.NewMem(upload.Hook(catalog.Bounds{MaxSessions: 1000}, st.clock))
	}
	w, err := world.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := w.Login(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &server{World: w, clock: st.clock}, nil
}

// events reads the capsule's events from one on, as a feed would.
func (w *server) events(ctx context.Context, after uint64) (out []event, err error) {
	err = w.Catalog.View(ctx, func(r catalog.Reader) error {
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
