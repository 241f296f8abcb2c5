package upload

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
)

// PrecheckRequest asks what a begin of each file would answer.
type PrecheckRequest struct {
	Capsule string
	Files   []PrecheckFile
	// EarlierFiles and EarlierBytes (≥ 0) are what goes before these files, in a list that is asked
	// about in parts. They count in the quota of the capsule and in the free space.
	EarlierFiles, EarlierBytes int64
}

// PrecheckFile is one file that is to be uploaded.
type PrecheckFile struct {
	Meta  catalog.Meta
	Bytes int64
	// SHA256 of the content, if the client knows it.
	SHA256 *catalog.SHA256
	// Refuse, if set, is the answer: the caller has found the file to be malformed.
	Refuse error
}

// Prechecked is the answer about one file.
type Prechecked struct {
	// Memory is the newest one of the capsule with this content, if the caller may read that and it
	// is not damaged. Such a file needs no upload, so it takes nothing of a quota.
	Memory catalog.MemoryID
	// Err is the error of a begin; nil: it would succeed.
	Err error
}

// Precheck says for each file, in order, what a begin would answer if the files before it were
// being uploaded. It reserves nothing, counts nothing, and changes nothing. It costs one view of
// the catalog, with a look-up for each digest.
//
// The quota of the capsule, the uploads that a ticket is for and the free space count for all files
// together: a file that still fits passes, also behind one that does not. The bounds of open
// sessions, which are those of the caller or of its ticket's maker, do not: uploads end, and give
// that back to those behind them. Each file must fit alone into the bytes that are left. A caller
// with a ticket is told of no memory.
//
// Errors are those of a Begin that concern no single file: *catalog.FieldError for the capsule's
// id, blob.ErrNoSpace, ErrTooManyEnded, and access's.
func (u *Service) Precheck(ctx context.Context, c access.Caller, req PrecheckRequest) ([]Prechecked, error) {
	if err := checkKeys(&req.Capsule, ""); err != nil {
		return nil, err
	}
	if req.EarlierFiles < 0 || req.EarlierBytes < 0 {
		return nil, &catalog.FieldError{Field: "earlier_files and earlier_bytes", Problem: "must not be negative"}
	}
	free, refused := u.freeForNew(ctx, c)
	var out []Prechecked
	err := u.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		now := u.cfg.Clock.Now()
		p := precheck{u: u, free: free}
		if p.capsule, err = access.Allow(r, c, access.Upload, req.Capsule, now); err != nil {
			return err
		}
		if refused != nil { // whoever may not write is not told of it
			return refused
		}
		_, err = access.Allow(r, c, access.Read, req.Capsule, now)
		if p.reads = err == nil; err != nil && !errors.Is(err, access.ErrForbidden) {
			return err
		}
		if p.ticket, err = ticketOf(r, c); err != nil {
			return err
		}
		if p.usage, _, err = catalog.Usages.Find(r, catalog.Name(c.Payer())); err != nil {
			return err
		}
		if p.bounds, err = catalog.BoundsOf(r, c.Payer(), u.cfg.Bounds); err != nil {
			return err
		}
		p.take(req.EarlierFiles, req.EarlierBytes)
		out = make([]Prechecked, len(req.Files))
		for i, f := range req.Files {
			if out[i], err = p.file(r, f); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// freeForNew gives how many bytes the stores can take, or the error with which they, or the
// caller's ended sessions, refuse all that is new.
func (u *Service) freeForNew(ctx context.Context, c access.Caller) (int64, error) {
	err := u.checkNew(ctx, nil, 0)
	if err == nil {
		err = u.checkEnded(c)
	}
	if err != nil {
		return 0, err
	}
	free, err := u.cfg.Blobs.Free(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking for free space: %w", err)
	}
	return free, nil
}

// precheck is what a Precheck knows while it goes from file to file.
type precheck struct {
	u       *Service
	capsule catalog.Capsule // with what the files before take
	ticket  catalog.Grant   // of the caller, with the files before; the zero value: it has none
	usage   catalog.Usage
	bounds  catalog.Bounds
	free    int64 // bytes that the files before leave
	reads   bool  // the caller may read the capsule's memories
}

// take counts files that pass. The sums stop at the largest number, so that none becomes negative.
func (p *precheck) take(files, bytes int64) {
	p.capsule.Sessions = addUpTo(p.capsule.Sessions, files)
	p.capsule.Reserved = addUpTo(p.capsule.Reserved, bytes)
	p.ticket.Open = addUpTo(p.ticket.Open, files)
	p.free -= bytes
}

// addUpTo adds two numbers that are not negative. The sum is a quarter of the largest number at
// most, so that such sums can be added.
func addUpTo(a, b int64) int64 { return min(a, math.MaxInt64/4) + min(b, math.MaxInt64/4) }

// file answers about one file. An error is one of the stores.
func (p *precheck) file(r catalog.Reader, f PrecheckFile) (out Prechecked, err error) {
	if out.Err = p.fits(f); out.Err != nil {
		return out, nil
	}
	if p.reads && f.SHA256 != nil {
		out.Memory, err = p.find(r, *f.SHA256, f.Bytes)
		if err != nil || out.Memory != (catalog.MemoryID{}) {
			return out, err
		}
	}
	if out.Err = p.fitsBeside(f.Bytes); out.Err == nil {
		p.take(1, f.Bytes)
	}
	return out, nil
}

// fits checks a file by itself.
func (p *precheck) fits(f PrecheckFile) error {
	if f.Refuse != nil {
		return f.Refuse
	}
	meta, err := f.Meta.Validate()
	if err == nil && f.Bytes < 0 {
		err = &catalog.FieldError{Field: "bytes", Problem: "must not be negative"}
	}
	if err == nil {
		_, err = p.u.chunkSize(BeginRequest{Bytes: f.Bytes, Chunks: -1})
	}
	if err == nil {
		err = catalog.CheckMIME(meta.MIME, p.capsule.MIMETypes)
	}
	if err == nil {
		err = fitsTicket(p.ticket, f.Bytes, meta.MIME)
	}
	var field *catalog.FieldError
	if errors.As(err, &field) { // the members of a file are not in a meta here
		own := *field
		own.Field = strings.TrimPrefix(field.Field, "meta.")
		return &own
	}
	return err
}

// fitsBeside checks whether a file fits beside those before it.
func (p *precheck) fitsBeside(n int64) error {
	if err := p.capsule.Fits(n, 1); err != nil {
		return err
	}
	if err := p.bounds.Fits(p.usage, n); err != nil {
		return err
	}
	if p.ticket.Kind == catalog.Ticket {
		if err := p.ticket.Fits(); err != nil {
			return err
		}
	}
	if n > p.free {
		return fmt.Errorf("%w: %d bytes are wanted, %d are free", blob.ErrNoSpace, n, max(p.free, 0))
	}
	return nil
}

// find gives the newest visible memory with that content; the zero id if there is none, or its
// content is damaged.
func (p *precheck) find(r catalog.Reader, sum catalog.SHA256, n int64) (catalog.MemoryID, error) {
	from := catalog.DigestKey{Capsule: p.capsule.ID, SHA256: sum}
	to := catalog.DigestKey{Capsule: p.capsule.ID, SHA256: sum, Seq: math.MaxUint64}
	for id, err := range catalog.Digests.Back(r, from, to) {
		var m catalog.Memory
		if err == nil {
			m, err = catalog.Memories.Get(r, catalog.MemoryKey(id))
		}
		if err == nil && m.Bytes == n {
			since, damagedErr := catalog.Damaged(r, m)
			if err = damagedErr; err == nil && since.IsZero() {
				return id, nil
			}
		}
		if err != nil && !errors.Is(err, catalog.ErrDamaged) {
			return catalog.MemoryID{}, fmt.Errorf("memory %s of the list by SHA-256: %v", id, err)
		}
		break // the others have the same content
	}
	return catalog.MemoryID{}, nil
}
