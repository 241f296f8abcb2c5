package sender

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"sluice/api"
	"sluice/internal/system"
)

// SendPipe stores the bytes of r until its end. It keeps chunks in memory until they are
// acknowledged: one more than run at a time (about 128 MiB at most, if Parallel is 0). So it
// survives restarts of the server. It does not survive its own end, since nobody could read the
// pipe again: then nothing is stored.
func (s *Sender) SendPipe(ctx context.Context, f File, r io.Reader) (m api.Memory, err error) {
	p := &pipe{sender: s, f: f}
	// The idem is for this pipe alone. With it a begin whose answer was lost can be repeated.
	idem, err := system.Text(s.opts.Rand)
	if err != nil {
		return m, err
	}
	req := api.BeginRequest{
		CapsuleID: s.opts.Capsule, Idem: "pipe-" + idem,
		Meta: api.Meta{Name: f.Name, Path: f.Dir, MIMEType: f.MIME},
	}
	err = p.sender.retry(ctx, func(ctx context.Context) (err error) {
		p.session, err = s.api.Begin(ctx, req)
		return err
	})
	if err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			// Best effort: the session's time to live would end it too.
			ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer stop()
			_ = s.api.Abort(ctx, p.session.SessionID)
		}
	}()
	d := newDigester(p.session.ChunkSize)
	total, err := p.sendChunks(ctx, r, d)
	if err != nil {
		return m, err
	}
	sum, crcs := d.sum()
	err = p.sender.retry(ctx, func(ctx context.Context) (err error) {
		m, err = s.api.Finish(ctx, api.FinishRequest{
			SessionID: p.session.SessionID, SHA256: hex.EncodeToString(sum[:]), TotalLen: total, ChunkCRC32C: crcs,
		})
		return err
	})
	return m, err
}

type pipe struct {
	sender  *Sender
	f       File
	session api.Session
	acked   atomic.Int64
}

// sendChunks puts chunk after chunk, several at a time, and returns the length.
func (p *pipe) sendChunks(ctx context.Context, r io.Reader, d *digester) (total int64, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	free := make(chan []byte, p.buffers())
	for range cap(free) {
		free <- nil // allocated when it is needed
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for idx := int64(0); ; idx++ {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		if buf == nil {
			buf = make([]byte, p.session.ChunkSize)
		}
		n, err := io.ReadFull(r, buf)
		last := err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			stop(err)
			return 0, err
		}
		d.Write(buf[:n])
		total += int64(n)
		if n > 0 {
			// A short chunk fixes the length, so all chunks before it must be recorded first.
			if last {
				wg.Wait()
				if ctx.Err() != nil {
					return 0, context.Cause(ctx)
				}
			}
			if p.sender.limiter.Acquire(ctx) != nil {
				return 0, context.Cause(ctx)
			}
			wg.Go(func() {
				defer p.sender.limiter.Release()
				if err := p.put(ctx, idx, buf[:n]); err != nil {
					stop(err)
				}
				free <- buf
			})
		}
		if last {
			wg.Wait()
			return total, context.Cause(ctx)
		}
	}
}

// buffers is how many chunks may be in memory: at least two that are sent and one that is filled.
func (p *pipe) buffers() int {
	if p.sender.opts.Parallel > 0 {
		return p.sender.opts.Parallel + 1
	}
	return int(min(max(128<<20/p.session.ChunkSize, 3), MaxParallel+1))
}

func (p *pipe) put(ctx context.Context, idx int64, b []byte) error {
	return (&chunk{
		sender: p.sender, session: p.session.SessionID, size: p.session.ChunkSize, idx: idx,
		source: bytes.NewReader(b), n: int64(len(b)),
		sent: p.count, acked: p.count,
	}).put(ctx)
}

func (p *pipe) count(n int64) {
	p.sender.limiter.Transferred(n)
	p.sender.opts.Progress(p.f, p.acked.Add(n), -1)
}
