package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sluice/access"
	"sluice/audit"
	"sluice/catalog"
	"sluice/internal/system"
	"sluice/memories"
	"sluice/session"
	"sluice/upload"
)

// Sessions is the admin's view of the engine; session.Service has it.
type Sessions interface {
	List(ctx context.Context, q session.Query) (page []session.Session, next string, err error)
	Stats(ctx context.Context) (session.Stats, error)
	ClearAll(ctx context.Context, release session.End) (int, error)
}

// Config is what a Server works with. Zero values of the last group take the named defaults.
type Config struct {
	Uploads  *upload.Service
	Memories *memories.Service
	Sessions Sessions
	Access   *access.Service
	// Ready returns an error if the stores do not answer. A nil Ready never does.
	Ready func(ctx context.Context) error
	// Damaged returns how many reads of damaged records have failed since the start, and what is
	// damaged. A nil Damaged returns none.
	Damaged func() (reads int64, what []string)
	// Expire ends sessions that are past their time to live now, and returns the number.
	Expire func(ctx context.Context) (int, error)
	// EndOwner removes what a deleted principal, or a ticket that has ended, has left: tokens,
	// roles and open sessions.
	EndOwner func(ctx context.Context, id string) error
	// Bounds are the server's own bounds on the open sessions of one principal.
	Bounds catalog.Bounds
	// SignIn says where callers sign in if the server takes tokens of an issuer; nil: it does not.
	SignIn *SignIn

	// Clock (the system's) and Rand (crypto/rand) are safe for concurrent use. The deadlines of
	// connections are set by the Clock.
	Clock session.Clock
	Rand  io.Reader
	Log   *slog.Logger // discards
	// Audit takes the records of the audit log. A nil Audit takes none.
	Audit *audit.Log
	// MaxHead is how many bytes the head of a request may have (64 KiB; 8 KiB at least).
	MaxHead int64
	// MinRate is how many bytes a second a body must bring, as an average over RateWindow (1,024
	// over 30 s). Slower clients are cut off, in both directions.
	MinRate    int64
	RateWindow time.Duration
	// MaxRequests bounds the requests that run at one time (16,384). More are answered 503 at once.
	// One principal has at most half of them, and is answered 429 beyond that. /healthz and /readyz
	// have slots of their own.
	MaxRequests int64
	// MaxConns bounds the open connections of the public listener (0: no bound). One more takes the
	// place of the one that is idle longest. If none is idle, it is answered 503 and closed, except
	// a few that ask for /healthz or /readyz.
	MaxConns int64
	// Unread bounds the bytes that clients have sent on HTTP/2 and no request has read (128 MiB).
	Unread int64
	// JSON bounds the bytes that the bodies of JSON requests take, each byte counting four times.
	// AnswerBytes bounds the bytes of JSON answers, and those of blocks of contents (64 MiB each).
	JSON, AnswerBytes int64
	// Refused bounds the refused requests that wait for their clients, and the streams that have
	// begun and are neither refused nor let in, except one of each connection (256).
	Refused int64
	// RequestRate bounds the requests a second of one principal, with two seconds' worth at once.
	// FailedAuthRate bounds the requests a second without a valid token from one address, or from
	// one /64 of IPv6, with five seconds' worth at once. 0 is no bound, and MaxRate the most.
	RequestRate, FailedAuthRate int64
	// TrustedProxies say truly where a request comes from (X-Forwarded-For, Forwarded). ParseProxy
	// makes them.
	TrustedProxies []netip.Prefix
	// Origins are those whose pages may read answers (CORS), as ParseOrigin returns them.
	Origins []string
}

// Server answers the /v1 operations. Its handlers are safe for concurrent use. It has goroutines of
// its own only in Serve.
type Server struct {
	cfg      Config
	machine  machine
	log      *slog.Logger
	public   http.Handler
	admin    http.Handler
	document []byte
	unread   *unreadBytes
	pending  *pendingStreams
	// largeBlocks and smallBlocks hold *[]byte for blocks of contents.
	largeBlocks, smallBlocks sync.Pool

	proxies  proxies
	limits   limits
	watcher  watcher
	refused  counters
	warnings throttles
	audits   auditor

	draining atomic.Bool
	running  atomic.Int64

	mu       sync.Mutex
	stopped  bool // no request is admitted any more
	requests sync.WaitGroup
}

// New makes a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Uploads == nil || cfg.Memories == nil || cfg.Sessions == nil || cfg.Access == nil || cfg.Expire == nil ||
		cfg.EndOwner == nil {
		return nil, errors.New("api: Uploads, Memories, Sessions, Access, Expire and EndOwner are needed")
	}
	if err := checkFront(cfg); err != nil {
		return nil, err
	}
	if cfg.Damaged == nil {
		cfg.Damaged = func() (int64, []string) { return 0, nil }
	}
	if cfg.Ready == nil {
		cfg.Ready = func(context.Context) error { return nil }
	}
	if cfg.Clock == nil {
		cfg.Clock = system.Clock{}
	}
	if cfg.Rand == nil {
		cfg.Rand = system.Random{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.MinRate = cmp.Or(cfg.MinRate, 1<<10)
	cfg.RateWindow = cmp.Or(cfg.RateWindow, 30*time.Second)
	cfg.MaxRequests = cmp.Or(cfg.MaxRequests, 16<<10)
	cfg.Refused = cmp.Or(cfg.Refused, maxRefused)
	cfg.MaxHead = cmp.Or(cfg.MaxHead, maxHead)
	machine := machine{cfg.Clock, cfg.Rand}
	s := &Server{
		cfg: cfg, machine: machine, log: cfg.Log, audits: auditor{log: cfg.Audit}, proxies: cfg.TrustedProxies,
		unread:  newUnreadBytes(cmp.Or(cfg.Unread, maxUnread)),
		pending: newPendingStreams(int(cfg.Refused), streamsOf(cfg.MaxRequests), machine.now),
		limits:  newLimits(cfg.MaxRequests, cmp.Or(cfg.JSON, maxHeld), cmp.Or(cfg.AnswerBytes, maxHeld), cfg.Refused),
	}
	s.limits.requestRate = newRates[string](cfg.RequestRate, requestBurst)
	s.limits.failures = newRates[netip.Addr](cfg.FailedAuthRate, failureBurst)
	s.watcher.check, s.watcher.enter, s.watcher.leave = cfg.Access.StillAllowed, s.enter, s.requests.Done
	routes := routes()
	var err error
	if s.document, err = document(routes); err != nil {
		return nil, err
	}
	s.public = s.guard(s.mux(routes))
	s.admin = s.adminMux()
	return s, nil
}

// checkFront refuses what would let in more than it says.
func checkFront(cfg Config) error {
	for _, rate := range []int64{cfg.RequestRate, cfg.FailedAuthRate} {
		if rate < 0 || rate > MaxRate {
			return fmt.Errorf("api: a rate must be 0 to %d a second, and not %d", MaxRate, rate)
		}
	}
	for _, proxy := range cfg.TrustedProxies {
		if p, err := ParseProxy(proxy.String()); err != nil || p != proxy {
			return fmt.Errorf("api: the trusted proxy %s is not as ParseProxy returns it", proxy)
		}
	}
	for _, origin := range cfg.Origins {
		if o, err := ParseOrigin(origin); err != nil || o != origin {
			return fmt.Errorf("api: the origin %q is not as ParseOrigin returns it", origin)
		}
	}
	return nil
}

// Handler is for the public listener.
func (s *Server) Handler() http.Handler { return s.public }

// AdminHandler is for the admin listener: /metrics and /debug/pprof. It asks for no token, and
// therefore belongs on loopback.
func (s *Server) AdminHandler() http.Handler { return s.admin }

// Drain makes the server refuse requests that would begin something new (503, also from /readyz).
// Puts and finishes of sessions that exist still go through.
func (s *Server) Drain() { s.draining.Store(true) }

// Serve answers on the public and, unless it is nil, the admin listener until ctx ends or a
// listener fails. Then it drains: it begins nothing new, and listens a little longer while requests
// run. These have up to grace to end, after which they are cut off. When it returns no request is
// running, so the stores may be closed. It closes the listeners.
func (s *Server) Serve(ctx context.Context, public, admin net.Listener, grace time.Duration) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var reporting sync.WaitGroup
	defer reporting.Wait()
	defer cancel()
	reporting.Go(func() { s.audits.keepReporting(base, s.machine.now) })
	minRate := newMinRate(s.cfg.MinRate, s.cfg.RateWindow)
	listeners := []*limitedListener{
		limitListener(public, s.cfg.MaxConns, s.unread, s.pending, minRate, &s.refused, s.machine),
	}
	servers := []*http.Server{s.httpServer(base, s.public, listeners[0])}
	if admin != nil {
		listeners = append(
			listeners, limitListener(admin, maxAdminConns, s.unread, s.pending, minRate, &s.refused, s.machine),
		)
		listeners[1].reserved = 0 // it has no health to ask for
		servers = append(servers, s.httpServer(base, s.admin, listeners[1]))
		servers[1].Protocols.SetUnencryptedHTTP2(false) // its answers have the deadlines of HTTP/1.1 alone
		servers[1].WriteTimeout = 0
	}
	failed := make(chan error, len(servers))
	for i, h := range servers {
		go func() { failed <- h.Serve(listeners[i]) }()
	}
	var first error
	waiting := len(servers)
	select {
	case <-ctx.Done():
	case first = <-failed:
		waiting--
	}
	s.Drain()
	until, stop := context.WithTimeout(base, grace)
	defer stop()
	s.waitIdle(min(grace/2, maxDrainListen))
	for _, h := range servers {
		if err := h.Shutdown(until); err != nil {
			s.log.Warn(
				"requests are still running at the end of the drain; they are cut off", "running", s.running.Load(),
			)
			cancel()
			_ = h.Close()
		}
	}
	for ; waiting > 0; waiting-- {
		if err := <-failed; first == nil && !errors.Is(err, http.ErrServerClosed) {
			first = err
		}
	}
	cancel()
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.requests.Wait()
	s.audits.reportLeftOut(s.machine.now(), true)
	return first
}

const (
	// maxAdminConns bounds the connections of the admin listener.
	maxAdminConns = 64
	// maxHead is how many bytes the head of a request may have, unless Config.MaxHead says less.
	maxHead = 64 << 10
)

// maxDrainListen is how long a server that drains goes on listening while requests run. Clients go
// on with what they have begun, and a client of /readyz learns that the server is stopping.
const maxDrainListen = 3 * time.Second

// waitIdle waits until no request runs, for at most d.
func (s *Server) waitIdle(d time.Duration) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := s.machine.now().Add(d); s.running.Load() > 0 && s.machine.now().Before(end); {
		<-tick.C
	}
}

// httpServer bounds what a connection may cost before a handler runs. Bodies have no absolute limit
// of time: the minimum rate is the limit.
func (s *Server) httpServer(base context.Context, h http.Handler, l *limitedListener) *http.Server {
	l.maxHead = cmp.Or(s.cfg.MaxHead, maxHead)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, Protocols: protocols,
		HTTP2:             flowControl(s.cfg.RateWindow, streamsOf(s.cfg.MaxRequests)),
		WriteTimeout:      s.cfg.RateWindow,       // of answers that no handler of ours gives
		ReadHeaderTimeout: headTimeout,            // conn.setIdle bounds the time between two requests
		MaxHeaderBytes:    int(l.maxHead) - 4<<10, // net/http allows 4 KiB more
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConn, ConnState: l.connState,
		DisableGeneralOptionsHandler: true, // its answer has no bounds, and no id
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}
