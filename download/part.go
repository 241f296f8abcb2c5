package download

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"sluice/internal/durable"
	"sluice/session"
)

// chunkSink is the sink of one chunk. It writes into the part file and computes the CRC-32C.
type chunkSink struct {
	j       *job
	table   *crc32.Table
	written session.Range
	crc     uint32
	err     error // the disk's
}

func (j *job) newChunkSink(r session.Range) *chunkSink {
	return &chunkSink{j: j, table: crc32.MakeTable(crc32.Castagnoli), written: session.Range{Off: r.Off, End: r.Off}}
}

// WriteAt implements session.ByteSink.
func (s *chunkSink) WriteAt(b []byte, off int64) (int, error) {
	n, err := s.j.part.WriteAt(b, off)
	if err != nil {
		s.err = err
		return n, err
	}
	s.crc = crc32.Update(s.crc, s.table, b)
	s.written.End += int64(n)
	return n, nil
}

// Commit implements session.Committer. The bytes survive the death of the process. recheck finds
// bytes that a power loss takes.
func (s *chunkSink) Commit(_ context.Context, r session.Range) ([]byte, error) {
	if r != s.written {
		return nil, fmt.Errorf("bytes %v were written, not %v", s.written, r)
	}
	durable.WriteBack(s.j.part, r.Off, r.Len()) // so that little is left for the sync at the end
	return binary.BigEndian.AppendUint32(nil, s.crc), nil
}

// Recorded implements session.Committer.
func (s *chunkSink) Recorded(session.Session) {}

// Undo leaves the written bytes: the next put of these bytes overwrites them.
func (s *chunkSink) Undo([]session.Range) {}

// recheck reads every recorded chunk back, and drops those whose bytes differ from the recorded
// ones.
func (j *job) recheck(ctx context.Context) error {
	entries, err := j.engine.Entries(ctx, j.id, session.All(), 0)
	if err != nil {
		return err
	}
	var good, dropped int64
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if holds(j.part, e) {
			good += e.Len()
			continue
		}
		// A chunk that can't be read is dropped like one that has changed.
		if _, _, err := j.engine.Drop(ctx, j.id, e.Range, nil); err != nil {
			return err
		}
		dropped += e.Len()
	}
	if dropped > 0 {
		j.req.Log.Warn("some of what had arrived is lost, and is fetched again", "bytes", dropped)
	}
	j.mu.Lock()
	j.recorded, j.unrecorded = 0, 0
	j.mu.Unlock()
	j.report(good, 0)
	return nil
}

// onlyWriter hides other methods, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// hashPart hashes the file while its received prefix grows. It returns the SHA-256 of the whole,
// and the generation of the session that it holds for.
func (j *job) hashPart(ctx context.Context) (gen uint64, sum [32]byte, err error) {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	s, err := j.engine.Status(ctx, j.id)
	for at := int64(0); err == nil; {
		if err := s.State.Err(); err != nil {
			return 0, sum, err
		}
		end := s.Prefix()
		if _, err := io.CopyBuffer(onlyWriter{h}, io.NewSectionReader(j.part, at, end-at), buf); err != nil {
			return 0, sum, fmt.Errorf("reading back for the SHA-256: %w", err)
		}
		if at = end; at == j.size {
			return s.Gen, [32]byte(h.Sum(nil)), nil
		}
		s, err = j.engine.Wait(ctx, j.id, s.Rev)
	}
	return 0, sum, err
}

// finish gives the verified file its name. See the package comment for the steps.
func (j *job) finish(ctx context.Context, gen uint64) error {
	err := j.engine.Finish(ctx, j.publish, session.Verified{ID: j.id, Gen: gen, Bytes: j.size})
	if errors.Is(err, errNotSynced) {
		// The disk may have discarded pages without a trace, so reading the file back proves
		// nothing.
		return fmt.Errorf("%w: %w", errDiscard, err)
	}
	return err
}

var errNotSynced = errors.New("the disk did not keep the file")

// publish is the session.End of a download. Its rename is the commit.
func (j *job) publish(context.Context, []session.Session) (ended bool, err error) {
	if err := j.part.Truncate(j.size); err != nil {
		return false, err
	}
	if err := j.keepModeAndOwner(); err != nil {
		return false, err
	}
	if err := j.part.Sync(); err != nil {
		return false, fmt.Errorf("%w: %w", errNotSynced, err)
	}
	// Another program may have taken the name since the part was opened.
	if named, err := durable.Named(j.part, j.req.partPath()); err != nil || !named {
		return false, errors.Join(err, &InTheWayError{j.req.partPath()})
	}
	rename := os.Rename
	if j.req.New {
		rename = durable.RenameNew
	}
	if err := rename(j.req.partPath(), j.req.Dest); err != nil {
		return false, err
	}
	if named, err := durable.Named(j.part, j.req.Dest); err != nil || !named {
		return false, errors.Join(err, fmt.Errorf("another program has replaced %s", j.req.Dest))
	}
	if err := durable.SyncDir(durable.OS{}, filepath.Dir(j.req.Dest)); err != nil {
		return false, fmt.Errorf("%w: %w", session.ErrUnknownOutcome, err)
	}
	return false, nil
}

// keepModeAndOwner gives the part the mode and, if that is allowed, the owner of the file that it
// replaces.
func (j *job) keepModeAndOwner() error {
	info, err := os.Lstat(j.req.Dest)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = j.part.Chown(int(owner.Uid), int(owner.Gid))
	}
	return j.part.Chmod(info.Mode().Perm())
}

// hasContent reports whether the file at path is there and has this content.
func hasContent(ctx context.Context, path string, size int64, digest [32]byte) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return false, err
	}
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for err == nil && ctx.Err() == nil {
		var n int
		n, err = f.Read(buf)
		h.Write(buf[:n])
	}
	if err != nil && err != io.EOF {
		return false, err
	}
	return [32]byte(h.Sum(nil)) == digest, ctx.Err()
}
