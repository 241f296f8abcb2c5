package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"sluice/api"
)

// Demand says how much of the answers must still hold.
type Demand int

const (
	// All of it.
	Everything Demand = iota
	// ButChunks forgives chunks that the server reports missing. After a power loss they need not
	// survive if they were not promised to. Chunks that are there must have the bytes that were
	// sent.
	ButChunks
	// ButDoubted forgives chunks that the server finds missing only when it is asked to finish. A
	// file system may lose bytes that it could not write, without a sign that the server could see.
	ButDoubted
)

// Check asks the server for everything that was answered. It also finds out about each request
// without an answer: that request must have had its whole effect or none.
func (f *Facts) Check(ctx context.Context, c *api.Client, want Demand) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	listed, err := list(ctx, c, false)
	if err != nil {
		return err
	}
	trash, err := list(ctx, c, true)
	if err != nil {
		return err
	}
	if err := f.checkUploads(ctx, c, want); err != nil {
		return err
	}
	for id, m := range f.memories {
		state := "purged"
		switch {
		case listed[id] && trash[id]:
			return fmt.Errorf("memory %s is listed, and in the trash", id)
		case listed[id]:
			state = "stored"
		case trash[id]:
			state = "trashed"
		}
		if state != m.state && (m.asked == "" || state != m.asked) {
			return fmt.Errorf("memory %s is %s, not %s (asked for: %q)", id, state, m.state, m.asked)
		}
		m.state, m.asked = state, ""
		if state != "stored" {
			continue
		}
		b, err := read(ctx, c, id)
		if err != nil || sum(b) != m.sum {
			return fmt.Errorf("memory %s: %d bytes that are not what was stored, %w", id, len(b), err)
		}
	}
	// A create whose answer was lost is sent again, and is one memory.
	for idem, m := range f.creates {
		one := &Client{Facts: New(), api: c}
		if err := one.createAs(ctx, idem, &memory{sum: m.sum, body: m.body, state: "stored"}); err != nil {
			return fmt.Errorf("create %s again: %w", idem, err)
		}
		for id, made := range one.memories {
			f.memories[id] = made
		}
		page, err := c.ListMemories(ctx, api.MemoryQuery{Name: idem, Limit: 10})
		if err != nil || len(page.Memories) != 1 {
			return fmt.Errorf("create %s made %d memories, %w", idem, len(page.Memories), err)
		}
		delete(f.creates, idem)
	}
	return f.checkCounters(ctx, c)
}

func list(ctx context.Context, c *api.Client, trash bool) (map[string]bool, error) {
	all := map[string]bool{}
	for cursor := ""; ; {
		page, err := c.ListMemories(ctx, api.MemoryQuery{Trash: trash, Limit: 1000, Cursor: cursor})
		if err != nil {
			return nil, fmt.Errorf("listing: %w", err)
		}
		for _, m := range page.Memories {
			all[m.MemoryID] = true
		}
		if cursor = page.NextCursor; cursor == "" {
			return all, nil
		}
	}
}

func (f *Facts) checkUploads(ctx context.Context, c *api.Client, want Demand) error {
	for id, u := range f.uploads {
		s, err := c.Status(ctx, id, true)
		if err != nil {
			return fmt.Errorf("session %s (%s, %s): %w", id, u.name, u.state, err)
		}
		if s.State != u.state && (u.asked == "" || s.State != u.asked) {
			return fmt.Errorf("session %s is %s, not %s (asked for: %q)", id, s.State, u.state, u.asked)
		}
		if s.State == "finished" && u.state != "finished" {
			f.memories[s.MemoryID] = &memory{sum: sum(u.content()), state: "stored"}
		}
		u.state, u.asked = s.State, ""
		if u.state != "open" {
			continue
		}
		for i := range u.acked {
			sent, got := fmt.Sprintf("%08x", crc(u.chunks[i])), s.CRC32C[fmt.Sprint(i)]
			if want != Everything && got == "" && missing(s, int64(i)) {
				delete(u.acked, i) // its client sends it again
			} else if got != sent {
				return fmt.Errorf("session %s: chunk %d was acknowledged, and has CRC %q, not %s", id, i, got, sent)
			}
		}
	}
	for _, ids := range f.batches {
		states := map[string]int{}
		for _, id := range ids {
			states[f.uploads[id].state]++
		}
		if len(states) > 1 {
			return fmt.Errorf("a batch was carried out in part: %v", states)
		}
	}
	clear(f.batches)
	return nil
}

// missing reports whether the server says that it lacks a chunk.
func missing(s api.Session, chunk int64) bool {
	return slices.ContainsFunc(s.Missing, func(r api.Range) bool { return r[0] <= chunk && chunk <= r[1] })
}

// checkCounters compares the capsule's counters with the memories and sessions there.
func (f *Facts) checkCounters(ctx context.Context, c *api.Client) error {
	row, err := c.ReadCapsule(ctx, "default")
	if err != nil {
		return err
	}
	var stored, trashed, open int64
	for _, m := range f.memories {
		switch m.state {
		case "stored":
			stored++
		case "trashed":
			trashed++
		}
	}
	for _, u := range f.uploads {
		if u.state == "open" {
			open++
		}
	}
	// A begin without an answer may have made a session that no client knows. So there may be more
	// sessions than the facts have.
	if row.Memories != stored+trashed || row.Trashed != trashed || row.OpenSessions < open {
		return fmt.Errorf("the capsule counts %d memories, %d of them in the trash, and %d open sessions; there are "+
			"%d, %d and %d",
			row.Memories, row.Trashed, row.OpenSessions, stored+trashed, trashed, open)
	}
	st, err := c.AdminStats(ctx)
	if err != nil {
		return err
	}
	if st.Open != row.OpenSessions || st.Sealed != 0 {
		return fmt.Errorf(
			"%d sessions are open and %d sealed, the capsule counts %d", st.Open, st.Sealed, row.OpenSessions,
		)
	}
	return nil
}

// FinishAll lets every client go on to its end.
func (f *Facts) FinishAll(ctx context.Context, c *api.Client, want Demand) error {
	one := &Client{Facts: f, api: c}
	for _, u := range f.take(1 << 30) {
		m, err := u.finish(ctx, c)
		for range 5 {
			if want != ButDoubted || !lacks(err) {
				break
			}
			s, failed := c.Status(ctx, u.id, false)
			if failed != nil {
				return failed
			}
			maps.DeleteFunc(u.acked, func(i int, _ bool) bool { return missing(s, int64(i)) })
			m, err = u.finish(ctx, c)
		}
		if err != nil {
			return fmt.Errorf("going on with session %s: %w", u.id, err)
		}
		if m.SHA256 != sum(u.content()) {
			return errors.New("finish answered another digest")
		}
		one.finished(u, m)
	}
	return nil
}

// lacks reports whether the server has found that bytes are lost. Then the status says which.
func lacks(err error) bool {
	var refused *api.Error
	return errors.As(err, &refused) && (refused.Code == api.CodeIncomplete || refused.Code == api.CodeSuperseded)
}

// finish sends the chunks that were not acknowledged, and ends the upload.
func (u *upload) finish(ctx context.Context, c *api.Client) (m api.Memory, err error) {
	for i := range u.chunks {
		if !u.acked[i] {
			if err := c.PutChunk(
				ctx, u.id, int64(i), reader(u.chunks[i]), int64(len(u.chunks[i])), api.PutOptions{},
			); err != nil {
				return m, err
			}
		}
	}
	b := u.content()
	return c.Finish(ctx, api.FinishRequest{SessionID: u.id, SHA256: sum(b), TotalLen: int64(len(b))})
}
