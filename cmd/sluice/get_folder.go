package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"sluice/api"
)

// atATime is how many small files of a folder are fetched at a time without --parallel. They wait
// for the disk, not for the link.
const atATime = 16

// folder fetches all memories below a path, small ones several at a time. If several have one path
// and name, it takes the newest.
func (g *getter) folder() error {
	root := cmp.Or(g.c.Output, ".")
	names := newNames(root)
	failed, left := false, 0 // failed is guarded by mu
	var wg sync.WaitGroup
	slots := make(chan struct{}, atMost(cmp.Or(g.parallel, atATime), descriptorsOfGet))
	one := func(m api.Memory, dest string, renamed bool) {
		err := makeBelow(root, dest)
		if err == nil {
			err = g.file(m, dest)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if err == nil && renamed {
			g.e.report(
				map[string]any{"renamed": map[string]string{"memory_id": m.MemoryID, "name": m.Name, "file": dest}},
				"its name is taken here by another one: %s  %s", m.MemoryID, clean(dest),
			)
		}
		if err == nil {
			return
		}
		failed = true
		if g.e.ctx.Err() == nil { // a stop is reported once, at the end
			g.e.failOf(dest, err)
		}
	}
	err := pages(func(cursor string) (string, error) {
		var page api.MemoryList
		err := g.ask(func(ctx context.Context) (err error) {
			page, err = g.client.ListMemories(ctx, api.MemoryQuery{
				CapsuleID: g.c.Capsule, PathPrefix: g.c.PathPrefix, Cursor: cursor, Limit: 1000,
			})
			return err
		})
		if err != nil {
			return "", ofCapsule(g.c.Capsule, err)
		}
		for _, m := range page.Memories {
			dest, older, renamed := names.file(m.Path, m.Name)
			if older {
				left++
				g.mu.Lock()
				g.e.leftOut(m.MemoryID+"  "+dest, "a newer one has the same name")
				g.mu.Unlock()
				continue
			}
			if m.Bytes >= alone {
				wg.Wait()
				one(m, dest, renamed)
			} else {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					one(m, dest, renamed)
				})
			}
			if g.e.ctx.Err() != nil {
				return "", errStopped
			}
		}
		return page.NextCursor, nil
	})
	wg.Wait()
	g.e.sayLeftOut(left)
	switch {
	case g.e.ctx.Err() != nil:
		return errStopped
	case err != nil:
		return err
	case failed:
		return errSaid
	case len(names.exact) == 0:
		return fmt.Errorf("there is nothing below %s", g.c.PathPrefix)
	}
	return nil
}

// makeBelow makes the folders of a file below root. It refuses a file that a link leads out of
// root, so that no name from the server becomes a file elsewhere.
func makeBelow(root, dest string) error {
	if err := os.MkdirAll(root, 0o777); err != nil {
		return err
	}
	in, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer in.Close()
	below, err := filepath.Rel(root, dest)
	if err != nil {
		return err
	}
	if dir := filepath.Dir(below); dir != "." {
		if err := in.MkdirAll(dir, 0o777); err != nil {
			if strings.Contains(err.Error(), "escapes") {
				err = errLeadsOut
			}
			return err
		}
	}
	info, err := in.Lstat(below)
	if err == nil && info.Mode()&os.ModeSymlink != 0 {
		return errors.New("a symbolic link has this name; a file of a folder is not written through one")
	}
	return nil
}

var errLeadsOut = errors.New(
	"a symbolic link leads out of the folder that is written to; move it, or fetch that folder by itself with -o",
)
