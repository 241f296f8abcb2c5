package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
	"sluice/upload"
)

// Target is where a backup is restored to. Without functions the backup is verified and goes
// nowhere.
type Target struct {
	Decode Decode
	// Rows is the newest version of the rows that Decode knows.
	Rows int
	// Row takes the rows, in the order of their keys, from one goroutine.
	Row func(key, row []byte) error
	// Place opens a place, and makes it if it is not there. The place is synced and closed after it
	// was written to.
	Place func(name string) (durable.File, error)
	// Salvage goes on without content that is not whole, and restores what was left of a data
	// folder. Otherwise damage is an error, which names it.
	Salvage bool
}

// Backup is a backup that is being read.
type Backup struct {
	on   durable.FS
	dir  string
	lock durable.File // nil: the disk can't be written to
	m    manifest
}

// Open opens the backup in a folder. ErrNone, ErrNotBackup, ErrDamaged, ErrBusy.
func Open(on durable.FS, dir string) (*Backup, error) {
	id, err := readMarker(on, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no file %s in %s", ErrNotBackup, marker, dir)
	}
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(on, dir)
	if err != nil && !errors.Is(err, syscall.EROFS) && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	b := &Backup{on: on, dir: dir, lock: lock}
	if b.m, err = readManifest(on, dir); err == nil && b.m.Of != id {
		err = fmt.Errorf("%w: %s: the manifest is that of another data folder", ErrDamaged, dir)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close lets others use the folder.
func (b *Backup) Close() error {
	if b.lock == nil {
		return nil
	}
	return b.lock.Close()
}

// ID is the id of the data folder.
func (b *Backup) ID() string { return b.m.Of }

// Summary says what is in the backup.
func (b *Backup) Summary() Summary { return b.m.Summary }

// Missing are rows that the data folder had lost when it was backed up. The rows that are there may
// contradict each other then.
func (b *Backup) Missing() []Missing { return b.m.Missing }

// maxNamed is how many damages are named before a restore gives up.
const maxNamed = 20

// Restore verifies everything, and copies it to the target. If it gives no error, everything is on
// the target's disk, except folders' entries and what Row was given. Content that the data folder
// itself had lost before the backup is no error.
func (b *Backup) Restore(ctx context.Context, to Target, progress Progress) (res Result, err error) {
	if b.m.RowsFormat > to.Rows {
		return res, fmt.Errorf("the rows of the backup in %s have format %d, and this program knows formats up to "+
			"%d: use a newer sluice", b.dir, b.m.RowsFormat, to.Rows)
	}
	if len(b.m.Missing) > 0 && !to.Salvage {
		return res, fmt.Errorf("%w: it is what was left of its data folder, which had lost rows of its metadata; "+
			"sluice restore --salvage restores it, and says what is missing", ErrIncomplete)
	}
	outer := ctx
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r := &restore{b: b, to: to, progress: progress, knownDamage: map[string]bool{}}
	for _, d := range b.m.Damaged {
		r.knownDamage[d.key()] = true
	}
	jobs := make(chan copyJob)
	var wg sync.WaitGroup
	for range copiers {
		wg.Go(func() {
			o := newOpenPlaces(b.on, b.dir, false)
			for j := range jobs {
				if ctx.Err() == nil {
					if err := r.runJob(ctx, o, j); err != nil {
						stop(err)
					}
				}
			}
		})
	}
	err = r.walk(ctx, jobs)
	close(jobs)
	wg.Wait()
	switch {
	case outer.Err() != nil:
		return res, outer.Err()
	case ctx.Err() != nil:
		return res, classify(context.Cause(ctx))
	case err != nil:
		return res, classify(err)
	}
	slices.SortFunc(r.damaged, func(a, b Damage) int { return strings.Compare(a.key(), b.key()) })
	if err := r.damageError(); err != nil && !to.Salvage {
		return res, err
	}
	if r.sum != b.m.Summary {
		return res, fmt.Errorf("%w: its manifest counts %+v, and its rows %+v", ErrDamaged, b.m.Summary, r.sum)
	}
	return Result{r.sum, b.m.Number, r.copied, r.damaged, b.m.Missing}, nil
}

// restore is one run of Restore.
type restore struct {
	b           *Backup
	to          Target
	progress    Progress
	knownDamage map[string]bool // damage that the data folder had before the backup
	sum         Summary

	mu        sync.Mutex
	ownDamage int // how many damages the backup itself has
	damaged   []Damage
	done      int64
	copied    int64
}

// walk reads the rows, hands them on, and makes jobs of what they name.
func (r *restore) walk(ctx context.Context, jobs chan<- copyJob) error {
	b := r.b
	rows, err := openRows(b.on, filepath.Join(b.dir, b.m.Rows.Name), b.m.Rows)
	if err != nil {
		return err
	}
	defer rows.close()
	r.sum.Made = b.m.Summary.Made
	var extents copyJob
	send := func(j copyJob) error {
		if j.content == nil && len(j.extents) == 0 {
			return nil
		}
		select {
		case jobs <- j:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for {
		key, row, err := rows.next()
		if err == io.EOF {
			return send(extents)
		}
		if err != nil {
			return err
		}
		if r.to.Row != nil {
			if err := r.to.Row(key, row); err != nil {
				return err
			}
		}
		r.sum.Rows++
		what, err := r.to.Decode(key, row)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, rows.path, err)
		}
		switch v := what.(type) {
		case catalog.Memory:
			r.sum.Memories++
		case session.Session:
			if !v.State.Ended() {
				r.sum.Sessions++
			}
		case catalog.Content:
			r.sum.Contents++
			r.sum.Bytes += v.Bytes
			err = send(copyJob{content: &v})
		case session.Entry:
			r.sum.Pieces++
			r.sum.Bytes += v.Len()
			p, unreadable := upload.InspectPiece(v)
			if unreadable != nil {
				break // it will be asked for again
			}
			e := p.Extent
			if n := len(extents.extents); n == batch || n > 0 && extents.extents[n-1].Place != e.Place {
				err = send(extents)
				extents = copyJob{}
			}
			extents.extents = append(extents.extents, e)
		}
		if err != nil {
			return err
		}
	}
}

// runJob does one job. Only a failure of the target, or too much damage, is an error.
func (r *restore) runJob(ctx context.Context, o *openPlaces, j copyJob) (err error) {
	into := places{open: r.to.Place, files: map[string]durable.File{}}
	defer func() { err = errors.Join(into.close(err), o.close()) }()
	if j.content != nil {
		return r.content(ctx, o, &into, *j.content)
	}
	for _, e := range j.extents {
		bad, err := r.extent(ctx, o, &into, e, nil)
		if err == nil && bad != nil {
			err = r.noteDamage(damageOfExtent(e, &sourceError{e, bad}))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) content(ctx context.Context, o *openPlaces, into *places, v catalog.Content) error {
	sum := sha256.New()
	sum.Write(v.Inline)
	for _, e := range v.Extents {
		bad, err := r.extent(ctx, o, into, e, sum)
		if err == nil && bad != nil {
			return r.noteDamage(damageOf(v, &sourceError{e, bad}))
		}
		if err != nil {
			return err
		}
	}
	if sameSum(sum, v) {
		return nil
	}
	return r.noteDamage(damageOf(v, &sourceError{err: fmt.Errorf("its SHA-256 is %x", sum.Sum(nil))}))
}

// places are the places of the target that one job has open.
type places struct {
	open  func(name string) (durable.File, error) // nil: there is no target
	files map[string]durable.File
}

// get gives a place, or nil if there is no target.
func (p *places) get(name string) (durable.File, error) {
	if f := p.files[name]; f != nil || p.open == nil {
		return f, nil
	}
	f, err := p.open(name)
	if err == nil {
		p.files[name] = f
	}
	return f, err
}

// close closes all places, and syncs them if nothing has failed.
func (p *places) close(failed error) error {
	for name, f := range p.files {
		if failed == nil {
			if err := f.Sync(); err != nil {
				failed = fmt.Errorf("syncing place %s: %w", name, err)
			}
		}
		failed = errors.Join(failed, f.Close())
	}
	return failed
}

// noteDamage notes that something is not whole.
func (r *restore) noteDamage(d Damage) error {
	r.mu.Lock()
	r.damaged = append(r.damaged, d)
	if !r.knownDamage[d.key()] {
		r.ownDamage++
	}
	many := r.ownDamage >= maxNamed && !r.to.Salvage
	r.mu.Unlock()
	if many {
		return r.damageError()
	}
	return nil
}

// damageError is the error that names the damage of the backup, or nil.
func (r *restore) damageError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ownDamage == 0 {
		return nil
	}
	var names []string
	for _, d := range r.damaged {
		if !r.knownDamage[d.key()] {
			names = append(names, d.String())
		}
	}
	more := ""
	if len(names) >= maxNamed {
		more = "; and perhaps more"
	}
	return fmt.Errorf("%w: %s%s", ErrDamaged, strings.Join(names, "; "), more)
}

// extent copies one extent. bad says why it is not whole; err is a failure of the target.
func (r *restore) extent(
	ctx context.Context, o *openPlaces, into *places, e catalog.Extent, sum hash.Hash,
) (bad, err error) {
	path, err := placePath(r.b.dir, e.Place)
	if err != nil {
		return err, nil
	}
	from, err := o.open(e.Place, false)
	if err != nil {
		return err, nil
	}
	to, err := into.get(e.Place)
	if err != nil {
		return nil, err
	}
	crc := uint32(0)
	for at, end := e.Off, e.Off+e.Len; at < end; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p := o.buf[:min(int64(len(o.buf)), end-at)]
		if n, err := from.ReadAt(p, at); n < len(p) {
			return fmt.Errorf("%s, bytes %d to %d: %w", path, e.Off, e.Off+e.Len, err), nil
		}
		crc = crc32.Update(crc, castagnoli, p)
		if sum != nil {
			sum.Write(p)
		}
		if to != nil {
			if _, err := to.WriteAt(p, at); err != nil {
				return nil, err
			}
		}
		at += int64(len(p))
		r.advance(int64(len(p)))
	}
	if crc != e.CRC32C {
		return fmt.Errorf("%s, bytes %d to %d do not match their checksum", path, e.Off, e.Off+e.Len), nil
	}
	return nil, nil
}

func (r *restore) advance(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += n
	if r.to.Place != nil {
		r.copied += n
	}
	if r.progress != nil {
		r.progress(r.done, r.b.m.Summary.Bytes)
	}
}
