package crashtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/memories"
	"sluice/session"
	"sluice/upload"
)

// age holds the times from which a file's end by time follows: running times, and since when they
// count.
type age struct {
	shaken bool          // harmed by a power loss alone: the loss is known after the next look
	idle   time.Duration // since it was surely touched, or trashed, at most
	rest   time.Duration // since it may have been touched, at least
}

// whole reports whether everything is acknowledged, and no replacement is under way.
func (f *file) whole() bool {
	return len(f.old) == 0 && len(session.Gaps(f.must, session.Range{End: int64(len(f.content))}, 1)) == 0
}

// forgotten reports whether the server may have forgotten the outcome of the upload.
func (f *file) forgotten() bool { return f.can == purged && f.idle > 40*hour }

// errWrong: an answer that no failure excuses.
var errWrong = errors.New("the answer is wrong")

// sizes of contents: none, inline, and about the borders of chunks.
var sizes = []int{
	0, 1, 150, inlineMax, inlineMax + 1, 3000, chunk - 1, chunk, chunk + 1, chunk + 900, 2 * chunk, 2*chunk + 1234,
	3 * chunk,
}

// content draws one of few contents, so that equal ones meet.
func (l *serverRun) content() []byte {
	return bytesOf("content", l.rng.Uint64N(2), sizes[l.rng.IntN(len(sizes))])
}

func (l *serverRun) name() string {
	l.named++
	return fmt.Sprintf("f%d.%d", l.n, l.named)
}

func (l *serverRun) add(f *file) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.files[f.name] = f
}

// pick draws one of the files for which like is true, or nil.
func (l *serverRun) pick(like func(*file) bool) *file {
	var out []*file
	for _, name := range l.m.names() {
		if f := l.m.files[name]; like(f) {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out[l.rng.IntN(len(out))]
}

// on notes the files that the next call is about.
func (l *serverRun) on(fs ...*file) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.loose, l.about = false, fs
	for _, f := range fs {
		l.loose = l.loose || f.harmed
		if f.can != trashed { // its stay in the trash goes on
			f.rest = 0
		}
	}
}

// touched notes that a call has surely counted as activity, or has begun a new stay in the trash.
func (l *serverRun) touched(f *file, surely bool) {
	if surely {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		f.idle = 0
	}
}

// callRefused runs a call that must fail with one of these errors.
func (l *serverRun) callRefused(name, doing string, wants []error, do func() error) {
	l.call(name, doing, nil, func() error {
		err := do()
		switch {
		case slices.ContainsFunc(wants, func(want error) bool { return errors.Is(err, want) }):
			return nil
		case err == nil:
			return fmt.Errorf("%w: it was not refused", errWrong)
		}
		return err
	}, func() {}, nil)
}

func (l *serverRun) tryBegin(f *file, as access.Caller) error {
	_, err := l.w.Uploads.Begin(ctx, as, l.beginning(f))
	return err
}

func (l *serverRun) beginning(f *file) upload.BeginRequest {
	size := int64(len(f.content))
	if f.unknown {
		size = session.Unknown
	}
	return upload.BeginRequest{
		Capsule: "default", Meta: catalog.Meta{Name: f.name}, Bytes: size, Chunks: -1, ChunkSize: chunk, Idem: f.idem,
	}
}

func (l *serverRun) tryCreate(f *file, as access.Caller) error {
	_, err := l.w.Uploads.Create(ctx, as, upload.CreateRequest{
		Capsule: "default", Meta: catalog.Meta{Name: f.name}, Idem: f.idem,
		Put: upload.Put{Length: int64(len(f.content))},
	}, bytes.NewReader(f.content))
	return err
}

func (l *serverRun) tryFinish(f *file, as access.Caller) error {
	_, err := l.w.Uploads.Finish(ctx, as, upload.FinishRequest{
		ID: f.id, SHA256: sha256.Sum256(f.content), Length: int64(len(f.content)),
	})
	return err
}

func (l *serverRun) newFile() *file {
	f := &file{name: l.name(), content: l.content(), can: nowhere}
	switch n := l.rng.IntN(6); {
	case n < 2:
		f.by = l.m.guest.name
	case n == 2:
		f.by = l.ticketed()
	}
	if l.rng.IntN(2) == 0 {
		f.idem = "key " + f.name
	}
	return f
}

// steps are the steps that a history draws, each with its weight.
var steps = []struct {
	weight int
	run    func(l *serverRun)
}{
	{10, (*serverRun).doBegin},
	{8, (*serverRun).doCreate},
	{14, (*serverRun).doChunk},
	{8, (*serverRun).doPut},
	{8, (*serverRun).doFill},
	{5, (*serverRun).doReplace},
	{12, (*serverRun).doFinish},
	{4, (*serverRun).doBatch},
	{4, (*serverRun).doFinishWrongly},
	{6, (*serverRun).doRepeat},
	{2, (*serverRun).doAbort},
	{4, (*serverRun).doTrash},
	{3, (*serverRun).doRestore},
	{3, (*serverRun).doPurge},
	{6, (*serverRun).doTick},
	{1, (*serverRun).doWait},
	{2, (*serverRun).doJump},
	{2, func(l *serverRun) { l.on(); l.sweep() }},
	{2, (*serverRun).doReadSlowly},
	{6, (*serverRun).rights},
	{8, (*serverRun).doGrants},
	{2, (*serverRun).doQuota},
	{3, (*serverRun).midway},
	{2, func(l *serverRun) {
		if f := l.pick(func(f *file) bool { return true }); f != nil {
			l.meddle(f)
		}
	}},
}

// step draws a step and does it.
func (l *serverRun) step() {
	if l.m.quota[0] != 0 || len(l.m.quota) > 1 {
		l.bounded()
		return
	}
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := l.rng.IntN(total)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			s.run(l)
			return
		}
	}
}

// pickOwned picks an upload for a call of its owner. If the owner may not make the call, it tries
// that instead.
func (l *serverRun) pickOwned(like func(*file) bool) *file {
	f := l.pick(like)
	if f != nil && l.barred(f) {
		l.refused(f)
		return nil
	}
	if f != nil {
		l.on(f)
	}
	return f
}

func isOpen(f *file) bool { return f.can == open && f.id != 0 }

func (l *serverRun) doBegin() {
	if l.pick(isOpen) != nil && l.rng.IntN(4) == 0 {
		l.beginTwice()
		return
	}
	if f := l.pickOwned(func(f *file) bool { return f.can == nowhere && !f.created }); f != nil {
		if l.fits(f) {
			l.beginAgain(f) // a call that was not answered
		}
		return
	}
	f := l.newFile()
	f.unknown = l.rng.IntN(4) == 0
	l.add(f)
	if l.barred(f) {
		l.refused(f)
		return
	}
	l.on()
	switch full, known := l.full(f); {
	case !known:
		return
	case full:
		l.callRefused(f.name, "begin beyond the ticket", []error{catalog.ErrUsedUp}, func() error {
			return l.tryBegin(f, l.as(f))
		})
		return
	}
	l.beginAgain(f)
}

// beginTwice asks for the upload that was begun under its key.
func (l *serverRun) beginTwice() {
	f := l.pickOwned(func(f *file) bool { return f.idem != "" && !f.created && f.id != 0 && !f.forgotten() })
	if f == nil {
		return
	}
	id, memory := f.id, f.memory
	switch f.can {
	case open:
		if l.beginAgain(f) {
			l.touched(f, true)
		}
		if f.id != id && l.err == nil {
			l.err = fmt.Errorf("%s: begun again it is another session than %d", f, id)
		}
	case aborted, expired:
		if !l.fits(f) {
			return
		}
		l.m.mu.Lock()
		f.id, f.can, f.must, f.may, f.old, f.idle = 0, nowhere, nil, nil, nil, 0
		l.m.mu.Unlock()
		if l.beginAgain(f) && f.id == id && l.err == nil {
			l.err = fmt.Errorf("%s: begun again it is the session that had ended", f)
		}
	default:
		l.call(f.name, "begin again", nil, func() error {
			up, err := l.w.Uploads.Begin(ctx, l.as(f), l.beginning(f))
			if err == nil && (up.ID != id || up.Memory != memory || up.Deleted != (f.can != visible)) {
				err = fmt.Errorf(
					"%w: it is session %d with memory %s, deleted %v", errWrong, up.ID, up.Memory, up.Deleted,
				)
			}
			return err
		}, func() {}, nil)
	}
}

func (l *serverRun) doCreate() {
	f := l.newFile()
	f.created = true
	if l.m.grants[f.by] != nil {
		f.by = ""
	}
	l.add(f)
	if l.barred(f) {
		l.refused(f)
		return
	}
	l.on(f)
	l.createAgain(f)
}

func (l *serverRun) doChunk() {
	f := l.pickOwned(func(f *file) bool { return isOpen(f) && len(f.content) > 0 })
	if f == nil {
		return
	}
	if len(f.old) > 0 {
		l.touched(f, l.replaceAgain(f))
		return
	}
	had := f.must
	i := l.rng.Int64N((int64(len(f.content))-1)/chunk + 1)
	l.touched(f, l.chunk(f.name, i) && !slices.Equal(had, f.must))
}

func (l *serverRun) doPut() {
	f := l.pickOwned(func(f *file) bool { return isOpen(f) && len(f.content) > 0 && len(f.old) == 0 })
	if f == nil {
		return
	}
	had := f.must
	off := l.rng.Int64N(int64(len(f.content)))
	n, cut := 1+l.rng.Int64N(int64(len(f.content))-off), int64(-1)
	if l.rng.IntN(3) == 0 {
		cut = l.rng.Int64N(n)
	}
	l.touched(f, l.put(f.name, off, n, cut) && !slices.Equal(had, f.must))
}

// doFill puts the missing bytes.
func (l *serverRun) doFill() {
	f := l.pickOwned(func(f *file) bool { return isOpen(f) && len(f.old) == 0 && !f.whole() })
	if f == nil {
		return
	}
	for _, gap := range session.Gaps(f.must, session.Range{End: int64(len(f.content))}, 0) {
		if !l.put(f.name, gap.Off, gap.Len(), -1) {
			return
		}
		l.touched(f, true)
	}
}

func (l *serverRun) doReplace() {
	f := l.pickOwned(func(f *file) bool { return isOpen(f) && len(f.content) > 0 && len(f.old) == 0 })
	if f == nil {
		return
	}
	size := int64(len(f.content))
	off := l.rng.Int64N(max(size-minPiece, 1))
	least := min(minPiece, size-off)
	n := least + l.rng.Int64N(size-off-least+1)
	if l.rng.IntN(2) == 0 {
		off -= off % chunk
		n = min(chunk, size-off) // a whole chunk
	}
	l.named++
	l.touched(f, l.replace(f.name, off, bytesOf(f.name, uint64(l.named), int(n))))
}

func (l *serverRun) doFinish() {
	if f := l.pickOwned(func(f *file) bool { return isOpen(f) && f.whole() }); f != nil {
		l.finish(f.name)
	}
}

func (l *serverRun) doBatch() {
	one := l.pick(func(f *file) bool { return isOpen(f) && f.whole() })
	if one == nil {
		return
	}
	var fs []*file
	var names []string
	for _, name := range l.m.names() {
		if f := l.m.files[name]; isOpen(f) && f.whole() && f.by == one.by && !l.barred(f) {
			fs, names = append(fs, f), append(names, name)
		}
	}
	if len(fs) > 1 {
		l.on(fs...)
		l.finish(names...)
	}
}

// doFinishWrongly finishes an incomplete upload, or with another digest or length. That is refused,
// and nothing is lost.
func (l *serverRun) doFinishWrongly() {
	f := l.pickOwned(func(f *file) bool { return isOpen(f) && len(f.old) == 0 })
	if f == nil {
		return
	}
	req := upload.FinishRequest{ID: f.id, SHA256: sha256.Sum256(f.content), Length: int64(len(f.content))}
	doing, wants := "finish without all bytes", []error{session.ErrIncomplete}
	if f.whole() {
		wants = append(wants[:0], upload.ErrChecksum)
		doing = "finish with another digest"
		req.SHA256[0]++
		if f.harmed {
			wants = append(wants, session.ErrIncomplete)
		}
	} else if l.rng.IntN(2) == 0 && !f.unknown {
		req.Length++
		doing, wants = "finish with another length", []error{upload.ErrLengthMismatch}
	}
	l.callRefused(f.name, doing, wants, func() error { _, err := l.w.Uploads.Finish(ctx, l.as(f), req); return err })
}

// doRepeat repeats the end of an upload: it has no second effect.
func (l *serverRun) doRepeat() {
	if l.rng.IntN(3) == 0 {
		l.beginTwice()
		return
	}
	f := l.pickOwned(
		func(f *file) bool { return f.can&(open|nowhere) == 0 && (f.id != 0 || f.idem != "") && !f.forgotten() },
	)
	if f == nil {
		return
	}
	ends := map[fate]error{
		visible: session.ErrFinished, trashed: session.ErrFinished, purged: session.ErrFinished,
		aborted: session.ErrAborted, expired: session.ErrExpired,
	}
	end := ends[f.can]
	switch n := l.rng.IntN(4); {
	case f.created && f.can == visible || n == 0 && f.can == visible:
		was := f.memory
		if f.created {
			l.createAgain(f)
		} else {
			l.finish(f.name)
		}
		if f.memory != was && l.err == nil {
			l.err = fmt.Errorf("%s: it was %s, and repeated it is %s", f, was, f.memory)
		}
	case f.created:
		l.callRefused(
			f.name, "create again", []error{upload.ErrAlreadyFinished}, func() error { return l.tryCreate(f, l.as(f)) },
		)
	case n == 0 && f.can&(trashed|purged) != 0:
		l.callRefused(
			f.name, "finish again", []error{upload.ErrAlreadyFinished}, func() error { return l.tryFinish(f, l.as(f)) },
		)
	case n == 0:
		l.callRefused(f.name, "finish again", []error{end}, func() error { return l.tryFinish(f, l.as(f)) })
	case n == 1 && f.can == aborted:
		l.call(
			f.name, "abort again", nil, func() error { return l.w.Uploads.Abort(ctx, l.as(f), f.id) }, func() {}, nil,
		)
	case n == 1:
		l.callRefused(f.name, "abort", []error{end}, func() error { return l.w.Uploads.Abort(ctx, l.as(f), f.id) })
	case len(f.content) > 0:
		b := f.content[:min(chunk, len(f.content))]
		l.callRefused(f.name, "put again", []error{end}, func() error {
			return l.w.Uploads.PutChunk(
				ctx, l.as(f), f.id, 0, bytes.NewReader(b), upload.Put{Length: int64(len(b)), Replace: n == 3},
			)
		})
	}
}

func (l *serverRun) doAbort() {
	if f := l.pickOwned(isOpen); f != nil {
		l.abort(f.name)
	}
}

func (l *serverRun) doTrash() {
	if f := l.pick(func(f *file) bool { return f.can == visible }); f != nil {
		l.on(f)
		l.touched(f, true)
		l.trash(f.name)
	}
}

func (l *serverRun) doRestore() {
	f := l.pick(func(f *file) bool { return f.can&(trashed|purged) != 0 })
	if f == nil {
		return
	}
	l.on(f)
	if f.can == trashed {
		l.restore(f.name)
		return
	}
	l.callRefused(f.name, "restore what is purged", []error{catalog.ErrNotFound}, func() error {
		_, err := l.w.Memories.Restore(ctx, l.w.Me, f.memory)
		return err
	})
}

func (l *serverRun) doPurge() {
	f := l.pick(func(f *file) bool { return f.can&(visible|trashed|purged) != 0 })
	if f == nil {
		return
	}
	l.on(f)
	if f.can != purged {
		l.touched(f, true)
		l.purge(f.name, f.can)
		return
	}
	l.callRefused(
		f.name, "purge again", []error{catalog.ErrNotFound},
		func() error { return l.w.Memories.Delete(ctx, l.w.Me, f.memory, true) },
	)
}

// doTick lets some time pass, on the whole less than an hour, and lets the keeper work.
func (l *serverRun) doTick() { l.pass(time.Duration(1+l.rng.IntN(4)) * hour / 4) }

// doWait lets so much time pass that idle uploads end.
func (l *serverRun) doWait() {
	for range 5 + l.rng.IntN(8) {
		if l.err != nil || l.ended() {
			return
		}
		l.pass(hour)
	}
}

// doJump lets the clock jump. The next tick counts one hour at most.
func (l *serverRun) doJump() {
	by := []time.Duration{-7 * hour, -90 * time.Minute, 40 * hour, 8760 * hour}[l.rng.IntN(4)]
	l.w.clock.Advance(by)
	l.logCall(fmt.Sprintf("the clock jumps by %v", by), true, nil)
	if l.rng.IntN(2) == 0 {
		l.pass(time.Minute)
	}
}

// pass advances the clock and ticks. Nothing ends before its time has been counted, whatever the
// clock says.
func (l *serverRun) pass(by time.Duration) {
	l.on()
	l.w.clock.Advance(by)
	now := l.w.clock.Now()
	counted := min(max(now.Sub(l.ticked), 0), hour)
	l.ticked = now
	l.counted += counted
	unsure := false
	end := func(sure bool) {
		if !sure {
			l.m.unkept += counted
		} else if l.m.unkept >= hour {
			l.m.unkept = 0
		}
		for _, f := range l.m.files {
			if !sure {
				f.idle += counted
				f.rest += counted
				if f.can&open != 0 && f.idle+ttl/64 >= ttl {
					f.can |= expired
				}
				if f.can&trashed != 0 && f.idle >= trashFor {
					f.can |= purged
				}
				continue
			}
			switch {
			case f.rest > ttl && f.can == open|expired:
				f.can = expired
			case f.rest >= trashFor && f.can == trashed|purged:
				f.can = purged
			}
			unsure = unsure || f.can&(f.can-1) != 0
		}
	}
	var rights func(int64)
	var ended func()
	ok := l.call("", fmt.Sprintf("tick after %v", by), func() {
		end(false)
		rights = l.m.tick(l.w.Engine.Running(), hour)
		ended = l.m.ending()
	}, func() error {
		_, err := l.w.Keeper.Tick(ctx)
		return err
	}, func() {
		ended()
		end(true)
		rights(l.w.Engine.Running())
	}, nil)
	if (unsure || !ok) && l.err == nil {
		l.resolve()
	}
}

// resolve finds out what a tick has ended, without touching it.
func (l *serverRun) resolve() {
	for _, name := range l.m.names() {
		f := l.m.files[name]
		is := fate(0)
		var err error
		switch {
		case f.can&(f.can-1) == 0: // it is known
		case f.can&^(open|expired|aborted) == 0 && f.id != 0:
			var s session.Session
			if s, err = l.w.Engine.Status(ctx, f.id); err == nil {
				is = map[session.State]fate{
					session.Open: open, session.Expired: expired, session.Aborted: aborted,
				}[s.State]
				if f.can&is == 0 {
					err = fmt.Errorf("its session is %s", s.State)
				}
			}
		case f.can == trashed|purged:
			err = l.w.Catalog.View(ctx, func(r catalog.Reader) error {
				_, ok, err := catalog.Memories.Find(r, catalog.MemoryKey(f.memory))
				is = map[bool]fate{true: trashed, false: purged}[ok]
				return err
			})
		}
		l.m.mu.Lock()
		if is != 0 {
			f.can = is
		}
		l.m.mu.Unlock()
		if err != nil && l.err == nil {
			l.err = fmt.Errorf("%s: %w", f, err)
		}
	}
}

// doReadSlowly looks a memory up, lets its content lose its last name, or be stored again, and then
// reads it. A place is kept for a while.
func (l *serverRun) doReadSlowly() {
	f := l.pick(func(f *file) bool { return f.can == visible })
	if f == nil || l.ended() {
		return
	}
	l.pass(time.Second) // a jump of the clock is counted before
	l.on(f)
	was := *f
	var reading *memories.File
	if !l.call(f.name, "open", nil, func() (err error) {
		reading, err = l.w.Memories.Open(ctx, l.w.Me, was.memory)
		return err
	}, func() {}, nil) {
		return
	}
	if l.rng.IntN(3) > 0 {
		l.purge(f.name, visible)
	} else {
		twin := &file{name: l.name(), content: f.content, created: true, can: nowhere}
		l.add(twin)
		l.on(twin)
		l.createAgain(twin)
	}
	l.pass(20 * time.Second)
	l.on()
	l.sweep()
	if l.err != nil {
		return
	}
	l.call("", "go on reading "+was.name, nil, func() error {
		body, err := reading.Body(ctx, 0, int64(len(was.content)))
		if err != nil {
			return err
		}
		defer body.Close()
		b, err := io.ReadAll(body)
		if err == nil && !bytes.Equal(b, was.content) {
			err = errWrong
		}
		return err
	}, func() {}, nil)
}
