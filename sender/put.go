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

// source has a chunk's bytes: a file, or a chunk of a pipe in memory.
type source interface {
	io.ReaderAt
}

// chunk is the sending of one chunk.
type chunk struct {
	sender    *Sender
	session   string
	size      int64 // of the session's chunks
	idx       int64
	source    source
	off       int64 // in source
	n         int64
	replace   bool
	unchanged func() error  // ErrChanged if the source has another length than before; nil: it can't change
	sent      func(n int64) // counts bytes that were sent; less than 0: that have to be sent again
	acked     func(n int64)
}

// putChunk puts one chunk of the file, however long it takes.
func (t *transfer) putChunk(ctx context.Context, idx int64, replace bool) error {
	off := idx * t.session.ChunkSize
	return (&chunk{
		sender: t.sender, session: t.session.SessionID, size: t.session.ChunkSize, idx: idx,
		source: t.disk, off: off, n: min(t.session.ChunkSize, t.size()-off), replace: replace, unchanged: t.checkLength,
		sent: func(n int64) { t.sender.limiter.Transferred(n); t.inFlight.Add(n); t.report() },
		acked: func(n int64) {
			t.sender.limiter.Transferred(n)
			if !replace {
				t.acked.Add(n)
			}
			t.report()
		},
	}).put(ctx)
}

// maxCuts is how often a body may be cut, or not be passed on, before a shorter one is tried.
const maxCuts = 2

// put stores the chunk whole. If that fails twice, or something on the way refuses it, put stores
// it in ranges.
func (c *chunk) put(ctx context.Context) error {
	cuts := 0
	for a := c.sender.attempt(); ; {
		if c.sender.knownTooLarge(c.n) {
			return c.putRanges(ctx)
		}
		err := a.once(ctx, func() error { return c.putWhole(ctx, c.sender.stallLimit(a.left())) })
		if err == nil {
			c.sender.noteProgress()
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
			// Another client sends the same bytes: look before sending them again.
			gaps, err := c.missing(ctx)
			if err != nil {
				return err
			}
			if len(gaps) == 0 && !c.replace {
				c.sender.noteProgress()
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

// checkUnchanged looks after a failure whether the source has caused it.
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

// noteTooLarge notes that something on the way refuses bodies of n bytes.
func (s *Sender) noteTooLarge(n int64, answer error) {
	s.mu.Lock()
	first := s.tooLarge == 0
	if first || n < s.tooLarge {
		s.tooLarge = n
	}
	s.mu.Unlock()
	if first {
		s.opts.Log.Info("something between here and the server refuses large requests "+
			"(nginx: client_max_body_size): sending smaller ones", "answer", brief(answer))
	}
}

// knownTooLarge reports whether a body of n bytes is known to be too large for something on the
// way. The shortest range is always tried.
func (s *Sender) knownTooLarge(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tooLarge > 0 && n >= s.tooLarge && n > minRange
}

func (c *chunk) newBody(off, n int64, maxStall time.Duration) *watchedBody {
	b := &watchedBody{
		r: io.NewSectionReader(c.source, c.off+off, n), sent: c.sent, off: c.off + off, maxStall: maxStall,
	}
	b.file, _ = c.source.(*os.File)
	return b
}

// reset takes the bytes of this body out of the count of sent ones.
func (b *watchedBody) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent(-b.at)
	b.at = 0
}

func (c *chunk) putWhole(ctx context.Context, maxStall time.Duration) error {
	body := c.newBody(0, c.n, maxStall)
	defer body.reset()
	ctx, stop := body.watch(ctx)
	defer stop()
	return c.sender.api.PutChunk(ctx, c.session, c.idx, body, c.n, api.PutOptions{Replace: c.replace})
}

// minRange is the smallest range that is tried, in bytes.
const minRange = 4 << 10

// putRanges stores the missing bytes of the chunk in ranges. A failure that a shorter range may not
// have halves their length. Each eighth success doubles it.
func (c *chunk) putRanges(ctx context.Context) error {
	size, good := max(c.n/2, minRange), 0
	counted := int64(0) // bytes of the chunk that were passed to acked
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
				c.sender.noteProgress()
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
					continue // at once, smaller: the server only compares recorded bytes
				}
				break // ask which bytes are missing
			}
			a = c.sender.attempt()
			c.sender.noteProgress()
			at += n
			c.acked(n)
			counted += n
			if good++; good%8 == 0 && !c.sender.knownTooLarge(size*2) {
				size = min(size*2, max(c.n/2, minRange))
			}
		}
	}
}

// putRange puts n bytes from offset at of the session.
func (c *chunk) putRange(ctx context.Context, at, n int64, maxStall time.Duration) error {
	body := c.newBody(at-c.idx*c.size, n, maxStall)
	defer body.reset()
	ctx, stop := body.watch(ctx)
	defer stop()
	_, err := c.sender.api.PutRange(ctx, c.session, at, body, n, api.PutOptions{})
	return err
}

// missing asks for the missing bytes of the chunk, in offsets of the session. It waits for the
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
		// While the length is unknown the server lists gaps alone, not the bytes behind the last
		// received one.
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

// ended returns the refusal of a put into an ended session.
func ended(s api.Session) error {
	code := map[string]api.Code{
		"finished": api.CodeAlreadyFinished, "aborted": api.CodeAlreadyAborted, "expired": api.CodeSessionExpired,
	}[s.State]
	if code == "" {
		return nil
	}
	fault := api.Fault{Code: code, Status: http.StatusConflict, Detail: "the upload is " + s.State}
	return &api.Error{Recorded: -1, Problem: api.Problem{Fault: fault}}
}
