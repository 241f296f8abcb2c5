package api

import (
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"sluice/access"
	"sluice/audit"
	"sluice/catalog"
)

// call is one request on its way through an operation. It is the http.ResponseWriter of the
// handlers. So the request's data travel with it, and not in its context.
type call struct {
	req      *http.Request
	w        http.ResponseWriter
	body     *body
	id       string     // of the request
	client   netip.Addr // where it comes from, behind trusted proxies; the zero Addr: it has no address
	caller   access.Caller
	query    map[string]string // parameters of the route that the request has
	sha256   *catalog.SHA256   // of a raw body, if its head has it
	crc32c   *uint32
	status   int   // as answered; 0: nothing yet
	sent     int64 // bytes of the answer
	headOnly bool  // the answer is a head alone
	usage    usage // what it holds of the limits

	revocable revocable
	route     *route       // nil: none has its path and method
	target    audit.Target // what its JSON names
	in, out   any          // the JSON of an act that is audited, and of its answer
}

// Unwrap is for http.ResponseController.
func (c *call) Unwrap() http.ResponseWriter { return c.w }

// WriteHeader keeps the first final status. If the client may still be sending, the answer goes out
// at once, and the connection closes after it.
func (c *call) WriteHeader(status int) {
	if c.status == 0 && status >= 200 {
		c.status = status
		if c.body.unread() && c.req.ProtoMajor < 2 {
			_ = c.body.rc.EnableFullDuplex() // else net/http reads the body before it answers
			c.closeAfter()
		}
	}
	c.w.WriteHeader(status)
}

func (c *call) Write(p []byte) (int, error) {
	if c.status == 0 {
		c.WriteHeader(http.StatusOK)
	}
	n, err := c.w.Write(p)
	c.sent += int64(n)
	return n, err
}

// closeAfter makes the connection close after this answer, unless it has other requests on it.
func (c *call) closeAfter() {
	if c.req.ProtoMajor < 2 {
		c.Header().Set("Connection", "close")
	}
}

// Header returns the answer's header. The request's header is c.req.Header.
func (c *call) Header() http.Header { return c.w.Header() }

// noDeadline is as good as no deadline.
const noDeadline = 10_000 * time.Hour

// guard handles every request first. It gives the request an id (never the client's), counts it,
// logs it, and survives its panic.
func (s *Server) guard(next http.Handler) http.Handler {
	return s.counted(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.machine.now()
		c := &call{
			req: r, w: w, id: s.machine.requestID(),
			client: s.proxies.client(r),
			body:   newBody(r, w, s.cfg.MinRate, s.cfg.RateWindow, s.machine),
		}
		defer c.body.close()
		if r.ProtoMajor >= 2 {
			// The deadline of net/http's own answers ends here. No deadline at all would not do:
			// net/http sets the next one even if the stream has ended meanwhile, and keeps all of
			// the connection until then.
			_ = c.body.rc.SetWriteDeadline(began.Add(noDeadline))
		}
		h := w.Header()
		h.Set("X-Request-Id", c.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		defer s.unwatch(c)
		s.setCORS(h, r)
		defer s.releaseAll(c) // also what the answer to a panic holds
		defer func() {
			panicked := recover()
			if panicked != nil && panicked != http.ErrAbortHandler {
				s.log.Error(
					"panic", "request_id", c.id, "route", r.Pattern, "panic", panicked, "stack", string(debug.Stack()),
				)
				s.audit(c, errPanic)
				if c.status == 0 {
					s.refuse(c, errPanic)
					panicked = nil
				} else {
					panicked = http.ErrAbortHandler
				}
			}
			s.log.Debug("request", "request_id", c.id, "method", r.Method, "route", r.Pattern, "status", c.status,
				"principal", c.caller.Principal, "client", &c.client, "in", c.body.received, "out", c.sent,
				"ms", s.machine.since(began).Milliseconds())
			if panicked != nil {
				panic(panicked)
			}
		}()
		err := c.checkFraming()
		if err != nil {
			s.refused.framing.Add(1)
		} else if err = s.acquireSlot(c); err == nil {
			if err = s.checkURL(c); err != nil {
				s.audit(c, err)
			}
		}
		if err != nil {
			s.refuse(c, err)
		} else {
			next.ServeHTTP(c, r)
		}
		if c.body.unread() && !c.usage.waiting {
			s.waitForClient(c) // before the client can know
		}
		if c.body.unread() || c.sent > 0 && r.ProtoMajor >= 2 {
			_ = c.body.rc.Flush() // what waits for a window has a slot
		}
		if c.body.unread() {
			wait := lingerTimeout
			if !c.usage.waiting {
				wait = 0
			}
			c.body.linger(wait, r.Header.Get("Expect") != "", s.limits.lingerRate)
		}
	}))
}

// counted lets Serve wait for the running requests, and admits none once it has stopped.
func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			panic(http.ErrAbortHandler)
		}
		defer s.requests.Done()
		if c := connOf(r); c != nil {
			if r.ProtoMajor < 2 {
				c.serving.Store(true)
			} else {
				c.flow.streams.addHandlers(1)
				defer c.flow.streams.addHandlers(-1)
			}
		}
		s.running.Add(1)
		defer s.running.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// enter lets Serve wait for something until requests.Done. It returns false once Serve has stopped.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.requests.Add(1)
	}
	return !s.stopped
}

// mux routes the table's operations. A path that is not in its plain form is not found. No redirect
// mends it.
func (s *Server) mux(table []route) http.Handler {
	mux := http.NewServeMux()
	byPath := map[string]map[string]*route{}
	for i := range table {
		r := &table[i]
		if byPath[r.path] == nil {
			byPath[r.path] = map[string]*route{}
		}
		byPath[r.path][r.method] = r
	}
	for path, methods := range byPath {
		mux.Handle(path, s.methods(methods))
	}
	mux.Handle("/", s.serve(func(*call) error { return errNotFound }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions && r.RequestURI == "*" {
			w.Header().Set("Allow", "GET, HEAD, OPTIONS, POST, PUT")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if p := r.URL.EscapedPath(); !strings.HasPrefix(p, "/") || strings.Contains(p, "//") ||
			slices.ContainsFunc(strings.Split(p, "/"), isDotSegment) {
			s.serve(func(*call) error { return errNotFound }).ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// isDotSegment reports whether a part of an escaped path is . or .., by which a file system would
// walk. A name that only contains such parts is a name.
func isDotSegment(part string) bool {
	plain, err := url.PathUnescape(part)
	return err != nil || plain == "." || plain == ".."
}

// methods picks the route of a path by its method.
func (s *Server) methods(routes map[string]*route) http.Handler {
	var allow []string
	for m := range routes {
		allow = append(allow, m)
		if m == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	allow = append(allow, http.MethodOptions)
	slices.Sort(allow)
	list := strings.Join(allow, ", ")
	return s.serve(func(c *call) error {
		method := c.req.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		r := routes[method]
		switch {
		case r != nil:
			return s.run(c, r)
		case c.req.Method == http.MethodOptions:
			c.Header().Set("Allow", list)
			setPreflight(c.Header(), c.req, list)
			c.WriteHeader(http.StatusNoContent)
			return nil
		}
		c.Header().Set("Allow", list)
		return &refusal{code: CodeMethodNotAllowed, detail: "this path takes " + list}
	})
}

// run checks what all operations have in common, and runs one.
func (s *Server) run(c *call, r *route) error {
	c.route = r
	if r.auth > linked {
		secret, ok := bearer(c.req.Header)
		if !ok {
			return s.noteFailure(c, access.ErrUnauthenticated)
		}
		var err error
		if c.caller, err = s.cfg.Access.Authenticate(c.req.Context(), secret); err != nil {
			return s.noteFailure(c, err)
		}
		s.auditSignIn(c)
		if err := s.assignSlot(c); err != nil {
			return err
		}
		if err := s.checkRate(c); err != nil {
			return err
		}
		if c.caller.Grant != 0 && r.auth != uploader {
			return access.ErrTicketOnly
		}
	}
	if r.auth == admin {
		if err := s.cfg.Access.Admin(c.req.Context(), c.caller, r.method != http.MethodGet); err != nil {
			return err
		}
	}
	if r.beginsNew {
		if err := s.checkDraining(); err != nil {
			return err
		}
	}
	if err := c.checkQuery(r.query); err != nil {
		return err
	}
	if err := c.checkHeaders(r); err != nil {
		return err
	}
	if r.auth > linked && (r.raw || r.content) {
		s.watch(c)
	}
	if r.longAnswer {
		if r.method == http.MethodGet {
			if err := s.beginCompute(c); err != nil {
				return err
			}
		}
		if err := s.reserveAnswer(c, longAnswer); err != nil {
			return err
		}
	}
	return r.serve(s, c)
}

// checkDraining returns the reason why nothing new is begun: the server drains.
func (s *Server) checkDraining() error {
	if s.draining.Load() {
		return errDraining
	}
	return nil
}

// bearer returns the secret of RFC 6750 §2.1, if there is exactly one.
func bearer(h http.Header) (string, bool) {
	all := h.Values("Authorization")
	if len(all) != 1 {
		return "", false
	}
	scheme, secret, _ := strings.Cut(all[0], " ")
	secret = strings.Trim(secret, " ")
	return secret, strings.EqualFold(scheme, "Bearer") && secret != ""
}

// serve turns an operation into a handler of a call: its error becomes a problem.
func (s *Server) serve(f func(*call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := w.(*call) // guard made it
		c.req = r
		err := f(c)
		s.audit(c, err)
		if err != nil {
			s.refuse(c, err)
		}
	})
}
