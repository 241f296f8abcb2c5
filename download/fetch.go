package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"sluice/internal/backoff"
	"sluice/internal/concurrency"
	"sluice/session"
)

// stallAfter is how long a request may stand still before it is ended and made again; patience may
// end it earlier.
const stallAfter = 30 * time.Second

// fetch gets all missing chunks while the file is hashed. For its results see hashPart.
func (j *job) fetch(ctx context.Context) (gen uint64, sum [32]byte, err error) {
	gen, sum, err = j.fetchParts(ctx)
	if j.goSerial(err) {
		return j.fetchParts(ctx)
	}
	return gen, sum, err
}

// goSerial switches to one request at a time, once, if the Source gives no parts.
func (j *job) goSerial(err error) bool {
	if !errors.Is(err, ErrNoParts) || j.serial {
		return false
	}
	j.req.Log.Warn("parts can't be had, so that it is fetched from its beginning to its end in one go", "because", err)
	j.serial, j.limiter = true, concurrency.Fixed(1, j.req.Clock.Now)
	return true
}

func (j *job) fetchParts(ctx context.Context) (gen uint64, sum [32]byte, err error) {
	s, err := j.engine.Status(ctx, j.id)
	if err != nil {
		return 0, sum, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var workers sync.WaitGroup
	workers.Go(func() {
		for _, r := range j.missingRanges(s) {
			if j.limiter.Acquire(ctx) != nil {
				return
			}
			workers.Go(func() {
				defer j.limiter.Release()
				if err := j.fetchRange(ctx, r, j.fetchChunks); err != nil {
					stop(err) // the first one counts
				}
			})
		}
	})
	gen, sum, err = j.hashPart(ctx)
	if err != nil {
		stop(err)
	}
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return gen, sum, err
}

// missingRanges splits the missing bytes of the session into ranges for one request each: whole
// chunks, in order.
func (j *job) missingRanges(s session.Session) (ranges []session.Range) {
	if gaps := s.Missing(0); j.serial && len(gaps) > 0 {
		return []session.Range{{Off: gaps[0].Off - gaps[0].Off%chunkSize, End: s.BytesExpected}}
	}
	for _, gap := range s.Missing(0) {
		for off := gap.Off - gap.Off%chunkSize; off < gap.End; off += requestSize {
			end := min(off+requestSize, gap.End)
			end += (chunkSize - end%chunkSize) % chunkSize
			ranges = append(ranges, session.Range{Off: off, End: min(end, s.BytesExpected)})
		}
	}
	return ranges
}

// fetchRange gets the bytes of r, with as many requests as it takes. One request returns how many
// bytes it has got, also with an error.
func (j *job) fetchRange(
	ctx context.Context, r session.Range, request func(context.Context, session.Range) (int64, error),
) error {
	for failures := 0; !r.Empty(); {
		if err := j.req.Pace.Enter(ctx, j.req.Patience-j.sinceLastRecord()); err != nil {
			return err
		}
		n, err := request(ctx, r)
		outcome, retryAfter := outcomeOf(err)
		j.req.Pace.Exit(outcome, retryAfter)
		r.Off += n
		if n > 0 {
			failures = 0
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var failed *sourceError
		if !errors.As(err, &failed) || errors.Is(err, ErrPermanent) || errors.Is(err, ErrNoParts) && !j.serial {
			return err
		}
		left := j.req.Patience - j.sinceLastRecord()
		if left <= 0 {
			return fmt.Errorf("%w: %w", ErrPatience, err)
		}
		j.limiter.BackOff()
		pause := min(max(j.req.Pace.Pause(failures), retryAfter), left)
		failures++
		j.req.Log.Info("trying again", "offset", r.Off, "in", pause.Round(10*time.Millisecond), "why", err)
		if outcome == backoff.Refused {
			continue // all wait together
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
	return nil
}

// outcomeOf says what an error means for all other requests.
func outcomeOf(err error) (backoff.Outcome, time.Duration) {
	var later *LaterError
	switch {
	case err == nil:
		return backoff.Answered, 0
	case errors.As(err, &later):
		return backoff.Refused, later.After
	}
	return backoff.Unknown, 0
}

func (j *job) sinceLastRecord() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.req.Clock.Now().Sub(j.lastRecord)
}

// sourceError is a failure of the Source, not of this machine: the next request may succeed.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

var errStalled = errors.New("the connection stands still")

// fetchChunks makes one request for r and records its chunks one by one as they come. n is the
// length of the recorded chunks.
func (j *job) fetchChunks(ctx context.Context, r session.Range) (n int64, err error) {
	b, err := j.openRange(ctx, r)
	if err != nil {
		return 0, err
	}
	defer b.close()
	for ; r.Off+n < r.End; n += b.taken {
		at := session.Range{Off: r.Off + n, End: min(r.Off+n+chunkSize, r.End)}
		b.left, b.taken = at.Len(), 0
		sink := j.newChunkSink(at)
		if err := j.engine.PutChunk(ctx, j.id, at.Off/chunkSize, b, sink); err != nil {
			j.report(0, -b.taken)
			j.limiter.Transferred(-b.taken)
			if sink.err == nil && b.err != nil {
				return n, b.err
			}
			return n, err
		}
		j.report(b.taken, -b.taken)
	}
	return n, nil
}

// stallTimeout is how long a request may stand still.
func (j *job) stallTimeout() time.Duration {
	return max(min(stallAfter, j.req.Patience-j.sinceLastRecord()), time.Second)
}

// openRange makes a request for r. The caller must close the result.
func (j *job) openRange(ctx context.Context, r session.Range) (*chunkReader, error) {
	watched, cancel := context.WithCancelCause(ctx)
	stallTimer := time.AfterFunc(j.stallTimeout(), func() { cancel(errStalled) })
	b := &chunkReader{j: j, ctx: watched, cancel: cancel, stallTimer: stallTimer}
	stream, err := j.req.Source.Open(watched, r.Off, r.Len())
	b.stallTimer.Stop()
	if err != nil {
		err = b.failed(err)
		cancel(nil)
		return nil, err
	}
	b.body = stream
	return b, nil
}

// chunkReader is the part of a response's body that is one chunk. It ends with io.EOF behind the
// chunk's last byte, and with a sourceError anywhere else.
type chunkReader struct {
	j           *job
	ctx         context.Context // of the request
	cancel      context.CancelCauseFunc
	stallTimer  *time.Timer
	body        io.ReadCloser
	left, taken int64
	err         *sourceError
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	r.stallTimer.Reset(r.j.stallTimeout())
	n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
	r.stallTimer.Stop()
	r.left -= int64(n)
	r.taken += int64(n)
	if n > 0 {
		r.j.report(0, int64(n))
		r.j.limiter.Transferred(int64(n))
	}
	switch {
	case r.left == 0 || err == nil:
		return n, nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, r.failed(err)
}

func (r *chunkReader) close() {
	r.body.Close()
	r.stallTimer.Stop()
	r.cancel(nil)
}

// failed notes an error of the Source.
func (r *chunkReader) failed(err error) error {
	if errors.Is(context.Cause(r.ctx), errStalled) {
		err = errStalled
	}
	r.err = &sourceError{err}
	return r.err
}
