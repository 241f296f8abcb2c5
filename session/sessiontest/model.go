package sessiontest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/session"
)

// TestModel runs any history of calls on that many Services over one Store, each call on any of
// them. It compares every answer and everything that is stored with a model: which sessions were
// begun, which bytes were answered for, which sessions have ended how. A few sessions go on at
// once, and puts stay open during other calls.
//
// open returns an empty Store. If it has a method Restart() error, the test calls that when the
// history restarts the program; state that is in memory alone may be lost then. If it has Close,
// the test calls that at the end.
func TestModel(t *testing.T, open func(t *testing.T) session.Store, services int) {
	t.Run("any history", func(t *testing.T) {
		histories, steps := 0, 0
		defer func() { t.Logf("%d histories, %d steps", histories, steps) }()
		rapid.Check(t, func(rt *rapid.T) {
			w := newWorld(rt, open(t), services)
			defer w.close()
			histories++
			defer func() { steps += w.steps }()
			rt.Repeat(map[string]func(*rapid.T){
				"":       func(t *rapid.T) { w.t = t; w.check() },
				"begin":  w.step(w.begin),
				"put":    w.step(w.put),
				"start":  w.step(w.start),
				"go on":  w.step(w.goOn),
				"drop":   w.step(w.drop),
				"finish": w.step(w.finish),
				"abort":  w.step(w.abort),
				"time":   w.step(w.time),
				"other":  w.step(func() { w.other()() }),
			})
		})
	})
	t.Run("at once", func(t *testing.T) { atOnceModel(t, open(t), services) })
}

const (
	maxBytes = 24 // of a session
	ttl      = 4 * time.Minute
	keep     = 3 * time.Minute
	tick     = time.Minute
)

// restart and shut use optional methods of a store.
func restart(st session.Store) error {
	if r, ok := st.(interface{ Restart() error }); ok {
		return r.Restart()
	}
	return nil
}

func shut(st session.Store) error {
	if c, ok := st.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// world is the model and what it is a model of.
type world struct {
	t          *rapid.T
	store      session.Store
	disk       *disk
	now        time.Time
	rand       io.Reader
	merge      bool
	match      bool
	maxAge     time.Duration
	buffers    bool
	services   []*service
	n          int // number of Services there
	made       int // Services made so far
	sessions   []*known
	stats      session.Stats // the totals
	storedTime int64         // the stored running time is not below
	steps      int           // that the model has taken
}

// locked is a source of random bytes that is safe for concurrent use.
type locked struct {
	mu     sync.Mutex
	source io.Reader
}

// Read implements io.Reader.
func (l *locked) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source.Read(p)
}

// service is a Service with values that it has no methods for.
type service struct {
	*session.Service
	name       string
	lastTick   time.Time
	storedTime int64 // the running time that it has certainly stored
}

// known is the model of a session.
type known struct {
	session.Spec // with the present BytesExpected
	id           session.SessionID
	state        session.State
	content      [maxBytes]byte // 0: not recorded
	puts         []*put
	gen, rev     uint64 // at least
	seen         int64  // at least
	start        int64  // running time at its begin
}

func (w *world) Now() time.Time { return w.now }

func newWorld(t *rapid.T, st session.Store, services int) *world {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], rapid.Uint64().Draw(t, "seed"))
	w := &world{
		t: t, store: st, disk: &disk{places: map[string]*place{}}, now: began, n: services,
		rand: &locked{source: rand.NewChaCha8(seed)}, merge: rapid.Bool().Draw(t, "merge"),
		match: rapid.Bool().Draw(t, "match"), buffers: rapid.Bool().Draw(t, "buffers"),
		maxAge: rapid.SampledFrom([]time.Duration{0, ttl, ttl + tick}).Draw(t, "longest life"),
	}
	w.startServices()
	return w
}

// startServices makes the Services.
func (w *world) startServices() {
	w.services = nil
	stored, err := w.store.Stats(context.Background())
	w.must(err)
	for range w.n {
		// An end with an unknown outcome stays sealed, and each call that meets it waits for Wait.
		cfg := session.Config{
			TTL: ttl, MaxAge: w.maxAge, Keep: keep, MaxStep: tick, Flush: time.Hour, Clock: w, Rand: w.rand, Large: 16,
			Wait: 2 * time.Millisecond,
		}
		if w.buffers {
			cfg.Small, cfg.Large, cfg.MaxLarge, cfg.Buffers = 2, 4, 1, w.disk
		}
		if w.match {
			cfg.Match = w.disk.match
		}
		if w.merge {
			cfg.Merge = func(a, b session.Entry) ([]byte, bool) { return a.Note, string(a.Note) == string(b.Note) }
		}
		v, err := session.New(context.Background(), w.store, cfg)
		w.must(err)
		w.made++
		if v.Running() < w.storedTime {
			w.t.Fatalf("the running time was at %d, and begins at %d", w.storedTime, v.Running())
		}
		w.services = append(w.services, &service{v, fmt.Sprint(w.made), w.now, stored.Newest})
	}
}

// restart ends the program, with the running puts, and starts it again.
func (w *world) restart() {
	for _, k := range w.sessions {
		for _, p := range slices.Clone(k.puts) {
			w.endPut(k, p, errCut)
		}
	}
	w.must(restart(w.store))
	w.startServices()
	for _, k := range w.sessions {
		if k.state != session.Sealed {
			continue
		}
		s, err := w.any().Status(context.Background(), k.id)
		w.must(err)
		if s.State == session.Open {
			// The seal was in memory alone, and so was its generation.
			k.state, k.gen, k.rev = session.Open, s.Gen, s.Rev
		}
	}
}

func (w *world) close() {
	for _, k := range w.sessions {
		for _, p := range k.puts {
			p.end(errCut)
		}
	}
	if err := shut(w.store); err != nil {
		w.t.Errorf("closing: %v", err)
	}
}

// step makes f an action.
func (w *world) step(f func()) func(*rapid.T) {
	return func(t *rapid.T) {
		w.t = t
		w.steps++
		f()
		w.disk.mu.Lock()
		defer w.disk.mu.Unlock()
		for _, b := range w.disk.failures {
			t.Fatal(b)
		}
	}
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) draw(what string, from, to int64) int64 {
	return rapid.Int64Range(from, to).Draw(w.t, what)
}

// any draws a Service.
func (w *world) any() *service { return w.services[w.draw("service", 0, int64(w.n-1))] }

// pick draws a session that is not sealed, since a call of a sealed one waits for its end.
func (w *world) pick() *known {
	var all []*known
	for _, k := range w.sessions {
		if k.state != session.Sealed {
			all = append(all, k)
		}
	}
	if len(all) == 0 {
		w.t.Skip("no session")
	}
	// Mostly the younger ones, which are open.
	return all[max(0, int64(len(all))-1-w.draw("session", 0, 3))]
}

// other draws one of the rarer calls.
func (w *world) other() func() {
	return []func(){w.recover, w.clear, w.restart}[w.draw("call", 0, 2)]
}

// sink is the sink of a new put.
func (w *world) sink(id session.SessionID, on *service) *sink {
	return &sink{disk: w.disk, name: id.String() + "/" + on.name, session: id, store: w.store}
}

// disturb notes that another call changes the session.
func (k *known) disturb() {
	for _, p := range k.puts {
		p.disturbed = true
	}
}

// err is the error of a put into a session that is not open.
func (k *known) err() error { return k.state.Err() }

// expect checks an error: nil, or one that wraps want.
func (w *world) expect(what string, err, want error) {
	w.t.Helper()
	if (want == nil) != (err == nil) || !errors.Is(err, want) {
		w.t.Fatalf("%s: %v, not %v", what, err, want)
	}
}

func (w *world) begin() {
	open := 0
	for _, k := range w.sessions {
		if k.state == session.Open {
			open++
		}
	}
	if open == 3 {
		w.t.Skip("enough sessions")
	}
	spec := session.Spec{
		ChunkSize: w.draw("chunk size", 1, 9), BytesExpected: w.draw("bytes", -1, maxBytes),
		Owner: rapid.SampledFrom([]string{"a", "b"}).Draw(w.t, "owner"),
		Idem:  rapid.SampledFrom([]string{"", "i", "j"}).Draw(w.t, "idem"),
		Note:  fmt.Append(nil, "note ", len(w.sessions)),
	}
	var holder *known
	for _, k := range w.sessions {
		if spec.Idem != "" && k.Owner == spec.Owner && k.Idem == spec.Idem && k.state <= session.Finished {
			holder = k
		}
	}
	v := w.any()
	start := v.Running()
	s, created, err := v.Begin(context.Background(), spec)
	w.must(err)
	if created != (holder == nil) {
		w.t.Fatalf("begin: created %v session %s, and the idem is held by %+v", created, s.ID, holder)
	}
	if holder != nil {
		if s.ID != holder.id {
			w.t.Fatalf("begin answers %s, not %s", s.ID, holder.id)
		}
		holder.disturb()
		return
	}
	w.stats.Begun++
	w.sessions = append(w.sessions, &known{Spec: spec, id: s.ID, state: session.Open, start: start})
}

func (w *world) drop() {
	k := w.pick()
	off := w.draw("off", 0, maxBytes-1)
	if len(k.puts) > 0 && w.draw("at a put", 0, 3) > 0 {
		off = k.puts[0].off
	}
	r := rng(off, w.draw("end", off+1, maxBytes))
	keep := func(_ context.Context, e session.Entry, _ session.Range) ([]byte, error) { return e.Note, nil }
	k.disturb()
	v := w.any()
	s, _, err := v.Drop(context.Background(), k.id, r, keep)
	w.expect("drop", err, k.err())
	k.fence(v, r)
	if err != nil {
		return
	}
	dropped := false
	for i := r.Off; i < r.End; i++ {
		dropped = dropped || k.content[i] != 0
		k.content[i] = 0
	}
	if dropped && s.Gen == k.gen {
		w.t.Fatal("a drop does not fence")
	}
	w.disk.dropped(k.id, r)
}

// end is the end of the last recorded byte.
func (k *known) end() (end int64) {
	for i, b := range k.content {
		if b != 0 {
			end = int64(i) + 1
		}
	}
	return end
}

// received is the ranges that must be recorded.
func (k *known) received() (rs []session.Range) {
	for i, b := range k.content {
		if b != 0 {
			rs = session.Add(rs, rng(int64(i), int64(i)+1))
		}
	}
	return rs
}
