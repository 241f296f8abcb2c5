// Package sender sends files to a Sluice server, whatever happens on the way. It is the client's
// counterpart of package upload.
//
// It owns how a file becomes chunks and requests. It sends as many at a time as move the most bytes
// (package concurrency), retries with growing pauses, sends smaller ranges if something on the way
// refuses whole chunks, and goes on where an earlier attempt stopped. It owns no flags, no
// terminal, and no state on disk. A file finds its session by its idem, which follows from the
// file's path and from what its inode says of it.
//
//	hash the file, in order, as far as it is on its way ─┐
//	begin (idem) ─▶ missing chunks ─▶ put … put … put ─▶ finish (SHA-256, CRCs) ─▶ memory
//	                     ▲   server away: wait  │ refused, cut: ranges │ incomplete, bad chunks
//	                     └──────────────────────┴──────────────────────┘
package sender

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"sluice/api"
	"sluice/internal/backoff"
	"sluice/internal/concurrency"
	"sluice/internal/system"
)

// Clock tells the time.
type Clock interface{ Now() time.Time }

// Options say how to send. A zero value takes the default in parentheses.
type Options struct {
	Capsule string // ("default")
	// Parallel is how many chunks are sent at a time, of all files together. 0 means 1 to
	// MaxParallel: the Sender finds out on the way how many move the most bytes.
	Parallel int
	// Patience is how long to go on while not a byte is acknowledged (5 min).
	Patience time.Duration
	// Progress, if set, gets how many bytes of a file are acknowledged or on their way. It is
	// called from several goroutines. total is -1 if it is not known. After a cut done may go back.
	Progress func(f File, done, total int64)
	// Log, if set, gets messages for users: waiting, resuming, sending smaller ranges.
	Log *slog.Logger
	// Clock (the system's) and Rand (crypto/rand) are safe for concurrent use.
	Clock Clock
	Rand  io.Reader
}

// File names a file to send.
type File struct {
	Disk string // its path on this machine
	Name string
	Dir  string // the memory's path: the file's place in the folder that is sent
	MIME string // "" lets the server say application/octet-stream
}

// MaxParallel is how many chunks are sent at a time at most, if Options.Parallel is 0.
const MaxParallel = 16

// Sender sends to one server. It is safe for concurrent use.
type Sender struct {
	api     *api.Client
	opts    Options
	limiter *concurrency.Limiter // for chunks
	backOff *backoff.Shared      // of all requests

	configLock chan struct{} // holds one element during a request for config
	config     *api.UploadConfig

	mu           sync.Mutex // of the fields below
	waitReported bool       // the Log has said that the server is waited for
	unusableErr  error      // why no request can succeed; nil if one may
	tooLarge     int64      // length of the shortest body that was refused for its length; 0: none
}

var (
	// ErrChanged: the file kept changing while it was sent. Nothing of it was stored.
	ErrChanged = errors.New("the file changed while it was sent, and nothing of it was stored; " +
		"put it again when it is at rest, or what it has now: cat FILE | sluice put - --name NAME")
	// ErrPatience: nothing has moved for Options.Patience. The bytes sent so far stay for the next
	// attempt.
	ErrPatience = errors.New("giving up: nothing has moved for a long time")
	// ErrServer: the server can't be used at all. It does not know the token, or the address is not
	// that of a Sluice server. All Sends fail with it.
	ErrServer = errors.New("nothing can be stored there")
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
	if o.Clock == nil {
		o.Clock = system.Clock{}
	}
	if o.Rand == nil {
		o.Rand = system.Random{}
	}
	limiter := concurrency.Adaptive(MaxParallel, o.Clock.Now)
	if o.Parallel > 0 {
		limiter = concurrency.Fixed(o.Parallel, o.Clock.Now)
	}
	backOff := backoff.New(o.Clock.Now, o.Rand)
	return &Sender{api: c, opts: o, configLock: make(chan struct{}, 1), limiter: limiter, backOff: backOff}
}

// Capsule is the capsule that files are stored in.
func (s *Sender) Capsule() string { return s.opts.Capsule }

// limits returns the server's limits. It asks for them once.
func (s *Sender) limits(ctx context.Context) (api.UploadConfig, error) {
	select {
	case s.configLock <- struct{}{}:
		defer func() { <-s.configLock }()
	case <-ctx.Done():
		return api.UploadConfig{}, context.Cause(ctx)
	}
	if s.config == nil {
		var c api.UploadConfig
		err := s.retry(ctx, func(ctx context.Context) (err error) {
			c, err = s.api.UploadConfig(ctx)
			return err
		})
		if err != nil {
			if ctx.Err() == nil {
				s.markUnusable(err) // other Sends fail at once
				err = s.unusable()
			}
			return c, err
		}
		s.config = &c
	}
	return *s.config, nil
}

// markUnusable notes that no request can succeed.
func (s *Sender) markUnusable(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unusableErr == nil && !errors.Is(why, ErrServer) {
		s.unusableErr = &serverError{why}
	}
}

func (s *Sender) unusable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unusableErr
}

// serverError is ErrServer, and reads as its reason.
type serverError struct{ error }

func (e *serverError) Unwrap() []error { return []error{e.error, ErrServer} }

// maxSmall is the largest size, in bytes, of a file that goes in one request.
const maxSmall = 1 << 20

// Send stores one file, or goes on with it where an earlier Send stopped, however that ended. The
// same unchanged file gives the same memory without sending a byte, while the server remembers it.
// If that memory was deleted, or has other bytes than the file, the file is stored anew. A file
// whose length is not the one that the system reports (in /proc, /sys) is read to its end and
// stored as by SendPipe.
//
// Errors: ErrChanged, ErrPatience, ErrServer, *api.Error, those of the file, and ctx's.
func (s *Sender) Send(ctx context.Context, f File) (api.Memory, error) {
	disk, st, err := open(f.Disk)
	if err != nil {
		return api.Memory{}, err
	}
	defer disk.Close()
	abs, err := filepath.Abs(f.Disk)
	if err != nil {
		return api.Memory{}, err
	}
	limits, err := s.limits(ctx)
	if err != nil {
		return api.Memory{}, err
	}
	exact, err := st.sizeIsExact(disk)
	if err != nil {
		return api.Memory{}, err
	}
	if !exact {
		return s.SendPipe(ctx, f, disk)
	}
	if err := fits(st.size, s.opts.Capsule, limits); err != nil {
		return api.Memory{}, err
	}
	t := &transfer{sender: s, f: f, disk: disk, state: st, ticket: limits.Ticket != nil}
	for try := 0; try < maxNames; try++ {
		t.idem = idemOf(abs, st, s.opts.Capsule, f, try)
		m, other, err := t.sendAs(ctx)
		if other == "" || err != nil {
			return m, err
		}
		s.opts.Log.Info(string(other)+": storing it anew", "file", f.Disk)
	}
	return api.Memory{}, errors.New("the server has other bytes under every name that this file has had")
}

// fits says why a file of n bytes can't be stored in the capsule, if the limits say so already.
func fits(n int64, capsule string, limits api.UploadConfig) error {
	switch t := limits.Ticket; {
	case t != nil && t.CapsuleID != capsule:
		return fmt.Errorf(
			"it can't be stored in capsule %s: the upload ticket is for capsule %s (--capsule)", capsule, t.CapsuleID,
		)
	case n > limits.MaxBytes && t != nil:
		return fmt.Errorf("it has %d bytes, and the upload ticket is for %d at most", n, limits.MaxBytes)
	case n > limits.MaxBytes:
		return fmt.Errorf("it has %d bytes, and the server takes %d", n, limits.MaxBytes)
	}
	return nil
}

// maxNames bounds how many idems of a file are tried.
const maxNames = 1000

// outdated says why the memory of an idem is not that of the file; "" if it is.
type outdated string

const (
	deleted outdated = "it was stored before and deleted since"
	differs outdated = "its content is another than what was stored before"
)

// idemOf names an unchanged file at its place. Every write to a file changes its ctime, which
// nobody can set; the time of modification can be set. A file that was moved, copied or restored
// has another idem: its upload is found by its content (adoptOther). try counts former memories of
// the file that are outdated.
func idemOf(abs string, st state, capsule string, f File, try int) string {
	h := sha256.New()
	fmt.Fprintf(h, "sluice put 2\x00%s\x00%d\x00%d\x00%d\x00%d\x00%s\x00%s\x00%s\x00%d",
		abs, st.size, st.modified, st.changed, st.inode, capsule, f.Dir, f.Name, try)
	return "put-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// sendSmall stores the file in one request. ok is false if its length has kept it from getting
// through: in ranges it may succeed.
func (t *transfer) sendSmall(ctx context.Context) (m api.Memory, other outdated, ok bool, err error) {
	b, err := t.readAll()
	if err != nil || t.sender.knownTooLarge(int64(len(b))) {
		return m, "", err != nil, err
	}
	sum := sha256.Sum256(b)
	req := api.CreateRequest{
		CapsuleID: t.sender.opts.Capsule, Name: t.f.Name, Path: t.f.Dir, Idem: t.idem, MIMEType: t.f.MIME, SHA256: &sum,
	}
	cuts := 0
	for a := t.sender.attempt(); ; {
		err = a.once(ctx, func() (err error) {
			body := &watchedBody{r: newBytes(b), sent: func(n int64) {}, maxStall: t.sender.stallLimit(a.left())}
			reqCtx, stop := body.watch(ctx)
			defer stop()
			m, err = t.sender.api.Create(reqCtx, req, body, int64(len(b)))
			return err
		})
		var refused *api.Error
		switch {
		case err == nil && m.SHA256 != hex.EncodeToString(sum[:]):
			return m, differs, true, nil
		case err == nil:
			t.sender.noteProgress()
			t.sender.opts.Progress(t.f, int64(len(b)), int64(len(b)))
			return m, "", true, nil
		case ctx.Err() != nil:
			return m, "", true, context.Cause(ctx)
		case errors.As(err, &refused) && refused.Deleted:
			return m, deleted, true, nil
		case errors.As(err, &refused) && refused.Code == api.CodeIdempotencyConflict:
			return m, differs, true, nil
		}
		switch classOf(err) {
		case api.Permanent:
			return m, "", true, err
		case api.TooLarge:
			t.sender.noteTooLarge(int64(len(b)), err)
			return m, "", false, nil
		case api.Cut, api.Gateway:
			cuts++
		}
		if err := a.again(ctx, err); err != nil {
			return m, "", true, err
		}
		if cuts >= maxCuts && len(b) > minRange {
			return m, "", false, nil
		}
	}
}
