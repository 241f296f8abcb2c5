// Package download fetches one content into one file: in parallel ranges, resumable after kill -9
// and power loss, verified by its SHA-256 before it gets its name.
//
// It is a workflow on the session engine, as uploading is. The chunks that have arrived are the
// entries of a session, kept in a journal beside the file. The [session.ByteSink] is the file. The
// package owns the part file, its check before a resume, retries, and the meaning of a finish. It
// does not own the protocol by which bytes come (that is the [Source]), nor any rule of sessions.
//
// # The files
//
//	DEST.sluice-part     the bytes, at their offsets, and behind them a mark of 48 bytes, which
//	                     goes when all are there
//	DEST.sluice-journal  the chunks of them that have arrived, each with its CRC-32C
//	                     (neither lasts for a content of one chunk, which is fetched into memory)
//	DEST                 the content, whole, once it is verified; a former file of that name is
//	                     replaced in one step
//
// Get never changes other files of these names, and follows no links. It knows a journal by its
// beginning. It knows a part by its mark, by a chunk in it whose CRC-32C its journal has, or by
// having all of the content. Any other file under these names is an [InTheWayError].
//
// # When bytes are trusted
//
// A chunk is recorded when it has been written, before it is on the disk: a sync for each would
// cost too much. So a resumed download reads every recorded chunk back, and drops those whose bytes
// differ from the recorded ones. That finds the bytes that a power loss took. At the end
//
//	seal (durable) ─▶ sync the part ─▶ rename it to DEST ─▶ sync the folder
//	  ─▶ finished (durable) ─▶ remove the journal
//
// The next Get recovers from a crash between two of these steps. If the part is there, nothing was
// renamed. If it is not, either DEST has the SHA-256, or the download starts over.
package download

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sluice/internal/backoff"
	"sluice/internal/concurrency"
	"sluice/internal/durable"
	"sluice/internal/system"
	"sluice/session"
	"sluice/session/journal"
)

const (
	// chunkSize is the size in bytes of a recorded chunk. Each connection may lose one chunk in a
	// cut or a kill; each chunk costs one synced frame in the journal.
	chunkSize = 2 << 20
	// requestSize is how many bytes one request asks for, if so many are missing in a row.
	requestSize = 8 << 20
	// maxRequests is how many requests run at a time at most, if Request.Parallel is 0.
	maxRequests = 16
	// defaultPatience is how long a Get goes on trying without a byte recorded.
	defaultPatience = 5 * time.Minute
	// maxParallel bounds Request.Parallel.
	maxParallel = 64
)

// Source is where the bytes come from. It always gives the same content.
type Source interface {
	// Size is the content's length in bytes, ≥ 0.
	Size() int64
	// SHA256 is the content's digest.
	SHA256() [32]byte
	// Open returns the n ≥ 1 bytes from offset off; off + n is at most Size. A body that ends
	// earlier counts as cut; a longer one is not read past n. Both Open and the body's Read return
	// when ctx ends. An error that wraps ErrPermanent ends the download; after any other the
	// request is made again. Open is called concurrently.
	Open(ctx context.Context, off, n int64) (io.ReadCloser, error)
}

// Request says what Get has to do.
type Request struct {
	Source Source
	// Dest is the path of the file. Its folder must exist. Dest+".sluice-part" and
	// Dest+".sluice-journal" are Get's own. A replaced file gives its mode to the new one, and its
	// owner if that is allowed.
	Dest string
	// New: if Dest exists at the end Get fails with fs.ErrExist and does not replace it. The
	// fetched bytes stay.
	New bool
	// Parallel is how many requests run at a time, 1 to 64. 0 means 1 to 16: Get finds out on the
	// way how many move the most bytes.
	Parallel int
	// Patience is how long to go on trying while nothing arrives; 0 means five minutes.
	Patience time.Duration
	// Progress, if set, gets the number of bytes that are here, one call at a time. The first call
	// says what an earlier Get has left. After a cut done may go back a little.
	Progress func(done, total int64)
	// Pace, if set, is the back-off that this Get shares with others of the same server.
	Pace *backoff.Shared
	// Log, if set, gets retries and the bytes that had to be fetched again.
	Log *slog.Logger
	// Clock tells the time; nil means the system's.
	Clock session.Clock
}

var (
	// ErrPermanent is for errors of a Source that a retry won't cure.
	ErrPermanent = errors.New("not worth trying again")
	// ErrNoParts is for errors of a Source that can't give parts. After it the Source is asked for
	// all of the rest in one request.
	ErrNoParts = errors.New("only the whole can be had")
	// ErrPatience: nothing has arrived for Request.Patience. Bytes that have arrived stay.
	ErrPatience = errors.New("giving up: nothing has arrived for a long time")
	// ErrBusy: another Get is at work on this Dest.
	ErrBusy = errors.New("another download of this file is running")
	// ErrDigest: the bytes that the Source gave do not have its SHA-256. The fetched bytes are
	// thrown away.
	ErrDigest = errors.New("the content does not have the SHA-256 that it should have")
)

// LaterError is a Source's error that makes all requests wait.
type LaterError struct {
	Err   error
	After time.Duration // how long; 0: unknown
}

func (e *LaterError) Error() string { return e.Err.Error() }
func (e *LaterError) Unwrap() error { return e.Err }

// job is one running Get.
type job struct {
	req     Request
	size    int64
	digest  [32]byte
	journal *journal.Journal
	engine  *session.Service
	id      session.SessionID
	limiter *concurrency.Limiter
	part    *os.File // locked
	fresh   bool     // the part was made by this Get
	serial  bool     // the Source gives no parts

	mu         sync.Mutex // of the fields below
	recorded   int64      // recorded bytes
	unrecorded int64      // bytes that have arrived and are not recorded yet
	lastRecord time.Time  // when the last bytes were recorded
}

// Get makes r.Dest. It goes on where an earlier Get of the same content stopped, however that
// ended, and starts over if r.Dest was begun with another content. When nil is returned the file
// has its name, has the Source's SHA-256, and survives power loss. Otherwise the fetched bytes stay
// for the next Get. Any number of Gets may run at once, but only one for each Dest (ErrBusy). The
// end of ctx stops it at once.
//
// Errors, which do not name r.Dest: ErrBusy, ErrDigest, those of Source that wrap ErrPermanent, the
// last one with ErrPatience, those of the file system.
func Get(ctx context.Context, r Request) (err error) {
	if r.Parallel < 0 || r.Parallel > maxParallel {
		return fmt.Errorf("download: parallel is %d, not 0 to %d", r.Parallel, maxParallel)
	}
	if r.Patience == 0 {
		r.Patience = defaultPatience
	}
	if r.Clock == nil {
		r.Clock = system.Clock{}
	}
	if r.Pace == nil {
		r.Pace = backoff.New(r.Clock.Now, system.Random{})
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	j := &job{
		req: r, size: r.Source.Size(), digest: r.Source.SHA256(),
		lastRecord: r.Clock.Now(), limiter: newLimiter(r.Parallel, r.Clock.Now),
	}
	if err := j.openPart(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.closePart()) }()
	hasJournal, err := journal.Is(j.req.journalPath())
	if err != nil {
		return err
	}
	if j.size <= chunkSize && !hasJournal {
		return j.getSmall(ctx)
	}
	if err := j.open(); err != nil {
		return errors.Join(err, j.removeFresh())
	}
	defer func() { err = errors.Join(err, j.journal.Close()) }()
	return j.run(ctx)
}

func newLimiter(parallel int, now func() time.Time) *concurrency.Limiter {
	if parallel > 0 {
		return concurrency.Fixed(parallel, now)
	}
	return concurrency.Adaptive(maxRequests, now)
}

func (r Request) partPath() string    { return beside(r.Dest, partSuffix) }
func (r Request) journalPath() string { return beside(r.Dest, journalSuffix) }

const partSuffix, journalSuffix = ".sluice-part", ".sluice-journal"

// maxName is the most bytes of a name with its suffix. File systems have a bound of 255 bytes, and
// the journal appends a suffix of its own.
const maxName = 240

// beside names a file of Get's own. A long name is truncated, and gets its hash.
func beside(dest, suffix string) string {
	dir, name := filepath.Split(dest)
	if len(name)+len(suffix) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = strings.ToValidUTF8(name[:maxName-len(suffix)-33], "") + "~" + hex.EncodeToString(sum[:16])
	}
	return dir + name + suffix
}

// open opens the journal. The download starts over if the journal is damaged.
func (j *job) open() error {
	if _, err := os.Lstat(j.req.journalPath()); err == nil {
		if is, err := journal.Is(j.req.journalPath()); err != nil || !is {
			return errors.Join(err, &InTheWayError{j.req.journalPath()})
		}
	}
	opened, err := journal.Open(j.req.journalPath())
	if errors.Is(err, journal.ErrDamaged) {
		j.req.Log.Warn("starting over", "why", err)
		if err := os.Remove(j.req.journalPath()); err != nil {
			return err
		}
		opened, err = journal.Open(j.req.journalPath())
	}
	if errors.Is(err, journal.ErrLocked) {
		return ErrBusy
	}
	if err != nil {
		return err
	}
	j.journal = opened
	return nil
}

// run does the download with the journal open.
func (j *job) run(ctx context.Context) error {
	s, created, err := j.begin(ctx)
	if err != nil {
		return err
	}
	if s.State == session.Finished {
		// A former Get was killed after the end of its session, before it had removed the journal.
		same, err := hasContent(ctx, j.req.Dest, j.size, j.digest)
		if err != nil {
			return err
		}
		if same {
			j.report(j.size, 0)
			return errors.Join(j.removeFresh(), j.journal.Remove())
		}
		// The file was removed since: begin once more.
		if err := j.journal.Remove(); err != nil {
			return err
		}
		if err := j.open(); err != nil {
			return err
		}
		if s, created, err = j.begin(ctx); err != nil {
			return err
		}
	}
	j.id = s.ID
	if created {
		err = j.part.Truncate(0)
	}
	if err == nil {
		err = j.fill(ctx)
	}
	discarded := errors.Is(err, errDiscard)
	if discarded {
		// Neither this Get nor the next one may use any byte that is here.
		err = errors.Join(err, j.engine.Abort(ctx, j.id, j.discard))
	}
	if err == nil || discarded {
		err = errors.Join(err, j.journal.Remove())
	}
	return err
}

// fill fetches the missing bytes, verifies the whole and gives it its name.
func (j *job) fill(ctx context.Context) error {
	// The length is set at once, whatever the file had: bytes that never arrived read as zeros.
	if err := j.writeMark(j.part); err != nil {
		return err
	}
	for refetched := false; ; refetched = true {
		if err := j.recheck(ctx); err != nil {
			return err
		}
		gen, sum, err := j.fetch(ctx)
		if err != nil {
			return err
		}
		if sum == j.digest {
			return j.finish(ctx, gen)
		}
		if refetched {
			return fmt.Errorf("%w: %w", errDiscard, ErrDigest)
		}
		// Either the file has lost written bytes, which reading it back will find, or the Source is
		// wrong.
		j.req.Log.Warn("the SHA-256 is wrong: reading back what has arrived")
	}
}

// errDiscard marks an error after which no fetched byte may be kept.
var errDiscard = errors.New("what was fetched is thrown away")

// discard is the session.End that removes the part.
func (j *job) discard(context.Context, []session.Session) (ended bool, err error) {
	return false, j.removePart()
}

// removePart removes the part, if it still has its name. Nobody needs its bytes.
func (j *job) removePart() error {
	if named, err := durable.Named(j.part, j.req.partPath()); err != nil || !named {
		return err
	}
	if err := os.Remove(j.req.partPath()); err != nil {
		return err
	}
	return durable.SyncDir(durable.OS{}, filepath.Dir(j.req.Dest))
}

// report adds to the counts of recorded and unrecorded bytes, and reports the progress.
func (j *job) report(recorded, unrecorded int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.recorded += recorded
	j.unrecorded += unrecorded
	if recorded > 0 {
		j.lastRecord = j.req.Clock.Now()
	}
	if j.req.Progress != nil {
		j.req.Progress(min(j.recorded+max(j.unrecorded, 0), j.size), j.size)
	}
}
