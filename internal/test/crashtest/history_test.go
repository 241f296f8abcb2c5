package crashtest

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
	"sluice/session"
)

var (
	histories = flag.Int(
		"history.count", 0, "how many random histories; 0: as many as take about 20 s on two processors",
	)
	history0     = flag.Uint64("history.seed", 1, "the seed of the first; each later one has the next")
	historiesFor = flag.Duration("history.for", 0, "as many histories as this takes, whatever -history.count says")
)

// serverRun is one server from its opening to its end. The history goes on with the disk that it
// leaves.
type serverRun struct {
	run
	n     int
	seed  uint64
	rng   *rand.Rand
	dead  *death
	named int // files of this server run

	ticked  time.Time     // the clock at the last tick
	counted time.Duration // running time
	loose   bool          // the call is about bytes that may be lost
	about   []*file       // the files that the call is about

	mu       sync.Mutex
	left     int // steps of the disk until the event
	event    event
	fault    fault
	hit      *crashfs.Step
	last     *point // where the event crashed it, or it died
	before   *model // the model before, while unknown outcomes are being resolved
	log      []string
	failures []failure
}

// event is what happens at a step.
type event uint8

const (
	nothing event = iota
	crash
	failing
)

// step is the disk's hook.
func (l *serverRun) hooked(s crashfs.Step) *crashfs.Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.event == nothing || s.Op == crashfs.OpRead || l.event == crash && !s.Changes() ||
		l.event == failing && l.before != nil {
		return nil
	}
	if l.left--; l.left > 0 {
		return nil
	}
	was := l.event
	l.event = nothing
	if was == crash {
		l.last = l.at(s.String(), s.Image())
		return nil
	}
	l.hit = &s
	l.log = append(l.log, fmt.Sprintf("    %s: %s", s, l.fault))
	if l.fault.lose {
		if s.LoseWriteBack(data+"/content/") > 0 {
			l.m.mu.Lock()
			l.m.losePower()
			l.m.mu.Unlock()
		}
		return nil
	}
	if side(s.Path) == "content" { // the upload may be harmed even if the call is answered
		l.m.mu.Lock()
		for _, f := range l.about {
			f.harmed, f.shaken = true, false
		}
		l.loose = true
		l.m.mu.Unlock()
	}
	out := &crashfs.Fault{Err: l.fault.err, After: l.fault.after}
	if l.fault.short && s.Op == crashfs.OpWrite {
		out.Short = s.Len / 2
	}
	return out
}

// at notes the moment. l.mu is held.
func (l *serverRun) at(what string, image *crashfs.Image) *point {
	m := l.before
	if m == nil {
		m = l.m.clone()
	}
	l.log = append(l.log, "    "+what+": the end of this life, while "+m.doing)
	return &point{what: what, image: image, model: m.clone(), ms: l.st.clock.Millis()}
}

// stopAt notes the moment between two steps, unless another was noted before.
func (l *serverRun) stopAt(what string) *point {
	for {
		// The image and the model must be of one moment. The disk's lock comes before this one's.
		step := l.disk.Steps()
		image := l.disk.Image()
		l.mu.Lock()
		if l.last == nil {
			p := l.at(what, image)
			l.mu.Unlock()
			if l.disk.Steps() != step {
				continue
			}
			l.mu.Lock()
			if l.last == nil {
				l.last = p
			}
		}
		p := l.last
		l.mu.Unlock()
		return p
	}
}

// arm lets something happen n steps from now.
func (l *serverRun) arm(e event, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.event, l.left = e, n
}

// ended reports whether the rest of this server run will be forgotten.
func (l *serverRun) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last != nil || l.dead.first.Load()
}

func (l *serverRun) traced(doing string, answered bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !answered:
		l.log = append(l.log, "  "+doing)
	case err != nil:
		l.log = append(l.log, "    answered: "+err.Error())
	case len(l.log) == 0 || l.log[len(l.log)-1] != "  "+doing:
		l.log = append(l.log, "  "+doing)
	}
}

// lost lists the errors by which a server reports that acknowledged bytes are gone.
var lost = []error{session.ErrIncomplete, session.ErrSuperseded}

// wasRefused is the place where a call failed that should not have.
func (l *serverRun) wasRefused(name, doing string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != nil {
		return
	}
	said := slices.ContainsFunc(lost, func(want error) bool { return errors.Is(err, want) })
	if errors.Is(err, errWrong) || l.hit == nil && !(l.loose && said) {
		l.err = fmt.Errorf("%s: %w", doing, err)
		return
	}
	if f := l.m.files[name]; f != nil {
		f.shaken = false
	}
	if l.hit == nil {
		return
	}
	l.failures = append(l.failures, failure{name, doing, err})
	harmed := map[string]bool{}
	for _, f := range l.failures {
		if f.name != "" && !strings.Contains(f.doing, "finish ") {
			harmed[f.name] = true
		}
	}
	if len(harmed) > 1 && !l.fault.lose {
		l.err = fmt.Errorf("one step failed, and harmed %d uploads: %v", len(harmed), l.failures)
	}
}

// lookAt compares what the server shows with the model, and resolves unknown outcomes.
func (l *serverRun) lookAt() {
	if l.err != nil || l.ended() {
		return
	}
	pre := l.m.clone()
	l.mu.Lock()
	l.before = pre
	l.mu.Unlock()
	err := l.checkRights() // they say who may look
	if err == nil {
		err = l.check()
	}
	if err == nil {
		err = l.checkCounts()
	}
	if err == nil {
		err = audit(l.w)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.before = nil
	for name, f := range l.m.files {
		if !l.blind(f) {
			if f.can == open {
				f.idle, f.rest = 0, 0
			}
			if f.shaken {
				f.harmed, f.shaken = false, false
			}
		}
		if f.can&(purged|aborted|expired) != 0 && len(l.m.files) > 12 {
			if g := l.m.grants[f.by]; g != nil && f.can == purged {
				g.buried++
			}
			delete(l.m.files, name)
		}
	}
	if l.last == nil {
		l.err = err
	}
}

// history is a sequence of server runs.
type history struct {
	seed   uint64
	d      durable.Durability
	rng    *rand.Rand
	disk   *crashfs.Disk
	model  *model
	ms     int64
	runs   int
	ran    time.Duration // time that was counted
	log    []string
	totals totals
}

// totals are the figures that a test reports.
type totals struct {
	histories, runs, calls, faults, deaths, images int
	crashes                                        map[string]int
}

func (t *totals) add(u totals) {
	t.histories += u.histories
	t.runs += u.runs
	t.calls += u.calls
	t.faults += u.faults
	t.deaths += u.deaths
	t.images += u.images
	if t.crashes == nil {
		t.crashes = map[string]int{}
	}
	for how, n := range u.crashes {
		t.crashes[how] += n
	}
}

func (t totals) String() string {
	points := 0
	var by []string
	for _, how := range slices.Sorted(maps.Keys(t.crashes)) {
		points += t.crashes[how]
		by = append(by, fmt.Sprintf("%d %s", t.crashes[how], how))
	}
	return fmt.Sprintf(
		"%d histories, %d lives, %d calls, %d crash points (%s), %d faults, in %d of them the server ended itself, "+
			"%d images checked",
		t.histories, t.runs, t.calls, points, strings.Join(by, ", "), t.faults, t.deaths, t.images)
}

// start is a disk with a server that has a guest, and the model of that.
type start struct {
	image *crashfs.Image
	guest guest
}

func newStart(d durable.Durability) (out start, err error) {
	disk := newDisk()
	w, err := openServer(disk, setup{durability: d, clock: &world.Clock{}})
	if err != nil {
		return out, err
	}
	p, err := w.Access.CreatePrincipal(ctx, w.Me, "guest", false)
	if err != nil {
		return out, errors.Join(err, w.Close())
	}
	t, secret, err := w.Access.CreateToken(ctx, w.Me, access.TokenRequest{Principal: p.ID, Name: "guest"})
	out.guest = guest{
		name: "guest", id: p.ID, secret: secret, tokenID: t.ID, is: valid, role: stranger, token: valid,
		caller: access.Caller{Principal: p.ID, Token: t.Hash},
	}
	err = errors.Join(err, w.Close())
	out.image = disk.Image()
	return out, err
}

func newHistory(seed uint64, d durable.Durability, from start) *history {
	h := &history{
		seed: seed, d: d, rng: rand.New(rand.NewPCG(seed, uint64(d))), disk: from.image.Kill(), model: newModel(),
	}
	g := from.guest
	h.model.guest, h.model.guests[g.name] = &g, &g
	h.totals.crashes = map[string]int{}
	h.totals.histories = 1
	return h
}

// onceFaults are how one step fails.
var onceFaults = []fault{
	{err: syscall.EIO},
	{err: syscall.EIO, after: true},
	{lose: true},
	{lose: true},
	{err: syscall.ENOSPC, short: true},
	{err: syscall.EMFILE},
}

// between is the moment after a server run that came to its drawn end.
const between = "between two steps"

// born opens the next server run.
func (h *history) born() *serverRun {
	h.runs++
	h.totals.runs++
	l := &serverRun{n: h.runs, seed: h.rng.Uint64()}
	l.rng = rand.New(rand.NewPCG(l.seed, 1))
	cl := &world.Clock{}
	cl.SetMillis(h.ms)
	l.dead = newDeath(func() { l.stopAt("the server ends itself") })
	h.model.forgetTime()
	l.disk, l.m, l.st = h.disk, h.model, setup{
		durability: h.d, seed: h.seed*1_000_003 + uint64(h.runs)*100, clock: cl, die: l.dead.die,
	}
	l.hook, l.failed, l.trace = l.hooked, l.wasRefused, l.traced
	l.fault = onceFaults[h.rng.IntN(len(onceFaults))]
	return l
}

// opened starts the server of this server run, and looks.
func (l *serverRun) opened() {
	l.open()
	if l.err == nil && !l.ended() {
		l.ticked = l.w.clock.Now()
		l.lookAt()
	}
}

// most is how many steps of the disk an event waits for at most.
const most = 60

// live is one server run without its end.
func (l *serverRun) live(when string) {
	if when == "opening" {
		l.arm(crash, 1+l.rng.IntN(most))
	}
	l.opened()
	calls := 2 + l.rng.IntN(10)
	armed := 1 + l.rng.IntN(calls)
	for i := 0; l.err == nil && !l.ended() && i < calls+10; i++ {
		if i == armed && (when == "call" || when == "fault") {
			e := crash
			if when == "fault" {
				e = failing
			}
			l.arm(e, 1+l.rng.IntN(most/3))
		}
		l.mu.Lock()
		waits := l.event != nothing
		l.mu.Unlock()
		if i >= calls && !waits {
			return
		}
		// Each step has its own source of randomness, so that a difference in one step does not
		// change all later ones.
		l.rng = rand.New(rand.NewPCG(l.seed, uint64(i)+2))
		l.step()
	}
}

// next does one server run, and keeps the disk that it leaves.
func (h *history) next() error {
	when := []string{
		"call", "call", "call", "call", "call", "call", "opening", "fault", "fault", "stopping", "between", "stopped",
	}[h.rng.IntN(12)]
	l := h.born()
	l.look = when == "call" && h.rng.IntN(4) == 0
	l.log = append(l.log, fmt.Sprintf("life %d, %s:", l.n, when))
	err := alive(l.dead, func() error {
		l.live(when)
		l.arm(nothing, 0)
		l.reader.stop()
		l.reader = nil
		if l.err != nil || l.ended() {
			return l.err
		}
		if when == "stopping" {
			l.arm(crash, 1+l.rng.IntN(12))
		}
		if when == "stopping" || when == "stopped" || when == "fault" && l.rng.IntN(3) == 0 {
			l.m.start("closing", nil)
			if err := l.w.Close(); err != nil && l.hit == nil {
				return fmt.Errorf("closing: %w", err)
			}
			l.arm(nothing, 0)
		}
		return nil
	})
	return h.bury(l, when, err)
}

// bury removes the remains of a server run.
func (h *history) bury(l *serverRun, when string, err error) error {
	p := l.stopAt(between)
	l.mu.Lock()
	h.log = append(h.log, l.log...)
	hit := l.hit
	l.mu.Unlock()
	h.totals.calls += l.m.now() / 2
	h.ran += l.counted
	if hit != nil {
		h.totals.faults++
	}
	died := errors.Is(err, errDied)
	switch {
	case died && hit == nil:
		return fmt.Errorf("%w although nothing failed", err)
	case died && side(hit.Path) == "content":
		return fmt.Errorf("a failure of %s ended the server: %w", hit, err)
	case died:
		h.totals.deaths++
		l.w.abandon()
	case err != nil:
		return err
	}
	if p.what == between && (when == "call" || when == "opening" || when == "stopping") {
		when = "between"
	}
	if !died {
		l.disk.SetHook(nil)
		// On a disk that is not looked at any more. If it is closed already, that is an error. A
		// compaction that met the fault may end the server only now, and then Close waits for it in
		// vain.
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = l.w.Close()
		}()
		select {
		case <-closed:
		case <-l.dead.done:
			if hit == nil {
				return fmt.Errorf("%w although nothing failed: %w", errDied, l.dead.err)
			}
			h.totals.deaths++
		}
	}
	v := killed
	if n := h.rng.IntN(6); when != "stopped" && n > 1 && (when != "fault" || n > 3) {
		v = []variant{0, 10, 50, 90, 100, variant(h.rng.IntN(101))}[h.rng.IntN(6)]
	}
	if when != "stopped" {
		how := "power losses"
		if v == killed {
			how = "kills"
		}
		at := map[string]string{
			"call": " in a call", "opening": " in an opening", "stopping": " in a stop", "between": " between calls",
			"fault": " after a fault",
		}[when]
		h.totals.crashes[how+at]++
		h.log = append(h.log, "  "+v.String())
	}
	disk, failed := v.of(p.image, rand.New(rand.NewPCG(h.rng.Uint64(), 2)))
	if failed != nil {
		return failed
	}
	h.disk, h.model, h.ms = disk, p.model, p.ms+1000
	if v != killed && h.d == durable.Process {
		for _, f := range h.model.files {
			if f.can&open != 0 && !f.harmed {
				f.harmed, f.shaken = true, true
			}
		}
	}
	if n := h.rng.IntN(12); n < 4 {
		by := []time.Duration{100 * time.Hour, -5 * time.Hour, 8760 * time.Hour, 30 * time.Minute}[n]
		h.ms += by.Milliseconds()
		h.log = append(h.log, fmt.Sprintf("the server is off, and the clock is moved by %v", by))
	}
	return nil
}

// withLog adds the log of the history to an error.
func (h *history) withLog(err error) error {
	return fmt.Errorf("%w\n%s", err, strings.Join(h.log, "\n"))
}

func (h *history) run() error {
	for range 3 + h.rng.IntN(8) {
		if err := h.next(); err != nil {
			return h.withLog(err)
		}
		h.totals.images++
	}
	l := h.born()
	l.log = append(l.log, fmt.Sprintf("life %d, the last:", l.n))
	l.failed = nil
	err := alive(l.dead, func() error { return h.end(l) })
	h.log = append(h.log, l.log...)
	h.totals.calls += l.m.now() / 2
	if err != nil {
		if l.w != nil {
			l.w.abandon()
		}
		return h.withLog(err)
	}
	return nil
}

// end brings everything to its end. Then nothing is left that no row names.
func (h *history) end(l *serverRun) error {
	l.opened()
	if l.err != nil {
		return l.err
	}
	if l.setQuota(0); l.m.guest.is != valid {
		l.newGuest()
	}
	l.newToken(false, 0)
	l.apply(l.toRole(subject))
	for _, name := range l.m.names() {
		f := l.m.files[name]
		if f.can&(open|trashed) != 0 && l.rng.IntN(4) == 0 {
			continue // its time will come
		}
		if l.on(f); l.barred(f) {
			continue
		}
		if err := l.goOnWith(f); err != nil {
			return fmt.Errorf("going on with %s: %w", f, err)
		}
	}
	for passed := time.Duration(0); passed <= h.ran+ttl+hour && l.err == nil; passed += hour {
		l.pass(hour)
	}
	if l.err == nil {
		l.err = l.collect()
	}
	l.lookAt()
	if l.err != nil {
		return l.err
	}
	for _, f := range l.m.files {
		if f.can&(open|trashed) != 0 {
			return fmt.Errorf("%s: its time never comes", f)
		}
	}
	if err := l.nothingLeft(); err != nil {
		return err
	}
	left := l.disk.Crash(h.rng, 0)
	m := l.m.clone()
	if err := l.w.Close(); err != nil {
		return err
	}
	h.disk, h.model, h.ms = left, m, l.st.clock.Millis()
	last := h.born()
	last.failed = nil
	last.opened()
	if last.err != nil {
		return fmt.Errorf("after a power loss at the end: %w", last.err)
	}
	h.totals.images += 2
	return last.w.Close()
}

// nothingLeft: no session is open, nothing is due.
func (l *serverRun) nothingLeft() error {
	st, err := l.w.Engine.Stats(ctx)
	if err != nil || st.Open != 0 {
		return fmt.Errorf("%d sessions are open for ever: %w", st.Open, err)
	}
	return l.w.Catalog.View(ctx, func(r catalog.Reader) error {
		for d, err := range catalog.Dues.After(r, catalog.DueKey{}) {
			if err != nil || d.Kind == catalog.DuePurge || d.Kind == catalog.DuePlace {
				return fmt.Errorf("%+v is due for ever: %w", d, err)
			}
		}
		for s, err := range catalog.Checkpoints.After(r, catalog.CheckpointKey{}) {
			return fmt.Errorf("a state of a hash is left: %+v, %w", s, err)
		}
		return nil
	})
}

// Steps in any order, with crashes, power losses, failures, jumping clocks and changing rights
// between and within them. All answers stay true, nothing is half there, the client goes on, and in
// the end nothing is left over.
func TestAnyHistory(t *testing.T) {
	count := *histories
	switch {
	case *historiesFor > 0:
		count = 1 << 40
	case count == 0 && withRace:
		count = 10
	case count == 0:
		count = 400
	}
	starts := map[durable.Durability]start{}
	for name, d := range durabilities {
		s, err := newStart(d)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		starts[d] = s
	}
	began := time.Now()
	p := newPool(t)
	var mu sync.Mutex
	var all totals
	for seed := *history0; seed < *history0+uint64(count) &&
		(*historiesFor == 0 || time.Since(began) < *historiesFor); seed++ {
		d := durable.Process
		if seed%2 == 0 {
			d = durable.Power
		}
		if !p.do(fmt.Sprintf("-run TestAnyHistory -history.seed %d -history.count 1", seed), func() error {
			h := newHistory(seed, d, starts[d])
			err := h.run()
			mu.Lock()
			defer mu.Unlock()
			if count == 1 && err == nil {
				t.Logf("%s", strings.Join(h.log, "\n"))
			}
			all.add(h.totals)
			return err
		}) {
			break
		}
	}
	p.wg.Wait()
	t.Logf("%s", all)
}
