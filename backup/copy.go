package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"sluice/blob"
	"sluice/catalog"
)

// sourceError is a failure of the data folder that is copied from, not of the folder that is copied
// to.
type sourceError struct {
	e   catalog.Extent
	err error
}

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// runJob does one job. Only a failure of the backup folder is an error.
func (r *run) runJob(ctx context.Context, o *openPlaces, j copyJob) (err error) {
	defer func() { err = errors.Join(err, o.close()) }()
	if j.content != nil {
		err = r.copyContent(ctx, o, *j.content, j.known)
	} else {
		err = r.copyExtents(ctx, o, j.extents, j.known)
	}
	return err
}

// copyContent copies the extents of a content that the backup does not have, and compares the whole
// with its SHA-256.
func (r *run) copyContent(ctx context.Context, o *openPlaces, v catalog.Content, known bool) error {
	if known {
		there, err := o.allPresent(v.Extents)
		if err != nil {
			return err
		}
		if there {
			r.advance(v.Bytes, 0)
			return nil
		}
	}
	sum := sha256.New()
	sum.Write(v.Inline)
	for _, e := range v.Extents {
		err := r.copyExtent(ctx, o, e, sum)
		var source *sourceError
		if errors.As(err, &source) {
			if err := r.checkTransient(ctx, source); err != nil {
				return err
			}
			r.damaged(damageOf(v, source))
			break
		}
		if err != nil {
			return err
		}
		r.advance(e.Len, 0)
		if e == v.Extents[len(v.Extents)-1] && !sameSum(sum, v) {
			another := errors.New("its extents are what was stored, but not in sum: their SHA-256 is another")
			r.damaged(damageOf(v, &sourceError{err: another}))
		}
	}
	if len(v.Extents) == 0 && !sameSum(sum, v) {
		r.damaged(damageOf(v, &sourceError{err: errors.New("its SHA-256 is another")}))
	}
	return r.persist(o)
}

// checkTransient gives an error if a failure of the data folder says nothing about the extent: the
// backup is stopping, or all of the content is away.
func (r *run) checkTransient(ctx context.Context, source *sourceError) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(source, blob.ErrUnavailable) {
		return source
	}
	return nil
}

func sameSum(sum hash.Hash, v catalog.Content) bool { return catalog.SHA256(sum.Sum(nil)) == v.SHA256 }

// copyExtents copies the extents of an upload under way that the backup does not have.
func (r *run) copyExtents(ctx context.Context, o *openPlaces, es []catalog.Extent, known bool) error {
	for _, e := range es {
		if known {
			there, err := o.present(e)
			if err != nil {
				return err
			}
			if there {
				r.advance(e.Len, 0)
				continue
			}
		}
		err := r.copyExtent(ctx, o, e, nil)
		var source *sourceError
		if errors.As(err, &source) {
			if err := r.checkTransient(ctx, source); err != nil {
				return err
			}
			r.damaged(damageOfExtent(e, source))
			continue
		}
		if err != nil {
			return err
		}
		r.advance(e.Len, 0)
	}
	return r.persist(o)
}

// persist persists the open places, and notes the folders whose entries have to be synced too.
func (r *run) persist(o *openPlaces) error {
	r.mu.Lock()
	for place := range o.files {
		r.folders[place[:2]] = true
	}
	r.mu.Unlock()
	return o.persist()
}

// copyExtent copies one extent into the backup, unless it is there already. It adds its bytes to
// sum, if sum is not nil.
func (r *run) copyExtent(ctx context.Context, o *openPlaces, e catalog.Extent, sum hash.Hash) error {
	whole, err := o.matches(e)
	if err != nil || whole && sum == nil {
		return err
	}
	var from io.Reader
	var to *extentCopy
	if whole {
		from = io.NewSectionReader(o.files[e.Place], e.Off, e.Len)
	} else {
		read, err := r.src.Content.Read(ctx, []catalog.Extent{e}, 0, e.Len)
		if err != nil {
			return &sourceError{e, err}
		}
		defer read.Close()
		if to, err = o.begin(e); err != nil {
			return err
		}
		defer to.close()
		from = read
	}
	crc, at := uint32(0), e.Off
	for end := e.Off + e.Len; at < end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := o.buf[:min(int64(len(o.buf)), end-at)]
		if _, err := io.ReadFull(from, p); err != nil {
			return &sourceError{e, err}
		}
		crc = crc32.Update(crc, castagnoli, p)
		if sum != nil {
			sum.Write(p)
		}
		if to != nil {
			if err := to.write(p, at); err != nil {
				return err
			}
		}
		at += int64(len(p))
	}
	if crc != e.CRC32C {
		return &sourceError{e, fmt.Errorf("place %s, bytes %d to %d: CRC-32C %08x, not %08x",
			e.Place, e.Off, e.Off+e.Len, crc, e.CRC32C)}
	}
	if to != nil {
		o.unverified = append(o.unverified, e)
		r.advance(0, to.written)
	}
	return nil
}

func (o *openPlaces) allPresent(es []catalog.Extent) (bool, error) {
	for _, e := range es {
		if ok, err := o.present(e); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// damageOf says that a content is not whole.
func damageOf(v catalog.Content, source *sourceError) Damage {
	d := Damage{Capsule: v.Capsule, SHA256: hex.EncodeToString(v.SHA256[:])}
	if source != nil {
		e := source.e
		d.Place, d.Off, d.Len, d.CRC32C, d.Reason = e.Place, e.Off, e.Len, e.CRC32C, source.Error()
	}
	return d
}

func damageOfExtent(e catalog.Extent, source *sourceError) Damage {
	d := Damage{Place: e.Place, Off: e.Off, Len: e.Len, CRC32C: e.CRC32C}
	if source != nil {
		d.Reason = source.Error()
	}
	return d
}
