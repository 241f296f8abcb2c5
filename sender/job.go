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
	*Sender
	f    File
	disk *os.File
	info os.FileInfo
	idem string
	wait *waiter

	s      api.Session
	sums   *sums
	acked  atomic.Int64 // bytes
	flying atomic.Int64
}

func (j *job) size() int64 { return j.info.Size() }

func (j *job) report() {
	j.Progress(j.f, max(min(j.acked.Load()+j.flying.Load(), j.size()), 0), j.size())
}

// send stores the file under its idem. deleted says that the memory which the idem stands for is gone.
func (j *job) send(ctx context.Context) (m api.Memory, deleted bool, err error) {
	if j.size() <= small {
		if m, deleted, ok, err := j.sendSmall(ctx); ok || err != nil {
			return m, deleted, err
		}
	}
	for lives := 0; ; lives++ {
		if m, done, deleted, err := j.begin(ctx); err != nil || done || deleted {
			return m, deleted, err
		}
		m, err := j.finish(ctx)
		var refused *api.Error
		if errors.As(err, &refused) && lives < 3 {
			switch refused.Code {
			case api.CodeSessionExpired, api.CodeAlreadyAborted, api.CodeNotFound, api.CodeAlreadyFinished:
				// It was ended by somebody else: the idem tells what there is now.
				j.Log.Info("the upload was ended elsewhere: beginning again", "file", j.f.Disk, "because", refused.Code)
				continue
			}
		}
		return m, false, err
	}
}

// begin gives j its session; done is true where the file is stored already.
func (j *job) begin(ctx context.Context) (m api.Memory, done, deleted bool, err error) {
	size := j.size()
	req := api.BeginRequest{
		CapsuleID: j.Capsule, Idem: j.idem,
		Meta: api.Meta{Name: j.f.Name, Path: j.f.Dir, MIMEType: j.f.MIME, Bytes: &size},
	}
	err = j.wait.try(ctx, func() (err error) {
		j.s, err = j.api.Begin(ctx, req)
		return err
	})
	if err != nil {
		return m, false, false, err
	}
	if j.s.State == "finished" {
		if j.s.Deleted {
			return m, false, true, nil
		}
		err = j.wait.try(ctx, func() (err error) {
			m, err = j.api.ReadMemory(ctx, j.s.MemoryID)
			return err
		})
		j.Progress(j.f, size, size)
		return m, true, false, err
	}
	if j.s.BytesReceived == 0 && size > j.s.ChunkSize {
		if err := j.adopt(ctx); err != nil {
			return m, false, false, err
		}
	}
	if j.s.BytesReceived > 0 {
		j.Log.Info("going on", "file", j.f.Disk, "bytes_there", j.s.BytesReceived, "bytes", size)
	}
	j.acked.Store(j.s.BytesReceived)
	j.report()
	return m, false, false, nil
}

// adopt looks for an open upload of the same content under another idem: the file was moved, or touched, since. All that it
// has must be what the file has.
func (j *job) adopt(ctx context.Context) error {
	cursor := ""
	for {
		var page api.SessionList
		err := j.wait.try(ctx, func() (err error) {
			page, err = j.api.Uploads(ctx, cursor, 100)
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
			st, err := j.api.Status(ctx, other.SessionID, true)
			if err != nil || len(st.CRC32C) == 0 || !j.agrees(st) {
				continue
			}
			j.Log.Info("found an upload of the same content", "file", j.f.Disk)
			if err := j.api.Abort(ctx, j.s.SessionID); err != nil {
				return err
			}
			j.s = st
			return nil
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

// finish sends what is missing and finishes, again where the server names more that is missing or bad.
func (j *job) finish(ctx context.Context) (m api.Memory, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	j.sums = startSums(ctx, j.disk, j.size(), j.s.ChunkSize)
	defer j.sums.stop()
	todo, more := j.s.Missing, j.s.More
	for bad, rounds := 0, 0; ; rounds++ {
		if err := j.putAll(ctx, todo, bad > 0); err != nil {
			if errors.Is(err, ErrChanged) {
				err = j.giveUp(ctx, err)
			}
			return m, err
		}
		if more {
			if todo, more, err = j.missing(ctx); err != nil {
				return m, err
			}
			continue
		}
		j.sums.upTo(j.size())
		sum, crcs, err := j.sums.wait(ctx)
		if err != nil {
			return m, err
		}
		if err := j.unchanged(); err != nil {
			return m, j.giveUp(ctx, err)
		}
		err = j.wait.try(ctx, func() (err error) {
			m, err = j.api.Finish(ctx, api.FinishRequest{SessionID: j.s.SessionID, SHA256: hex.EncodeToString(sum[:]), TotalLen: j.size(), ChunkCRC32C: crcs})
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
			j.Log.Warn("the server has other bytes than the file: sending those chunks again", "file", j.f.Disk)
			todo, more = refused.Bad, false
			bad++
		default:
			return m, err
		}
	}
}

// missing asks which chunks are not whole.
func (j *job) missing(ctx context.Context) ([]api.Range, bool, error) {
	err := j.wait.try(ctx, func() (err error) {
		s, err := j.api.Status(ctx, j.s.SessionID, false)
		if err == nil {
			j.s = s
		}
		return err
	})
	return j.s.Missing, j.s.More, err
}

// giveUp aborts an upload that can't be finished any more, and returns why.
func (j *job) giveUp(ctx context.Context, why error) error {
	return errors.Join(why, j.api.Abort(ctx, j.s.SessionID))
}

// putAll puts ranges of chunks, in their order, as many at a time as there are lanes. The content is hashed as far as it is on its way.
func (j *job) putAll(ctx context.Context, chunks []api.Range, replace bool) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, r := range chunks {
		for idx := r[0]; idx <= r[1]; idx++ {
			if j.lanes.Enter(ctx) != nil {
				break
			}
			j.sums.upTo((idx + 1) * j.s.ChunkSize)
			wg.Go(func() {
				defer j.lanes.Leave()
				if err := j.putChunk(ctx, idx, replace); err != nil {
					stop(err)
				}
			})
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}
