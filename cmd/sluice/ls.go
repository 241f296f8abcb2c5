package main

import (
	"errors"

	"sluice/api"
)

type lsCmd struct {
	asking
	Capsule    string `default:"default" env:"SLUICE_CAPSULE" help:"The capsule."`
	PathPrefix string `placeholder:"PATH" help:"Only this folder."`
	Name       string `help:"Only this name."`
	SHA256     string `name:"sha256" placeholder:"HEX" help:"Only this content."`
	Trash      bool   `help:"What is in the trash."`
	Limit      int    `default:"0" help:"How many at most; 0: all."`
}

// Run lists memories, newest first.
func (c *lsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	if c.Limit < 0 {
		return usageError("--limit must not be negative")
	}
	q := api.MemoryQuery{CapsuleID: c.Capsule, PathPrefix: c.PathPrefix, Name: c.Name, SHA256: c.SHA256, Trash: c.Trash}
	n := 0
	return pages(func(cursor string) (string, error) {
		q.Cursor, q.Limit = cursor, 1000
		if c.Limit > 0 {
			q.Limit = min(q.Limit, c.Limit-n)
		}
		page, err := client.ListMemories(e.ctx, q)
		if err != nil {
			return "", ofCapsule(c.Capsule, err)
		}
		for _, m := range page.Memories {
			e.memory(m)
		}
		if n += len(page.Memories); c.Limit > 0 && n >= c.Limit {
			return "", nil
		}
		return page.NextCursor, nil
	})
}

// pages fetches page after page.
func pages(fetch func(cursor string) (next string, err error)) error {
	for cursor := ""; ; {
		next, err := fetch(cursor)
		if err != nil || next == "" {
			return err
		}
		cursor = next
	}
}

// each runs do for all ids, and reports those that failed.
func (e *env) each(ids []string, do func(id string) error) error {
	failed := false
	for _, id := range ids {
		err := do(id)
		if err != nil && !errors.Is(err, errSaid) {
			e.failOf(id, err)
		}
		failed = failed || err != nil
	}
	if failed {
		return errSaid
	}
	return nil
}

type rmCmd struct {
	asking
	IDs   []string `arg:"" name:"id" help:"Memories."`
	Purge bool     `help:"Delete for good, also what is in the trash."`
}

// Run deletes memories.
func (c *rmCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return e.each(c.IDs, func(id string) error {
		if err := client.DeleteMemory(e.ctx, id, c.Purge); err != nil {
			return err
		}
		if c.Purge {
			e.print(map[string]string{"memory_id": id, "state": "purged"}, "%s is deleted for good", clean(id))
		} else {
			e.print(
				map[string]string{"memory_id": id, "state": "trashed"},
				"%s is in the trash; bring it back with: sluice undelete %s", clean(id), clean(id),
			)
		}
		return nil
	})
}

type undeleteCmd struct {
	asking
	IDs []string `arg:"" name:"id" help:"Memories in the trash."`
}

// Run restores memories.
func (c *undeleteCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return e.each(c.IDs, func(id string) error {
		m, err := client.RestoreMemory(e.ctx, id)
		if err == nil {
			e.memory(m)
		}
		return err
	})
}
