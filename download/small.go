package download

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"sluice/session"
)

// getSmall gets a content of one chunk without a journal, through memory. A former Get can't have
// left much of such a content.
//
//	fetch ─▶ SHA-256 ─▶ write the part ─▶ sync it ─▶ rename it to DEST ─▶ sync the folder
//
// A crash before the rename leaves a part without a journal. The next Get overwrites it.
func (j *job) getSmall(ctx context.Context) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, session.ErrUnknownOutcome) { // then it is renamed
			err = errors.Join(err, j.removePart())
		}
	}()
	j.report(0, 0) // nothing is there yet
	b, err := j.fetchAll(ctx)
	if err == nil {
		_, err = j.part.WriteAt(b, 0)
	}
	if err == nil {
		_, err = j.publish(ctx, nil)
	}
	return err
}

// fetchAll fetches the whole content into memory, and once more if its SHA-256 is wrong.
func (j *job) fetchAll(ctx context.Context) ([]byte, error) {
	b := make([]byte, j.size)
	for refetched := false; ; refetched = true {
		err := j.fetchRange(ctx, session.Range{End: j.size}, func(ctx context.Context, r session.Range) (int64, error) {
			return j.fetchInto(ctx, r, b[r.Off:r.End])
		})
		if j.goSerial(err) {
			j.report(-j.recorded, 0)
			refetched = true
			continue
		}
		if err != nil {
			return nil, err
		}
		switch {
		case sha256.Sum256(b) == j.digest:
			return b, nil
		case refetched:
			return nil, fmt.Errorf("%w: %w", errDiscard, ErrDigest)
		}
		j.req.Log.Warn("the SHA-256 is wrong: fetching it again")
		j.report(-j.size, 0)
	}
}

// fetchInto makes one request for r, and keeps the bytes that come.
func (j *job) fetchInto(ctx context.Context, r session.Range, p []byte) (int64, error) {
	b, err := j.openRange(ctx, r)
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
