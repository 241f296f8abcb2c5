package api

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"sluice/session"
)

// refuse answers a request with an error.
func (s *Server) refuse(c *call, err error) {
	if reason := c.revoked(); reason != nil {
		err = reason
	}
	if c.status != 0 { // a part of the answer is out: the client must see the cut
		level := slog.LevelError
		if cut := (*cutError)(nil); errors.As(err, &cut) || c.revoked() != nil { // the client has left, or must
			level = slog.LevelDebug
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.refused.slowAnswers.Add(1)
		}
		s.log.Log(c.req.Context(), level, "answer cut off", "request_id", c.id, "err", withoutSecrets{err})
		panic(http.ErrAbortHandler)
	}
	p := problemOf(err, c.id, func(id session.SessionID) int64 {
		u, err := s.cfg.Uploads.Status(c.req.Context(), c.caller, id)
		if err != nil {
			return 0
		}
		return u.ChunkSize
	})
	if isLate(err) {
		s.releaseAll(c)
		if s.limits.waiting.acquire("", 1) == nil { // requests that wait here count among the refused
			sleep(c.req.Context(), refuseDelay)
			s.limits.waiting.release("", 1)
		}
	}
	level := slog.LevelDebug
	if p.Code == CodeInternal || p.Code == CodeDamaged {
		level = slog.LevelError
	} else if (p.Status >= 500 || isTokenTrouble(err)) && c.req.Context().Err() == nil {
		level = slog.LevelWarn
	}
	attrs := []any{"request_id", c.id, "route", c.req.Pattern, "code", string(p.Code), "err", withoutSecrets{err}}
	if level == slog.LevelWarn {
		if suppressed, ok := s.warnings.forError(err).allow(s.machine.now()); !ok {
			level = slog.LevelDebug
		} else if suppressed > 0 {
			attrs = append(attrs, "left_out", suppressed)
		}
	}
	s.log.Log(c.req.Context(), level, "refused", attrs...)
	h := c.Header()
	if p.Code == CodeUnauthenticated {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if p.RetryAfterMS > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(float64(p.RetryAfterMS)/1000)), 10))
	}
	if p.Code == CodeTimeout {
		s.refused.slowBodies.Add(1)
	}
	if p.Code == CodeSuperseded {
		c.closeAfter()
	}
	s.answer(c, p.Status, "application/problem+json", p)
}

// refuseDelay is how long a client that asks for too much waits for its answer. Meanwhile it holds
// its connection and a slot among the refused. So a flood of such requests is slow. If all of
// these slots are taken, the answer comes at once.
const refuseDelay = 100 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// answer writes a JSON answer.
func (s *Server) answer(c *call, status int, kind string, v any) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(err) // a wire message without a JSON form is a bug
	}
	endCompute(c)
	s.countAnswer(c, len(b))
	if c.req.ProtoMajor >= 2 && c.usage.principal == "" && len(b) <= smallAnswer {
		s.waitForClient(c)
	}
	h := c.Header()
	if c.headOnly { // a head alone waits for no window
		h.Set("Content-Length", "0")
		c.WriteHeader(status)
		return
	}
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	c.WriteHeader(status)
	if c.req.Method != http.MethodHead && !c.send(b) {
		s.refused.slowAnswers.Add(1)
	}
}

// send writes the body of an answer in blocks. Each block has the time that the minimum rate gives
// it. On HTTP/1.1 the connection enforces that. send returns false if the client has not taken a
// block in time. A client that is gone is no error of the server.
func (c *call) send(b []byte) bool {
	for len(b) > 0 {
		block := b[:min(len(b), answerBlock)]
		if c.req.ProtoMajor >= 2 {
			_ = c.body.rc.SetWriteDeadline(c.body.machine.now().Add(c.body.minRate.timeFor(int64(len(block)))))
		}
		if _, err := c.Write(block); err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded)
		}
		b = b[len(block):]
	}
	return true
}
