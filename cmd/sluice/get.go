package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"sluice/api"
	"sluice/download"
)

type getCmd struct {
	remote
	ID         string        `arg:"" optional:"" help:"The memory."`
	Output     string        `short:"o" placeholder:"FILE" help:"Where to write: a file, - for standard output, or with --path-prefix a folder. Else the memory's name in this folder."`
	PathPrefix string        `placeholder:"PATH" help:"Fetch all memories of this folder instead of one."`
	Capsule    string        `default:"default" env:"SLUICE_CAPSULE" help:"The capsule of --path-prefix."`
	Parallel   *int          `placeholder:"N" help:"Requests at a time, 1 to 64; else as many as the link gives most with."`
	Patience   time.Duration `default:"5m" help:"How long to go on trying while nothing arrives."`
	Force      bool          `help:"Replace a file that is there and differs."`
}

// Run fetches.
func (c *getCmd) Run(e *env) error {
	switch {
	case (c.ID == "") == (c.PathPrefix == ""):
		return usageError("get needs the id of a memory, or --path-prefix")
	case c.Parallel != nil && (*c.Parallel < 1 || *c.Parallel > 64):
		return usageError("--parallel must be 1 to 64")
	case c.PathPrefix != "" && c.Output == "-":
		return usageError("a folder can't be written to standard output")
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	g := &getter{e: e, c: c, client: client, bars: newProgress(e)}
	if c.Parallel != nil {
		g.parallel = *c.Parallel
	}
	defer g.bars.close()
	if c.PathPrefix != "" {
		return g.folder()
	}
	return e.each([]string{c.ID}, func(id string) error {
		m, err := client.ReadMemory(e.ctx, id)
		if err != nil {
			return err
		}
		if c.Output == "-" {
			return g.stream(m)
		}
		dest := c.Output
		if dest == "" {
			dest = safeName(m.Name)
		} else if info, err := os.Stat(dest); err == nil && info.IsDir() {
			dest = filepath.Join(dest, safeName(m.Name))
		}
		if err := g.file(m, dest); err != nil {
			e.failOf(dest, err)
			return errSaid
		}
		return nil
	})
}

type getter struct {
	e      *env
	c      *getCmd
	client *api.Client
	bars   *progress
	// parallel is how many requests run at a time; 0: as many as the link gives most with.
	parallel int

	mu sync.Mutex // of the terminal, and of a folder's outcome
}

// got is the result of one get.
type got struct {
	MemoryID string `json:"memory_id"`
	File     string `json:"file"`
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"`
}

// file fetches a memory into a file. Its errors do not name the file.
func (g *getter) file(m api.Memory, dest string) error {
	src, err := newSource(g.client, m)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dest); err == nil {
		same, err := sameContent(dest, src)
		if err != nil {
			return err
		}
		if !same && !g.c.Force {
			return errors.New("a file of this name is there already and differs; give another name with -o, or --force")
		}
		if same {
			g.tell(m, dest)
			return nil
		}
	} else if _, err := os.Stat(filepath.Dir(dest)); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if !g.e.json {
		log = slog.New(&messages{out: g.bars})
	}
	begun := false
	err = download.Get(g.e.ctx, download.Request{
		Source: src, Dest: dest, Parallel: g.parallel, Patience: g.c.Patience, Log: log,
		Progress: func(done, total int64) {
			if !begun && done > 0 && done < total {
				log.Info("going on", "file", dest, "bytes_there", done, "bytes", total)
			}
			begun = true
			g.bars.set(dest, done, total)
		},
	})
	g.bars.end(dest)
	if g.e.ctx.Err() != nil {
		return errStopped
	}
	if err == nil {
		g.tell(m, dest)
	}
	return err
}

func (g *getter) tell(m api.Memory, dest string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.e.print(got{m.MemoryID, dest, m.Bytes, m.SHA256}, "%s  %s  %s", m.MemoryID, size(m.Bytes), clean(dest))
}

// sameContent reports whether the file has the content already.
func sameContent(dest string, src *source) (bool, error) {
	info, err := os.Stat(dest)
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, errors.New("it is not a regular file")
	}
	if info.Size() != src.m.Bytes {
		return false, nil
	}
	f, err := os.Open(dest)
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, err
	}
	return [32]byte(h.Sum(nil)) == src.sum, nil
}

// atATime is how many small files of a folder are fetched at a time where their number is not given: they wait for the disk, not for the link.
const atATime = 16

// folder fetches all memories below a path, small ones several at a time. Of several with one path and name the newest counts.
func (g *getter) folder() error {
	root := g.c.Output
	if root == "" {
		root = "."
	}
	seen := map[string]bool{}
	failed := false // under mu
	var wg sync.WaitGroup
	slots := make(chan struct{}, cmp.Or(g.parallel, atATime))
	one := func(m api.Memory, dest string) {
		err := os.MkdirAll(filepath.Dir(dest), 0o777)
		if err == nil {
			err = g.file(m, dest)
		}
		if err == nil {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		failed = true
		if g.e.ctx.Err() == nil { // that it was stopped is said once, at the end
			g.e.failOf(dest, err)
		}
	}
	err := pages(func(cursor string) (string, error) {
		page, err := g.client.ListMemories(g.e.ctx, api.MemoryQuery{CapsuleID: g.c.Capsule, PathPrefix: g.c.PathPrefix, Cursor: cursor, Limit: 1000})
		if err != nil {
			return "", ofCapsule(g.c.Capsule, err)
		}
		for _, m := range page.Memories {
			dest := filepath.Join(root, safePath(m.Path), safeName(m.Name))
			if seen[dest] {
				g.mu.Lock()
				g.e.say("left out, as a newer one has the same name: %s  %s", m.MemoryID, clean(dest))
				g.mu.Unlock()
				continue
			}
			seen[dest] = true
			if m.Bytes >= alone {
				wg.Wait()
				one(m, dest)
			} else {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					one(m, dest)
				})
			}
			if g.e.ctx.Err() != nil {
				return "", errStopped
			}
		}
		return page.NextCursor, nil
	})
	wg.Wait()
	switch {
	case g.e.ctx.Err() != nil:
		return errStopped
	case err != nil:
		return err
	case failed:
		return errSaid
	case len(seen) == 0:
		return fmt.Errorf("there is nothing below %s", g.c.PathPrefix)
	}
	return nil
}

var errStopped = errors.New("stopped; the same command goes on where it was")

// stream writes a memory to standard output in order, going on where a connection broke.
func (g *getter) stream(m api.Memory) error {
	h := sha256.New()
	out := io.MultiWriter(g.e.stdout, h)
	at, moved := int64(0), time.Now()
	for at < m.Bytes {
		body, _, err := g.client.Content(g.e.ctx, m.MemoryID, at, -1)
		if err == nil {
			var n int64
			n, err = io.Copy(&writing{w: out}, body)
			body.Close()
			if at += n; n > 0 {
				moved = time.Now()
			}
			if err == nil && at < m.Bytes {
				err = io.ErrUnexpectedEOF
			}
		}
		var broken *writeError
		switch {
		case err == nil:
		case g.e.ctx.Err() != nil || errors.As(err, &broken) || permanent(err) || time.Since(moved) > g.c.Patience:
			return err
		default:
			select {
			case <-time.After(time.Second):
			case <-g.e.ctx.Done():
			}
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != m.SHA256 {
		return fmt.Errorf("what arrived has SHA-256 %s, not %s", got, m.SHA256)
	}
	return nil
}

// writing marks the errors of standard output, which trying again does not mend.
type writing struct{ w io.Writer }

type writeError struct{ error }

func (w *writing) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

// source gives the bytes of a memory.
type source struct {
	client *api.Client
	m      api.Memory
	sum    [32]byte
}

func newSource(client *api.Client, m api.Memory) (*source, error) {
	s := &source{client: client, m: m}
	if n, err := hex.Decode(s.sum[:], []byte(m.SHA256)); err != nil || n != len(s.sum) {
		return nil, fmt.Errorf("the server names no SHA-256: %.80q", m.SHA256)
	}
	return s, nil
}

// Size implements download.Source.
func (s *source) Size() int64 { return s.m.Bytes }

// SHA256 implements download.Source.
func (s *source) SHA256() [32]byte { return s.sum }

// Open implements download.Source.
func (s *source) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	body, _, err := s.client.Content(ctx, s.m.MemoryID, off, n)
	if err != nil && permanent(err) {
		err = fmt.Errorf("%w: %w", download.ErrPermanent, err)
	}
	return body, err
}

// permanent: trying again won't cure it.
func permanent(err error) bool { return api.ClassOf(err) == api.Permanent }

// safeName makes a memory's name that of a file in one folder, whatever it holds.
func safeName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, name)
	if name == "" || name == "." || name == ".." {
		return strings.Repeat("_", max(len(name), 1))
	}
	return name
}

// safePath makes a memory's path one below a folder.
func safePath(p string) string {
	var parts []string
	for part := range strings.SplitSeq(p, "/") {
		if part != "" {
			parts = append(parts, safeName(part))
		}
	}
	return filepath.FromSlash(path.Join(parts...))
}
