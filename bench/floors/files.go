package main

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// files keeps a file for each upload.
type files struct {
	dir    *os.File
	direct bool
}

func newFiles(dir string, direct bool) (*files, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return &files{d, direct}, nil
}

// read is a static file server: net/http sends files with sendfile.
func (s *files) read(w http.ResponseWriter, r *http.Request, name string) {
	http.ServeFile(w, r, s.path(name))
}

func (s *files) path(name string) string { return filepath.Join(s.dir.Name(), filepath.Base(name)) }

func (s *files) begin(name string, total int64) (upload, error) {
	f, err := os.OpenFile(s.path(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	up := file{f: f, dir: s.dir, sum: sha256.New()}
	if !s.direct {
		return &up, nil
	}
	d, err := os.OpenFile(s.path(name), os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, errors.Join(err, f.Close()) // without direct I/O there is no such floor
	}
	if total > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, total); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, errors.Join(err, f.Close(), d.Close())
		}
	}
	return &directFile{file: up, d: d}, nil
}

// file is an upload that is written in the simplest way.
type file struct {
	f, dir *os.File
	sum    hash.Hash
	off    int64
}

func (u *file) write(body io.Reader, n int64) error {
	got, err := io.CopyBuffer(io.MultiWriter(u.sum, onlyWriter{u.f}), body, make([]byte, min(256<<10, max(n, 1))))
	u.off += got
	if err == nil && got != n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// onlyWriter hides ReadFrom, which would bypass the buffer.
type onlyWriter struct{ io.Writer }

func (u *file) end() ([]byte, error) {
	return u.sum.Sum(nil), errors.Join(u.f.Sync(), u.f.Close(), u.dir.Sync())
}
