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

// refuse answers an error.
func (s *Server) refuse(c *call, err error) {
	if c.status != 0 { // half an answer is out: the cut must be seen
		level := slog.LevelError
		if gone := (*cutError)(nil); errors.As(err, &gone) { // the client has left
			level = slog.LevelDebug
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.refused.slowAnswers.Add(1)
		}
		s.log.Log(c.req.Context(), level, "answer cut off", "request_id", c.id, "err", err)
		panic(http.ErrAbortHandler)
	}
	p := problemOf(err, c.id, func(id session.SessionID) int64 {
		u, err := s.cfg.Uploads.Status(c.req.Context(), c.caller, id)
		if err != nil {
			return 0
		}
		return u.ChunkSize
	})
	if errors.Is(err, errBusy) || errors.Is(err, errShare) || errors.Is(err, session.ErrBusy) {
		s.leave(c)
		if s.limits.lingers.acquire("", 1) == nil { // those that rest are counted among the refused
			rest(c.req.Context(), refuseAfter)
			s.limits.lingers.release("", 1)
		}
	}
	level := slog.LevelDebug
	if p.Code == CodeInternal || p.Code == CodeDamaged {
		level = slog.LevelError
	} else if p.Status >= 500 && c.req.Context().Err() == nil {
		level = slog.LevelWarn
	}
	said := []any{"request_id", c.id, "route", c.req.Pattern, "code", string(p.Code), "err", err}
	if level == slog.LevelWarn {
		if left, ok := s.warnings.of(err).say(s.machine.now()); !ok {
			level = slog.LevelDebug
		} else if left > 0 {
			said = append(said, "left_out", left)
		}
	}
	s.log.Log(c.req.Context(), level, "refused", said...)
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
		c.closing()
	}
	s.answer(c, p.Status, "application/problem+json", p)
}

// refuseAfter is how long a client that asks for too much waits for its answer. Meanwhile it holds
// its connection and a place among the refused. So a flood of such requests is slow. Where all of
// these places are taken, the answer comes at once.
const refuseAfter = 100 * time.Millisecond

func rest(ctx context.Context, d time.Duration) {
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
		panic(err) // a wire message that has no JSON form is a mistake of ours
	}
	computed(c)
	s.made(c, len(b))
	if c.req.ProtoMajor >= 2 && c.holds.holder == "" && len(b) <= smallAnswer {
		s.linger(c)
	}
	h := c.Header()
	if c.short { // this waits for no window
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

// send writes the body of an answer, each piece within the time that the minimum rate gives it. On
// HTTP/1.1 the connection sees to that. send gives false if the client has not taken a piece in
// time; a client that is gone is none of our errors.
func (c *call) send(b []byte) bool {
	for len(b) > 0 {
		piece := b[:min(len(b), answerPiece)]
		if c.req.ProtoMajor >= 2 {
			_ = c.body.rc.SetWriteDeadline(c.body.machine.now().Add(c.body.pace.allowed(int64(len(piece)))))
		}
		if _, err := c.Write(piece); err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded)
		}
		b = b[len(piece):]
	}
	return true
}
