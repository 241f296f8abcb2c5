package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/access"
	"sluice/api"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/keeper"
	"sluice/memories"
	"sluice/session"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// serveCmd runs the server.
type serveCmd struct {
	Listen          string        `default:"127.0.0.1:8080" env:"SLUICE_LISTEN" placeholder:"HOST:PORT" help:"Where to listen; port 0 takes a free one."`
	Data            string        `default:"sluice-data" env:"SLUICE_DATA" placeholder:"DIR" help:"The data folder; it is made if it is not there."`
	AdminListen     string        `default:"127.0.0.1:8081" env:"SLUICE_ADMIN_LISTEN" placeholder:"HOST:PORT" help:"Where /metrics and /debug/pprof are; empty: nowhere."`
	SessionTTL      time.Duration `name:"session-ttl" default:"168h" env:"SLUICE_SESSION_TTL" help:"How long an upload may rest before it is thrown away."`
	MaxOpenSessions int64         `default:"1000" env:"SLUICE_MAX_OPEN_SESSIONS" placeholder:"N" help:"Open uploads per principal."`
	MaxBytes        int64         `default:"1099511627776" env:"SLUICE_MAX_BYTES" placeholder:"BYTES" help:"The largest upload."`
	TrashDays       int           `default:"7" env:"SLUICE_TRASH_DAYS" placeholder:"DAYS" help:"How long deleted memories can be restored; 0: not at all."`
	Durability      string        `default:"process" enum:"process,power" env:"SLUICE_DURABILITY" placeholder:"process|power" help:"What an acknowledged chunk survives: the death of the server (process), or power loss too (power). A finished memory always survives both."`
	DrainTimeout    time.Duration `default:"30s" env:"SLUICE_DRAIN_TIMEOUT" help:"How long running requests get after SIGTERM."`
	Verbose         bool          `short:"v" help:"Log every request."`
}

// systemClock is the wall clock.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

// Run serves until a signal, then drains.
func (c *serveCmd) Run(e *env) error {
	if c.SessionTTL < time.Second || c.MaxOpenSessions < 1 || c.MaxBytes < 1 || c.TrashDays < 0 || c.DrainTimeout < 0 {
		return usageError("--session-ttl must be a second at least, --max-open-sessions and --max-bytes 1 at least, --trash-days and --drain-timeout not negative")
	}
	ctx, stop := signal.NotifyContext(e.ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	level := slog.LevelInfo
	if c.Verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
	s, err := c.open(ctx, log)
	if err != nil {
		return err
	}
	return errors.Join(c.serve(ctx, s, e.stderr), s.close())
}

// server is everything that runs on one data folder.
type server struct {
	meta    *pebblemeta.DB
	blobs   *localblob.Store
	uploads *upload.Service
	keeper  *keeper.Keeper
	api     *api.Server
}

// open opens the data folder and wires the services. It is the only place that names stores.
func (c *serveCmd) open(ctx context.Context, log *slog.Logger) (s *server, err error) {
	s = &server{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := durable.MkdirAll(c.Data, 0o700); err != nil {
		return s, err
	}
	hook := upload.Reserving(catalog.Bounds{MaxSessions: c.MaxOpenSessions})
	s.meta, err = pebblemeta.Open(filepath.Join(c.Data, "meta"), pebblemeta.Options{Changed: hook, Die: die, Log: log})
	if err != nil {
		return s, err
	}
	kind := localblob.Process
	if c.Durability == "power" {
		kind = localblob.Power
	}
	if s.blobs, err = localblob.Open(filepath.Join(c.Data, "content"), localblob.Options{Durability: kind, Log: log}); err != nil {
		return s, err
	}
	clock := systemClock{}
	engine, err := session.New(ctx, s.meta.Sessions(), session.Config{TTL: c.SessionTTL, Merge: upload.Merge, MinPiece: 4 << 10, Clock: clock})
	if err != nil {
		return s, err
	}
	limits := upload.DefaultLimits()
	limits.MaxBytes, limits.TTL = c.MaxBytes, c.SessionTTL
	rows := s.meta.Catalog()
	s.uploads = upload.New(upload.Config{Sessions: engine, Catalog: rows, Blobs: s.blobs, Clock: clock, Limits: limits, Log: log})
	who := access.New(rows, clock, nil)
	if err := c.bootstrap(ctx, who); err != nil {
		return s, err
	}
	s.keeper = keeper.New(keeper.Config{Sessions: engine, Uploads: s.uploads, Catalog: rows, Blobs: s.blobs, Clock: clock, Log: log})
	s.api, err = api.New(api.Config{
		Uploads: s.uploads,
		Memories: memories.New(memories.Config{
			Catalog: rows, Content: s.blobs, Clock: clock, Running: engine.Running, TrashFor: time.Duration(c.TrashDays) * 24 * time.Hour,
		}),
		Sessions: engine,
		Access:   who,
		Expire:   s.keeper.Tick,
		Ready: func(ctx context.Context) error {
			return rows.View(ctx, func(catalog.Reader) error { return nil })
		},
		Log: log,
	})
	return s, err
}

// die ends the process when the metadata's disk fails: what was acknowledged is safe, and a new start tells what the disk kept.
func die(err error) {
	fmt.Fprintf(os.Stderr, "sluice: the disk of the metadata failed, stopping now; nothing that was acknowledged is lost: %v\n", err)
	os.Exit(1)
}

// bootstrap makes the admin and its token in a new folder, and a new token where its file was lost.
func (c *serveCmd) bootstrap(ctx context.Context, who *access.Service) error {
	secret, err := who.Bootstrap(ctx)
	if err != nil {
		return fmt.Errorf("making the first principal: %w", err)
	}
	path := c.tokenFile()
	if secret == "" {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if secret, err = who.AdminToken(ctx); err != nil {
			return fmt.Errorf("making a token for the admin: %w", err)
		}
	}
	return durable.WriteFile(path, []byte(secret+"\n"), 0o600)
}

func (c *serveCmd) tokenFile() string { return filepath.Join(c.Data, "admin-token") }

// serve listens until ctx ends, and then lets running requests end.
func (c *serveCmd) serve(ctx context.Context, s *server, stderr io.Writer) error {
	public, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	var admin net.Listener
	if c.AdminListen != "" {
		if admin, err = net.Listen("tcp", c.AdminListen); err != nil {
			return errors.Join(fmt.Errorf("the admin listener (--admin-listen): %w", err), public.Close())
		}
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.keeper.Run(background) })
	wg.Go(func() {
		select {
		case <-ctx.Done():
			fmt.Fprintln(stderr, "draining: running requests get up to", c.DrainTimeout)
		case <-background.Done():
		}
	})
	c.greet(stderr, public, admin)
	err = s.api.Serve(ctx, public, admin, c.DrainTimeout)
	stop()
	wg.Wait()
	return err
}

// greet says where the server is, and in two lines what to try next.
func (c *serveCmd) greet(stderr io.Writer, public, admin net.Listener) {
	base := "http://" + public.Addr().String()
	fmt.Fprintln(stderr, "listening on", base)
	if admin != nil {
		fmt.Fprintln(stderr, "admin listening on http://"+admin.Addr().String())
	}
	server, token := "", ""
	if base != defaultServer {
		server = " --server " + base
	}
	if c.Data != "sluice-data" {
		token = " --token-file " + quote(c.tokenFile())
	}
	fmt.Fprintf(stderr, "store a file:  curl -T FILE -H \"Authorization: Bearer $(cat %s)\" %s/v1/memories_create/\n", quote(c.tokenFile()), base)
	fmt.Fprintf(stderr, "or a folder:   %s put%s%s FOLDER\n", quote(os.Args[0]), server, token)
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

// close closes what is open, the stores last.
func (s *server) close() (err error) {
	if s.uploads != nil {
		s.uploads.Close()
	}
	if s.blobs != nil {
		err = s.blobs.Close()
	}
	if s.meta != nil {
		err = errors.Join(err, s.meta.Close())
	}
	return err
}
