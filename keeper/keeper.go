// Package keeper does what no request asks for: it ends sessions whose time is over, empties the
// trash, deletes bytes that nothing names any more, and finds bytes that no row ever named.
//
// It owns when and in which order that is done. It does not own what it means: the session engine
// says which sessions are expired, the catalog keeps the list of what is due, and the upload
// service carries an expiry out. All times count in the engine's running time: a clock that jumps,
// or a server that was off, deletes nothing early.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/audit"
	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/panics"
	"sluice/session"
	"sluice/upload"
)

// Sessions is the part of the session engine that the keeper needs.
type Sessions interface {
	Lister
	TickTTL(ctx context.Context, now time.Time, release session.End) (int, error)
	Status(ctx context.Context, id session.SessionID) (session.Session, error)
	Abort(ctx context.Context, id session.SessionID, release session.End) error
	Running() int64
}

// Lister reads sessions: an engine, or its store.
type Lister interface {
	List(ctx context.Context, q session.Query) (page []session.Session, next string, err error)
	Entries(ctx context.Context, id session.SessionID, r session.Range, n int) ([]session.Entry, error)
}

// Uploads is the part of the upload service that the keeper needs.
type Uploads interface {
	// Expire is the upload's part of an expiry.
	Expire(ctx context.Context, sealed []session.Session) (ended bool, err error)
	// Release is the upload's part of an abort.
	Release(ctx context.Context, sealed []session.Session) (ended bool, err error)
	// Reclaim gives back what puts, replacements, aborts and creates have left at places; see
	// upload.
	Reclaim(ctx context.Context, all bool) error
	// LeftoverAdded delivers a value if Reclaim may give something back at once.
	LeftoverAdded() <-chan struct{}
	// AddLeftover hands over a place of an earlier incarnation of the content store. Its session is
	// open, and may not name all of its bytes.
	AddLeftover(place string, id session.SessionID)
	// Creating reports whether bytes are being written under an id that no session has.
	Creating(id session.SessionID) bool
}

// Config is what a Keeper works with. Every field is needed unless it "may be nil"; Log may be left
// out.
type Config struct {
	Sessions Sessions
	Uploads  Uploads
	Catalog  catalog.Store
	Blobs    blob.Store
	Clock    session.Clock
	// InPlace, which may be nil, checks that what is stored is where it was opened, and gives an
	// upload.ErrAway if not. It is called before anything is deleted or marked.
	InPlace func() error
	// WriteLastUses, which may be nil, stores when tokens were last used.
	WriteLastUses func(ctx context.Context) error
	// KnownIncarnation, which may be nil, reports whether the catalog can know what an incarnation
	// of the content store has made. Otherwise a place is no garbage for having no row.
	KnownIncarnation func(incarnation uint64) bool
	// Audit, which may be nil, takes a record of each principal and token that the keeper ends.
	Audit *audit.Log
	Log   *slog.Logger
}

// Keeper keeps a data folder clean. All methods may be called at any time, at the same time as each
// other and Run.
type Keeper struct {
	cfg Config

	ticks    sync.Mutex // one Tick at a time
	sweeps   sync.Mutex // and one Sweep, which may take long
	suspects map[string]int64
	looked   bool // a Sweep has looked through all places in this incarnation
	holds    atomic.Int64
}

// New makes a Keeper; nothing runs until Run.
func New(cfg Config) *Keeper {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.InPlace == nil {
		cfg.InPlace = func() error { return nil }
	}
	if cfg.WriteLastUses == nil {
		cfg.WriteLastUses = func(context.Context) error { return nil }
	}
	if cfg.KnownIncarnation == nil {
		cfg.KnownIncarnation = func(uint64) bool { return true }
	}
	return &Keeper{cfg: cfg}
}

const (
	tickEvery = 15 * time.Second
	// sweepEvery is how often all places are searched for orphans. firstSweep is how soon after the
	// start: an incarnation that was killed may have left some.
	sweepEvery, firstSweep = time.Hour, time.Minute
	// batch is how many due rows are read at a time.
	batch = 200
)

// Run ticks and sweeps until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick, sweep := time.NewTicker(tickEvery), time.NewTimer(firstSweep)
	defer tick.Stop()
	defer sweep.Stop()
	for {
		var step func() error
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			step = func() error { _, err := k.Tick(ctx); return err }
		case <-k.cfg.Uploads.LeftoverAdded():
			step = func() error { return k.reclaim(ctx, false) }
		case <-sweep.C:
			step = func() error { _, err := k.Sweep(ctx); return err }
			sweep.Reset(sweepEvery)
		}
		err := panics.Try(step)
		if err != nil && ctx.Err() == nil && !errors.Is(err, upload.ErrAway) { // it has been logged
			k.cfg.Log.Error("cleaning up failed; it is tried again", "err", err)
		}
	}
}

// Tick lets time pass: it ends the sessions whose time to live is over, and does what is due. It
// gives the number of sessions that expired. With nothing due it costs one read, and a commit each
// minute, which keeps the running time.
func (k *Keeper) Tick(ctx context.Context) (expired int, err error) {
	k.ticks.Lock()
	defer k.ticks.Unlock()
	if err := k.cfg.InPlace(); err != nil {
		return 0, err
	}
	err = panics.Try(func() (err error) {
		expired, err = k.cfg.Sessions.TickTTL(ctx, k.cfg.Clock.Now(), k.cfg.Uploads.Expire)
		return err
	})
	errDue := panics.Try(func() error { return k.runDue(ctx) })
	return expired, errors.Join(err, errDue, k.reclaim(ctx, true), k.cfg.WriteLastUses(ctx))
}

// reclaim gives back what was left at places, unless they are on hold.
func (k *Keeper) reclaim(ctx context.Context, all bool) error {
	if k.held() {
		return nil
	}
	if err := k.cfg.InPlace(); err != nil {
		return err
	}
	return k.cfg.Uploads.Reclaim(ctx, all)
}

// runDue does everything that is due, each thing once. A thing that fails, or is on hold, does not
// stop the others.
func (k *Keeper) runDue(ctx context.Context) error {
	var failed failures
	for from := (catalog.DueKey{}); ctx.Err() == nil; {
		var todo []catalog.Due
		err := k.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
			todo, err = catalog.DueBy(r, from, k.cfg.Sessions.Running(), batch)
			return err
		})
		if err != nil || len(todo) == 0 {
			return errors.Join(failed.join(), err)
		}
		for _, d := range todo {
			if d.Kind != catalog.DuePlace || !k.held() {
				failed.add(panics.Try(func() error { return k.runOne(ctx, d) }))
			}
			from = catalog.DueKey(d)
			from.Key += "\x00" // the smallest key behind it
		}
	}
	return errors.Join(failed.join(), ctx.Err())
}

// failures collects errors that do not stop each other's steps.
type failures struct {
	errs []error
	more int
}

// mostErrors bounds the errors that one Tick or Sweep reports.
const mostErrors = 20

func (f *failures) add(err error) {
	switch {
	case err == nil:
	case len(f.errs) < mostErrors:
		f.errs = append(f.errs, err)
	default:
		f.more++
	}
}

func (f *failures) join() error {
	if f.more > 0 {
		return errors.Join(append(f.errs, fmt.Errorf("and %d failures more", f.more))...)
	}
	return errors.Join(f.errs...)
}

// runOne does one due thing. A place's bytes are deleted first, and then the row that remembers
// them: a crash between the two repeats a deletion, which does no harm. So it is with the sessions
// of a principal.
func (k *Keeper) runOne(ctx context.Context, d catalog.Due) error {
	aborted := 0 // sessions
	switch d.Kind {
	case catalog.DuePlace:
		if err := k.delete(ctx, d.Key); err != nil {
			return fmt.Errorf("deleting place %s: %w", d.Key, err)
		}
	case catalog.DuePrincipal, catalog.DueTicket:
		var err error
		if aborted, err = k.endSessions(ctx, d.Key); err != nil {
			return err
		}
	}
	var record *audit.Record // nil: none is made of this
	for more := true; more; {
		at := catalog.Moment{Now: k.cfg.Clock.Now(), Running: k.cfg.Sessions.Running()}
		err := k.cfg.Catalog.Update(ctx, func(tx catalog.Tx) (err error) {
			if record, err = recordOf(tx, d); err == nil {
				more, err = catalog.RunDue(tx, d, at)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("doing what is due (kind %d, %x): %w", d.Kind, d.Key, err)
		}
	}
	if record != nil {
		record.Count = int64(aborted)
		k.cfg.Audit.Add(k.cfg.Clock.Now(), *record)
	}
	return nil
}

// delete deletes a place, unless the folder is not the one that was opened.
func (k *Keeper) delete(ctx context.Context, place string) error {
	if err := k.cfg.InPlace(); err != nil {
		return err
	}
	return k.cfg.Blobs.Delete(ctx, place)
}
