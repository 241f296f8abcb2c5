package api

import (
	"sluice/catalog"
	"sluice/memories"
)

func (s *Server) createCapsule(c *call, in CreateCapsuleRequest) (Capsule, error) {
	row, err := s.cfg.Memories.CreateCapsule(c.req.Context(), c.caller, memories.CapsuleRequest{
		ID: in.CapsuleID, Name: in.Name, Subject: in.Subject, Owners: in.Owners, Controllers: in.Controllers,
		MIMETypes: in.MIMETypes,
	})
	if err != nil {
		return Capsule{}, err
	}
	return capsuleOf(row), nil
}

func (s *Server) readCapsule(c *call) (Capsule, error) {
	id := c.req.PathValue("capsule_id")
	if !catalog.ValidCapsuleID(id) {
		return Capsule{}, errNotFound
	}
	row, err := s.cfg.Memories.ReadCapsule(c.req.Context(), c.caller, id)
	if err != nil {
		return Capsule{}, err
	}
	return capsuleOf(row), nil
}

func (s *Server) listCapsules(c *call) (CapsuleList, error) {
	limit, err := c.limit()
	if err != nil {
		return CapsuleList{}, err
	}
	page, next, err := s.cfg.Memories.ListCapsules(c.req.Context(), c.caller, c.query["cursor"], limit)
	if err != nil {
		return CapsuleList{}, err
	}
	out := CapsuleList{Capsules: make([]Capsule, len(page)), NextCursor: next}
	for i, row := range page {
		out.Capsules[i] = capsuleOf(row)
	}
	return out, nil
}

func (s *Server) updateCapsule(c *call, in UpdateCapsuleRequest) (Capsule, error) {
	if err := validCapsule(in.CapsuleID); err != nil {
		return Capsule{}, err
	}
	row, err := s.cfg.Memories.UpdateCapsule(c.req.Context(), c.caller, in.CapsuleID, capsuleChangeFrom(in))
	if err != nil {
		return Capsule{}, err
	}
	return capsuleOf(row), nil
}

func (s *Server) deleteCapsule(c *call, in DeleteCapsuleRequest) error {
	if err := validCapsule(in.CapsuleID); err != nil {
		return err
	}
	return s.cfg.Memories.DeleteCapsule(c.req.Context(), c.caller, in.CapsuleID)
}

func validCapsule(id string) error {
	if !catalog.ValidCapsuleID(id) {
		return invalid("capsule_id", "must match [a-z0-9][a-z0-9._-]{0,62}")
	}
	return nil
}
