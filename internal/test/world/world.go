// Package world is a whole server without its network, wired as cmd/sluice does, for the tests and
// measurements that need one: crashtest, linear, backup, keeper and bench.
//
// It owns the wiring, a clock that is set by hand, and randomness from a seed. It does not own what
// is done to the server, nor the disk that it is on (package crashfs, or the operating system's).
package world

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/system"
	"sluice/keeper"
	"sluice/memories"
	"sluice/metadata"
	"sluice/session"
	"sluice/store/folder"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// Disk is one file system, as both stores see it.
type Disk struct {
	durable.FS
	Pebble vfs.FS
}

// Config is what worlds differ in. Each field except Disk, Data and Limits may be left out.
type Config struct {
	Disk Disk
	Data string // the data folder, with the metadata in meta/ and the content in content/
	// Folder opens the data folder through store/folder, as cmd/sluice does: with its locks, its
	// identity, and what it knows of incarnations. Else the two halves are opened by themselves.
	Folder bool
	// Metadata holds the rows instead of Pebble.
	Metadata   metadata.Store
	Durability durable.Durability // of both stores

	// Meta, Content and Engine are the options of the stores and of the engine. Open fills in file
	// systems, durability, hook, buffers, clock and randomness.
	Meta    pebblemeta.Options
	Content localblob.Options
	Engine  session.Config
	// Interpose gives the content store that uploads see.
	Interpose func(blob.Store) blob.Store

	Clock       session.Clock // the machine's
	Seed        uint64        // of session ids; 0: the machine's randomness
	Running     time.Duration // the running time is this at least
	Limits      upload.Limits
	MaxSessions int64         // open at one time, of one principal; 0: the catalog's default
	TrashFor    time.Duration // how long deleted memories stay in the trash
}

// World is a server without its network.
type World struct {
	Folder   *folder.Folder // nil without Config.Folder
	Meta     *pebblemeta.DB // nil with Config.Metadata
	Blobs    *localblob.Store
	Sessions session.Store
	Catalog  catalog.Store
	Engine   *session.Service
	Uploads  *upload.Service
	Memories *memories.Service
	Access   *access.Service
	Keeper   *keeper.Keeper
	Me       access.Caller // after Login or Authenticate

	disk      durable.FS
	tokenFile string
}

// Open starts a server on what the disk has. Nobody is logged in. After an error nothing is open.
func Open(ctx context.Context, c Config) (w *World, err error) {
	w = &World{disk: c.Disk, tokenFile: filepath.Join(c.Data, "admin-token")}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
			w = nil
		}
	}()
	if err := w.openStores(c); err != nil {
		return w, err
	}
	if c.Running > 0 {
		if _, err := w.Sessions.KeepTime(ctx, c.Running.Milliseconds()); err != nil {
			return w, err
		}
	}
	if c.Clock == nil {
		c.Clock = system.Clock{}
	}
	c.Engine.Buffers, c.Engine.Clock = w.Blobs.Buffers(), c.Clock
	if c.Seed != 0 {
		c.Engine.Rand = seeded(c.Seed)
	}
	if w.Engine, err = session.New(ctx, w.Sessions, upload.EngineConfig(c.Engine)); err != nil {
		return w, err
	}
	uploads := upload.Config{Sessions: w.Engine, Catalog: w.Catalog, Blobs: w.Blobs, Clock: c.Clock, Limits: c.Limits}
	kept := keeper.Config{Sessions: w.Engine, Catalog: w.Catalog, Blobs: w.Blobs, Clock: c.Clock}
	if c.Interpose != nil {
		uploads.Blobs = c.Interpose(w.Blobs)
	}
	if w.Meta != nil {
		uploads.CheckSpace = w.Meta.CheckSpace
	}
	w.Uploads = upload.New(uploads)
	if kept.Uploads = w.Uploads; w.Folder != nil {
		kept.InPlace, kept.KnownIncarnation = w.Folder.Look, w.Folder.KnownIncarnation
	}
	w.Access = access.New(w.Catalog, c.Clock, w.Engine.Running, nil)
	kept.WriteLastUses = w.Access.WriteLastUses
	w.Keeper = keeper.New(kept)
	w.Memories = memories.New(memories.Config{
		Catalog: w.Catalog, Content: w.Blobs, Clock: c.Clock, Running: w.Engine.Running, TrashFor: c.TrashFor,
	})
	return w, nil
}

// openStores opens the folder, the metadata and the content.
func (w *World) openStores(c Config) (err error) {
	meta, content := filepath.Join(c.Data, "meta"), filepath.Join(c.Data, "content")
	if !c.Folder {
		err = durable.MkdirAll(c.Disk, c.Data, 0o700)
	} else if w.Folder, err = folder.Open(c.Data, folder.Options{FS: c.Disk.FS}); err == nil {
		meta, content = w.Folder.Meta.Path, w.Folder.Content.Path
		c.Meta.Existing, c.Meta.Allow = w.Folder.Used(), w.Folder.Away
	}
	if err != nil {
		return err
	}
	if c.Metadata == nil {
		c.Meta.Hook, c.Meta.FS = upload.Hook(catalog.Bounds{MaxSessions: c.MaxSessions}, c.Clock), c.Disk.Pebble
		c.Meta.Durability = c.Durability
		if w.Meta, err = pebblemeta.Open(meta, c.Meta); err != nil {
			return err
		}
		c.Metadata = w.Meta
	}
	w.Sessions, w.Catalog = c.Metadata.Sessions(), c.Metadata.Catalog()
	if w.Folder != nil {
		var last folder.ContentState
		if last.Incarnation, last.Clean, err = localblob.Peek(content, c.Disk.FS, false); err != nil {
			return err
		}
		if c.Content.AfterIncarnation, err = w.Folder.Begin(last); err != nil {
			return err
		}
	}
	c.Content.FS, c.Content.Durability = c.Disk.FS, c.Durability
	if w.Blobs, err = localblob.Open(content, c.Content); err != nil || w.Folder == nil {
		return err
	}
	return w.Folder.Begun()
}

// Login makes the first principal and the file with its token, as cmd/sluice does, and logs in with
// that.
func (w *World) Login(ctx context.Context) error {
	secret, err := w.Access.Bootstrap(ctx)
	if err != nil {
		return err
	}
	if secret == "" {
		if _, err = w.disk.Stat(w.tokenFile); errors.Is(err, fs.ErrNotExist) {
			secret, err = w.Access.AdminToken(ctx)
		}
		if err != nil {
			return err
		}
	}
	if secret != "" {
		if err := durable.WriteFile(w.disk, w.tokenFile, []byte(secret+"\n"), 0o600); err != nil {
			return err
		}
	}
	text, err := durable.ReadFile(w.disk, w.tokenFile)
	if err != nil {
		return err
	}
	return w.Authenticate(ctx, strings.TrimSpace(string(text)))
}

// Authenticate logs in with a token.
func (w *World) Authenticate(ctx context.Context, secret string) (err error) {
	w.Me, err = w.Access.Authenticate(ctx, secret)
	return err
}

// Close is a clean stop. It closes what is open.
func (w *World) Close() (err error) {
	if w.Uploads != nil {
		w.Uploads.Close()
	}
	if w.Blobs != nil {
		if w.Folder != nil {
			err = w.Folder.End()
		}
		err = errors.Join(err, w.Blobs.Close())
	}
	if w.Meta != nil {
		err = errors.Join(err, w.Meta.Close())
	}
	if w.Folder != nil {
		err = errors.Join(err, w.Folder.Close())
	}
	return err
}

// Clock is set by hand. It is safe for concurrent use.
type Clock struct{ ms atomic.Int64 }

// Now implements session.Clock.
func (c *Clock) Now() time.Time { return time.UnixMilli(1_700_000_000_000 + c.ms.Load()).UTC() }

// Advance moves the clock forward by whole milliseconds.
func (c *Clock) Advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// Millis is how many milliseconds the clock has been moved.
func (c *Clock) Millis() int64 { return c.ms.Load() }

// SetMillis sets the clock to where another one was that gave this for Millis.
func (c *Clock) SetMillis(ms int64) { c.ms.Store(ms) }

// lockedReader is for several goroutines.
type lockedReader struct {
	mu   sync.Mutex
	from io.Reader
}

// Read implements io.Reader.
func (r *lockedReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from.Read(p)
}

// seeded gives randomness that is the same each time.
func seeded(n uint64) io.Reader {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], n)
	return &lockedReader{from: rand.NewChaCha8(seed)}
}
