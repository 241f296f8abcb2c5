package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"syscall"
	"time"

	"sluice/api"
	"sluice/sender"
)

// dryRun asks what would become of files, instead of sending them: it hashes them, and lets the
// server precheck them, so many at a time.
type dryRun struct {
	p        *putter
	client   *api.Client
	capsule  string
	patience time.Duration
	stop     func() // ends the command early

	files []sender.File // that are not asked about yet
	req   api.PrecheckRequest
	err   error // why the server can't be asked; then nothing more is done

	sum struct { // over all files
		Send      int64 `json:"send"`
		SendBytes int64 `json:"send_bytes"`
		There     int64 `json:"there"`
		Refused   int64 `json:"refused"`
	}
}

// prechecksAtOnce is how many files one precheck may have.
const prechecksAtOnce = 1000

// dryResult is a file that would be sent, or that is there already.
type dryResult struct {
	File     string `json:"file"`
	State    string `json:"state"` // "send" or "there"
	Name     string `json:"name"`
	Path     string `json:"path,omitzero"`
	Bytes    int64  `json:"bytes"`
	MemoryID string `json:"memory_id,omitzero"` // for those that are there
}

// add hashes a file, and asks about it once enough files have come together.
func (d *dryRun) add(ctx context.Context, f sender.File) {
	if d.err != nil || ctx.Err() != nil {
		return
	}
	sum, n, err := d.hash(ctx, f.Disk)
	d.p.bars.end(f.Disk)
	if err != nil {
		d.p.done(f, nil, err)
		return
	}
	d.files = append(d.files, f)
	d.req.Files = append(d.req.Files, api.PrecheckFile{
		Name: f.Name, Path: f.Dir, Bytes: n, MIMEType: f.MIME, SHA256: sum,
	})
	if len(d.files) == prechecksAtOnce {
		d.ask(ctx)
	}
}

// hash reads a file to its end.
func (d *dryRun) hash(ctx context.Context, path string) (sum string, n int64, err error) {
	disk, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it never blocks, as for a pipe
	if err != nil {
		return "", 0, err
	}
	defer disk.Close()
	total := int64(-1)
	if info, err := disk.Stat(); err == nil {
		total = info.Size()
	}
	h, b := sha256.New(), make([]byte, 256<<10)
	for {
		if err := context.Cause(ctx); err != nil {
			return "", 0, err
		}
		read, err := disk.Read(b)
		h.Write(b[:read])
		n += int64(read)
		d.p.bars.set(path, n, total)
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), n, nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}

// ask prechecks the files that have come together, also if there are none: the answer says whether
// anything can be stored there.
func (d *dryRun) ask(ctx context.Context) {
	if d.err != nil || ctx.Err() != nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	d.req.CapsuleID = d.capsule
	results, err := d.client.Precheck(limited, d.req)
	if err != nil {
		d.err = ofCapsule(d.capsule, err)
		d.stop()
		return
	}
	for i, r := range results {
		d.result(d.files[i], d.req.Files[i], r)
	}
	d.files, d.req.Files = d.files[:0], d.req.Files[:0]
}

// result reports about one file. What would be sent counts for the files behind it.
func (d *dryRun) result(f sender.File, asked api.PrecheckFile, r api.PrecheckResult) {
	out := dryResult{File: f.Disk, Name: f.Name, Path: f.Dir, Bytes: asked.Bytes, MemoryID: r.MemoryID}
	switch {
	case !r.OK:
		d.sum.Refused++
		d.p.done(f, nil, &api.Error{Problem: api.Problem{Fault: api.Fault{
			Status: r.Status, Code: r.Code, Detail: r.Detail, Limit: r.Limit, Left: r.Left,
		}}})
	case r.MemoryID != "":
		d.sum.There++
		out.State = "there"
		d.p.e.print(out, "there  %12s  %s  as %s", size(out.Bytes), clean(f.Disk), clean(r.MemoryID))
	default:
		d.sum.Send++
		d.sum.SendBytes += asked.Bytes
		d.req.EarlierFiles++
		d.req.EarlierBytes += asked.Bytes
		out.State = "send"
		d.p.e.print(out, "send   %12s  %s", size(out.Bytes), clean(f.Disk))
	}
}

// end asks about the rest and says what all of it comes to.
func (d *dryRun) end(ctx context.Context) error {
	d.ask(ctx)
	if d.err != nil {
		return d.err
	}
	if ctx.Err() == nil {
		d.p.e.report(
			map[string]any{"dry_run": d.sum},
			"%d would be sent (%s), %d are there already, %d would be refused; nothing was sent",
			d.sum.Send, size(d.sum.SendBytes), d.sum.There, d.sum.Refused,
		)
	}
	return nil
}
