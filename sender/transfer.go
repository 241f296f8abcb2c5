package sender

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"sluice/api"
)

// job is one file on its way.
type job struct {
	sender *Sender
	f      File
	disk   *os.File
	at     state // as it was when what is sent was hashed
	idem   string

	s      api.Session
	sums   *sums
	acked  atomic.Int64 // bytes
	flying atomic.Int64
}

func (j *job) size() int64 { return j.at.size }

func (j *job) report() {
	j.sender.opts.Progress(j.f, max(min(j.acked.Load()+j.flying.Load(), j.size()), 0), j.size())
}

// send stores the file under its idem. other says why the memory that the idem stands for is not
// that of the file.
func (j *job) send(ctx context.Context) (m api.Memory, other outdated, err error) {
	if j.size() <= small {
		if m, other, ok, err := j.sendSmall(ctx); ok || err != nil {
			return m, other, err
		}
	}
	for lives := 0; ; lives++ {
		if m, done, other, err := j.begin(ctx); err != nil || done || other != "" {
			return m, other, err
		}
		m, err := j.finish(ctx)
		var refused *api.Error
		if errors.As(err, &refused) && lives < 3 {
			switch refused.Code {
			case api.CodeSessionExpired, api.CodeAlreadyAborted, api.CodeNotFound, api.CodeAlreadyFinished:
				// It was ended by somebody else: the idem tells what there is now.
				j.sender.opts.Log.Info("the upload was ended elsewhere: beginning again",
					"file", j.f.Disk, "because", refused.Code)
				continue
			}
		}
		return m, "", err
	}
}

// begin gives j its session; done is true where the file is stored already.
func (j *job) begin(ctx context.Context) (m api.Memory, done bool, other outdated, err error) {
	size := j.size()
	req := api.BeginRequest{
		CapsuleID: j.sender.opts.Capsule, Idem: j.idem,
		Meta: api.Meta{Name: j.f.Name, Path: j.f.Dir, MIMEType: j.f.MIME, Bytes: &size},
	}
	err = j.sender.ask(ctx, func(ctx context.Context) (err error) {
		j.s, err = j.sender.api.Begin(ctx, req)
		return err
	})
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeIdempotencyConflict {
		return m, false, differs, nil
	}
	if err != nil {
		return m, false, "", err
	}
	if j.s.State == "finished" {
		m, other, err = j.stored(ctx)
		return m, true, other, err
	}
	if j.s.BytesReceived == 0 && size > j.s.ChunkSize {
		if err := j.adopt(ctx); err != nil {
			return m, false, "", err
		}
	}
	if j.s.BytesReceived > 0 {
		j.sender.opts.Log.Info("going on", "file", j.f.Disk, "bytes_there", j.s.BytesReceived, "bytes", size)
	}
	j.acked.Store(j.s.BytesReceived)
	j.report()
	return m, false, "", nil
}

// stored gives the memory of a finished session, if it still is that of the file.
func (j *job) stored(ctx context.Context) (m api.Memory, other outdated, err error) {
	if j.s.Deleted {
		return m, deleted, nil
	}
	err = j.sender.ask(ctx, func(ctx context.Context) (err error) {
		m, err = j.sender.api.ReadMemory(ctx, j.s.MemoryID)
		return err
	})
	if err != nil {
		return m, "", err
	}
	if j.at.fresh(j.s.CreatedAt.Time) {
		sum, _, err := j.digest(ctx, max(j.size(), 1))
		if err != nil {
			return m, "", err
		}
		if hex.EncodeToString(sum[:]) != m.SHA256 {
			return m, differs, nil
		}
	}
	j.sender.opts.Progress(j.f, j.size(), j.size())
	return m, "", nil
}

// adopt looks for an open upload of the same content under another idem: the file was moved, or
// touched, since. All that it has must be what the file has.
func (j *job) adopt(ctx context.Context) error {
	cursor := ""
	for {
		var page api.SessionList
		err := j.sender.ask(ctx, func(ctx context.Context) (err error) {
			page, err = j.sender.api.Uploads(ctx, cursor, 100)
			return err
		})
		if err != nil {
			return err
		}
		for _, other := range page.Sessions {
			same := other.SessionID != j.s.SessionID && other.State == "open" && other.CapsuleID == j.s.CapsuleID && other.Meta.Name == j.f.Name &&
				other.Meta.Path == j.f.Dir && other.BytesReceived > 0 && other.BytesExpected != nil && *other.BytesExpected == j.size()
			if !same {
				continue
			}
			var st api.Session
			err := j.sender.ask(ctx, func(ctx context.Context) (err error) {
				st, err = j.sender.api.Status(ctx, other.SessionID, true)
				return err
			})
			if err != nil || len(st.CRC32C) == 0 || !j.agrees(st) {
				continue
			}
			j.sender.opts.Log.Info("found an upload of the same content", "file", j.f.Disk)
			err = j.abort(ctx)
			j.s = st
			return err
		}
		if cursor = page.NextCursor; cursor == "" {
			return nil
		}
	}
}

// agrees compares the chunks that a session has with those of the file.
func (j *job) agrees(s api.Session) bool {
	for idx, want := range s.CRC32C {
		var i int64
		if _, err := fmt.Sscan(idx, &i); err != nil {
			return false
		}
		off := i * s.ChunkSize
		h := newCRC()
		if _, err := io.Copy(h, io.NewSectionReader(j.disk, off, min(s.ChunkSize, j.size()-off))); err != nil || fmt.Sprintf("%08x", h.Sum32()) != want {
			return false
		}
	}
	return true
}

// finish sends what is missing and finishes, again where the server names more that is missing or
// bad, or the file was touched.
func (j *job) finish(ctx context.Context) (m api.Memory, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	j.sums = startSums(ctx, j.disk, j.size(), j.s.ChunkSize)
	defer j.sums.stop()
	todo, more := j.s.Missing, j.s.More
	var sum [32]byte
	var crcs []string
	for bad, rounds, touches := 0, 0, 0; ; rounds++ {
		if err := j.putAll(ctx, todo, bad > 0 || touches > 0); err != nil {
			return m, j.giveUp(ctx, err)
		}
		if more {
			if todo, more, err = j.missing(ctx); err != nil {
				return m, err
			}
			continue
		}
		j.sums.upTo(j.size())
		if touches == 0 {
			if sum, crcs, err = j.sums.wait(ctx); err != nil {
				return m, j.giveUp(ctx, err)
			}
		}
		switch _, touched, err := j.look(); {
		case err != nil:
			return m, j.giveUp(ctx, err)
		case touched && touches == mostReads:
			return m, j.giveUp(ctx, ErrChanged)
		case touched:
			touches++
			before := crcs
			if sum, crcs, err = j.digest(ctx, j.s.ChunkSize); err != nil {
				return m, j.giveUp(ctx, err)
			}
			if todo = unlike(before, crcs); len(todo) > 0 {
				j.sender.opts.Log.Warn("the file changed while it was sent: sending again what differs",
					"file", j.f.Disk)
			}
			continue
		}
		err = j.sender.ask(ctx, func(ctx context.Context) (err error) {
			m, err = j.sender.api.Finish(ctx, api.FinishRequest{
				SessionID: j.s.SessionID, SHA256: hex.EncodeToString(sum[:]), TotalLen: j.size(), ChunkCRC32C: crcs,
			})
			return err
		})
		var refused *api.Error
		if err == nil || !errors.As(err, &refused) || rounds > 100 {
			return m, err
		}
		switch {
		case refused.Code == api.CodeIncomplete:
			if todo, more, err = j.missing(ctx); err != nil {
				return m, err
			}
			bad = 0
			j.acked.Store(j.s.BytesReceived)
		case refused.Code == api.CodeChecksumMismatch && len(refused.Bad) > 0 && bad < 3:
			j.sender.opts.Log.Warn("the server has other bytes than the file: sending those chunks again",
				"file", j.f.Disk)
			todo, more = refused.Bad, false
			bad++
		default:
			return m, err
		}
	}
}

// unlike names the chunks whose CRC-32C is not the same in both.
func unlike(a, b []string) (chunks []api.Range) {
	for i := range int64(min(len(a), len(b))) {
		if a[i] != b[i] {
			chunks = append(chunks, api.Range{i, i})
		}
	}
	return chunks
}

// missing asks which chunks are not whole.
func (j *job) missing(ctx context.Context) ([]api.Range, bool, error) {
	err := j.sender.ask(ctx, func(ctx context.Context) (err error) {
		s, err := j.sender.api.Status(ctx, j.s.SessionID, false)
		if err == nil {
			j.s = s
		}
		return err
	})
	return j.s.Missing, j.s.More, err
}

func (j *job) abort(ctx context.Context) error {
	return j.sender.ask(ctx, func(ctx context.Context) error { return j.sender.api.Abort(ctx, j.s.SessionID) })
}

// giveUp returns why an upload ends. One of a file that has changed can't go on later, and is
// aborted.
func (j *job) giveUp(ctx context.Context, why error) error {
	if errors.Is(why, ErrChanged) {
		return errors.Join(why, j.abort(context.WithoutCancel(ctx)))
	}
	return why
}

// putAll puts ranges of chunks, in their order, as many at a time as the limiter lets. The content
// is hashed as far as it is on its way.
func (j *job) putAll(ctx context.Context, chunks []api.Range, replace bool) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, r := range chunks {
		for idx := r[0]; idx <= r[1]; idx++ {
			if j.sender.limiter.Acquire(ctx) != nil {
				break
			}
			j.sums.upTo((idx + 1) * j.s.ChunkSize)
			wg.Go(func() {
				defer j.sender.limiter.Release()
				if err := j.putChunk(ctx, idx, replace); err != nil {
					stop(err)
				}
			})
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}
