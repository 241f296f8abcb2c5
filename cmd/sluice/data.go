package main

import (
	"errors"
	"fmt"

	"sluice/internal/durable"
	"sluice/store/folder"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// data is an open data folder with its stores.
type data struct {
	folder *folder.Folder
	meta   *pebblemeta.DB
	blobs  *localblob.Store
	frozen bool // the folder was opened for reading only
}

// openData opens a data folder and its stores, all of them relative to the folder that is there
// now. The options' file systems are set here, and the durability, which both stores share.
func openData(
	path string, dur durable.Durability, of folder.Options, mo pebblemeta.Options, bo localblob.Options,
) (d *data, err error) {
	d = &data{frozen: of.ReadOnly}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.folder, err = folder.Open(path, of); err != nil {
		return d, err
	}
	meta, content := d.folder.Meta, d.folder.Content
	// A refusal because of the content comes before the metadata is opened: opening writes.
	last, err := suits(d.folder, of.Rejoin)
	if err != nil {
		return d, err
	}
	mo.Durability, bo.Durability = dur, dur
	mo.FS, mo.Existing, mo.Allow = pebblemeta.Held(meta.Path, meta.HeldPath), d.folder.Used(), d.inPlace
	if d.meta, err = pebblemeta.Open(meta.Path, mo); err != nil {
		return d, err
	}
	if !d.frozen {
		d.meta.ShareReserve()
	}
	if bo.AfterIncarnation, err = d.folder.Begin(last); err != nil {
		return d, err
	}
	bo.FS, bo.Rejoin = content.FS, of.Rejoin
	if d.blobs, err = localblob.Open(content.Path, bo); err != nil {
		return d, err
	}
	d.folder.AddCheck(d.blobs.InPlace)
	return d, d.folder.Begun()
}

// suits gives the state that the content reports, and an error if the folder must refuse it. It
// changes nothing.
func suits(f *folder.Folder, rejoin bool) (last folder.ContentState, err error) {
	if last.Incarnation, last.Clean, err = localblob.Peek(f.Content.Path, f.Content.FS, rejoin); err != nil {
		return last, fmt.Errorf("%w. Nothing was touched", err)
	}
	return last, f.Suits(last)
}

// inPlace says why nothing may be changed now, in the errors that the services know.
func (d *data) inPlace() error { return away(d.folder.Away()) }

// look is inPlace with a fresh look at the folder. It is for callers that are about to delete
// something, or to call it damaged.
func (d *data) look() error { return away(d.folder.Look()) }

func away(err error) error {
	if errors.Is(err, folder.ErrTaken) {
		return fmt.Errorf("%w: %w", upload.ErrTaken, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", upload.ErrAway, err)
	}
	return nil
}

// close closes what is open, the folder last. If another server has taken the folder, the stores
// are left as they are: a write at their end would change the other server's folder.
func (d *data) close() (err error) {
	if d.blobs != nil && !d.frozen {
		if err := d.folder.Taken(); err != nil {
			return errors.Join(fmt.Errorf("nothing was written at the end: %w", err), d.folder.Close())
		}
	}
	if d.blobs != nil && !d.frozen {
		d.meta.ShareReserve()
	}
	if d.blobs != nil {
		err = errors.Join(d.folder.End(), d.blobs.Close())
	}
	if d.meta != nil {
		err = errors.Join(err, d.meta.Close())
	}
	if d.folder != nil {
		err = errors.Join(err, d.folder.Close())
	}
	return err
}
