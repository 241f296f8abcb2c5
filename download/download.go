// Package download fetches one content into one file: in parallel ranges, resumable after
// kill -9 and power loss, verified by its SHA-256 before it gets its name.
//
// It is a workflow on the session engine, as uploading is: the pieces that have arrived are the
// entries of a session, kept in a journal beside the file; the [session.ByteSink] is the file. It
// owns the part file, what is read back to trust it, retries, and what finishing means. It does not
// own the protocol by which bytes come (that is the [Source]), nor any rule of sessions.
//
// # The files
//
//	DEST.sluice-part     the bytes, at their offsets, and behind them a mark of 48 bytes, which goes
//	                     when all are there
//	DEST.sluice-journal  which pieces of them have arrived, each with its CRC-32C
//	                     (neither lasts for a content of one piece, which is fetched into memory)
//	DEST                 the content, whole, once it is verified; a former file of that name is
//	                     replaced in one step
//
// Other files of these names are never changed, nor links followed: a journal is known by how it
// begins, a part by its mark, or by a piece in it that its journal has the CRC-32C of, or as all of
// the content. What is not known to be Get's own is an [InTheWayError].
//
// # What is trusted when
//
// A piece is recorded when it has been written, not when it is on the disk: that would cost a sync
// each. So a resumed download reads every recorded piece back and forgets those whose bytes are not
// the ones that were recorded. That finds what a power cut took. At the end
//
//	seal (durable) ─▶ sync the part ─▶ rename it to DEST ─▶ sync the folder
//	  ─▶ finished (durable) ─▶ remove the journal
//
// and a crash between two of these steps is settled by the next Get: the part is there, so
// nothing was renamed; or it isn't, and DEST has the SHA-256 or the download starts over.
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
	// chunkSize is the size in bytes of a recorded piece: what a cut connection or a kill can cost
	// each connection, against one synced line in the journal each.
	chunkSize = 2 << 20
	// requestSize is how many bytes one request asks for, if so many are missing in a row.
	requestSize = 8 << 20
	// maxRequests is how many requests run at a time at most where their number is not given.
	maxRequests = 16
	// defaultPatience is how long a Get goes on trying without a byte recorded.
	defaultPatience = 5 * time.Minute
	// maxParallel bounds Request.Parallel.
	maxParallel = 64
)

// Source is where the bytes come from. It always is the same content.
type Source interface {
	// Size is the content's length in bytes, ≥ 0.
	Size() int64
	// SHA256 is the content's digest.
	SHA256() [32]byte
	// Open gives the n ≥ 1 bytes from off on; off + n is at most Size. A body that ends earlier is
	// taken for cut, one that goes on is not read further. Both Open and the body's Read return
	// when ctx ends. An error that wraps ErrPermanent ends the download, any other is tried again.
	// It is called concurrently.
	Open(ctx context.Context, off, n int64) (io.ReadCloser, error)
}

// Request says what Get is to do.
type Request struct {
	Source Source
	// Dest is the file to be made. Its folder must exist; Dest+".sluice-part" and
	// Dest+".sluice-journal" are Get's own. A file that is replaced leaves its mode to the new one,
	// and its owner where that is allowed.
	Dest string
	// New: Dest must not be there at the end either, and is not replaced then (fs.ErrExist). What
	// was fetched stays.
	New bool
	// Parallel is how many requests run at a time, 1 to 64; 0 means as many as the link gives most
	// with, 1 to 16, which is found out on the way.
	Parallel int
	// Patience is how long to go on trying while nothing arrives; 0 means five minutes.
	Patience time.Duration
	// Progress, if set, is told how many bytes of the content are here, one call at a time. After a
	// cut done may go back a little.
	Progress func(done, total int64)
	// Pace, if set, is the back-off that this Get shares with others of the same server.
	Pace *backoff.Shared
	// Log, if set, is told of retries and of what had to be fetched again.
	Log *slog.Logger
	// Clock tells the time; nil means the system's.
	Clock session.Clock
}

var (
	// ErrPermanent is for a Source's errors that trying again won't cure.
	ErrPermanent = errors.New("not worth trying again")
	// ErrNoParts is for a Source's error that says that it gives no parts; after it the Source is
	// asked for all of the rest, in one request at a time.
	ErrNoParts = errors.New("only the whole can be had")
	// ErrPatience: nothing has arrived for as long as Request.Patience lasts. What has arrived
	// stays.
	ErrPatience = errors.New("giving up: nothing has arrived for a long time")
	// ErrBusy: another Get is at work on this Dest.
	ErrBusy = errors.New("another download of this file is running")
	// ErrDigest: the bytes that the Source gave are not those of its SHA-256. What was fetched is
	// thrown away.
	ErrDigest = errors.New("the content does not have the SHA-256 that it should have")
)

// LaterError is a Source's error that asks every request to wait.
type LaterError struct {
	Err   error
	After time.Duration // 0: it does not say for how long
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

	mu         sync.Mutex // of what follows
	recorded   int64      // recorded bytes
	unrecorded int64      // bytes that have arrived and are not recorded yet
	lastRecord time.Time  // when the last bytes were recorded
}

// Get makes r.Dest: it goes on where an earlier Get of the same content stopped, however that
// ended, and starts over where r.Dest was begun with another content. When nil is returned the file
// has its name, has the Source's SHA-256, and survives power loss; otherwise what has arrived stays
// for the next Get. Any number of Gets may run at once, of the same Dest only one (ErrBusy). ctx
// stops it at once.
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

// longest is how long a name may be with what is appended to it: file systems have a bound of 255
// bytes, and the journal appends something itself.
const maxName = 240

// beside names a file of Get's own. A long name is cut, and told from others by its hash.
func beside(dest, suffix string) string {
	dir, name := filepath.Split(dest)
	if len(name)+len(suffix) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = strings.ToValidUTF8(name[:maxName-len(suffix)-33], "") + "~" + hex.EncodeToString(sum[:16])
	}
	return dir + name + suffix
}

// open takes the journal. One that is damaged is worth no more than what it remembers: the download
// starts over.
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
		// A former Get was killed between the end of its session and that of its journal.
		same, err := hasContent(ctx, j.req.Dest, j.size, j.digest)
		if err != nil {
			return err
		}
		if same {
			j.report(j.size, 0)
			return errors.Join(j.removeFresh(), j.journal.Remove())
		}
		// The file was taken away since: once more from the start.
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
		// Nothing that is here may ever be used: neither by this Get nor by the next.
		err = errors.Join(err, j.engine.Abort(ctx, j.id, j.discard))
	}
	if err == nil || discarded {
		err = errors.Join(err, j.journal.Remove())
	}
	return err
}

// fill fetches what is missing, verifies the whole and gives it its name.
func (j *job) fill(ctx context.Context) error {
	// The length is set at once, whatever was left there: bytes that never arrived read as zeros.
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
		// Either the file does not hold what was written to it, which reading it back will tell, or
		// the Source is wrong.
		j.req.Log.Warn("the SHA-256 is wrong: reading back what has arrived")
	}
}

// errUseless marks an error after which what has arrived must not be kept.
var errDiscard = errors.New("what was fetched is thrown away")

// discard is the session.End that takes the part's name away.
func (j *job) discard(context.Context, []session.Session) (ended bool, err error) {
	return false, j.removePart()
}

// removePart takes the part's name away. Its bytes are of no use.
func (j *job) removePart() error {
	if named, err := durable.Named(j.part, j.req.partPath()); err != nil || !named {
		return err
	}
	if err := os.Remove(j.req.partPath()); err != nil {
		return err
	}
	return durable.SyncDir(durable.OS{}, filepath.Dir(j.req.Dest))
}

// report tells the caller how far the download is.
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
