// Package crashtest stops the whole server, its stores on one simulated disk, at every step that it
// does to that disk, and lets every step fail: and looks whether each promise held. It is tests
// only.
//
// It owns a script of everything that a client and the keeper do, a model of what was answered, the
// check of one against the other, and the loops. It does not own the disk (package crashfs), nor
// the rules of the stores by themselves (their own tests).
package crashtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/direct"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/keeper"
	"sluice/memories"
	"sluice/session"
	"sluice/store/folder"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

const (
	chunk     = 5000 // no multiple of a block, nor of a sector
	inlineMax = 200
	minPiece  = 500
	data      = "/data"
	tokenFile = data + "/admin-token"
	hour      = time.Hour
	ttl       = 10 * hour
	trashFor  = 5 * hour
	// metaReserve is two files.
	metaReserve = 128 << 10
)

// clock is set by hand.
type clock struct{ ms atomic.Int64 }

func (c *clock) Now() time.Time { return time.UnixMilli(1_700_000_000_000 + c.ms.Load()).UTC() }

func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// seededReader draws the same ids again.
type seededReader struct {
	mu   sync.Mutex
	from *rand.ChaCha8
}

func (r *seededReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from.Read(p)
}

func seeded(n uint64) *rand.ChaCha8 {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], n)
	return rand.NewChaCha8(seed)
}

// world is a server without its network, wired as cmd/sluice does.
type world struct {
	disk     *crashfs.Disk
	clock    *clock
	folder   *folder.Folder
	meta     *pebblemeta.DB
	blobs    *localblob.Store
	rows     catalog.Store
	engine   *session.Service
	uploads  *upload.Service
	memories *memories.Service
	keeper   *keeper.Keeper
	who      *access.Service
	me       access.Caller
	between  func() // runs once in the middle of a finish or a create, when it has looked and before it commits
}

// setup is what worlds differ in.
type setup struct {
	durability durable.Durability
	seed       uint64
	clock      *clock
	die        func(error)
	keep       time.Duration // how long ended sessions are remembered
}

// packSize lets two small contents share a pack; with power it has one, so that packs go when it is
// deleted.
func packSize(d durable.Durability) int64 {
	if d == durable.Power {
		return 8 << 10
	}
	return 12 << 10
}

// openWorld starts a server on what the disk has.
func openWorld(disk *crashfs.Disk, st setup) (w *world, err error) {
	ctx := context.Background()
	w = &world{disk: disk, clock: st.clock}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
			w = nil
		}
	}()
	if w.folder, err = folder.Open(data, folder.Options{FS: disk}); err != nil {
		return w, err
	}
	hook := upload.Reserving(catalog.Bounds{MaxSessions: 1000})
	if w.meta, err = pebblemeta.Open(w.folder.Meta.Path, pebblemeta.Options{
		Hook: hook, Die: st.die, FS: disk.VFS(), Reserve: metaReserve, Durability: st.durability, Existing: w.folder.Used(), Allow: w.folder.Away,
	}); err != nil {
		return w, err
	}
	var last folder.ContentState
	if last.Incarnation, last.Clean, err = localblob.Peek(w.folder.Content.Path, disk, false); err != nil {
		return w, err
	}
	after, err := w.folder.Begin(last)
	if err != nil {
		return w, err
	}
	if w.blobs, err = localblob.Open(w.folder.Content.Path, localblob.Options{Durability: st.durability, AfterIncarnation: after, FS: disk, Direct: direct.Config{Block: 512, Buffer: 2048, Buffers: 3}, PackSize: packSize(st.durability)}); err != nil {
		return w, err
	}
	if err := w.folder.Begun(); err != nil {
		return w, err
	}
	w.engine, err = session.New(ctx, w.meta.Sessions(), upload.EngineConfig(session.Config{
		AtOnce: 1, Small: 700, TTL: ttl, Tick: hour, Keep: cmp.Or(st.keep, 1000*hour), MinEntry: minPiece, Buffers: w.blobs.Buffers(), Clock: st.clock, Rand: &seededReader{from: seeded(st.seed)},
	}))
	if err != nil {
		return w, err
	}
	limits := upload.DefaultLimits()
	limits.ChunkSize, limits.ChunkSizeMin, limits.InlineMax, limits.TTL = chunk, 1, inlineMax, ttl
	w.rows = w.meta.Catalog()
	w.uploads = upload.New(upload.Config{Sessions: w.engine, Catalog: w.rows, Blobs: interposed{w.blobs, w}, Clock: st.clock, Limits: limits, CheckSpace: w.meta.CheckSpace})
	w.who = access.New(w.rows, st.clock, w.engine.Running, nil)
	if w.me, err = w.login(ctx, w.who); err != nil {
		return w, err
	}
	w.keeper = keeper.New(keeper.Config{Sessions: w.engine, Uploads: w.uploads, Catalog: w.rows, Blobs: w.blobs, Clock: st.clock, InPlace: w.folder.Look, KnownIncarnation: w.folder.KnownIncarnation})
	w.memories = memories.New(memories.Config{Catalog: w.rows, Content: w.blobs, Clock: st.clock, Running: w.engine.Running, TrashFor: trashFor})
	return w, nil
}

// interposed lets something happen before a commit.
type interposed struct {
	blob.Store
	w *world
}

func (b interposed) Persist(ctx context.Context, extents []catalog.Extent) error {
	if f := b.w.between; f != nil {
		b.w.between = nil
		f()
	}
	return b.Store.Persist(ctx, extents)
}

// login makes the first principal and its token's file, as cmd/sluice does, and logs in with that.
func (w *world) login(ctx context.Context, who *access.Service) (c access.Caller, err error) {
	secret, err := who.Bootstrap(ctx)
	if err != nil {
		return c, err
	}
	if secret == "" {
		if _, err = w.disk.Stat(tokenFile); errors.Is(err, fs.ErrNotExist) {
			secret, err = who.AdminToken(ctx)
		}
		if err != nil {
			return c, err
		}
	}
	if secret != "" {
		if err := durable.WriteFile(w.disk, tokenFile, []byte(secret+"\n"), 0o600); err != nil {
			return c, err
		}
	}
	text, err := durable.ReadFile(w.disk, tokenFile)
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
		err = errors.Join(w.folder.End(), w.blobs.Close())
	}
	if w.meta != nil {
		err = errors.Join(err, w.meta.Close())
	}
	if w.folder != nil {
		err = errors.Join(err, w.folder.Close())
	}
	return err
}

// abandon lets go of a server whose process is dead. Its disk must not matter any more. What does
// not end by itself is left behind.
func (w *world) abandon() {
	w.disk.SetHook(nil)
	go func() {
		defer func() { _ = recover() }()
		_ = w.close()
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

// die is pebblemeta.Options.Die. It ends a goroutine that is the client's, so that the server can
// be closed behind it. One in the middle of opening, or of Pebble's own, is held for ever as it is:
// what it would let go of, others of its kind still use.
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
