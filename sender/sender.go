// Package sender sends files to a Sluice server, whatever happens on the way: it is the client's counterpart of package upload.
//
// It owns how a file becomes chunks and requests: as many at a time as the link gives most with (package lanes), tried again with growing pauses, as smaller ranges where something
// between refuses whole chunks, going on where an earlier attempt stopped. It owns no flags, no terminal, and no state on disk: which session
// belongs to a file is told by its idem, which follows from the file's path, size and time of change.
//
//	hash the file, in order, as far as it is on its way ─┐
//	begin (idem) ─▶ missing chunks ─▶ put … put … put ─▶ finish (SHA-256, CRCs) ─▶ memory
//	                     ▲   server away: wait  │ refused or cut: ranges   │ incomplete, or bad chunks named
//	                     └──────────────────────┴──────────────────────────┘
package sender

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
	"sync"
	"time"

	"sluice/api"
	"sluice/internal/lanes"
)

// Options say how to send. Zero values take the defaults that are named.
type Options struct {
	Capsule string // default
	// Parallel is how many chunks are sent at a time, of all files together. 0: as many as the link gives most with, 1 to MaxParallel, which is found out on the way.
	Parallel int
	// Patience is how long to go on trying while not a byte is acknowledged (5 min).
	Patience time.Duration
	// Progress, if set, is told how much of a file is there: acknowledged, or on its way. It is called from several goroutines. total is -1 where it is not known. After a
	// cut done may go back.
	Progress func(f File, done, total int64)
	// Log, if set, is told what a user would want to know: waiting, resuming, falling back.
	Log *slog.Logger
}

// File names what is sent.
type File struct {
	Disk string // its path on this machine
	Name string
	Dir  string // the memory's path: where it was in the folder that is sent
	MIME string // "" lets the server say application/octet-stream
}

// MaxParallel is the most chunks at a time where their number is not given.
const MaxParallel = 16

// Sender sends to one server. It is safe for concurrent use.
type Sender struct {
	api *api.Client
	Options
	lanes *lanes.Lanes // for chunks

	once   sync.Mutex
	config *api.UploadConfig
}

var (
	// ErrChanged: the file changed while it was sent; nothing of it was stored.
	ErrChanged = errors.New("the file changed while it was sent")
	// ErrPatience: nothing has moved for Options.Patience. What was sent stays for the next attempt.
	ErrPatience = errors.New("giving up: nothing has moved for a long time")
)

// New makes a Sender.
func New(c *api.Client, o Options) *Sender {
	if o.Capsule == "" {
		o.Capsule = "default"
	}
	if o.Patience <= 0 {
		o.Patience = 5 * time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(File, int64, int64) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sender{api: c, Options: o, lanes: lanes.Adaptive(MaxParallel, time.Now)}
	if o.Parallel > 0 {
		s.lanes = lanes.Fixed(o.Parallel)
	}
	return s
}

// limits gives the server's, asked for once.
func (s *Sender) limits(ctx context.Context, w *waiter) (api.UploadConfig, error) {
	s.once.Lock()
	defer s.once.Unlock()
	if s.config == nil {
		var c api.UploadConfig
		err := w.try(ctx, func() (err error) {
			c, err = s.api.UploadConfig(ctx)
			return err
		})
		if err != nil {
			return c, err
		}
		s.config = &c
	}
	return *s.config, nil
}

// small is up to which size a file goes in one request, in bytes.
const small = 1 << 20

// Send stores one file, or goes on with it where an earlier Send stopped, however that ended. The same unchanged file again gives the same memory
// without sending a byte, while the server remembers it; if that memory was deleted, it is stored anew.
//
// Errors: ErrChanged, ErrPatience, *api.Error, those of the file, and ctx's.
func (s *Sender) Send(ctx context.Context, f File) (api.Memory, error) {
	// Before it is opened: opening a pipe would wait for its other end.
	info, err := os.Stat(f.Disk)
	if err != nil {
		return api.Memory{}, err
	}
	if !info.Mode().IsRegular() {
		return api.Memory{}, fmt.Errorf("%s is not a regular file", f.Disk)
	}
	disk, err := os.Open(f.Disk)
	if err != nil {
		return api.Memory{}, err
	}
	defer disk.Close()
	if info, err = disk.Stat(); err != nil {
		return api.Memory{}, err
	}
	abs, err := filepath.Abs(f.Disk)
	if err != nil {
		return api.Memory{}, err
	}
	w := newWaiter(s)
	limits, err := s.limits(ctx, w)
	if err != nil {
		return api.Memory{}, err
	}
	if info.Size() > limits.MaxBytes {
		return api.Memory{}, fmt.Errorf("%s has %d bytes, and the server takes %d", f.Disk, info.Size(), limits.MaxBytes)
	}
	j := &job{Sender: s, f: f, disk: disk, info: info, wait: w}
	for try := 0; ; try++ {
		j.idem = idemOf(abs, info, s.Capsule, f, try)
		m, deleted, err := j.send(ctx)
		if !deleted {
			return m, err
		}
		s.Log.Info("it was stored before and deleted since: storing it anew", "file", f.Disk)
	}
}

// idemOf names an unchanged file at its place. try counts its former memories that were deleted.
func idemOf(abs string, info os.FileInfo, capsule string, f File, try int) string {
	h := sha256.New()
	fmt.Fprintf(h, "sluice put 1\x00%s\x00%d\x00%d\x00%s\x00%s\x00%s\x00%d", abs, info.Size(), info.ModTime().UnixNano(), capsule, f.Dir, f.Name, try)
	return "put-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// unchanged compares the file with what it was at first.
func (j *job) unchanged() error {
	now, err := os.Stat(j.f.Disk)
	if err != nil {
		return err
	}
	if now.Size() != j.info.Size() || !now.ModTime().Equal(j.info.ModTime()) {
		return ErrChanged
	}
	return nil
}

// sendSmall stores the file in one request. ok is false where that did not get through: a session may.
func (j *job) sendSmall(ctx context.Context) (m api.Memory, deleted, ok bool, err error) {
	b := make([]byte, j.info.Size())
	if _, err := j.disk.ReadAt(b, 0); err != nil && err != io.EOF {
		return m, false, true, err
	}
	if err := j.unchanged(); err != nil {
		return m, false, true, err
	}
	sum := sha256.Sum256(b)
	body := &moving{r: newBytes(b), moved: func(n int64) {}}
	reqCtx, stop := body.watch(ctx)
	m, err = j.api.Create(reqCtx, api.CreateRequest{
		CapsuleID: j.Capsule, Name: j.f.Name, Path: j.f.Dir, Idem: j.idem, MIMEType: j.f.MIME, SHA256: &sum,
	}, body, int64(len(b)))
	stop()
	var refused *api.Error
	switch {
	case err == nil:
		j.Progress(j.f, int64(len(b)), int64(len(b)))
		return m, false, true, nil
	case errors.As(err, &refused) && refused.Deleted:
		return m, true, true, nil
	case errors.As(err, &refused) && refused.Permanent():
		return m, false, true, err
	}
	return m, false, false, ctx.Err()
}
