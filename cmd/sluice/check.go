package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/system"
	"sluice/keeper"
	"sluice/store/folder"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// checkCmd reads and compares everything in a data folder.
type checkCmd struct {
	Data   string `default:"sluice-data" env:"SLUICE_DATA" placeholder:"DIR" help:"The data folder; no server may have it open."`
	Repair bool   `help:"Mend what can be mended. See above."`
	Rejoin bool   `help:"Take halves that don't belong together for one data folder from now on; with --repair. See above."`

	lost int64 // things that damaged metadata no longer have, or have perhaps in an older state
}

// Help is what --help says beside the flags.
func (checkCmd) Help() string {
	return `Reads every byte and every record past the caches, and compares them with their checksums and with
each other. Without --repair nothing in the folder is changed, not a byte and not a time. Each thing
that is wrong is one line: which memory, which bytes, which file. Exit status 0: all is well; 1:
something is wrong.

--repair computes anew what follows from other records (indexes, counters, references, reservations,
what is to be cleaned up); drops lost pieces of uploads under way, so that the client sends them
again; and marks memories whose bytes are damaged: they are listed, but not given out, and storing
the same bytes again heals them. The mark goes when a later check --repair finds the bytes right. It
deletes no bytes and no memory. Files that nothing names are listed; the server deletes them within
minutes of its start. It can be stopped at any time and repeated. With it, exit status 0 says that
everything that was wrong is mended.

Where tables of the metadata are rotten, cut or gone, --repair makes new metadata of all that can be
read, puts them in place, and keeps the old in DIR/meta.damaged-TIME. What is known to be missing is
named ("lost"), and so is what may be older than it was, or may have been deleted since ("older").
Memories come back from the events of their capsule where those have them, and contents by their
SHA-256; tokens that may have been revoked are void, and roles that nothing confirms are taken away;
content whose records are lost stays in DIR/content, and nothing deletes it until a check --repair
--rejoin says that it may. Exit status 1 says that this was done, and the next check says whether
all is well.

--rejoin, with --repair, is for a folder that is refused since its content is gone for good, an
older copy, or one of which nobody knows that it belongs to the metadata: what is there is one data
folder from now on, and content that is gone begins anew, empty. Make sure first that no disk is
merely not mounted. What is missing then is marked as damaged; storing the same bytes again heals
it.`
}

// foundLine is a finding as JSON.
type foundLine struct {
	Kind        keeper.Kind `json:"kind"`
	Text        string      `json:"text"`
	Capsule     string      `json:"capsule_id,omitzero"`
	Memory      string      `json:"memory_id,omitzero"`
	Session     string      `json:"session_id,omitzero"`
	File        string      `json:"file,omitzero"`
	Bytes       []int64     `json:"bytes,omitempty"` // the first and the last
	Note        bool        `json:"note,omitzero"`
	Remedy      string      `json:"remedy,omitzero"`
	Repaired    bool        `json:"repaired,omitzero"`
	Quarantined bool        `json:"quarantined,omitzero"`
	Error       string      `json:"error,omitzero"`
}

// summaryLine is the end, as JSON.
type summaryLine struct {
	Summary struct {
		Capsules    int64 `json:"capsules"`
		Memories    int64 `json:"memories"`
		Contents    int64 `json:"contents"`
		Sessions    int64 `json:"sessions"`
		Places      int64 `json:"places"`
		Bytes       int64 `json:"bytes"`
		Wrong       int64 `json:"wrong"`
		Mendable    int64 `json:"mendable"`
		Repaired    int64 `json:"repaired"`
		Quarantined int64 `json:"quarantined"`
		Notes       int64 `json:"notes"`
	} `json:"summary"`
}

// Run checks. A store may end the process when its metadata is damaged. That is a finding too, and
// the last one.
func (c *checkCmd) Run(e *env) error {
	if c.Rejoin && !c.Repair {
		return usageError("--rejoin changes the folder: it goes with --repair")
	}
	type result struct {
		sum keeper.Summary
		err error
	}
	died, done := make(chan error), make(chan result)
	go func() {
		sum, err := c.check(e, func(err error) {
			died <- err
			select {} // nothing may go on with this store
		})
		done <- result{sum, err}
	}()
	select {
	case err := <-died:
		c.report(e, keeper.Finding{Kind: keeper.KindRecord, Text: fmt.Sprintf(
			"the metadata in %s is damaged, and can't be read further: %v", filepath.Join(c.Data, "meta"), err,
		)})
		return fmt.Errorf("the check ended early; %w", errDamagedData)
	case r := <-done:
		if r.err != nil {
			return r.err
		}
		return c.conclude(e, r.sum)
	}
}

var errDamagedData = errors.New("the data folder is damaged")

// check opens the stores, and runs the check on them.
func (c *checkCmd) check(e *env, die func(error)) (sum keeper.Summary, err error) {
	var to slog.Handler = slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})
	if e.json {
		to = slog.NewJSONHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})
	}
	log := slog.New(to)
	if c.Repair {
		if sum, done, err := c.salvage(e, log, die); err != nil || done {
			return sum, err
		}
	}
	d, err := openData(
		c.Data, durable.Power, folder.Options{Existing: true, ReadOnly: !c.Repair, Rejoin: c.Rejoin, Log: log},
		pebblemeta.Options{Hook: upload.Hook(catalog.Bounds{}, nil), Die: die, Log: log, ReadOnly: !c.Repair},
		localblob.Options{Log: log, ReadOnly: !c.Repair},
	)
	if errors.Is(err, pebblemeta.ErrTables) {
		return sum, errors.Join(err, c.reportHoles(e, log, die))
	}
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return c.run(
		e, d.meta, d.blobs,
		func(place string) bool { return d.folder.KnownIncarnation(localblob.IncarnationOf(place)) },
	)
}

// run checks what is in stores.
func (c *checkCmd) run(
	e *env, meta *pebblemeta.DB, blobs *localblob.Store, known func(place string) bool,
) (keeper.Summary, error) {
	p := newProgress(e)
	defer p.close()
	defer p.end("check")
	return keeper.Check(e.ctx, keeper.CheckConfig{
		Sessions: meta.Sessions(), Catalog: meta.Catalog(), Blobs: blobs, Clock: system.Clock{}, Repair: c.Repair,
		Found:      func(f keeper.Finding) { c.report(e, f) },
		Progress:   func(done, total int64) { p.set("check", done, total) },
		File:       c.file,
		KnownPlace: known,
		Metadata:   func(ctx context.Context, found func(string, bool)) error { return meta.Verify(ctx, found) },
	})
}

// file gives the path of the file in which localblob keeps a place.
func (c *checkCmd) file(place string) string {
	file, _ := localblob.Where(place)
	return filepath.Join(c.Data, "content", file)
}

// report prints one finding.
func (c *checkCmd) report(e *env, f keeper.Finding) {
	line := foundLine{
		Kind: f.Kind, Text: f.Text, Capsule: f.Capsule, Note: f.Note, Remedy: f.Remedy, Repaired: f.Repaired,
		Quarantined: f.Quarantined,
	}
	if f.Memory != (catalog.MemoryID{}) {
		line.Memory = f.Memory.String()
	}
	if f.Session != 0 {
		line.Session = f.Session.String()
	}
	if f.Place != "" {
		line.File = c.file(f.Place)
	}
	if !f.Empty() {
		line.Bytes = []int64{f.Off, f.End - 1}
	}
	state, more := "wrong", ""
	switch {
	case f.Note:
		state = "note"
	case f.Kind == keeper.KindLost, f.Kind == keeper.KindOlder:
		state = string(f.Kind)
	case f.Repaired:
		state, more = "repaired", ": "+f.Remedy
	case f.Quarantined:
		state, more = "quarantined", ": "+f.Remedy
	case f.Err != nil:
		state, more, line.Error = "not repaired", ": "+f.Err.Error(), f.Err.Error()
	case f.Remedy != "":
		more = " (with --repair " + f.Remedy + ")"
	}
	e.print(line, "%s: %s%s", state, clean(f.Text), clean(more))
}

// conclude prints the summary.
func (c *checkCmd) conclude(e *env, s keeper.Summary) error {
	var line summaryLine
	l := &line.Summary
	l.Capsules, l.Memories, l.Contents = s.Capsules, s.Memories, s.Contents
	l.Sessions, l.Places, l.Bytes = s.Sessions, s.Places, s.Bytes
	l.Wrong, l.Mendable, l.Repaired, l.Quarantined, l.Notes = s.Wrong, s.Mendable, s.Repaired, s.Quarantined, s.Notes
	verdict := "all is well"
	switch {
	case c.lost > 0:
		verdict = fmt.Sprintf("the metadata were made anew of what was left: %d things that are damaged, lost or "+
			"perhaps older are named above; %d were repaired; %d are wrong still, %d of them quarantined",
			c.lost, s.Repaired, s.Left()-c.lost, s.Quarantined)
	case s.Left() > 0 && c.Repair:
		verdict = fmt.Sprintf(
			"%d things are wrong still, %d of them quarantined; %d were repaired", s.Left(), s.Quarantined, s.Repaired,
		)
	case s.Left() > 0:
		verdict = fmt.Sprintf(
			"%d things are wrong; for %d of them sluice check --repair can do something", s.Left(), s.Mendable,
		)
	case s.Repaired > 0:
		verdict = fmt.Sprintf("%d things were wrong, and all are repaired", s.Repaired)
	}
	e.print(
		line, "%d memories in %d capsules, %d sessions, %d places; %s read: %s", s.Memories, s.Capsules, s.Sessions,
		s.Places, size(s.Bytes), verdict,
	)
	if s.Left() > 0 {
		return errSaid
	}
	return nil
}
