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

// Service runs sessions over a Store. Any number of Services may share one Store. Each isolates the
// puts that run through it from each other; the Store's fence decides between Services. All methods
// are safe for concurrent use. A Service holds no lock during I/O, so work on one session never
// waits for another session. A put has a lock of its own: with it a fence waits for the put's
// running call of its sink.
type Service struct {
	store Store
	cfg   Config

	mu         sync.Mutex
	active     map[SessionID]*activeSession
	lastTick   time.Time
	storedTime int64 // the newest running time that is certainly stored

	running        atomic.Int64 // ms
	small, large   sync.Pool    // of *[]byte
	largeFree      atomic.Int64 // large buffers that may still be given out
	changeCounters [256]atomic.Uint64
	rangeBytes     atomic.Int64 // memory of the received ranges that puts keep, in bytes
}

// activeSession is what a Service keeps in memory of a session while calls work on it.
type activeSession struct {
	refs int // under Service.mu

	mu        sync.Mutex
	putting   int // running puts, also those that wait, and fenced ones that have not returned yet
	waiting   int // puts among them that wait for others of the same bytes
	puts      []*put
	takeovers []takeover
	changed   chan struct{} // closed and replaced with each change
}

// New makes a Service whose running time continues from the newest that the store has seen.
func New(ctx context.Context, store Store, cfg Config) (*Service, error) {
	orDefault(&cfg.TTL, 168*time.Hour)
	orDefault(&cfg.MaxStep, time.Minute)
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
	if cfg.MaxAge != 0 && cfg.MaxAge < cfg.TTL {
		return nil, fmt.Errorf("%w: a longest life of %s is below the TTL, %s", ErrInvalid, cfg.MaxAge, cfg.TTL)
	}
	st, err := store.Stats(ctx)
	if err != nil {
		return nil, fmt.Errorf("session: reading the store's figures: %w", err)
	}
	v := &Service{
		store: store, cfg: cfg, active: map[SessionID]*activeSession{},
		lastTick: cfg.Clock.Now(), storedTime: st.Newest,
	}
	v.running.Store(max(st.Newest, 1))
	v.small.New = func() any { b := make([]byte, cfg.Small); return &b }
	v.large.New = func() any { b := make([]byte, cfg.Large); return &b }
	v.largeFree.Store(int64(cfg.MaxLarge))
	return v, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Running is the engine's running time in ms. It advances with TickTTL only and never goes back. A
// restart loses less than one Config.MaxStep of it.
func (v *Service) Running() int64 { return v.running.Load() }

// TTL is the time to live that new activity gives a session.
func (v *Service) TTL() time.Duration { return v.cfg.TTL }

// Begin makes a session. If (Owner, Idem) has one already, Begin returns that, with created false;
// the caller must compare the Specs. Malformed: ErrInvalid. Errors of the store pass through.
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
		if v.cfg.MaxAge > 0 {
			own.Start = own.Seen
		}
		s, _, err = v.store.Create(ctx, own)
		if errors.Is(err, ErrTaken) {
			// The answer to our own Create may have been lost, and the store may have repeated it.
			s, err = v.store.Load(ctx, id)
			if err == nil && s.Rev == 1 && s.isOf(&spec) {
				return v.withEnds(s), true, nil
			}
			continue
		}
		if err != nil {
			return Session{}, false, err
		}
		// This also holds if the store repeated the call, and found its own session.
		if s.ID == id {
			return v.withEnds(s), true, nil
		}
		s, err = v.loadAndTouch(ctx, s.ID)
		return s, false, err
	}
}

// isOf reports whether the session may be that of a Begin with this Spec.
func (s *Session) isOf(spec *Spec) bool {
	return s.Owner == spec.Owner && s.Idem == spec.Idem && bytes.Equal(s.Note, spec.Note)
}

// FindByKey returns the session that (owner, idem) has, as Begin would; its ID is 0 if there is
// none. It counts as activity.
func (v *Service) FindByKey(ctx context.Context, owner, idem string) (Session, error) {
	if idem == "" {
		return Session{}, nil
	}
	page, _, err := v.store.List(ctx, Query{Owner: &owner, Idem: idem, Limit: 1})
	if err != nil || len(page) == 0 {
		return Session{}, err
	}
	return v.loadAndTouch(ctx, page[0].ID)
}

// Status returns the session in any state, or ErrNotFound. It does not count as activity.
func (v *Service) Status(ctx context.Context, id SessionID) (Session, error) {
	s, err := v.store.Load(ctx, id)
	return v.withEnds(s), err
}

// Touch counts as activity of a session that was loaded as s, and returns the session after it. It
// writes only if the last touch is more than 1/64 of the time to live ago.
func (v *Service) Touch(ctx context.Context, s Session) (Session, error) {
	for {
		if s.State != Open || v.touched(s)-s.Seen < v.cfg.TTL.Milliseconds()/64 {
			return v.withEnds(s), nil
		}
		after, err := v.record(ctx, s, v.change(s))
		if err == nil {
			return v.withEnds(after), nil
		}
		if !errors.Is(err, ErrFenced) && !saysNotOpen(err) {
			return Session{}, err
		}
		if s, err = v.store.Load(ctx, s.ID); err != nil {
			return Session{}, err
		}
	}
}

// loadAndTouch loads the session, and counts as activity.
func (v *Service) loadAndTouch(ctx context.Context, id SessionID) (Session, error) {
	s, err := v.store.Load(ctx, id)
	if err != nil {
		return Session{}, err
	}
	return v.Touch(ctx, s)
}

// changes is a counter of this Service's changes to a session, which other sessions may share.
// While the count is as it was before a load, this Service has not changed the session since.
func (v *Service) changes(id SessionID) *atomic.Uint64 {
	return &v.changeCounters[uint64(id)%uint64(len(v.changeCounters))]
}

// record calls the store's Record for a session that was loaded as s.
func (v *Service) record(ctx context.Context, s Session, c Change) (Session, error) {
	defer v.changes(s.ID).Add(1)
	return v.store.Record(ctx, s.ID, s.Gen, c)
}

// change is a Change of s that is only a touch so far.
func (v *Service) change(s Session) Change {
	c := Change{Length: Unknown, Seen: v.touched(s), Now: v.cfg.Clock.Now().UnixMilli()}
	if s.Start == 0 && v.cfg.MaxAge > 0 {
		c.Start = startOf(s)
	}
	return c
}

// touched is the Seen of s after a touch: the running time, or less if the time to live from there
// would go past the longest life. Then s expires with its longest life, and expiry has to look at
// Seen alone.
func (v *Service) touched(s Session) int64 {
	if v.cfg.MaxAge == 0 {
		return v.Running()
	}
	return min(v.Running(), startOf(s)+v.cfg.MaxAge.Milliseconds()-v.cfg.TTL.Milliseconds())
}

// startOf is the running time from which the longest life of s counts.
func startOf(s Session) int64 {
	if s.Start == 0 {
		return max(s.Seen, 1)
	}
	return s.Start
}

// withEnds sets Ends: when the session would expire if nothing touched it.
func (v *Service) withEnds(s Session) Session {
	if s.ID != 0 && !s.State.Ended() {
		left := v.cfg.TTL - time.Duration(v.Running()-s.Seen)*time.Millisecond
		s.Ends = v.cfg.Clock.Now().Add(max(left, 0)).UTC().Truncate(time.Millisecond)
	}
	return s
}

// Entries returns the entries that overlap r, sorted, at most n (0: all).
func (v *Service) Entries(ctx context.Context, id SessionID, r Range, n int) ([]Entry, error) {
	return v.store.Entries(ctx, id, r, n)
}

// All is the Range of all possible bytes.
func All() Range { return Range{0, math.MaxInt64} }

// List returns a page of sessions; see Query.
func (v *Service) List(ctx context.Context, q Query) ([]Session, string, error) {
	page, next, err := v.store.List(ctx, q)
	for i := range page {
		page[i] = v.withEnds(page[i])
	}
	return page, next, err
}

// Stats returns the store's figures.
func (v *Service) Stats(ctx context.Context) (Stats, error) { return v.store.Stats(ctx) }

// Wait returns the session as soon as its Rev is not rev, or the context's error. It sees changes
// through other Services of the Store within half a second.
func (v *Service) Wait(ctx context.Context, id SessionID, rev uint64) (Session, error) {
	a := v.acquire(id)
	defer v.release(id, a)
	pause := 5 * time.Millisecond
	for {
		changed := a.watch()
		s, err := v.store.Load(ctx, id)
		if err != nil || s.Rev != rev {
			return v.withEnds(s), err
		}
		if err := sleep(ctx, changed, &pause); err != nil {
			return v.withEnds(s), err
		}
	}
}

// sleep returns after *pause, or earlier when woken. It doubles *pause, up to half a second.
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

// acquire returns the session's activeSession, and keeps it until release.
func (v *Service) acquire(id SessionID) *activeSession {
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.active[id]
	if a == nil {
		a = &activeSession{changed: make(chan struct{})}
		v.active[id] = a
	}
	a.refs++
	return a
}

func (v *Service) release(id SessionID, a *activeSession) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if a.refs--; a.refs == 0 {
		delete(v.active, id)
	}
}

// watch returns a channel that is closed with the next change.
func (a *activeSession) watch() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// notify wakes all callers of watch.
func (a *activeSession) notify() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.changed)
	a.changed = make(chan struct{})
}

// notify wakes the calls that watch the session, if there are any.
func (v *Service) notify(id SessionID) {
	v.mu.Lock()
	a := v.active[id]
	v.mu.Unlock()
	if a != nil {
		a.notify()
	}
}

// saysNotOpen reports whether err says that the session is not open.
func saysNotOpen(err error) bool {
	return errors.Is(err, ErrSealed) || errors.Is(err, ErrFinished) ||
		errors.Is(err, ErrAborted) || errors.Is(err, ErrExpired)
}
