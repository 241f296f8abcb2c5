// Package keeper does what nobody asks for: it ends sessions whose time is over, empties the trash, deletes the bytes that nothing
// names any more, and finds those that no record ever named.
//
// It owns when and in which order that is done. It does not own what it means: the session engine says what is
// expired, the catalog keeps the list of what is due, the upload service carries an expiry out. Everything counts the
// engine's running time, so that neither a clock that jumps nor a server that was off deletes anything early.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// Sessions is what the keeper needs of the session engine.
type Sessions interface {
	TickTTL(ctx context.Context, now time.Time, release session.End) (int, error)
	Status(ctx context.Context, id session.SessionID) (session.Session, error)
	Running() int64
}

// Uploads is what the keeper needs of the upload service.
type Uploads interface {
	// Expire is the upload's part of an expiry.
	Expire(ctx context.Context, sealed []session.Session) error
	// Active reports whether bytes are being written under an id that no session has.
	Active(id session.SessionID) bool
}

// Config is what a Keeper works with; every field but Log is needed.
type Config struct {
	Sessions Sessions
	Uploads  Uploads
	Catalog  catalog.Store
	Blobs    upload.Blobs
	Clock    session.Clock
	Log      *slog.Logger
}

// Keeper keeps a data folder clean. Its methods may be called at any time, beside each other and Run.
type Keeper struct {
	cfg Config

	ticks    sync.Mutex // one Tick at a time
	sweeps   sync.Mutex // and one Sweep, which may take long
	suspects map[string]int64
	holds    atomic.Int64
}

// New makes a Keeper; nothing runs until Run.
func New(cfg Config) *Keeper {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{cfg: cfg}
}

const (
	tickEvery = 15 * time.Second
	// sweepEvery is how often all places are looked through for orphans.
	sweepEvery = time.Hour
	// orphanGrace is how long a place that no row names stays one before it is deleted: longer than any put takes from its first byte to its record.
	orphanGrace = time.Hour
	// batch is how much of what is due is looked up at a time.
	batch = 200
)

// Run ticks and sweeps until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick, sweep := time.NewTicker(tickEvery), time.NewTicker(sweepEvery)
	defer tick.Stop()
	defer sweep.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, err = k.Tick(ctx)
		case <-sweep.C:
			_, err = k.Sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			k.cfg.Log.Error("cleaning up failed; it is tried again", "err", err)
		}
	}
}

// Tick lets time pass: it ends the sessions whose time to live is over, and does what is due. It gives the number of sessions that expired. With
// nothing due it costs nothing.
func (k *Keeper) Tick(ctx context.Context) (expired int, err error) {
	k.ticks.Lock()
	defer k.ticks.Unlock()
	expired, err = k.cfg.Sessions.TickTTL(ctx, k.cfg.Clock.Now(), k.cfg.Uploads.Expire)
	return expired, errors.Join(err, k.settle(ctx))
}

// settle works off what is due, each thing once: what fails, or is held, keeps none of the others from being done.
func (k *Keeper) settle(ctx context.Context) error {
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
				failed.add(k.do(ctx, d))
			}
			from = catalog.DueKey(d)
			from.Key += "\x00" // the next key there can be
		}
	}
	return errors.Join(failed.join(), ctx.Err())
}

// failures collects errors of which each keeps none of the others from being tried.
type failures struct {
	errs []error
	more int
}

// mostErrors bounds what one Tick or Sweep tells.
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

// do carries one thing out. A place's bytes go first, and then the row that remembers them: a crash between the two repeats a deletion, which is fine.
func (k *Keeper) do(ctx context.Context, d catalog.Due) error {
	if d.Kind == catalog.DuePlace {
		if err := k.cfg.Blobs.Delete(ctx, d.Key); err != nil {
			return fmt.Errorf("deleting place %s: %w", d.Key, err)
		}
	}
	at := catalog.Moment{Now: k.cfg.Clock.Now(), Running: k.cfg.Sessions.Running()}
	err := k.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error { return catalog.Settle(tx, d, at) })
	if err != nil {
		return fmt.Errorf("settling what is due (kind %d, %x): %w", d.Kind, d.Key, err)
	}
	return nil
}

// maxSuspects bounds what a Sweep remembers for the next one.
const maxSuspects = 10_000

// Sweep looks through all places for orphans: those that no row of the catalog names and whose session has ended or never was. One
// that was an orphan at an earlier Sweep, orphanGrace of running time ago, is deleted: no upload can be about to name it. It gives
// the number that was deleted. A place that can't be looked at or deleted does not keep the others from it.
func (k *Keeper) Sweep(ctx context.Context) (deleted int, err error) {
	k.sweeps.Lock()
	defer k.sweeps.Unlock()
	was, is := k.suspects, map[string]int64{}
	now := k.cfg.Sessions.Running()
	var failed failures
	for after := ""; ; {
		places, err := k.cfg.Blobs.Places(ctx, after, 1000)
		if err != nil || ctx.Err() != nil {
			return deleted, errors.Join(failed.join(), err, ctx.Err())
		}
		if len(places) == 0 {
			k.suspects = is
			return deleted, failed.join()
		}
		for _, p := range places {
			after = p.Name
			since, before := was[p.Name]
			orphan, err := k.orphan(ctx, p)
			if orphan && before && now-since >= orphanGrace.Milliseconds() && !k.held() {
				if err = k.cfg.Blobs.Delete(ctx, p.Name); err == nil {
					k.cfg.Log.Info("deleted a place that nothing names", "place", p.Name, "bytes", p.Bytes)
					deleted++
					continue
				}
			}
			if err != nil {
				failed.add(fmt.Errorf("place %s, which nothing may name: %w", p.Name, err))
			}
			switch {
			case (orphan || err != nil) && before:
				is[p.Name] = since
			case orphan && len(is) < maxSuspects:
				is[p.Name] = now
			}
		}
	}
}

func (k *Keeper) orphan(ctx context.Context, p upload.PlaceInfo) (bool, error) {
	if k.cfg.Uploads.Active(p.Session) {
		return false, nil
	}
	s, err := k.cfg.Sessions.Status(ctx, p.Session)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		return false, err
	}
	if err == nil && !s.State.Ended() {
		return false, nil
	}
	named := false
	err = k.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		_, named, err = catalog.Places.Find(r, catalog.Name(p.Name))
		return err
	})
	return !named, err
}
