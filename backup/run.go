package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
	"sluice/upload"
)

const (
	// copiers is how many contents are copied at a time.
	copiers = 4
	// batch is how many entries of uploads under way are copied, and synced, together.
	batch = 256
)

// Run makes a backup of src in the folder dir, which it makes if it is not there. Until it has
// returned nil, the previous backup is whole and is what a restore finds, whatever happens. The
// next Run finds the bytes that were copied by then. Content that src itself does not have whole is
// no error, but reported in the Result.
func Run(
	ctx context.Context, on durable.FS, dir string, src Source, now time.Time, progress Progress,
) (res Result, err error) {
	defer func() {
		if err = classify(err); err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	if src.Log == nil {
		src.Log = slog.New(slog.DiscardHandler)
	}
	lock, err := prepare(on, dir, src.ID)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	r := &run{
		on: on, dir: dir, src: src, progress: progress, knownDamage: map[string]bool{},
		folders: map[string]bool{},
	}
	if err := r.begin(); err != nil {
		return res, err
	}
	defer r.previous.close()
	release := src.Hold()
	defer release()
	if err := r.copy(ctx, now); err != nil {
		return res, err
	}
	if err := r.publish(); err != nil {
		return res, err
	}
	r.tidy(ctx)
	return Result{r.next.Summary, r.next.Number, r.copied, r.next.Damaged, r.next.Missing}, nil
}

// run is one run of Run.
type run struct {
	on          durable.FS
	dir         string
	src         Source
	progress    Progress
	previous    previousRows
	hasManifest bool            // a previous backup is there that is complete, or damaged
	knownDamage map[string]bool // damage that the previous backup has noted
	next        manifest
	placeHashes []uint64 // hashes of the names of all places

	mu      sync.Mutex
	folders map[string]bool // folders of places that are to be synced
	copied  int64
	done    int64
}

// begin reads the previous backup. A damaged one counts as none: then everything is copied, or
// found to be there.
func (r *run) begin() error {
	if err := durable.MkdirAll(r.on, filepath.Join(r.dir, contentDir), 0o700); err != nil {
		return err
	}
	old, err := readManifest(r.on, r.dir)
	if err == nil {
		for _, d := range old.Damaged {
			r.knownDamage[d.key()] = true
		}
		r.previous.r, err = openRows(r.on, filepath.Join(r.dir, old.Rows.Name), old.Rows)
	}
	if _, err := r.on.Stat(filepath.Join(r.dir, manifestName)); err == nil {
		r.hasManifest = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case errors.Is(err, ErrDamaged):
		r.src.Log.Warn("the backup that is there can't be restored; everything is compared or copied anew", "err", err)
	case err != nil && !errors.Is(err, ErrNone):
		return err
	}
	// The number must be unused, also by a backup whose manifest is unreadable.
	names, err := r.on.List(r.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if n, is := rowsNumber(name); is {
			r.next.Number = max(r.next.Number, n)
		}
	}
	r.next.Number = max(r.next.Number, old.Number) + 1
	return nil
}

// copyJob is one step of a copier: one content, or some extents of an upload under way.
type copyJob struct {
	content *catalog.Content
	extents []catalog.Extent
	known   bool // the previous backup has all of it
}

// copy writes the rows, and copies what they name.
func (r *run) copy(ctx context.Context, now time.Time) (err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	state, err := r.src.Freeze(ctx)
	if err != nil {
		return err
	}
	defer state.Close()
	r.next.Of, r.next.RowsFormat, r.next.Summary.Made = r.src.ID, r.src.Rows, now.UTC().Truncate(time.Millisecond)
	name := rowsName(r.next.Number)
	rows, err := createRows(r.on, filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	jobs := make(chan copyJob)
	var wg sync.WaitGroup
	for range copiers {
		wg.Go(func() {
			o := newOpenPlaces(r.on, r.dir, true)
			for j := range jobs {
				if ctx.Err() == nil {
					if err := r.runJob(ctx, o, j); err != nil {
						stop(err)
					}
				}
			}
		})
	}
	w := walker{r: r, ctx: ctx, rows: rows, jobs: jobs}
	err = state.Walk(ctx, w.visit, r.missing)
	if err == nil {
		err = w.flush()
	}
	close(jobs)
	wg.Wait()
	r.next.Rows, err = closeRows(rows, name, err)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && r.previous.err != nil {
		r.src.Log.Warn("the rows of the backup that was there are damaged; what they had was compared or copied anew",
			"err", r.previous.err)
	}
	slices.SortFunc(r.next.Damaged, func(a, b Damage) int { return strings.Compare(a.key(), b.key()) })
	return err
}

func closeRows(rows *rowsWriter, name string, failed error) (file, error) {
	f, err := rows.close(name)
	return f, errors.Join(failed, err)
}

// walker turns rows into jobs.
type walker struct {
	r       *run
	ctx     context.Context
	rows    *rowsWriter
	jobs    chan<- copyJob
	pending copyJob
}

func (w *walker) visit(key, row []byte) error {
	r, sum := w.r, &w.r.next.Summary
	what, err := r.src.Decode(key, row)
	if err != nil {
		return r.missing(key, append(bytes.Clone(key), 0), fmt.Errorf("the metadata is damaged: %w", err))
	}
	if err := w.rows.add(key, row); err != nil {
		return err
	}
	sum.Rows++
	old, had := r.previous.at(key)
	switch v := what.(type) {
	case catalog.Memory:
		sum.Memories++
	case session.Session:
		if !v.State.Ended() {
			sum.Sessions++
		}
	case catalog.Content:
		sum.Contents++
		sum.Bytes += v.Bytes
		for _, e := range v.Extents {
			r.notePlace(e.Place)
		}
		j := copyJob{content: &v}
		if had && !r.knownDamage[damageOf(v, nil).key()] {
			was, err := r.src.Decode(key, old)
			c, ok := was.(catalog.Content)
			j.known = err == nil && ok && reflect.DeepEqual(c.Extents, v.Extents)
		}
		return w.send(j)
	case session.Entry:
		return w.entry(v, had && slices.Equal(old, row))
	}
	return nil
}

// mostMissing bounds the missing ranges in a manifest.
const mostMissing = 100_000

// missing notes that rows can't be read. Such a backup replaces no whole one.
func (r *run) missing(from, to []byte, why error) error {
	switch {
	case !r.src.Salvage:
		return fmt.Errorf("%w. Nothing was backed up; sluice backup --salvage backs up all the rest, into another "+
			"folder, and sluice check --repair brings it out", why)
	case r.hasManifest:
		return fmt.Errorf("%w: give another folder for what is left of the data folder (%w)", ErrKept, why)
	case len(r.next.Missing) == mostMissing:
		return fmt.Errorf("too much is missing: %w", why)
	}
	r.src.Log.Warn("not in the backup, since the data folder does not have it any more", "what", why.Error())
	r.next.Missing = append(r.next.Missing, Missing{hex.EncodeToString(from), hex.EncodeToString(to), why.Error()})
	return nil
}

// entry takes an entry of an upload under way. Entries come by session, and are copied in batches.
func (w *walker) entry(v session.Entry, known bool) error {
	w.r.next.Summary.Pieces++
	w.r.next.Summary.Bytes += v.Len()
	p, err := upload.InspectPiece(v)
	if err != nil {
		w.r.damaged(Damage{Off: v.Off, Len: v.Len(), Reason: err.Error()})
		return nil
	}
	e := p.Extent
	w.r.notePlace(e.Place)
	known = known && !w.r.knownDamage[damageOfExtent(e, nil).key()]
	if n := len(w.pending.extents); n > 0 &&
		(n == batch || w.pending.known != known || w.pending.extents[n-1].Place != e.Place) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.pending.known = known
	w.pending.extents = append(w.pending.extents, e)
	return nil
}

func (w *walker) flush() error {
	j := w.pending
	w.pending = copyJob{}
	if len(j.extents) == 0 {
		return nil
	}
	return w.send(j)
}

func (w *walker) send(j copyJob) error {
	select {
	case w.jobs <- j:
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// notePlace notes that the backup needs a place.
func (r *run) notePlace(place string) {
	h := hashOf(place)
	if n := len(r.placeHashes); n == 0 || r.placeHashes[n-1] != h {
		r.placeHashes = append(r.placeHashes, h)
	}
}

func hashOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

func (r *run) damaged(d Damage) {
	r.src.Log.Warn("not in the backup, since the data folder does not have it whole", "what", d.String())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next.Damaged = append(r.next.Damaged, d)
}

// advance counts bytes that are done.
func (r *run) advance(done, copied int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += done
	r.copied += copied
	if r.progress != nil {
		r.progress(r.done, -1)
	}
}

// publish makes the new backup the current one.
func (r *run) publish() error {
	content := filepath.Join(r.dir, contentDir)
	for name := range r.folders {
		if err := durable.SyncDir(r.on, filepath.Join(content, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	b, err := r.next.encode()
	if err == nil {
		err = errors.Join(durable.SyncDir(r.on, content), durable.SyncDir(r.on, r.dir))
	}
	if err != nil {
		return err
	}
	return durable.WriteFile(r.on, filepath.Join(r.dir, r.next.name()), b, 0o600)
}

// tidy removes files that no backup names any more. The next run removes what it fails to remove.
func (r *run) tidy(ctx context.Context) {
	slices.Sort(r.placeHashes)
	names, err := r.on.List(r.dir)
	for _, name := range names {
		if _, is := rowsNumber(name); is && name != r.next.Rows.Name ||
			strings.HasPrefix(name, "."+manifestName+".") || strings.HasPrefix(name, "."+incompleteName+".") ||
			name == incompleteName && r.next.name() == manifestName {
			err = errors.Join(err, r.on.Remove(filepath.Join(r.dir, name)))
		}
	}
	content := filepath.Join(r.dir, contentDir)
	folders, listed := r.on.List(content)
	err = errors.Join(err, listed)
	for _, folder := range folders {
		places, listed := r.on.List(filepath.Join(content, folder))
		err = errors.Join(err, listed)
		for _, place := range places {
			if _, needed := slices.BinarySearch(r.placeHashes, hashOf(place)); !needed && ctx.Err() == nil {
				err = errors.Join(err, r.on.Remove(filepath.Join(content, folder, place)))
			}
		}
	}
	if err != nil {
		r.src.Log.Warn("the backup is made, but not everything of the former one could be removed", "err", err)
	}
}
