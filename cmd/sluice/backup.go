package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/backup"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/store/folder"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// backupCmd makes a backup.
type backupCmd struct {
	Data string `default:"sluice-data" env:"SLUICE_DATA" placeholder:"DIR" help:"The data folder. A server may have it open: then the server makes the backup."`
	Dir  string `arg:"" name:"dir" help:"The folder for the backup; it is made if it is not there. A second backup into it copies only what is new."`

	Salvage bool `help:"Back up what is left where rows of the metadata are lost, and say what is missing. A whole backup is never replaced by it."`
}

// restoreCmd makes a data folder of a backup.
type restoreCmd struct {
	Data    string `default:"sluice-data" env:"SLUICE_DATA" placeholder:"DIR" help:"The data folder to make; it must be empty, or not there."`
	Check   bool   `help:"Only read and verify the backup; make nothing."`
	Salvage bool   `help:"Restore what is whole from a backup that is damaged, or was made with --salvage; what is missing is named."`
	Dir     string `arg:"" name:"dir" help:"The folder with the backup."`
}

// backupDone and restoreDone are the results as JSON.
type backupDone struct {
	Backup string `json:"backup"`
	backup.Result
}

type restoreDone struct {
	Backup   string `json:"backup"`
	Restored string `json:"restored,omitempty"`
	backup.Result
}

// Run makes a backup.
func (c *backupCmd) Run(e *env) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	p := newProgress(e)
	defer p.close()
	report := rateLimited(func(done, total int64) { p.set(c.Dir, done, total) })
	res, err := backupByServer(e.ctx, c.Data, controlRequest{Backup: dir, Salvage: c.Salvage}, report)
	if errors.Is(err, errNoServer) {
		res, err = c.alone(e, dir, report)
	}
	p.end(c.Dir)
	if err != nil {
		return fmt.Errorf("%w%s", err, unharmed(err))
	}
	of := ""
	if len(res.Missing) > 0 {
		of = "not whole: "
	}
	e.print(
		backupDone{c.Dir, res}, "%sbackup %d in %s: %s; %s copied", of, res.Number, clean(c.Dir), summary(res.Summary),
		size(res.Copied),
	)
	return reportDamage(e, res, "the data folder does not have it whole, so neither has the backup")
}

// unharmed says what a failure has left of the former backup, if the error does not say it.
func unharmed(err error) string {
	if errors.Is(err, backup.ErrFull) || errors.Is(err, context.Canceled) {
		return " (the backup that was there, if any, is as it was)"
	}
	return ""
}

func summary(s backup.Summary) string {
	return fmt.Sprintf(
		"%d memories, %d uploads under way, %s, as of %s", s.Memories, s.Sessions, size(s.Bytes),
		s.Made.Format(time.RFC3339),
	)
}

// reportDamage names each damaged and each missing thing.
func reportDamage(e *env, res backup.Result, why string) error {
	for _, m := range res.Missing {
		e.failOf("", fmt.Errorf("missing: %s", m.Why))
	}
	for _, d := range res.Damaged {
		e.failOf("", fmt.Errorf("%s (%s)", d, why))
	}
	if len(res.Damaged)+len(res.Missing) > 0 {
		return errSaid
	}
	return nil
}

// alone makes the backup if no server runs.
func (c *backupCmd) alone(e *env, dir string, report backup.Progress) (res backup.Result, err error) {
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if c.Salvage {
		return c.salvage(e, dir, log, report)
	}
	d, err := openData(
		c.Data, durable.Power, folder.Options{Existing: true, Log: log},
		pebblemeta.Options{Hook: upload.Hook(catalog.Bounds{}, nil), Die: e.die, Log: log}, localblob.Options{Log: log},
	)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	src, err := d.source(nobody, nil)
	if err != nil {
		return res, err
	}
	return backupInto(e.ctx, c.Data, dir, src, report)
}

// nobody deletes anything: no server runs.
func nobody() (release func()) { return func() {} }

// salvage backs up the rows that are sure, in a folder that no server has open. The metadata may be
// too damaged to be opened.
func (c *backupCmd) salvage(
	e *env, dir string, log *slog.Logger, report backup.Progress,
) (res backup.Result, err error) {
	f, err := folder.Open(c.Data, folder.Options{Existing: true, Log: log})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	damaged, err := pebblemeta.OpenDamaged(f.Meta.Path, pebblemeta.Options{
		FS: pebblemeta.Held(f.Meta.Path, f.Meta.HeldPath), Die: e.die, Log: log,
	})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, damaged.Close()) }()
	blobs, err := localblob.Open(f.Content.Path, localblob.Options{FS: f.Content.FS, Log: log, ReadOnly: true})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	id, err := backup.Identity(f.FS, f.Path, rand.Reader)
	if err != nil {
		return res, err
	}
	return backupInto(e.ctx, c.Data, dir, backup.Source{
		ID:     id,
		Freeze: func(context.Context) (backup.Frozen, error) { return sureRows{damaged}, nil },
		Decode: pebblemeta.Decode, Rows: pebblemeta.Format, Content: blobs, Hold: nobody, Salvage: true,
	}, report)
}

// sureRows are the rows of damaged metadata that are sure, as a state to back up.
type sureRows struct{ *pebblemeta.Damaged }

// Walk implements backup.Frozen.
func (r sureRows) Walk(
	ctx context.Context, visit func(key, row []byte) error, lost func(from, to []byte, why error) error,
) error {
	return r.Sure(ctx, visit, lost)
}

// Close implements backup.Frozen. The caller that opened the metadata closes them.
func (sureRows) Close() {}

// source is the data folder as the source of a backup.
func (d *data) source(hold func() func(), log *slog.Logger) (backup.Source, error) {
	if err := d.look(); err != nil {
		return backup.Source{}, err
	}
	id, err := backup.Identity(d.folder.FS, d.folder.Path, rand.Reader)
	return backup.Source{
		ID: id,
		Freeze: func(ctx context.Context) (backup.Frozen, error) {
			f, err := d.meta.Freeze(ctx)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		Decode: pebblemeta.Decode, Rows: pebblemeta.Format, Content: d.blobs, Hold: hold, Log: log,
	}, err
}

// backupInto makes a backup in a folder that must be outside of the data folder.
func backupInto(
	ctx context.Context, data, dir string, src backup.Source, report backup.Progress,
) (backup.Result, error) {
	within, err := inside(data, dir)
	if err == nil && within {
		err = fmt.Errorf("%s is in the data folder: a backup belongs elsewhere, best on another disk", dir)
	}
	if err != nil {
		return backup.Result{}, err
	}
	return backup.Run(ctx, durable.OS{}, dir, src, time.Now(), report)
}

// inside reports whether a path is in a folder. The path may be missing.
func inside(folder, path string) (bool, error) {
	folder, err := filepath.Abs(folder)
	if err == nil {
		folder, err = filepath.EvalSymlinks(folder)
	}
	if err != nil {
		return false, err
	}
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			path = filepath.Join(real, rest)
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(path) == path {
			return false, err
		}
		path, rest = filepath.Dir(path), filepath.Join(filepath.Base(path), rest)
	}
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)), err
}

// Run makes a data folder of a backup.
func (c *restoreCmd) Run(e *env) (err error) {
	disk := durable.OS{}
	b, err := backup.Open(disk, c.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	p := newProgress(e)
	defer p.close()
	report := rateLimited(func(done, total int64) { p.set(c.Dir, done, total) })
	target := backup.Target{Decode: pebblemeta.Decode, Rows: pebblemeta.Format, Salvage: c.Salvage}
	var res backup.Result
	if c.Check {
		res, err = b.Restore(e.ctx, target, report)
	} else {
		res, err = c.restore(e, disk, b, target, report)
	}
	p.end(c.Dir)
	if err != nil {
		return err
	}
	if c.Check {
		is := "is whole"
		if len(res.Damaged)+len(res.Missing) > 0 {
			is = "lacks what is named, and is whole else"
		}
		e.print(
			restoreDone{Backup: c.Dir, Result: res}, "backup %d in %s %s: %s", res.Number, clean(c.Dir), is,
			summary(res.Summary),
		)
	} else {
		e.print(
			restoreDone{c.Dir, c.Data, res}, "restored %s from backup %d: %s", clean(c.Data), res.Number,
			summary(res.Summary),
		)
	}
	return reportDamage(e, res, "it is not in the backup")
}

// restore fills a new data folder. The first admin's token is not in a backup: the server writes a
// new one when it starts.
func (c *restoreCmd) restore(
	e *env, disk durable.FS, b *backup.Backup, target backup.Target, report backup.Progress,
) (res backup.Result, err error) {
	data, err := filepath.Abs(c.Data)
	if real, linked := filepath.EvalSymlinks(data); linked == nil {
		data = real
	}
	if err != nil {
		return res, err
	}
	err = backup.Build(disk, data, func(dir string) error {
		if free, err := disk.Free(dir); err != nil || free < b.Summary().Bytes {
			return errors.Join(err, fmt.Errorf(
				"%w: the backup has %s, and there is room for %s beside %s", backup.ErrFull, size(b.Summary().Bytes),
				size(free), data,
			))
		}
		f, err := folder.Open(dir, folder.Options{FS: disk})
		if err != nil {
			return err
		}
		defer f.Close()
		meta, err := pebblemeta.Fill(f.Meta.Path, pebblemeta.Options{Die: dieRestoring})
		if err != nil {
			return err
		}
		defer meta.Abandon()
		blobs, err := localblob.Open(f.Content.Path, localblob.Options{})
		if err != nil {
			return err
		}
		r := rejoining{e: e, missing: b.Missing()}
		target.Row, target.Place = meta.Add, blobs.Adopt
		if len(r.missing) > 0 {
			target.Row = r.rows(meta)
		}
		if res, err = b.Restore(e.ctx, target, report); err == nil {
			err = meta.Close(e.ctx)
		}
		if err == nil {
			err = backup.SetIdentity(disk, dir, b.ID())
		}
		if err := errors.Join(err, blobs.CloseAdopted()); err != nil {
			return err
		}
		if len(r.missing) > 0 {
			if err := r.reconcile(f); err != nil {
				return err
			}
		}
		incarnation, _, err := localblob.Peek(f.Content.Path, disk, false)
		if err != nil {
			return err
		}
		return f.Restored(incarnation)
	})
	return res, err
}

// dieRestoring ends the process when the disk fails under the metadata. No data folder has appeared
// by then.
func dieRestoring(err error) {
	fmt.Fprintf(os.Stderr, "sluice: the restore failed, and has made nothing: %v\n", err)
	os.Exit(1)
}
