package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/text/unicode/norm"

	"sluice/download"
	"sluice/sender"
)

// folder sends a folder with its paths. It follows a link that is named on the command line, and no
// link in the folder. It reports and counts what it leaves out, and fails then.
func (p *putter) folder(ctx context.Context, root string) {
	abs, err := filepath.Abs(root)
	if err != nil {
		p.done(sender.File{Disk: root}, nil, err)
		return
	}
	ours, err := isData(root)
	if err == nil && ours {
		err = errData
	}
	if err != nil {
		p.done(sender.File{Disk: root}, nil, err)
		return
	}
	// The paths of the folders in the server, by their paths on the disk.
	stored := map[string]string{".": p.under("", filepath.Base(abs), abs)}
	err = filepath.WalkDir(root+string(filepath.Separator), func(disk string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p.done(sender.File{Disk: disk}, nil, err)
			return nil
		}
		rel, err := filepath.Rel(root, disk)
		if err != nil || rel == "." {
			return err
		}
		if d.IsDir() {
			ours, err := isData(disk)
			if err != nil {
				p.done(sender.File{Disk: disk}, nil, err)
			}
			if ours {
				p.leaveOut(disk, "it is the data folder of a Sluice server")
			}
			if err != nil || ours {
				return fs.SkipDir
			}
			stored[rel] = p.under(stored[filepath.Dir(rel)], d.Name(), filepath.Join(abs, rel))
			return nil
		}
		if !d.Type().IsRegular() {
			p.leaveOut(disk, whyNot(disk, d.Type()))
			return nil
		}
		own, err := download.IsOwn(disk)
		if err == nil && own {
			p.leaveOut(disk, "it is half of a get that goes on")
			return nil
		}
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if err != nil {
			p.done(sender.File{Disk: disk}, nil, err)
			return nil
		}
		p.send(
			ctx,
			sender.File{
				Disk: disk, Name: d.Name(), Dir: strings.Trim(stored[filepath.Dir(rel)], "/"), MIME: mimeOf(disk),
			},
			info.Size(),
		)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		p.done(sender.File{Disk: root}, nil, err)
	}
}

// under gives the path under which a folder is stored. If two folders have one name in NFC, or one
// name on the command line, the second gets a number. Else two files in them with one name would be
// one file for get.
func (p *putter) under(parent, name, disk string) string {
	plain := path.Join(parent, norm.NFC.String(name))
	for i := 1; ; i++ {
		as := plain
		if i > 1 {
			as += "~" + strconv.Itoa(i)
		}
		switch before, taken := p.dirs[as]; {
		case !taken:
			p.dirs[as] = disk
			if i > 1 {
				p.e.report(
					map[string]any{"renamed": map[string]string{"of": disk, "path": as}},
					"stored as %s, as another folder has its name: %s", clean(as), clean(disk),
				)
			}
			return as
		case before == disk:
			return as
		}
	}
}

// whyNot says why something in a folder is left out that is neither a folder nor a regular file.
func whyNot(disk string, kind fs.FileMode) string {
	switch {
	case kind&fs.ModeSymlink != 0:
		if _, err := os.Stat(disk); err != nil {
			return "it is a link that leads nowhere"
		}
		return "it is a link (name it itself to store what it leads to)"
	case kind&fs.ModeNamedPipe != 0:
		return "it is a pipe"
	case kind&fs.ModeSocket != 0:
		return "it is a socket"
	case kind&fs.ModeDevice != 0:
		return "it is a device"
	}
	return "it is no regular file"
}

// leaveOut reports something in a folder that is not stored. The exit status says so too, so that
// nobody deletes the folder in the belief that all of it is stored.
func (p *putter) leaveOut(what, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left++
	p.failed = true
	p.e.leftOut(what, why)
}

var errData = errors.New(
	"it is the data folder of a Sluice server, whose tokens would be stored with it; it is backed up with: sluice " +
		"backup",
)

// isData reports whether a folder is a server's data folder, or a half of one, by the files that
// mark them.
func isData(dir string) (bool, error) {
	for name, begins := range map[string]string{
		"meta/FORMAT": "sluice metadata,", "content/format": "sluice content,", "FORMAT": "sluice metadata,",
		"format": "sluice content,",
	} {
		is, err := beginsWith(filepath.Join(dir, filepath.FromSlash(name)), begins)
		if is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// beginsWith reports whether a regular file begins with a text. A file that can't be opened marks
// nothing.
func beginsWith(name, text string) (bool, error) {
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
		return false, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	b := make([]byte, len(text))
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return string(b[:n]) == text, err
}
