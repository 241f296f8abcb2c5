package api

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// receivedHeader says how many bytes of a put_range were recorded, also on a refusal.
const receivedHeader = "Upload-Received"

func (s *Server) uploadConfig(c *call) (UploadConfig, error) {
	l := s.cfg.Uploads.Limits()
	out := UploadConfig{
		InlineMax: l.InlineMax, ChunkSize: l.ChunkSize, ChunkSizeMin: l.ChunkSizeMin, ChunkSizeMax: l.ChunkSizeMax,
		MaxChunks: l.MaxChunks, MaxBytes: l.MaxBytes, SessionTTLSeconds: int64(l.TTL.Seconds()),
		SessionMaxAgeSeconds: int64(l.MaxAge.Seconds()), RequestsPerSecond: s.cfg.RequestRate,
	}
	if c.caller.Grant == catalog.Ticket {
		g, err := s.cfg.Access.Grant(c.req.Context(), c.caller)
		if err != nil {
			return out, err
		}
		out.MaxBytes = min(out.MaxBytes, g.MaxBytes)
		out.Ticket = &TicketLimits{
			TicketID: g.ID, CapsuleID: g.Capsule, MIMETypes: g.MIME, UploadsLeft: max(g.Uploads-g.Done-g.Open, 0),
			ExpiresAt: Time{g.Expires},
		}
	}
	return out, nil
}

func (s *Server) begin(c *call, in BeginRequest) (Session, error) {
	req, err := beginFrom(in)
	if err != nil {
		return Session{}, err
	}
	req.Refuse = s.checkDraining()
	u, err := s.cfg.Uploads.Begin(c.req.Context(), c.caller, req)
	if err != nil {
		return Session{}, err
	}
	return sessionOf(u), nil
}

func (s *Server) putChunk(c *call) error {
	id, err := c.sessionID()
	if err != nil {
		return err
	}
	idx, err := c.index("chunk_idx")
	if err != nil {
		return err
	}
	p, err := c.put()
	if err != nil {
		return err
	}
	if err := s.cfg.Uploads.PutChunk(c.req.Context(), c.caller, id, idx, c.body, p); err != nil {
		return err
	}
	c.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) putRange(c *call) error {
	id, err := c.sessionID()
	if err != nil {
		return err
	}
	off, err := c.index("offset")
	if err != nil {
		return err
	}
	p, err := c.put()
	if err != nil {
		return err
	}
	n, err := s.cfg.Uploads.PutRange(c.req.Context(), c.caller, id, off, c.body, p)
	if n > 0 || err == nil {
		c.Header().Set(receivedHeader, strconv.FormatInt(n, 10))
	}
	if errors.Is(err, session.ErrRange) {
		return fmt.Errorf("%w: %w", errUnsatisfiable, err)
	}
	if err != nil {
		return err
	}
	c.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) finish(c *call, in FinishRequest) (Memory, error) {
	req, err := finishFrom(in, "")
	if err != nil {
		return Memory{}, err
	}
	m, err := s.cfg.Uploads.Finish(c.req.Context(), c.caller, req)
	if err != nil {
		return Memory{}, err
	}
	return memoryOf(m), nil
}

// memoryAnswer is about how many bytes a memory may have in an answer.
const memoryAnswer = 5 << 10

func (s *Server) finishBatch(c *call, in FinishBatchRequest) (MemoryBatch, error) {
	if len(in.Finishes) == 0 {
		return MemoryBatch{}, invalid("finishes", "must not be empty")
	}
	if err := s.reserveAnswer(c, int64(len(in.Finishes))*memoryAnswer); err != nil {
		return MemoryBatch{}, err
	}
	reqs := make([]upload.FinishRequest, len(in.Finishes))
	for i, f := range in.Finishes {
		var err error
		if reqs[i], err = finishFrom(f, fmt.Sprintf("finishes[%d].", i)); err != nil {
			return MemoryBatch{}, err
		}
	}
	ms, err := s.cfg.Uploads.FinishBatch(c.req.Context(), c.caller, reqs)
	if err != nil {
		return MemoryBatch{}, err
	}
	return MemoryBatch{memoriesOf(ms)}, nil
}

func (s *Server) abort(c *call, in AbortRequest) error {
	id, err := session.ParseID(in.SessionID)
	if err != nil {
		return invalid("session_id", "must be a session id: a positive decimal number in a string")
	}
	return s.cfg.Uploads.Abort(c.req.Context(), c.caller, id)
}

func (s *Server) status(c *call) (Session, error) {
	id, err := c.sessionID()
	if err != nil {
		return Session{}, err
	}
	crc, err := c.flag("crc")
	if err != nil {
		return Session{}, err
	}
	u, err := s.cfg.Uploads.Status(c.req.Context(), c.caller, id)
	if err != nil {
		return Session{}, err
	}
	out := sessionOf(u)
	if !crc {
		return out, nil
	}
	sums, err := s.cfg.Uploads.ChunkCRCs(c.req.Context(), c.caller, id)
	if err != nil {
		return Session{}, err
	}
	out.CRC32C = make(map[string]string, len(sums))
	for _, sum := range sums {
		out.CRC32C[strconv.FormatInt(sum.Index, 10)] = fmt.Sprintf("%08x", sum.CRC32C)
	}
	return out, nil
}

func (s *Server) uploadsList(c *call) (SessionList, error) {
	limit, err := c.limit()
	if err != nil {
		return SessionList{}, err
	}
	page, next, err := s.cfg.Uploads.List(c.req.Context(), c.caller, c.query["cursor"], limit)
	if err != nil {
		return SessionList{}, err
	}
	out := SessionList{Sessions: make([]Session, len(page)), NextCursor: next}
	for i, u := range page {
		out.Sessions[i] = sessionOf(u)
	}
	return out, nil
}

// create serves both of its routes: the name is in the path or in the query.
func (s *Server) create(c *call) (Memory, error) {
	p, err := c.put()
	if err != nil {
		return Memory{}, err
	}
	name := c.query["name"]
	if c.req.Method == http.MethodPut {
		name = c.req.PathValue("name")
	}
	kind := c.req.Header.Get("Content-Type")
	if kind == "application/x-www-form-urlencoded" { // curl --data-binary sends this type with anything
		kind = ""
	}
	req := upload.CreateRequest{
		Capsule: cmp.Or(c.query["capsule_id"], "default"), Idem: c.query["idem"], Put: p, Refuse: s.checkDraining(),
		Meta: catalog.Meta{Name: name, Path: c.query["path"], MIME: kind},
	}
	m, err := s.cfg.Uploads.Create(c.req.Context(), c.caller, req, c.body)
	if err != nil {
		return Memory{}, err
	}
	return memoryOf(m), nil
}
