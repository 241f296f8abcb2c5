package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"sluice/api"
	"sluice/audit"
	"sluice/internal/budget"
	"sluice/internal/durable"
)

// serveCmd runs the server.
type serveCmd struct {
	Listen          string        `default:"127.0.0.1:8080" env:"SLUICE_LISTEN" placeholder:"HOST:PORT" help:"Where to listen; port 0 takes a free one (${default})."`
	Data            string        `default:"sluice-data" env:"SLUICE_DATA" placeholder:"DIR" help:"The data folder; it is made if it is not there (${default})."`
	AdminListen     string        `default:"127.0.0.1:8081" env:"SLUICE_ADMIN_LISTEN" empty:"" placeholder:"HOST:PORT" help:"Where /metrics and /debug/pprof are; '': nowhere (${default})."`
	SessionTTL      time.Duration `name:"session-ttl" default:"168h" env:"SLUICE_SESSION_TTL" help:"How long an upload may rest before it is thrown away."`
	SessionMaxAge   time.Duration `name:"session-max-age" default:"720h" env:"SLUICE_SESSION_MAX_AGE" help:"How long an upload may take before it is thrown away, even if it goes on."`
	MaxOpenSessions int64         `default:"1000" env:"SLUICE_MAX_OPEN_SESSIONS" placeholder:"N" help:"Open uploads per principal (${default})."`
	MaxBytes        int64         `default:"1099511627776" env:"SLUICE_MAX_BYTES" placeholder:"BYTES" help:"The largest upload (${default})."`
	TrashDays       int           `default:"7" env:"SLUICE_TRASH_DAYS" placeholder:"DAYS" help:"How long deleted memories can be restored; 0: not at all (${default})."`
	Durability      string        `default:"process" enum:"process,power" env:"SLUICE_DURABILITY" placeholder:"process|power" help:"What an acknowledged chunk survives: the death of the server (process), or power loss too (power). A finished memory always survives both (${default})."`
	ScrubRate       int64         `default:"10000000" env:"SLUICE_SCRUB_RATE" placeholder:"BYTES" help:"Bytes a second that are re-read in the background to find damage early; 0: none (${default})."`
	DirectIO        string        `name:"direct-io" default:"auto" enum:"auto,off" env:"SLUICE_DIRECT_IO" placeholder:"auto|off" help:"Write content that comes fast past the page cache, where the file system can (${default})."`
	RequestRate     int64         `default:"10000" env:"SLUICE_REQUEST_RATE" placeholder:"N" help:"Requests a second of one principal, with twice as many at once; 0: no bound (${default})."`
	FailedAuthRate  int64         `default:"10" env:"SLUICE_FAILED_AUTH_RATE" placeholder:"N" help:"Requests a second without a valid token from one address (IPv6: from one /64), with five times as many at once; past that such a request is answered 429. Valid tokens are not affected; 0: no bound (${default})."`
	TrustedProxy    []proxy       `name:"trusted-proxy" sep:"," env:"SLUICE_TRUSTED_PROXY" placeholder:"CIDR" help:"A network or an address of proxies whose X-Forwarded-For or Forwarded says where a request comes from; may be repeated. These fields are ignored from all others."`
	CORSOrigin      []origin      `name:"cors-origin" sep:"," env:"SLUICE_CORS_ORIGIN" placeholder:"URL" help:"An origin whose web pages may read answers: scheme://host or scheme://host:port, in full; may be repeated. Without it none may."`
	DrainTimeout    time.Duration `default:"30s" env:"SLUICE_DRAIN_TIMEOUT" help:"How long running requests get after SIGTERM."`
	AuditLog        string        `default:"-" env:"SLUICE_AUDIT_LOG" empty:"" placeholder:"FILE" help:"Where the audit log goes: who did, and was refused, what; -: standard error; '': nowhere (${default})."`
	Verbose         bool          `short:"v" help:"Log every request."`

	OIDC oidcFlags `embed:"" prefix:"oidc-"`
}

// Run serves until a signal, then drains.
func (c *serveCmd) Run(e *env) error {
	switch {
	case c.SessionTTL < time.Second:
		return usageError(fmt.Sprintf("--session-ttl must be a second at least, and not %s", c.SessionTTL))
	case c.SessionMaxAge < c.SessionTTL:
		return usageError(fmt.Sprintf(
			"--session-max-age must be --session-ttl (%s) at least, and not %s", c.SessionTTL, c.SessionMaxAge,
		))
	case c.MaxOpenSessions < 1 || c.MaxBytes < 1:
		return usageError("--max-open-sessions and --max-bytes must be 1 at least")
	case c.TrashDays < 0 || c.DrainTimeout < 0 || c.ScrubRate < 0:
		return usageError("--trash-days, --drain-timeout and --scrub-rate must not be negative")
	case !isRate(c.RequestRate) || !isRate(c.FailedAuthRate):
		return usageError(fmt.Sprintf("--request-rate and --failed-auth-rate must be 0 (no bound) to %d", api.MaxRate))
	}
	if err := c.OIDC.check(); err != nil {
		return err
	}
	level := slog.LevelInfo
	if c.Verbose {
		level = slog.LevelDebug
	}
	raw := &lockedWriter{to: e.stderr}
	e.stderr = raw
	log := e.queueLog(level)
	if err := writeNoCore(); err != nil {
		log.Warn("a crash may leave a core file", "err", err)
	}
	// The ports come first: a port that is taken leaves nothing behind. A connection that comes
	// before the folder is open waits in the system's queue.
	public, admin, err := c.listen()
	if err != nil {
		return err
	}
	records, err := c.openAudit(e, raw, log)
	if err != nil {
		return errors.Join(err, closeAll(public, admin))
	}
	s, err := c.open(
		e.ctx, log, records, e.die,
		func() { e.report(map[string]string{"made": c.Data}, "new data folder made: %s", clean(c.Data)) },
	)
	if err != nil {
		return errors.Join(err, closeAll(public, admin))
	}
	records.Add(time.Now(), audit.Record{
		Event: audit.Start, Detail: "version " + version + ", on " + public.Addr().String(),
	})
	err = errors.Join(c.serve(e.ctx, s, public, admin, e), s.close())
	last := audit.Record{Event: audit.Stop, Outcome: audit.OK}
	if err != nil {
		last.Outcome, last.Detail = audit.Failed, err.Error()
	}
	records.Add(time.Now(), last)
	return err
}

// Help is what --help says beside the flags.
func (serveCmd) Help() string {
	return `SIGTERM, SIGINT (^C) and SIGHUP (the terminal was closed; not under nohup) let running requests end,
for --drain-timeout at most; a second one ends the server at once. Nothing that was acknowledged is
lost either way.

The audit log has who signed in, who was refused, what admins did, and each change of rights, as
lines of JSON. A file may be renamed or removed by what rotates logs: the next record makes a new
one. No request waits for it: past 1 MiB that can't be written, records are dropped and counted.

The log goes to standard error. Nothing waits for its reader: past 1 MiB that is not read, lines are
dropped and counted, and the log says so when it is read again.`
}

// listen opens the listeners. admin is nil if --admin-listen is empty.
func (c *serveCmd) listen() (public, admin net.Listener, err error) {
	if public, err = net.Listen("tcp", c.Listen); err != nil {
		return nil, nil, err
	}
	if c.AdminListen != "" {
		if admin, err = net.Listen("tcp", c.AdminListen); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("the admin listener (--admin-listen): %w", err), public.Close())
		}
	}
	return public, admin, nil
}

func closeAll(listeners ...net.Listener) (err error) {
	for _, l := range listeners {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

// open divides the machine, wires the server, and readies it to serve: with an admin, and with a
// control socket if the folder can have one.
func (c *serveCmd) open(
	ctx context.Context, log *slog.Logger, records *audit.Log, die func(error), made func(),
) (*server, error) {
	b := budget.Of(budget.Read())
	applyBudget(b, log)
	s, err := c.wire(ctx, b, log, records, die, made)
	if err != nil {
		return s, err
	}
	if err := s.bootstrap(ctx, records); err != nil {
		return s, errors.Join(err, s.close())
	}
	s.openControl(log, records)
	return s, nil
}

// applyBudget sets the limit of Go's memory, and logs how much each part may use.
func applyBudget(b budget.Budget, log *slog.Logger) {
	if b.Heap > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(b.Heap)
	}
	log.Info("limits of this machine (0: none), and what is used of them at most",
		"descriptors", b.Descriptors, "memory", b.Memory, "connections", b.Connections, "requests", b.Requests,
		"files_kept_open", b.Files, "disk_kept_free", int64(metaReserve+contentReserve), "go_memory", b.Heap,
		"head", b.Head, "session_states", b.States, "finished_pieces", b.FinishEntries, "http2_unread", b.Unread,
		"json_bodies", b.JSON, "json_answers", b.AnswerBytes, "content_pieces", b.AnswerBytes,
		"buffers", int64(b.DirectBuffers)<<20+int64(b.LargeBuffers)<<18)
	if b.Memory > 0 && b.Memory < budget.Least {
		log.Warn("the memory limit is so low that many clients may be too much for it",
			"memory", b.Memory, "enough", int64(budget.Least))
	}
}

// bootstrap makes the admin and its token in a new folder. It makes a new token if the token's file
// is missing or empty.
func (s *server) bootstrap(ctx context.Context, records *audit.Log) error {
	action := "first_admin"
	secret, err := s.access.Bootstrap(ctx)
	if err != nil {
		return fmt.Errorf("making the first principal: %w", err)
	}
	path := filepath.Join(s.folder.Path, "admin-token")
	if secret == "" {
		had, err := durable.ReadFile(s.folder.FS, path)
		if err == nil && len(bytes.TrimSpace(had)) > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		action = "admin_token"
		if secret, err = s.access.AdminToken(ctx); err != nil {
			return fmt.Errorf("making a token for the admin: %w", err)
		}
	}
	t, err := s.access.TokenOf(ctx, secret)
	if err != nil {
		return err
	}
	records.Add(time.Now(), audit.Record{
		Event: audit.Act, Origin: audit.Begin, Action: action, Outcome: audit.OK,
		Target: audit.Target{Principal: t.Principal, Token: t.ID},
	})
	return durable.WriteFile(s.folder.FS, path, []byte(secret+"\n"), 0o600)
}

func (c *serveCmd) tokenFile() string { return filepath.Join(c.Data, "admin-token") }

// serve answers requests until ctx ends, and then lets running requests end. It closes the
// listeners.
func (c *serveCmd) serve(ctx context.Context, s *server, public, admin net.Listener, e *env) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.keeper.Run(background) })
	wg.Go(func() { s.keepReserve(background) })
	wg.Go(func() { s.folder.Watch(background) })
	if s.issuer != nil {
		wg.Go(func() { s.issuer.Run(background) })
	}
	if c.ScrubRate > 0 {
		wg.Go(func() { s.keeper.Scrub(background, c.ScrubRate, rand.Int64N) })
	}
	if s.control != nil {
		// The control socket ends with the signal, or with the server: a backup holds neither up.
		open, shut := context.WithCancel(ctx)
		defer context.AfterFunc(background, shut)()
		wg.Go(func() { s.control.serve(open) })
	}
	wg.Go(func() {
		select {
		case <-ctx.Done():
			e.restoreSignals() // before the drain is announced: from then on the next signal ends the server
			e.report(
				map[string]string{"draining": c.DrainTimeout.String()}, "draining: running requests get up to %s",
				c.DrainTimeout,
			)
		case <-background.Done():
		}
	})
	c.announce(e, public, admin)
	err := s.api.Serve(ctx, public, admin, c.DrainTimeout)
	stop()
	wg.Wait()
	return err
}

// announce says where the server is, and in two lines what to try next.
func (c *serveCmd) announce(e *env, public, admin net.Listener) {
	base := "http://" + public.Addr().String()
	e.report(map[string]string{"listening": base}, "listening on %s", base)
	if admin != nil {
		at := "http://" + admin.Addr().String()
		e.report(map[string]string{"admin_listening": at}, "admin listening on %s", at)
	}
	server, token := "", ""
	if base != defaultServer {
		server = " --server " + base
	}
	if c.Data != "sluice-data" {
		token = " --token-file " + quote(c.tokenFile())
	}
	e.say(
		"store a file:  curl -T FILE -H \"Authorization: Bearer $(cat %s)\" %s/v1/memories_create/",
		quote(c.tokenFile()), base,
	)
	e.say("or a folder:   %s put%s%s FOLDER", quote(os.Args[0]), server, token)
}

// quote makes a word of a shell's command line.
func quote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:+,@%", r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
