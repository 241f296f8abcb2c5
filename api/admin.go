package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"sluice/blob"
	"sluice/session"
	"sluice/upload"
)

// readyTimeout is how long the stores may take to report that they are ready.
const readyTimeout = 5 * time.Second

func (s *Server) sessionsList(c *call) (AdminSessionList, error) {
	limit, err := c.limit()
	if err != nil {
		return AdminSessionList{}, err
	}
	q := session.Query{After: c.query["cursor"], Limit: limit}
	if owner, ok := c.query["owner"]; ok {
		q.Owner = &owner
	}
	if name, ok := c.query["state"]; ok {
		for st := session.Open; st < session.Gone; st++ {
			if st.String() == name {
				q.State = st
			}
		}
		if q.State == 0 {
			return AdminSessionList{}, invalid("state", "must be open, sealed, finished, aborted or expired")
		}
	}
	page, next, err := s.cfg.Sessions.List(c.req.Context(), q)
	if err != nil {
		return AdminSessionList{}, err
	}
	out := AdminSessionList{Sessions: make([]AdminSession, len(page)), NextCursor: next}
	for i, row := range page {
		out.Sessions[i] = adminSessionOf(row)
	}
	_, out.Damaged = s.cfg.Damaged()
	return out, nil
}

func (s *Server) sessionsStats(c *call) (SessionStats, error) {
	st, err := s.cfg.Sessions.Stats(c.req.Context())
	if err != nil {
		return SessionStats{}, err
	}
	return statsOf(st), nil
}

func (s *Server) sessionsClearAll(c *call, _ Empty) (Cleared, error) {
	n, err := s.cfg.Sessions.ClearAll(c.req.Context(), s.cfg.Uploads.Release)
	if err != nil {
		return Cleared{}, err
	}
	s.log.Info("sessions cleared", "by", c.caller.Principal, "n", n)
	return Cleared{int64(n)}, nil
}

func (s *Server) sessionsCleanup(c *call, _ Empty) (CleanedUp, error) {
	n, err := s.cfg.Expire(c.req.Context())
	if err != nil {
		return CleanedUp{}, err
	}
	return CleanedUp{int64(n)}, nil
}

func (s *Server) healthz(*call) (Health, error) { return Health{"ok"}, nil }

func (s *Server) readyz(c *call) (Health, error) {
	if s.draining.Load() {
		return Health{}, errDraining
	}
	ctx, stop := context.WithTimeout(c.req.Context(), readyTimeout)
	defer stop()
	if err := s.cfg.Ready(ctx); err != nil {
		s.log.Warn("not ready", "request_id", c.id, "err", err)
		if errors.Is(err, blob.ErrNoSpace) {
			return Health{}, errDegraded
		}
		if errors.Is(err, upload.ErrTaken) {
			return Health{}, errTaken
		}
		if errors.Is(err, upload.ErrAway) {
			return Health{}, errAway
		}
		return Health{}, &refusal{code: CodeUnavailable, detail: "a store does not answer", retry: 5 * time.Second}
	}
	if _, what := s.cfg.Damaged(); len(what) > 0 {
		return Health{"degraded: some records are damaged; what needs them fails, all else goes on; " +
			"the log has them, and sluice check names all"}, nil
	}
	return Health{"ready"}, nil
}

// adminMux serves the paths that only the admin listener has.
func (s *Server) adminMux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return s.counted(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := connOf(r); c != nil && c.framing.Last() {
			w.Header().Set("Connection", "close")
		}
		mux.ServeHTTP(w, r)
	}))
}

// metrics writes the engine's figures in Prometheus' text format 0.0.4.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	st, err := s.cfg.Sessions.Stats(r.Context())
	if err != nil {
		s.log.Error("metrics", "err", err)
		http.Error(w, "the session store does not answer", http.StatusServiceUnavailable)
		return
	}
	var b strings.Builder
	metric := func(kind, name, help string, rows ...any) {
		fmt.Fprintf(&b, "# HELP sluice_%s %s\n# TYPE sluice_%s %s\n", name, help, name, kind)
		for i := 0; i < len(rows); i += 2 {
			fmt.Fprintf(&b, "sluice_%s%v %v\n", name, rows[i], rows[i+1])
		}
	}
	metric("gauge", "sessions", "Upload sessions that have not ended.",
		`{state="open"}`, st.Open, `{state="sealed"}`, st.Sealed)
	metric("gauge", "sessions_expected_bytes", "Bytes that these sessions announced.", "", st.BytesExpected)
	metric("gauge", "sessions_received_bytes", "Bytes that these sessions have received.", "", st.BytesReceived)
	if st.OldestSeen != 0 {
		metric("gauge", "sessions_oldest_seen_timestamp_seconds",
			"When the open session that is idle longest was last seen.", "", float64(st.OldestSeen)/1000)
	}
	metric("counter", "sessions_begun_total", "Sessions begun since the store was made.", "", st.Begun)
	metric("counter", "sessions_ended_total", "Sessions ended since the store was made.",
		`{how="finished"}`, st.Finished, `{how="aborted"}`, st.Aborted, `{how="expired"}`, st.Expired)
	metric("gauge", "requests_running", "Requests that run now.", "", s.running.Load())
	metric("gauge", "http2_unread_bytes", "Bytes of bodies that have come on HTTP/2 and are not read yet.", "",
		s.unread.size())
	damaged, _ := s.cfg.Damaged()
	metric("counter", "damaged_reads_total",
		"Reads of records since the start that failed as what they needed is damaged.", "", damaged)
	metric("gauge", "request_json_bytes", "What the bodies of JSON requests under way count for.", "",
		s.limits.json.inUse())
	metric("gauge", "answer_bytes", "Bytes of answers that are made and not taken yet.", "", s.limits.answers.inUse())
	metric("counter", "refused_total", "Connections, requests and answers that a bound has refused or cut off.",
		s.refused.rows()...)
	records, dropped := s.cfg.Audit.Counts()
	metric("counter", "audit_records_total", "Records of the audit log since the start, those that were dropped too.",
		"", records)
	metric("counter", "audit_dropped_total", "Records that could not be written to the audit log.", "", dropped)
	metric("counter", "audit_left_out_total", "Refusals of which the audit log has the number alone.", "",
		s.audits.leftOut.Load())
	draining := 0
	if s.draining.Load() {
		draining = 1
	}
	metric("gauge", "draining", "1 while the server is stopping.", "", draining)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write([]byte(b.String()))
}
