// Package crashtest stops the whole server, its stores on one simulated disk, at every step that it
// does to that disk, and lets every step fail. Then it looks whether each promise held. It is tests
// only.
//
// It owns a script of everything that a client and the keeper do, a model of the answers, the check
// of one against the other, and the loops. It does not own the disk (package crashfs), the wiring
// of the server (package world), nor the rules of the stores by themselves (their own tests).
package crashtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/direct"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
	"sluice/session"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

const (
	chunk     = 5000 // no multiple of a block, nor of a sector
	inlineMax = 200
	minPiece  = 500
	data      = "/data"
	hour      = time.Hour
	ttl       = 10 * hour
	trashFor  = 5 * hour
	// metaReserve is the size of two files.
	metaReserve = 128 << 10
)

// server is the whole server without its network, on a simulated disk.
type server struct {
	*world.World
	disk  *crashfs.Disk
	clock *world.Clock
	// between runs once in the middle of a finish or a create, when it has looked and before it
	// commits.
	between func()
}

// setup is what servers differ in.
type setup struct {
	durability durable.Durability
	seed       uint64
	clock      *world.Clock
	die        func(error)
	keep       time.Duration // how long ended sessions are remembered
}

// packSize lets two small contents share a pack. With power a pack has one, so that packs go when
// it is deleted.
func packSize(d durable.Durability) int64 {
	if d == durable.Power {
		return 8 << 10
	}
	return 12 << 10
}

// openServer starts a server on what the disk has, and logs in.
func openServer(disk *crashfs.Disk, st setup) (w *server, err error) {
	ctx := context.Background()
	limits := upload.DefaultLimits()
	limits.ChunkSize, limits.ChunkSizeMin, limits.InlineMax, limits.TTL = chunk, 1, inlineMax, ttl
	w = &server{disk: disk, clock: st.clock}
	w.World, err = world.Open(ctx, world.Config{
		Disk: world.Disk{FS: disk, Pebble: disk.VFS()}, Data: data, Folder: true,
		Durability: st.durability, Clock: st.clock, Seed: st.seed + 1,
		Meta: pebblemeta.Options{Die: st.die, Reserve: metaReserve},
		Content: localblob.Options{
			Direct:   direct.Config{Block: 512, Buffer: 2048, Buffers: 3},
			PackSize: packSize(st.durability),
		},
		Engine: session.Config{
			AtOnce: 1, Small: 700, MinEntry: minPiece,
			TTL: ttl, MaxStep: hour, Keep: cmp.Or(st.keep, 1000*hour),
		},
		Limits: limits, MaxSessions: 1000, TrashFor: trashFor,
		Interpose: func(s blob.Store) blob.Store { return interposed{s, w} },
	})
	if err != nil {
		return nil, err
	}
	if err := w.Login(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// interposed lets something happen before a commit.
type interposed struct {
	blob.Store
	w *server
}

func (b interposed) Persist(ctx context.Context, extents []catalog.Extent) error {
	if f := b.w.between; f != nil {
		b.w.between = nil
		f()
	}
	return b.Store.Persist(ctx, extents)
}

// abandon releases a server whose process is dead. Its disk must not matter any more. Goroutines
// that do not end by themselves are left behind.
func (w *server) abandon() {
	w.disk.SetHook(nil)
	go func() {
		defer func() { _ = recover() }()
		_ = w.Close()
	}()
}

// death is the end of a process by Die.
type death struct {
	first atomic.Bool
	err   error
	done  chan struct{}
	// at runs when it happens, once.
	at func()
}

func newDeath(at func()) *death { return &death{done: make(chan struct{}), at: at} }

// die is pebblemeta.Options.Die. It ends the goroutine if it is the client's, so that the server
// can be closed behind it. A goroutine in the middle of opening, or one of Pebble's own, is held
// for ever as it is: others of its kind still use what it would release.
func (d *death) die(err error) {
	if d.first.CompareAndSwap(false, true) {
		d.err = err
		d.at()
		close(d.done)
	}
	stack := make([]byte, 64<<10)
	if stack = stack[:runtime.Stack(stack, false)]; !bytes.Contains(stack, []byte("crashtest.(*client).call")) {
		select {}
	}
	runtime.Goexit()
}

// errDied: the server ended itself.
var errDied = errors.New("the server ended itself")

// alive runs f, which may be ended by a death.
func alive(d *death, f func() error) (err error) {
	end := make(chan error, 1)
	go func() {
		out := errDied
		defer func() {
			if r := recover(); r != nil {
				if d.first.Load() {
					r = "after its death: " + fmt.Sprint(r)
				}
				buf := make([]byte, 64<<10)
				out = fmt.Errorf("panic: %v\n%s", r, buf[:runtime.Stack(buf, false)])
			}
			end <- out
		}()
		out = f()
	}()
	select {
	case err = <-end:
		if d.first.Load() {
			err = errDied
		}
	case <-d.done:
		err = errDied
	}
	if errors.Is(err, errDied) {
		err = fmt.Errorf("%w: %w", err, d.err)
	}
	return err
}
