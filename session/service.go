package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/system"
)

// Service runs sessions over a Store. Any number of Services may share one
// Store; each isolates the puts that run through itself, and the Store's fence decides
// between Services. All methods are safe for concurrent use. No lock of a Service is held
// during I/O: work on one session never waits on another. A put has a lock of its own, by
// which a fence waits for the call of its sink that is under way.
type Service struct {
	store Store
	cfg   Config

	mu       sync.Mutex
	live     map[SessionID]*live
	lastTick time.Time
	kept     int64 // the running time that the store has for certain

	running      atomic.Int64 // ms
	small, large sync.Pool    // of *[]byte
	spare        atomic.Int64 // large ones that nobody has
	changeCounts [256]atomic.Uint64
	states       atomic.Int64 // bytes of received ranges that puts keep
}

// live is what a Service keeps in memory of a session while calls work on it.
type live struct {
	refs int // under Service.mu

	mu        sync.Mutex
	open      int // calls that put, also those that wait, and those that were fenced and have not returned yet
	waiting   int // of these, for others of the same bytes
	puts      []*put
	takeovers []takeover
	changed   chan struct{} // closed, and made anew, with each change
}

// New makes a Service whose running time continues from the newest that the store has seen.
func New(ctx context.Context, store Store, cfg Config) (*Service, error) {
	orDefault(&cfg.TTL, 168*time.Hour)
	orDefault(&cfg.Tick, time.Minute)
	orDefault(&cfg.Keep, KeepEnded)
	orDefault(&cfg.MaxGaps, 16384)
	orDefault(&cfg.MaxEntries, 65536)
	orDefault(&cfg.MinEntry, 1)
	orDefault(&cfg.Flush, time.Second)
	orDefault(&cfg.Small, 32<<10)
	orDefault(&cfg.Large, 256<<10)
	orDefault(&cfg.MaxLarge, 64)
	orDefault(&cfg.AtOnce, 16)
	orDefault(&cfg.Wait, 10*time.Second)
	orDefault(&cfg.Puts, 1024)
	orDefault(&cfg.Waiting, 16)
	if cfg.Clock == nil {
		cfg.Clock = system.Clock{}
	}
	if cfg.Rand == nil {
		cfg.Rand = system.Random{}
	}
	if cfg.Buffers == nil {
		cfg.Buffers = noBuffers{}
	}
	st, err := store.Stats(ctx)
	if err != nil {
		return nil, fmt.Errorf("session: reading the store's figures: %w", err)
	}
	v := &Service{store: store, cfg: cfg, live: map[SessionID]*live{}, lastTick: cfg.Clock.Now(), kept: st.Newest}
	v.running.Store(max(st.Newest, 1))
	v.small.New = func() any { b := make([]byte, cfg.Small); return &b }
	v.large.New = func() any { b := make([]byte, cfg.Large); return &b }
	v.spare.Store(int64(cfg.MaxLarge))
	return v, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Running is the engine's running time in ms: it advances with TickTTL only, never goes
// back, and survives a restart but for less than one Config.Tick.
func (v *Service) Running() int64 { return v.running.Load() }

// TTL is the time to live that new activity gives a session.
func (v *Service) TTL() time.Duration { return v.cfg.TTL }

// Begin makes a session, or answers the one that (Owner, Idem) has already, with
// created false; whether that was begun with the same Spec is for the caller to compare.
// Malformed: ErrInvalid. Errors of the store pass through.
func (v *Service) Begin(ctx context.Context, spec Spec) (s Session, created bool, err error) {
	switch {
	case spec.ChunkSize < 1:
		return s, false, fmt.Errorf("%w: chunk size %d is below 1", ErrInvalid, spec.ChunkSize)
	case spec.BytesExpected < Unknown:
		return s, false, fmt.Errorf("%w: %d bytes expected", ErrInvalid, spec.BytesExpected)
	case len(spec.Note) > MaxNote:
		return s, false, fmt.Errorf("%w: note of %d bytes is longer than %d", ErrInvalid, len(spec.Note), MaxNote)
	}
	for {
		var raw [8]byte
		if _, err := io.ReadFull(v.cfg.Rand, raw[:]); err != nil {
			return s, false, fmt.Errorf("session: drawing an id: %w", err)
		}
		id := SessionID(binary.BigEndian.Uint64(raw[:]))
		if id == 0 {
			continue
		}
		now := v.cfg.Clock.Now()
		own := Session{ID: id, Spec: spec, State: Open, Gen: 1, Rev: 1, Began: now, LastSeen: now, Seen: v.Running()}
		s, _, err = v.store.Create(ctx, own)
		if errors.Is(err, ErrTaken) {
			// The answer to our own Create may have been lost and repeated by the store.
			if s, err = v.store.Load(ctx, id); err == nil && s.Rev == 1 && s.Owner == spec.Owner && s.Idem == spec.Idem && bytes.Equal(s.Note, spec.Note) {
				return v.dated(s), true, nil
			}
			continue
		}
		if err != nil {
			return Session{}, false, err
		}
		// Also true where the store had to repeat the call, and found it done already.
		if s.ID == id {
			return v.dated(s), true, nil
		}
		s, err = v.touched(ctx, s.ID)
		return s, false, err
	}
}

// Holder gives the session that (owner, idem) has, which Begin would answer; its ID is 0 where
// there is none. It counts as activity.
func (v *Service) Holder(ctx context.Context, owner, idem string) (Session, error) {
	if idem == "" {
		return Session{}, nil
	}
	page, _, err := v.store.List(ctx, Query{Owner: &owner, Idem: idem, Limit: 1})
	if err != nil || len(page) == 0 {
		return Session{}, err
	}
	return v.touched(ctx, page[0].ID)
}

// Status gives the session in any state, or ErrNotFound. It does not count as activity.
func (v *Service) Status(ctx context.Context, id SessionID) (Session, error) {
	s, err := v.store.Load(ctx, id)
	return v.dated(s), err
}

// Touch counts as activity of a session that was loaded as s, and gives it as it is afterwards. It
// writes only if the last touch is a good part of the time to live ago.
func (v *Service) Touch(ctx context.Context, s Session) (Session, error) {
	for {
		if s.State != Open || v.Running()-s.Seen < v.cfg.TTL.Milliseconds()/64 {
			return v.dated(s), nil
		}
		after, err := v.record(ctx, s, v.change())
		if err == nil {
			return v.dated(after), nil
		}
		if !errors.Is(err, ErrFenced) && !isState(err) {
			return Session{}, err
		}
		if s, err = v.store.Load(ctx, s.ID); err != nil {
			return Session{}, err
		}
	}
}

// touched loads the session, which counts as activity.
func (v *Service) touched(ctx context.Context, id SessionID) (Session, error) {
	s, err := v.store.Load(ctx, id)
	if err != nil {
		return Session{}, err
	}
	return v.Touch(ctx, s)
}

// changes counts what this Service has changed of a session, or of another that shares its count. A
// session that was loaded when the count was the same is as this Service has left it.
func (v *Service) changes(id SessionID) *atomic.Uint64 {
	return &v.changeCounts[uint64(id)%uint64(len(v.changeCounts))]
}

// record is the store's Record on a session that was loaded as s.
func (v *Service) record(ctx context.Context, s Session, c Change) (Session, error) {
	defer v.changes(s.ID).Add(1)
	return v.store.Record(ctx, s.ID, s.Gen, c)
}

// change is a Change that touches and does nothing else yet.
func (v *Service) change() Change {
	return Change{Length: Unknown, Seen: v.Running(), Now: v.cfg.Clock.Now().UnixMilli()}
}

// dated fills in Ends.
func (v *Service) dated(s Session) Session {
	if s.ID != 0 && !s.State.Ended() {
		left := v.cfg.TTL - time.Duration(v.Running()-s.Seen)*time.Millisecond
		s.Ends = v.cfg.Clock.Now().Add(max(left, 0)).UTC().Truncate(time.Millisecond)
	}
	return s
}

// Entries gives the recorded pieces that overlap r, sorted, at most n (0: all).
func (v *Service) Entries(ctx context.Context, id SessionID, r Range, n int) ([]Entry, error) {
	return v.store.Entries(ctx, id, r, n)
}

// All is the Range of every possible byte.
func All() Range { return Range{0, math.MaxInt64} }

// List gives a page of sessions; see Query.
func (v *Service) List(ctx context.Context, q Query) ([]Session, string, error) {
	page, next, err := v.store.List(ctx, q)
	for i := range page {
		page[i] = v.dated(page[i])
	}
	return page, next, err
}

// Stats gives the store's figures.
func (v *Service) Stats(ctx context.Context) (Stats, error) { return v.store.Stats(ctx) }

// Wait returns the session as soon as its Rev is not rev, or the context's error. Changes made
// through other Services of the Store are seen within half a second.
func (v *Service) Wait(ctx context.Context, id SessionID, rev uint64) (Session, error) {
	l := v.hold(id)
	defer v.release(id, l)
	pause := 5 * time.Millisecond
	for {
		changed := l.watch()
		s, err := v.store.Load(ctx, id)
		if err != nil || s.Rev != rev {
			return v.dated(s), err
		}
		if err := sleep(ctx, changed, &pause); err != nil {
			return v.dated(s), err
		}
	}
}

// sleep returns after *pause, which it doubles up to half a second, or earlier when woken.
func sleep(ctx context.Context, woken <-chan struct{}, pause *time.Duration) error {
	t := time.NewTimer(*pause)
	defer t.Stop()
	*pause = min(*pause*2, 500*time.Millisecond)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-woken:
	case <-t.C:
	}
	return nil
}

// hold keeps the session's live part until release.
func (v *Service) hold(id SessionID) *live {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.live[id]
	if l == nil {
		l = &live{changed: make(chan struct{})}
		v.live[id] = l
	}
	l.refs++
	return l
}

func (v *Service) release(id SessionID, l *live) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l.refs--; l.refs == 0 {
		delete(v.live, id)
	}
}

// watch gives a channel that is closed with the next change.
func (l *live) watch() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// notify wakes all who watch.
func (l *live) notify() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

// notify wakes those who watch the session, if anyone does.
func (v *Service) notify(id SessionID) {
	v.mu.Lock()
	l := v.live[id]
	v.mu.Unlock()
	if l != nil {
		l.notify()
	}
}

// isState reports whether err says that the session is not open.
func isState(err error) bool {
	return errors.Is(err, ErrSealed) || errors.Is(err, ErrFinished) || errors.Is(err, ErrAborted) || errors.Is(err, ErrExpired)
}
