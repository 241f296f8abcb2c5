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

// transfer is the sending of one file.
type transfer struct {
	sender *Sender
	f      File
	disk   *os.File
	state  state // of the file, at the time of the hashing
	idem   string
	// ticket says that the caller has an upload ticket: it may neither create in one request nor
	// read memories.
	ticket bool

	session  api.Session
	sums     *sums
	acked    atomic.Int64 // bytes
	inFlight atomic.Int64
}

func (t *transfer) size() int64 { return t.state.size }

func (t *transfer) report() {
	t.sender.opts.Progress(t.f, max(min(t.acked.Load()+t.inFlight.Load(), t.size()), 0), t.size())
}

// sendAs stores the file under its idem. other says why the memory of that idem is not the file's.
func (t *transfer) sendAs(ctx context.Context) (m api.Memory, other outdated, err error) {
	if t.size() <= maxSmall && !t.ticket {
		if m, other, ok, err := t.sendSmall(ctx); ok || err != nil {
			return m, other, err
		}
	}
	for begins := 0; ; begins++ {
		if m, done, other, err := t.begin(ctx); err != nil || done || other != "" {
			return m, other, err
		}
		m, err := t.finish(ctx)
		var refused *api.Error
		if errors.As(err, &refused) && begins < 3 {
			switch refused.Code {
			case api.CodeSessionExpired, api.CodeAlreadyAborted, api.CodeNotFound, api.CodeAlreadyFinished:
				// Another client has ended it: a begin with the idem shows the present state.
				t.sender.opts.Log.Info("the upload was ended elsewhere: beginning again",
					"file", t.f.Disk, "because", refused.Code)
				continue
			}
		}
		return m, "", err
	}
}

// begin gives t its session; done is true if the file is stored already.
func (t *transfer) begin(ctx context.Context) (m api.Memory, done bool, other outdated, err error) {
	size := t.size()
	req := api.BeginRequest{
		CapsuleID: t.sender.opts.Capsule, Idem: t.idem,
		Meta: api.Meta{Name: t.f.Name, Path: t.f.Dir, MIMEType: t.f.MIME, Bytes: &size},
	}
	err = t.sender.retry(ctx, func(ctx context.Context) (err error) {
		t.session, err = t.sender.api.Begin(ctx, req)
		return err
	})
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeIdempotencyConflict {
		return m, false, differs, nil
	}
	if err != nil {
		return m, false, "", err
	}
	if t.session.State == "finished" {
		m, other, err = t.stored(ctx)
		return m, true, other, err
	}
	if t.session.BytesReceived == 0 && size > t.session.ChunkSize {
		if err := t.adoptOther(ctx); err != nil {
			return m, false, "", err
		}
	}
	if t.session.BytesReceived > 0 {
		t.sender.opts.Log.Info("going on", "file", t.f.Disk, "bytes_there", t.session.BytesReceived, "bytes", size)
	}
	t.acked.Store(t.session.BytesReceived)
	t.report()
	return m, false, "", nil
}

// stored returns the memory of a finished session, if it still is that of the file.
func (t *transfer) stored(ctx context.Context) (m api.Memory, other outdated, err error) {
	if t.session.Deleted {
		return m, deleted, nil
	}
	if t.ticket {
		return t.finishedBefore(ctx)
	}
	err = t.sender.retry(ctx, func(ctx context.Context) (err error) {
		m, err = t.sender.api.ReadMemory(ctx, t.session.MemoryID)
		return err
	})
	if err != nil {
		return m, "", err
	}
	if t.state.mayHaveChanged(t.session.CreatedAt.Time) {
		sum, _, err := t.digest(ctx, max(t.size(), 1))
		if err != nil {
			return m, "", err
		}
		if hex.EncodeToString(sum[:]) != m.SHA256 {
			return m, differs, nil
		}
	}
	t.sender.opts.Progress(t.f, t.size(), t.size())
	return m, "", nil
}

// finishedBefore is stored for a ticket: it repeats the finish, which answers with the memory, and
// compares the file with it.
func (t *transfer) finishedBefore(ctx context.Context) (m api.Memory, other outdated, err error) {
	sum, _, err := t.digest(ctx, max(t.size(), 1))
	if err != nil {
		return m, "", err
	}
	err = t.sender.retry(ctx, func(ctx context.Context) (err error) {
		m, err = t.sender.api.Finish(ctx, api.FinishRequest{
			SessionID: t.session.SessionID, SHA256: hex.EncodeToString(sum[:]), TotalLen: t.size(),
		})
		return err
	})
	var refused *api.Error
	if errors.As(err, &refused) {
		switch {
		case refused.Deleted:
			return m, deleted, nil
		case refused.Code == api.CodeAlreadyFinished, refused.Code == api.CodeChecksumMismatch:
			return m, differs, nil
		}
	}
	if err == nil {
		t.sender.opts.Progress(t.f, t.size(), t.size())
	}
	return m, "", err
}

// adoptOther looks for an open upload of the same content under another idem: the file may have
// been moved or touched since. All received bytes of that upload must be those of the file.
func (t *transfer) adoptOther(ctx context.Context) error {
	cursor := ""
	for {
		var page api.SessionList
		err := t.sender.retry(ctx, func(ctx context.Context) (err error) {
			page, err = t.sender.api.Uploads(ctx, cursor, 100)
			return err
		})
		if err != nil {
			return err
		}
		for _, other := range page.Sessions {
			if !t.mayAdopt(&other) {
				continue
			}
			var st api.Session
			err := t.sender.retry(ctx, func(ctx context.Context) (err error) {
				st, err = t.sender.api.Status(ctx, other.SessionID, true)
				return err
			})
			if err != nil || len(st.CRC32C) == 0 || !t.matches(st) {
				continue
			}
			t.sender.opts.Log.Info("found an upload of the same content", "file", t.f.Disk)
			err = t.abort(ctx)
			t.session = st
			return err
		}
		if cursor = page.NextCursor; cursor == "" {
			return nil
		}
	}
}

// mayAdopt reports whether another session is an open one of a file with the same name and length,
// and has received bytes.
func (t *transfer) mayAdopt(other *api.Session) bool {
	return other.SessionID != t.session.SessionID && other.State == "open" &&
		other.CapsuleID == t.session.CapsuleID && other.Meta.Name == t.f.Name && other.Meta.Path == t.f.Dir &&
		other.BytesReceived > 0 && other.BytesExpected != nil && *other.BytesExpected == t.size()
}

// matches compares the received chunks of a session with those of the file.
func (t *transfer) matches(s api.Session) bool {
	for idx, want := range s.CRC32C {
		var i int64
		if _, err := fmt.Sscan(idx, &i); err != nil {
			return false
		}
		off := i * s.ChunkSize
		h := newCRC()
		chunk := io.NewSectionReader(t.disk, off, min(s.ChunkSize, t.size()-off))
		if _, err := io.Copy(h, chunk); err != nil || fmt.Sprintf("%08x", h.Sum32()) != want {
			return false
		}
	}
	return true
}

// finish sends the missing chunks and finishes. It repeats that if the server names more missing or
// bad chunks, or if the file has changed.
func (t *transfer) finish(ctx context.Context) (m api.Memory, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	t.sums = startSums(ctx, t.disk, t.size(), t.session.ChunkSize)
	defer t.sums.stop()
	todo, more := t.session.Missing, t.session.More
	var sum [32]byte
	var crcs []string
	for bad, rounds, touches := 0, 0, 0; ; rounds++ {
		if err := t.putAll(ctx, todo, bad > 0 || touches > 0); err != nil {
			return m, t.giveUp(ctx, err)
		}
		if more {
			if todo, more, err = t.missing(ctx); err != nil {
				return m, err
			}
			continue
		}
		t.sums.upTo(t.size())
		if touches == 0 {
			if sum, crcs, err = t.sums.wait(ctx); err != nil {
				return m, t.giveUp(ctx, err)
			}
		}
		switch _, touched, err := t.compareState(); {
		case err != nil:
			return m, t.giveUp(ctx, err)
		case touched && touches == maxReads:
			return m, t.giveUp(ctx, ErrChanged)
		case touched:
			touches++
			before := crcs
			if sum, crcs, err = t.digest(ctx, t.session.ChunkSize); err != nil {
				return m, t.giveUp(ctx, err)
			}
			if todo = differing(before, crcs); len(todo) > 0 {
				t.sender.opts.Log.Warn("the file changed while it was sent: sending again what differs",
					"file", t.f.Disk)
			}
			continue
		}
		err = t.sender.retry(ctx, func(ctx context.Context) (err error) {
			m, err = t.sender.api.Finish(ctx, api.FinishRequest{
				SessionID: t.session.SessionID, SHA256: hex.EncodeToString(sum[:]),
				TotalLen: t.size(), ChunkCRC32C: crcs,
			})
			return err
		})
		var refused *api.Error
		if err == nil || !errors.As(err, &refused) || rounds > 100 {
			return m, err
		}
		switch {
		case refused.Code == api.CodeIncomplete:
			if todo, more, err = t.missing(ctx); err != nil {
				return m, err
			}
			bad = 0
			t.acked.Store(t.session.BytesReceived)
		case refused.Code == api.CodeChecksumMismatch && len(refused.Bad) > 0 && bad < 3:
			t.sender.opts.Log.Warn("the server has other bytes than the file: sending those chunks again",
				"file", t.f.Disk)
			todo, more = refused.Bad, false
			bad++
		default:
			return m, err
		}
	}
}

// differing lists the chunks whose CRC-32Cs differ.
func differing(a, b []string) (chunks []api.Range) {
	for i := range int64(min(len(a), len(b))) {
		if a[i] != b[i] {
			chunks = append(chunks, api.Range{i, i})
		}
	}
	return chunks
}

// missing asks for the chunks that are not whole.
func (t *transfer) missing(ctx context.Context) ([]api.Range, bool, error) {
	err := t.sender.retry(ctx, func(ctx context.Context) (err error) {
		s, err := t.sender.api.Status(ctx, t.session.SessionID, false)
		if err == nil {
			t.session = s
		}
		return err
	})
	return t.session.Missing, t.session.More, err
}

func (t *transfer) abort(ctx context.Context) error {
	return t.sender.retry(ctx, func(ctx context.Context) error { return t.sender.api.Abort(ctx, t.session.SessionID) })
}

// giveUp returns the reason why an upload ends. The upload of a changed file can't go on later, so
// giveUp aborts it.
func (t *transfer) giveUp(ctx context.Context, why error) error {
	if errors.Is(why, ErrChanged) {
		return errors.Join(why, t.abort(context.WithoutCancel(ctx)))
	}
	return why
}

// putAll puts ranges of chunks, in order, as many at a time as the limiter lets. Hashing may
// advance as far as the chunks that were begun.
func (t *transfer) putAll(ctx context.Context, chunks []api.Range, replace bool) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, r := range chunks {
		for idx := r[0]; idx <= r[1]; idx++ {
			if t.sender.limiter.Acquire(ctx) != nil {
				break
			}
			t.sums.upTo((idx + 1) * t.session.ChunkSize)
			wg.Go(func() {
				defer t.sender.limiter.Release()
				if err := t.putChunk(ctx, idx, replace); err != nil {
					stop(err)
				}
			})
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}
