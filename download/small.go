package download

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"sluice/internal/durable"
	"sluice/session"
)

// small gets a content of one piece, of which a former Get can have left nothing worth going on with: without a journal, through memory. done is false where it
// is not that, or where a former Get of something larger has to be settled first.
//
//	fetch ─▶ SHA-256 ─▶ write the part ─▶ sync it ─▶ rename it to DEST ─▶ sync the folder
//
// A crash before the rename leaves a part without a journal, which the next Get empties.
func (j *job) small(ctx context.Context) (done bool, err error) {
	if j.size > chunkSize {
		return false, nil
	}
	if there, err := j.begun(); there || err != nil {
		return false, err
	}
	if err := j.openPart(); err != nil {
		return false, err
	}
	defer func() {
		if done && err != nil && !errors.Is(err, session.ErrUnknownOutcome) { // there it is renamed, and the name may be another Get's
			err = errors.Join(err, os.Remove(j.partPath()))
		}
		err = errors.Join(err, j.part.Close())
	}()
	// With the part locked: one that began before is seen now, one that begins after does not get the part.
	if there, err := j.begun(); there || err != nil {
		return false, err
	}
	b, err := j.bytes(ctx)
	if err == nil {
		err = j.part.Truncate(0)
	}
	if err == nil {
		_, err = j.part.WriteAt(b, 0)
	}
	if err == nil {
		err = j.publish(ctx, nil)
	}
	return true, err
}

// begun reports whether there is a journal.
func (j *job) begun() (bool, error) {
	_, err := os.Lstat(j.journalPath())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// bytes fetches the whole content into memory, and once more where its SHA-256 is wrong.
func (j *job) bytes(ctx context.Context) ([]byte, error) {
	b := make([]byte, j.size)
	for again := false; ; again = true {
		err := j.persist(ctx, session.Range{End: j.size}, func(ctx context.Context, r session.Range) (int64, error) {
			return j.into(ctx, r, b[r.Off:r.End])
		})
		if err != nil {
			return nil, err
		}
		switch {
		case sha256.Sum256(b) == j.digest:
			return b, nil
		case again:
			return nil, fmt.Errorf("%w: %w", errUseless, ErrDigest)
		}
		j.Log.Warn("the SHA-256 is wrong: fetching it again")
		j.report(-j.size, 0)
	}
}

// into makes one request for r, and keeps what has come of it.
func (j *job) into(ctx context.Context, r session.Range, p []byte) (int64, error) {
	b, err := j.ask(ctx, r)
	if err != nil {
		return 0, err
	}
	defer b.close()
	b.left = r.Len()
	n, err := io.ReadFull(b, p)
	j.report(int64(n), -int64(n))
	if err != nil && b.err != nil {
		err = b.err
	}
	return int64(n), err
}

// openPart opens the part, and locks it until it is closed: so that a Get with a journal and one without keep out of each other's way. ErrBusy.
func (j *job) openPart() (err error) {
	j.part, err = durable.OpenLocked(j.partPath(), 0o666)
	if errors.Is(err, durable.ErrLocked) {
		return ErrBusy
	}
	return err
}
