package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"sluice/backup"
	"sluice/catalog"
	"sluice/internal/system"
	"sluice/keeper"
	"sluice/store/folder"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// salvage makes new metadata of the rows that can still be read, if tables of the old ones are
// corrupt, truncated or gone, and puts them in place. done is false if the tables are whole. c.lost
// counts what is missing, or may be older than it was; sum is of the check of everything else.
func (c *checkCmd) salvage(e *env, log *slog.Logger, die func(error)) (sum keeper.Summary, done bool, err error) {
	f, err := folder.Open(c.Data, folder.Options{Existing: true, Rejoin: c.Rejoin, Log: log})
	if err != nil {
		return sum, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	damaged, err := pebblemeta.OpenDamaged(f.Meta.Path, pebblemeta.Options{
		FS: pebblemeta.Held(f.Meta.Path, f.Meta.HeldPath), Die: die, Log: log,
	})
	if err != nil {
		return sum, false, nil // the tables are not the trouble: the ordinary open says what is wrong
	}
	defer func() { err = errors.Join(err, damaged.Close()) }()
	if len(damaged.Holes()) == 0 {
		return sum, false, nil
	}
	if err := movable(f); err != nil {
		return sum, false, err
	}
	last, err := suits(f, c.Rejoin)
	if err != nil {
		return sum, false, err
	}
	s := salvage{checkCmd: c, e: e, log: log, die: die, folder: f, damaged: damaged}
	for _, hole := range damaged.Holes() {
		s.found(keeper.Finding{Kind: keeper.KindRecord, Text: "the metadata is damaged: " + hole})
	}
	next, err := f.BeginReplace()
	if err != nil {
		return sum, false, err
	}
	sum, err = s.make(next)
	sum.Wrong += c.lost
	if err != nil {
		return sum, false, err
	}
	kept, err := f.Replace(next, last, time.Now())
	if err != nil {
		return sum, false, err
	}
	e.report(
		map[string]string{"old_metadata": kept},
		"new metadata are in place; the old ones are kept in %s: remove them when nothing is missed", clean(kept),
	)
	return sum, true, nil
}

// reportHoles says which rows are lost if the metadata can't be opened.
func (c *checkCmd) reportHoles(e *env, log *slog.Logger, die func(error)) (err error) {
	f, err := folder.Open(c.Data, folder.Options{Existing: true, ReadOnly: true, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	damaged, err := pebblemeta.OpenDamaged(f.Meta.Path, pebblemeta.Options{
		FS: pebblemeta.Held(f.Meta.Path, f.Meta.HeldPath), Die: die, Log: log,
	})
	if err != nil {
		return err
	}
	for _, hole := range damaged.Holes() {
		c.report(e, keeper.Finding{
			Kind: keeper.KindRecord, Text: "the metadata is damaged: " + hole,
			Remedy: "new metadata are made of all that is left",
		})
	}
	return damaged.Close()
}

// salvage is one salvage under way.
type salvage struct {
	*checkCmd
	e       *env
	log     *slog.Logger
	die     func(error)
	folder  *folder.Folder
	damaged *pebblemeta.Damaged
}

// found reports something that is missing.
func (s *salvage) found(f keeper.Finding) {
	s.lost++
	s.report(s.e, f)
}

// make makes the new metadata, and checks and repairs them.
func (s *salvage) make(next folder.Half) (sum keeper.Summary, err error) {
	rescue := keeper.Salvage{Lost: s.damaged.Lost, Found: s.found}
	disk := pebblemeta.Held(next.Path, next.HeldPath)
	options := pebblemeta.Options{
		FS: pebblemeta.DeferSync(disk), Die: s.die, Log: s.log, Hook: upload.Hook(catalog.Bounds{}, nil),
	}
	err = s.damaged.Salvage(s.e.ctx, next.Path, options, rescue.Keep, func(what string) {
		s.found(keeper.Finding{Kind: keeper.KindLost, Text: what})
	})
	if err != nil {
		return sum, err
	}
	options.Existing = true
	meta, err := pebblemeta.Open(next.Path, options)
	if err != nil {
		return sum, err
	}
	defer func() {
		if err = errors.Join(err, meta.Close()); err == nil {
			err = pebblemeta.SyncAll(disk, next.Path)
		}
	}()
	content := s.folder.Content
	blobs, err := localblob.Open(content.Path, localblob.Options{
		FS: content.FS, Log: s.log, ReadOnly: true, Rejoin: s.Rejoin,
	})
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	rescue.Content = blobs
	if err := rescue.Reconcile(s.e.ctx, meta.Sessions(), meta.Catalog(), system.Clock{}, rand.Reader); err != nil {
		return sum, err
	}
	return s.run(s.e, meta, blobs, func(string) bool { return false })
}

// rejoining makes a restored data folder agree with itself, if its backup was made of a data folder
// that had lost rows.
type rejoining struct {
	e       *env
	missing []backup.Missing
	rescue  keeper.Salvage
}

// rows gives the function that takes the rows of the backup.
func (r *rejoining) rows(into *pebblemeta.Filling) func(key, row []byte) error {
	r.rescue = keeper.Salvage{Restored: true, Found: r.found, Lost: func(table catalog.TableID, key []byte) bool {
		key = pebblemeta.Key(table, key)
		return slices.ContainsFunc(r.missing, func(m backup.Missing) bool { return m.Has(key) })
	}}
	add := into.Salvage(
		r.e.ctx, r.rescue.Keep, func(what string) { r.found(keeper.Finding{Kind: keeper.KindLost, Text: what}) },
	)
	return func(key, row []byte) error { return add(key, row, true) }
}

// found reports what does not follow from the rows that are there.
func (r *rejoining) found(f keeper.Finding) {
	if !f.Note && !f.Repaired {
		r.e.failOf("", fmt.Errorf("%s: %s", f.Kind, f.Text))
	}
}

// reconcile works on the restored stores, which are closed.
func (r *rejoining) reconcile(f *folder.Folder) (err error) {
	log := slog.New(slog.NewTextHandler(r.e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	meta, err := pebblemeta.Open(f.Meta.Path, pebblemeta.Options{
		Die: dieRestoring, Log: log, Existing: true, Hook: upload.Hook(catalog.Bounds{}, nil),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, meta.Close()) }()
	if err := r.rescue.Reconcile(r.e.ctx, meta.Sessions(), meta.Catalog(), system.Clock{}, rand.Reader); err != nil {
		return err
	}
	blobs, err := localblob.Open(f.Content.Path, localblob.Options{Log: log, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	_, err = keeper.Check(r.e.ctx, keeper.CheckConfig{
		Sessions: meta.Sessions(), Catalog: meta.Catalog(), Blobs: blobs, Clock: system.Clock{}, Repair: true,
		Found: r.found,
	})
	return err
}

// movable refuses metadata that can't be renamed, before anything is done.
func movable(f *folder.Folder) error {
	var whole, meta syscall.Stat_t
	if err := errors.Join(syscall.Stat(f.Path, &whole), syscall.Lstat(f.Meta.Path, &meta)); err != nil {
		return err
	}
	if meta.Dev != whole.Dev {
		return fmt.Errorf(
			"%s is a mount point, and new metadata can't take its place. Nothing was touched. Mount that disk "+
				"elsewhere, and make %[1]s a link to a folder on it",
			f.Meta.Path,
		)
	}
	return nil
}
