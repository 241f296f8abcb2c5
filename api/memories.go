package api

import (
	"cmp"
	"fmt"

	"sluice/catalog"
	"sluice/memories"
)

func (s *Server) readMemory(c *call) (Memory, error) {
	id, err := c.memoryID()
	if err != nil {
		return Memory{}, err
	}
	m, err := s.cfg.Memories.Read(c.req.Context(), c.caller, id)
	if err != nil {
		return Memory{}, err
	}
	return memoryOf(m), nil
}

func (s *Server) listMemories(c *call) (MemoryList, error) {
	req := memories.ListRequest{
		Capsule: cmp.Or(c.query["capsule_id"], "default"), PathPrefix: c.query["path_prefix"], Name: c.query["name"],
		Cursor: c.query["cursor"],
	}
	err := validCapsule(req.Capsule)
	if err != nil {
		return MemoryList{}, err
	}
	if sum, ok := c.query["sha256"]; ok {
		if req.SHA256, err = digestFrom(sum, "sha256"); err != nil {
			return MemoryList{}, err
		}
	}
	if req.Trash, err = c.flag("trash"); err != nil {
		return MemoryList{}, err
	}
	if req.Limit, err = c.limit(); err != nil {
		return MemoryList{}, err
	}
	page, next, err := s.cfg.Memories.List(c.req.Context(), c.caller, req)
	if err != nil {
		return MemoryList{}, err
	}
	return MemoryList{Memories: memoriesOf(page), NextCursor: next}, nil
}

func (s *Server) updateMemory(c *call, in UpdateMemoryRequest) (Memory, error) {
	id, err := memoryIDFrom(in.MemoryID, "memory_id")
	if err != nil {
		return Memory{}, err
	}
	m, err := s.cfg.Memories.Update(c.req.Context(), c.caller, id, memories.Change{
		Name: in.Name, Path: in.Path, Description: in.Description, Tags: in.Tags,
	})
	if err != nil {
		return Memory{}, err
	}
	return memoryOf(m), nil
}

func (s *Server) deleteMemory(c *call, in DeleteMemoryRequest) error {
	id, err := memoryIDFrom(in.MemoryID, "memory_id")
	if err != nil {
		return err
	}
	return s.cfg.Memories.Delete(c.req.Context(), c.caller, id, in.Purge)
}

func (s *Server) restoreMemory(c *call, in RestoreMemoryRequest) (Memory, error) {
	id, err := memoryIDFrom(in.MemoryID, "memory_id")
	if err != nil {
		return Memory{}, err
	}
	m, err := s.cfg.Memories.Restore(c.req.Context(), c.caller, id)
	if err != nil {
		return Memory{}, err
	}
	return memoryOf(m), nil
}

func (s *Server) ping(c *call, in PingRequest) (PingResponse, error) {
	ids := make([]catalog.MemoryID, len(in.MemoryIDs))
	for i, text := range in.MemoryIDs {
		var err error
		if ids[i], err = memoryIDFrom(text, fmt.Sprintf("memory_ids[%d]", i)); err != nil {
			return PingResponse{}, err
		}
	}
	if err := s.beginCompute(c); err != nil {
		return PingResponse{}, err
	}
	present, err := s.cfg.Memories.Ping(c.req.Context(), c.caller, ids)
	if err != nil {
		return PingResponse{}, err
	}
	out := PingResponse{Present: make(map[string]bool, len(ids))}
	for _, id := range ids {
		out.Present[id.String()] = present[id]
	}
	return out, nil
}
