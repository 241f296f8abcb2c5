package main

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/api"
	"sluice/download"
	"sluice/internal/backoff"
)

type getCmd struct {
	remote
	ID         string        `arg:"" optional:"" help:"The memory; or the address of a read link, which needs no token."`
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
	client, link, err := c.from()
	if err != nil {
		return err
	}
	g := &getter{e: e, c: c, client: client, link: link, bars: newProgress(e), pace: backoff.New(time.Now, rand.Reader)}
	g.log = newMessages(g.bars)
	if c.Parallel != nil {
		g.parallel = *c.Parallel
	}
	defer g.bars.close()
	if c.PathPrefix != "" {
		return g.folder()
	}
	name := c.ID
	if link != "" {
		name = "the read link" // its address is a secret
	}
	return e.each([]string{name}, func(string) error {
		m, err := g.describe()
		if err != nil {
			return err
		}
		dest := c.Output
		if dest == "" {
			dest = safeName(m.Name)
		} else if info, err := os.Stat(dest); err == nil && info.IsDir() {
			dest = filepath.Join(dest, safeName(m.Name))
		}
		if c.Output == "-" {
			return g.ofLink(g.stream(m, e.stdout))
		}
		if err := g.target(m, dest); err != nil {
			e.failOf(dest, g.ofLink(err))
			return errSaid
		}
		return nil
	})
}

// from gives a client of the server that has the memory, and the read link if there is one.
func (c *getCmd) from() (client *api.Client, link string, err error) {
	if !isLink(c.ID) {
		client, err = c.client()
		return client, "", err
	}
	server, link, err := splitLink(c.ID)
	return api.NewClient(server, "", newHTTPClient()), link, err
}

type getter struct {
	e      *env
	c      *getCmd
	client *api.Client
	link   string // "" without one
	bars   *progress
	log    *slog.Logger
	pace   *backoff.Shared
	// parallel is how many requests run at a time; 0: as many as bring the most over the link.
	parallel int

	mu sync.Mutex // guards the terminal, and the outcome of a folder
}

// got is the result of one get.
type got struct {
	MemoryID string `json:"memory_id,omitzero"` // a read link does not tell it
	File     string `json:"file"`
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"`
}

// file fetches a memory into a regular file. It replaces a file only with --force. Its errors do
// not name the file.
func (g *getter) file(m api.Memory, dest string) error {
	src, err := newSource(g.client, g.link, m)
	if err != nil {
		return err
	}
	_, err = os.Lstat(dest)
	there := err == nil
	if there {
		same, err := sameContent(dest, src)
		if err != nil {
			return err
		}
		if !same && !g.c.Force {
			return errThere
		}
		if same {
			g.report(m, dest)
			return nil
		}
	} else if _, err := os.Stat(filepath.Dir(dest)); err != nil {
		return err
	}
	begun := false
	err = download.Get(g.e.ctx, download.Request{
		Source: src, Dest: dest, New: !there, Parallel: g.parallel, Patience: g.c.Patience, Pace: g.pace, Log: g.log,
		Progress: func(done, total int64) {
			if !begun && done > 0 && done < total {
				g.log.Info("going on", "file", dest, "bytes_there", done, "bytes", total)
			}
			begun = true
			g.bars.set(dest, done, total)
		},
	})
	g.bars.end(dest)
	if g.e.ctx.Err() != nil {
		return errStopped
	}
	switch {
	case err == nil:
		g.report(m, dest)
	case errors.Is(err, fs.ErrExist) && !there:
		return errThere // it appeared meanwhile
	}
	return err
}

var errThere = errors.New("a file of this name is there already and differs; give another name with -o, or --force")

func (g *getter) report(m api.Memory, dest string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := cmp.Or(m.MemoryID, m.SHA256)
	g.e.print(got{m.MemoryID, dest, m.Bytes, m.SHA256}, "%s  %s  %s", id, size(m.Bytes), clean(dest))
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
