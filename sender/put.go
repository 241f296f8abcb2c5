package sender

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"sluice/api"
)

// content is where a chunk's bytes are: a file, or a chunk of a pipe in memory.
type source interface {
	io.ReaderAt
}

// chunk is one chunk on its way.
type chunk struct {
	sender    *Sender
	session   string
	size      int64 // of the session's chunks
	idx       int64
	source    source
	off       int64 // in from
	n         int64
	replace   bool
	unchanged func() error  // says ErrChanged where the content has not the length that it had; nil: it can't change
	taken     func(n int64) // bytes that were taken off to the server, or less than 0: that have to go again
	acked     func(n int64)
}

// putChunk puts one chunk of the file, however long it takes.
func (t *transfer) putChunk(ctx context.Context, idx int64, replace bool) error {
	off := idx * t.session.ChunkSize
	return (&chunk{
		sender: t.sender, session: t.session.SessionID, size: t.session.ChunkSize, idx: idx,
		source: t.disk, off: off, n: min(t.session.ChunkSize, t.size()-off), replace: replace, unchanged: t.checkLength,
		taken: func(n int64) { t.sender.limiter.Transferred(n); t.inFlight.Add(n); t.report() },
		acked: func(n int64) {
			t.sender.limiter.Transferred(n)
			if !replace {
				t.acked.Add(n)
			}
			t.report()
		},
	}).put(ctx)
}

// fewCuts is how often a body may be cut, or not be passed on, before a shorter one is tried.
const maxCuts = 2

// put stores the chunk whole; where that does not get through twice, or something between the
// server and us refuses it, in ranges.
func (c *chunk) put(ctx context.Context) error {
	cuts := 0
	for a := c.sender.attempt(); ; {
		if c.sender.knownTooLarge(c.n) {
			return c.putRanges(ctx)
		}
		err := a.once(ctx, func() error { return c.putWhole(ctx, c.sender.stallLimit(a.left())) })
		if err == nil {
			c.sender.moved()
			c.acked(c.n)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.checkUnchanged(err); err != nil {
			return err
		}
		var refused *api.Error
		ours := errors.As(err, &refused) && !refused.Foreign
		switch class := classOf(err); {
		case ours && refused.Code == api.CodeChunkConflict && !c.replace:
			// An earlier attempt stored other bytes here: the file is right.
			c.replace = true
			continue
		case class == api.Permanent, class == api.TooLarge && c.n <= minRange:
			return err
		case class == api.TooLarge:
			c.sender.noteTooLarge(c.n, err)
			continue
		case class == api.Cut, class == api.Gateway:
			cuts++
		}
		c.sender.limiter.BackOff()
		if err := a.again(ctx, err); err != nil {
			return err
		}
		if ours && refused.Code == api.CodeSuperseded {
			// Somebody else sends the same bytes: look before sending them again.
			gaps, err := c.missing(ctx)
			if err != nil {
				return err
			}
			if len(gaps) == 0 && !c.replace {
				c.sender.moved()
				c.acked(c.n)
				return nil
			}
		}
		if cuts >= maxCuts && c.n > minRange {
			c.sender.opts.Log.Info("whole chunks do not get through: sending smaller pieces", "because", brief(err))
			return c.putRanges(ctx)
		}
	}
}

// changed looks after a failure whether it was the content's.
func (c *chunk) checkUnchanged(why error) error {
	var disk *fs.PathError
	if errors.As(why, &disk) {
		return why
	}
	if c.unchanged == nil {
		return nil
	}
	return c.unchanged()
}

// refuses notes that something on the way takes no body of n bytes.
func (s *Sender) noteTooLarge(n int64, answer error) {
	s.mu.Lock()
	first := s.tooLarge == 0
	if first || n < s.tooLarge {
		s.tooLarge = n
	}
	s.mu.Unlock()
	if first {
		s.opts.Log.Info("something between here and the server refuses large requests (nginx: client_max_body_size): sending smaller ones",
			"answer", brief(answer))
	}
}

// refusedFor reports whether a body of n bytes is known to be too large for something on the way.
// The shortest of all is always tried.
func (s *Sender) knownTooLarge(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tooLarge > 0 && n >= s.tooLarge && n > minRange
}

func (c *chunk) newBody(off, n int64, maxStall time.Duration) *watchedBody {
	b := &watchedBody{r: io.NewSectionReader(c.source, c.off+off, n), moved: c.taken, off: c.off + off, maxStall: maxStall}
	b.file, _ = c.source.(*os.File)
	return b
}

// landed takes what was flying out of the count.
func (b *watchedBody) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moved(-b.at)
	b.at = 0
}

func (c *chunk) putWhole(ctx context.Context, maxStall time.Duration) error {
	body := c.newBody(0, c.n, maxStall)
	defer body.reset()
	ctx, stop := body.watch(ctx)
	defer stop()
	return c.sender.api.PutChunk(ctx, c.session, c.idx, body, c.n, api.PutOptions{Replace: c.replace})
}

// least is the smallest range that is tried, and most the largest, in bytes.
const minRange = 4 << 10

// ranges stores what is missing of the chunk in pieces: half as large after each failure that a
// shorter one may not have, twice as large after some successes.
func (c *chunk) putRanges(ctx context.Context) error {
	size, good := max(c.n/2, minRange), 0
	counted := int64(0) // of the chunk, told as acknowledged
	for a := c.sender.attempt(); ; {
		gaps, err := c.missing(ctx)
		if err != nil {
			return err
		}
		left := int64(0)
		for _, g := range gaps {
			left += g[1] - g[0] + 1
		}
		if present := c.n - left; present != counted {
			if present > counted {
				c.sender.moved()
			}
			c.acked(present - counted)
			counted = present
		}
		if len(gaps) == 0 {
			return nil
		}
		for at := gaps[0][0]; at <= gaps[0][1]; {
			for c.sender.knownTooLarge(size) {
				size = max(size/2, minRange)
			}
			n := min(size, gaps[0][1]-at+1)
			err := a.once(ctx, func() error { return c.putRange(ctx, at, n, c.sender.stallLimit(a.left())) })
			if err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := c.checkUnchanged(err); err != nil {
					return err
				}
				switch classOf(err) {
				case api.Permanent:
					return err
				case api.TooLarge:
					if n <= minRange {
						return err
					}
					c.sender.noteTooLarge(n, err)
				case api.Cut, api.Gateway:
					size, good = max(size/2, minRange), 0
				}
				if err := a.again(ctx, err); err != nil {
					return err
				}
				if a.failures%2 == 1 {
					continue // at once, smaller: what is there already is only compared
				}
				break // what is there is looked up
			}
			a = c.sender.attempt()
			c.sender.moved()
			at += n
			c.acked(n)
			counted += n
			if good++; good%8 == 0 && !c.sender.knownTooLarge(size*2) {
				size = min(size*2, max(c.n/2, minRange))
			}
		}
	}
}

// piece puts n bytes from `at` of the session.
func (c *chunk) putRange(ctx context.Context, at, n int64, maxStall time.Duration) error {
	body := c.newBody(at-c.idx*c.size, n, maxStall)
	defer body.reset()
	ctx, stop := body.watch(ctx)
	defer stop()
	_, err := c.sender.api.PutRange(ctx, c.session, at, body, n, api.PutOptions{})
	return err
}

// missing asks which bytes of the chunk are not there, in offsets of the session. It waits for the
// server.
func (c *chunk) missing(ctx context.Context) (gaps []api.Range, err error) {
	var s api.Session
	err = c.sender.retry(ctx, func(ctx context.Context) (err error) {
		s, err = c.sender.api.Status(ctx, c.session, false)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := ended(s); err != nil {
		return nil, err
	}
	first, last := c.idx*c.size, c.idx*c.size+c.n-1
	for _, g := range s.MissingBytes {
		if lo, hi := max(g[0], first), min(g[1], last); lo <= hi {
			gaps = append(gaps, api.Range{lo, hi})
		}
	}
	if s.BytesExpected == nil {
		// While the length is unknown only gaps are listed, and what is behind the last byte is
		// not.
		end := s.BytesReceived
		for _, g := range s.MissingBytes {
			end += g[1] - g[0] + 1
		}
		if lo := max(end, first); lo <= last {
			gaps = append(gaps, api.Range{lo, last})
		}
	}
	return gaps, nil
}

// ended gives the refusal that a put into an ended session would get.
func ended(s api.Session) error {
	code := map[string]api.Code{"finished": api.CodeAlreadyFinished, "aborted": api.CodeAlreadyAborted, "expired": api.CodeSessionExpired}[s.State]
	if code == "" {
		return nil
	}
	return &api.Error{Recorded: -1, Problem: api.Problem{Fault: api.Fault{Code: code, Status: http.StatusConflict, Detail: "the upload is " + s.State}}}
}
