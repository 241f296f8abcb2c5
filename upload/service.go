package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/system"
	"sluice/session"
)

// Limits bound what a client may ask for. Sizes are bytes.
type Limits struct {
	// InlineMax is the largest content that is kept in the catalog itself.
	InlineMax int64
	// ChunkSize is the server's choice, if MaxChunks allows it. ChunkSizeMin and ChunkSizeMax bound
	// a client's choice.
	ChunkSize, ChunkSizeMin, ChunkSizeMax int64
	MaxChunks                             int64
	// MaxBytes bounds one upload.
	MaxBytes int64
	// TTL is a session's sliding time to live, and MaxAge its longest life (0: no bound). Both are
	// told to clients; the engine's own Config decides.
	TTL, MaxAge time.Duration
	// MaxEnded bounds the sessions of one owner that are aborted or expire within endedFor, because
	// the engine remembers each of them for so long.
	MaxEnded int64
	// BatchEntries bounds the recorded entries of all sessions of one FinishBatch together; 0 is no
	// bound.
	BatchEntries int
	// FinishEntries bounds the recorded entries of all running finishes together; 0 is no bound. A
	// single finish may have more.
	FinishEntries int64
}

// DefaultLimits are those of docs/api.md.
func DefaultLimits() Limits {
	return Limits{
		InlineMax: 4 << 10, ChunkSize: 8 << 20, ChunkSizeMin: 4 << 10, ChunkSizeMax: 64 << 20,
		MaxChunks: 16384, MaxBytes: 16384 * (64 << 20), TTL: 168 * time.Hour, MaxAge: 720 * time.Hour,
		MaxEnded: 20_000, BatchEntries: 1 << 18,
	}
}

// Config is what a Service works with. All fields before Limits are needed.
type Config struct {
	Sessions *session.Service
	Catalog  catalog.Store
	Blobs    blob.Store
	Clock    session.Clock
	Limits   Limits
	// Bounds are those of the open sessions of one owner, as Hook has them. Precheck tells of
	// them.
	Bounds catalog.Bounds
	// CheckSpace gives an error while the disk of sessions and catalog has no space left. Then
	// nothing is begun or put (blob.ErrNoSpace), and the remaining space serves to finish, abort
	// and delete. It gives ErrAway if the stores are not in their place. It is called often.
	CheckSpace func() error
	Log        *slog.Logger
	// Rand is the source of ids. Stopwatch is the clock by which puts of a session wait for each
	// other. nil: the machine's.
	Rand      io.Reader
	Stopwatch session.Clock
}

// Service carries out the uploads_* operations. It is safe for concurrent use by any number of
// callers, and beside other Services on the same stores. Close stops its background work.
type Service struct {
	cfg    Config
	stop   context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	active activeSessions
	// hashSlots bounds the background hashers that read at the same time.
	hashSlots hashSlots
	// finishingEntries is how many recorded entries the running finishes have in memory.
	finishingEntries atomic.Int64

	mu            sync.Mutex
	creating      map[session.SessionID]struct{}
	endedCounts   map[string]endedCount     // by principal
	pending       map[string]pendingCreates // by capsule: creates under way
	leftovers     map[string]leftover
	leftoverSeq   uint64 // how many leftovers were noted
	leftoverAdded chan struct{}
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CheckSpace == nil {
		cfg.CheckSpace = func() error { return nil }
	}
	if cfg.Rand == nil {
		cfg.Rand = system.Random{}
	}
	if cfg.Stopwatch == nil {
		cfg.Stopwatch = system.Clock{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Service{
		cfg: cfg, stop: ctx, cancel: cancel,
		creating:  map[session.SessionID]struct{}{},
		hashSlots: hashSlots{free: 2},
		active:    activeSessions{now: cfg.Stopwatch.Now, all: map[session.SessionID]*activeSession{}},
		pending:   map[string]pendingCreates{}, endedCounts: map[string]endedCount{},
		leftovers: map[string]leftover{}, leftoverAdded: make(chan struct{}, 1),
	}
}

// Limits gives what clients may ask for.
func (u *Service) Limits() Limits { return u.cfg.Limits }

// Close stops the background hashers and checks, and waits for them. It keeps what they have done.
func (u *Service) Close() {
	u.cancel()
	u.wg.Wait()
}

// Creating reports whether a create in one request is writing bytes under this id, which no session
// has.
func (u *Service) Creating(id session.SessionID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.creating[id]
	return ok
}

// loadOwn loads a session for its creator. A refused request does not count as activity.
func (u *Service) loadOwn(
	ctx context.Context, c access.Caller, id session.SessionID, a access.Action, touch bool,
) (session.Session, note, error) {
	s, err := u.cfg.Sessions.Status(ctx, id)
	if err != nil {
		return s, note{}, err
	}
	n, err := u.decide(ctx, c, s, a)
	if err == nil && touch {
		s, err = u.cfg.Sessions.Touch(ctx, s)
	}
	return s, n, err
}

// errHidden is what others than its creator get instead of a session.
var errHidden = fmt.Errorf("%w: %w", session.ErrNotFound, access.ErrHidden)

// decide refuses all callers except the session's creator, with session.ErrNotFound. A creator
// whose role was taken away gets access.ErrForbidden.
func (u *Service) decide(ctx context.Context, c access.Caller, s session.Session, a access.Action) (note, error) {
	if s.Owner != c.Principal {
		return note{}, errHidden
	}
	n, err := decodeNote(s.Note)
	if err != nil {
		return n, fmt.Errorf("session %s: %w", s.ID, err)
	}
	return n, u.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		err := u.allow(r, c, a, n.Capsule)
		if err == nil {
			var g catalog.Grant
			g, err = ticketOf(r, c)
			n.most = g.MaxBytes
		}
		return err
	})
}

// allow asks whether the creator of a session may still act on it in its capsule. A refusal may say
// that the capsule exists, because the creator knows it.
func (u *Service) allow(r catalog.Reader, c access.Caller, a access.Action, capsule string) error {
	return stillAllowed(r, c, a, capsule, u.cfg.Clock.Now())
}

func stillAllowed(r catalog.Reader, c access.Caller, a access.Action, capsule string, now time.Time) error {
	_, err := access.Allow(r, c, a, capsule, now)
	if errors.Is(err, catalog.ErrNotFound) {
		return fmt.Errorf("%w: you have no role in capsule %s any more", access.ErrForbidden, capsule)
	}
	return err
}

// moment is the present moment on both clocks.
func (u *Service) moment() catalog.Moment {
	return catalog.Moment{Now: u.cfg.Clock.Now(), Running: u.cfg.Sessions.Running()}
}
